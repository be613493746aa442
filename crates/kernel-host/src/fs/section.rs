//! Calls of the memory and cache managers around sections, page writing and flushing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nt_types::{IrpFlags, KERNEL_MODE, NtStatus};

use super::io::{Issue, Outcome};
use crate::flt::{self, Flight, Kind, Operation, major};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;

/// `SyncTypeCreateSection`.
const SYNC_TYPE_CREATE_SECTION: i32 = 1;

/// What the file system does when such a call has come through the filters: it has nothing to synchronise with.
pub(super) fn serve(flight: &Flight) -> Outcome {
    match flight.major_function() {
        // The page: a file system answers that there are no writers, or that there are.
        major::ACQUIRE_FOR_SECTION => {
            let writable = flight.open().is_some_and(|open| open.stream.has_user_writable_references());
            (if writable { NtStatus::FILE_LOCKED_WITH_WRITERS } else { NtStatus::FILE_LOCKED_WITH_ONLY_READERS }, 0)
        }
        _ => (NtStatus::SUCCESS, 0),
    }
}

/// One call through the filters.
fn call(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    which: u8,
    parameters: impl FnOnce(Operation) -> Operation,
) -> NtStatus {
    let Ok((_, open)) = super::io::opened(object) else { return NtStatus::INVALID_DEVICE_REQUEST };
    let volume = Arc::clone(&open.volume);
    let mut operation = Operation::new(Kind::FsFilter, which, object.body(), KERNEL_MODE);
    operation.open = Some(open);
    flt::run(machine, &volume, None, &parameters(operation)).0
}

/// What NtCreateSection asks before it makes a section with these `PAGE_*` protections.
///
/// # Errors
/// What a filter or the file system answers.
pub(crate) fn acquire(machine: &Arc<Inner>, object: &ObjectRef, protection: u32) -> Result<(), NtStatus> {
    let status = call(machine, object, major::ACQUIRE_FOR_SECTION, |operation| {
        operation.set(0, SYNC_TYPE_CREATE_SECTION).set(4, protection)
    });
    status.ok()
}

/// ... and when it is made.
pub(crate) fn release(machine: &Arc<Inner>, object: &ObjectRef) {
    // A release cannot fail.
    let _released = call(machine, object, major::RELEASE_FOR_SECTION, |operation| operation);
}

/// Writes what was stored through a view: what the mapped page writer does, or a flush of the view.
///
/// # Errors
/// What filters or the file system answer: the data stay unwritten.
pub(crate) fn write_pages(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    start: i64,
    bytes: &[u8],
    by_page_writer: bool,
) -> Result<(), NtStatus> {
    let (acquire, release) = if by_page_writer {
        (major::ACQUIRE_FOR_MOD_WRITE, major::RELEASE_FOR_MOD_WRITE)
    } else {
        (major::ACQUIRE_FOR_CC_FLUSH, major::RELEASE_FOR_CC_FLUSH)
    };
    let end = start.saturating_add_unsigned(bytes.len() as u64);
    let (end_at, mut resource) = ((&raw const end).expose_provenance(), 0_usize);
    let resource_at = (&raw mut resource).expose_provenance();
    let acquired = call(machine, object, acquire, |operation| {
        if by_page_writer { operation.set(0, end_at).set(8, resource_at) } else { operation }
    });
    acquired.ok()?;
    let issue = Issue::on(machine, object, None, KERNEL_MODE)?;
    let flags = IrpFlags::PAGING_IO | IrpFlags::NOCACHE | IrpFlags::SYNCHRONOUS_PAGING_IO;
    let range = (bytes.as_ptr().expose_provenance(), bytes.len() as u32);
    let (status, _) = issue.run(&issue.transfer(major::WRITE, start, range, flags));
    let _released =
        call(machine, object, release, |operation| if by_page_writer { operation.set(0, resource) } else { operation });
    status.ok()
}

/// A section or view of a file: counts among its writable references while it lives.
#[derive(Debug)]
pub(crate) struct WritableReference(Arc<super::open::Open>);

impl WritableReference {
    pub(crate) fn new(open: &Arc<super::open::Open>) -> Self {
        open.stream.writable_sections.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(open))
    }
}

impl Drop for WritableReference {
    fn drop(&mut self) {
        self.0.stream.writable_sections.fetch_sub(1, Ordering::AcqRel);
    }
}
