//! Routines that drivers have called when the system bug-checks.
//!
//! They run when a driver calls `KeBugCheckEx`. A finding of the verifier's does not call them: it stops the machine where it is,
//! so that what the driver left can be looked at. No crash dump is written, hence of the reasons only those are served that
//! ask a driver for its own data and pages; the others are registered and have nothing to be called for.

use nt_types::HIGH_LEVEL;

use super::raw::Raw;
use super::registered::{Kind, Registration};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::arena::{Access, PAGE};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeRegisterBugCheckCallback(max 31) = ke_register_bug_check_callback;
    KeDeregisterBugCheckCallback(max 31) = ke_deregister_bug_check_callback;
    KeRegisterBugCheckReasonCallback(max 31) = ke_register_bug_check_reason_callback;
    KeDeregisterBugCheckReasonCallback(max 31) = ke_deregister_bug_check_reason_callback;
}

/// Fields of `KBUGCHECK_CALLBACK_RECORD`.
mod record {
    pub(super) const ROUTINE: usize = 16;
    pub(super) const BUFFER: usize = 24;
    pub(super) const LENGTH: usize = 32;
    pub(super) const COMPONENT: usize = 40;
    pub(super) const STATE: usize = 56;
}

/// Fields of `KBUGCHECK_REASON_CALLBACK_RECORD`.
mod reason_record {
    pub(super) const ROUTINE: usize = 16;
    pub(super) const COMPONENT: usize = 24;
    pub(super) const REASON: usize = 40;
    pub(super) const STATE: usize = 44;
}

/// `BufferEmpty`, as `KeInitializeCallbackRecord` leaves a record, and `BufferInserted`.
const EMPTY: u8 = 0;
const INSERTED: u8 = 1;

/// `KBUGCHECK_CALLBACK_REASON`.
const SECONDARY_DUMP_DATA: i32 = 2;
const ADD_PAGES: i32 = 4;
/// From `KbCallbackReserved1` on to `KbCallbackTriageDumpData`.
const REASONS: std::ops::RangeInclusive<i32> = 1..=7;

/// `KBUGCHECK_SECONDARY_DUMP_DATA` and `KBUGCHECK_ADD_PAGES`: bytes, and the fields that are read back.
const SECONDARY_LENGTH: u32 = 48;
const SECONDARY_OUT: usize = 32;
const SECONDARY_OUT_LENGTH: usize = 40;
const ADD_PAGES_LENGTH: u32 = 40;

/// Most bytes that one driver may add.
const MOST_SECONDARY: u32 = PAGE as u32;

fn insert(call: &Call, kind: Kind, at: (Raw<u8>, usize), routine: usize, context: usize) -> bool {
    let (record, state) = at;
    let state = record.field::<u8>(state);
    if state.read() != EMPTY || !call.machine().nt.registered().add(call, kind, record.address(), routine, context) {
        return false;
    }
    state.write(INSERTED);
    true
}

fn remove(kind: Kind, record: Raw<u8>, state: usize) -> u8 {
    let call = Call::enter();
    if call.machine().nt.registered().remove(kind, record.address()).is_none() {
        return 0;
    }
    record.field::<u8>(state).write(EMPTY);
    1
}

extern "efiapi" fn ke_register_bug_check_callback(
    record: Raw<u8>,
    routine: usize,
    buffer: usize,
    length: u32,
    component: usize,
) -> u8 {
    let call = Call::enter();
    if !insert(&call, Kind::BugCheck, (record, record::STATE), routine, buffer) {
        return 0;
    }
    record.field::<usize>(record::ROUTINE).write(routine);
    record.field::<usize>(record::BUFFER).write(buffer);
    record.field::<u32>(record::LENGTH).write(length);
    record.field::<usize>(record::COMPONENT).write(component);
    1
}

extern "efiapi" fn ke_deregister_bug_check_callback(record: Raw<u8>) -> u8 {
    remove(Kind::BugCheck, record, record::STATE)
}

