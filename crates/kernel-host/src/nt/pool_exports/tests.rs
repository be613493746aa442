//! One test per documented rule of pool allocation.

use super::*;
use crate::conformance::conforms;
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
    conforms!("wdm/nf-wdm-exallocatepool2.md", "The block is zeroed, and aligned to 16 bytes on 64-bit systems.");
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
    conforms!("wdm/nf-wdm-exallocatepool2.md", "A block of a page or more is page aligned.");
    works(|| {
        let block = ex_allocate_pool2(PAGED, PAGE + 1, TAG);
        assert_eq!(block % PAGE, 0);
        ex_free_pool_with_tag(block, TAG);
    });
}

#[test]
fn an_uninitialised_block_is_poisoned() {
    conforms!("wdm/nf-wdm-exallocatepoolwithtag.md", "The memory is not initialised.");
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
    conforms!("wdm/nf-wdm-exallocatepool2.md", "A tag of 0 or invalid flags give NULL.");
    works(|| {
        assert_eq!(ex_allocate_pool2(NON_PAGED, 8, 0), 0);
        assert_eq!(ex_allocate_pool2(0, 8, TAG), 0, "no kind of pool");
        assert_eq!(ex_allocate_pool2(NON_PAGED | PAGED, 8, TAG), 0, "two kinds");
        assert_eq!(ex_allocate_pool2(NON_PAGED | 0x1000, 8, TAG), 0, "an unknown flag");
    });
}

#[test]
fn unknown_optional_flags_are_ignored() {
    conforms!(
        "docs:kernel/pool_flags.md",
        "Optional flags (the upper 32 bits) that the system does not know are ignored."
    );
    works(|| {
        let block = ex_allocate_pool2(NON_PAGED | 1 << 40, 8, TAG);
        assert_ne!(block, 0);
        ex_free_pool(block);
    });
}

#[test]
fn a_length_of_zero_is_found() {
    conforms!("wdm/nf-wdm-exallocatepoolwithtag.md", "Zero-length allocations are errors to Driver Verifier.");
    assert_eq!(broken(|| _ = ex_allocate_pool2(NON_PAGED, 0, TAG)), Rule::BadArgument);
}

#[test]
fn a_tag_that_cannot_be_printed_is_found() {
    conforms!("wdm/nf-wdm-exallocatepool2.md", "Each character of the tag is from 0x20 to 0x7E.");
    assert_eq!(broken(|| _ = ex_allocate_pool2(NON_PAGED, 8, 0x01_41_41_41)), Rule::BadArgument);
}

#[test]
fn paged_pool_is_allocated_at_most_at_apc_level() {
    conforms!("wdm/nf-wdm-exallocatepool2.md", "Paged pool is allocated at APC_LEVEL at most.");
    let rule = broken(|| {
        Thread::current().set_irql(2);
        _ = ex_allocate_pool2(PAGED, 8, TAG);
    });
    assert_eq!(rule, Rule::IrqlTooHigh);
}

#[test]
fn non_paged_pool_is_allocated_at_dispatch_level() {
    conforms!("wdm/nf-wdm-exallocatepool2.md", "Non-paged pool is allocated at DISPATCH_LEVEL at most.");
    works(|| {
        Thread::current().set_irql(2);
        ex_free_pool(ex_allocate_pool2(NON_PAGED, 8, TAG));
        Thread::current().set_irql(0);
    });
}

#[test]
fn paged_pool_is_freed_at_most_at_apc_level() {
    conforms!("ntddk/nf-ntddk-exfreepool.md", "Paged pool is freed at APC_LEVEL at most.");
    let rule = broken(|| {
        let block = ex_allocate_pool2(PAGED, 8, TAG);
        Thread::current().set_irql(2);
        ex_free_pool(block);
    });
    assert_eq!(rule, Rule::IrqlTooHigh);
}

#[test]
fn a_double_free_is_found_and_names_the_first() {
    conforms!("ntddk/nf-ntddk-exfreepool.md", "A block is freed once.");
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
    conforms!("wdm/nf-wdm-exfreepoolwithtag.md", "A block is freed with the tag that it was allocated with.");
    let rule = broken(|| ex_free_pool_with_tag(ex_allocate_pool2(NON_PAGED, 8, TAG), 0x4141_4141));
    assert_eq!(rule, Rule::BadPoolFree);
}

#[test]
fn a_free_of_a_pointer_into_a_block_is_found() {
    assert_eq!(broken(|| ex_free_pool(ex_allocate_pool2(NON_PAGED, 64, TAG) + 16)), Rule::BadPoolFree);
}

#[test]
fn a_byte_written_behind_a_block_is_found_at_the_free() {
    conforms!("docs:devtest/special-pool.md", "A write behind an allocation is found.");
    let rule = broken(|| {
        let block = ex_allocate_pool2(NON_PAGED, 10, TAG);
        Raw::<u8>::at(block + 10).write(0);
        ex_free_pool(block);
    });
    assert_eq!(rule, Rule::PoolCorruption);
}

#[test]
fn a_byte_written_before_a_block_is_found_at_the_free() {
    conforms!("docs:devtest/special-pool.md", "A write before an allocation is found when it is freed.");
    let rule = broken(|| {
        let block = ex_allocate_pool2(NON_PAGED, 16, TAG);
        Raw::<u8>::at(block - 1).write(0);
        ex_free_pool(block);
    });
    assert_eq!(rule, Rule::PoolCorruption);
}

