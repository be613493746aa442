//! Leaving.
//!
//! ```text
//!  voluntary (fltmc unload)        mandatory (sc stop)
//!        │ anybody here? ── yes ─▶ STATUS_FLT_DO_NOT_DETACH
//!        ▼ no                           ▼
//!  refuse everything new · close the ports · delete the device · cancel jobs · report what is open ·
//!  end sessions and consumers · wait until nothing runs · FltUnregisterFilter · free the state
//! ```
//! The port goes before the filter, or FltUnregisterFilter never returns. The state goes last: FltMgr still delivers disconnects while the
//! filter is being unregistered.

use crate::kernel::log::log;
use crate::kernel::time;
use crate::report;
use crate::state::{self, Registered, State};
use fltmgr::Passive;
use fltmgr::raw::FLTFL_FILTER_UNLOAD_MANDATORY;
use nt_types::NtStatus;

/// FilterUnloadCallback. PASSIVE_LEVEL.
pub(crate) unsafe extern "efiapi" fn filter_unload(flags: u32) -> NtStatus {
    // SAFETY: the callback is documented to run at PASSIVE_LEVEL.
    let passive = unsafe { Passive::assume() };
    let Some(state) = state::get() else { return NtStatus::SUCCESS };
    if flags & FLTFL_FILTER_UNLOAD_MANDATORY == 0 {
        settle(state, passive);
        if is_needed(state, passive) {
            return NtStatus::FLT_DO_NOT_DETACH;
        }
        // Looked again with the door closed: somebody may have come in after the first look.
        state.set_closing(true);
        if is_needed(state, passive) {
            state.set_closing(false);
            return NtStatus::FLT_DO_NOT_DETACH;
        }
    }
    undo(state, passive);
    NtStatus::SUCCESS
}

/// Waits, not for long, for closes that NIC drivers asked for above PASSIVE_LEVEL: what was closed before the unload was
/// asked for is no reason to refuse it.
fn settle(state: &State, passive: Passive) {
    for _ in 0..SETTLE_POLLS {
        if !state.drain.is_busy() {
            return;
        }
        time::sleep(POLL_MS, passive);
    }
}

/// Whether somebody would lose something, and says so in the debugger.
fn is_needed(state: &State, passive: Passive) -> bool {
    let handles = state.table.len();
    let consumers = state.consumers.len();
    let holders = state.images.holders();
    let calls = state::calls();
    if handles == 0 && consumers == 0 && holders == 0 && calls == 0 {
        return false;
    }
    log!(
        c"fwbroker: not unloaded, %u handles open, %u NIC drivers connected, %u images held, %u requests running\n",
        handles,
        consumers as u32,
        holders as u32,
        calls,
    );
    report::open_handles(state, FEW_LINES, passive);
    true
}

/// Undoes whatever part of DriverEntry was done. Returns when nothing of the driver runs any more.
pub(crate) fn undo(state: &'static State, passive: Passive) {
    state.set_closing(true);
    // Taken out first, since none of the steps may run under the lock.
    let Registered { port, user_port, device, filter } = core::mem::take(&mut *state.registered.lock());
    drop(port);
    drop(user_port);
    drop(device);
    // Jobs are cancelled and stop at their next chunk; images nobody holds go.
    state.images.close();
    // Before it is closed: who left what open is told while it is known.
    report::open_handles(state, MANY_LINES, passive);
    end_sessions(state);
    wait_until_idle(state, passive);
    // Images that NIC drivers held when they were unstaged, or that finished meanwhile.
    state.images.close();
    drop(filter);
    // SAFETY: the filter is unregistered, which waited for callbacks and work items; device calls were waited for above.
    unsafe { state::remove(passive) };
}

/// Closes every handle, of clients and of NIC drivers.
fn end_sessions(state: &State) {
    let closed = state.table.close_all();
    if closed > 0 {
        log!(c"fwbroker: closed %u handles that were open at unload\n", closed as u32);
    }
    while let Some((number, consumer)) = state.consumers.any() {
        state.table.end_session(consumer.session());
        state.consumers.remove(number);
    }
}

/// Waits for requests that are running. Each has been told to stop, and each of its own waits has a deadline.
///
/// There is no deadline for all of them together: memory that a thread still uses cannot be freed, however long it
/// takes, and a mandatory unload cannot be refused. Who looks at the debugger is told what it hangs on.
fn wait_until_idle(state: &State, passive: Passive) {
    let mut waited = 0_u32;
    loop {
        state.table.drain();
        let calls = state::calls();
        if calls == 0 && state.table.is_empty() {
            return;
        }
        if waited.is_multiple_of(REPORT_EVERY) {
            log!(c"fwbroker: waiting for %u calls and %u handles\n", calls, state.table.len());
        }
        time::sleep(POLL_MS, passive);
        waited = waited.wrapping_add(1);
    }
}

/// Lines about open handles: an unload that is refused may be asked for every second.
const FEW_LINES: u32 = 16;
/// ... and one that is not happens once.
const MANY_LINES: u32 = 1_000;

const POLL_MS: u32 = 5;
/// In polls: a second.
const SETTLE_POLLS: u32 = 200;
/// In polls: about every five seconds.
const REPORT_EVERY: u32 = 1_000;
