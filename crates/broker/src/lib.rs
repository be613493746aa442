//! The core of fwbroker, without a single call into the operating system.
//!
//! `driver/` opens files, answers port messages and talks to NIC drivers; whatever has to be
//! *decided* on the way is decided here, where it can be tested on any host, under Miri, and with
//! as many threads as one likes:
//!
//! - [`HandleTable`]: the one table behind every handle that fwbroker gives out;
//! - [`Session`]: who asked, what they may still use up, and whether they are still there;
//! - [`policy`]: which names denote a firmware file at all;
//! - [`staging`]: reading, hashing, verifying and publishing an image, once for all who want it;
//! - [`Limits`] and [`FileFacts`]: numbers and properties that a file has to satisfy;
//! - [`Error`]: everything that can go wrong, with its `NTSTATUS` and its reason code.
//!
//! # Rules of this crate
//!
//! *No allocation that cannot fail.* `alloc`'s collections are used through `try_reserve` only, and
//! reference counting through [`Shared`], since `Arc::new` aborts when memory is short.
//!
//! *No reachable panic.* A panic in a kernel is a bug check; clippy's lints below keep indexing,
//! unwrapping and overflowing arithmetic out of everything but the tests.
//!
//! *No waiting under a lock.* [`IrqlLock`] raises the IRQL, so nothing inside may block, page or call out.
//!
//! *Unsafe code where a kernel leaves no choice*: the storage of the handle table (`slot`, `slab`, `segments`, `tickets`),
//! [`Shared`], and `fixed_vec`, a vector without panics. Each says what it relies on; the rest has none.

#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod atomics;
mod barriers;
mod budget;
mod entry_ids;
mod error;
mod facts;
mod fixed_vec;
mod handle;
mod handle_key;
mod handle_table;
#[cfg(all(test, not(loom)))]
mod handle_table_tests;
mod lanes;
#[cfg(all(test, not(loom)))]
mod lanes_tests;
mod limits;
mod lock;
#[cfg(all(test, loom))]
mod loom_tests;
mod name;
mod once;
mod owner;
mod pinned;
mod platform;
mod reaper;
mod revocations;
#[cfg(all(test, loom))]
mod revoke_loom_tests;
#[cfg(all(test, not(loom)))]
mod revoke_tests;
mod segments;
mod session;
mod shared;
mod slab;
mod slot;
mod tickets;
mod vacancies;

pub mod policy;
pub mod staging;

#[cfg(test)]
mod testing;

pub use barriers::Barriers;
pub use budget::{Budget, Charge};
pub use entry_ids::EntryIds;
pub use error::Error;
pub use facts::{FileFacts, FileIdentity};
pub use handle::{Handle, Kind};
pub use handle_key::HandleKey;
pub use handle_table::{HandleTable, Reservation};
pub use limits::{Limits, SessionLimits};
pub use lock::{IrqlGuard, IrqlLock, LockContext};
pub use name::Name;
pub use owner::{Owner, Role};
pub use pinned::Pinned;
pub use platform::{Completion, ImageAllocator, ImageMemory, Platform, Source, Time, WritableMemory};
pub use reaper::{Closed, Entry, Reaper};
pub use session::{Request, Session, SessionId};
pub use shared::Shared;
