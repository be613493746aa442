//! Stamp files: "this was made from exactly that".

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The digest of the inputs of a generated folder, and the file in that folder that records it.
pub(crate) struct Stamp {
    file: PathBuf,
    digest: Vec<u8>,
}

impl Stamp {
    /// A stamp for `folder`, made from `inputs`. Lengths go into the digest, so that moving a byte from one input to
    /// the next changes it.
    pub(crate) fn new(folder: &Path, inputs: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for input in inputs {
            hash.update(input.len().to_le_bytes());
            hash.update(input);
        }
        Self { file: folder.join(".stamp"), digest: hash.finalize().to_vec() }
    }

    /// Whether the folder was made from these inputs, completely.
    pub(crate) fn is_current(&self) -> bool {
        fs::read(&self.file).is_ok_and(|recorded| recorded == self.digest)
    }

    /// Records the inputs. Call it last: an interrupted step must leave no stamp.
    pub(crate) fn write(&self) -> Result<()> {
        fs::write(&self.file, &self.digest).with_context(|| format!("cannot write {}", self.file.display()))
    }
}
