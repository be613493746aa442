//! Lists, dispatcher objects, DPCs and spin locks.

use crate::{LARGE_INTEGER, PVOID};
use core::ptr;

/// `LIST_ENTRY`: link of a circular doubly linked list; an empty head points at itself.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LIST_ENTRY {
    /// Next entry.
    pub Flink: *mut LIST_ENTRY,
    /// Previous entry.
    pub Blink: *mut LIST_ENTRY,
}

crate::assert_layout!(LIST_ENTRY, 16, { Flink: 0, Blink: 8 });

impl LIST_ENTRY {
    /// All zero: not on a list, and not a valid head yet.
    pub const ZERO: Self = Self { Flink: ptr::null_mut(), Blink: ptr::null_mut() };
}

/// `SINGLE_LIST_ENTRY`: link of a singly linked list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SINGLE_LIST_ENTRY {
    /// Next entry or NULL.
    pub Next: *mut SINGLE_LIST_ENTRY,
}

crate::assert_layout!(SINGLE_LIST_ENTRY, 8);

/// `DISPATCHER_HEADER`: what all objects that can be waited on start with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DISPATCHER_HEADER {
    /// Kind of object ([`EVENT_NOTIFICATION`], ...).
    pub Type: u8,
    /// Depends on the kind.
    pub Signalling: u8,
    /// Size of the object in 32-bit words.
    pub Size: u8,
    /// Depends on the kind.
    pub Reserved1: u8,
    /// Non-zero while signalled.
    pub SignalState: i32,
    /// Threads that wait.
    pub WaitListHead: LIST_ENTRY,
}

crate::assert_layout!(DISPATCHER_HEADER, 24, {
    Type: 0, Signalling: 1, Size: 2, SignalState: 4, WaitListHead: 8,
});

impl DISPATCHER_HEADER {
    /// All zero: storage for an object that its `KeInitialize*` routine has still to set up.
    pub const ZERO: Self =
        Self { Type: 0, Signalling: 0, Size: 0, Reserved1: 0, SignalState: 0, WaitListHead: LIST_ENTRY::ZERO };
}

/// `NotificationEvent`: stays signalled until it is reset, releases every waiter.
pub const EVENT_NOTIFICATION: u8 = 0;

/// `SynchronizationEvent`: releases one waiter and resets itself.
pub const EVENT_SYNCHRONIZATION: u8 = 1;

/// `KEVENT`. Must not move once initialised: waiters are linked to its address.
/// DDI page: `wdm/nf-wdm-keinitializeevent`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KEVENT {
    /// The event has no fields of its own.
    pub Header: DISPATCHER_HEADER,
}

crate::assert_layout!(KEVENT, 24);

impl KEVENT {
    /// Storage that `KeInitializeEvent` has still to set up.
    pub const ZERO: Self = Self { Header: DISPATCHER_HEADER::ZERO };
}

/// `KDEFERRED_ROUTINE`: runs at DISPATCH_LEVEL.
pub type KDEFERRED_ROUTINE =
    Option<unsafe extern "efiapi" fn(Dpc: *mut KDPC, Context: PVOID, Argument1: PVOID, Argument2: PVOID)>;

/// `KDPC`: a deferred procedure call. Must not move once initialised.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KDPC {
    /// Kind of object.
    pub Type: u8,
    /// Importance.
    pub Importance: u8,
    /// Target processor.
    pub Number: u16,
    /// Link in the processor's queue.
    pub DpcListEntry: SINGLE_LIST_ENTRY,
    /// Processors that ran it.
    pub ProcessorHistory: usize,
    /// What to run.
    pub DeferredRoutine: KDEFERRED_ROUTINE,
    /// First argument, given when the DPC was initialised.
    pub DeferredContext: PVOID,
    /// Second argument, given when it was queued.
    pub SystemArgument1: PVOID,
    /// Third argument, given when it was queued.
    pub SystemArgument2: PVOID,
    /// Non-NULL while queued.
    pub DpcData: PVOID,
}

crate::assert_layout!(KDPC, 64, {
    DpcListEntry: 8, ProcessorHistory: 16, DeferredRoutine: 24, DeferredContext: 32,
    SystemArgument1: 40, SystemArgument2: 48, DpcData: 56,
});

/// `KTIMER`. Must not move once initialised.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KTIMER {
    /// Waitable part.
    pub Header: DISPATCHER_HEADER,
    /// When it expires, in interrupt time of 100 ns.
    pub DueTime: LARGE_INTEGER,
    /// Link in the timer table.
    pub TimerListEntry: LIST_ENTRY,
    /// DPC to queue at expiration, or NULL.
    pub Dpc: *mut KDPC,
    /// Processor it was set on.
    pub Processor: u32,
    /// Period in milliseconds, 0 for one shot.
    pub Period: u32,
}

crate::assert_layout!(KTIMER, 64, {
    DueTime: 24, TimerListEntry: 32, Dpc: 48, Processor: 56, Period: 60,
});

/// `KSPIN_LOCK`: 0 when free.
pub type KSPIN_LOCK = usize;

/// `KDEVICE_QUEUE`: queue of IRPs inside a device object.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct KDEVICE_QUEUE {
    /// Kind of object.
    pub Type: i16,
    /// Size of this structure in bytes.
    pub Size: i16,
    /// Queued entries.
    pub DeviceListHead: LIST_ENTRY,
    /// Protects the list.
    pub Lock: KSPIN_LOCK,
    /// Non-zero low byte while busy; the bytes above are a hint of the kernel's.
    pub Busy: u64,
}

crate::assert_layout!(KDEVICE_QUEUE, 40, { DeviceListHead: 8, Lock: 24, Busy: 32 });
