//! The images that are staged, and the jobs under way: the data under the lock of [`Images`](super::Images).

use super::image::{HandedOut, Memory};
use super::{Image, ImageId, Job, Sha256};
use crate::fixed_vec::FixedVec;
use crate::name::same_name;
use crate::policy::{BareName, SearchPath};
use crate::{Error, FileIdentity, Name, Platform, Shared};

/// What the lock of [`Images`](super::Images) protects. Nothing here allocates, waits or drops an image: what
/// is removed is returned, for the caller to drop at `PASSIVE_LEVEL`.
pub(super) struct Registry<P: Platform> {
    entries: FixedVec<Entry<P>>,
    capacity: usize,
    last_id: u64,
    closed: bool,
}

/// An image, or one that is being made.
pub(super) struct Entry<P: Platform> {
    id: ImageId,
    key: Key,
    state: State<P>,
}

/// What two requests must have in common to be one.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) name: Shared<Name>,
    pub(super) identity: FileIdentity,
    pub(super) expected: Option<Sha256>,
    /// The highest physical address that the memory may have.
    pub(super) highest_address: u64,
}

enum State<P: Platform> {
    UnderWay(Shared<Job<P>>),
    Staged(Shared<Image<P>>),
}

/// What a request finds.
pub(super) enum Found<P: Platform> {
    /// The image is there.
    Staged(Shared<Image<P>>),
    /// Somebody is making it.
    UnderWay(Shared<Job<P>>),
    /// Nobody is: the caller has been registered to make it, under this number.
    Lead(ImageId),
}

/// What there is under the name that a driver asks for.
pub enum Named<P: Platform> {
    /// An image, handed out.
    Staged(HandedOut<P>),
    /// Nothing yet, but it is being staged.
    UnderWay,
    /// Nothing.
    Nothing,
}

/// Which image is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one with this number.
    Id(ImageId),
    /// The one staged under this normalised name, whatever the case of its letters.
    Name(&'a [u16]),
}

/// What to do where the image is in somebody's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstage {
    /// Leave it staged, and say [`Error::ImageInUse`].
    Refuse,
    /// Take it away from newcomers; holders keep it.
    Defer,
}

/// What became of an image that was to be unstaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unstaged {
    /// Which image it was.
    pub id: ImageId,
    /// Its length in bytes.
    pub size: u64,
    /// How many still hold it; its memory is freed when the last of them lets go.
    pub holders: u32,
}

/// One entry of a listing. Holding it keeps the image in memory, but is not counted as a holder.
pub struct Listed<P: Platform> {
    /// The image's number: the cursor for the next entry.
    pub id: ImageId,
    /// The normalised name of its file.
    pub name: Shared<Name>,
    /// Its length in bytes.
    pub size: u64,
    /// Whether it is complete.
    pub state: ListedState<P>,
}

/// How far a listed image is.
pub enum ListedState<P: Platform> {
    /// Being staged; [`Job::progress`] tells how far.
    UnderWay(Shared<Job<P>>),
    /// Staged.
    Staged(Shared<Image<P>>),
}

