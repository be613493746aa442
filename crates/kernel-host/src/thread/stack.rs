//! Kernel stacks: driver code runs on a stack of its own, so that a stopped machine can be left without unwinding it.
//!
//! # Why leaving is sound
//!
//! A finding can be noticed anywhere: in an export called by a callback called by an export. Control has to get back to
//! whoever entered driver code, past Rust frames that own values. Popping such frames without running their
//! destructors (what `longjmp` does) is undefined behaviour in Rust. So they are not popped: driver code runs on a separately
//! mapped stack, and stopping switches back to the caller's stack and never resumes the other one. As far as Rust is
//! concerned those frames belong to a thread of control that waits for ever; their memory is leaked, never reused, so
//! every reference into it stays valid. What they hold (locks, counts) stays held, which is why a stopped machine serves
//! nothing but its report.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Bytes per kernel stack. Far more than the 24 KiB of Windows, because the host's exports run on it too.
const STACK_BYTES: usize = 1 << 20;
/// Bytes of an inaccessible page, which turns an overflow into a fault.
const GUARD_BYTES: usize = 4096;
/// Bytes of the spare stack below, on which an overflow is reported: the stack itself has no room left for that.
const SPARE_BYTES: usize = 1 << 18;
/// What the fault path needs at least; with less room it takes the spare stack.
const HEADROOM: usize = 1 << 15;
/// From low to high: guard, spare stack, guard, stack.
const TOTAL_BYTES: usize = GUARD_BYTES + SPARE_BYTES + GUARD_BYTES + STACK_BYTES;

/// Where the stack of the running driver code is, for the fault handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackBounds {
    low: usize,
    high: usize,
    spare: usize,
}

impl StackBounds {
    /// Whether there is room below a stack pointer to handle a fault there.
    pub(crate) fn has_room_below(self, stack_pointer: usize) -> bool {
        (self.low + HEADROOM..=self.high).contains(&stack_pointer)
    }

    /// The lowest address, and the one past the highest.
    pub(crate) fn limits(self) -> (usize, usize) {
        (self.low, self.high)
    }

    /// Top of the spare stack.
    pub(crate) fn spare(self) -> usize {
        self.spare
    }
}

/// A mapped stack with a guard page at its low end.
#[derive(Debug)]
pub(crate) struct KernelStack {
    base: usize,
    /// Where [`KernelStack::run`] left the caller's stack; zero while nothing runs.
    caller: Box<usize>,
}

std::arch::global_asm!(
    // u64 kh_run_on_stack(rdi: top, rsi: fn(*mut ()), rdx: argument, rcx: *mut saved stack pointer)
    ".global kh_run_on_stack",
    "kh_run_on_stack:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "sub rsp, 8",
    "stmxcsr [rsp]",
    "fnstcw [rsp + 4]",
    "mov [rcx], rsp",
    "mov rbp, rsp",
    "mov rsp, rdi",
    "mov rdi, rdx",
    "call rsi",
    "xor eax, eax",
    "mov rsp, rbp",
    "jmp 2f",
    // ! kh_leave_stack(rdi: saved stack pointer): makes kh_run_on_stack return 1.
    ".global kh_leave_stack",
    "kh_leave_stack:",
    "mov rsp, rdi",
    "mov eax, 1",
    "2:",
    "ldmxcsr [rsp]",
    "fldcw [rsp + 4]",
    "add rsp, 8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
);

unsafe extern "sysv64" {
    fn kh_run_on_stack(top: usize, run: extern "sysv64" fn(*mut ()), argument: *mut (), saved: *mut usize) -> u64;
    fn kh_leave_stack(saved: usize) -> !;
}

/// The closure on its way in and its result on the way out. Lives on the caller's stack, which leaving never abandons.
struct Job<F, R> {
    body: Option<F>,
    result: Option<Result<R, Box<dyn Any + Send>>>,
}

