//! What the unit tests use in place of a kernel.

#![cfg_attr(not(loom), expect(unsafe_code, reason = "promises what full barriers and numbers of threads are"))]

use core::cell::Cell;

use crate::{FileFacts, FileIdentity, LockContext};
#[cfg(not(loom))]
use crate::{Session, SessionId, SessionLimits, Shared};

std::thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// A lock context that raises nothing, but panics where a thread takes a second lock under a first one.
pub(crate) struct NoIrql;

impl LockContext for NoIrql {
    type Saved = ();

    fn enter() {
        assert_eq!(DEPTH.replace(1), 0, "a lock is taken under another");
    }

    fn leave((): ()) {
        assert_eq!(DEPTH.replace(0), 1);
    }
}

/// As [`NoIrql`], but lanes belong to threads, as they do in a process.
#[cfg(not(loom))]
pub(crate) struct OwnLanes;

#[cfg(not(loom))]
mod own_lanes {
    use std::sync::Mutex;
    use std::vec::Vec;

    use super::{Cell, LockContext, NoIrql, OwnLanes};
    use crate::Barriers;
    use crate::atomics::{Ordering, fence};

    /// Numbers that no thread has.
    static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    static NEXT: Mutex<usize> = Mutex::new(0);

    struct Number(Cell<Option<usize>>);

    impl Drop for Number {
        fn drop(&mut self) {
            FREE.lock().unwrap().extend(self.0.get());
        }
    }

    std::thread_local! {
        static NUMBER: Number = const { Number(Cell::new(None)) };
    }

    fn full() {
        fence(Ordering::SeqCst);
    }

    impl LockContext for OwnLanes {
        type Saved = ();

        // SAFETY: [barriers/pair] two full barriers have an order. [barriers/number] a thread keeps its number until it ends.
        const BARRIERS: Option<Barriers> = Some(unsafe { Barriers::new(full, full) });

        fn enter() {
            NoIrql::enter();
        }

        fn leave((): ()) {
            NoIrql::leave(());
        }

        fn processor() -> usize {
            NUMBER.with(|number| {
                let found = number.0.get().or_else(|| FREE.lock().unwrap().pop()).unwrap_or_else(|| {
                    let mut next = NEXT.lock().unwrap();
                    *next += 1;
                    *next - 1
                });
                number.0.set(Some(found));
                found
            })
        }
    }
}

/// A session with room for many handles.
#[cfg(not(loom))]
pub(crate) fn session(id: u64) -> Shared<Session> {
    Session::try_new(SessionId(id), 4, &SessionLimits { handles: 100_000, bytes: 0, jobs: 0 }).unwrap()
}

/// How many locks this thread holds.
pub(crate) fn depth() -> u32 {
    DEPTH.get()
}

/// A regular file, number `id`, of `size` bytes.
pub(crate) fn facts(id: u8, size: u64) -> FileFacts {
    FileFacts {
        identity: FileIdentity { volume: [1; 16], file_id: [id; 16], change_time: 1, size },
        is_directory: false,
        is_special: false,
        is_reparse_point: false,
        delete_pending: false,
        has_writable_mapping: false,
    }
}
