//! What an administrator can set, in the `Parameters` key of the service.
//!
//! | value | type | meaning |
//! |---|---|---|
//! | `Policy` | REG_DWORD | 0 unsigned, 1 digest (default), 2 signed |
//! | `AllowUsers` | REG_DWORD | 1: clients without administrator rights may open and read files. 0 (default): they may not connect |
//! | `FirmwareRoots` | REG_MULTI_SZ | NT paths of the folders that firmware may lie in, in search order |
//! | `MaxImageBytes`, `MaxStagedBytes`, `MaxOwnerBytes` | REG_QWORD or REG_DWORD | limits in bytes |
//! | `MaxImages`, `MaxHandles`, `MaxReadBytes` | REG_DWORD | limits |
//! | `MaxSessionHandles`, `MaxSessionBytes`, `MaxSessionJobs` | REG_DWORD | limits of each client |
//!
//! Read once, when the driver starts. A value that is missing, of another type or out of range does not keep the
//! driver from starting: it means the default, or the nearest number that is allowed; a `Policy` that is none means 2. A value that cannot be read does:
//! for want of memory the policy would become a weaker one, and the roots would be others.

use crate::kernel::heap;
use crate::kernel::log::log;
use crate::kernel::registry::Key;
use alloc::vec::Vec;
use broker::staging::Policy;
use broker::{Error, Limits, Name};
use fltmgr::Passive;
use nt_types::{NtStatus, utf16};

/// The settings of this run.
pub(crate) struct Settings {
    /// What staging demands of a file.
    pub(crate) policy: Policy,
    /// Whether there is a port for clients that are no administrators.
    pub(crate) allow_users: bool,
    /// NT paths of the allowed roots.
    pub(crate) roots: Vec<Name>,
    /// Limits, all within their hard caps.
    pub(crate) limits: Limits,
}

impl Settings {
    /// Reads the settings of the service whose key is `service`.
    ///
    /// Errors: [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`); statuses of the registry.
    pub(crate) fn read(service: &[u16], passive: Passive) -> Result<Self, Error> {
        let path = Name::concat(&[service, utf16!(r"\Parameters")])?;
        // Without the key everything is at its default.
        let key = match Key::open(path.units(), passive) {
            Ok(key) => Some(key),
            Err(NtStatus::OBJECT_NAME_NOT_FOUND) => None,
            Err(status) => return Err(Error::System(status)),
        };
        let key = key.as_ref();
        // Anything but a plain 1 is a mistake, and means no.
        let allow_users = number(key, utf16!("AllowUsers"))? == Some(1);
        Ok(Self { policy: policy(key)?, allow_users, roots: roots(key)?, limits: limits(key)? })
    }
}

fn policy(key: Option<&Key>) -> Result<Policy, Error> {
    const NAME: &[u16] = utf16!("Policy");
    Ok(match number(key, NAME)? {
        None if key.map_or(Ok(false), |key| key.has(NAME)).map_err(Error::System)? => {
            // Not a number, and somebody meant something by it.
            log!(c"fwbroker: Policy is no number, staging is refused\n");
            Policy::Signed
        }
        None => Policy::Digest,
        Some(code) => u32::try_from(code).ok().and_then(Policy::from_code).unwrap_or_else(|| {
            // A policy that we do not know must not become a weaker one.
            log!(c"fwbroker: unknown Policy %u, staging is refused\n", code as u32);
            Policy::Signed
        }),
    })
}

fn number(key: Option<&Key>, name: &[u16]) -> Result<Option<u64>, Error> {
    key.map_or(Ok(None), |key| key.number(name)).map_err(Error::System)
}

fn roots(key: Option<&Key>) -> Result<Vec<Name>, Error> {
    let texts = key.map_or(Ok(None), |key| key.texts(utf16!("FirmwareRoots"))).map_err(Error::System)?;
    let default: &[u16] = utf16!(r"\SystemRoot\Firmware");
    let list = texts.as_deref().unwrap_or(default);
    let mut roots = Vec::new();
    for root in list.split(|unit| *unit == 0).filter(|root| !root.is_empty()).take(MAX_ROOTS) {
        roots.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
        if !heap::push(&mut roots, Name::try_new(root)?) {
            return Err(Error::OutOfMemory);
        }
    }
    Ok(roots)
}

/// More roots than anybody needs; each costs an open when the search path is put together.
const MAX_ROOTS: usize = 32;

fn limits(key: Option<&Key>) -> Result<Limits, Error> {
    let mut limits = Limits::DEFAULT;
    let wide = |name: &[u16], limit: &mut u64| {
        if let Some(number) = number(key, name)? {
            *limit = number;
        }
        Ok(())
    };
    wide(utf16!("MaxImageBytes"), &mut limits.image_bytes)?;
    wide(utf16!("MaxStagedBytes"), &mut limits.total_bytes)?;
    wide(utf16!("MaxOwnerBytes"), &mut limits.owner_bytes)?;
    wide(utf16!("MaxSessionBytes"), &mut limits.session.bytes)?;
    let narrow = |name: &[u16], limit: &mut u32| {
        if let Some(number) = number(key, name)? {
            *limit = u32::try_from(number).unwrap_or(u32::MAX);
        }
        Ok(())
    };
    narrow(utf16!("MaxImages"), &mut limits.images)?;
    narrow(utf16!("MaxHandles"), &mut limits.handles)?;
    narrow(utf16!("MaxReadBytes"), &mut limits.read_bytes)?;
    narrow(utf16!("MaxSessionHandles"), &mut limits.session.handles)?;
    narrow(utf16!("MaxSessionJobs"), &mut limits.session.jobs)?;
    let mut limits = limits.clamped();
    // No reply can carry more.
    limits.read_bytes = limits.read_bytes.min(protocol::MAX_READ_BYTES);
    Ok(limits)
}
