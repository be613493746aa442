//! Paths as the driver wants them: NT paths in UTF-16.

use std::fmt;

use protocol::Name;

use crate::Error;

/// An NT path, such as `\??\C:\Firmware\nic.rom`. What it names, and whether that is allowed, is the driver's to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NtPath {
    text: String,
    units: Vec<u16>,
}

/// Starts of paths that are NT paths already, and go to the driver as they are.
const NT_PREFIXES: [&str; 5] = [r"\??\", r"\Device\", r"\SystemRoot\", r"\DosDevices\", r"\GLOBAL??\"];

impl NtPath {
    /// The NT path for what a user typed: a Win32 path (`C:\fw\x.rom`, `\\server\share\x`, `\\?\C:\x`) or an NT path.
    ///
    /// Nothing is normalised: `..` and the like reach the driver as they are, which refuses them, so that what was typed
    /// and what is opened never differ. Relative paths are completed on Windows; elsewhere there is no
    /// current folder of the machine in which the driver runs, so they are an error.
    pub fn from_user(path: &str) -> Result<Self, Error> {
        if let Some(nt) = Self::from_absolute(path) {
            return Ok(nt);
        }
        #[cfg(windows)]
        if let Some(nt) = std::path::absolute(path).ok().and_then(|full| Self::from_absolute(full.to_str()?)) {
            return Ok(nt);
        }
        Err(Error::Usage {
            message: format!("`{path}` is not a full path"),
            next: r"give a path such as C:\Firmware\nic.rom or \SystemRoot\Firmware\nic.rom".into(),
        })
    }

    fn from_absolute(path: &str) -> Option<Self> {
        let starts_with =
            |prefix: &str| path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if NT_PREFIXES.into_iter().any(starts_with) {
            return Some(Self::new(path.to_owned()));
        }
        // `\\?\` turns Win32's normalisation off and is otherwise `\??\`; `\\.\` names devices there.
        if let Some(rest) = path.strip_prefix(r"\\?\").or_else(|| path.strip_prefix(r"\\.\")) {
            return Some(Self::new(format!(r"\??\{rest}")));
        }
        if let Some(rest) = path.strip_prefix(r"\\").or_else(|| path.strip_prefix("//")) {
            return Some(Self::new(format!(r"\??\UNC\{}", rest.replace('/', r"\"))));
        }
        match path.as_bytes() {
            [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic() => {
                Some(Self::new(format!(r"\??\{}", path.replace('/', r"\"))))
            }
            _ => None,
        }
    }

    fn new(text: String) -> Self {
        let units = text.encode_utf16().collect();
        Self { text, units }
    }

    /// As it goes into a message.
    #[must_use]
    pub fn name(&self) -> Name<'_> {
        Name::from_units(&self.units)
    }

    /// The last part of the path.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.text.rsplit('\\').next().unwrap_or_default()
    }

    /// The Win32 path of the same file, where there is one.
    #[cfg(windows)]
    #[must_use]
    pub fn win32(&self) -> Option<std::path::PathBuf> {
        let rest = self.text.strip_prefix(r"\??\")?;
        matches!(rest.as_bytes(), [drive, b':', b'\\', ..] if drive.is_ascii_alphabetic()).then(|| rest.into())
    }
}

impl fmt::Display for NtPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(shown(&self.text))
    }
}

/// An NT path as users write it: without the `\??\` in front of a drive letter.
pub(crate) fn shown(nt_path: &str) -> &str {
    nt_path.strip_prefix(r"\??\").unwrap_or(nt_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nt(path: &str) -> String {
        NtPath::from_user(path).unwrap().text
    }

    #[test]
    fn win32_paths_get_the_prefix_of_the_dos_devices() {
        assert_eq!(nt(r"C:\fw\x.rom"), r"\??\C:\fw\x.rom");
        assert_eq!(nt("c:/fw/x.rom"), r"\??\c:\fw\x.rom");
        assert_eq!(nt(r"\\?\C:\fw\x.rom"), r"\??\C:\fw\x.rom");
        assert_eq!(nt(r"\\server\share\x"), r"\??\UNC\server\share\x");
        assert_eq!(nt(r"\\.\PhysicalDrive0"), r"\??\PhysicalDrive0");
    }

    #[test]
    fn nt_paths_and_tricky_parts_reach_the_driver_as_typed() {
        for path in [
            r"\??\C:\fw\x.rom",
            r"\Device\HarddiskVolume1\x",
            r"\systemroot\Firmware\nic.rom",
            r"\??\C:\fw\..\x",
            r"\??\C:\fw\x:stream",
        ] {
            assert_eq!(nt(path), path);
        }
        assert_eq!(nt(r"C:\fw\..\secret"), r"\??\C:\fw\..\secret");
    }

    #[test]
    fn file_name_and_display_are_what_users_expect() {
        let path = NtPath::from_user(r"C:\fw\x.rom").unwrap();
        assert_eq!((path.file_name(), path.to_string().as_str()), ("x.rom", r"C:\fw\x.rom"));
    }

    #[cfg(unix)]
    #[test]
    fn relative_paths_mean_nothing_outside_the_machine() {
        for path in ["x.rom", r"\fw\x.rom", "C:x.rom", "", "/tmp/x.rom", "é:\\x"] {
            assert_eq!(NtPath::from_user(path).unwrap_err().exit_code(), 2, "{path}");
        }
    }
}
