//! The rules for everything behind a name's prefix.

use crate::Error;

const BACKSLASH: u16 = b'\\' as u16;
const SLASH: u16 = b'/' as u16;
const DOT: u16 = b'.' as u16;
const SPACE: u16 = b' ' as u16;

/// Checks `rest`, a sequence of components with backslashes between them, none before and none after.
pub(super) fn check_components(rest: &[u16]) -> Result<(), Error> {
    if rest.is_empty() {
        return Err(Error::NameNoFile);
    }
    // First of all, and with both separators: a name that tries to climb is called that, whatever else is wrong with it.
    if rest.split(|unit| is_separator(*unit)).any(climbs) {
        return Err(Error::NameTraversal);
    }
    let mut components = rest.split(|unit| *unit == BACKSLASH).peekable();
    while let Some(component) = components.next() {
        let is_last = components.peek().is_none();
        check_component(component, is_last)?;
    }
    Ok(())
}

/// Whether a component is `.` or `..`, or something that some layer of Windows turns into one: Win32 strips trailing
/// dots and spaces, and some file systems leading spaces. No firmware file needs a name of dots and spaces.
fn climbs(component: &[u16]) -> bool {
    component.contains(&DOT) && component.iter().all(|unit| matches!(*unit, DOT | SPACE))
}

fn check_component(component: &[u16], is_last: bool) -> Result<(), Error> {
    let Some(last) = component.last() else {
        return Err(if is_last { Error::NameNoFile } else { Error::NameComponent });
    };
    for unit in component {
        match char::from_u32(u32::from(*unit)) {
            // `file:stream`, `file::$DATA`, `directory:$I30:$INDEX_ALLOCATION`, and `C:` in the wrong place.
            Some(':') => return Err(Error::NameStream),
            // `<`, `>` and `"` are wildcards too (DOS_STAR, DOS_QM, DOS_DOT).
            Some('*' | '?' | '<' | '>' | '"') => return Err(Error::NameWildcard),
            // A slash is an ordinary character to NT and a separator to everybody else.
            Some('\0'..='\x1F' | '|' | '/') => return Err(Error::NameCharacter),
            _ => {}
        }
    }
    // Such names exist on NTFS, but a Win32 program that opens one gets another file.
    if matches!(*last, DOT | SPACE) { Err(Error::NameComponent) } else { Ok(()) }
}

fn is_separator(unit: u16) -> bool {
    matches!(unit, BACKSLASH | SLASH)
}

/// `name` without `prefix`, compared without regard to the case of ASCII letters.
pub(super) fn strip_prefix<'a>(name: &'a [u16], prefix: &str) -> Option<&'a [u16]> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.iter().zip(prefix.bytes()).all(|(unit, byte)| equals_ascii(*unit, byte)).then_some(rest)
}

/// Whether `unit` is the ASCII character `byte`, in either case.
pub(super) fn equals_ascii(unit: u16, byte: u8) -> bool {
    u8::try_from(unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte))
}

/// The part of `name` up to the first backslash, and what follows that, `None` where there is no backslash.
pub(super) fn split_first(name: &[u16]) -> (&[u16], Option<&[u16]>) {
    let mut parts = name.splitn(2, |unit| *unit == BACKSLASH);
    (parts.next().unwrap_or_default(), parts.next())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn check(rest: &str) -> Result<(), Error> {
        check_components(&rest.encode_utf16().collect::<Vec<_>>())
    }

    #[test]
    fn every_spelling_of_a_dot_component_is_traversal() {
        for name in [
            ".", "..", "...", ".. ", "..  .", " ..", ". .", r"a\..\b", r"a\.\b", r"a\..", "a/../b", r"a/..\b", r"..\a",
            r"a\.. \b", r"a\\..\b", r"..\a:s", "../*",
        ] {
            assert_eq!(check(name), Err(Error::NameTraversal), "{name}");
        }
    }

    #[test]
    fn dots_inside_a_component_are_fine() {
        for name in ["e1000.rom", "..a", "a..b", r".hidden\x", r"a b\c d.bin"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn each_other_fault_has_its_own_error() {
        for (name, error) in [
            ("", Error::NameNoFile),
            (r"a\", Error::NameNoFile),
            (r"a\\b", Error::NameComponent),
            (r"\a", Error::NameComponent),
            ("a.", Error::NameComponent),
            ("a ", Error::NameComponent),
            (r"a.\b", Error::NameComponent),
            (r" \b", Error::NameComponent),
            ("a:b", Error::NameStream),
            ("a::$DATA", Error::NameStream),
            ("a:$INDEX_ALLOCATION", Error::NameStream),
            ("a*", Error::NameWildcard),
            ("a?", Error::NameWildcard),
            ("a<", Error::NameWildcard),
            ("a\"", Error::NameWildcard),
            ("a\0b", Error::NameCharacter),
            ("a\n", Error::NameCharacter),
            ("a|b", Error::NameCharacter),
            ("a/b", Error::NameCharacter),
        ] {
            assert_eq!(check(name), Err(error), "{name:?}");
        }
    }
}
