//! The routines of a cancel-safe queue, which its driver provides: of IRPs (`IoCsq*`) or of callback data (`FltCbdq*`).
//!
//! Both are the same protocol on two kinds of items, so items are addresses here. The host calls nothing but the lock routines
//! without the lock.

use std::sync::Arc;

use nt_types::NtStatus;

use crate::machine::Driver;
use crate::thread::{Exit, Thread};

/// Addresses of the routines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) insert: usize,
    pub(crate) remove: usize,
    pub(crate) peek_next: usize,
    pub(crate) acquire: usize,
    pub(crate) release: usize,
    pub(crate) complete_cancelled: usize,
}

/// What they are called where the driver's author reads it.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) insert: &'static str,
    pub(crate) remove: &'static str,
    pub(crate) peek_next: &'static str,
    pub(crate) acquire: &'static str,
    pub(crate) release: &'static str,
    pub(crate) complete_cancelled: &'static str,
}

/// Calls a queue's routines in the name of its driver. The lock routines change the IRQL for what follows.
pub(crate) struct QueueRoutines<'a> {
    pub(crate) thread: &'a Thread,
    pub(crate) driver: Arc<Driver>,
    /// Address of the queue, the first argument of each routine.
    pub(crate) queue: usize,
    pub(crate) table: Table,
    pub(crate) names: &'static Names,
}

impl QueueRoutines<'_> {
    fn enter<R: Default>(&self, name: &'static str, exit: Exit, body: impl FnOnce() -> R) -> R {
        let called = self.thread.call_driver_until(&self.driver, name, self.thread.irql(), exit, body);
        called.unwrap_or_default()
    }

    /// Takes the queue's lock; the IRQL to go back to, for [`release`](Self::release).
    pub(crate) fn acquire(&self) -> u8 {
        type Acquire = unsafe extern "efiapi" fn(usize, *mut u8);
        // SAFETY: the address of the driver's routine that locks the queue.
        let routine = unsafe { std::mem::transmute::<usize, Acquire>(self.table.acquire) };
        let mut irql = 0_u8;
        let out = &raw mut irql;
        // SAFETY: the queue is the driver's, the IRQL a local.
        self.enter(self.names.acquire, Exit::Anywhere, || unsafe { routine(self.queue, out) });
        irql
    }

    pub(crate) fn release(&self, irql: u8) {
        type Release = unsafe extern "efiapi" fn(usize, u8);
        // SAFETY: the address of the driver's routine that unlocks the queue.
        let routine = unsafe { std::mem::transmute::<usize, Release>(self.table.release) };
        // SAFETY: the queue is the driver's; the IRQL is the one that its acquire routine gave.
        self.enter(self.names.release, Exit::Anywhere, || unsafe { routine(self.queue, irql) });
    }

    /// Calls a routine of the form `(queue, item)`.
    fn with_item(&self, name: &'static str, routine: usize, item: usize) {
        type Routine = unsafe extern "efiapi" fn(usize, usize);
        // SAFETY: the address of a routine of the driver's for this queue.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
        // SAFETY: the queue is the driver's, the item in its hands.
        self.enter(name, Exit::AsEntered, || unsafe { routine(self.queue, item) });
    }

    /// The insert routine that can refuse.
    pub(crate) fn insert(&self, item: usize, insert_context: usize) -> NtStatus {
        type Insert = unsafe extern "efiapi" fn(usize, usize, usize) -> NtStatus;
        // SAFETY: the address of the driver's routine that inserts.
        let routine = unsafe { std::mem::transmute::<usize, Insert>(self.table.insert) };
        // SAFETY: the queue is the driver's, the item and the context its caller's.
        self.enter(self.names.insert, Exit::AsEntered, || unsafe { routine(self.queue, item, insert_context) })
    }

    /// The insert routine that cannot refuse, under its own name.
    pub(crate) fn insert_always(&self, name: &'static str, item: usize) {
        self.with_item(name, self.table.insert, item);
    }

    /// The item behind `after` (0: the first) that fits `peek_context`; 0 when there is none.
    pub(crate) fn peek_next(&self, after: usize, peek_context: usize) -> usize {
        type Peek = unsafe extern "efiapi" fn(usize, usize, usize) -> usize;
        // SAFETY: the address of the driver's routine that looks for an item.
        let routine = unsafe { std::mem::transmute::<usize, Peek>(self.table.peek_next) };
        // SAFETY: the queue is the driver's; it walks its own list.
        self.enter(self.names.peek_next, Exit::AsEntered, || unsafe { routine(self.queue, after, peek_context) })
    }

    pub(crate) fn remove(&self, item: usize) {
        self.with_item(self.names.remove, self.table.remove, item);
    }

    /// The driver completes an item that was cancelled. Without the lock.
    pub(crate) fn complete_cancelled(&self, item: usize) {
        self.with_item(self.names.complete_cancelled, self.table.complete_cancelled, item);
    }
}
