//! Complete images.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Sha256;
use super::consumers::{Consumer, Consumers};
use super::owners::{OwnerId, Payment};
use crate::{Error, FileIdentity, ImageMemory, IrqlLock, Name, Platform, Shared};

/// An image as it was verified; nothing about it changes any more, but for who has it.
///
/// Dropped, and its memory freed, at `PASSIVE_LEVEL`.
pub struct Image<P: Platform> {
    id: ImageId,
    name: Shared<Name>,
    identity: FileIdentity,
    owner: OwnerId,
    sha256: Sha256,
    memory: Shared<Memory<P>>,
    holders: AtomicU32,
    consumers: IrqlLock<Consumers, P::Irql>,
}

/// Names an image; never zero, never given out twice in a boot, ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub u64);

/// The memory of one or several images with the same bytes.
pub(super) struct Memory<P: Platform> {
    // Before the payment: what is given back has to be free.
    sealed: P::Memory,
    highest_address: u64,
    _payment: Payment,
}

/// An image in somebody's hands. As long as it lives the image cannot be unstaged without deferring.
///
/// Dropped at `PASSIVE_LEVEL`: it may be the last reference to the memory.
pub struct HandedOut<P: Platform> {
    image: Shared<Image<P>>,
    record: Option<usize>,
}

impl<P: Platform> Memory<P> {
    pub(super) const fn new(sealed: P::Memory, highest_address: u64, payment: Payment) -> Self {
        Self { sealed, highest_address, _payment: payment }
    }
}

impl<P: Platform> Image<P> {
    pub(super) fn try_new(
        id: ImageId,
        name: Shared<Name>,
        identity: FileIdentity,
        owner: OwnerId,
        sha256: Sha256,
        memory: Shared<Memory<P>>,
    ) -> Result<Shared<Self>, Error> {
        let consumers = IrqlLock::new(Consumers::try_new()?);
        Shared::try_new(Self { id, name, identity, owner, sha256, memory, holders: AtomicU32::new(0), consumers })
    }

    /// The image's number.
    #[must_use]
    pub const fn id(&self) -> ImageId {
        self.id
    }

    /// The normalised name of the file that it was read from.
    #[must_use]
    pub fn name(&self) -> &[u16] {
        self.name.units()
    }

    /// Which version of the file it was read from.
    #[must_use]
    pub const fn identity(&self) -> &FileIdentity {
        &self.identity
    }

    /// On whose account it is staged.
    #[must_use]
    pub const fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.identity.size
    }

    /// The SHA-256 of its bytes.
    #[must_use]
    pub const fn sha256(&self) -> &Sha256 {
        &self.sha256
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.memory.sealed.bytes()
    }

    /// The platform's memory object, for what the driver knows to do with it beyond reading (an MDL).
    #[must_use]
    pub fn memory(&self) -> &P::Memory {
        &self.memory.sealed
    }

    /// The highest physical address that its memory was allocated under, inclusive.
    #[must_use]
    pub fn highest_address(&self) -> u64 {
        self.memory.highest_address
    }

    /// Whether its memory is that of another image too, at this moment.
    #[must_use]
    pub fn shares_memory(&self) -> bool {
        Shared::count(&self.memory) > 1
    }

    /// How many hold it.
    #[must_use]
    pub fn holders(&self) -> u32 {
        self.holders.load(Ordering::Acquire)
    }

    /// Consumer number `index` of those that are remembered, from zero on; not in any order.
    #[must_use]
    pub fn consumer(&self, index: usize) -> Option<Consumer> {
        self.consumers.lock().get(index)
    }

    /// Who was given the image last.
    #[must_use]
    pub fn last_consumer(&self) -> Option<Consumer> {
        self.consumers.lock().last()
    }

    pub(super) fn memory_shared(&self) -> &Shared<Memory<P>> {
        &self.memory
    }
}

impl<P: Platform> HandedOut<P> {
    /// Counts a holder. Called under the registry's lock, so that unstaging sees either the holder or no image.
    pub(super) fn new(image: &Shared<Image<P>>) -> Self {
        image.holders.fetch_add(1, Ordering::AcqRel);
        Self { image: image.clone(), record: None }
    }

    /// Remembers who it is. Called once, without any lock.
    #[inline(never)] // a record is copied: not in the frame of whoever opens
    pub(super) fn record(&mut self, consumer: &Consumer) {
        self.record = self.image.consumers.lock().opened(consumer);
    }

    /// The image.
    #[must_use]
    pub const fn image(&self) -> &Shared<Image<P>> {
        &self.image
    }
}

impl<P: Platform> core::ops::Deref for HandedOut<P> {
    type Target = Image<P>;

    fn deref(&self) -> &Image<P> {
        &self.image
    }
}

impl<P: Platform> Drop for HandedOut<P> {
    fn drop(&mut self) {
        if let Some(record) = self.record {
            self.image.consumers.lock().closed(record);
        }
        self.image.holders.fetch_sub(1, Ordering::AcqRel);
    }
}
