//! The current IRQL, and the proof that it is PASSIVE_LEVEL.

use core::marker::PhantomData;
use nt_types::{KIRQL, PASSIVE_LEVEL};

/// Proof that the code runs at PASSIVE_LEVEL. Zero-sized.
///
/// Bound to its thread, since the IRQL is. Nothing that takes a `Passive` raises the IRQL while
/// it keeps the proof: locks of this project that raise it are released in the same function.
#[derive(Clone, Copy, Debug)]
pub struct Passive {
    // A raw pointer makes the proof neither Send nor Sync.
    _of_this_thread: PhantomData<*const ()>,
}

impl Passive {
    /// Looks at the IRQL; `None` above PASSIVE_LEVEL.
    #[must_use]
    pub fn check() -> Option<Self> {
        (current_irql() == PASSIVE_LEVEL).then_some(Self { _of_this_thread: PhantomData })
    }

    /// For the body of a callback that is documented to run at PASSIVE_LEVEL.
    ///
    /// # Safety
    /// The current IRQL is PASSIVE_LEVEL. Being wrong means blocking at a raised IRQL.
    #[must_use]
    pub const unsafe fn assume() -> Self {
        Self { _of_this_thread: PhantomData }
    }
}

/// The current IRQL. Callable at any IRQL.
#[must_use]
#[cfg(target_arch = "x86_64")]
pub fn current_irql() -> KIRQL {
    let irql: u64;
    // SAFETY: reading CR8, the task priority, changes nothing; drivers run in ring 0, where it is
    // allowed (rule: KeGetCurrentIrql is this instruction on x64, and no export).
    unsafe {
        core::arch::asm!("mov {}, cr8", out(reg) irql, options(nomem, nostack, preserves_flags));
    }
    irql as KIRQL
}

/// The current IRQL. Callable at any IRQL.
#[must_use]
#[cfg(not(target_arch = "x86_64"))]
pub fn current_irql() -> KIRQL {
    // SAFETY: no preconditions (rule: wdm/nf-wdm-kegetcurrentirql, any level).
    unsafe { crate::raw::KeGetCurrentIrql() }
}

/// Passes on what an FltMgr call returned, in a way that the compiler cannot see through.
///
/// Driver Verifier attributes a call to the module that it returns to. A call in tail position
/// becomes a jump and returns to our caller, which may be FltMgr itself; with something left to
/// do after the call that cannot happen.
#[inline(always)]
#[expect(clippy::inline_always, reason = "out of line it would be the tail call itself")]
pub(crate) fn after_call<T>(returned: T) -> T {
    core::hint::black_box(returned)
}
