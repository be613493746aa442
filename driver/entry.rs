//! What handles stand for, and what closing one means.

use crate::files::File;
use crate::kernel::platform::Kernel;
use crate::state;
use broker::staging::HandedOut;
use broker::{Closed, Error, Kind};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use fltmgr::raw::PFLT_GENERIC_WORKITEM;
use fltmgr::{FilterRef, GenericWorkItem, Passive};
use nt_types::PVOID;

/// One entry of the handle table.
pub(crate) enum Entry {
    /// A file that a client opened.
    File(OpenFile),
    /// An image that a NIC driver opened.
    Image(OpenImage),
}

/// A file in the hands of a client.
pub(crate) struct OpenFile {
    /// The file itself.
    pub(crate) file: File,
    /// Its length in bytes when it was opened. It cannot grow: writers are locked out.
    pub(crate) size: u64,
    /// The time of day when it was opened.
    pub(crate) opened_at: i64,
}

/// An image in the hands of a NIC driver.
pub(crate) struct OpenImage {
    /// The image, kept in memory and counted as held.
    pub(crate) image: HandedOut<Kernel>,
    /// How many times the handle is mapped.
    pub(crate) mappings: AtomicU32,
    /// The time of day when it was opened.
    pub(crate) opened_at: i64,
}

impl Entry {
    /// Normalised name of the file, or of the one that the image was read from.
    pub(crate) fn name(&self) -> &[u16] {
        match self {
            Self::File(open) => open.file.name(),
            Self::Image(open) => open.image.name(),
        }
    }

    /// Length in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::File(open) => open.size,
            Self::Image(open) => open.image.size(),
        }
    }

    /// The time of day when it was opened: 100 ns since 1601-01-01 UTC.
    pub(crate) const fn opened_at(&self) -> i64 {
        match self {
            Self::File(open) => open.opened_at,
            Self::Image(open) => open.opened_at,
        }
    }

    /// Whether a NIC driver has it mapped at this moment.
    pub(crate) fn is_mapped(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Image(open) => open.mappings.load(Ordering::Acquire) != 0,
        }
    }
}

impl broker::Entry for Entry {
    fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Image(_) => Kind::Image,
        }
    }
}

/// Closes entries by dropping them: each owner type gives back what it holds.
pub(crate) struct Reaper;

impl broker::Reaper<Entry> for Reaper {
    fn can_close_here(&self) -> bool {
        Passive::check().is_some()
    }

    fn schedule_drain(&self) {
        if let Some(state) = state::get() {
            state.drain.request(state.filter());
        }
    }

    fn close(&self, closed: Closed<'_, Entry>) {
        // FltClose and ObDereferenceObject of a file; the image's memory, where this was its last holder.
        drop(closed);
    }
}

/// The work item that closes what was closed above PASSIVE_LEVEL. Allocated at the start, so that a close cannot fail.
pub(crate) struct DrainItem {
    item: GenericWorkItem,
    queued: AtomicBool,
    /// Routines that were queued and have not ended.
    pending: AtomicU32,
}

impl DrainItem {
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn try_new() -> Result<Self, Error> {
        let item = GenericWorkItem::allocate().map_err(Error::System)?;
        Ok(Self { item, queued: AtomicBool::new(false), pending: AtomicU32::new(0) })
    }

    /// Has the table drained soon. IRQL <= DISPATCH_LEVEL.
    fn request(&self, filter: FilterRef) {
        if self.queued.swap(true, Ordering::AcqRel) {
            // It has not started yet, and will see what was added.
            return;
        }
        self.pending.fetch_add(1, Ordering::AcqRel);
        // SAFETY: `queued` was false, so the routine has started since the item was queued last; it ignores its
        // context (rule: GenericWorkItem::queue).
        let queued = unsafe { self.item.queue(filter, Some(drain)) };
        if queued.is_err() {
            // The filter is being unregistered: unload drains the table itself, before that.
            self.queued.store(false, Ordering::Release);
            self.pending.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Whether closes are on their way.
    pub(crate) fn is_busy(&self) -> bool {
        self.pending.load(Ordering::Acquire) != 0
    }
}

/// Runs in a system worker thread, PASSIVE_LEVEL. FltMgr keeps the filter, and so the state, until it returns.
unsafe extern "efiapi" fn drain(_item: PFLT_GENERIC_WORKITEM, _filter: PVOID, _context: PVOID) {
    if let Some(state) = state::get() {
        // First: what is added from now on needs the item again.
        state.drain.queued.store(false, Ordering::Release);
        state.table.drain();
        state.drain.pending.fetch_sub(1, Ordering::AcqRel);
    }
}
