//! `ExAllocatePool*` and `ExFreePool*`.

use nt_types::PoolFlags;

use super::pool::{PoolKind, Request, tag_text};
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExAllocatePool2(max 2, fails NULL) = ex_allocate_pool2;
    ExAllocatePool3(max 2, fails NULL) = ex_allocate_pool3;
    ExAllocatePoolWithTag(max 2, fails NULL) = ex_allocate_pool_with_tag;
    ExAllocatePoolWithTagPriority(max 2, fails NULL) = ex_allocate_pool_with_tag_priority;
    ExAllocatePool(max 2, fails NULL) = ex_allocate_pool;
    ExFreePool(max 2) = ex_free_pool;
    ExFreePoolWithTag(max 2) = ex_free_pool_with_tag;
    ExFreePool2(max 2) = ex_free_pool2;
}

/// Flags whose meaning is known; bits 32 and up are optional by definition and may be ignored.
const REQUIRED_FLAGS: u64 = 0xFFFF_FFFF;

/// The tag of allocations that name none.
const NO_TAG: u32 = u32::from_le_bytes(*b"None");

/// Bit of old pool types: raise an exception instead of giving NULL.
const POOL_RAISE_IF_ALLOCATION_FAILURE: i32 = 16;
/// Bit of old pool types: not executable.
const POOL_NX_ALLOCATION: i32 = 512;
/// Bit of old pool types: zeroed (`ExAllocatePoolZero` sets it).
const POOL_ZERO_ALLOCATION: i32 = 1024;

extern "efiapi" fn ex_allocate_pool2(flags: u64, length: usize, tag: u32) -> usize {
    allocate(&Call::enter(), flags, length, tag)
}

extern "efiapi" fn ex_allocate_pool3(flags: u64, length: usize, tag: u32, _parameters: Raw<u8>, _count: u32) -> usize {
    // Extended parameters are hints (priority, node, secure pool) which a pool without pressure can grant.
    allocate(&Call::enter(), flags, length, tag)
}

fn allocate(call: &Call, bits: u64, length: usize, tag: u32) -> usize {
    check_length(call, length);
    let flags = PoolFlags::from_bits_truncate(bits);
    let kinds = [
        (PoolFlags::NON_PAGED, PoolKind::NonPaged),
        (PoolFlags::NON_PAGED_EXECUTE, PoolKind::NonPagedExecute),
        (PoolFlags::PAGED, PoolKind::Paged),
    ];
    let mut asked = kinds.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, kind)| *kind);
    // The page: NULL for a tag of 0 and for invalid flags, which includes none or two kinds of pool.
    let (Some(kind), None) = (asked.next(), asked.next()) else { return 0 };
    if tag == 0 || bits & REQUIRED_FLAGS & !PoolFlags::all().bits() != 0 {
        return 0;
    }
    check_tag(call, tag);
    if flags.contains(PoolFlags::RAISE_ON_FAILURE) {
        call.stop(Rule::NotImplemented, "POOL_FLAG_RAISE_ON_FAILURE: exceptions out of the pool are not simulated");
    }
    let request = Request {
        kind,
        length,
        tag,
        zeroed: !flags.contains(PoolFlags::UNINITIALIZED),
        cache_aligned: flags.contains(PoolFlags::CACHE_ALIGNED),
    };
    call.machine().nt.pool().allocate(call, request)
}

extern "efiapi" fn ex_allocate_pool_with_tag(pool_type: i32, length: usize, tag: u32) -> usize {
    allocate_old(&Call::enter(), pool_type, length, tag)
}

extern "efiapi" fn ex_allocate_pool_with_tag_priority(
    pool_type: i32,
    length: usize,
    tag: u32,
    _priority: i32,
) -> usize {
    allocate_old(&Call::enter(), pool_type, length, tag)
}

extern "efiapi" fn ex_allocate_pool(pool_type: i32, length: usize) -> usize {
    allocate_old(&Call::enter(), pool_type, length, NO_TAG)
}

