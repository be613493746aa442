//! The registry's contents: keys, values, and nothing of how drivers reach them.
//!
//! Names are compared as NT compares them, without case, and keep the spelling they were created with.
//! A key that was deleted stays readable for nobody: whoever still holds it gets `STATUS_KEY_DELETED`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use nt_types::NtStatus;
use nt_types::{REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ};

use super::unicode::{bytes_of, upcase_str};
use crate::machine::Machine;

/// The whole registry, from `\Registry` down.
#[derive(Debug)]
pub struct Hive {
    root: Arc<Key>,
}

impl Default for Hive {
    fn default() -> Self {
        let root = Key::new("Registry", Arc::default());
        for name in ["Machine", "User"] {
            root.create(name).expect("the root of a new registry is not deleted");
        }
        Self { root }
    }
}

impl Hive {
    /// The key at an absolute path such as `\Registry\Machine\System`.
    ///
    /// # Errors
    /// `STATUS_OBJECT_PATH_SYNTAX_BAD` for a path outside `\Registry`, `STATUS_OBJECT_NAME_NOT_FOUND`.
    pub fn open(&self, path: &str) -> Result<Arc<Key>, NtStatus> {
        let mut key = Arc::clone(&self.root);
        for name in below_root(path)? {
            key = key.open(name)?;
        }
        Ok(key)
    }

    /// As [`open`](Self::open), creating what is missing on the way.
    ///
    /// # Errors
    /// `STATUS_OBJECT_PATH_SYNTAX_BAD` for a path outside `\Registry`.
    pub fn create(&self, path: &str) -> Result<Arc<Key>, NtStatus> {
        let mut key = Arc::clone(&self.root);
        for name in below_root(path)? {
            key = key.create(name)?.0;
        }
        Ok(key)
    }
}

impl Machine {
    /// The machine's registry, for settings that a test wants other than the driver's package has them.
    #[must_use]
    pub fn registry(&self) -> &Hive {
        self.inner().nt.hive()
    }
}

/// Names on the way from the root to `path`.
fn below_root(path: &str) -> Result<impl Iterator<Item = &str>, NtStatus> {
    let mut names = path.split('\\');
    let starts_empty = names.next() == Some("");
    let registry = names.next().is_some_and(|name| name.eq_ignore_ascii_case("Registry"));
    if !starts_empty || !registry {
        return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
    }
    Ok(names.filter(|name| !name.is_empty()))
}

/// One key.
#[derive(Debug)]
pub struct Key {
    name: String,
    /// The hive's, of which each key has a reference.
    watches: Arc<Watches>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    deleted: bool,
    last_write: SystemTime,
    // By upcased name: the order in which enumeration sees them.
    keys: BTreeMap<String, Arc<Key>>,
    values: BTreeMap<String, (String, Value)>,
}

impl Key {
    fn new(name: &str, watches: Arc<Watches>) -> Arc<Self> {
        let state =
            State { deleted: false, last_write: SystemTime::now(), keys: BTreeMap::new(), values: BTreeMap::new() };
        Arc::new(Self { name: name.to_owned(), watches, state: Mutex::new(state) })
    }

    /// Name in the parent, as it was created.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The subkey `name`, which may be a path.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_KEY_DELETED`.
    pub fn open(self: &Arc<Self>, name: &str) -> Result<Arc<Self>, NtStatus> {
        let mut key = Arc::clone(self);
        for part in name.split('\\').filter(|part| !part.is_empty()) {
            let next = key.live()?.keys.get(&upcase_str(part)).cloned();
            key = next.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        }
        Ok(key)
    }

    /// The subkey `name`, which may be a path; true when the last part of it is new.
    ///
    /// # Errors
    /// `STATUS_KEY_DELETED`.
    pub fn create(self: &Arc<Self>, name: &str) -> Result<(Arc<Self>, bool), NtStatus> {
        let mut key = Arc::clone(self);
        let mut is_new = false;
        for part in name.split('\\').filter(|part| !part.is_empty()) {
            let next = {
                let mut state = key.live()?;
                let upcased = upcase_str(part);
                is_new = !state.keys.contains_key(&upcased);
                if is_new {
                    state.last_write = SystemTime::now();
                }
                Arc::clone(state.keys.entry(upcased).or_insert_with(|| Self::new(part, Arc::clone(&self.watches))))
            };
            if is_new {
                self.watches.changed(&key, change::NAME);
            }
            key = next;
        }
        Ok((key, is_new))
    }