#[test]
fn what_is_not_freed_is_reported_by_tag_with_its_bytes() {
    conforms!("docs:devtest/pool-tracking.md", "What a driver has not freed is found when it is unloaded.");
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

fn raised(body: impl FnOnce()) -> String {
    let finding = Bench::new().run(body).expect_err("an exception without a handler").0;
    assert_eq!(finding.rule, Rule::UnhandledException);
    finding.message
}

/// More than the simulated kernel space has.
const TOO_MUCH: usize = 1 << 45;

#[test]
fn a_failed_allocation_raises_for_those_who_asked_for_it() {
    conforms!("wdm/nf-wdm-exallocatepool2.md", "With POOL_FLAG_RAISE_ON_FAILURE a failure is an exception.");
    conforms!(
        "wdm/nf-wdm-exallocatepoolwithtag.md",
        "With POOL_RAISE_IF_ALLOCATION_FAILURE a failure is an exception."
    );
    assert!(raised(|| _ = ex_allocate_pool2(NON_PAGED | 0x20, TOO_MUCH, TAG)).contains("INSUFFICIENT_RESOURCES"));
    assert!(raised(|| _ = ex_allocate_pool2(NON_PAGED | 0x20, 8, 0)).contains("INSUFFICIENT_RESOURCES"));
    assert!(raised(|| _ = ex_allocate_pool_with_tag(512 | 16, TOO_MUCH, TAG)).contains("INSUFFICIENT_RESOURCES"));
    works(|| assert_eq!(ex_allocate_pool_with_tag(512, TOO_MUCH, TAG), 0));
}

#[test]
fn a_failed_allocation_with_quota_raises_unless_told_not_to() {
    conforms!(
        "wdm/nf-wdm-exallocatepoolwithquotatag.md",
        "A failure is an exception unless POOL_QUOTA_FAIL_INSTEAD_OF_RAISE is given."
    );
    assert!(raised(|| _ = ex_allocate_pool_with_quota_tag(512, TOO_MUCH, TAG)).contains("INSUFFICIENT_RESOURCES"));
    works(|| {
        assert_eq!(ex_allocate_pool_with_quota_tag(512 | 8, TOO_MUCH, TAG), 0);
        ex_free_pool(ex_allocate_pool_with_quota(512, 16));
    });
}

#[test]
fn invalid_extended_parameters_give_null() {
    conforms!("wdm/nf-wdm-exallocatepool3.md", "Invalid POOL_EXTENDED_PARAMETER structures give NULL.");
    works(|| {
        assert_eq!(ex_allocate_pool3(NON_PAGED, 8, TAG, Raw::NULL, 1), 0);
        let mut parameter = [0_u64, 0];
        let raw = Raw::of(parameter.as_mut_ptr());
        assert_eq!(ex_allocate_pool3(NON_PAGED, 8, TAG, raw, 1), 0, "PoolExtendedParameterInvalidType");
        raw.write(1); // priority
        raw.index(1).write(16); // normal
        let block = ex_allocate_pool3(NON_PAGED, 8, TAG, raw, 1);
        assert_ne!(block, 0);
        ex_free_pool2(block, TAG, Raw::NULL, 0);
    });
}

#[test]
fn a_zeroing_wrapper_gets_zeroed_memory() {
    conforms!("wdm/nf-wdm-exallocatepoolzero.md", "The block is zeroed.");
    works(|| {
        let block = ex_allocate_pool_with_tag(512 | 1024, 8, TAG);
        assert_eq!(Raw::<u64>::at(block).read(), 0);
        ex_free_pool(block);
    });
}

#[test]
fn a_pool_type_that_does_not_exist_is_found() {
    assert_eq!(broken(|| _ = ex_allocate_pool_with_tag(0x4000, 8, TAG)), Rule::BadArgument);
}

#[test]
fn pool_for_file_systems_is_poisoned_and_has_a_tag() {
    conforms!("ntifs/nf-ntifs-fsrtlallocatepoolwithtag.md", "The memory is not initialised.");
    conforms!("ntifs/nf-ntifs-fsrtlallocatepoolwithtag.md", "A length or a tag of zero is not allowed.");
    works(|| {
        let block = fs_rtl_allocate_pool_with_tag(1, 8, TAG);
        assert_eq!(Raw::<u64>::at(block).read(), 0xCDCD_CDCD_CDCD_CDCD);
        ex_free_pool_with_tag(block, TAG);
        ex_free_pool(fs_rtl_allocate_pool(512, 8));
    });
    assert_eq!(broken(|| _ = fs_rtl_allocate_pool_with_tag(1, 0, TAG)), Rule::BadArgument);
    assert_eq!(broken(|| _ = fs_rtl_allocate_pool_with_tag(1, 8, 0)), Rule::BadArgument);
}

#[test]
fn pool_for_file_systems_is_paged_only_below_dispatch_level() {
    conforms!("ntifs/nf-ntifs-fsrtlallocatepoolwithtag.md", "At DISPATCH_LEVEL the pool has to be nonpaged.");
    let rule = broken(|| {
        Thread::current().set_irql(2);
        fs_rtl_allocate_pool_with_tag(1, 8, TAG);
    });
    assert_eq!(rule, Rule::IrqlTooHigh);
}
