//! Memory of processes: `ZwAllocateVirtualMemory`, `ZwFreeVirtualMemory`, `ZwQueryVirtualMemory`, `MmSecureVirtualMemory`.

use nt_types::{HANDLE, NtStatus};

use super::arena::PAGE;
use super::current_process;
use super::processes::process_of_handle;
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::process::memory::describing::Alike;
use crate::process::{HIGHEST_USER_ADDRESS, Placement, Protection};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwAllocateVirtualMemory(max 0, fails RESOURCES) = zw_allocate_virtual_memory;
    ZwFreeVirtualMemory(max 0) = zw_free_virtual_memory;
    NtAllocateVirtualMemory(max 0, fails RESOURCES) = zw_allocate_virtual_memory;
    NtFreeVirtualMemory(max 0) = zw_free_virtual_memory;
    ZwQueryVirtualMemory(max 0) = zw_query_virtual_memory;
    MmSecureVirtualMemory(max 1, fails NULL) = mm_secure_virtual_memory;
    MmUnsecureVirtualMemory(max 1) = mm_unsecure_virtual_memory;
}

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

/// The `PAGE_*` number of a protection.
fn number(protection: Protection) -> u32 {
    match protection {
        Protection::NoAccess => 0x01,
        Protection::ReadOnly => 0x02,
        Protection::ReadWrite => 0x04,
        Protection::Guard => 0x04 | PAGE_GUARD,
        Protection::Reserved => 0,
    }
}

