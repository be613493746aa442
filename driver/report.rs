//! What is still open, for the debugger: where somebody has to find out why the driver does not leave, or what it took
//! away when it did.

use crate::entry::Entry;
use crate::kernel::log::log;
use crate::kernel::time;
use crate::state::State;
use broker::{Role, Session};
use core::ffi::CStr;
use fltmgr::Passive;
use nt_types::UNICODE_STRING;

/// Prints one line per open handle, at most `most`: what it is, whose, since when. PASSIVE_LEVEL, which `%wZ` needs.
///
/// Each entry is pinned while its line is printed, and none between lines.
pub(crate) fn open_handles(state: &State, most: u32, _passive: Passive) {
    let mut printed = 0_u32;
    for pinned in state.table.iter() {
        if printed == most {
            log!(c"fwbroker: ... and more, %u handles in all\n", state.table.len());
            return;
        }
        line(&pinned, pinned.session(), pinned.pins().saturating_sub(1));
        printed = printed.saturating_add(1);
    }
}

/// DbgPrint prints 512 bytes at most: names are cut, so that the rest of the line survives.
const MAX_OWNER_UNITS: usize = 96;
const MAX_NAME_UNITS: usize = 160;

#[inline(never)] // for the sake of the stack
fn line(entry: &Entry, session: &Session, users: u32) {
    let owner = session.owner();
    let Some(name) = text(entry.name(), MAX_NAME_UNITS) else { return };
    let Some(owner_name) = text(owner.name.units(), MAX_OWNER_UNITS) else { return };
    let what: &CStr = match entry {
        Entry::File(_) => c"file",
        Entry::Image(_) => c"image",
    };
    let who: &CStr = match owner.role {
        Role::Administrator | Role::User => c"process",
        Role::Driver => c"NIC driver",
    };
    log!(
        c"fwbroker: open: %s %wZ, %I64u bytes, by %s %I64u %wZ, session %I64u, for %I64u s, used by %u requests\n",
        what.as_ptr(),
        &raw const name,
        entry.size(),
        who.as_ptr(),
        owner.process,
        &raw const owner_name,
        session.id().0,
        time::seconds_since(entry.opened_at()),
        users,
    );
}

/// The end of a name, as a string for DbgPrint that is valid as long as the name is.
fn text(name: &[u16], most: usize) -> Option<UNICODE_STRING> {
    UNICODE_STRING::from_utf16(name.get(name.len().saturating_sub(most)..).unwrap_or(name))
}
