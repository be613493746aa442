//! One test per documented rule of page allocation and mapping.

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::process::{Placement, Protection};

const NO_LIMIT: i64 = -1;
const CACHED: i32 = nt_types::MM_CACHED;

/// Allocates, runs `body`, and frees what is left.
fn with_pages(bytes: usize, body: impl FnOnce(Raw<MDL>)) {
    let bench = Bench::new();
    bench
        .run(|| {
            let list = mm_allocate_pages_for_mdl_ex(0, NO_LIMIT, 0, bytes, CACHED, 4);
            body(list);
            mm_free_pages_from_mdl(list);
            free_list(list);
        })
        .unwrap();
    let nt = &bench.machine().inner().nt;
    assert_eq!((nt.physical().leaks(bench.driver()), nt.pool().leaks(bench.driver())), (vec![], vec![]));
}

fn free_list(list: Raw<MDL>) {
    let call = Call::enter();
    call.machine().nt.pool().free(&call, list.address(), MDL_TAG);
}

fn map_kernel(list: Raw<MDL>, priority: MdlMapping) -> usize {
    mm_map_locked_pages_specify_cache(list, KERNEL_MODE, CACHED, 0, 0, priority.bits())
}

#[test]
fn pages_are_described_locked_and_zeroed() {
    conforms!("wdm/nf-wdm-mmallocatepagesformdlex.md", "The pages are zeroed, and described by a list of their own.");
    with_pages(3 * PAGE + 1, |list| {
        let header = list.read();
        assert_eq!(header.ByteCount as usize, 4 * PAGE);
        assert!(MdlFlags::from_bits_retain(header.MdlFlags).contains(MdlFlags::PAGES_LOCKED));
        let address = map_kernel(list, MdlMapping::NO_EXECUTE);
        assert_eq!(Raw::<u8>::at(address).read_bytes(4 * PAGE), vec![0; 4 * PAGE]);
        mm_unmap_locked_pages(address, list);
    });
}

#[test]
fn the_highest_acceptable_address_is_honoured() {
    conforms!("wdm/nf-wdm-mmallocatepagesformdlex.md", "All pages lie between the low and the high address.");
    let bench = Bench::new();
    bench
        .run(|| {
            let limit = 0x00FF_FFFF; // what an ISA bus can reach
            let list = mm_allocate_pages_for_mdl_ex(0, limit, 0, 1 << 20, CACHED, 4);
            let frames = frames_of(list, &list.read());
            assert_eq!(frames.len(), 256);
            assert!(frames.iter().all(|frame| frame * PAGE as u64 + PAGE as u64 - 1 <= limit.cast_unsigned()));
            mm_free_pages_from_mdl(list);
            free_list(list);
        })
        .unwrap();
}

#[test]
fn with_too_few_pages_there_are_fewer_or_none_as_the_flag_says() {
    conforms!(
        "wdm/nf-wdm-mmallocatepagesformdlex.md",
        "Fewer pages than asked for are described, unless MM_ALLOCATE_FULLY_REQUIRED is given."
    );
    let bench = Bench::new();
    bench
        .run(|| {
            let window = (0x10_0000, 0x10_0000 + (8 * PAGE).cast_signed() as i64 - 1);
            let none = mm_allocate_pages_for_mdl_ex(window.0, window.1, 0, 16 * PAGE, CACHED, 4);
            assert!(none.is_null());
            let some = mm_allocate_pages_for_mdl_ex(window.0, window.1, 0, 16 * PAGE, CACHED, 0);
            assert_eq!(some.read().ByteCount as usize, 8 * PAGE);
            mm_free_pages_from_mdl(some);
            free_list(some);
        })
        .unwrap();
}

#[test]
fn a_second_mapping_shows_the_bytes_that_the_first_wrote() {
    with_pages(100 * PAGE, |list| {
        let address = map_kernel(list, MdlMapping::NO_EXECUTE);
        Raw::<u8>::at(address + 99 * PAGE).write(7);
        mm_unmap_locked_pages(address, list);
        let again = map_kernel(list, MdlMapping::NO_EXECUTE | MdlMapping::NO_WRITE);
        assert_eq!(Raw::<u8>::at(again + 99 * PAGE).read(), 7);
        mm_unmap_locked_pages(again, list);
    });
}