fn allocate_old(call: &Call, pool_type: i32, length: usize, tag: u32) -> usize {
    check_length(call, length);
    if tag == 0 {
        call.stop(Rule::BadArgument, "pool tag 0");
    }
    check_tag(call, tag);
    if pool_type & POOL_RAISE_IF_ALLOCATION_FAILURE != 0 {
        call.stop(
            Rule::NotImplemented,
            "POOL_RAISE_IF_ALLOCATION_FAILURE: exceptions out of the pool are not simulated",
        );
    }
    // POOL_TYPE: even numbers are non-paged, odd ones paged; 4 adds cache alignment.
    let kind = match (pool_type & 1, pool_type & POOL_NX_ALLOCATION) {
        (1, _) => PoolKind::Paged,
        (_, 0) => PoolKind::NonPagedExecute,
        _ => PoolKind::NonPaged,
    };
    let zeroed = pool_type & POOL_ZERO_ALLOCATION != 0;
    let cache_aligned = matches!(pool_type & 7, 4 | 5);
    call.machine().nt.pool().allocate(call, Request { kind, length, tag, zeroed, cache_aligned })
}

fn check_length(call: &Call, length: usize) {
    if length == 0 {
        call.stop(Rule::BadArgument, "a pool block of 0 bytes");
    }
}

fn check_tag(call: &Call, tag: u32) {
    // Fewer than four characters leave zero bytes at the end, which the pages' examples use.
    let bytes = tag.to_le_bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if !bytes.iter().take(used).all(|byte| (0x20..=0x7E).contains(byte)) {
        call.stop(Rule::BadArgument, format!("pool tag {tag:#010x} has characters outside 0x20 to 0x7E"));
    }
}

extern "efiapi" fn ex_free_pool(block: usize) {
    let call = Call::enter();
    call.machine().nt.pool().free(&call, block, 0);
}

extern "efiapi" fn ex_free_pool_with_tag(block: usize, tag: u32) {
    let call = Call::enter();
    call.detail(tag_text(tag));
    call.machine().nt.pool().free(&call, block, tag);
}

