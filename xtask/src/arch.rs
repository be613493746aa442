//! Processor architectures that a driver can be built for, under the names that each tool gives them.

use anyhow::{Result, bail};
use clap::ValueEnum;

/// An architecture that `--arch` accepts.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// AMD64: the drivers that are built, run and tested here.
    X64,
    /// ARM64: accepted so that the answer can be better than "invalid value".
    Arm64,
}

/// One architecture as Rust, the kit, INF files and import libraries call it.
pub(crate) struct Names {
    /// Rust's target triple.
    pub(crate) triple: &'static str,
    /// Folder name in the kit and below `target/driver/`.
    pub(crate) kit: &'static str,
    /// What `$ARCH$` of an .inx file becomes.
    pub(crate) inf: &'static str,
    /// Machine type of import libraries.
    pub(crate) machine: implib::MachineType,
}

const X64: Names =
    Names { triple: "x86_64-pc-windows-msvc", kit: "x64", inf: "amd64", machine: implib::MachineType::AMD64 };

/// Every architecture that is built; the kit and the toolchain are set up for all of them.
pub(crate) const BUILT: [&Names; 1] = [&X64];

impl Arch {
    /// The names of this architecture.
    ///
    /// # Errors
    /// ARM64 cannot be built yet: mingw's DDK headers stop with `#error` for it, and with that overlaid wdk-sys still
    /// fails its layout assertions.
    pub(crate) fn names(self) -> Result<&'static Names> {
        match self {
            Self::X64 => Ok(&X64),
            Self::Arm64 => bail!(
                "ARM64 drivers cannot be built on Linux yet: the kernel headers used here have no ARM64 layouts.\n\
                 Build for x64 (`cargo xtask driver --arch x64`), or build ARM64 on Windows with `cargo make`."
            ),
        }
    }
}