extern "efiapi" fn ke_register_bug_check_reason_callback(
    record: Raw<u8>,
    routine: usize,
    reason: i32,
    component: usize,
) -> u8 {
    let call = Call::enter();
    if !REASONS.contains(&reason) {
        call.stop(Rule::BadArgument, format!("{reason} is no KBUGCHECK_CALLBACK_REASON"));
    }
    let at = (record, reason_record::STATE);
    if !insert(&call, Kind::BugCheckReason, at, routine, reason.unsigned_abs() as usize) {
        return 0;
    }
    record.field::<usize>(reason_record::ROUTINE).write(routine);
    record.field::<usize>(reason_record::COMPONENT).write(component);
    record.field::<i32>(reason_record::REASON).write(reason);
    1
}

extern "efiapi" fn ke_deregister_bug_check_reason_callback(record: Raw<u8>) -> u8 {
    remove(Kind::BugCheckReason, record, reason_record::STATE)
}

/// Calls all routines, as the system does before it stops with `code`.
pub(super) fn call_back(call: &Call, code: u32) {
    let registered = call.machine().nt.registered();
    for entry in registered.of_kind(Kind::BugCheckReason) {
        call_for_reason(call, &entry, code);
    }
    for entry in registered.of_kind(Kind::BugCheck) {
        type Routine = unsafe extern "efiapi" fn(usize, u32);
        let length = Raw::<u8>::at(entry.key).field::<u32>(record::LENGTH).read();
        // SAFETY: the address of the driver's KBUGCHECK_CALLBACK_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(entry.routine) };
        // SAFETY: it gets the buffer of its registration.
        let body = || unsafe { routine(entry.context, length) };
        enter(call, &entry, "BugCheckCallback", body);
    }
}

fn enter(call: &Call, entry: &Registration, callback: &'static str, body: impl FnOnce()) {
    if call.thread().call_driver(&entry.driver, callback, HIGH_LEVEL, body).is_err() {
        call.thread().leave_if_stopped();
    }
}

