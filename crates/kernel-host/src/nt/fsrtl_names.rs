//! Names as file systems take them apart, compare and judge them (`FsRtl`).

use nt_types::{NtStatus, UNICODE_STRING};

use super::ansi::bytes;
use super::raw::Raw;
use super::unicode::{units, upcase};
use super::unicode_exports::matches_expression;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    FsRtlDissectName(max 0) = fs_rtl_dissect_name;
    FsRtlDissectDbcs(max 1) = fs_rtl_dissect_dbcs;
    FsRtlAreNamesEqual(max 0) = fs_rtl_are_names_equal;
    FsRtlDoesDbcsContainWildCards(max 1) = fs_rtl_does_dbcs_contain_wild_cards;
    FsRtlIsDbcsInExpression(max 1) = fs_rtl_is_dbcs_in_expression;
    FsRtlIsFatDbcsLegal(max 1) = fs_rtl_is_fat_dbcs_legal;
    FsRtlIsHpfsDbcsLegal(max 1) = fs_rtl_is_hpfs_dbcs_legal;
    FsRtlRemoveDotsFromPath(max 0) = fs_rtl_remove_dots_from_path;
    data FsRtlLegalAnsiCharacterArray = LEGAL_CHARACTERS;
}

/// `STRING`.
type String8 = Raw<UNICODE_STRING>;

/// Wildcards of programs, and those that they become for DOS: star, question mark and dot.
const WILD: &[u8] = b"*?<>\"";

/// What the header's macros ask `FsRtlLegalAnsiCharacterArray` for each ASCII character.
const FAT_LEGAL: u8 = 1;
const HPFS_LEGAL: u8 = 2;
const NTFS_LEGAL: u8 = 4;
const WILD_CHARACTER: u8 = 8;
const OLE_LEGAL: u8 = 16;
const NTFS_STREAM_LEGAL: u8 = 32;

static LEGAL_CHARACTERS: &[u8; 128] = &legal_characters();

const fn contains(set: &[u8], byte: u8) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

const fn legal_characters() -> [u8; 128] {
    let mut table = [0; 128];
    let mut byte = 0_u8;
    while byte < 128 {
        let flags = if contains(WILD, byte) {
            WILD_CHARACTER
        } else if byte < b' ' || contains(b"/:\\|", byte) {
            // A stream's name may have control characters, and its file's name before a colon.
            if byte != 0 && byte < b' ' { NTFS_STREAM_LEGAL } else { 0 }
        } else if contains(b"+,;=[]", byte) {
            HPFS_LEGAL | NTFS_LEGAL | OLE_LEGAL | NTFS_STREAM_LEGAL
        } else {
            FAT_LEGAL | HPFS_LEGAL | NTFS_LEGAL | OLE_LEGAL | NTFS_STREAM_LEGAL
        };
        table[byte as usize] = flags;
        byte += 1;
    }
    table
}

/// Bytes from `start`, as a string that lies in the one at `path`.
fn part(path: UNICODE_STRING, start: usize, length: usize) -> UNICODE_STRING {
    if length == 0 {
        return UNICODE_STRING::EMPTY;
    }
    let buffer = Raw::<u8>::of(path.Buffer.cast()).index(start).pointer().cast();
    UNICODE_STRING { Length: length as u16, MaximumLength: length as u16, Buffer: buffer }
}

/// Splits a path of characters of `width` bytes behind its first name.
fn dissect(path: UNICODE_STRING, text: &[u16], width: usize, first: String8, rest: String8) {
    let is_separator = |unit: &u16| *unit == u16::from(b'\\');
    let start = usize::from(text.first().is_some_and(is_separator));
    let end = text.iter().skip(start).position(is_separator).map_or(text.len(), |length| start + length);
    // The separator between the two is in neither.
    let next = (end + 1).min(text.len());
    first.write(part(path, start * width, (end - start) * width));
    rest.write(part(path, next * width, (text.len() - next) * width));
}

/// The path itself is passed, not its address: in the convention a structure of 16 bytes goes by reference.
extern "efiapi" fn fs_rtl_dissect_name(
    path: Raw<UNICODE_STRING>,
    first: Raw<UNICODE_STRING>,
    rest: Raw<UNICODE_STRING>,
) {
    let _call = Call::enter();
    dissect(path.read(), &units(path), 2, first, rest);
}

extern "efiapi" fn fs_rtl_dissect_dbcs(path: String8, first: String8, rest: String8) {
    let _call = Call::enter();
    dissect(path.read(), &wide(path), 1, first, rest);
}

/// An 8-bit string, one unit for each byte.
fn wide(string: String8) -> Vec<u16> {
    bytes(string).into_iter().map(u16::from).collect()
}

