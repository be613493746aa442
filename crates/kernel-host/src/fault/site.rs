//! Where a fault can be injected.

use std::fmt;

use super::Failure;
use crate::ddi::CallSite;

/// One way in which one call can fail.
///
/// Two sites are the same when the same call of the same driver fails in the same way, wherever the image lies.
#[derive(Clone, Debug)]
pub struct Site {
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
    pub(super) fn of_call(call: &CallSite, failure: Failure, with_stack: bool) -> Self {
        let module = crate::image::find(call.return_address);
        Self {
            driver: call.driver.name.clone(),
            call: call.export.name,
            failure: failure.to_string(),
            offset: module.map_or(0, |module| call.return_address.wrapping_sub(module.base())),
            stack: if with_stack { call.stack() } else { Vec::new() },
        }
    }

    pub(super) fn of_callback(driver: &str, callback: &'static str, what: &str) -> Self {
        Self { driver: driver.to_owned(), call: callback, failure: what.to_owned(), offset: 0, stack: Vec::new() }
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        let key = |site: &Self| (site.call, site.offset);
        key(self) == key(other) && self.driver == other.driver && self.failure == other.failure
    }
}

impl Eq for Site {}

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
