//! Services of the kernel, each behind a type that makes its rules hard to break.

pub(crate) mod event;
pub(crate) mod heap;
pub(crate) mod irql;
pub(crate) mod log;
pub(crate) mod numbered;
pub(crate) mod pages;
pub(crate) mod platform;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod registry;
pub(crate) mod time;
pub(crate) mod upcase;
pub(crate) mod user_memory;

mod guarded_copy;
mod imports;