impl<P: Platform> Registry<P> {
    /// Room for `capacity` images. [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(super) fn try_new(capacity: usize) -> Result<Self, Error> {
        let entries = FixedVec::try_with_capacity(capacity)?;
        Ok(Self { entries, capacity, last_id: 0, closed: false })
    }

    /// Looks for an image or job that serves a request with this `key`; registers `job` as the one where there is none.
    ///
    /// [`Error::SessionEnded`] after [`close`](Self::close), [`Error::TooManyImages`] (`STATUS_QUOTA_EXCEEDED`).
    #[inline(never)] // for the sake of the stack, see `Images`
    pub(super) fn find_or_lead(&mut self, key: &Key, job: &Shared<Job<P>>) -> Result<Found<P>, Error> {
        if self.closed {
            return Err(Error::SessionEnded);
        }
        for entry in self.entries.iter().filter(|entry| entry.is_same_file(key)) {
            match &entry.state {
                // A complete image serves whoever can do with its memory and does not know better: clocks of file systems are
                // coarse, so a file that was rewritten in place at once can look like the one that was read.
                State::Staged(image)
                    if image.highest_address() <= key.highest_address
                        && key.expected.is_none_or(|expected| expected == *image.sha256()) =>
                {
                    return Ok(Found::Staged(image.clone()));
                }
                // A job may fail for its digest's sake, so only those who expect the same may depend on it.
                State::UnderWay(other)
                    if entry.key.highest_address <= key.highest_address && entry.key.expected == key.expected =>
                {
                    return Ok(Found::UnderWay(other.clone()));
                }
                _ => {}
            }
        }
        // What the new image will replace makes room for it only then; the limit counts both until then.
        if self.entries.len() >= self.capacity {
            return Err(Error::TooManyImages);
        }
        self.last_id = self.last_id.saturating_add(1);
        let id = ImageId(self.last_id);
        let entry = Entry { id, key: key.clone(), state: State::UnderWay(job.clone()) };
        self.entries.push(entry).map_err(|_| Error::TooManyImages)?;
        Ok(Found::Lead(id))
    }

    /// The memory of a staged image with the same bytes, if its place in memory will do.
    pub(super) fn find_twin(&self, size: u64, sha256: &Sha256, highest_address: u64) -> Option<Shared<Memory<P>>> {
        self.staged()
            .find(|image| {
                image.size() == size && image.sha256() == sha256 && image.highest_address() <= highest_address
            })
            .map(|image| image.memory_shared().clone())
    }

    /// Makes the job `image.id()` an image, in place of the one that had its name before. Returns what was removed.
    ///
    /// `Err` gives the image back: its job was taken out meanwhile, so nobody wants it.
    pub(super) fn publish(&mut self, image: Shared<Image<P>>) -> Result<Removed<P>, Shared<Image<P>>> {
        let id = image.id();
        let old = self.entries.iter().position(|entry| {
            entry.id != id
                && matches!(entry.state, State::Staged(_))
                && same_name(entry.key.name.units(), image.name(), P::upcase)
        });
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else {
            return Err(image);
        };
        let job = core::mem::replace(&mut entry.state, State::Staged(image));
        let old = old.and_then(|index| self.entries.swap_remove(index));
        Ok(Removed { _job: job, _old: old })
    }

    /// Takes out the entry `id`, because its job failed.
    pub(super) fn remove(&mut self, id: ImageId) -> Option<Entry<P>> {
        let index = self.entries.iter().position(|entry| entry.id == id)?;
        self.entries.swap_remove(index)
    }

    /// Hands out an image. [`Error::ImageNotFound`] (`STATUS_NOT_FOUND`).
    pub(super) fn hand_out(&self, which: Which<'_>) -> Result<HandedOut<P>, Error> {
        if self.closed {
            return Err(Error::SessionEnded);
        }
        self.staged().find(|image| is_meant(which, image)).map(HandedOut::new).ok_or(Error::ImageNotFound)
    }

    /// Hands out an image that its stager still refers to, be it staged any more or not. [`Error::SessionEnded`] after
    /// [`close`](Self::close).
    pub(super) fn hand_out_image(&self, image: &Shared<Image<P>>) -> Result<HandedOut<P>, Error> {
        if self.closed { Err(Error::SessionEnded) } else { Ok(HandedOut::new(image)) }
    }

    /// Hands out the image that a driver means by `bare`: of the best rank ([`SearchPath::rank`]), a complete one before one
    /// that is being made. [`Error::SessionEnded`] after [`close`](Self::close).
    #[inline(never)] // for the sake of the stack, see `Images`
    pub(super) fn hand_out_named(&self, path: &SearchPath, bare: BareName<'_>) -> Result<Named<P>, Error> {
        if self.closed {
            return Err(Error::SessionEnded);
        }
        let fitting = self.entries.iter().filter_map(|entry| {
            let rank = path.rank(entry.key.name.units(), bare, P::upcase)?;
            Some(((rank, matches!(entry.state, State::UnderWay(_)), entry.id), entry))
        });
        Ok(match fitting.min_by_key(|(order, _)| *order).map(|(_, entry)| &entry.state) {
            Some(State::Staged(image)) => Named::Staged(HandedOut::new(image)),
            Some(State::UnderWay(_)) => Named::UnderWay,
            None => Named::Nothing,
        })
    }

    /// Takes an image out. [`Error::ImageNotFound`] (`STATUS_NOT_FOUND`), [`Error::ImageInUse`] (`STATUS_DEVICE_BUSY`).
    pub(super) fn unstage(&mut self, which: Which<'_>, in_use: Unstage) -> Result<Shared<Image<P>>, Error> {
        let image = self.staged().find(|image| is_meant(which, image)).ok_or(Error::ImageNotFound)?.clone();
        if in_use == Unstage::Refuse && image.holders() > 0 {
            return Err(Error::ImageInUse);
        }
        // The clone above keeps the image alive, so the entry's own reference is not the last.
        self.remove(image.id());
        Ok(image)
    }

    /// The entry with the smallest number above `cursor`.
    pub(super) fn next(&self, cursor: ImageId) -> Option<Listed<P>> {
        let entry = self.entries.iter().filter(|entry| entry.id > cursor).min_by_key(|entry| entry.id)?;
        let state = match &entry.state {
            State::UnderWay(job) => ListedState::UnderWay(job.clone()),
            State::Staged(image) => ListedState::Staged(image.clone()),
        };
        Some(Listed { id: entry.id, name: entry.key.name.clone(), size: entry.key.identity.size, state })
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many hold images that are still staged.
    pub(super) fn holders(&self) -> u64 {
        self.staged().fold(0, |sum, image| sum.saturating_add(u64::from(image.holders())))
    }

    /// Refuses everything from now on, and tells jobs to stop.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for entry in self.entries.iter() {
            if let State::UnderWay(job) = &entry.state {
                job.cancel();
            }
        }
    }

    fn staged(&self) -> impl Iterator<Item = &Shared<Image<P>>> {
        self.entries.iter().filter_map(|entry| match &entry.state {
            State::Staged(image) => Some(image),
            State::UnderWay(_) => None,
        })
    }
}

/// What a publication has replaced; only to be dropped, without the lock.
pub(super) struct Removed<P: Platform> {
    _job: State<P>,
    _old: Option<Entry<P>>,
}

impl<P: Platform> Entry<P> {
    fn is_same_file(&self, key: &Key) -> bool {
        self.key.identity == key.identity && same_name(self.key.name.units(), key.name.units(), P::upcase)
    }
}

fn is_meant<P: Platform>(which: Which<'_>, image: &Image<P>) -> bool {
    match which {
        Which::Id(id) => image.id() == id,
        Which::Name(name) => same_name(image.name(), name, P::upcase),
    }
}