extern "efiapi" fn zw_allocate_virtual_memory(
    process: HANDLE,
    base: Raw<usize>,
    _zero_bits: usize,
    size: Raw<usize>,
    kind: u32,
    protect: u32,
) -> NtStatus {
    let call = Call::enter();
    let process = match process_of_handle(&call, process) {
        Ok(process) => process,
        Err(status) => return status,
    };
    let (wanted, length) = (base.read(), size.read());
    if length == 0 || kind & (MEM_COMMIT | MEM_RESERVE) == 0 || kind & !(MEM_COMMIT | MEM_RESERVE | MEM_TOP_DOWN) != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let Some(protection) = protection(protect) else { return NtStatus::INVALID_PAGE_PROTECTION };
    let memory = process.memory();
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
    let protection = if kind & MEM_COMMIT == 0 { Protection::Reserved } else { protection };
    match memory.allocate(rounded, protection, Placement::PageStart) {
        Ok(address) => {
            base.write(address);
            size.write(rounded);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn zw_free_virtual_memory(process: HANDLE, base: Raw<usize>, size: Raw<usize>, kind: u32) -> NtStatus {
    let call = Call::enter();
    let process = match process_of_handle(&call, process) {
        Ok(process) => process,
        Err(status) => return status,
    };
    let (address, length) = (base.read(), size.read());
    let result = match kind {
        // The page: the base address of the region, and a size of 0.
        MEM_RELEASE if length != 0 => return NtStatus::INVALID_PARAMETER,
        MEM_RELEASE => process.memory().free(address),
        MEM_DECOMMIT => process.memory().protect(address & !(PAGE - 1), length + address % PAGE, Protection::Reserved),
        _ => return NtStatus::INVALID_PARAMETER,
    };
    match result {
        Ok(()) => NtStatus::SUCCESS,
        Err(NtStatus::INVALID_ADDRESS) => NtStatus::MEMORY_NOT_ALLOCATED,
        Err(status) => status,
    }
}

/// `MEMORY_BASIC_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BasicInformation {
    base: usize,
    allocation_base: usize,
    allocation_protect: u32,
    partition: u32,
    size: usize,
    state: u32,
    protect: u32,
    kind: u32,
    padding: u32,
}

const _: () = assert!(size_of::<BasicInformation>() == 48);

/// Values of `State` and `Type`.
const MEM_FREE: u32 = 0x1_0000;
const MEM_PRIVATE: u32 = 0x2_0000;
const MEM_MAPPED: u32 = 0x4_0000;
const MEM_IMAGE: u32 = 0x100_0000;

extern "efiapi" fn zw_query_virtual_memory(
    process: HANDLE,
    address: usize,
    class: i32,
    buffer: Raw<BasicInformation>,
    length: usize,
    returned: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    if class != 0 {
        return NtStatus::INVALID_INFO_CLASS;
    }
    if length < size_of::<BasicInformation>() {
        return NtStatus::INFO_LENGTH_MISMATCH;
    }
    if address > HIGHEST_USER_ADDRESS {
        return NtStatus::INVALID_PARAMETER;
    }
    let process = match process_of_handle(&call, process) {
        Ok(process) => process,
        Err(status) => return status,
    };
    let view = call.machine().nt.sections().is_image(process.id(), address);
    buffer.write(describe(&process.memory().alike(address), view));
    returned.write_if_some(size_of::<BasicInformation>());
    NtStatus::SUCCESS
}

/// `in_image`: whether it is a view of an image, where it is a section's view.
fn describe(alike: &Alike, in_image: Option<bool>) -> BasicInformation {
    let mut answer = BasicInformation {
        base: alike.base,
        allocation_base: 0,
        allocation_protect: 0,
        partition: 0,
        size: alike.length,
        state: MEM_FREE,
        protect: number(Protection::NoAccess),
        kind: 0,
        padding: 0,
    };
    if let Some(allocation) = alike.allocation {
        answer.allocation_base = allocation.base;
        answer.allocation_protect = number(allocation.initial);
        answer.state = if allocation.protection == Protection::Reserved { MEM_RESERVE } else { MEM_COMMIT };
        answer.protect = number(allocation.protection);
        answer.kind = match in_image {
            Some(true) => MEM_IMAGE,
            Some(false) => MEM_MAPPED,
            None if allocation.is_view => MEM_MAPPED,
            None => MEM_PRIVATE,
        };
    }
    answer
}

extern "efiapi" fn mm_secure_virtual_memory(address: usize, length: usize, mode: u32) -> usize {
    let call = Call::enter();
    let writable = match mode {
        nt_types::PAGE_READWRITE => true,
        nt_types::PAGE_READONLY => false,
        _ => call.stop(Rule::BadArgument, format!("probe mode {mode:#x} is neither PAGE_READWRITE nor PAGE_READONLY")),
    };
    current_process(&call).memory().secure(address, length, writable).unwrap_or(0)
}

extern "efiapi" fn mm_unsecure_virtual_memory(handle: usize) {
    let call = Call::enter();
    let process = current_process(&call);
    if !process.memory().unsecure(handle) {
        call.stop(
            Rule::BadArgument,
            format!(
                "{handle:#x} is no secured memory of {process:?}: unsecured already, or secured in the context of another process"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;

    /// `NtCurrentProcess()`.
    const CURRENT_PROCESS: HANDLE = std::ptr::without_provenance_mut(usize::MAX);

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
    fn a_region_is_described_as_it_is() {
        conforms!(
            "ntifs/nf-ntifs-zwqueryvirtualmemory.md",
            "Pages from the address on that are alike are one region; the answer has its state, protection and type."
        );
        conforms!(
            "ntifs/nf-ntifs-zwqueryvirtualmemory.md",
            "Only MemoryBasicInformation is answered, into a buffer that fits."
        );
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        bench
            .run(|| {
                Thread::current().set_process(Some(process.clone()));
                let address = process.memory().allocate(3 * PAGE, Protection::ReadWrite, Placement::PageStart).unwrap();
                process.memory().protect(address + PAGE, PAGE, Protection::ReadOnly).unwrap();
                let mut answer = describe(&process.memory().alike(0), None);
                let out = Raw::of(&raw mut answer);
                let query =
                    |at, class, length| zw_query_virtual_memory(CURRENT_PROCESS, at, class, out, length, Raw::NULL);
                assert_eq!(query(address + PAGE + 5, 0, 48), NtStatus::SUCCESS);
                let seen = out.read();
                assert_eq!((seen.base, seen.allocation_base, seen.size), (address + PAGE, address, PAGE));
                assert_eq!((seen.allocation_protect, seen.protect), (4, 2));
                assert_eq!((seen.state, seen.kind), (MEM_COMMIT, MEM_PRIVATE));
                assert_eq!(query(address - 1, 0, 48), NtStatus::SUCCESS);
                assert_eq!((out.read().state, out.read().size), (MEM_FREE, PAGE));
                assert_eq!(query(address, 0, 47), NtStatus::INFO_LENGTH_MISMATCH);
                assert_eq!(query(address, 1, 48), NtStatus::INVALID_INFO_CLASS);
                assert_eq!(query(usize::MAX, 0, 48), NtStatus::INVALID_PARAMETER);
                Thread::current().set_process(None);
            })
            .unwrap();
    }

    #[test]
    fn secured_memory_is_neither_freed_nor_protected_until_it_is_unsecured() {
        conforms!(
            "ntddk/nf-ntddk-mmsecurevirtualmemory.md",
            "With PAGE_READONLY the memory cannot become inaccessible, with PAGE_READWRITE not read-only either, nor be freed."
        );
        conforms!(
            "ntddk/nf-ntddk-mmsecurevirtualmemory.md",
            "It is unsecured in the context of the process that it was secured in."
        );
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        let memory = process.memory();
        let address = memory.allocate(PAGE, Protection::ReadWrite, Placement::PageStart).unwrap();
        let secure = |mode| {
            Thread::current().set_process(Some(process.clone()));
            let handle = mm_secure_virtual_memory(address, 10, mode);
            Thread::current().set_process(None);
            handle
        };
        let unsecure = |handle| {
            Thread::current().set_process(Some(process.clone()));
            mm_unsecure_virtual_memory(handle);
            Thread::current().set_process(None);
        };
        bench
            .run(|| {
                let both = [secure(nt_types::PAGE_READONLY), secure(nt_types::PAGE_READWRITE)];
                assert!(both.iter().all(|handle| *handle != 0));
                let protect = |protection| memory.protect(address, 1, protection);
                assert_eq!(protect(Protection::ReadOnly), Err(NtStatus::INVALID_PAGE_PROTECTION));
                assert_eq!(memory.free(address), Err(NtStatus::INVALID_PAGE_PROTECTION));
                unsecure(both[1]);
                assert_eq!(protect(Protection::ReadOnly), Ok(()));
                assert_eq!(protect(Protection::NoAccess), Err(NtStatus::INVALID_PAGE_PROTECTION));
                assert_eq!(secure(nt_types::PAGE_READWRITE), 0, "it is read-only");
                unsecure(both[0]);
                assert_eq!(protect(Protection::ReadWrite), Ok(()));
            })
            .unwrap();
        let stopped = bench.run(|| {
            let handle = secure(nt_types::PAGE_READONLY);
            // The system's context.
            mm_unsecure_virtual_memory(handle);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
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