    /// Removes the subkey `name`.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`; `STATUS_CANNOT_DELETE` while it has subkeys of its own.
    pub fn delete(&self, name: &str) -> Result<(), NtStatus> {
        let mut state = self.live()?;
        let upcased = upcase_str(name);
        let child = state.keys.get(&upcased).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        {
            let mut child = child.lock();
            if !child.keys.is_empty() {
                return Err(NtStatus::CANNOT_DELETE);
            }
            child.deleted = true;
        }
        state.keys.remove(&upcased);
        state.last_write = SystemTime::now();
        drop(state);
        self.watches.changed(self, change::NAME);
        Ok(())
    }

    /// The value `name`; the empty name is the key's default value.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_KEY_DELETED`.
    pub fn value(&self, name: &str) -> Result<Value, NtStatus> {
        let state = self.live()?;
        let found = state.values.get(&upcase_str(name));
        found.map(|(_, value)| value.clone()).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    /// Sets the value `name`.
    ///
    /// # Errors
    /// `STATUS_KEY_DELETED`.
    pub fn set_value(&self, name: &str, value: Value) -> Result<(), NtStatus> {
        let mut state = self.live()?;
        let (_, before) = state.values.insert(upcase_str(name), (name.to_owned(), value.clone())).unzip();
        state.last_write = SystemTime::now();
        drop(state);
        // The same value once more is no change.
        if before != Some(value) {
            self.watches.changed(self, change::LAST_SET);
        }
        Ok(())
    }

    /// Removes the value `name`.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_KEY_DELETED`.
    pub fn delete_value(&self, name: &str) -> Result<(), NtStatus> {
        let removed = self.live()?.values.remove(&upcase_str(name));
        removed.map(drop).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        self.watches.changed(self, change::LAST_SET);
        Ok(())
    }

    /// Names of the subkeys, in the order of enumeration.
    ///
    /// # Errors
    /// `STATUS_KEY_DELETED`.
    pub fn subkeys(&self) -> Result<Vec<String>, NtStatus> {
        Ok(self.live()?.keys.values().map(|key| key.name.clone()).collect())
    }

    /// The values with their names, in the order of enumeration.
    ///
    /// # Errors
    /// `STATUS_KEY_DELETED`.
    pub fn values(&self) -> Result<Vec<(String, Value)>, NtStatus> {
        Ok(self.live()?.values.values().cloned().collect())
    }

    /// When the key was last changed.
    ///
    /// # Errors
    /// `STATUS_KEY_DELETED`.
    pub fn last_write(&self) -> Result<SystemTime, NtStatus> {
        Ok(self.live()?.last_write)
    }

    /// Who waits for changes of this hive's keys.
    pub(crate) fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }

    /// Whether `key` is this one or below it.
    fn reaches(&self, key: &Self) -> bool {
        let below: Vec<Arc<Self>> = self.lock().keys.values().cloned().collect();
        std::ptr::eq(self, key) || below.iter().any(|child| child.reaches(key))
    }