extern "efiapi" fn fs_rtl_are_names_equal(
    left: Raw<UNICODE_STRING>,
    right: Raw<UNICODE_STRING>,
    fold: u8,
    table: Raw<u16>,
) -> u8 {
    let _call = Call::enter();
    let fold = |unit: u16| match table.some() {
        _ if fold == 0 => unit,
        Some(table) => table.index(unit.into()).read(),
        None => upcase(unit),
    };
    let (left, right) = (units(left), units(right));
    // A table need not have what no name has, so that only what differs is looked up.
    let same = |(left, right): (&u16, &u16)| left == right || fold(*left) == fold(*right);
    u8::from(left.len() == right.len() && left.iter().zip(&right).all(same))
}

extern "efiapi" fn fs_rtl_does_dbcs_contain_wild_cards(name: String8) -> u8 {
    let _call = Call::enter();
    u8::from(bytes(name).iter().any(|byte| WILD.contains(byte)))
}

extern "efiapi" fn fs_rtl_is_dbcs_in_expression(expression: String8, name: String8) -> u8 {
    let _call = Call::enter();
    u8::from(matches_expression(&wide(expression), &wide(name)))
}

/// What the caller of a legality routine allows.
#[derive(Clone, Copy)]
struct Allowed {
    wild: bool,
    path: bool,
    leading_backslash: bool,
}

/// Whether all names of a path are legal by `one`, as far as the caller allows more than one.
fn is_legal(text: &[u8], allowed: Allowed, one: impl Fn(&[u8], bool) -> bool) -> bool {
    let text = match text {
        [b'\\', rest @ ..] if allowed.leading_backslash => rest,
        [] | [b'\\', ..] => return false,
        text => text,
    };
    // A lone backslash, the root directory, has no name to judge.
    if text.is_empty() {
        return true;
    }
    let mut names = text.split(|byte| *byte == b'\\');
    (allowed.path || !text.contains(&b'\\')) && names.all(|name| one(name, allowed.wild))
}

/// Whether each byte is a character that has `flag`, or a wildcard where those are allowed.
fn has_only(name: &[u8], flag: u8, wild: bool) -> bool {
    let known = |byte: &u8| LEGAL_CHARACTERS.get(usize::from(*byte)).copied().unwrap_or(flag);
    name.iter().all(|byte| known(byte) & (flag | if wild { WILD_CHARACTER } else { 0 }) != 0)
}

fn is_fat_name(name: &[u8], wild: bool) -> bool {
    if matches!(name, b"." | b"..") {
        return true;
    }
    let characters = has_only(name, FAT_LEGAL, wild);
    // A pattern may have any number of dots, and match names of every length.
    if wild && name.iter().any(|byte| WILD.contains(byte)) {
        return characters;
    }
    let mut parts = name.splitn(2, |byte| *byte == b'.');
    let fits = |part: &[u8], most| (1..=most).contains(&part.len()) && !part.contains(&b'.') && !part.ends_with(b" ");
    characters
        && parts.next().is_some_and(|base| fits(base, 8))
        && parts.next().is_none_or(|extension| fits(extension, 3))
}

fn is_hpfs_name(name: &[u8], wild: bool) -> bool {
    let ends_well = matches!(name, b"." | b"..") || !matches!(name.last(), Some(b'.' | b' ') | None);
    name.len() <= 255 && ends_well && has_only(name, HPFS_LEGAL, wild)
}

extern "efiapi" fn fs_rtl_is_fat_dbcs_legal(name: String8, wild: u8, path: u8, leading_backslash: u8) -> u8 {
    let _call = Call::enter();
    let allowed = Allowed { wild: wild != 0, path: path != 0, leading_backslash: leading_backslash != 0 };
    u8::from(is_legal(&bytes(name), allowed, is_fat_name))
}

extern "efiapi" fn fs_rtl_is_hpfs_dbcs_legal(name: String8, wild: u8, path: u8, leading_backslash: u8) -> u8 {
    let _call = Call::enter();
    let allowed = Allowed { wild: wild != 0, path: path != 0, leading_backslash: leading_backslash != 0 };
    u8::from(is_legal(&bytes(name), allowed, is_hpfs_name))
}

/// A path without `.` and `..`; `None` when it leads above where it begins.
fn without_dots(path: &[u16]) -> Option<Vec<u16>> {
    let separator = u16::from(b'\\');
    let dot = u16::from(b'.');
    let absolute = path.first() == Some(&separator);
    let mut kept: Vec<&[u16]> = Vec::new();
    for name in path.split(|unit| *unit == separator).skip(usize::from(absolute)) {
        if name == [dot] {
            continue;
        }
        if name == [dot, dot] {
            kept.pop()?;
        } else {
            kept.push(name);
        }
    }
    let mut result = if absolute { vec![separator] } else { Vec::new() };
    result.extend(kept.join(&separator));
    Some(result)
}

extern "efiapi" fn fs_rtl_remove_dots_from_path(path: Raw<u16>, length: u16, new_length: Raw<u16>) -> NtStatus {
    let _call = Call::enter();
    let Some(kept) = without_dots(&path.read_slice(usize::from(length / 2))) else {
        return NtStatus::IO_REPARSE_DATA_INVALID;
    };
    kept.iter().enumerate().for_each(|(at, unit)| path.index(at).write(*unit));
    new_length.write((kept.len() * 2) as u16);
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests;
