//! One-time initialisation (`RTL_RUN_ONCE`).

use std::sync::atomic::Ordering;

use nt_types::NtStatus;

use super::dispatcher::word;
use super::raw::Raw;
use crate::cpu::bridge::call_out;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlRunOnceInitialize(max 31) = initialize;
    RtlRunOnceBeginInitialize(max 1) = begin;
    RtlRunOnceComplete(max 1) = complete;
    RtlRunOnceExecuteOnce(max 1) = execute_once;
}

/// Low bits of the word; above them the context, whose own low bits are zero.
const PENDING: usize = 1;
const DONE: usize = 2;
const STATE: usize = 3;

/// `RTL_RUN_ONCE_CHECK_ONLY`.
const CHECK_ONLY: u32 = 1;
/// `RTL_RUN_ONCE_ASYNC`.
const ASYNC: u32 = 2;
/// `RTL_RUN_ONCE_INIT_FAILED`.
const INIT_FAILED: u32 = 4;

extern "efiapi" fn initialize(once: Raw<usize>) {
    let _call = Call::enter();
    once.write(0);
}

extern "efiapi" fn begin(once: Raw<usize>, flags: u32, context: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    begin_at(&call, once, flags, context)
}

fn begin_at(call: &Call, once: Raw<usize>, flags: u32, context: Raw<usize>) -> NtStatus {
    if flags & !(CHECK_ONLY | ASYNC) != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let mut status = NtStatus::UNSUCCESSFUL;
    call.machine().nt.dispatcher().wait(call, None, || {
        let value = word(once).load(Ordering::Acquire);
        match value & STATE {
            DONE => {
                context.write_if_some(value & !STATE);
                status = NtStatus::SUCCESS;
                true
            }
            0 if flags & CHECK_ONLY != 0 => true,
            0 => {
                status = NtStatus::PENDING;
                let state = if flags & ASYNC != 0 { STATE } else { PENDING };
                word(once).compare_exchange(0, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
            }
            // Somebody initialises already: wait, or (asynchronously) try too.
            _ if flags & CHECK_ONLY != 0 => true,
            _ => {
                status = NtStatus::PENDING;
                flags & ASYNC != 0
            }
        }
    });
    status
}

extern "efiapi" fn complete(once: Raw<usize>, flags: u32, context: usize) -> NtStatus {
    complete_at(&Call::enter(), once, flags, context)
}

fn complete_at(call: &Call, once: Raw<usize>, flags: u32, context: usize) -> NtStatus {
    if context & STATE != 0 {
        call.stop(Rule::BadArgument, format!("the context {context:#x} needs its two low bits clear"));
    }
    let before = word(once).load(Ordering::Acquire);
    if before & STATE == 0 || before & STATE == DONE {
        return NtStatus::UNSUCCESSFUL;
    }
    let after = if flags & INIT_FAILED != 0 { 0 } else { context | DONE };
    let changed = word(once).compare_exchange(before, after, Ordering::AcqRel, Ordering::Acquire).is_ok();
    call.machine().nt.dispatcher().wake();
    if changed { NtStatus::SUCCESS } else { NtStatus::UNSUCCESSFUL }
}

extern "efiapi" fn execute_once(once: Raw<usize>, routine: usize, parameter: usize, context: Raw<usize>) -> NtStatus {
    type Initialize = unsafe extern "efiapi" fn(usize, usize, usize) -> u32;
    let call = Call::enter();
    let status = begin_at(&call, once, 0, context);
    if status != NtStatus::PENDING {
        return status;
    }
    let mut made = 0_usize;
    let slot = if context.is_null() { Raw::of(&raw mut made) } else { context };
    // SAFETY: the address of the caller's RTL_RUN_ONCE_INIT_FN.
    let routine = unsafe { std::mem::transmute::<usize, Initialize>(routine) };
    // SAFETY: the arguments are those that the page promises.
    let body = || unsafe { routine(once.address(), parameter, slot.address()) };
    let (call, succeeded) = call_out(call, "RunOnceInitialization", body);
    let flags = if succeeded == 0 { INIT_FAILED } else { 0 };
    let completed = complete_at(&call, once, flags, if succeeded == 0 { 0 } else { slot.read() });
    if succeeded == 0 { NtStatus::UNSUCCESSFUL } else { completed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    extern "efiapi" fn count(_once: usize, counter: Raw<u32>, context: Raw<usize>) -> u32 {
        counter.write(counter.read() + 1);
        context.write(0x1000);
        // The first attempt fails.
        u32::from(counter.read() > 1)
    }

    #[test]
    fn the_routine_runs_until_it_succeeded_once() {
        conforms!(
            "ntddk/nf-ntddk-rtlrunonceexecuteonce.md",
            "The routine runs once; STATUS_UNSUCCESSFUL is returned when it fails, and it runs again at the next call."
        );
        let (mut once, mut counter, mut context) = (0_usize, 0_u32, 0_usize);
        let (at, number, made) = (Raw::of(&raw mut once), Raw::of(&raw mut counter), Raw::of(&raw mut context));
        Bench::new()
            .run(|| {
                initialize(at);
                let execute = || execute_once(at, count as *const () as usize, number.address(), made);
                assert_eq!(execute(), NtStatus::UNSUCCESSFUL);
                assert_eq!((execute(), made.read()), (NtStatus::SUCCESS, 0x1000));
                assert_eq!((execute(), number.read()), (NtStatus::SUCCESS, 2));
                assert_eq!(begin(at, CHECK_ONLY, Raw::NULL), NtStatus::SUCCESS);
            })
            .unwrap();
    }
}
