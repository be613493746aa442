//! Addresses of exports that a driver learns while it runs, instead of through its import table.
//!
//! `MmGetSystemRoutineAddress` hands such addresses out, and some structures carry them (a lookaside list's allocator).
//! Like an import slot, each leads through a thunk that says which driver calls.

use std::sync::{Arc, Mutex, PoisonError};

use super::Binding;
use super::gate::Thunks;
use super::imports::{find, known_export};
use crate::ddi::{Export, Target};
use crate::machine::Driver;
use crate::thread::Thread;

/// Thunks of one driver beyond those of its imports; one per export, kept until the driver itself is dropped.
#[derive(Debug, Default)]
pub(crate) struct LateThunks(Mutex<Vec<(&'static Export, Thunks)>>);

impl LateThunks {
    /// Where `driver` finds `export`; `None` when Linux has no memory for a thunk.
    pub(crate) fn address(&self, driver: &Arc<Driver>, export: &'static Export) -> Option<usize> {
        let target = match export.target {
            Target::Data(address) => return Some(address.expose_provenance()),
            Target::Variable(of) => return Some(of(Thread::current().machine())),
            Target::Function(address) => address,
        };
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = made.iter().position(|(known, _)| std::ptr::eq(*known, export));
        let index = if let Some(index) = known {
            index
        } else {
            let binding = Binding::new(target, Arc::downgrade(driver), export);
            made.push((export, Thunks::new(Box::new([binding])).ok()?));
            made.len() - 1
        };
        made.get(index).map(|(_, thunks)| thunks.address(0) as usize)
    }

    /// How often the driver has called an export of this name through an address that it got here.
    pub(crate) fn calls(&self, export: &str) -> u64 {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.iter().map(|(_, thunks)| thunks.calls(export)).sum()
    }
}

/// Where `driver` finds the routine or variable that `module` exports as `name`; `None` when nothing of that name is exported.
///
/// A name that Windows exports but this host does not implement has an address too: calling it stops the machine by name.
pub(crate) fn routine(driver: &Arc<Driver>, module: &str, name: &str) -> Option<usize> {
    let export = find(module, name).or_else(|| known_export(module, name))?;
    driver.late.address(driver, export)
}
