//! Absolute names from clients.

use super::MAX_NAME_UNITS;
use super::component::{check_components, equals_ascii, split_first, strip_prefix};
use crate::Error;

/// An absolute NT name that can only denote a file on a local volume.
///
/// | accepted | |
/// |---|---|
/// | `\??\C:\...`, `\DosDevices\C:\...`, `\GLOBAL??\C:\...` | a file on a drive |
/// | `\??\Volume{guid}\...` and the same under the other two | a file on a volume |
/// | `\SystemRoot\...` | a file below the Windows folder |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NtPath<'a> {
    units: &'a [u16],
    rest: &'a [u16],
    prefix: Prefix,
}

/// What a name starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// A drive letter.
    Drive,
    /// A volume GUID.
    VolumeGuid,
    /// `\SystemRoot`.
    SystemRoot,
}

impl<'a> NtPath<'a> {
    /// Checks a name from a client.
    ///
    /// Errors are those of [`Error`] whose names start with `Name`; statuses `STATUS_OBJECT_NAME_INVALID`,
    /// `STATUS_OBJECT_PATH_INVALID`, `STATUS_OBJECT_PATH_SYNTAX_BAD` or `STATUS_NAME_TOO_LONG`.
    pub fn parse(units: &'a [u16]) -> Result<Self, Error> {
        if units.is_empty() {
            return Err(Error::NameEmpty);
        }
        if units.len() > MAX_NAME_UNITS {
            return Err(Error::NameTooLong);
        }
        let (prefix, rest) = split_prefix(units)?;
        check_components(rest)?;
        Ok(Self { units, rest, prefix })
    }

    /// The whole name.
    #[must_use]
    pub const fn units(&self) -> &'a [u16] {
        self.units
    }

    /// What the name starts with.
    #[must_use]
    pub const fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// The components behind the prefix, the file last.
    pub fn components(&self) -> impl Iterator<Item = &'a [u16]> {
        self.rest.split(|unit| *unit == u16::from(b'\\'))
    }
}

fn split_prefix(units: &[u16]) -> Result<(Prefix, &[u16]), Error> {
    // Win32 spellings with two backslashes first: none of them is an NT name.
    if strip_prefix(units, r"\\.").is_some() {
        return Err(Error::NameDevice);
    }
    if strip_prefix(units, r"\\?\UNC").is_some() {
        return Err(Error::NameUnc);
    }
    if strip_prefix(units, r"\\?").is_some() {
        return Err(Error::NameNotAbsolute);
    }
    if strip_prefix(units, r"\\").is_some() {
        return Err(Error::NameUnc);
    }
    for directory in [r"\??\", r"\DosDevices\", r"\GLOBAL??\"] {
        if let Some(rest) = strip_prefix(units, directory) {
            return split_dos_device(rest);
        }
    }
    if let Some(rest) = strip_prefix(units, r"\SystemRoot") {
        return match rest.split_first() {
            Some((separator, rest)) if *separator == u16::from(b'\\') => Ok((Prefix::SystemRoot, rest)),
            Some(_) => Err(Error::NameNotAbsolute),
            None => Err(Error::NameNoFile),
        };
    }
    if let Some(rest) = strip_prefix(units, r"\Device\") {
        return Err(if is_redirector(split_first(rest).0) { Error::NameUnc } else { Error::NameDevice });
    }
    Err(Error::NameNotAbsolute)
}

/// `C:\...` or `Volume{guid}\...` in the directory of DOS devices; anything else there is a device, or leads to one.
fn split_dos_device(name: &[u16]) -> Result<(Prefix, &[u16]), Error> {
    let (device, rest) = split_first(name);
    let prefix = match device {
        [letter, colon] if *colon == u16::from(b':') && is_ascii(*letter, u8::is_ascii_alphabetic) => Prefix::Drive,
        // `C:file` is relative to a current directory, which a kernel does not have.
        [letter, colon, ..] if *colon == u16::from(b':') && is_ascii(*letter, u8::is_ascii_alphabetic) => {
            return Err(Error::NameNotAbsolute);
        }
        _ if is_volume_guid(device) => Prefix::VolumeGuid,
        _ if equals(device, "UNC") => return Err(Error::NameUnc),
        [] => return Err(Error::NameNotAbsolute),
        _ => return Err(Error::NameDevice),
    };
    Ok((prefix, rest.ok_or(Error::NameNoFile)?))
}

