//! Driver packages: reads a driver's `.inf` (or `.inx`) and writes what installing it would write.
//!
//! The settings that a driver finds in the registry come from the file that its users install, not from a test's own
//! idea of them: a wrong section name or a missing `Instances` key shows up here as it would on Windows.
//! What has no meaning without Windows (file copies, catalogues, class installers) is read and passed over.

mod file;
mod install;
mod registry;

pub use file::{Inf, InfError};
pub use install::{Installed, Package, create, install};
