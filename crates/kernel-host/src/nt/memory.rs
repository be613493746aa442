//! What is where in memory: the limits of user space, and looking at an address without touching it.

use nt_types::NtStatus;

use super::arena::PAGE;
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::process::HIGHEST_USER_ADDRESS;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    MmCopyMemory(max 1) = mm_copy_memory;
    MmIsAddressValid(max 2) = mm_is_address_valid;
    MmDoesFileHaveUserWritableReferences(max 1) = mm_does_file_have_user_writable_references;
    data MmHighestUserAddress = MM_HIGHEST_USER_ADDRESS;
    data MmUserProbeAddress = MM_USER_PROBE_ADDRESS;
    data MmSystemRangeStart = MM_SYSTEM_RANGE_START;
}

/// `MM_COPY_MEMORY_PHYSICAL`.
const PHYSICAL: u32 = 1;
/// `MM_COPY_MEMORY_VIRTUAL`.
const VIRTUAL: u32 = 2;

static MM_HIGHEST_USER_ADDRESS: usize = HIGHEST_USER_ADDRESS;
/// The first address that probing refuses: user space ends right below.
static MM_USER_PROBE_ADDRESS: usize = HIGHEST_USER_ADDRESS + 1;
static MM_SYSTEM_RANGE_START: usize = HIGHEST_USER_ADDRESS + 0x1_0001;

/// Copies kernel memory out as far as it is accessible; how many bytes that was.
///
/// Linux does the copying, so that nothing faults here.
pub(crate) fn read_kernel(address: usize, into: &mut [u8]) -> usize {
    let mut done = 0;
    while done < into.len() {
        let at = address.wrapping_add(done);
        // Page by page: Linux only counts whole elements.
        let length = (into.len() - done).min(PAGE - at % PAGE);
        let Some(chunk) = into.get_mut(done..done + length) else { break };
        let local = libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: length };
        let remote = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(at), iov_len: length };
        // SAFETY: getpid has no preconditions.
        let me = unsafe { libc::getpid() };
        // SAFETY: the local range is ours; Linux checks the remote one.
        let copied = unsafe { libc::process_vm_readv(me, &raw const local, 1, &raw const remote, 1, 0) };
        if usize::try_from(copied) != Ok(length) {
            break;
        }
        done += length;
    }
    done
}

/// Copies memory of the calling context out as far as it is accessible: user memory only of the current process.
fn read_virtual(call: &Call, address: usize, into: &mut [u8]) -> usize {
    if address > HIGHEST_USER_ADDRESS {
        return read_kernel(address, into);
    }
    let process = super::current_process(call);
    let mut done = 0;
    while done < into.len() {
        let at = address + done;
        let length = (into.len() - done).min(PAGE - at % PAGE);
        let Some(chunk) = into.get_mut(done..done + length) else { break };
        if process.memory().read(at, chunk).is_err() {
            break;
        }
        done += length;
    }
    done
}

extern "efiapi" fn mm_copy_memory(
    target: Raw<u8>,
    source: usize,
    length: usize,
    flags: u32,
    transferred: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let mut bytes = vec![0; length];
    let done = match flags {
        VIRTUAL => read_virtual(&call, source, &mut bytes),
        PHYSICAL => call.machine().nt.physical().read(source as u64, &mut bytes),
        _ => call.stop(Rule::BadArgument, format!("flags {flags:#x}: one of physical and virtual has to be set")),
    };
    call.bytes(done as u64);
    target.write_bytes(bytes.get(..done).unwrap_or_default());
    transferred.write(done);
    if done == length { NtStatus::SUCCESS } else { NtStatus::ACCESS_VIOLATION }
}

extern "efiapi" fn mm_is_address_valid(address: usize) -> u8 {
    u8::from(is_accessible(&Call::enter(), address))
}

/// Whether an address can be read in the calling context.
pub(crate) fn is_accessible(call: &Call, address: usize) -> bool {
    read_virtual(call, address, &mut [0]) == 1
}

extern "efiapi" fn mm_does_file_have_user_writable_references(sections: usize) -> u32 {
    let call = Call::enter();
    call.machine().fs.writable_references(sections).unwrap_or_else(|| {
        call.stop(Rule::BadArgument, format!("{sections:#x} is not the SectionObjectPointer of an open file"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::process::{Placement, Protection};

    #[test]
    fn an_address_is_valid_when_it_can_be_read() {
        conforms!(
            "ntddk/nf-ntddk-mmisaddressvalid.md",
            "TRUE is returned when no page fault would occur at the address."
        );
        let byte = 1_u8;
        let address = (&raw const byte).expose_provenance();
        let valid = Bench::new().run(|| (mm_is_address_valid(address), mm_is_address_valid(8)));
        assert_eq!(valid.unwrap(), (1, 0));
    }

    #[test]
    fn a_copy_stops_at_the_first_bad_page_and_says_how_much_came() {
        conforms!(
            "ntddk/nf-ntddk-mmcopymemory.md",
            "The number of bytes that were copied is told, also when the copy fails."
        );
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        let buffer = process.allocate(PAGE, Protection::ReadWrite, Placement::PageStart).expect("room");
        buffer.write(&[9; PAGE]).expect("its own memory");
        let (mut target, mut done) = (vec![0_u8; 2 * PAGE], 0_usize);
        let status = bench.run(|| {
            let call = Call::enter();
            call.thread().set_process(Some(process.clone()));
            let to = Raw::of(target.as_mut_ptr());
            let status = mm_copy_memory(to, buffer.address() + 8, PAGE, VIRTUAL, Raw::of(&raw mut done));
            call.thread().set_process(None);
            status
        });
        assert_eq!((status.unwrap(), done), (NtStatus::ACCESS_VIOLATION, PAGE - 8));
        assert!(target[..PAGE - 8].iter().all(|byte| *byte == 9) && target[PAGE] == 0);
    }

    #[test]
    fn user_memory_of_another_process_is_not_there() {
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        let buffer = process.buffer(&[1; 8]).expect("room");
        let (mut target, mut done) = ([0_u8; 8], 0_usize);
        let status = bench
            .run(|| mm_copy_memory(Raw::of(target.as_mut_ptr()), buffer.address(), 8, VIRTUAL, Raw::of(&raw mut done)));
        assert_eq!((status.unwrap(), done), (NtStatus::ACCESS_VIOLATION, 0));
    }

    #[test]
    fn physical_and_virtual_together_are_refused() {
        conforms!("ntddk/nf-ntddk-mmcopymemory.md", "Exactly one of the physical and the virtual flag is given.");
        let stopped = Bench::new().run(|| mm_copy_memory(Raw::NULL, 0, 0, PHYSICAL | VIRTUAL, Raw::NULL));
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
    }
}
