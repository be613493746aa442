//! Memory for devices: uncached blocks, and the registers of devices themselves.
//!
//! The simulated computer has no device whose registers could be mapped. A driver that maps some is answered as the page says
//! for a range that cannot be mapped, and has to cope.

use super::arena::pages_for;
use super::contiguous;
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    MmAllocateNonCachedMemory(max 1, fails NULL) = allocate_non_cached;
    MmFreeNonCachedMemory(max 1) = free_non_cached;
    MmMapIoSpace(max 2) = map_io_space;
    MmMapIoSpaceEx(max 2) = map_io_space;
    MmUnmapIoSpace(max 2) = unmap_io_space;
}

extern "efiapi" fn allocate_non_cached(bytes: usize) -> usize {
    let address = contiguous::take(&Call::enter(), bytes, (0, u64::MAX, 0));
    if address != 0 {
        // Drivers that count on zeros fail early; the page says that there are none.
        Raw::<u8>::at(address).fill(0xCD, bytes);
    }
    address
}

extern "efiapi" fn free_non_cached(address: usize, bytes: usize) {
    let call = Call::enter();
    if let Some(pages) = call.machine().nt.contiguous().pages_at(address)
        && pages != pages_for(bytes)
    {
        call.stop(
            Rule::BadArgument,
            format!("{address:#x} has {pages} pages; NumberOfBytes {bytes} is not what it was allocated with"),
        );
    }
    contiguous::give_back(&call, address);
}

/// NULL: there is no device memory to map.
extern "efiapi" fn map_io_space(physical: u64, bytes: usize, _protection: u32) -> usize {
    let call = Call::enter();
    if bytes == 0 {
        call.stop(Rule::BadArgument, "NumberOfBytes has to be greater than zero");
    }
    call.detail(format_args!("{physical:#x}, {bytes} bytes"));
    0
}

extern "efiapi" fn unmap_io_space(address: usize, _bytes: usize) {
    Call::enter().stop(Rule::BadArgument, format!("{address:#x} is no mapped I/O space"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn uncached_memory_is_freed_with_the_size_that_it_has() {
        conforms!(
            "ntddk/nf-ntddk-mmallocatenoncachedmemory.md",
            "The base address of the range is returned; nothing is zeroed."
        );
        conforms!("ntddk/nf-ntddk-mmfreenoncachedmemory.md", "The size has to be the one of the allocation.");
        let bench = Bench::new();
        bench
            .run(|| {
                let memory = allocate_non_cached(5000);
                assert_eq!(Raw::<u64>::at(memory).read(), 0xCDCD_CDCD_CDCD_CDCD);
                free_non_cached(memory, 5000);
            })
            .unwrap();
        let wrong = bench.run(|| free_non_cached(allocate_non_cached(5000), 50));
        assert_eq!(wrong.unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn registers_that_are_not_there_are_not_mapped() {
        conforms!("wdm/nf-wdm-mmmapiospace.md", "NULL is returned for a range that cannot be mapped.");
        conforms!("wdm/nf-wdm-mmmapiospace.md", "NumberOfBytes is greater than zero.");
        let bench = Bench::new();
        assert_eq!(bench.run(|| map_io_space(0xFED0_0000, 4096, 0)).unwrap(), 0);
        assert_eq!(bench.run(|| map_io_space(0xFED0_0000, 0, 0)).unwrap_err().0.rule, Rule::BadArgument);
        assert_eq!(Bench::new().run(|| unmap_io_space(0x1000, 16)).unwrap_err().0.rule, Rule::BadArgument);
    }
}
