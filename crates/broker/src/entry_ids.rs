//! Numbers under which administrators know entries of the handle table.

use crate::{Entry, Handle, HandleKey, HandleTable, Kind, LockContext, Pinned, Reaper};

/// Gives every entry a number that is not its handle.
///
/// Who lists all handles must not thereby get them: a list is printed, logged and sent around. A number names one entry of
/// one boot, for a revocation, which takes an administrator. It is no capability:
///
/// - Its kind field has a value that no handle has, so that [`Handle::from_raw`] refuses it whatever else it contains.
/// - Its upper half is the handle's check, passed through a permutation under a key of its own. Without that key a check cannot
///   be told from a number, nor a number made up for an entry that was never listed.
/// - A handle that did become known would still be good in its owner's session only.
///
/// Like a handle, a number never comes to mean another entry: it goes with the check, and that is not used twice.
#[derive(Debug)]
pub struct EntryIds {
    key: HandleKey,
}

impl EntryIds {
    /// Numbers under `key`, which must not be that of the handles.
    #[must_use]
    pub const fn new(key: HandleKey) -> Self {
        Self { key }
    }

    /// The number of the entry that has this handle. Never zero.
    #[must_use]
    pub fn id(&self, handle: Handle) -> u64 {
        let slot = handle.slot();
        (u64::from(self.key.check(slot, handle.check())) << 32) | NO_KIND | u64::from(slot)
    }

    /// The live entry that has this number, pinned. `None` where there is none: never was, or not any more.
    pub fn find<'t, E: Entry, R: Reaper<E>, C: LockContext>(
        &self,
        table: &'t HandleTable<E, R, C>,
        id: u64,
    ) -> Option<Pinned<'t, E, R, C>> {
        let slot = u32::try_from(id & u64::from(Handle::LAST_SLOT)).ok()?;
        table.pinned_at(slot).filter(|pinned| self.id(pinned.handle()) == id)
    }
}

/// The kind field, all ones.
const NO_KIND: u64 = 0x3F << 26;
const _: () = assert!(Handle::LAST_SLOT == (1 << 26) - 1 && (Kind::Binding as u64) < 0x3F);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Error;

    const IDS: EntryIds = EntryIds::new(HandleKey::new([5, 6, 7, 8]));

    #[test]
    fn no_number_is_a_handle_and_no_handle_is_a_number() {
        for check in [0, 1, 0x8000_0000, u32::MAX] {
            for slot in [0, 1, 1 << 25, Handle::LAST_SLOT] {
                let handle = Handle::new(check, Kind::File, slot);
                let id = IDS.id(handle);
                assert_ne!(id, 0);
                assert_eq!(Handle::from_raw(id).map(Handle::raw), Err(Error::HandleInvalid));
            }
        }
    }

    #[test]
    fn numbers_of_different_handles_differ_and_need_the_key() {
        let other = EntryIds::new(HandleKey::new([8, 7, 6, 5]));
        let ids: std::collections::HashSet<_> = (0..1000).map(|n| IDS.id(Handle::new(n, Kind::File, 7))).collect();
        assert_eq!(ids.len(), 1000);
        let same = (0..1000).filter(|n| ids.contains(&other.id(Handle::new(*n, Kind::File, 7)))).count();
        assert!(same < 3, "{same} of 1000 under another key");
    }
}
