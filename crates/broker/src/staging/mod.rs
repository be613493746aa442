//! Staging: from an open file to an immutable image that drivers can have.
//!
//! ```text
//!  caller's thread                                  registry (Images)
//!  open, facts ──▶ Images::stage ──▶ staged already? ──────────────▶ that image
//!                                ├─▶ under way?      ──▶ wait for it ▶ the same result
//!                                └─▶ lead: read + hash in chunks, verify, seal, publish
//! ```
//!
//! An image is keyed by the file's normalised name and its identity (volume, file, change time, size); a request joins
//! another one only if both also demand the same digest and the same memory. What callers can rely on:
//!
//! - *One read*: of several requests for one file, one reads; the others get its result, be it an image or a failure. Only a leader
//!   that was cancelled or ran out of time decides for itself alone: another takes the lead.
//! - *One memory*: equal bytes under several names lie in memory once.
//! - *Nothing changes under a holder*: publishing a new file under a name, or unstaging, takes the old image out of the
//!   registry; whoever holds it keeps it.
//! - *Paid before allocated*: the total and the owner's quota are charged first, and given back when the memory is freed.
//! - *Every wait has a deadline*, and every chunk looks for cancellation.
//!
//! Everything here runs at `PASSIVE_LEVEL`, since images are freed there, unless a function says otherwise.

mod consumers;
mod image;
mod images;
mod job;
mod owners;
mod read;
mod registry;

#[cfg(test)]
mod tests;

pub use consumers::{Consumer, MAX_CONSUMER_UNITS};
pub use image::{HandedOut, Image, ImageId};
pub use images::{Images, StageRequest, Staged};
pub use job::{Failure, Job, Progress};
pub use owners::OwnerId;
pub use registry::{Listed, ListedState, Named, Unstage, Unstaged, Which};

/// A SHA-256 value.
pub type Sha256 = [u8; 32];

pub use protocol::{Phase, Policy};
