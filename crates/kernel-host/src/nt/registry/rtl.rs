//! The registry through `Rtl*`: single values by path. Pages: `wdm/nf-wdm-rtlwriteregistryvalue`,
//! `wdm/nf-wdm-rtlcheckregistrykey`, `wdm/nf-wdm-rtldeleteregistryvalue`, `wdm/nf-wdm-rtlcreateregistrykey`,
//! `wdm/nf-wdm-ioopendriverregistrykey`.

use std::sync::Arc;

use nt_types::{DRIVER_OBJECT, NtStatus};

use super::super::hive::{Key, Value};
use super::{OpenKey, give_handle, key_of};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::io::driver_object::DriverBody;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlWriteRegistryValue(max 0, fails RESOURCES) = rtl_write_registry_value;
    RtlCheckRegistryKey(max 0) = rtl_check_registry_key;
    RtlDeleteRegistryValue(max 0) = rtl_delete_registry_value;
    RtlCreateRegistryKey(max 0, fails RESOURCES) = rtl_create_registry_key;
    IoOpenDriverRegistryKey(max 0, fails RESOURCES) = io_open_driver_registry_key;
}

/// `RTL_REGISTRY_HANDLE`, `RTL_REGISTRY_OPTIONAL`: flags beside the folder's number.
const HANDLE: u32 = 0x4000_0000;
const OPTIONAL: u32 = 0x8000_0000;
/// `RTL_REGISTRY_USER`.
const USER: u32 = 5;

/// Where `RelativeTo` leads, by number; the first is the absolute path.
const FOLDERS: [&str; 6] = [
    "",
    r"\Registry\Machine\System\CurrentControlSet\Services",
    r"\Registry\Machine\System\CurrentControlSet\Control",
    r"\Registry\Machine\Software\Microsoft\Windows NT\CurrentVersion",
    r"\Registry\Machine\Hardware\DeviceMap",
    r"\Registry\User\.Default",
];

/// Hives that only the system and administrators write to.
const TRUSTED: [&str; 5] = [
    r"\REGISTRY\MACHINE\HARDWARE",
    r"\REGISTRY\MACHINE\SOFTWARE",
    r"\REGISTRY\MACHINE\SYSTEM",
    r"\REGISTRY\MACHINE\SECURITY",
    r"\REGISTRY\MACHINE\SAM",
];

/// What fits in a counted string.
const MAX_TEXT: usize = 32_767;

/// Characters up to the terminator.
pub(super) fn text(pointer: Raw<u16>) -> Result<String, NtStatus> {
    let units: Vec<u16> =
        (0..MAX_TEXT).map(|index| pointer.index(index).read()).take_while(|unit| *unit != 0).collect();
    String::from_utf16(&units).map_err(|_| NtStatus::OBJECT_NAME_INVALID)
}

/// What `RelativeTo` and `Path` name.
pub(super) enum Base {
    Path(String),
    Key(Arc<Key>),
}

impl Base {
    pub(super) fn of(call: &Call, relative_to: u32, path: Raw<u16>) -> Result<Self, NtStatus> {
        if relative_to & HANDLE != 0 {
            return Ok(Self::Key(Arc::clone(
                &key_of(call, std::ptr::without_provenance_mut(path.address()))?.open.key,
            )));
        }
        let number = relative_to & !OPTIONAL;
        let folder = FOLDERS.get(number as usize).ok_or(NtStatus::INVALID_PARAMETER)?;
        let path = if path.is_null() { String::new() } else { text(path)? };
        call.detail(path.as_str());
        Ok(Self::Path(match (folder.is_empty(), path.is_empty()) {
            (true, _) => path,
            (false, true) => (*folder).to_owned(),
            (false, false) => format!("{folder}\\{path}"),
        }))
    }

    /// The key.
    pub(super) fn open(&self, call: &Call) -> Result<Arc<Key>, NtStatus> {
        match self {
            Self::Path(path) => call.machine().nt.hive().open(path),
            Self::Key(key) => Ok(Arc::clone(key)),
        }
    }

