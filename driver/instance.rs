//! Attaching to volumes, and leaving them.

use crate::entry::Entry;
use crate::state;
use fltmgr::raw::{FLT_RELATED_OBJECTS, PFLT_INSTANCE};
use nt_types::{FILE_DEVICE_NETWORK_FILE_SYSTEM, NtStatus};

/// Attaches to local volumes only: firmware of other machines is nobody's to trust, and its names are refused anyway.
pub(crate) unsafe extern "efiapi" fn setup(
    _objects: *const FLT_RELATED_OBJECTS,
    _flags: u32,
    device_type: u32,
    _file_system: i32,
) -> NtStatus {
    if device_type == FILE_DEVICE_NETWORK_FILE_SYSTEM { NtStatus::FLT_DO_NOT_ATTACH } else { NtStatus::SUCCESS }
}

/// Somebody wants to detach us by hand: not while files are open through the instance.
pub(crate) unsafe extern "efiapi" fn query_teardown(objects: *const FLT_RELATED_OBJECTS, _flags: u32) -> NtStatus {
    // SAFETY: FltMgr passes a structure that is valid during the callback.
    let instance = unsafe { (*objects).Instance };
    if files_on(instance) { NtStatus::FLT_DO_NOT_DETACH } else { NtStatus::SUCCESS }
}

/// The instance goes, because its volume does or we do: closes the files that were opened through it.
///
/// Their handles become invalid for the clients, just as handles of a dismounted volume do. Requests that are running
/// keep their file until they are done; it closes with the last of them.
pub(crate) unsafe extern "efiapi" fn teardown(objects: *const FLT_RELATED_OBJECTS, _reason: u32) {
    // SAFETY: FltMgr passes a structure that is valid during the callback.
    let instance = unsafe { (*objects).Instance };
    let Some(state) = state::get() else { return };
    for pinned in state.table.iter() {
        if is_file_on(&pinned, instance) {
            // A client that closes it at the same time is as good.
            let _ = pinned.close();
        }
    }
    state.roots.forget();
}

fn files_on(instance: PFLT_INSTANCE) -> bool {
    state::get().is_some_and(|state| state.table.iter().any(|pinned| is_file_on(&pinned, instance)))
}

fn is_file_on(entry: &Entry, instance: PFLT_INSTANCE) -> bool {
    matches!(entry, Entry::File(open) if open.file.is_on(instance))
}