/// Asks one routine for what its reason is about.
fn call_for_reason(call: &Call, entry: &Registration, code: u32) {
    type Routine = unsafe extern "efiapi" fn(i32, usize, usize, u32);
    let reason = (entry.context as u32).cast_signed();
    // One page for the structure that the reason comes with, one for what the driver adds.
    let Some(pages) = call.machine().nt.arena().allocate(2, Access::ReadWrite) else { return };
    let data = Raw::<u8>::at(pages);
    let length = match reason {
        SECONDARY_DUMP_DATA => {
            data.cast::<usize>().write(pages + PAGE);
            data.field::<[u32; 2]>(8).write([MOST_SECONDARY; 2]);
            SECONDARY_LENGTH
        }
        ADD_PAGES => {
            data.field::<u32>(12).write(code);
            ADD_PAGES_LENGTH
        }
        _ => 0,
    };
    if length != 0 {
        // SAFETY: the address of the driver's KBUGCHECK_REASON_CALLBACK_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(entry.routine) };
        // SAFETY: it gets its record and the structure of its reason, which lives as long as the call.
        let body = || unsafe { routine(reason, entry.key, pages, length) };
        enter(call, entry, "BugCheckReasonCallback", body);
    }
    let added = data.field::<u32>(SECONDARY_OUT_LENGTH).read();
    let out = data.field::<usize>(SECONDARY_OUT).read();
    call.machine().nt.arena().release(pages, 2);
    if reason == SECONDARY_DUMP_DATA && out != 0 && added > MOST_SECONDARY {
        call.stop(
            Rule::BadArgument,
            format!("a bug-check callback adds {added} bytes of dump data; MaximumAllowed is {MOST_SECONDARY}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::leak::LeakKind;
    use crate::nt::debug::ke_bug_check_ex;
    use crate::thread::Thread;

    thread_local! {
        static SEEN: Cell<[u64; 3]> = const { Cell::new([0; 3]) };
    }

    extern "efiapi" fn reset_device(buffer: Raw<u64>, length: u32) {
        SEEN.set([buffer.read(), length.into(), Thread::current_irql().into()]);
    }

    extern "efiapi" fn add_data(reason: i32, record: Raw<u8>, data: Raw<u8>, length: u32) {
        let most = data.field::<u32>(12).read();
        SEEN.set([reason.unsigned_abs().into(), record.address() as u64, length.into()]);
        data.field::<usize>(SECONDARY_OUT).write(data.cast::<usize>().read());
        data.field::<u32>(SECONDARY_OUT_LENGTH).write(most + 1);
    }

    fn record() -> Raw<u8> {
        Raw::<[u64; 8]>::of(Box::leak(Box::new([0; 8]))).cast()
    }

    fn register(record: Raw<u8>, buffer: &mut u64) -> u8 {
        let buffer = Raw::of(&raw mut *buffer).address();
        ke_register_bug_check_callback(record, reset_device as *const () as usize, buffer, 8, 0)
    }

    #[test]
    fn a_routine_is_called_at_high_level_when_a_driver_stops_the_system() {
        conforms!("wdm/nf-wdm-keregisterbugcheckcallback.md", "The routine runs when the system issues a bug check.");
        conforms!("wdm/nc-wdm-kbugcheck_callback_routine.md", "It is called at HIGH_LEVEL with the registered buffer.");
        let mut buffer = 77;
        let stopped = Bench::new().run(|| {
            assert_eq!(register(record(), &mut buffer), 1);
            ke_bug_check_ex(0xE2, 1, 2, 3, 4);
        });
        let finding = stopped.unwrap_err().0;
        assert_eq!((finding.rule, SEEN.get()), (Rule::BugCheck, [77, 8, 15]));
        assert!(finding.message.contains("0xe2"), "{}", finding.message);
    }

    #[test]
    fn a_record_is_registered_once_and_then_free_again() {
        conforms!("wdm/nf-wdm-keregisterbugcheckcallback.md", "FALSE is returned when the routine cannot be added.");
        conforms!("wdm/nf-wdm-kederegisterbugcheckcallback.md", "FALSE is returned for one that is not registered.");
        conforms!(
            "wdm/nf-wdm-kederegisterbugcheckreasoncallback.md",
            "TRUE is returned when the callback was removed."
        );
        let mut buffer = 0;
        Bench::new()
            .run(|| {
                let record = record();
                assert_eq!([register(record, &mut buffer), register(record, &mut buffer)], [1, 0]);
                assert_eq!([(); 2].map(|()| ke_deregister_bug_check_callback(record)), [1, 0]);
                assert_eq!(register(record, &mut buffer), 1);
                ke_deregister_bug_check_callback(record);
                let routine = add_data as *const () as usize;
                assert_eq!(ke_register_bug_check_reason_callback(record, routine, ADD_PAGES, 0), 1);
                assert_eq!([(); 2].map(|()| ke_deregister_bug_check_reason_callback(record)), [1, 0]);
            })
            .unwrap();
    }

    #[test]
    fn a_routine_that_stays_registered_is_found_at_unload() {
        conforms!(
            "wdm/nf-wdm-keregisterbugcheckcallback.md",
            "A driver that can be unloaded removes its callbacks in its Unload routine."
        );
        let mut buffer = 0;
        let bench = Bench::new();
        bench.run(|| register(record(), &mut buffer)).unwrap();
        assert_eq!(bench.machine().held_by(bench.driver()).count(LeakKind::Registration), 1);
    }

    #[test]
    fn a_routine_adds_no_more_data_than_it_may() {
        conforms!(
            "wdm/nc-wdm-kbugcheck_reason_callback_routine.md",
            "The routine gets its reason, its record and the structure of the reason."
        );
        let stopped = Bench::new().run(|| {
            let record = record();
            let routine = add_data as *const () as usize;
            ke_register_bug_check_reason_callback(record, routine, SECONDARY_DUMP_DATA, 0);
            SEEN.set([0; 3]);
            let at = record.address() as u64;
            call_back(&Call::enter(), 0xE2);
            assert_eq!(SEEN.get(), [2, at, 48]);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
    }
}
