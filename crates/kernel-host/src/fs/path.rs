//! A name below a volume, cut into components the way NTFS does it.
//!
//! NT does not normalise: Win32 removes `.` and `..` before the kernel sees a name, so a component of that spelling
//! that arrives here is an illegal name. Checking that once, before anything touches the host folder, is what keeps every
//! later lookup below the volume's root.

use nt_types::NtStatus;

/// Longest component in characters, without its stream suffix.
const MAX_COMPONENT: usize = 255;

/// A parsed volume-relative name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumePath {
    /// Names from the root down. Empty: the root directory, or the volume itself (see `volume`).
    pub(crate) components: Vec<Vec<u16>>,
    /// Named stream, upper or lower case as given; `None` for the default stream.
    pub(crate) stream: Option<Vec<u16>>,
    /// The name ended in `\`, so that only a directory will do.
    pub(crate) directory_only: bool,
    /// The stream type was spelled `$INDEX_ALLOCATION`: a directory under its other name.
    pub(crate) index: bool,
    /// Nothing at all followed the device name: the open is of the volume.
    pub(crate) volume: bool,
}

impl VolumePath {
    /// The root directory.
    pub(crate) fn root() -> Self {
        Self { components: Vec::new(), stream: None, directory_only: true, index: false, volume: false }
    }

