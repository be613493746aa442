//! What the pages say of processors and their clock.

use std::cell::RefCell;

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::leak::LeakKind;

thread_local! {
    static SEEN: RefCell<Vec<(usize, u32)>> = const { RefCell::new(Vec::new()) };
}

extern "efiapi" fn changed(context: usize, change: Raw<u32>, _status: Raw<NtStatus>) {
    SEEN.with_borrow_mut(|seen| seen.push((context, change.read())));
}

extern "efiapi" fn failing(context: usize, change: Raw<u32>, status: Raw<NtStatus>) {
    changed(context, change, status);
    status.write(NtStatus::INSUFFICIENT_RESOURCES);
}

fn works(body: impl FnOnce()) {
    Bench::new().run(body).expect("no rule is broken");
}

fn register(routine: extern "efiapi" fn(usize, Raw<u32>, Raw<NtStatus>), flags: u32) -> (usize, Vec<(usize, u32)>) {
    SEEN.take();
    (register_change(routine as *const () as usize, 5, flags), SEEN.take())
}

#[test]
fn the_processor_that_is_there_is_announced_when_asked_for() {
    conforms!(
        "wdm/nf-wdm-keregisterprocessorchangecallback.md",
        "With KE_PROCESSOR_CHANGE_ADD_EXISTING the routine is called twice for each active processor: start, complete."
    );
    conforms!(
        "wdm/nf-wdm-keregisterprocessorchangecallback.md",
        "A processor for which the first call failed gets no second one; the registration stands all the same."
    );
    works(|| {
        let (plain, seen) = register(changed, 0);
        assert_eq!(seen, []);
        let (existing, seen) = register(changed, ADD_EXISTING);
        assert_eq!(seen, [(5, ADD_START), (5, ADD_COMPLETE)]);
        let (failed, seen) = register(failing, ADD_EXISTING);
        assert_eq!(seen, [(5, ADD_START)]);
        for handle in [plain, existing, failed] {
            assert_ne!(handle, 0);
            deregister_change(handle);
        }
    });
}

