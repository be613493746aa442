//! Numbers of threads, and a barrier for all of them: what a process has in the place of processors.

#![expect(unsafe_code, reason = "promises that numbers and barriers are what the handle table takes them for")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use broker::Barriers;
use rustix::thread::{MembarrierCommand, membarrier};

/// A compiler barrier for those who use handles; for who closes a handle that other threads have used, `membarrier`.
///
/// `seize`, which frees the memory of papaya's map, orders its threads in the same way.
// SAFETY: [barriers/pair] `membarrier` runs a full barrier on every running thread of the process, and a thread that does not run
// passes one before it does. [barriers/number] see `number`.
pub(crate) const THREADS: Barriers = unsafe { Barriers::new(light, heavy) };

#[inline]
fn light() {
    compiler_fence(Ordering::SeqCst);
}

fn heavy() {
    membarrier(MembarrierCommand::PrivateExpedited).expect("registered with the first number");
}

const NONE: usize = usize::MAX;

/// A bit for each number that a thread has.
static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(NONE) };
    static OWNED: Owned = const { Owned };
}

/// Gives the thread's number back when the thread ends.
struct Owned;

impl Drop for Owned {
    fn drop(&mut self) {
        let number = NUMBER.replace(NONE);
        TAKEN.fetch_and(!(1 << number), Ordering::AcqRel);
    }
}

/// A number that no other thread has as long as this one lives.
#[inline]
pub(crate) fn number() -> usize {
    match NUMBER.get() {
        NONE => register(),
        number => number,
    }
}

#[cold]
fn register() -> usize {
    membarrier(MembarrierCommand::RegisterPrivateExpedited).expect("Linux 4.14 or later");
    let mut taken = TAKEN.load(Ordering::Relaxed);
    loop {
        let number = taken.trailing_ones() as usize;
        assert!(number < 64, "at most 64 threads are measured");
        match TAKEN.compare_exchange_weak(taken, taken | 1 << number, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => {
                NUMBER.set(number);
                // Makes it be dropped with the thread.
                OWNED.with(|_| {});
                return number;
            }
            Err(now) => taken = now,
        }
    }
}
