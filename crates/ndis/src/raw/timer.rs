//! Timers, work items and small objects that every NDIS driver uses.

use core::ffi::c_void;

use nt_types::assert_layout;

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER};

/// `NetTimerCallback`. `DISPATCH_LEVEL`. All but the context are the system's own.
pub type NDIS_TIMER_FUNCTION = unsafe extern "efiapi" fn(
    SystemSpecific1: *mut c_void,
    FunctionContext: *mut c_void,
    SystemSpecific2: *mut c_void,
    SystemSpecific3: *mut c_void,
);

/// `NDIS_IO_WORKITEM`'s routine. `PASSIVE_LEVEL`, in a system thread.
pub type NDIS_IO_WORKITEM_ROUTINE =
    unsafe extern "efiapi" fn(WorkItemContext: *mut c_void, NdisIoWorkItemHandle: NDIS_HANDLE);

/// `NDIS_TIMER_CHARACTERISTICS`. DDI page: `ndis/ns-ndis-_ndis_timer_characteristics`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_TIMER_CHARACTERISTICS {
    /// Type 0x97, revision 1, size [`NDIS_SIZEOF_TIMER_CHARACTERISTICS_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// Pool tag.
    pub AllocationTag: u32,
    /// What runs when the timer is due.
    pub TimerFunction: Option<NDIS_TIMER_FUNCTION>,
    /// Its context, unless `NdisSetTimerObject` gives another.
    pub FunctionContext: *mut c_void,
}
assert_layout!(NDIS_TIMER_CHARACTERISTICS, 24, { Header: 0, AllocationTag: 4, TimerFunction: 8, FunctionContext: 16 });

/// `Header.Size` of revision 1, in bytes.
pub const NDIS_SIZEOF_TIMER_CHARACTERISTICS_REVISION_1: u16 = 24;

/// `NDIS_SPIN_LOCK`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_SPIN_LOCK {
    /// The lock word.
    pub SpinLock: usize,
    /// IRQL of the holder before it acquired the lock.
    pub OldIrql: u8,
}
assert_layout!(NDIS_SPIN_LOCK, 16, { SpinLock: 0, OldIrql: 8 });

/// `LOCK_STATE_EX`: what an acquisition of a read/write lock leaves for its release.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LOCK_STATE_EX {
    /// IRQL before the acquisition.
    pub OldIrql: u8,
    /// For NDIS: how the lock is held.
    pub LockState: u8,
    /// For NDIS.
    pub Flags: u8,
}
assert_layout!(LOCK_STATE_EX, 3, { OldIrql: 0, LockState: 1, Flags: 2 });

/// `LOCK_STATE`: the same for the locks from before NDIS 6.20.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LOCK_STATE {
    /// For NDIS: how the lock is held.
    pub LockState: u16,
    /// IRQL before the acquisition.
    pub OldIrql: u8,
}
assert_layout!(LOCK_STATE, 4, { LockState: 0, OldIrql: 2 });

/// Flag of the read/write lock functions: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_RWL_AT_DISPATCH_LEVEL: u8 = 1;