extern "efiapi" fn ex_free_pool2(block: usize, tag: u32, _parameters: Raw<u8>, _count: u32) {
    let call = Call::enter();
    call.detail(tag_text(tag));
    call.machine().nt.pool().free(&call, block, tag);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;
    use crate::nt::arena::PAGE;
    use crate::thread::Thread;

    const TAG: u32 = u32::from_le_bytes(*b"FwBk");
    const NON_PAGED: u64 = 0x40;
    const PAGED: u64 = 0x100;

    fn broken(body: impl FnOnce()) -> Rule {
        Bench::new().run(body).expect_err("a rule is broken").0.rule
    }

    fn works<R>(body: impl FnOnce() -> R) -> R {
        Bench::new().run(body).expect("no rule is broken")
    }

    #[test]
    fn a_block_is_zeroed_aligned_to_16_and_above_user_space() {
        works(|| {
            for length in [1, 15, 16, 17, 100, 4000] {
                let block = ex_allocate_pool2(NON_PAGED, length, TAG);
                assert!(block > crate::process::HIGHEST_USER_ADDRESS);
                assert_eq!(block % 16, 0);
                assert!(Raw::<u8>::at(block).read_bytes(length).iter().all(|byte| *byte == 0));
                ex_free_pool(block);
            }
        });
    }

    #[test]
    fn a_block_of_a_page_or_more_is_page_aligned() {
        works(|| {
            let block = ex_allocate_pool2(PAGED, PAGE + 1, TAG);
            assert_eq!(block % PAGE, 0);
            ex_free_pool_with_tag(block, TAG);
        });
    }

    #[test]
    fn an_uninitialised_block_is_poisoned() {
        works(|| {
            let block = ex_allocate_pool2(NON_PAGED | 2, 8, TAG);
            assert_eq!(Raw::<u64>::at(block).read(), 0xCDCD_CDCD_CDCD_CDCD);
            ex_free_pool(block);
            let block = ex_allocate_pool_with_tag(512, 8, TAG);
            assert_eq!(Raw::<u64>::at(block).read(), 0xCDCD_CDCD_CDCD_CDCD);
            ex_free_pool(block);
        });
    }

    #[test]
    fn invalid_flags_and_tag_zero_give_null() {
        works(|| {
            assert_eq!(ex_allocate_pool2(NON_PAGED, 8, 0), 0);
            assert_eq!(ex_allocate_pool2(0, 8, TAG), 0, "no kind of pool");
            assert_eq!(ex_allocate_pool2(NON_PAGED | PAGED, 8, TAG), 0, "two kinds");
            assert_eq!(ex_allocate_pool2(NON_PAGED | 0x1000, 8, TAG), 0, "an unknown flag");
        });
    }

    #[test]
    fn unknown_optional_flags_are_ignored() {
        works(|| {
            let block = ex_allocate_pool2(NON_PAGED | 1 << 40, 8, TAG);
            assert_ne!(block, 0);
            ex_free_pool(block);
        });
    }

    #[test]
    fn a_length_of_zero_is_found() {
        assert_eq!(broken(|| _ = ex_allocate_pool2(NON_PAGED, 0, TAG)), Rule::BadArgument);
    }

    #[test]
    fn a_tag_that_cannot_be_printed_is_found() {
        assert_eq!(broken(|| _ = ex_allocate_pool2(NON_PAGED, 8, 0x01_41_41_41)), Rule::BadArgument);
    }

    #[test]
    fn paged_pool_is_allocated_at_most_at_apc_level() {
        let rule = broken(|| {
            Thread::current().set_irql(2);
            _ = ex_allocate_pool2(PAGED, 8, TAG);
        });
        assert_eq!(rule, Rule::IrqlTooHigh);
    }

    #[test]
    fn non_paged_pool_is_allocated_at_dispatch_level() {
        works(|| {
            Thread::current().set_irql(2);
            ex_free_pool(ex_allocate_pool2(NON_PAGED, 8, TAG));
            Thread::current().set_irql(0);
        });
    }

    #[test]
    fn paged_pool_is_freed_at_most_at_apc_level() {
        let rule = broken(|| {
            let block = ex_allocate_pool2(PAGED, 8, TAG);
            Thread::current().set_irql(2);
            ex_free_pool(block);
        });
        assert_eq!(rule, Rule::IrqlTooHigh);
    }

    #[test]
    fn a_double_free_is_found_and_names_the_first() {
        let stopped = Bench::new().run(|| {
            let block = ex_allocate_pool2(NON_PAGED, 8, TAG);
            ex_free_pool(block);
            ex_free_pool(block);
        });
        let finding = stopped.expect_err("a rule is broken").0;
        assert_eq!(finding.rule, Rule::BadPoolFree);
        assert!(finding.message.contains("freed before"), "{}", finding.message);
    }

    #[test]
    fn a_free_with_another_tag_is_found() {
        let rule = broken(|| ex_free_pool_with_tag(ex_allocate_pool2(NON_PAGED, 8, TAG), 0x4141_4141));
        assert_eq!(rule, Rule::BadPoolFree);
    }

    #[test]
    fn a_free_of_a_pointer_into_a_block_is_found() {
        assert_eq!(broken(|| ex_free_pool(ex_allocate_pool2(NON_PAGED, 64, TAG) + 16)), Rule::BadPoolFree);
    }

    #[test]
    fn a_byte_written_behind_a_block_is_found_at_the_free() {
        let rule = broken(|| {
            let block = ex_allocate_pool2(NON_PAGED, 10, TAG);
            Raw::<u8>::at(block + 10).write(0);
            ex_free_pool(block);
        });
        assert_eq!(rule, Rule::PoolCorruption);
    }

    #[test]
    fn a_byte_written_before_a_block_is_found_at_the_free() {
        let rule = broken(|| {
            let block = ex_allocate_pool2(NON_PAGED, 16, TAG);
            Raw::<u8>::at(block - 1).write(0);
            ex_free_pool(block);
        });
        assert_eq!(rule, Rule::PoolCorruption);
    }

    #[test]
    fn what_is_not_freed_is_reported_by_tag_with_its_bytes() {
        let bench = Bench::new();
        bench
            .run(|| {
                ex_allocate_pool2(NON_PAGED, 10, TAG);
                ex_allocate_pool2(NON_PAGED, 20, TAG);
            })
            .unwrap();
        let leaks = bench.machine().inner().nt.pool().leaks(bench.driver());
        let sum: (u64, u64) = leaks.iter().fold((0, 0), |sum, leak| (sum.0 + leak.count, sum.1 + leak.bytes));
        assert_eq!(sum, (2, 30));
        assert!(leaks.iter().all(|leak| leak.detail.contains("FwBk")), "{leaks:?}");
    }
}