#[test]
fn a_registration_is_taken_back_once_and_before_the_driver_goes() {
    conforms!(
        "wdm/nf-wdm-keregisterprocessorchangecallback.md",
        "The routine has to be unregistered before the driver is unloaded."
    );
    let bench = Bench::new();
    let handle = bench.run(|| register(changed, 0).0).unwrap();
    assert_eq!(bench.machine().held_by(bench.driver()).count(LeakKind::Registration), 1);
    let twice = bench.run(|| {
        deregister_change(handle);
        deregister_change(handle);
    });
    assert_eq!(twice.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn relationships_are_told_into_a_buffer_that_is_large_enough() {
    conforms!(
        "wdm/nf-wdm-kequerylogicalprocessorrelationship.md",
        "STATUS_INFO_LENGTH_MISMATCH and the length that is needed come for NULL or a buffer that is too small."
    );
    conforms!(
        "wdm/nf-wdm-kequerylogicalprocessorrelationship.md",
        "STATUS_INVALID_PARAMETER is returned for a processor number that is not valid."
    );
    works(|| {
        let mut length = 0_u32;
        let length = Raw::of(&raw mut length);
        let query = |relation, out| query_relationship(Raw::NULL, relation, out, length);
        assert_eq!(query(relation::ALL, Raw::NULL), NtStatus::INFO_LENGTH_MISMATCH);
        let needed = length.read();
        let mut memory = vec![0_u32; 128];
        let out = Raw::<u32>::of(memory.as_mut_ptr());
        length.write(needed - 1);
        assert_eq!(query(relation::ALL, out.cast()), NtStatus::INFO_LENGTH_MISMATCH);
        assert_eq!((query(relation::ALL, out.cast()), length.read()), (NtStatus::SUCCESS, needed));
        // The entries fill the buffer exactly, each with its own size.
        let mut at = 0;
        let mut relations = Vec::new();
        while at < needed {
            relations.push(out.field::<u32>(at as usize).read());
            at += out.field::<u32>(at as usize + 4).read();
        }
        assert_eq!((at, relations), (needed, vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(query(relation::GROUP, out.cast()), NtStatus::SUCCESS);
        assert_eq!((out.field::<[u16; 2]>(8).read(), out.field::<u64>(72).read()), ([1, 1], 1));
        let mut number = 3;
        let other = query_relationship(Raw::of(&raw mut number), relation::CORE, out.cast(), length);
        assert_eq!(other, NtStatus::INVALID_PARAMETER);
    });
}

#[test]
fn the_watchdog_is_asked_in_a_dpc_or_at_its_level() {
    conforms!(
        "wdm/nf-wdm-kequerydpcwatchdoginformation.md",
        "STATUS_UNSUCCESSFUL is returned where no DPC runs and the IRQL is below DISPATCH_LEVEL."
    );
    works(|| {
        let mut information = [0; 5];
        let out = Raw::of(&raw mut information);
        assert_eq!((query_dpc_watchdog(out), is_executing_dpc()), (NtStatus::UNSUCCESSFUL, 0));
        Thread::current().set_irql(2);
        assert_eq!(query_dpc_watchdog(out), NtStatus::SUCCESS);
        assert!(out.read()[1] <= out.read()[0]);
        Thread::current().set_irql(0);
    });
}

#[test]
fn floating_point_state_is_restored_once_where_it_was_saved() {
    conforms!("wdm/nf-wdm-kesavefloatingpointstate.md", "STATUS_SUCCESS is returned for a saved state.");
    conforms!(
        "wdm/nf-wdm-kerestorefloatingpointstate.md",
        "The state is restored at the IRQL at which it was saved, else the system bug-checks."
    );
    let mut save = 0;
    let save = Raw::of(&raw mut save);
    works(|| {
        assert_eq!(save_floating_point(save), NtStatus::SUCCESS);
        assert_eq!(restore_floating_point(save), NtStatus::SUCCESS);
    });
    // It was restored already.
    assert_eq!(Bench::new().run(|| restore_floating_point(save)).unwrap_err().0.rule, Rule::BadState);
    let broken = Bench::new().run(|| {
        let _saved = save_floating_point(save);
        Thread::current().set_irql(2);
        restore_floating_point(save)
    });
    assert_eq!(broken.unwrap_err().0.rule, Rule::BadState);
}

extern "efiapi" fn on_each(_dpc: usize, context: Raw<u32>, done: Raw<u32>, barrier: Raw<u32>) {
    context.write(u32::from(Thread::current_irql()) + u32::from(signal_call_dpc_synchronize(barrier)));
    signal_call_dpc_done(done);
}

#[test]
fn a_routine_for_every_processor_runs_on_the_one() {
    works(|| {
        let mut seen = 0;
        let context = Raw::of(&raw mut seen);
        generic_call_dpc(on_each as *const () as usize, context.address());
        assert_eq!((context.read(), Thread::current_irql()), (3, 0));
    });
}

#[test]
fn the_finest_resolution_that_is_asked_for_holds_until_it_is_given_back() {
    conforms!(
        "wdm/nf-wdm-exsettimerresolution.md",
        "The resolution changes only to a finer one, down to what the system can do; the new one is returned."
    );
    conforms!("wdm/nf-wdm-exsettimerresolution.md", "With SetResolution FALSE the default is restored.");
    conforms!("wdm/nf-wdm-exsettimerresolution.md", "A driver restores the default before it is unloaded.");
    let bench = Bench::new();
    bench
        .run(|| {
            let asked = [10_000, 100_000, 1].map(|desired| set_timer_resolution(desired, 1));
            assert_eq!(asked, [10_000, 10_000, FINEST_RESOLUTION]);
        })
        .unwrap();
    assert_eq!(bench.machine().held_by(bench.driver()).count(LeakKind::Registration), 1);
    assert_eq!(bench.run(|| set_timer_resolution(0, 0)).unwrap(), DEFAULT_RESOLUTION);
    assert_eq!(bench.machine().held_by(bench.driver()).count(LeakKind::Registration), 0);
}
