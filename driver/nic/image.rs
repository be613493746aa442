//! Finding the image that a driver asks for.
//!
//! Staged images come first, in the order of the search path. Where the policy asks for no proof, a file that lies
//! there unstaged is staged on the spot, so that a machine needs no client to bring up its network.

use super::consumer::Consumer;
use crate::entry::{Entry, OpenImage};
use crate::files;
use crate::kernel::event::Event;
use crate::kernel::heap;
use crate::kernel::pages::PageAllocator;
use crate::kernel::platform::Kernel;
use crate::kernel::{time, upcase};
use crate::port::CHUNK_BYTES;
use crate::state::State;
use broker::policy::BareName;
use broker::staging::{HandedOut, Job, Named, OwnerId, Policy, Sha256, StageRequest};
use broker::{Error, Time};
use core::sync::atomic::AtomicU32;
use fltmgr::Passive;
use ndis_firmware::interface::FWBROKER_IMAGE;

/// Images that drivers staged by asking for them.
const DRIVERS: OwnerId = OwnerId(2);

/// How often an open looks whether an image that is being staged is there.
const POLL_MS: u32 = 5;

/// What a driver asks for.
pub(super) struct Request<'a> {
    /// Name of the image, below a root.
    pub(super) name: &'a [u16],
    /// Highest physical address, inclusive.
    pub(super) highest_address: u64,
    /// How long it may take.
    pub(super) timeout_ms: u64,
}

/// Opens an image for a driver.
///
/// [`Error::ImageNotFound`] where there is none; names' errors; those of staging; [`Error::TimedOut`].
pub(super) fn open(
    state: &State,
    consumer: &Consumer,
    request: &Request<'_>,
    passive: Passive,
) -> Result<FWBROKER_IMAGE, Error> {
    let name = BareName::parse(request.name)?;
    upcase::prepare(name.units(), passive)?;
    let reservation = state.table.reserve(consumer.session())?;
    let image = find(state, consumer, request, name, passive)?;
    let (length, sha256) = (image.size(), *image.sha256());
    let handle =
        reservation.fill(Entry::Image(OpenImage { image, mappings: AtomicU32::new(0), opened_at: time::of_day() }))?;
    Ok(FWBROKER_IMAGE { Handle: handle.raw(), Length: length, Sha256: sha256 })
}

fn find(
    state: &State,
    consumer: &Consumer,
    request: &Request<'_>,
    name: BareName<'_>,
    passive: Passive,
) -> Result<HandedOut<Kernel>, Error> {
    let deadline = time::now().after_milliseconds(request.timeout_ms);
    let search_path = state.roots.search_path(state.filter(), passive)?;
    loop {
        match state.images.open_named(&search_path, name, consumer.name())? {
            Named::Staged(image) if image.highest_address() <= request.highest_address => return Ok(image),
            Named::Staged(image) => {
                // The same bytes, in memory that this device can reach. The digest says that they are the same.
                let expected = Some(*image.sha256());
                return stage(state, consumer, request, image.name(), expected, deadline, passive);
            }
            Named::UnderWay if time::now() < deadline => time::sleep(POLL_MS, passive),
            Named::UnderWay => return Err(Error::TimedOut),
            Named::Nothing => break,
        }
    }
    if state.policy != Policy::Unsigned.code() {
        return Err(Error::ImageNotFound);
    }
    for candidate in search_path.candidates(name) {
        let candidate = candidate?;
        match stage(state, consumer, request, candidate.units(), None, deadline, passive) {
            // Not in this root, or no such folder in it.
            Err(Error::System(status)) if is_missing(status) => {}
            other => return other,
        }
    }
    Err(Error::ImageNotFound)
}

fn is_missing(status: nt_types::NtStatus) -> bool {
    use nt_types::NtStatus as Status;
    matches!(status, Status::OBJECT_NAME_NOT_FOUND | Status::OBJECT_PATH_NOT_FOUND | Status::NO_SUCH_FILE)
}

/// Stages a file for this driver, and hands it out.
fn stage(
    state: &State,
    consumer: &Consumer,
    request: &Request<'_>,
    name: &[u16],
    expected: Option<Sha256>,
    deadline: Time,
    passive: Passive,
) -> Result<HandedOut<Kernel>, Error> {
    let file = files::open_device_name(state.filter(), &state.roots, name, passive)?;
    let job = Job::try_new(deadline, Event::try_new()?)?;
    let mut chunk = heap::zeroed(CHUNK_BYTES)?;
    let request =
        StageRequest { name: file.device_name()?, owner: DRIVERS, expected, highest_address: request.highest_address };
    let mut source = file.source(passive);
    let staged = state
        .images
        .stage(&request, &job, &mut source, &mut PageAllocator, &mut chunk)
        .map_err(|failure| failure.error)?;
    // Not by name or number: it may be replaced or unstaged already, and is what this driver asked for all the same.
    state.images.open_image(&staged.image, consumer.name())
}
