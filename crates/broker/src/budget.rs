//! Counted resources with a limit.

use crate::atomics::{AtomicU64, Ordering};
use crate::{Error, Shared};

/// An amount of something (bytes, handles, jobs) of which only so much may be in use.
///
/// The check and the taking are one step, so two takers can never both get the last unit.
/// Usable at any IRQL.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// A part of a [`Budget`] in use; given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Shared<Budget>,
    amount: u64,
}

impl Budget {
    /// A budget of which nothing is used yet.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    /// The most that may be in use at a time, in the budget's own unit.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// What is in use now, for reports.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `amount`; `false`, and nothing taken, where the limit would be passed.
    ///
    /// The caller owes a [`give_back`](Self::give_back) of the same amount.
    #[must_use]
    pub fn take(&self, amount: u64) -> bool {
        // Relaxed: the counter guards no data, it only has to be exact.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(amount).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }

    /// Returns what [`take`](Self::take) took.
    pub fn give_back(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }

    /// As [`take`](Self::take), as a value that gives the amount back by itself.
    ///
    /// `over` is the error for a budget that is used up.
    pub fn charge(this: &Shared<Self>, amount: u64, over: Error) -> Result<Charge, Error> {
        if this.take(amount) { Ok(Charge { budget: this.clone(), amount }) } else { Err(over) }
    }
}

impl Charge {
    /// How much is charged.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_beyond_the_limit() {
        let budget = Budget::new(10);
        assert!(budget.take(7));
        assert!(!budget.take(4));
        assert!(!budget.take(u64::MAX));
        assert_eq!(budget.used(), 7);
        assert!(budget.take(3));
    }

    #[test]
    fn dropped_charge_is_given_back() {
        let budget = Shared::try_new(Budget::new(10)).unwrap();
        let charge = Budget::charge(&budget, 10, Error::SessionBytes).unwrap();
        assert_eq!(Budget::charge(&budget, 1, Error::SessionBytes).unwrap_err(), Error::SessionBytes);
        drop(charge);
        assert_eq!(budget.used(), 0);
    }
}
