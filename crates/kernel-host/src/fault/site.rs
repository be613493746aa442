//! Where a fault can be injected.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use super::Failure;
use crate::ddi::CallSite;

/// Which site: a number that is the same in every run of the same drivers. Written as in `KERNEL_HOST_FAULTS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SiteId(u64);

impl SiteId {
    /// The site at `place` that `times` others there came before.
    pub(super) fn new(place: u64, times: u32) -> Self {
        // 48 bits: short enough to be typed, and for a few thousand sites two that are alike are not to be expected.
        Self(hash_of((place, times)) >> 16)
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl FromStr for SiteId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text.trim(), 16).map(Self)
    }
}

/// One way in which one call can fail.
#[derive(Clone, Debug)]
pub struct Site {
    /// Which one it is.
    pub id: SiteId,
    /// Image name of the driver that has to cope.
    pub driver: String,
    /// The call that fails, or the callback whose buffers vanish.
    pub call: &'static str,
    /// How it fails.
    pub failure: String,
    /// Offset in the image to which the call returns; 0 for a callback.
    pub offset: usize,
    /// The driver's stack as `image!symbol+0xoffset`; empty where nobody asked for it.
    pub stack: Vec<String>,
}

impl Site {
    pub(super) fn of_call(id: SiteId, call: &CallSite, failure: Failure, with_stack: bool) -> Self {
        let module = crate::image::find(call.return_address);
        Self {
            id,
            driver: call.driver.name.clone(),
            call: call.export.name,
            failure: failure.to_string(),
            offset: module.map_or(0, |module| call.return_address.wrapping_sub(module.base())),
            stack: if with_stack { call.stack() } else { Vec::new() },
        }
    }

    pub(super) fn of_callback(id: SiteId, driver: &str, callback: &'static str, what: &str) -> Self {
        Self { id, driver: driver.to_owned(), call: callback, failure: what.to_owned(), offset: 0, stack: Vec::new() }
    }
}

/// Where a call is made, wherever the drivers' images lie, and how it fails there.
pub(super) fn place_of_call(call: &CallSite, failure: Failure) -> u64 {
    let mut hasher = DefaultHasher::new();
    (call.driver.name.as_str(), call.export.name, failure.to_string()).hash(&mut hasher);
    for address in call.return_addresses() {
        let image = crate::image::find(address);
        image.map_or(address, |image| address.wrapping_sub(image.base())).hash(&mut hasher);
    }
    hasher.finish()
}

/// Where something else than a call fails.
pub(super) fn place_of_callback(driver: &str, callback: &str, what: &str) -> u64 {
    hash_of((driver, callback, what))
}

fn hash_of(value: impl Hash) -> u64 {
    // Without random keys: the same in every process.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, from ", self.call, self.failure)?;
        match self.stack.as_slice() {
            [] if self.offset == 0 => write!(f, "{}", self.driver),
            [] => write!(f, "{}+{:#x}", self.driver, self.offset),
            // The innermost frames are the driver's allocator; who asked it is further out.
            frames => write!(f, "{}", frames.iter().take(6).map(String::as_str).collect::<Vec<_>>().join(" < ")),
        }
    }
}
