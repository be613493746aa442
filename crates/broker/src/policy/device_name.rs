//! Normalised names of open files.

use super::MAX_NAME_UNITS;
use super::component::{check_components, split_first, strip_prefix};
use super::nt_path::is_redirector;
use crate::Error;

/// The normalised name of an open file: `\Device\HarddiskVolume3\Firmware\e1000.rom`.
///
/// Made only from what `FltGetFileNameInformation` returns (`FLT_FILE_NAME_NORMALIZED`): no short names, no links. Never from
/// a client's words; those go through [`NtPath`](super::NtPath).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceName<'a> {
    units: &'a [u16],
}

impl<'a> DeviceName<'a> {
    /// Takes a normalised name.
    ///
    /// It is checked again although it is trusted: the filter manager reports streams as part of the name, and this is where they
    /// are refused ([`Error::NameStream`]), as are files on other machines ([`Error::NameUnc`]).
    pub fn from_normalized(units: &'a [u16]) -> Result<Self, Error> {
        if units.len() > MAX_NAME_UNITS {
            return Err(Error::NameTooLong);
        }
        let rest = split_volume(units)?.ok_or(Error::NameNoFile)?;
        check_components(rest)?;
        Ok(Self { units })
    }

    /// The whole name.
    #[must_use]
    pub const fn units(&self) -> &'a [u16] {
        self.units
    }
}

/// What follows the volume's own name and a backslash; `None` where nothing does.
pub(super) fn split_volume(units: &[u16]) -> Result<Option<&[u16]>, Error> {
    let name = strip_prefix(units, r"\Device\").ok_or(Error::NameNotAbsolute)?;
    let (volume, rest) = split_first(name);
    if volume.is_empty() {
        return Err(Error::NameNotAbsolute);
    }
    if is_redirector(volume) {
        return Err(Error::NameUnc);
    }
    Ok(rest)
}
