//! Requests about images.

use super::failure::Failure;
use super::message::{Context, REPLY_BYTES, Reply};
use super::requests::units;
use crate::files;
use crate::kernel::event::Event;
use crate::kernel::heap;
use crate::kernel::pages::PageAllocator;
use crate::kernel::platform::Kernel;
use crate::kernel::{time, upcase};
use broker::policy::NtPath;
use broker::staging::{ImageId, Job, Listed, ListedState, OwnerId, StageRequest, Staged, Unstage, Which};
use broker::{Error, Shared};
use protocol::wire::{self, ReplyHeader};
use protocol::{Kind, ListEntry, ListWriter, Name, Phase, StageReply, Target, UnstageReply};

/// Clients are administrators: what they stage is on one account, and stays when they go.
const ADMINISTRATORS: OwnerId = OwnerId(1);

/// Longest time that staging takes where a client does not say, in milliseconds, and the longest that it may say.
const DEFAULT_DEADLINE_MS: u64 = 60_000;
const MAX_DEADLINE_MS: u64 = 600_000;

/// Bytes read at a time: large enough for the disk, small enough for the pool, and cancellation is looked at in between.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// Reads a file, verifies it, and keeps it for NIC drivers.
#[inline(never)]
pub(super) fn stage(context: &Context<'_>, request: protocol::StageRequest<'_>) -> Result<Reply, Failure> {
    context.need_room(size_of::<ReplyHeader>().saturating_add(size_of::<wire::StageReply>()))?;
    let _job_charge = context.session().charge_job()?;
    let deadline = match u64::from(request.deadline_ms) {
        0 => DEFAULT_DEADLINE_MS,
        milliseconds => milliseconds.min(MAX_DEADLINE_MS),
    };
    let job = Job::try_new(time::now().after_milliseconds(deadline), Event::try_new()?)?;
    context.connection.add_job(&job)?;
    let staged = run(context, &request, &job);
    context.connection.remove_job(&job);
    let Staged { image, shared } = staged?;
    let reply = StageReply { image_id: image.id().0, size: image.size(), sha256: *image.sha256(), shared };
    Reply::with(REPLY_BYTES, |out| reply.write(out, context.id))
}

fn run(
    context: &Context<'_>,
    request: &protocol::StageRequest<'_>,
    job: &Shared<Job<Kernel>>,
) -> Result<Staged<Kernel>, Failure> {
    let opening = |error: Error| Failure::from(broker::staging::Failure { phase: Phase::Opening, error });
    let (file, _) = super::requests::open_file(context, request.name).map_err(opening)?;
    let _charge = context.session().charge_bytes(CHUNK_BYTES as u64)?;
    let mut chunk = heap::zeroed(CHUNK_BYTES)?;
    let request = StageRequest {
        name: file.device_name().map_err(opening)?,
        owner: ADMINISTRATORS,
        expected: request.sha256,
        highest_address: request.highest_address.unwrap_or(u64::MAX),
    };
    let mut source = file.source(context.passive);
    Ok(context.state.images.stage(&request, job, &mut source, &mut PageAllocator, &mut chunk)?)
}

/// Takes an image away from NIC drivers that come from now on.
#[inline(never)]
pub(super) fn unstage(context: &Context<'_>, target: Target<'_>) -> Result<Reply, Failure> {
    context.need_room(size_of::<ReplyHeader>().saturating_add(size_of::<wire::UnstageReply>()))?;
    let images = &context.state.images;
    let unstaged = match target {
        Target::Image(id) => images.unstage(Which::Id(ImageId(id)), Unstage::Refuse)?,
        Target::Name(name) => {
            let name = normalized(context, name)?;
            images.unstage(Which::Name(name.units()), Unstage::Refuse)?
        }
    };
    let reply = UnstageReply { image_id: unstaged.id.0, size: unstaged.size };
    Reply::with(REPLY_BYTES, |out| reply.write(out, context.id))
}

/// The normalised form of the name that an image was staged under. The file may have gone since, so that the
/// last component is taken as it is and only its folder has to exist.
fn normalized(context: &Context<'_>, name: Name<'_>) -> Result<broker::Name, Error> {
    let units = units(name)?;
    NtPath::parse(&units)?;
    upcase::prepare(&units, context.passive)?;
    files::normalized_name(context.state.filter(), &units, context.passive)
}

/// Which images there are, from a cursor on, as many as fit.
#[inline(never)]
pub(super) fn list(context: &Context<'_>, cursor: u64) -> Result<Reply, Failure> {
    let capacity = context.room.min(MAX_LIST_BYTES);
    let _charge = context.session().charge_bytes(capacity as u64)?;
    Reply::with(capacity, |out| {
        let images = &context.state.images;
        let total = u32::try_from(images.len()).unwrap_or(u32::MAX);
        let mut writer = ListWriter::new(Kind::List, out)?;
        let mut last = ImageId(cursor);
        while let Some(listed) = images.next(last) {
            if let Err(too_small) = push(&mut writer, &listed) {
                // Not even one entry: a cursor would lead the client to the same place for ever.
                if writer.count() == 0 {
                    return Err(Failure::from(too_small));
                }
                return writer.finish(context.id, last.0, total).map_err(Failure::from);
            }
            last = listed.id;
        }
        writer.finish(context.id, 0, total).map_err(Failure::from)
    })
}

/// Longest list reply, in bytes; a client with more room asks again.
pub(super) const MAX_LIST_BYTES: usize = 128 * 1024;

fn push(writer: &mut ListWriter<'_>, listed: &Listed<Kernel>) -> Result<(), protocol::BufferTooSmall> {
    let name = Name::from_units(listed.name.units());
    match &listed.state {
        ListedState::UnderWay(job) => {
            let progress = job.progress();
            writer.push(&ListEntry {
                image_id: listed.id.0,
                phase: progress.phase.code(),
                size: listed.size,
                bytes_done: progress.done,
                sha256: [0; 32],
                open_count: 0,
                name,
                handed_to: Name::default(),
            })
        }
        ListedState::Staged(image) => {
            let consumer = image.last_consumer();
            writer.push(&ListEntry {
                image_id: listed.id.0,
                phase: Phase::Ready.code(),
                size: image.size(),
                bytes_done: image.size(),
                sha256: *image.sha256(),
                open_count: image.holders(),
                name,
                handed_to: consumer.as_ref().map_or_else(Name::default, |consumer| Name::from_units(consumer.name())),
            })
        }
    }
}
