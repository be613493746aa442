//! The registry of images, as the driver uses it.

use super::consumers::Consumer;
use super::image::Memory;
use super::job::Outcome;
use super::owners::{Owners, Payment};
use super::read::read_and_hash;
use super::registry::{Found, Key, Registry};
use super::{
    Failure, HandedOut, Image, ImageId, Job, Listed, Named, OwnerId, Phase, Policy, Sha256, Unstage, Unstaged, Which,
};
use crate::policy::{BareName, DeviceName, SearchPath};
use crate::{
    Budget, Error, FileFacts, ImageAllocator, IrqlLock, Limits, Name, Platform, Shared, Source, WritableMemory,
};

/// All images that are staged, and the jobs that make them. One per driver.
pub struct Images<P: Platform> {
    limits: Limits,
    policy: Policy,
    total: Shared<Budget>,
    registry: IrqlLock<Registry<P>, P::Irql>,
    owners: IrqlLock<Owners, P::Irql>,
}

/// What is to be staged.
#[derive(Debug, Clone, Copy)]
pub struct StageRequest<'a> {
    /// The normalised name of the open file, already found to lie under an allowed root.
    pub name: DeviceName<'a>,
    /// On whose account.
    pub owner: OwnerId,
    /// The SHA-256 that the file has to have. Checked whenever it is given, demanded under [`Policy::Digest`].
    pub expected: Option<Sha256>,
    /// The highest physical address that the image may have, inclusive.
    pub highest_address: u64,
}

/// A staged image, and how the request came to it.
pub struct Staged<P: Platform> {
    /// The image. The reference keeps its memory, but is not counted as a holder.
    pub image: Shared<Image<P>>,
    /// Whether the request read no byte itself, or its bytes were in memory already.
    pub shared: bool,
}

impl<P: Platform> Images<P> {
    /// An empty registry.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`): room for all entries that `limits` allow is taken here.
    pub fn try_new(limits: Limits, policy: Policy) -> Result<Self, Error> {
        let capacity = limits.images as usize;
        Ok(Self {
            limits,
            policy,
            total: Shared::try_new(Budget::new(limits.total_bytes))?,
            registry: IrqlLock::new(Registry::try_new(capacity)?),
            owners: IrqlLock::new(Owners::try_new(capacity)?),
        })
    }

    /// Stages the file behind `source`, or finds that this has been or is being done. `PASSIVE_LEVEL`.
    ///
    /// Returns no later than one read of the source after the job's deadline or cancellation. `chunk` is the buffer for
    /// reads; its length is how much is read at a time.
    ///
    /// Errors: those of [`FileFacts::check`]; [`Error::DigestRequired`], [`Error::DigestMismatch`],
    /// [`Error::SignedUnsupported`]; [`Error::TooManyImages`], [`Error::TotalBytes`], [`Error::OwnerBytes`];
    /// [`Error::FileChanged`]; [`Error::Cancelled`], [`Error::TimedOut`]; [`Error::SessionEnded`] after
    /// [`close`](Self::close); and whatever the source and the allocator return.
    #[inline(never)]
    pub fn stage<S: Source, A: ImageAllocator<P::Memory>>(
        &self,
        request: &StageRequest<'_>,
        job: &Shared<Job<P>>,
        source: &mut S,
        allocator: &mut A,
        chunk: &mut [u8],
    ) -> Result<Staged<P>, Failure> {
        let key = self.admit(request, job, source).map_err(|error| job.failure(error))?;
        loop {
            job.check().map_err(|error| job.failure(error))?;
            // Not matched upon directly: the lock would be held through the arms.
            let found = self.registry.lock().find_or_lead(&key, job);
            match found.map_err(|error| job.failure(error))? {
                Found::Staged(image) => return finished(job, &key, image),
                Found::UnderWay(leader) => {
                    match job.wait_for(&leader).map_err(|error| job.failure(error))? {
                        Ok(image) => return finished(job, &key, image),
                        // The leader's own affair: somebody else may lead.
                        Err(Failure { error: Error::Cancelled | Error::TimedOut, .. }) => {}
                        Err(failure) => {
                            job.failure(failure.error);
                            return Err(failure);
                        }
                    }
                }
                Found::Lead(id) => {
                    return self.lead(id, &key, request.owner, job, source, allocator, chunk);
                }
            }
        }
    }

    /// Gives an image to `consumer` (at most [`MAX_CONSUMER_UNITS`](super::MAX_CONSUMER_UNITS)), which keeps it until it
    /// drops the result. `PASSIVE_LEVEL`.
    ///
    /// [`Error::ImageNotFound`] (`STATUS_NOT_FOUND`), [`Error::ConsumerName`] (`STATUS_INVALID_PARAMETER`).
    #[inline(never)]
    pub fn open(&self, which: Which<'_>, consumer: &[u16]) -> Result<HandedOut<P>, Error> {
        let consumer = Consumer::new(consumer)?;
        let mut handed_out = self.registry.lock().hand_out(which)?;
        handed_out.record(&consumer);
        Ok(handed_out)
    }

