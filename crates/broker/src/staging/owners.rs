//! What each owner of images has used up.

use crate::fixed_vec::FixedVec;
use crate::{Budget, Charge, Error, Shared};

/// On whose account an image is staged. The driver decides what an account is (a user, a service).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u64);

/// The budgets of all owners that have something staged, or did until recently.
pub(super) struct Owners {
    budgets: FixedVec<(OwnerId, Shared<Budget>)>,
}

/// What the memory of an image was paid with; gives it back when dropped.
#[derive(Debug)]
pub(super) struct Payment {
    _total: Charge,
    _owner: Charge,
}

impl Owners {
    /// Room for `capacity` owners at a time. [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(super) fn try_new(capacity: usize) -> Result<Self, Error> {
        Ok(Self { budgets: FixedVec::try_with_capacity(capacity)? })
    }

    /// The budget of `owner`, which is `fresh` where it has none. Needs no memory, so it can be called under a lock.
    ///
    /// [`Error::OwnerBytes`] (`STATUS_QUOTA_EXCEEDED`) where too many others have something staged.
    pub(super) fn budget(&mut self, owner: OwnerId, fresh: Shared<Budget>) -> Result<Shared<Budget>, Error> {
        if let Some((_, budget)) = self.budgets.iter().find(|(id, _)| *id == owner) {
            return Ok(budget.clone());
        }
        if self.budgets.is_full() {
            // A budget that only we refer to, and that is not in use, cannot come into use behind our back.
            self.budgets.retain(|(_, budget)| Shared::count(budget) > 1 || budget.used() > 0);
        }
        self.budgets.push((owner, fresh.clone())).map_err(|_| Error::OwnerBytes)?;
        Ok(fresh)
    }
}

impl Payment {
    /// Charges `bytes` to both budgets, or to neither.
    ///
    /// [`Error::TotalBytes`] or [`Error::OwnerBytes`] (`STATUS_QUOTA_EXCEEDED`).
    pub(super) fn charge(total: &Shared<Budget>, owner: &Shared<Budget>, bytes: u64) -> Result<Self, Error> {
        let total = Budget::charge(total, bytes, Error::TotalBytes)?;
        let owner = Budget::charge(owner, bytes, Error::OwnerBytes)?;
        Ok(Self { _total: total, _owner: owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Shared<Budget> {
        Shared::try_new(Budget::new(10)).unwrap()
    }

    #[test]
    fn owners_without_images_make_room_for_others() {
        let mut owners = Owners::try_new(1).unwrap();
        let mut held = std::vec::Vec::new();
        for id in 0.. {
            if owners.budgets.is_full() {
                break;
            }
            held.push(owners.budget(OwnerId(id), budget()).unwrap());
        }
        assert_eq!(owners.budget(OwnerId(99), budget()).unwrap_err(), Error::OwnerBytes);
        held.clear();
        assert!(owners.budget(OwnerId(99), budget()).is_ok());
    }

    #[test]
    fn failed_payment_charges_nothing() {
        let (total, owner) = (budget(), budget());
        let first = Payment::charge(&total, &owner, 6).unwrap();
        assert_eq!(Payment::charge(&total, &budget(), 6).unwrap_err(), Error::TotalBytes);
        assert_eq!(Payment::charge(&budget(), &owner, 6).unwrap_err(), Error::OwnerBytes);
        drop(first);
        assert_eq!((total.used(), owner.used()), (0, 0));
    }
}
