//! The stack that the signal handler runs on.
//!
//! Rust's runtime gives its threads one of some 8 KiB, made for a handler that only prints. The processor's state alone takes
//! more than a third of that where there is AVX-512, and the handler's frames are several times larger in a build without
//! optimisation, which is what `cargo test` makes of this crate in somebody else's workspace. Threads that Rust did not start
//! have none at all: a driver that overflows its stack would end the process. So every Linux thread that enters a machine
//! gets one of ours.

use std::cell::{Cell, RefCell};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Bytes of a stack.
const STACK_BYTES: usize = 1 << 17;
/// Bytes of the inaccessible page below it.
const GUARD_BYTES: usize = 4096;
const TOTAL_BYTES: usize = GUARD_BYTES + STACK_BYTES;

thread_local! {
    /// Asked at every entry into a machine; `STACK` says the same, and takes longer.
    static IS_SET: Cell<bool> = const { Cell::new(false) };
    static STACK: RefCell<Option<SignalStack>> = const { RefCell::new(None) };
}

/// One Linux thread's signal stack, which goes with the thread.
#[derive(Debug)]
struct SignalStack {
    base: usize,
}

/// Gives the calling Linux thread its stack, if it has none yet.
pub(super) fn ensure() {
    if IS_SET.replace(true) {
        return;
    }
    let made = SignalStack::new().expect("no memory for a signal stack");
    // A thread that is just ending cannot keep it: it goes on with what it has.
    let _kept = STACK.try_with(|stack| stack.replace(Some(made)));
}

impl SignalStack {
    fn new() -> rustix::io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                TOTAL_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        // SAFETY: a page of the fresh mapping, which nobody uses.
        unsafe { mprotect(base, GUARD_BYTES, MprotectFlags::empty()) }?;
        let stack = Self { base: base as usize };
        set(base.wrapping_byte_add(GUARD_BYTES), 0);
        Ok(stack)
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        IS_SET.set(false);
        set(std::ptr::null_mut(), libc::SS_DISABLE);
        // SAFETY: our own mapping, and no signal is handled on it any more: that would be this very thread.
        let result = unsafe { munmap(self.base as *mut _, TOTAL_BYTES) };
        debug_assert!(result.is_ok(), "a signal stack could not be unmapped");
    }
}

/// Tells Linux where the calling thread handles signals.
fn set(low: *mut libc::c_void, flags: libc::c_int) {
    let stack = libc::stack_t { ss_sp: low, ss_flags: flags, ss_size: STACK_BYTES };
    // SAFETY: the description is valid, and what it describes is mapped until `drop` takes it back.
    let result = unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
    debug_assert_eq!(result, 0, "sigaltstack cannot fail outside of a handler");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;

    /// Bytes of the calling thread's signal stack; 0 for none.
    fn room() -> usize {
        // SAFETY: all zero is a valid stack_t.
        let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is ours; nothing is changed.
        let result = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
        assert_eq!(result, 0);
        if stack.ss_flags & libc::SS_DISABLE == 0 { stack.ss_size } else { 0 }
    }

    #[test]
    fn every_thread_in_a_machine_has_room_for_the_handler() {
        let bench = Bench::new();
        assert_eq!(bench.enter(|_| room()), STACK_BYTES);
        let other = std::thread::scope(|scope| scope.spawn(|| bench.enter(|_| room())).join());
        assert_eq!(other.ok(), Some(STACK_BYTES));
    }
}
