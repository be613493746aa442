//! Opening and creating keys, past the registry callbacks.

use std::sync::Arc;

use nt_types::{KPROCESSOR_MODE, NtStatus, UNICODE_STRING, USER_MODE};

use super::{BODY_BYTES, KeyObject, OpenKey};
use crate::machine::Inner;
use crate::nt::hive::Key;
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::type_address;
use crate::nt::raw::Raw;
use crate::nt::registry_callbacks::structures::{Class, CreateKey};
use crate::nt::registry_callbacks::{CountedName, Notice};
use crate::nt::security::impersonation::effective_kind;
use crate::process::{Process, Token};
use crate::thread::Thread;

/// `Disposition` of `ZwCreateKey`.
pub(super) const REG_CREATED_NEW_KEY: u32 = 1;
pub(super) const REG_OPENED_EXISTING_KEY: u32 = 2;

/// `KEY_READ`, `KEY_WRITE`, `KEY_ALL_ACCESS`, and the flags that name a view of the registry.
pub(super) const KEY_READ: u32 = 0x2_0019;
const KEY_WRITE: u32 = 0x2_0006;
const KEY_ALL_ACCESS: u32 = 0xF_003F;
const KEY_WOW64: u32 = 0x300;
/// `MAXIMUM_ALLOWED`, and the generic rights with what they mean for keys.
const MAXIMUM_ALLOWED: u32 = 0x0200_0000;
const GENERIC: [(u32, u32); 4] =
    [(1 << 31, KEY_READ), (1 << 30, KEY_WRITE), (1 << 29, KEY_READ), (1 << 28, KEY_ALL_ACCESS)];

/// The root of all paths, as key objects are named.
const ROOT: &str = r"\REGISTRY";

/// Who asks, and whether its rights count.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) process: Arc<Process>,
    pub(super) mode: KPROCESSOR_MODE,
}

/// An open or create.
pub(super) struct Opening {
    pub(super) caller: Caller,
    pub(super) root: Option<KeyObject>,
    /// From the root, or absolute without one.
    pub(super) name: String,
    /// The same where the caller has it.
    pub(super) given_name: Raw<UNICODE_STRING>,
    /// `OBJ_*`.
    pub(super) attributes: u32,
    pub(super) descriptor: usize,
    pub(super) access: u32,
    pub(super) options: u32,
    pub(super) class: Raw<UNICODE_STRING>,
    /// Optional.
    pub(super) disposition: Raw<u32>,
    pub(super) creates: bool,
}

/// Makes the object of an open key.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(super) fn object_of(machine: &Inner, open: OpenKey) -> Result<ObjectRef, NtStatus> {
    let path = open.path.clone();
    let object = machine.nt.objects().create(BODY_BYTES, Arc::new(open))?;
    object.set_name(Some(path));
    Ok(object)
}

impl Opening {
    /// The key object, and the rights that a handle to it gets.
    ///
    /// # Errors
    /// The registry's, and what a callback answers.
    pub(super) fn carry_out(&self, thread: &Thread) -> Result<(ObjectRef, u32), NtStatus> {
        let machine = thread.machine();
        let (base, below) = self.base(machine)?;
        let remaining = CountedName::new(&below).unwrap_or_default();
        let mut result = 0_usize;
        let result = Raw::of(&raw mut result);
        // Callbacks say what became of a create, too.
        let mut disposition = 0_u32;
        let disposition = self.disposition.some().unwrap_or(Raw::of(&raw mut disposition));
        let mut information = CreateKey {
            complete_name: self.given_name,
            root: base.object.body(),
            object_type: type_address("Key"),
            options: self.options,
            class: self.class,
            descriptor: self.descriptor,
            quality: 0,
            desired: self.access,
            granted: self.access,
            disposition,
            result,
            call_context: 0,
            root_context: 0,
            transaction: 0,
            version: 1,
            remaining_name: Raw::at(remaining.address()),
            wow64: self.access & KEY_WOW64,
            attributes: self.attributes,
            check_mode: u64::from(self.caller.mode.cast_unsigned()),
        };
        let granted_at = Raw::of(&raw mut information.granted);
        let class = if self.creates { Class::CREATE_KEY } else { Class::OPEN_KEY };
        let mut made = None;
        let status = Notice::of_open(class, &mut information).run(thread, || {
            let opened = self.open(&base.open, &below).and_then(|(open, is_new)| {
                let granted = self.granted(&open.path)?;
                Ok((object_of(machine, open)?, granted, is_new))
            });
            match opened {
                Ok((object, granted, is_new)) => {
                    disposition.write(if is_new { REG_CREATED_NEW_KEY } else { REG_OPENED_EXISTING_KEY });
                    granted_at.write(granted);
                    result.write(object.body());
                    made = Some(object);
                    NtStatus::SUCCESS
                }
                Err(status) => status,
            }
        });
        status.ok()?;
        let object = match made {
            Some(object) if object.body() == result.read() => object,
            // A callback's own: the reference that it holds comes with it.
            _ => machine.nt.objects().take_over(result.read()).ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?,
        };
        Ok((object, granted_at.read()))
    }

