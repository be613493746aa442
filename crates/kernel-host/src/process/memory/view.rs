//! User memory as drivers see it: hidden, opened, and by whom it is owned.

use std::sync::Arc;

use super::{Protection, Region, Regions, UserMemory};
use crate::nt::arena::{Access, PAGE};
use crate::process::{exposure, slices};

impl UserMemory {
    /// Hides all pages from drivers.
    pub(crate) fn hide(&self) {
        for (&run, region) in self.0.lock().iter_mut() {
            self.0.hide_region(run, region);
        }
    }

    /// Whether this is the memory that was found by an address.
    pub(crate) fn is(&self, regions: &Arc<Regions>) -> bool {
        Arc::ptr_eq(&self.0, regions)
    }

    /// Where the host finds what is at a user address now: not known to drivers, and not in user space.
    pub(crate) fn system_address(&self, address: usize) -> usize {
        self.0.slice.arena.host(address)
    }
}

impl Regions {
    /// Whether the program's own access to an address would succeed, whether or not drivers can touch it at the moment.
    pub(crate) fn lets(&self, address: usize, write: bool) -> bool {
        self.lock_page(address, |protection| allows(protection, write)) == Some(true)
    }

    /// Shows drivers the page at an address, and those around it that are alike. False when Linux cannot.
    pub(crate) fn open(self: &Arc<Self>, address: usize) -> bool {
        let mut map = self.lock();
        let Some((&run, region)) = map.range_mut(..=address).next_back() else { return false };
        let index = (address - run) / PAGE;
        let Some(protection) = region.pages.get(index).map(|page| page.protection) else { return false };
        let alike = |page: &&super::Page| page.protection == protection;
        let first = index - region.pages[..index].iter().rev().take_while(alike).count();
        let count = region.pages[first..].iter().take_while(alike).count();
        if !self.slice.arena.protect(run + first * PAGE, count, protection.access()) {
            return false;
        }
        region.pages[first..first + count].iter_mut().for_each(|page| page.open = true);
        drop(map);
        exposure::note_opened(self, address);
        true
    }

    /// Hides the region that an address is in.
    pub(crate) fn hide_at(&self, address: usize) {
        let mut map = self.lock();
        if let Some((&run, region)) = map.range_mut(..=address).next_back() {
            self.hide_region(run, region);
        }
    }

    fn hide_region(&self, run: usize, region: &mut Region) {
        // Pages that were not open lose nothing.
        if region.pages.iter().any(|page| page.open) && self.slice.arena.protect(run, region.pages.len(), Access::None)
        {
            region.pages.iter_mut().for_each(|page| page.open = false);
        }
    }
}

/// Whether a program's own access would succeed.
fn allows(protection: Protection, write: bool) -> bool {
    match protection {
        Protection::ReadWrite => true,
        Protection::ReadOnly => !write,
        Protection::NoAccess | Protection::Reserved | Protection::Guard => false,
    }
}

/// The memory of the process that has `address` in its part of the address space.
pub(crate) fn owner_of(address: usize) -> Option<Arc<Regions>> {
    slices::owner_of(address)
}
