//! Processors: the simulated computer has one group with one of them, number 0. Also what a thread may ask of them.

use nt_types::{NtStatus, UNICODE_STRING};

use super::raw::Raw;
use crate::cpu::bridge::call_out;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::irql::raise;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeQueryActiveProcessors(max 31) = active_processors;
    KeQueryActiveProcessorCountEx(max 31) = processor_count_of_group;
    KeQueryMaximumProcessorCount(max 31) = processor_count;
    KeQueryMaximumProcessorCountEx(max 31) = processor_count_of_group;
    KeQueryActiveGroupCount(max 31) = group_count;
    KeQueryMaximumGroupCount(max 31) = group_count;
    KeQueryGroupAffinity(max 31) = group_affinity;
    KeQueryHighestNodeNumber(max 31) = highest_node;
    KeGetCurrentNodeNumber(max 31) = highest_node;
    KeGetProcessorNumberFromIndex(max 31) = number_from_index;
    KeGetProcessorIndexFromNumber(max 31) = index_from_number;
    KeGetRecommendedSharedDataAlignment(max 31) = shared_data_alignment;
    KeSetSystemAffinityThread(max 2) = set_affinity;
    KeSetSystemAffinityThreadEx(max 2) = set_affinity_ex;
    KeRevertToUserAffinityThread(max 2) = revert_affinity;
    KeRevertToUserAffinityThreadEx(max 2) = revert_affinity_ex;
    KeSetSystemGroupAffinityThread(max 2) = set_group_affinity;
    KeRevertToUserGroupAffinityThread(max 2) = revert_group_affinity;
    KeIpiGenericCall(max 14) = ipi_generic_call;
    KeInvalidateAllCaches(max 31) = invalidate_all_caches;
    KeSaveExtendedProcessorState(max 2, fails RESOURCES) = save_extended_state;
    KeRestoreExtendedProcessorState(max 2) = restore_extended_state;
    RtlGetEnabledExtendedFeatures(max 2) = enabled_extended_features;
    ExIsProcessorFeaturePresent(max 31) = is_feature_present;
    KeExpandKernelStackAndCallout(max 1, fails NO_MEMORY) = expand_stack_and_callout;
    KeExpandKernelStackAndCalloutEx(max 2, fails NO_MEMORY) = expand_stack_and_callout_ex;
    PsGetVersion(max 0) = ps_get_version;
}

/// The one processor as a mask.
const AFFINITY: usize = 1;
/// `ALL_PROCESSOR_GROUPS`.
const ALL_GROUPS: u16 = 0xFFFF;
/// `INVALID_PROCESSOR_INDEX`.
const INVALID_INDEX: u32 = u32::MAX;
/// `IPI_LEVEL`.
const IPI_LEVEL: u8 = 14;
/// Most stack that `KeExpandKernelStackAndCallout` gives: `MAXIMUM_EXPANSION_SIZE`.
const MAXIMUM_EXPANSION: usize = 0x12000;
/// Extended features that drivers may save: x87, SSE and AVX.
const SAVABLE_FEATURES: u64 = 7;

extern "efiapi" fn active_processors() -> usize {
    let _call = Call::enter();
    AFFINITY
}

extern "efiapi" fn processor_count() -> u32 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn processor_count_of_group(group: u16) -> u32 {
    let _call = Call::enter();
    // The page: 0 for a group that there is not.
    u32::from(group == 0 || group == ALL_GROUPS)
}

extern "efiapi" fn group_count() -> u16 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn group_affinity(group: u16) -> usize {
    let _call = Call::enter();
    if group == 0 { AFFINITY } else { 0 }
}

extern "efiapi" fn highest_node() -> u16 {
    let _call = Call::enter();
    0
}

extern "efiapi" fn number_from_index(index: u32, number: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    if index != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    number.write(0);
    NtStatus::SUCCESS
}

extern "efiapi" fn index_from_number(number: Raw<u32>) -> u32 {
    let _call = Call::enter();
    if number.read() == 0 { 0 } else { INVALID_INDEX }
}

extern "efiapi" fn shared_data_alignment() -> u32 {
    let _call = Call::enter();
    64
}

/// Stops unless a mask has the processor that there is.
fn check_affinity(call: &Call, affinity: usize) {
    if affinity & AFFINITY == 0 {
        call.stop(Rule::BadArgument, format!("affinity {affinity:#x} names no active processor"));
    }
}

extern "efiapi" fn set_affinity(affinity: usize) {
    check_affinity(&Call::enter(), affinity);
}

extern "efiapi" fn set_affinity_ex(affinity: usize) -> usize {
    check_affinity(&Call::enter(), affinity);
    // The page: 0 when no system affinity was set before.
    0
}

extern "efiapi" fn revert_affinity() {
    let _call = Call::enter();
}

extern "efiapi" fn revert_affinity_ex(affinity: usize) {
    let call = Call::enter();
    if affinity != 0 {
        check_affinity(&call, affinity);
    }
}

/// `GROUP_AFFINITY`: mask, group and six reserved bytes.
extern "efiapi" fn set_group_affinity(affinity: Raw<[u64; 2]>, previous: Raw<[u64; 2]>) {
    let call = Call::enter();
    let [mask, group] = affinity.read();
    if group & 0xFFFF != 0 {
        call.stop(Rule::BadArgument, format!("there is no processor group {}", group & 0xFFFF));
    }
    check_affinity(&call, mask as usize);
    previous.write_if_some([0, 0]);
}

extern "efiapi" fn revert_group_affinity(_previous: Raw<[u64; 2]>) {
    let _call = Call::enter();
}

