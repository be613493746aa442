//! What is at an address: the answer to `ZwQueryVirtualMemory`.

use super::{Protection, UserMemory};
use crate::nt::arena::PAGE;
use crate::process::HIGHEST_USER_ADDRESS;

/// Pages from an address on that are all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alike {
    /// The first page.
    pub(crate) base: usize,
    /// Bytes.
    pub(crate) length: usize,
    /// The allocation that they are in; `None` where nothing is allocated.
    pub(crate) allocation: Option<Allocation>,
}

/// One allocation, and what may be done with the pages in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) base: usize,
    pub(crate) initial: Protection,
    pub(crate) protection: Protection,
    pub(crate) is_view: bool,
}

impl UserMemory {
    /// The pages from `address` on that are like its own.
    pub(crate) fn alike(&self, address: usize) -> Alike {
        let base = address & !(PAGE - 1);
        let map = self.0.lock();
        let before = map.range(..=base).next_back();
        if let Some((&run, region)) = before
            && let Some(rest) = region.pages.get((base - run) / PAGE..)
            && let Some(protection) = rest.first().map(|page| page.protection)
        {
            let count = rest.iter().take_while(|page| page.protection == protection).count();
            let allocation = Allocation { base: run, initial: region.initial, protection, is_view: region.is_view() };
            return Alike { base, length: count * PAGE, allocation: Some(allocation) };
        }
        let next = map.range(base..).next().map_or(HIGHEST_USER_ADDRESS + 1, |(run, _)| *run);
        Alike { base, length: next - base, allocation: None }
    }
}
