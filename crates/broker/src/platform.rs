//! What the driver supplies: the few services that the decisions in this crate cannot do without.

use crate::{Error, LockContext};

/// A moment: 100-nanosecond intervals since boot (`KeQueryInterruptTime`), unaffected by changes of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// A deadline that never passes; for callers that another deadline binds already.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `milliseconds` later; [`NEVER`](Self::NEVER) where that cannot be counted.
    #[must_use]
    pub const fn after_milliseconds(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds.saturating_mul(10_000)))
    }
}

/// The kernel as [`staging`](crate::staging) sees it. The driver has one type that implements it; tests have another.
pub trait Platform: Sized + 'static {
    /// How our locks raise the IRQL.
    type Irql: LockContext;
    /// Where images lie once they are complete.
    type Memory: ImageMemory;
    /// What waits for somebody else's job.
    type Completion: Completion;

    /// The current time. Callable at any IRQL.
    fn now() -> Time;

    /// The upper-case form of a UTF-16 unit (`RtlUpcaseUnicodeChar`). Callable at IRQL <= `DISPATCH_LEVEL`.
    fn upcase(unit: u16) -> u16;
}

/// An event that stays signalled (a `NotificationEvent` in the driver).
pub trait Completion: Send + Sync {
    /// Wakes everybody who waits, now and later. Callable at IRQL <= `DISPATCH_LEVEL`.
    fn signal(&self);

    /// Waits until signalled or until `deadline`; whether it was signalled. `PASSIVE_LEVEL`.
    ///
    /// May return early without a signal; callers look again.
    fn wait(&self, deadline: Time) -> bool;
}

/// An open file, as a staging job reads it. The driver has checked the caller's access to it before.
pub trait Source {
    /// Reads at `offset` (bytes) into `buffer`; how many bytes were read, at most the buffer's length, and
    /// zero only at the end of the file. `PASSIVE_LEVEL`.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error>;

    /// What the file is now. Asked before the first byte is read and after the last. `PASSIVE_LEVEL`.
    fn facts(&mut self) -> Result<crate::FileFacts, Error>;
}

/// Makes the memory that an image is read into.
pub trait ImageAllocator<M: ImageMemory> {
    /// Memory that can still be written.
    type Writable: WritableMemory<Sealed = M>;

    /// Allocates exactly `size` bytes (never zero), all below `highest_address`, a physical address, inclusive.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) where there is none. `PASSIVE_LEVEL`.
    fn allocate(&mut self, size: usize, highest_address: u64) -> Result<Self::Writable, Error>;
}

/// Memory that an image is being read into. Freed on drop, at `PASSIVE_LEVEL`.
pub trait WritableMemory {
    /// What [`seal`](Self::seal) makes of it.
    type Sealed: ImageMemory;

    /// The bytes, as many as were asked for.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Takes away every writable mapping; from here on nobody can change the bytes. `PASSIVE_LEVEL`.
    fn seal(self) -> Result<Self::Sealed, Error>;
}

/// The memory of a complete image, read-only and not executable. Freed on drop, at `PASSIVE_LEVEL`.
pub trait ImageMemory: Send + Sync {
    /// The image.
    fn bytes(&self) -> &[u8];
}
