//! What only one Linux thread ever looks at, inside of what all may hold.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers Linux threads; no number is used twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// The calling Linux thread's number; 0 until somebody asks.
    static ME: Cell<u64> = const { Cell::new(0) };
}

fn me() -> u64 {
    match ME.get() {
        0 => {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            ME.set(number);
            number
        }
        number => number,
    }
}

/// A value of the Linux thread that made it. Costs a comparison where a lock would cost two atomic operations, in what every
/// call of a driver's and into a driver does several times.
pub(super) struct Own<T> {
    owner: u64,
    value: RefCell<T>,
}

// SAFETY: `with`, the only way to the value, is for the owner alone, whose number no other thread has or will have.
unsafe impl<T: Send> Sync for Own<T> {}

impl<T> Own<T> {
    /// A value of the calling Linux thread's.
    pub(super) fn new(value: T) -> Self {
        Self { owner: me(), value: RefCell::new(value) }
    }

    /// Works on the value.
    ///
    /// # Panics
    /// On another Linux thread than the owner, and inside of itself: bugs in this crate.
    pub(super) fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        assert_eq!(me(), self.owner, "this belongs to another Linux thread");
        body(&mut self.value.borrow_mut())
    }
}

impl<T> fmt::Debug for Own<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of Linux thread {}", self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_sees_the_value() {
        let own = Own::new(1);
        assert_eq!(own.with(|value| std::mem::replace(value, 2)), 1);
        let other = std::thread::scope(|scope| scope.spawn(|| own.with(|value| *value)).join());
        assert!(other.is_err());
        assert_eq!(own.with(|value| *value), 2);
    }
}
