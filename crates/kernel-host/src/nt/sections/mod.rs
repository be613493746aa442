//! Section objects: memory that several address spaces see, backed by the paging file or by a file.
//!
//! [`pages`] has the memory, which all sections of one stream share, as the memory manager's control areas do; [`create`] makes
//! sections and opens them by name, [`view`] shows them to processes and to the kernel, [`closing`] answers what file systems ask
//! before they change a file. A file's pages are read through its filters, as paging I/O, when a view of them is mapped, and not
//! one by one as they are touched; what was stored is written back when a view is flushed or unmapped. A file that is written by
//! handle while it is mapped shows in views only after that: there is no cache that both would share.
//!
//! Pages: `wdm/nf-wdm-zwcreatesection`, `wdm/nf-wdm-zwmapviewofsection`, `ntddk/nf-ntddk-mmmapviewinsystemspace`,
//! `ntifs/nf-ntifs-mmflushimagesection` and their neighbours.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::arena::PAGE;
use super::ob::{ObjectBody, ObjectRef};
use super::ob_named::Permanence;
use crate::ddi::Export;
use crate::fs::section::WritableReference;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::process::{Process, SYSTEM_PROCESS_ID};

mod closing;
mod create;
mod image;
mod pages;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use create::{handle_to, of_open_file};
use pages::Pages;

/// What drivers can import from here.
pub(super) fn exports() -> impl Iterator<Item = &'static Export> {
    [closing::EXPORTS, create::EXPORTS, view::EXPORTS].into_iter().flatten()
}

/// A section object's payload.
#[derive(Debug)]
struct Section {
    /// Bytes, as `MaximumSize` or the file had them.
    size: u64,
    /// Whether the protection that it was made with lets views be written.
    is_writable: bool,
    permanence: Permanence,
    #[expect(dead_code, reason = "counts while it lives")]
    writable: Option<WritableReference>,
    pages: Arc<Pages>,
}

impl ObjectBody for Section {
    fn type_name(&self) -> &'static str {
        "Section"
    }

    fn on_last_handle_close(&self, object: &ObjectRef, _process: &Arc<Process>) {
        self.permanence.last_handle_closed(object);
    }

    fn make_temporary(&self) {
        self.permanence.end();
    }
}

/// A mapped view. It keeps the section's pages, whatever happens to handles and to the object.
#[derive(Debug)]
struct View {
    section: Arc<Section>,
    address: usize,
    /// Pages of the section that it shows.
    range: std::ops::Range<usize>,
    /// Whose memory it is in; `None` for system space.
    process: Option<u64>,
    /// Stores go to the section.
    writes: bool,
    driver: Arc<Driver>,
    ddi: &'static str,
    site: crate::origin::Origin,
}

impl View {
    fn contains(&self, process: Option<u64>, address: usize) -> bool {
        let length = self.range.len() * PAGE;
        self.process == process && (self.address..self.address + length).contains(&address)
    }

    /// Hands what was stored to the mapped page writer. A lost page is nobody's to report to.
    fn end(&self, machine: &Arc<Inner>) {
        if self.writes {
            let _lost = self.section.pages.write_back(machine, self.range.clone(), true);
        }
    }
}

/// Sections and views of a machine.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    views: Vec<View>,
    /// Pages by the address of the `SECTION_OBJECT_POINTERS` that they hang on: those of data sections, and of images.
    data: BTreeMap<usize, Weak<Pages>>,
    images: BTreeMap<usize, Weak<Pages>>,
}

impl Sections {
    /// Takes the view at an address out of the list.
    fn take_view(&self, process: Option<u64>, address: usize) -> Option<View> {
        let mut state = self.lock();
        let index = state.views.iter().position(|view| view.contains(process, address))?;
        Some(state.views.swap_remove(index))
    }

    /// Whether the address lies in a view of an image, where it lies in a view at all.
    pub(super) fn is_image(&self, process: u64, address: usize) -> Option<bool> {
        let state = self.lock();
        let view = state.views.iter().find(|view| view.contains(Some(process), address))?;
        Some(view.section.pages.is_image())
    }

    /// The views of a process go with it.
    pub(crate) fn process_ends(&self, machine: &Arc<Inner>, process: &Process) {
        let gone: Vec<View> = self.lock().views.extract_if(.., |view| view.process == Some(process.id())).collect();
        // Without the lock: filters see the page writer's writes, and the close of the file.
        for view in &gone {
            view.end(machine);
        }
    }

    /// Views that `driver` mapped where no process takes them along.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let stays = |view: &&View| view.process.is_none_or(|process| process == SYSTEM_PROCESS_ID);
        let mine = state.views.iter().filter(|view| std::ptr::eq(Arc::as_ptr(&view.driver), driver)).filter(stays);
        let leak = |view: &View| Leak {
            kind: LeakKind::Mapping,
            count: 1,
            bytes: (view.range.len() * PAGE) as u64,
            detail: format!("view of a section at {:#x}, mapped by {} from {}", view.address, view.ddi, view.site),
        };
        mine.map(leak).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
