//! Which user pages drivers can touch at the moment.
//!
//! A driver may touch user memory only where an exception would be taken: the program can free the page, or change its
//! protection, at any moment. A driver that forgets that works all the same for as long as no program is hostile. So user
//! pages are *hidden* from drivers: the address that a driver knows is inaccessible, and the host itself goes through a second
//! view. A driver's first touch faults, which is the moment to look for a `__try` on its stack (`cpu/user_access.rs`). If
//! there is one the pages are *opened*, until the driver's next call of an export or the end of the callback.
//!
//! A fault costs several microseconds, so a machine hides pages in its first callbacks only, and then in one of sixteen: code
//! that is entered often is seen often enough.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::memory::Regions;

/// Overrides what machines were built with.
const VARIABLE: &str = "KERNEL_HOST_USER_MEMORY";

/// Callbacks of a machine, entered from outside of drivers, in all of which user memory is watched.
const FIRST: u64 = 512;
/// After those, one in so many is.
const EVERY: u64 = 16;

/// How often a machine watches drivers touch user memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum UserMemoryChecks {
    /// In each callback of a machine's first ones, then in one of sixteen.
    #[default]
    Sampled = 0,
    /// In each callback.
    Always = 1,
    /// Never: only bad addresses are found.
    Never = 2,
}

impl UserMemoryChecks {
    /// As the environment says, if it does.
    pub(crate) fn of_environment() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        Some(match text.as_str() {
            "sampled" => Self::Sampled,
            "always" => Self::Always,
            "never" => Self::Never,
            _ => panic!("{VARIABLE} is {text:?}; it takes sampled, always or never"),
        })
    }
}

/// A machine's choice, and how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    checks: AtomicU8,
    entries: AtomicU64,
}

impl Watch {
    pub(crate) fn set(&self, checks: UserMemoryChecks) {
        self.checks.store(checks as u8, Ordering::Relaxed);
    }

    fn is(&self, checks: UserMemoryChecks) -> bool {
        self.checks.load(Ordering::Relaxed) == checks as u8
    }

    /// Whether drivers that touch hidden memory have to answer for it.
    pub(crate) fn is_on(&self) -> bool {
        !self.is(UserMemoryChecks::Never)
    }

    /// Counts a callback that is entered from outside of drivers: whether user memory is watched in it.
    fn enter(&self) -> bool {
        if self.is(UserMemoryChecks::Sampled) {
            let entry = self.entries.fetch_add(1, Ordering::Relaxed);
            return entry < FIRST || entry.is_multiple_of(EVERY);
        }
        self.is_on()
    }

    /// Whether the next callbacks are all watched, so that new memory may as well be hidden from the start.
    pub(super) fn hides_new_memory(&self) -> bool {
        self.is_on() && (self.is(UserMemoryChecks::Always) || self.entries.load(Ordering::Relaxed) < FIRST)
    }
}

thread_local! {
    /// The callback that the thread is in is one in which user memory is watched.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// There is something in the list below: the one thing that every call of an export asks.
    static HAS_OPENED: Cell<bool> = const { Cell::new(false) };
    /// What the thread has opened, to be hidden again: a process's memory, and an address in it.
    static OPENED: RefCell<Vec<(Weak<Regions>, usize)>> = const { RefCell::new(Vec::new()) };
}

/// A callback is entered from outside of drivers, in the context of the process whose memory `current` gives.
pub(crate) fn callback_begins(watch: &Watch, current: impl FnOnce() -> Option<Arc<super::Process>>) {
    let watched = watch.enter();
    WATCHED.set(watched);
    if watched && let Some(process) = current() {
        process.memory().hide();
    }
}

/// The callback is over.
pub(crate) fn callback_ends() {
    hide_opened();
    WATCHED.set(false);
}

/// Whether user memory is watched in what the thread does now.
pub(crate) fn is_watched() -> bool {
    WATCHED.get()
}

/// A driver calls an export, or its callback ends: what it opened before is hidden again.
pub(crate) fn hide_opened() {
    if HAS_OPENED.replace(false) {
        for (memory, address) in OPENED.take() {
            if let Some(memory) = memory.upgrade() {
                memory.hide_at(address);
            }
        }
    }
}

/// Notes that the thread has opened the pages around `address`.
pub(super) fn note_opened(memory: &Arc<Regions>, address: usize) {
    if WATCHED.get() {
        OPENED.with_borrow_mut(|opened| opened.push((Arc::downgrade(memory), address)));
        HAS_OPENED.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_callbacks_are_watched_and_then_one_of_sixteen() {
        let watch = Watch::default();
        assert!(watch.hides_new_memory());
        assert!((0..FIRST).all(|_| watch.enter()));
        assert!(!watch.hides_new_memory(), "memory that is used once would fault for nothing");
        assert_eq!((0..16 * EVERY).filter(|_| watch.enter()).count(), 16);
    }

    #[test]
    fn a_machine_can_be_told_to_watch_always_or_never() {
        let watch = Watch::default();
        watch.set(UserMemoryChecks::Never);
        assert!(!watch.enter() && !watch.hides_new_memory() && !watch.is_on());
        watch.set(UserMemoryChecks::Always);
        assert!((0..2 * FIRST).all(|_| watch.enter()) && watch.hides_new_memory());
    }
}
