//! Firmware files: finding, opening and reading them.

mod file;
mod open;
mod roots;

pub(crate) use file::File;
pub(crate) use open::{open_device_name, open_nt_path};
pub(crate) use roots::{Roots, normalized_name};
