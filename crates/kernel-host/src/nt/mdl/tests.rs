//! One test per documented rule of page allocation and mapping.

use super::*;
use crate::ddi::testing::Bench;

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