    fn live(&self) -> Result<MutexGuard<'_, State>, NtStatus> {
        let state = self.lock();
        if state.deleted { Err(NtStatus::KEY_DELETED) } else { Ok(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happens to a key, as `REG_NOTIFY_CHANGE_*` has it.
pub(crate) mod change {
    /// A subkey comes or goes.
    pub(crate) const NAME: u32 = 1;
    /// A value comes, goes, or is another.
    pub(crate) const LAST_SET: u32 = 4;
}

/// Who waits for changes.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<Vec<Watch>>);

/// One wait: for the next change of a key, and for that one only.
pub(crate) struct Watch {
    pub(crate) key: Weak<Key>,
    /// The key object it was asked with.
    pub(crate) object: usize,
    /// Kinds of [`change`].
    pub(crate) filter: u32,
    /// Subkeys count too.
    pub(crate) tree: bool,
    /// Gets the status that ends the wait.
    pub(crate) done: Box<dyn FnOnce(NtStatus) + Send>,
}

impl Watches {
    /// Waits for a change.
    pub(crate) fn add(&self, watch: Watch) {
        self.lock().push(watch);
    }

    /// A key object goes, and its waits with it.
    pub(crate) fn forget(&self, object: usize) {
        let gone: Vec<_> = self.lock().extract_if(.., |watch| watch.object == object).collect();
        for watch in gone {
            (watch.done)(NtStatus::NOTIFY_CLEANUP);
        }
    }

    fn changed(&self, key: &Key, kind: u32) {
        let concerns = |watch: &mut Watch| {
            let watched = watch.key.upgrade().filter(|_| watch.filter & kind != 0);
            watched.is_some_and(|watched| {
                if watch.tree { watched.reaches(key) } else { std::ptr::eq(Arc::as_ptr(&watched), key) }
            })
        };
        let fired: Vec<_> = self.lock().extract_if(.., concerns).collect();
        // Without the lock: whoever is told may ask again at once.
        for watch in fired {
            (watch.done)(NtStatus::NOTIFY_ENUM_DIR);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watch of key object {:#x} for {:#x}", self.object, self.filter)
    }
}

/// A value's type and bytes, as the registry keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// `REG_*`.
    pub kind: u32,
    /// The bytes; text is UTF-16LE with its terminator.
    pub data: Vec<u8>,
}

impl Value {
    /// `REG_DWORD`.
    #[must_use]
    pub fn dword(number: u32) -> Self {
        Self { kind: REG_DWORD, data: number.to_le_bytes().to_vec() }
    }

    /// `REG_SZ`.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { kind: REG_SZ, data: terminated(text) }
    }

    /// `REG_EXPAND_SZ`.
    #[must_use]
    pub fn expandable(text: &str) -> Self {
        Self { kind: REG_EXPAND_SZ, data: terminated(text) }
    }

    /// `REG_MULTI_SZ`.
    #[must_use]
    pub fn list<T: AsRef<str>>(texts: &[T]) -> Self {
        let mut data: Vec<u8> = texts.iter().flat_map(|text| terminated(text.as_ref())).collect();
        data.extend([0, 0]);
        Self { kind: REG_MULTI_SZ, data }
    }

    /// The text of a `REG_SZ` or `REG_EXPAND_SZ`, without its terminator.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        if self.kind != REG_SZ && self.kind != REG_EXPAND_SZ {
            return None;
        }
        let (units, _) = self.data.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        Some(String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned())
    }

    /// The number of a `REG_DWORD`.
    #[must_use]
    pub fn as_dword(&self) -> Option<u32> {
        let bytes = <[u8; 4]>::try_from(self.data.as_slice()).ok()?;
        (self.kind == REG_DWORD).then(|| u32::from_le_bytes(bytes))
    }
}

fn terminated(text: &str) -> Vec<u8> {
    let mut bytes = bytes_of(text);
    bytes.extend([0, 0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Hive, Value};
    use nt_types::NtStatus;

    const KEY: &str = r"\Registry\Machine\System\CurrentControlSet\Services\X";

    #[test]
    fn names_are_found_without_case_and_keep_their_spelling() {
        let hive = Hive::default();
        let key = hive.create(KEY).unwrap();
        key.set_value("Policy", Value::dword(1)).unwrap();
        let again = hive.open(&KEY.to_uppercase()).unwrap();
        assert_eq!(again.value("POLICY").unwrap().as_dword(), Some(1));
        assert_eq!(again.name(), "X");
        assert_eq!(again.values().unwrap()[0].0, "Policy");
    }

    #[test]
    fn a_key_with_subkeys_cannot_be_deleted_and_a_deleted_one_cannot_be_used() {
        let hive = Hive::default();
        let parent = hive.create(KEY).unwrap();
        let (child, is_new) = parent.create(r"Parameters\Instances").unwrap();
        assert!(is_new && !parent.create(r"Parameters\Instances").unwrap().1);
        assert_eq!(parent.delete("Parameters"), Err(NtStatus::CANNOT_DELETE));
        parent.open("Parameters").unwrap().delete("Instances").unwrap();
        assert_eq!(child.set_value("a", Value::dword(0)), Err(NtStatus::KEY_DELETED));
        assert_eq!(parent.open(r"Parameters\Instances").err(), Some(NtStatus::OBJECT_NAME_NOT_FOUND));
    }

    #[test]
    fn texts_carry_their_terminators() {
        assert_eq!(Value::text("ab").data, [b'a', 0, b'b', 0, 0, 0]);
        assert_eq!(Value::list(&["a", "b"]).data, [b'a', 0, 0, 0, b'b', 0, 0, 0, 0, 0]);
        assert_eq!(Value::text("ab").as_text().as_deref(), Some("ab"));
    }

    #[test]
    fn a_path_outside_the_registry_is_refused() {
        let hive = Hive::default();
        for path in ["", "Registry", r"\Device\X", r"Registry\Machine"] {
            assert_eq!(hive.open(path).err(), Some(NtStatus::OBJECT_PATH_SYNTAX_BAD), "{path}");
        }
    }
}