extern "sysv64" fn run_job<F: FnOnce() -> R, R>(argument: *mut ()) {
    // SAFETY: `argument` is the job that `KernelStack::run` made on its frame, which waits for this call and does not
    // touch the job meanwhile.
    let job = unsafe { &mut *argument.cast::<Job<F, R>>() };
    if let Some(body) = job.body.take() {
        // A panic cannot unwind across the switch, so it is carried across as a value.
        job.result = Some(catch_unwind(AssertUnwindSafe(body)));
    }
}

impl KernelStack {
    /// Maps a new stack.
    pub(crate) fn new() -> rustix::io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                TOTAL_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        for guard in [base, base.wrapping_byte_add(GUARD_BYTES + SPARE_BYTES)] {
            // SAFETY: a page of the fresh mapping, which nobody uses.
            unsafe { mprotect(guard, GUARD_BYTES, MprotectFlags::empty()) }?;
        }
        Ok(Self { base: base as usize, caller: Box::new(0) })
    }

    /// Runs `body` on this stack. `None` when it was left with [`KernelStack::leave`] instead of returning; the stack
    /// must then be forgotten, not reused.
    pub(crate) fn run<R>(&mut self, body: impl FnOnce() -> R) -> Option<R> {
        let mut job = Job { body: Some(body), result: None };
        let entry = entry_of(&job);
        // 16-byte alignment at the call is part of both calling conventions; the mapping's end is page aligned.
        let top = self.base + TOTAL_BYTES;
        // SAFETY: `top` is the end of a live writable mapping nobody else runs on (`&mut self`), `entry` takes exactly
        // this job type, and the saved pointer's box outlives the call.
        let left = unsafe { kh_run_on_stack(top, entry, (&raw mut job).cast(), &raw mut *self.caller) };
        *self.caller = 0;
        if left != 0 {
            return None;
        }
        match job.result? {
            Ok(value) => Some(value),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Address that [`KernelStack::leave`] needs; stable while the stack is alive.
    pub(crate) fn caller_slot(&self) -> *const usize {
        &raw const *self.caller
    }

    /// Switches back to whoever called [`KernelStack::run`]. See the module's argument for why this is sound.
    ///
    /// # Safety
    /// The calling code runs on the stack whose `caller_slot` this is, inside `run`.
    pub(crate) unsafe fn leave(caller_slot: *const usize) -> ! {
        // SAFETY: the caller says the stack is alive, hence its slot too.
        let saved = unsafe { caller_slot.read() };
        assert_ne!(saved, 0, "left a kernel stack that nothing runs on");
        // SAFETY: `saved` was written by kh_run_on_stack, whose frame still waits.
        unsafe { kh_leave_stack(saved) }
    }

    /// Where the stack is.
    pub(crate) fn bounds(&self) -> StackBounds {
        let high = self.base + TOTAL_BYTES;
        StackBounds { low: high - STACK_BYTES, high, spare: self.base + GUARD_BYTES + SPARE_BYTES }
    }
}

/// Names the monomorphic entry function for a job's type.
fn entry_of<F: FnOnce() -> R, R>(_job: &Job<F, R>) -> extern "sysv64" fn(*mut ()) {
    run_job::<F, R>
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and `&mut self` means that nothing runs on it.
        let result = unsafe { munmap(self.base as *mut _, TOTAL_BYTES) };
        debug_assert!(result.is_ok(), "a kernel stack could not be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_from_the_other_stack() {
        let mut stack = KernelStack::new().unwrap();
        let here = 0_u8;
        let distance = stack.run(|| {
            let there = 0_u8;
            (&raw const here as usize).abs_diff(&raw const there as usize)
        });
        assert!(distance.unwrap() > STACK_BYTES);
        assert_eq!(stack.run(|| 7), Some(7), "a stack can be used again");
    }

    #[test]
    fn leaving_returns_to_the_caller() {
        let mut stack = KernelStack::new().unwrap();
        let slot = stack.caller_slot();
        // SAFETY: the closure runs on the stack of that slot.
        let result = stack.run(|| unsafe { KernelStack::leave(slot) });
        assert!(result.is_none());
        std::mem::forget(stack);
    }

    #[test]
    fn a_panic_crosses_the_switch() {
        let mut stack = KernelStack::new().unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| stack.run(|| panic!("on purpose"))));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    }
}