    /// The key object that the name is relative to, and the name from there.
    fn base(&self, machine: &Inner) -> Result<(KeyObject, String), NtStatus> {
        if let Some(root) = &self.root {
            if self.name.starts_with('\\') {
                return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
            }
            let root = KeyObject { object: root.object.clone(), open: Arc::clone(&root.open) };
            return Ok((root, self.name.clone()));
        }
        let below = self.name.strip_prefix('\\').ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        let (first, rest) = below.split_once('\\').unwrap_or((below, ""));
        let key = machine.nt.hive().open(&format!("\\{first}"))?;
        let object = object_of(machine, OpenKey::new(ROOT.to_owned(), key, None))?;
        let open = object.payload().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
        Ok((KeyObject { object, open }, rest.to_owned()))
    }

    /// Follows the name; whether the last part of it is new.
    fn open(&self, base: &OpenKey, below: &str) -> Result<(OpenKey, bool), NtStatus> {
        let parts: Vec<&str> = below.split('\\').filter(|part| !part.is_empty()).collect();
        let Some((leaf, folders)) = parts.split_last() else {
            return Ok((OpenKey::new(base.path.clone(), Arc::clone(&base.key), base.parent.clone()), false));
        };
        let (mut parent, mut path) = (Arc::clone(&base.key), base.path.clone());
        // Only the last part may be new: the page wants its parent to exist.
        for folder in folders {
            parent = parent.open(folder)?;
            append(&mut path, &parent);
        }
        let (key, is_new) = match parent.open(leaf) {
            Err(NtStatus::OBJECT_NAME_NOT_FOUND) if self.creates => {
                self.check_create(&path)?;
                parent.create(leaf)?
            }
            found => (found?, false),
        };
        append(&mut path, &key);
        Ok((OpenKey::new(path, key, Some(parent)), is_new))
    }

    /// Making a key takes the right to in its parent.
    fn check_create(&self, parent: &str) -> Result<(), NtStatus> {
        let is_allowed = self.caller.allowed(parent) & KEY_WRITE == KEY_WRITE;
        if is_allowed { Ok(()) } else { Err(NtStatus::ACCESS_DENIED) }
    }

    fn granted(&self, path: &str) -> Result<u32, NtStatus> {
        let mut asked = self.access & !KEY_WOW64;
        for (generic, rights) in GENERIC {
            if asked & generic != 0 {
                asked = asked & !generic | rights;
            }
        }
        let allowed = self.caller.allowed(path);
        if asked & MAXIMUM_ALLOWED != 0 {
            return Ok(asked & !MAXIMUM_ALLOWED | allowed & KEY_ALL_ACCESS);
        }
        if asked & !allowed == 0 { Ok(asked) } else { Err(NtStatus::ACCESS_DENIED) }
    }
}

impl Caller {
    /// What the caller may do with the key at a path, as Windows sets hives up: plain users read the machine's.
    fn allowed(&self, path: &str) -> u32 {
        let is_users_own = path.starts_with(r"\REGISTRY\USER\");
        if self.mode == USER_MODE && effective_kind(&self.process) == Token::User && !is_users_own {
            KEY_READ
        } else {
            u32::MAX
        }
    }
}

/// One level further down, in the spelling of the registry; its first level is upper case.
fn append(path: &mut String, key: &Key) {
    let is_first = path == ROOT;
    path.push('\\');
    path.push_str(&if is_first { key.name().to_uppercase() } else { key.name().to_owned() });
}
