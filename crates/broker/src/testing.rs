//! What the unit tests use in place of a kernel.

use core::cell::Cell;

use crate::{FileFacts, FileIdentity, LockContext};

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