    /// As [`open`](Self::open), for who has just staged the image: it is given out even if somebody has unstaged or
    /// replaced it since, which was after all verified for this request. `PASSIVE_LEVEL`.
    ///
    /// [`Error::ConsumerName`], [`Error::SessionEnded`].
    #[inline(never)]
    pub fn open_image(&self, image: &Shared<Image<P>>, consumer: &[u16]) -> Result<HandedOut<P>, Error> {
        let consumer = Consumer::new(consumer)?;
        let mut handed_out = self.registry.lock().hand_out_image(image)?;
        handed_out.record(&consumer);
        Ok(handed_out)
    }

    /// As [`open`](Self::open), by a name without a place. Found and handed out in one step: an image that is replaced or
    /// unstaged meanwhile is either still given out or not found, never lost in between. `PASSIVE_LEVEL`.
    ///
    /// `name` has to be known to the platform's [`upcase`](Platform::upcase). [`Error::ConsumerName`], [`Error::SessionEnded`].
    #[inline(never)]
    pub fn open_named(&self, path: &SearchPath, name: BareName<'_>, consumer: &[u16]) -> Result<Named<P>, Error> {
        let consumer = Consumer::new(consumer)?;
        let mut named = self.registry.lock().hand_out_named(path, name)?;
        if let Named::Staged(handed_out) = &mut named {
            handed_out.record(&consumer);
        }
        Ok(named)
    }

    /// Takes an image away from newcomers. `PASSIVE_LEVEL`.
    ///
    /// [`Error::ImageNotFound`] (`STATUS_NOT_FOUND`); [`Error::ImageInUse`] (`STATUS_DEVICE_BUSY`) with [`Unstage::Refuse`].
    pub fn unstage(&self, which: Which<'_>, in_use: Unstage) -> Result<Unstaged, Error> {
        let image = self.registry.lock().unstage(which, in_use)?;
        Ok(Unstaged { id: image.id(), size: image.size(), holders: image.holders() })
    }

    /// The entry after `cursor` (`ImageId(0)` first, then [`Listed::id`]). Nothing stops meanwhile: what is staged throughout
    /// is listed once, what comes and goes may be missing. `PASSIVE_LEVEL`.
    pub fn next(&self, cursor: ImageId) -> Option<Listed<P>> {
        self.registry.lock().next(cursor)
    }

    /// How many images are staged, jobs under way included.
    pub fn len(&self) -> usize {
        self.registry.lock().len()
    }

    /// Whether nothing is staged or being staged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many hold images that are staged: while it is not zero the driver refuses to unload.
    pub fn holders(&self) -> u64 {
        self.registry.lock().holders()
    }

    /// How many bytes of memory images use, those included that are no longer staged but still held.
    pub fn used_bytes(&self) -> u64 {
        self.total.used()
    }

    /// Refuses further requests, cancels the jobs under way, and takes out every image nobody holds, for unload. `PASSIVE_LEVEL`.
    /// The driver has waited for its requests when [`is_empty`](Self::is_empty).
    pub fn close(&self) {
        self.registry.lock().close();
        let mut cursor = ImageId(0);
        while let Some(listed) = self.next(cursor) {
            cursor = listed.id;
            // Jobs are not found and take themselves out; held images stay, so that `holders` goes on counting them.
            let _ = self.unstage(Which::Id(listed.id), Unstage::Refuse);
        }
    }

    // `stage` and its steps stay out of line: inlined into each other, and into a callback of the driver, their locals
    // would add up to a frame that is too large for a kernel stack.

    /// What can be said before anything is read.
    #[inline(never)]
    fn admit(&self, request: &StageRequest<'_>, job: &Job<P>, source: &mut impl Source) -> Result<Key, Error> {
        match self.policy {
            Policy::Signed => return Err(Error::SignedUnsupported),
            Policy::Digest if request.expected.is_none() => return Err(Error::DigestRequired),
            Policy::Digest | Policy::Unsigned => {}
        }
        let facts = self.facts(source)?;
        job.set_total(facts.identity.size);
        Ok(Key {
            name: Shared::try_new(Name::try_new(request.name.units())?)?,
            identity: facts.identity,
            expected: request.expected,
            highest_address: request.highest_address,
        })
    }

    fn facts(&self, source: &mut impl Source) -> Result<FileFacts, Error> {
        let facts = source.facts()?;
        facts.check(&self.limits)?;
        Ok(facts)
    }

