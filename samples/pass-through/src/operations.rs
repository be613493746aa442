//! The operations that this filter sees, and its counts of them.

use core::sync::atomic::{AtomicU64, Ordering};

use fltmgr::raw::{
    FLT_CALLBACK_DATA, FLT_OPERATION_REGISTRATION, FLT_POSTOP_FINISHED_PROCESSING, FLT_PREOP_SUCCESS_WITH_CALLBACK,
    FLT_RELATED_OBJECTS, FLTFL_POST_OPERATION_DRAINING, IRP_MJ_OPERATION_END,
};
use nt_types::{IO_STATUS_BLOCK, IRP_MJ_CREATE, IRP_MJ_READ, IRP_MJ_SET_INFORMATION, IRP_MJ_WRITE, PVOID};
use wdk_sys::ntddk::DbgPrint;

/// What FltMgr calls for which operation; the last entry ends the array.
pub(crate) static REGISTERED: [FLT_OPERATION_REGISTRATION; 5] = [
    counted(IRP_MJ_CREATE),
    counted(IRP_MJ_READ),
    counted(IRP_MJ_WRITE),
    counted(IRP_MJ_SET_INFORMATION),
    FLT_OPERATION_REGISTRATION { PreOperation: None, PostOperation: None, ..counted(IRP_MJ_OPERATION_END) },
];

/// Operations that began.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// Operations that ended in an error or a warning.
static FAILED: AtomicU64 = AtomicU64::new(0);
/// Bytes that reads and writes moved.
static MOVED: AtomicU64 = AtomicU64::new(0);

const fn counted(major: u8) -> FLT_OPERATION_REGISTRATION {
    FLT_OPERATION_REGISTRATION {
        MajorFunction: major,
        Flags: 0,
        PreOperation: Some(before),
        PostOperation: Some(after),
        Reserved1: core::ptr::null_mut(),
    }
}

/// Runs before the file system, at IRQL <= `APC_LEVEL`.
unsafe extern "efiapi" fn before(
    _data: *mut FLT_CALLBACK_DATA,
    _objects: *const FLT_RELATED_OBJECTS,
    _context: *mut PVOID,
) -> i32 {
    BEGUN.fetch_add(1, Ordering::Relaxed);
    FLT_PREOP_SUCCESS_WITH_CALLBACK
}

/// Runs after the file system, at IRQL <= `DISPATCH_LEVEL`: it may touch nothing that can be paged out.
unsafe extern "efiapi" fn after(
    data: *mut FLT_CALLBACK_DATA,
    _objects: *const FLT_RELATED_OBJECTS,
    _context: PVOID,
    flags: u32,
) -> i32 {
    if flags & FLTFL_POST_OPERATION_DRAINING != 0 {
        // The instance is going away before the operation ended: its status is not known.
        return FLT_POSTOP_FINISHED_PROCESSING;
    }
    // SAFETY: FltMgr passes structures that are valid during the callback.
    let IO_STATUS_BLOCK { Status, Information, .. } = unsafe { (*data).IoStatus };
    // SAFETY: as above.
    let block = unsafe { (*data).Iopb };
    // SAFETY: as above.
    let major = unsafe { (*block).MajorFunction };
    if !Status.is_success() {
        FAILED.fetch_add(1, Ordering::Relaxed);
    } else if matches!(major, IRP_MJ_READ | IRP_MJ_WRITE) {
        MOVED.fetch_add(Information as u64, Ordering::Relaxed);
    }
    FLT_POSTOP_FINISHED_PROCESSING
}

/// Prints what was counted.
pub(crate) fn print_counts(mandatory: bool) {
    let how = if mandatory { c"stopped" } else { c"unloaded" };
    let [begun, failed, moved] = [&BEGUN, &FAILED, &MOVED].map(|count| count.load(Ordering::Relaxed));
    let format = c"passthru: %s after %I64u operations, %I64u of them failed; %I64u bytes\n";
    // SAFETY: the strings end in NUL, and the format takes one string and three 64-bit numbers.
    unsafe { DbgPrint(format.as_ptr(), how.as_ptr(), begun, failed, moved) };
}
