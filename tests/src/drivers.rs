//! Where the release drivers are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Folder with `fwbroker.sys`, `samplenic.sys`, `passthru.sys` and what belongs to them.
///
/// `cargo xtask test` names it in `FWBROKER_DRIVER_DIR`; a plain `cargo test` looks where `cargo xtask driver` puts them.
///
/// # Errors
/// Without all drivers there is nothing to test; the message says how to build them. The drivers are not built from
/// here: a test that compiles for a minute looks like one that hangs.
pub fn driver_dir() -> Result<PathBuf> {
    let folder = env::var_os("FWBROKER_DRIVER_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/driver/x64"), PathBuf::from);
    for driver in ["fwbroker.sys", "samplenic.sys", "passthru.sys"] {
        if !folder.join(driver).is_file() {
            bail!("{driver} is not in {}; build the drivers with: cargo xtask driver", folder.display());
        }
    }
    Ok(folder)
}

/// Folder with the drivers of `tests/drivers`: three models and the mutants.
///
/// `cargo xtask test` names it in `FWBROKER_C_DRIVER_DIR`; a plain `cargo test` looks where `cargo xtask c-drivers` puts them.
///
/// # Errors
/// Without them there is nothing to test; the message says how to build them.
pub fn c_driver_dir() -> Result<PathBuf> {
    let folder = env::var_os("FWBROKER_C_DRIVER_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/driver-c"), PathBuf::from);
    if !folder.join("wdm_mutant.inf").is_file() {
        bail!("the C drivers are not in {}; build them with: cargo xtask c-drivers", folder.display());
    }
    Ok(folder)
}
