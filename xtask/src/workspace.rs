//! Where things are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository and what is generated in it.
///
/// Generated files always go below `target/` of the repository, also where `CARGO_TARGET_DIR` says otherwise:
/// wdk-build looks for `Cargo.lock` in the folders above its output, and tests look for the drivers there.
pub(crate) struct Workspace {
    /// Folder of the root `Cargo.toml`.
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// The workspace that this program was built from.
    pub(crate) fn locate() -> Result<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().context("the xtask package has no parent folder")?;
        Ok(Self { root: root.to_owned() })
    }

    /// A path below `target/`; the folder is not created.
    pub(crate) fn generated(&self, relative: &str) -> PathBuf {
        self.root.join("target").join(relative)
    }

    /// Serialises set-up and driver builds of this working copy, so that two commands started at once do not write the
    /// same generated files. Dropping the file releases the lock, also when the process dies.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.generated("xtask.lock");
        fs::create_dir_all(self.root.join("target")).context("cannot create target/")?;
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// Writes a file that others may be reading: complete under a temporary name first, then renamed into place.
pub(crate) fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file path without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    fs::write(&temporary, contents).with_context(|| format!("cannot write {}", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("cannot rename {} into place", temporary.display()))
}

/// Reads a text file, naming it in the error.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