/// Whether `device` is `Volume{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`.
fn is_volume_guid(device: &[u16]) -> bool {
    const SHAPE: &str = "Volume{00000000-0000-0000-0000-000000000000}";
    device.len() == SHAPE.len()
        && device.iter().zip(SHAPE.bytes()).all(|(unit, shape)| match shape {
            b'0' => is_ascii(*unit, u8::is_ascii_hexdigit),
            _ => equals_ascii(*unit, shape),
        })
}

/// Whether a device below `\Device` leads to other machines.
pub(super) fn is_redirector(device: &[u16]) -> bool {
    // `\Device\Mup;...` and the like name a provider behind the redirector.
    let device = device.split(|unit| *unit == u16::from(b';')).next().unwrap_or_default();
    ["Mup", "LanmanRedirector", "WebDavRedirector", "vmsmb"].iter().any(|name| equals(device, name))
}

fn equals(units: &[u16], text: &str) -> bool {
    strip_prefix(units, text).is_some_and(<[u16]>::is_empty)
}

fn is_ascii(unit: u16, class: fn(&u8) -> bool) -> bool {
    u8::try_from(unit).is_ok_and(|byte| class(&byte))
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn parse(name: &str) -> Result<Prefix, Error> {
        NtPath::parse(&name.encode_utf16().collect::<Vec<_>>()).map(|path| path.prefix())
    }

    #[test]
    fn local_files_are_accepted_in_each_namespace() {
        for (name, prefix) in [
            (r"\??\C:\Firmware\e1000.rom", Prefix::Drive),
            (r"\DosDevices\z:\a", Prefix::Drive),
            (r"\global??\C:\a", Prefix::Drive),
            (r"\??\Volume{01234567-89ab-CDEF-0123-456789abcdef}\a", Prefix::VolumeGuid),
            (r"\SystemRoot\Firmware\a.bin", Prefix::SystemRoot),
            (r"\systemroot\a", Prefix::SystemRoot),
        ] {
            assert_eq!(parse(name), Ok(prefix), "{name}");
        }
    }

    #[test]
    fn devices_and_other_machines_are_refused_by_name() {
        for (name, error) in [
            (r"\Device\HarddiskVolume1\a", Error::NameDevice),
            (r"\\.\PhysicalDrive0", Error::NameDevice),
            (r"\\.\C:\a", Error::NameDevice),
            (r"\??\GLOBALROOT\Device\HarddiskVolume1\a", Error::NameDevice),
            (r"\??\PhysicalDrive0", Error::NameDevice),
            (r"\??\pipe\x", Error::NameDevice),
            (r"\??\Volume{0}\a", Error::NameDevice),
            (r"\??\GLOBAL\C:\a", Error::NameDevice),
            (r"\\server\share\a", Error::NameUnc),
            (r"\??\UNC\server\share\a", Error::NameUnc),
            (r"\\?\UNC\server\share\a", Error::NameUnc),
            (r"\Device\Mup\server\share\a", Error::NameUnc),
            (r"\device\mup;lanman\server\a", Error::NameUnc),
        ] {
            assert_eq!(parse(name), Err(error), "{name}");
        }
    }

    #[test]
    fn names_that_do_not_lead_to_a_volume_are_not_absolute() {
        for name in [
            "e1000.rom",
            r"C:\a",
            r"\a",
            r"\Windows\a",
            r"\\?\C:\a",
            r"\??\C:a",
            r"\??\",
            r"\SystemRootX\a",
            "a/b",
            r"\",
        ] {
            assert_eq!(parse(name), Err(Error::NameNotAbsolute), "{name}");
        }
    }

    #[test]
    fn names_without_a_file_are_refused() {
        for name in [r"\??\C:", r"\??\C:\", r"\SystemRoot", r"\SystemRoot\", r"\??\C:\a\"] {
            assert_eq!(parse(name), Err(Error::NameNoFile), "{name}");
        }
    }

    #[test]
    fn length_limits_are_exact() {
        assert_eq!(parse(""), Err(Error::NameEmpty));
        let name = |length: usize| {
            let mut name = String::from(r"\??\C:\");
            name.extend(vec!['x'; length - name.len()]);
            name
        };
        assert_eq!(parse(&name(MAX_NAME_UNITS)), Ok(Prefix::Drive));
        assert_eq!(parse(&name(MAX_NAME_UNITS + 1)), Err(Error::NameTooLong));
    }

    #[test]
    fn lone_surrogates_are_a_matter_for_the_file_system() {
        let mut name: Vec<u16> = r"\??\C:\".encode_utf16().collect();
        name.push(0xD800);
        assert!(NtPath::parse(&name).is_ok());
    }
}
