//! Who a Linux thread was when it was last in a machine, so that it is the same `PETHREAD` when it comes back.
//!
//! A [`Thread`](super::Thread) exists only while its Linux thread is in the machine, since it keeps the machine alive. Its
//! object stays with the machine in between: drivers compare such addresses, and making an object for every file that a program
//! reads is what the read would mostly cost.

use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use crate::nt::ob::ObjectRef;

/// Linux threads that have ended are not noticed: more than so many identities, and the machine forgets those of all threads
/// that are not in it.
const KEPT: usize = 64;

thread_local! {
    /// Asking Rust's runtime each time costs more than finding the identity.
    static ME: ThreadId = std::thread::current().id();
}

/// Thread objects of Linux threads that are not in the machine now.
#[derive(Debug, Default)]
pub(crate) struct Identities(Mutex<Vec<(ThreadId, Identity)>>);

/// A thread object and its id.
pub(crate) type Identity = (ObjectRef, u32);

impl Identities {
    /// The calling Linux thread's identity, if it was in the machine before.
    pub(super) fn take(&self) -> Option<Identity> {
        let mut kept = self.lock();
        let index = kept.iter().position(|(thread, _)| *thread == ME.with(ThreadId::clone))?;
        Some(kept.swap_remove(index).1)
    }

    /// Keeps the calling Linux thread's identity for its next visit.
    pub(super) fn keep(&self, identity: Identity) {
        let mut kept = self.lock();
        let forgotten = if kept.len() >= KEPT { std::mem::take(&mut *kept) } else { Vec::new() };
        kept.push((ME.with(ThreadId::clone), identity));
        // Deleting objects takes locks of its own.
        drop(kept);
        drop(forgotten);
    }

    /// Lets go of all objects, before their manager goes.
    pub(crate) fn clear(&self) {
        let kept = std::mem::take(&mut *self.lock());
        drop(kept);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(ThreadId, Identity)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::ddi::testing::Bench;

    #[test]
    fn a_linux_thread_is_the_same_kernel_thread_when_it_comes_back() {
        let bench = Bench::new();
        let seen = || bench.enter(|thread| (thread.object().addr(), thread.id()));
        let first = seen();
        assert_eq!(seen(), first);
        let other = std::thread::scope(|scope| scope.spawn(seen).join().expect("it does not panic"));
        assert_ne!(other, first);
    }
}
