//! The activity of a thread, as trace-aware drivers hand it on: `IoSetActivityIdThread` and its relatives. What they hand around
//! is the address of the GUID, which lives where its owner keeps it.

use std::cell::Cell;

use super::{ACTIVITY, Guid};
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoGetActivityIdThread(max 31) = io_get_activity_id_thread;
    IoSetActivityIdThread(max 31) = io_set_activity_id_thread;
    IoClearActivityIdThread(max 31) = io_clear_activity_id_thread;
}

thread_local! {
    /// Address of the GUID that was set last, 0 for none.
    static PLACE: Cell<usize> = const { Cell::new(0) };
}

/// The thread's activity, unless it has none.
pub(crate) fn of_thread() -> Option<Guid> {
    Some(ACTIVITY.get()).filter(|guid| *guid != [0; 16])
}

/// Lets the calling thread work for the activity at an address; the address of the one before.
pub(crate) fn set(guid: Raw<Guid>) -> Raw<Guid> {
    ACTIVITY.set(guid.some().map_or([0; 16], Raw::read));
    Raw::at(PLACE.replace(guid.address()))
}

extern "efiapi" fn io_get_activity_id_thread() -> usize {
    let _call = Call::enter();
    PLACE.get()
}

extern "efiapi" fn io_set_activity_id_thread(guid: Raw<Guid>) -> usize {
    let _call = Call::enter();
    set(guid).address()
}

extern "efiapi" fn io_clear_activity_id_thread(original: Raw<Guid>) {
    let _call = Call::enter();
    set(original);
}
