//! What a callback has to leave as it found it, and where it may not.

use crate::finding::Rule;

/// At which IRQL a callback returns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    /// At the one it was entered at: nearly all.
    AsEntered,
    /// At this one: a cancel routine, which releases the cancel spin lock. The thread goes on at the one before the call.
    At(u8),
    /// At the one it chooses, where the thread goes on: routines that acquire and release locks for the kernel.
    Anywhere,
}

/// What a callback has to leave as it found it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Levels {
    pub(super) irql: u8,
    pub(super) critical_regions: u32,
    pub(super) guarded_regions: u32,
    pub(super) attached: usize,
    /// The token it acts with; 0 for its process's.
    pub(super) client: usize,
}

impl Levels {
    /// `kept` names locks that are still held.
    pub(super) fn broken_by(self, left: Self, kept: Option<String>) -> (Rule, String) {
        if self.irql != left.irql {
            let message = format!("entered at IRQL {}, returned at IRQL {}", self.irql, left.irql);
            let message = message + &kept.map_or_else(String::new, |kept| format!("; still held: {kept}"));
            return (Rule::IrqlChanged, message);
        }
        if let Some(kept) = kept {
            return (Rule::LockHeld, format!("returned while it holds {kept}"));
        }
        if self.client != left.client {
            return (
                Rule::BadState,
                "returned while the thread impersonates another client than before: PsRevertToSelf is missing"
                    .to_owned(),
            );
        }
        if self.attached != left.attached {
            return (Rule::BadState, "returned while the thread is attached to another process".to_owned());
        }
        let message = format!(
            "entered in {} critical and {} guarded regions, returned in {} and {}",
            self.critical_regions, self.guarded_regions, left.critical_regions, left.guarded_regions
        );
        (Rule::BadState, message)
    }
}
