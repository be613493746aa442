//! Reading a file into memory, hashing on the way.

use sha2::{Digest, Sha256 as Hasher};

use super::{Job, Phase, Sha256};
use crate::{Error, Platform, Source, WritableMemory};

/// Fills `memory` from `source`, through `chunk`, and returns the SHA-256 of what lies in the memory.
///
/// Every byte is fetched once: what is hashed is the chunk that is copied. A file that ends early, or a
/// source that claims to have read more than it could, is [`Error::FileChanged`].
#[inline(never)] // for the sake of the stack, see `Images`
pub(super) fn read_and_hash<P: Platform, W: WritableMemory>(
    job: &Job<P>,
    source: &mut impl Source,
    memory: &mut W,
    chunk: &mut [u8],
) -> Result<Sha256, Error> {
    let mut hasher = Hasher::new();
    let mut rest = memory.bytes_mut();
    let mut offset = 0_u64;
    job.advance(Phase::Reading, 0);
    while !rest.is_empty() {
        job.check()?;
        let wanted = chunk.len().min(rest.len());
        let buffer = chunk.get_mut(..wanted).unwrap_or_default();
        let read = source.read_at(offset, buffer)?;
        let bytes = buffer.get(..read).filter(|bytes| !bytes.is_empty()).ok_or(Error::FileChanged)?;
        let (target, behind) = core::mem::take(&mut rest).split_at_mut_checked(read).ok_or(Error::FileChanged)?;
        target.copy_from_slice(bytes);
        hasher.update(bytes);
        rest = behind;
        offset = offset.saturating_add(read as u64);
        job.advance(Phase::Reading, offset);
    }
    Ok(hasher.finalize().into())
}