    /// Makes the image, publishes it or takes the entry out, and tells those who wait.
    #[expect(clippy::too_many_arguments, reason = "called once; the parameters are those of `stage`, and the lead")]
    #[inline(never)]
    fn lead<S: Source, A: ImageAllocator<P::Memory>>(
        &self,
        id: ImageId,
        key: &Key,
        owner: OwnerId,
        job: &Shared<Job<P>>,
        source: &mut S,
        allocator: &mut A,
        chunk: &mut [u8],
    ) -> Result<Staged<P>, Failure> {
        let made = self
            .make(key, owner, job, source, allocator, chunk)
            .and_then(|(sha256, memory)| self.publish(id, key, owner, sha256, &memory));
        let outcome: Outcome<P> = match &made {
            Ok(staged) => {
                job.advance(Phase::Ready, staged.image.size());
                Ok(staged.image.clone())
            }
            Err(error) => {
                // Before those who wait are woken: they must not find this job again.
                drop(self.take_out(id));
                Err(job.failure(*error))
            }
        };
        job.finish(outcome.clone());
        match (made, outcome) {
            (_, Err(failure)) => Err(failure),
            (Ok(staged), Ok(_)) => Ok(staged),
            (Err(error), Ok(_)) => Err(job.failure(error)),
        }
    }

    /// Reads and verifies.
    #[inline(never)]
    fn make<S: Source, A: ImageAllocator<P::Memory>>(
        &self,
        key: &Key,
        owner: OwnerId,
        job: &Job<P>,
        source: &mut S,
        allocator: &mut A,
        chunk: &mut [u8],
    ) -> Result<(Sha256, Shared<Memory<P>>), Error> {
        let size = usize::try_from(key.identity.size).map_err(|_| Error::FileTooLarge)?;
        job.advance(Phase::Allocating, 0);
        let fresh = Shared::try_new(Budget::new(self.limits.owner_bytes))?;
        let owner = self.owners.lock().budget(owner, fresh)?;
        let payment = Payment::charge(&self.total, &owner, key.identity.size)?;
        let mut writable = allocator.allocate(size, key.highest_address)?;
        if writable.bytes_mut().len() != size {
            return Err(Error::OutOfMemory);
        }
        let sha256 = read_and_hash(job, source, &mut writable, chunk)?;
        job.advance(Phase::Verifying, key.identity.size);
        // Asked again: nobody may have changed the file, or be able to, since the first byte was read.
        if self.facts(source)?.identity != key.identity {
            return Err(Error::FileChanged);
        }
        check_digest(key, &sha256)?;
        job.check()?;
        let memory = Memory::new(writable.seal()?, key.highest_address, payment);
        Ok((sha256, Shared::try_new(memory)?))
    }

    /// Makes the image known, with the memory of an equal one if there is one.
    #[inline(never)]
    fn publish(
        &self,
        id: ImageId,
        key: &Key,
        owner: OwnerId,
        sha256: Sha256,
        memory: &Shared<Memory<P>>,
    ) -> Result<Staged<P>, Error> {
        let size = key.identity.size;
        let find_twin = || self.registry.lock().find_twin(size, &sha256, key.highest_address);
        let mut twin = find_twin();
        loop {
            let shared = twin.is_some();
            let memory = twin.take().unwrap_or_else(|| memory.clone());
            let image = Image::try_new(id, key.name.clone(), key.identity, owner, sha256, memory)?;
            let mut registry = self.registry.lock();
            if !shared {
                // Two jobs may have read equal files at the same time; the second to publish sees the first.
                twin = registry.find_twin(size, &sha256, key.highest_address);
                if twin.is_some() {
                    continue;
                }
            }
            let published = registry.publish(image.clone());
            drop(registry);
            // The replaced image goes here, without the lock.
            return match published {
                Ok(_) => Ok(Staged { image, shared }),
                Err(_) => Err(Error::Cancelled),
            };
        }
    }

    fn take_out(&self, id: ImageId) -> Option<super::registry::Entry<P>> {
        self.registry.lock().remove(id)
    }
}

/// The end of a request that found its image made by another.
fn finished<P: Platform>(job: &Job<P>, key: &Key, image: Shared<Image<P>>) -> Result<Staged<P>, Failure> {
    check_digest(key, image.sha256()).map_err(|error| job.failure(error))?;
    job.advance(Phase::Ready, image.size());
    Ok(Staged { image, shared: true })
}

/// Whether the image is the one that was expected, if any was.
fn check_digest(key: &Key, sha256: &Sha256) -> Result<(), Error> {
    // Digests are no secrets, so an ordinary comparison will do.
    if key.expected.is_none_or(|expected| expected == *sha256) { Ok(()) } else { Err(Error::DigestMismatch) }
}