extern "efiapi" fn ipi_generic_call(routine: usize, context: usize) -> usize {
    type Broadcast = unsafe extern "efiapi" fn(usize) -> usize;
    let call = Call::enter();
    let before = raise(&call, IPI_LEVEL);
    // SAFETY: the address of the caller's IpiGenericCall routine.
    let routine = unsafe { std::mem::transmute::<usize, Broadcast>(routine) };
    // SAFETY: it gets its context, at IPI_LEVEL, on the one processor that there is.
    let (call, result) = call_out(call, "IpiGenericCall", || unsafe { routine(context) });
    call.thread().set_irql(before);
    result
}

extern "efiapi" fn invalidate_all_caches() -> u8 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn save_extended_state(mask: u64, state: Raw<u8>) -> NtStatus {
    let _call = Call::enter();
    if mask & !SAVABLE_FEATURES != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    // Linux saves all of a thread's registers when it runs another; the structure only has to be there.
    state.cast::<u64>().write(mask);
    NtStatus::SUCCESS
}

extern "efiapi" fn restore_extended_state(_state: Raw<u8>) {
    let _call = Call::enter();
}

extern "efiapi" fn enabled_extended_features(mask: u64) -> u64 {
    let _call = Call::enter();
    let avx = if std::is_x86_feature_detected!("avx") { 4 } else { 0 };
    mask & (3 | avx)
}

extern "efiapi" fn is_feature_present(feature: u32) -> u8 {
    let _call = Call::enter();
    u8::from(crate::cpu::FEATURES.contains(&(feature as usize)))
}

extern "efiapi" fn expand_stack_and_callout(routine: usize, parameter: usize, size: usize) -> NtStatus {
    expand(Call::enter(), routine, parameter, size)
}

extern "efiapi" fn expand_stack_and_callout_ex(
    routine: usize,
    parameter: usize,
    size: usize,
    _wait: u8,
    _context: usize,
) -> NtStatus {
    expand(Call::enter(), routine, parameter, size)
}

/// The host's kernel stacks have room for the largest expansion already.
fn expand(call: Call, routine: usize, parameter: usize, size: usize) -> NtStatus {
    type Callout = unsafe extern "efiapi" fn(usize);
    if size > MAXIMUM_EXPANSION {
        return NtStatus::INVALID_PARAMETER_3;
    }
    // SAFETY: the address of the caller's EXPAND_STACK_CALLOUT.
    let routine = unsafe { std::mem::transmute::<usize, Callout>(routine) };
    // SAFETY: it gets its parameter.
    let (_call, ()) = call_out(call, "ExpandedStackCall", || unsafe { routine(parameter) });
    NtStatus::SUCCESS
}

extern "efiapi" fn ps_get_version(
    major: Raw<u32>,
    minor: Raw<u32>,
    build: Raw<u32>,
    service_pack: Raw<UNICODE_STRING>,
) -> u8 {
    let _call = Call::enter();
    major.write_if_some(super::misc::MAJOR_VERSION);
    minor.write_if_some(super::misc::MINOR_VERSION);
    build.write_if_some(super::misc::BUILD);
    service_pack.write_if_some(UNICODE_STRING::EMPTY);
    // TRUE for a checked build.
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;

    extern "efiapi" fn irql_and_context(context: usize) -> usize {
        context + usize::from(Thread::current().irql())
    }

    extern "efiapi" fn note(context: Raw<u32>) {
        context.write(7);
    }

    #[test]
    fn a_broadcast_runs_at_ipi_level_and_returns_what_its_routine_does() {
        conforms!(
            "wdm/nf-wdm-keipigenericcall.md",
            "The routine runs at IPI_LEVEL on each processor, and its result is returned."
        );
        let result = Bench::new().run(|| {
            let sum = ipi_generic_call(irql_and_context as *const () as usize, 100);
            (sum, Thread::current().irql())
        });
        assert_eq!(result.unwrap(), (114, 0));
    }

    #[test]
    fn groups_and_processors_that_are_not_there_are_not_counted() {
        conforms!(
            "ntddk/nf-ntddk-kequeryactiveprocessorcountex.md",
            "0 is returned for a group number that is not valid."
        );
        conforms!(
            "wdm/nf-wdm-kegetprocessorindexfromnumber.md",
            "INVALID_PROCESSOR_INDEX is returned for a processor that there is not."
        );
        Bench::new()
            .run(|| {
                assert_eq!(
                    (processor_count_of_group(0), processor_count_of_group(ALL_GROUPS), processor_count_of_group(3)),
                    (1, 1, 0)
                );
                let mut number = 5;
                assert_eq!(index_from_number(Raw::of(&raw mut number)), INVALID_INDEX);
                assert_eq!(number_from_index(1, Raw::of(&raw mut number)), NtStatus::INVALID_PARAMETER);
            })
            .unwrap();
        assert_eq!(Bench::new().run(|| set_affinity(2)).unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn a_routine_runs_on_an_expanded_stack_unless_it_wants_too_much() {
        conforms!(
            "ntddk/nf-ntddk-keexpandkernelstackandcallout.md",
            "STATUS_INVALID_PARAMETER_3 is returned for more than MAXIMUM_EXPANSION_SIZE."
        );
        let mut seen = 0;
        let context = Raw::of(&raw mut seen);
        Bench::new()
            .run(|| {
                let routine = note as *const () as usize;
                let too_much = MAXIMUM_EXPANSION + 1;
                assert_eq!(
                    expand_stack_and_callout(routine, context.address(), too_much),
                    NtStatus::INVALID_PARAMETER_3
                );
                assert_eq!(context.read(), 0);
                assert_eq!(expand_stack_and_callout(routine, context.address(), 0x4000), NtStatus::SUCCESS);
                assert_eq!(context.read(), 7);
            })
            .unwrap();
    }
}