    /// Parses what follows the device name: empty, or starting with a backslash.
    ///
    /// # Errors
    /// `OBJECT_NAME_INVALID` for an empty, over-long, dotted or ill-spelled component, and
    /// `OBJECT_PATH_SYNTAX_BAD` where the leading backslash is missing.
    pub(crate) fn parse(name: &[u16]) -> Result<Self, NtStatus> {
        let mut path =
            Self { components: Vec::new(), stream: None, directory_only: false, index: false, volume: name.is_empty() };
        if name.is_empty() {
            return Ok(path);
        }
        let Some((&first, mut rest)) = name.split_first() else {
            return Ok(path);
        };
        if first != SEPARATOR {
            return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
        }
        if let Some((&SEPARATOR, shorter)) = rest.split_last() {
            path.directory_only = true;
            rest = shorter;
        }
        if rest.is_empty() {
            // `\` is the root directory; `\\` has an empty component.
            return if path.directory_only {
                Err(NtStatus::OBJECT_NAME_INVALID)
            } else {
                path.directory_only = true;
                Ok(path)
            };
        }
        let mut parts: Vec<&[u16]> = rest.split(|&unit| unit == SEPARATOR).collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            check_component(part)?;
            path.components.push(part.to_vec());
        }
        path.parse_last(last)?;
        Ok(path)
    }

    /// The last component may carry `:stream:type`.
    fn parse_last(&mut self, last: &[u16]) -> Result<(), NtStatus> {
        let mut fields = last.split(|&unit| unit == u16::from(b':'));
        let file = fields.next().unwrap_or_default();
        let stream = fields.next();
        let kind = fields.next();
        if fields.next().is_some() {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        check_component(file)?;
        self.components.push(file.to_vec());
        let Some(stream) = stream else { return Ok(()) };
        match kind.map(String::from_utf16_lossy) {
            // `f:` names no stream and no type.
            None if stream.is_empty() => Err(NtStatus::OBJECT_NAME_INVALID),
            None => self.set_stream(stream),
            Some(kind) if kind.eq_ignore_ascii_case("$DATA") => self.set_stream(stream),
            Some(kind) if kind.eq_ignore_ascii_case("$INDEX_ALLOCATION") => {
                if !stream.is_empty() && !String::from_utf16_lossy(stream).eq_ignore_ascii_case("$I30") {
                    return Err(NtStatus::OBJECT_NAME_INVALID);
                }
                self.index = true;
                Ok(())
            }
            Some(_) => Err(NtStatus::OBJECT_NAME_INVALID),
        }
    }

    fn set_stream(&mut self, stream: &[u16]) -> Result<(), NtStatus> {
        if stream.len() > MAX_COMPONENT || self.directory_only {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        if !stream.is_empty() {
            self.stream = Some(stream.to_vec());
        }
        Ok(())
    }

    /// The name as the file system reports it: components joined, with the stream, without its type.
    pub(crate) fn display(&self) -> Vec<u16> {
        let mut name = Vec::new();
        for component in &self.components {
            name.push(SEPARATOR);
            name.extend_from_slice(component);
        }
        if name.is_empty() && !self.volume {
            name.push(SEPARATOR);
        }
        if let Some(stream) = &self.stream {
            name.push(u16::from(b':'));
            name.extend_from_slice(stream);
        }
        name
    }
}

/// The path separator.
pub(crate) const SEPARATOR: u16 = b'\\' as u16;

fn check_component(name: &[u16]) -> Result<(), NtStatus> {
    const FORBIDDEN: &[u8] = b"\"*/:<>?|";
    let dot = u16::from(b'.');
    let illegal = name.is_empty()
        || name.len() > MAX_COMPONENT
        || name == [dot]
        || name == [dot, dot]
        || name.iter().any(|&unit| unit < 0x20 || FORBIDDEN.iter().any(|&c| unit == u16::from(c)));
    if illegal { Err(NtStatus::OBJECT_NAME_INVALID) } else { Ok(()) }
}

/// Upper case as NT compares names: one UTF-16 unit at a time, no expansion (`ß` stays itself).
pub(crate) fn upcase(name: &[u16]) -> Vec<u16> {
    name.iter().map(|&unit| upcase_unit(unit)).collect()
}

fn upcase_unit(unit: u16) -> u16 {
    let Some(c) = char::from_u32(u32::from(unit)) else { return unit };
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// Whether NT takes the two names for the same.
pub(crate) fn same_name(a: &[u16], b: &[u16]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| a == b || upcase_unit(a) == upcase_unit(b))
}

/// UTF-16 of a text.
pub(crate) fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Result<VolumePath, NtStatus> {
        VolumePath::parse(&wide(name))
    }

    #[test]
    fn dot_components_are_illegal_names_and_not_normalised() {
        for name in [r"\a\..\b", r"\..", r"\.", r"\a\.\b", r"\..\..\etc\passwd", r"\a\.."] {
            assert_eq!(parse(name), Err(NtStatus::OBJECT_NAME_INVALID), "{name}");
        }
        assert!(parse(r"\a..b\...").is_ok());
    }

    #[test]
    fn a_slash_never_reaches_the_host() {
        assert_eq!(parse(r"\a/../b"), Err(NtStatus::OBJECT_NAME_INVALID));
        assert_eq!(parse("\\a\0b"), Err(NtStatus::OBJECT_NAME_INVALID));
    }

    #[test]
    fn empty_components_are_illegal() {
        assert_eq!(parse(r"\a\\b"), Err(NtStatus::OBJECT_NAME_INVALID));
        assert_eq!(parse(r"\\"), Err(NtStatus::OBJECT_NAME_INVALID));
        assert_eq!(parse("a"), Err(NtStatus::OBJECT_PATH_SYNTAX_BAD));
    }

    #[test]
    fn the_default_stream_has_two_spellings_and_a_named_one_three() {
        assert_eq!(parse(r"\f::$DATA").unwrap().stream, None);
        assert_eq!(parse(r"\f").unwrap().stream, None);
        assert_eq!(parse(r"\f:s").unwrap().stream, Some(wide("s")));
        assert_eq!(parse(r"\f:s:$data").unwrap().stream, Some(wide("s")));
        assert!(parse(r"\d:$I30:$INDEX_ALLOCATION").unwrap().index);
        for name in [r"\f:", r"\f:s:$X", r"\f:s:$DATA:", r"\f:s\g", r"\:s"] {
            assert_eq!(parse(name), Err(NtStatus::OBJECT_NAME_INVALID), "{name}");
        }
    }

    #[test]
    fn a_component_above_255_characters_is_illegal() {
        let name = |n: usize| format!("\\{}", "x".repeat(n));
        assert!(parse(&name(255)).is_ok());
        assert_eq!(parse(&name(256)), Err(NtStatus::OBJECT_NAME_INVALID));
    }

    #[test]
    fn the_volume_and_its_root_directory_are_told_apart() {
        assert!(parse("").unwrap().volume);
        let root = parse("\\").unwrap();
        assert!(!root.volume && root.directory_only && root.display() == wide("\\"));
    }

    #[test]
    fn names_compare_without_case_but_without_expansion() {
        assert!(same_name(&wide("Äb.ROM"), &wide("äB.rom")));
        assert!(!same_name(&wide("ß"), &wide("SS")));
    }
}