#[test]
fn the_protection_of_a_mapping_can_be_changed_and_only_to_one_that_exists() {
    conforms!(
        "wdm/nf-wdm-mmprotectmdlsystemaddress.md",
        "STATUS_NOT_MAPPED_VIEW and STATUS_INVALID_PAGE_PROTECTION tell what was wrong."
    );
    with_pages(PAGE, |list| {
        assert_eq!(mm_protect_mdl_system_address(list, PAGE_READONLY), NtStatus::NOT_MAPPED_VIEW);
        let address = map_kernel(list, MdlMapping::NO_EXECUTE);
        assert_eq!(mm_protect_mdl_system_address(list, PAGE_READONLY), NtStatus::SUCCESS);
        assert_eq!(mm_protect_mdl_system_address(list, 0x99), NtStatus::INVALID_PAGE_PROTECTION);
        mm_unmap_locked_pages(address, list);
    });
}

/// The rule that `body` breaks.
fn broken(body: impl FnOnce(Raw<MDL>)) -> Rule {
    let bench = Bench::new();
    let stopped = bench.run(|| body(mm_allocate_pages_for_mdl_ex(0, NO_LIMIT, 0, PAGE, CACHED, 4))).unwrap_err();
    stopped.0.rule
}

#[test]
fn freeing_mapped_pages_is_found() {
    let rule = broken(|list| {
        map_kernel(list, MdlMapping::NO_EXECUTE);
        mm_free_pages_from_mdl(list);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn freeing_pages_twice_is_found() {
    conforms!("wdm/nf-wdm-mmfreepagesfrommdl.md", "The pages are freed once; the list itself is freed by ExFreePool.");
    let rule = broken(|list| {
        mm_free_pages_from_mdl(list);
        mm_free_pages_from_mdl(list);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn unmapping_twice_is_found() {
    let rule = broken(|list| {
        let address = map_kernel(list, MdlMapping::NO_EXECUTE);
        mm_unmap_locked_pages(address, list);
        mm_unmap_locked_pages(address, list);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn mapping_a_list_twice_is_found() {
    conforms!("wdm/nf-wdm-mmmaplockedpagesspecifycache.md", "A list has at most one mapping into system space.");
    let rule = broken(|list| {
        map_kernel(list, MdlMapping::NO_EXECUTE);
        map_kernel(list, MdlMapping::NO_EXECUTE);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn pages_and_mappings_that_are_not_given_back_are_reported() {
    let bench = Bench::new();
    bench
        .run(|| {
            let list = mm_allocate_pages_for_mdl_ex(0, NO_LIMIT, 0, 2 * PAGE, CACHED, 4);
            map_kernel(list, MdlMapping::NO_EXECUTE);
        })
        .unwrap();
    let nt = &bench.machine().inner().nt;
    assert_eq!(nt.physical().leaks(bench.driver())[0].count, 2);
    assert_eq!(nt.mappings().leaks(bench.driver()).len(), 1);
}

#[test]
fn a_list_of_pool_memory_has_its_address() {
    conforms!("wdm/nf-wdm-mmbuildmdlfornonpagedpool.md", "The system address of the list is that of the pool memory.");
    let bench = Bench::new();
    bench
        .run(|| {
            let call = Call::enter();
            let request = Request {
                kind: PoolKind::NonPaged,
                length: 5000,
                tag: u32::from_le_bytes(*b"Test"),
                zeroed: true,
                cache_aligned: false,
            };
            let block = call.machine().nt.pool().allocate(&call, request);
            let list = io_allocate_mdl(block + 100, 4000, 0, 0, Raw::NULL);
            mm_build_mdl_for_non_paged_pool(list);
            assert_eq!(list.read().MappedSystemVa.addr(), block + 100);
            assert_eq!(list.read().ByteOffset, 100);
            io_free_mdl(list);
            call.machine().nt.pool().free(&call, block, 0);
        })
        .unwrap();
}

/// Runs `body` in a process whose buffer of `bytes` starts at a page.
fn in_process(
    bytes: &[u8],
    body: impl FnOnce(&std::sync::Arc<crate::process::Process>, usize),
) -> Result<(), crate::finding::Stopped> {
    let bench = Bench::new();
    let process = bench.machine().process("p.exe").start().expect("room");
    let buffer = process.allocate(bytes.len(), Protection::ReadWrite, Placement::PageStart).expect("room");
    buffer.write(bytes).expect("its own memory");
    let result = bench.run(|| {
        let thread = crate::thread::Thread::current();
        thread.set_process(Some(process.clone()));
        body(&process, buffer.address());
        thread.set_process(None);
    });
    if result.is_ok() {
        assert_eq!(bench.machine().inner().nt.mappings().leaks(bench.driver()), vec![]);
    }
    result
}

const READ: i32 = 0;
const WRITE: i32 = 1;
const USER: KPROCESSOR_MODE = nt_types::USER_MODE;

fn list_of(address: usize, length: usize) -> Raw<MDL> {
    io_allocate_mdl(address, length as u32, 0, 0, Raw::NULL)
}

fn flags_of(list: Raw<MDL>) -> MdlFlags {
    MdlFlags::from_bits_retain(list.read().MdlFlags)
}

#[test]
fn locked_user_memory_is_seen_through_a_system_address_and_both_ways() {
    conforms!("wdm/nf-wdm-mmprobeandlockpages.md", "The pages of a user buffer are locked and described by the list.");
    conforms!("wdm/nf-wdm-mmunlockpages.md", "A mapping into system space is released before the pages are unlocked.");
    in_process(&[5; 3 * PAGE], |process, address| {
        let list = list_of(address + 100, 2 * PAGE);
        locking::mm_probe_and_lock_pages(list, USER, WRITE);
        assert!(flags_of(list).contains(MdlFlags::PAGES_LOCKED | MdlFlags::WRITE_OPERATION));
        let system = map_kernel(list, MdlMapping::NO_EXECUTE);
        assert!(system > crate::process::HIGHEST_USER_ADDRESS);
        assert_eq!((system % PAGE, Raw::<u8>::at(system).read()), (100, 5));
        Raw::<u8>::at(system + PAGE).write(9);
        assert_eq!(process.memory().read_vec(address + 100 + PAGE, 1), Ok(vec![9]));
        process.memory().write(address + 100, &[8]).expect("its own memory");
        assert_eq!(Raw::<u8>::at(system).read(), 8);
        locking::mm_unlock_pages(list);
        assert_eq!(flags_of(list), MdlFlags::empty());
        assert!(!crate::nt::memory::is_accessible(&Call::enter(), system), "the mapping is gone");
        io_free_mdl(list);
    })
    .unwrap();
}

#[test]
fn locked_pages_outlive_the_buffer() {
    conforms!(
        "wdm/nf-wdm-mmprobeandlockpages.md",
        "The physical pages stay locked when the virtual addresses are gone."
    );
    let bench = Bench::new();
    let process = bench.machine().process("p.exe").start().expect("room");
    let buffer = process.buffer(&[7; 64]).expect("room");
    bench
        .run(|| {
            let thread = crate::thread::Thread::current();
            thread.set_process(Some(process.clone()));
            let list = list_of(buffer.address(), 64);
            locking::mm_probe_and_lock_pages(list, USER, READ);
            drop(buffer);
            let system = map_kernel(list, MdlMapping::NO_EXECUTE);
            assert_eq!(Raw::<u8>::at(system).read_bytes(64), [7; 64]);
            locking::mm_unlock_pages(list);
            io_free_mdl(list);
            thread.set_process(None);
        })
        .unwrap();
}

fn locking_raises(status: &str, body: impl FnOnce(&std::sync::Arc<crate::process::Process>, usize)) {
    let finding = in_process(&[0; PAGE], body).expect_err("an exception").0;
    assert_eq!(finding.rule, Rule::UnhandledException);
    assert!(finding.message.contains(status), "{}", finding.message);
}

#[test]
fn memory_that_does_not_permit_the_operation_raises() {
    conforms!(
        "wdm/nf-wdm-mmprobeandlockpages.md",
        "Pages that do not support the operation raise STATUS_ACCESS_VIOLATION."
    );
    locking_raises("ACCESS_VIOLATION", |process, address| {
        process.memory().protect(address, PAGE, Protection::ReadOnly).expect("its own memory");
        let list = list_of(address, PAGE);
        locking::mm_probe_and_lock_pages(list, USER, READ);
        locking::mm_unlock_pages(list);
        locking::mm_probe_and_lock_pages(list, USER, WRITE);
    });
    locking_raises("ACCESS_VIOLATION", |_, address| {
        locking::mm_probe_and_lock_pages(list_of(address, 2 * PAGE), USER, READ);
    });
    locking_raises("ACCESS_VIOLATION", |_, _| {
        let kernel = list_of(0, 16); // its own memory is a kernel address
        locking::mm_probe_and_lock_pages(list_of(kernel.address(), 16), USER, READ);
    });
}

fn locking_breaks(body: impl FnOnce(usize)) -> Rule {
    in_process(&[0; PAGE], |_, address| body(address)).expect_err("a rule is broken").0.rule
}

#[test]
fn pages_are_locked_once_and_unlocked_once_before_the_list_is_freed() {
    conforms!("wdm/nf-wdm-mmprobeandlockpages.md", "A locked list is not locked again before it is unlocked.");
    conforms!("wdm/nf-wdm-mmunlockpages.md", "Only pages that MmProbeAndLockPages locked are unlocked.");
    conforms!("wdm/nf-wdm-iofreemdl.md", "Locked pages are unlocked before the list is freed.");
    let lock = |address| {
        let list = list_of(address, 16);
        locking::mm_probe_and_lock_pages(list, USER, READ);
        list
    };
    assert_eq!(locking_breaks(|address| locking::mm_probe_and_lock_pages(lock(address), USER, READ)), Rule::BadState);
    assert_eq!(locking_breaks(|address| locking::mm_unlock_pages(list_of(address, 16))), Rule::BadState);
    assert_eq!(locking_breaks(|address| io_free_mdl(lock(address))), Rule::BadState);
    let at_dispatch = locking_breaks(|address| {
        let list = list_of(address, 16);
        crate::thread::Thread::current().set_irql(2);
        locking::mm_probe_and_lock_pages(list, USER, READ);
    });
    assert_eq!(at_dispatch, Rule::IrqlTooHigh);
}

#[test]
fn a_list_of_non_paged_pool_is_neither_locked_nor_mapped_again() {
    conforms!("wdm/nf-wdm-mmbuildmdlfornonpagedpool.md", "The pages are not locked with MmProbeAndLockPages.");
    conforms!(
        "wdm/nf-wdm-mmmaplockedpagesspecifycache.md",
        "A list has one mapping into system space; that of non-paged pool has it already."
    );
    let built = || {
        let block = crate::nt::pool_exports::allocate_from_type(Call::enter(), 512, 64, u32::from_le_bytes(*b"Test"));
        let list = list_of(block, 64);
        mm_build_mdl_for_non_paged_pool(list);
        list
    };
    assert_eq!(locking_breaks(|_| locking::mm_probe_and_lock_pages(built(), KERNEL_MODE, READ)), Rule::BadState);
    assert_eq!(locking_breaks(|_| _ = map_kernel(built(), MdlMapping::NO_EXECUTE)), Rule::BadState);
}

#[test]
fn pool_mapped_into_a_process_shows_the_same_bytes_and_is_not_freed_meanwhile() {
    conforms!(
        "wdm/nf-wdm-mmmaplockedpagesspecifycache.md",
        "With UserMode a user address is returned that is valid in the current process."
    );
    conforms!(
        "wdm/nf-wdm-mmmaplockedpagesspecifycache.md",
        "With MdlMappingNoWrite the program cannot write the pages."
    );
    let block =
        || crate::nt::pool_exports::allocate_from_type(Call::enter(), 512 | 1024, PAGE, u32::from_le_bytes(*b"Test"));
    let free = |block| Call::enter().machine().nt.pool().free(&Call::enter(), block, 0);
    in_process(&[0; 1], |process, _| {
        let block = block();
        let list = list_of(block, PAGE);
        mm_build_mdl_for_non_paged_pool(list);
        let user = mm_map_locked_pages_specify_cache(list, USER, CACHED, 0, 0, 16);
        Raw::<u8>::at(block + 5).write(6);
        assert_eq!(process.memory().read_vec(user + 5, 1), Ok(vec![6]));
        process.memory().write(user, &[4]).expect("mapped writable");
        assert_eq!(Raw::<u8>::at(block).read(), 4);
        mm_unmap_locked_pages(user, list);
        assert_eq!(process.memory().read_vec(user, 1), Err(NtStatus::ACCESS_VIOLATION));
        let user = mm_map_locked_pages_specify_cache(list, USER, CACHED, 0, 0, (MdlMapping::NO_WRITE).bits() | 16);
        assert_eq!(process.memory().write(user, &[4]), Err(NtStatus::ACCESS_VIOLATION));
        mm_unmap_locked_pages(user, list);
        io_free_mdl(list);
        free(block);
    })
    .unwrap();
    conforms!(
        "wdm/nf-wdm-mmmaplockedpagesspecifycache.md",
        "Buffers are not freed while they are mapped into a process."
    );
    let finding = in_process(&[0; 1], |_, _| {
        let block = block();
        let list = list_of(block, PAGE);
        mm_build_mdl_for_non_paged_pool(list);
        mm_map_locked_pages_specify_cache(list, USER, CACHED, 0, 0, 16);
        free(block);
    });
    assert!(finding.unwrap_err().0.message.contains("still mapped into a process"));
}

#[test]
fn a_partial_list_describes_part_of_the_source_and_shares_its_mapping() {
    conforms!(
        "wdm/nf-wdm-iobuildpartialmdl.md",
        "The target describes the given part of the source's buffer; a length of 0 stands for the rest."
    );
    conforms!("wdm/nf-wdm-iobuildpartialmdl.md", "The target of a mapped source shares its mapping.");
    in_process(&[3; 3 * PAGE], |_, address| {
        let source = list_of(address, 3 * PAGE);
        locking::mm_probe_and_lock_pages(source, USER, READ);
        let target = list_of(address, 3 * PAGE);
        partial::io_build_partial_mdl(source, target, address + PAGE + 10, 20);
        let part = target.read();
        assert_eq!((part.StartVa.addr(), part.ByteOffset, part.ByteCount), (address + PAGE, 10, 20));
        assert_eq!(frames_of(target, &part), frames_of(source, &source.read())[1..2]);
        let own = map_kernel(target, MdlMapping::NO_EXECUTE);
        assert_eq!(Raw::<u8>::at(own).read_bytes(20), [3; 20]);
        io_free_mdl(target); // releases its own mapping
        let system = map_kernel(source, MdlMapping::NO_EXECUTE);
        let target = list_of(address, 3 * PAGE);
        partial::io_build_partial_mdl(source, target, address + PAGE, 0);
        assert_eq!((target.read().ByteCount as usize, target.read().MappedSystemVa.addr()), (2 * PAGE, system + PAGE));
        io_free_mdl(target);
        locking::mm_unlock_pages(source);
        io_free_mdl(source);
    })
    .unwrap();
    assert_eq!(
        locking_breaks(|address| partial::io_build_partial_mdl(list_of(address, 16), list_of(address, 16), address, 0)),
        Rule::BadState
    );
}

#[test]
fn an_advanced_list_starts_later_and_gives_up_the_pages_it_passed() {
    conforms!("wdm/nf-wdm-mmadvancemdl.md", "The beginning moves, the end stays, and a system address moves along.");
    conforms!("wdm/nf-wdm-mmadvancemdl.md", "Advancing past the end gives STATUS_INVALID_PARAMETER_2.");
    in_process(&[1; 3 * PAGE], |_, address| {
        let list = list_of(address, 3 * PAGE);
        locking::mm_probe_and_lock_pages(list, USER, READ);
        let system = map_kernel(list, MdlMapping::NO_EXECUTE);
        let last = frames_of(list, &list.read())[2];
        assert_eq!(partial::mm_advance_mdl(list, 2 * PAGE as u32 + 5), NtStatus::SUCCESS);
        let header = list.read();
        assert_eq!(
            (header.StartVa.addr(), header.ByteOffset, header.ByteCount as usize),
            (address + 2 * PAGE, 5, PAGE - 5)
        );
        assert_eq!((header.MappedSystemVa.addr(), frames_of(list, &header)), (system + 2 * PAGE + 5, vec![last]));
        assert_eq!(partial::mm_advance_mdl(list, PAGE as u32), NtStatus::INVALID_PARAMETER_2);
        locking::mm_unlock_pages(list);
        io_free_mdl(list);
    })
    .unwrap();
}

#[test]
fn pages_that_stay_locked_are_reported() {
    conforms!("docs:devtest/pool-tracking.md", "Pages that a driver leaves locked are found.");
    let bench = Bench::new();
    let process = bench.machine().process("p.exe").start().expect("room");
    let buffer = process.buffer(&[7; 64]).expect("room");
    bench
        .run(|| {
            let thread = crate::thread::Thread::current();
            thread.set_process(Some(process.clone()));
            locking::mm_probe_and_lock_pages(list_of(buffer.address(), 64), USER, READ);
            thread.set_process(None);
        })
        .unwrap();
    let leaks = bench.machine().inner().nt.mappings().leaks(bench.driver());
    assert_eq!((leaks[0].kind, leaks[0].bytes), (LeakKind::Mapping, PAGE as u64));
}
