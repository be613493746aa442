//! Handle tables: the system's, whose handles have the high bit set, and one for each process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::ob::ObjectRef;
use crate::ddi::CallSite;
use crate::machine::Driver;
use crate::origin::Origin;
use crate::process::Process;

/// Set in every kernel handle, as on Windows: user mode can neither use nor close one.
pub(crate) const KERNEL_HANDLE_BIT: usize = 0xFFFF_FFFF_8000_0000;

/// Handles step by four; the two low bits belong to the application.
const STEP: usize = 4;

/// Handles of one process, or of the system.
///
/// Values are not used twice: a handle that is closed once too often is never somebody else's, so it is always noticed.
#[derive(Debug)]
pub struct HandleTable {
    kernel: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: usize,
    entries: BTreeMap<usize, Entry>,
}

/// One open handle.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it stands for; holds one reference.
    pub object: ObjectRef,
    /// Access granted at the open.
    pub access: u32,
    /// Who opened it, when a driver did: driver, DDI and return address.
    pub opener: Option<Opener>,
}

/// The driver that owes a close.
#[derive(Clone, Debug)]
pub struct Opener {
    /// The driver.
    pub driver: Arc<Driver>,
    /// The DDI that returned the handle.
    pub ddi: &'static str,
    /// Where the driver got it.
    pub site: Origin,
}

impl Opener {
    /// The opener of a handle that the DDI call at `site` returns.
    #[must_use]
    pub fn of(site: &CallSite) -> Self {
        Self { driver: Arc::clone(&site.driver), ddi: site.export.name, site: Origin::of(site) }
    }
}

impl HandleTable {
    pub(crate) fn new(kernel: bool) -> Self {
        Self { kernel, state: Mutex::new(State { next: STEP, entries: BTreeMap::new() }) }
    }

    /// Makes a handle to `object`. `opener` is the driver that has to close it, `None` for the host and for programs.
    pub fn insert(&self, object: &ObjectRef, access: u32, opener: Option<Opener>) -> usize {
        let mut state = self.lock();
        let index = state.next;
        state.next += STEP;
        object.count_handle();
        state.entries.insert(index, Entry { object: object.clone(), access, opener });
        if self.kernel { index | KERNEL_HANDLE_BIT } else { index }
    }

    /// What `handle` stands for.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE` when it is not open; `STATUS_ACCESS_DENIED` when it lacks a right of `access`;
    /// `STATUS_OBJECT_TYPE_MISMATCH` when `type_name` is given and not the object's.
    pub fn reference(&self, handle: usize, access: u32, type_name: Option<&str>) -> Result<Entry, NtStatus> {
        let entry = self.entry(handle).ok_or(NtStatus::INVALID_HANDLE)?;
        if type_name.is_some_and(|name| name != entry.object.type_name()) {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        if access & !entry.access != 0 {
            return Err(NtStatus::ACCESS_DENIED);
        }
        Ok(entry)
    }

    /// The open handle, whatever its rights.
    pub fn entry(&self, handle: usize) -> Option<Entry> {
        self.lock().entries.get(&self.index(handle)?).cloned()
    }

    /// Closes a handle in the name of `process`; closing the object's last one tells the object.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE` when it is not open.
    pub fn close(&self, handle: usize, process: &Arc<Process>) -> Result<(), NtStatus> {
        let index = self.index(handle).ok_or(NtStatus::INVALID_HANDLE)?;
        let entry = self.lock().entries.remove(&index).ok_or(NtStatus::INVALID_HANDLE)?;
        finish_close(&entry, process);
        Ok(())
    }

    /// Closes everything: the process ended.
    pub fn close_all(&self, process: &Arc<Process>) {
        loop {
            // One at a time and without the lock: a close may run driver code that opens and closes others.
            let Some((_, entry)) = self.lock().entries.pop_first() else { return };
            finish_close(&entry, process);
        }
    }

    /// Open handles.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether no handle is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Handles that `driver` opened and has not closed, for the leak report: one line each.
    pub(crate) fn opened_by(&self, driver: &Driver) -> Vec<String> {
        let state = self.lock();
        let mine = |opener: &&Opener| std::ptr::eq(Arc::as_ptr(&opener.driver), driver);
        let lines = state.entries.iter().filter_map(|(index, entry)| {
            let opener = entry.opener.as_ref().filter(mine)?;
            let object = &entry.object;
            let name = object.name().unwrap_or_default();
            let (ddi, site) = (opener.ddi, opener.site);
            Some(format!("handle {index:#x} to {object:?} {name}, opened by {ddi} from {site}"))
        });
        lines.collect()
    }

    /// Table index of a handle value: the tag bits drop out, and a kernel handle only fits the system's table.
    fn index(&self, handle: usize) -> Option<usize> {
        let is_kernel = is_kernel_handle(handle);
        let index = if is_kernel { handle & !KERNEL_HANDLE_BIT } else { handle };
        (is_kernel == self.kernel).then_some(index & !(STEP - 1))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// NT's order: count, the type's close procedure, then the handle's reference (when `entry` is dropped).
fn finish_close(entry: &Entry, process: &Arc<Process>) {
    if entry.object.discount_handle() {
        entry.object.any_payload().on_last_handle_close(&entry.object, process);
    }
}

/// Whether a handle value names the system's table. `NtCurrentProcess` (-1) and `NtCurrentThread` (-2) do not.
#[must_use]
pub(crate) fn is_kernel_handle(handle: usize) -> bool {
    handle & KERNEL_HANDLE_BIT == KERNEL_HANDLE_BIT && handle < usize::MAX - 15
}