    /// The key, made when only its last part is missing.
    fn open_or_create(&self, call: &Call) -> Result<Arc<Key>, NtStatus> {
        let Self::Path(path) = self else { return self.open(call) };
        let (folder, name) = path.rsplit_once('\\').ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        self.open(call).or_else(|_| Ok(call.machine().nt.hive().open(folder)?.create(name)?.0))
    }

    /// Whether the key is in a hive that programs of plain users cannot write to.
    pub(super) fn is_trusted(&self) -> bool {
        match self {
            Self::Path(path) => TRUSTED.iter().any(|hive| path.to_uppercase().starts_with(hive)),
            // A handle says nothing of its path; drivers get most of theirs from their service's key.
            Self::Key(_) => true,
        }
    }
}

fn answer(result: Result<(), NtStatus>) -> NtStatus {
    result.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

pub(super) extern "efiapi" fn rtl_write_registry_value(
    relative_to: u32,
    path: Raw<u16>,
    name: Raw<u16>,
    kind: u32,
    data: Raw<u8>,
    length: u32,
) -> NtStatus {
    let call = Call::enter();
    let name = if name.is_null() { Ok(String::new()) } else { text(name) };
    answer(Base::of(&call, relative_to, path).and_then(|base| {
        let data = data.read_bytes(length as usize);
        base.open_or_create(&call)?.set_value(&name?, Value { kind, data })
    }))
}

pub(super) extern "efiapi" fn rtl_check_registry_key(relative_to: u32, path: Raw<u16>) -> NtStatus {
    let call = Call::enter();
    if relative_to & HANDLE != 0 {
        call.stop(Rule::BadArgument, "RTL_REGISTRY_HANDLE: RtlCheckRegistryKey would close the handle");
    }
    answer(Base::of(&call, relative_to, path).and_then(|base| base.open(&call).map(drop)))
}

pub(super) extern "efiapi" fn rtl_delete_registry_value(relative_to: u32, path: Raw<u16>, name: Raw<u16>) -> NtStatus {
    let call = Call::enter();
    let name = text(name);
    answer(Base::of(&call, relative_to, path).and_then(|base| base.open(&call)?.delete_value(&name?)))
}

pub(super) extern "efiapi" fn rtl_create_registry_key(relative_to: u32, path: Raw<u16>) -> NtStatus {
    let call = Call::enter();
    answer(Base::of(&call, relative_to, path).and_then(|base| base.open_or_create(&call).map(drop)))
}

/// `DriverRegKeyParameters` (0) and `DriverRegKeyPersistentState` (1), below the service's key; made when missing.
pub(super) extern "efiapi" fn io_open_driver_registry_key(
    driver_object: Raw<DRIVER_OBJECT>,
    kind: u32,
    access: u32,
    _flags: u32,
    handle: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let body = call.machine().nt.objects().payload::<DriverBody>(driver_object.address());
    let Some(driver) = body.and_then(|body| body.driver()) else {
        call.stop(Rule::BadArgument, format!("{driver_object:?} is no driver object"));
    };
    let name = match kind {
        0 => "Parameters",
        1 => "PersistentState",
        _ => return NtStatus::INVALID_PARAMETER,
    };
    let service = format!("{}\\{}", FOLDERS[1], driver.service);
    let made = call.machine().nt.hive().open(&service).and_then(|parent| {
        let (key, _) = parent.create(name)?;
        let path = format!(r"\REGISTRY\MACHINE\System\CurrentControlSet\Services\{}\{name}", driver.service);
        Ok(OpenKey::new(path, key, Some(parent)))
    });
    match made {
        // The page: a kernel handle.
        Ok(open) => give_handle(&call, handle, access, nt_types::ObjectFlags::KERNEL_HANDLE.bits(), open),
        Err(status) => status,
    }
}

/// Whether a folder number is the current user's: `RTL_REGISTRY_USER`.
pub(super) fn is_user(relative_to: u32) -> bool {
    relative_to & !(HANDLE | OPTIONAL) == USER
}
