//! `ZwAllocateVirtualMemory` and `ZwFreeVirtualMemory`, for the current process.

use nt_types::NtStatus;

use super::arena::PAGE;
use super::current_process;
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::process::{Placement, Protection};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwAllocateVirtualMemory(max 0, fails RESOURCES) = zw_allocate_virtual_memory;
    ZwFreeVirtualMemory(max 0) = zw_free_virtual_memory;
}

/// `NtCurrentProcess()`.
const CURRENT_PROCESS: usize = usize::MAX;
const MEM_COMMIT: u32 = 0x1000;
const MEM_RESERVE: u32 = 0x2000;
const MEM_DECOMMIT: u32 = 0x4000;
const MEM_RELEASE: u32 = 0x8000;
const MEM_TOP_DOWN: u32 = 0x10_0000;
const PAGE_GUARD: u32 = 0x100;

/// What a `PAGE_*` number means; user memory of simulated processes holds no code that runs.
fn protection(number: u32) -> Option<Protection> {
    match number & 0xFF {
        0x01 => Some(Protection::NoAccess),
        0x02 | 0x10 | 0x20 => Some(Protection::ReadOnly),
        0x04 | 0x40 if number & PAGE_GUARD != 0 => Some(Protection::Guard),
        0x04 | 0x40 => Some(Protection::ReadWrite),
        _ => None,
    }
}

fn check_process(call: &Call, process: usize) {
    if process != CURRENT_PROCESS {
        call.stop(
            Rule::NotImplemented,
            format!("process handle {process:#x}: only NtCurrentProcess() is simulated here"),
        );
    }
}

extern "efiapi" fn zw_allocate_virtual_memory(
    process: usize,
    base: Raw<usize>,
    _zero_bits: usize,
    size: Raw<usize>,
    kind: u32,
    protect: u32,
) -> NtStatus {
    let call = Call::enter();
    check_process(&call, process);
    let (wanted, length) = (base.read(), size.read());
    if length == 0 || kind & (MEM_COMMIT | MEM_RESERVE) == 0 || kind & !(MEM_COMMIT | MEM_RESERVE | MEM_TOP_DOWN) != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let Some(protection) = protection(protect) else { return NtStatus::INVALID_PAGE_PROTECTION };
    let memory = current_process(&call);
    let memory = memory.memory();
    let start = wanted & !(PAGE - 1);
    let rounded = (wanted - start + length).next_multiple_of(PAGE);
    if wanted != 0 {
        // Pages of a reserved region are committed; where regions lie is not the caller's to choose.
        if kind & MEM_RESERVE != 0 || memory.protect(start, rounded, protection).is_err() {
            return NtStatus::CONFLICTING_ADDRESSES;
        }
        base.write(start);
        size.write(rounded);
        return NtStatus::SUCCESS;
    }
    let protection = if kind & MEM_COMMIT == 0 { Protection::NoAccess } else { protection };
    match memory.allocate(rounded, protection, Placement::PageStart) {
        Ok(address) => {
            base.write(address);
            size.write(rounded);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn zw_free_virtual_memory(process: usize, base: Raw<usize>, size: Raw<usize>, kind: u32) -> NtStatus {
    let call = Call::enter();
    check_process(&call, process);
    let (address, length) = (base.read(), size.read());
    let process = current_process(&call);
    let result = match kind {
        // The page: the base address of the region, and a size of 0.
        MEM_RELEASE if length != 0 => return NtStatus::INVALID_PARAMETER,
        MEM_RELEASE => process.memory().free(address),
        MEM_DECOMMIT => process.memory().protect(address & !(PAGE - 1), length + address % PAGE, Protection::NoAccess),
        _ => return NtStatus::INVALID_PARAMETER,
    };
    // STATUS_MEMORY_NOT_ALLOCATED for an address where nothing is.
    result.map_or(NtStatus::MEMORY_NOT_ALLOCATED, |()| NtStatus::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;

    #[test]
    fn user_memory_is_reserved_committed_and_released() {
        conforms!(
            "ntifs/nf-ntifs-zwallocatevirtualmemory.md",
            "The size is rounded up to whole pages, and pages that are only reserved cannot be accessed."
        );
        conforms!(
            "ntifs/nf-ntifs-zwfreevirtualmemory.md",
            "A region is released by its base address, with a size of 0."
        );
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        bench
            .run(|| {
                Thread::current().set_process(Some(process.clone()));
                let (mut base, mut size) = (0_usize, 5000_usize);
                let (at, length) = (Raw::of(&raw mut base), Raw::of(&raw mut size));
                let allocate = |kind| zw_allocate_virtual_memory(CURRENT_PROCESS, at, 0, length, kind, 4);
                assert_eq!(allocate(MEM_RESERVE), NtStatus::SUCCESS);
                assert_eq!(length.read(), 8192);
                let address = at.read();
                assert_eq!(process.memory().read_vec(address, 1), Err(NtStatus::ACCESS_VIOLATION));
                assert_eq!(allocate(MEM_COMMIT), NtStatus::SUCCESS);
                assert_eq!(process.memory().write(address, &[1; 8192]), Ok(()));
                let free = |kind| zw_free_virtual_memory(CURRENT_PROCESS, at, length, kind);
                assert_eq!(free(MEM_RELEASE), NtStatus::INVALID_PARAMETER);
                length.write(0);
                assert_eq!(free(MEM_RELEASE), NtStatus::SUCCESS);
                assert_eq!(free(MEM_RELEASE), NtStatus::MEMORY_NOT_ALLOCATED);
                assert_eq!(process.memory().read_vec(address, 1), Err(NtStatus::ACCESS_VIOLATION));
                Thread::current().set_process(None);
            })
            .unwrap();
    }

    #[test]
    fn an_empty_region_and_a_bad_protection_are_refused() {
        conforms!("ntifs/nf-ntifs-zwallocatevirtualmemory.md", "The region's size must not be zero.");
        Bench::new()
            .run(|| {
                let (mut base, mut size) = (0_usize, 0_usize);
                let (at, length) = (Raw::of(&raw mut base), Raw::of(&raw mut size));
                let allocate =
                    |protect| zw_allocate_virtual_memory(CURRENT_PROCESS, at, 0, length, MEM_COMMIT, protect);
                assert_eq!(allocate(4), NtStatus::INVALID_PARAMETER);
                length.write(1);
                assert_eq!(allocate(3), NtStatus::INVALID_PAGE_PROTECTION);
            })
            .unwrap();
    }
}
