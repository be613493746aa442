//! Short (8.3) names: which names are legal ones, and how one is made for a long name.

use nt_types::{NtStatus, UNICODE_STRING};

use super::ansi::{narrow, widen};
use super::raw::{Raw, field};
use super::unicode::{units, upcase};
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlIsNameLegalDOS8Dot3(max 1) = rtl_is_name_legal_dos_8dot3;
    RtlGenerate8dot3Name(max 1) = rtl_generate_8dot3_name;
    RtlIsValidOemCharacter(max 0) = rtl_is_valid_oem_character;
}

/// Characters of a name before its dot, behind it, and with everything.
const BASE: usize = 8;
const EXTENSION: usize = 3;
const WHOLE: usize = BASE + 1 + EXTENSION;

const DOT: u16 = b'.' as u16;
const SPACE: u16 = b' ' as u16;
const UNDERSCORE: u16 = b'_' as u16;

/// Characters that no file name has, and those that only long ones have.
const ILLEGAL: &[u8] = b"\"*/:<>?\\|";
const LONG_ONLY: &[u8] = b"+,;=[]";

/// Fields of `GENERATE_NAME_CONTEXT`.
mod context {
    pub(super) const CHECKSUM: usize = 0;
    pub(super) const CHECKSUM_INSERTED: usize = 2;
    pub(super) const NAME_LENGTH: usize = 3;
    pub(super) const NAME: usize = 4;
    pub(super) const EXTENSION_LENGTH: usize = 20;
    pub(super) const EXTENSION: usize = 24;
    pub(super) const LAST_INDEX: usize = 32;
}

/// Characters of a long name that a short one begins with.
const KEPT: usize = 6;
/// Those that are left where a checksum follows them.
const KEPT_BEFORE_CHECKSUM: usize = 2;
/// How many names are made without a checksum.
const PLAIN_TRIES: u32 = 4;
/// The page: after a million names there are no more.
const MOST_TRIES: u32 = 1_000_000;

/// Whether an upper-case OEM name is a legal short one; if so, whether it has spaces.
fn is_legal(name: &[u8]) -> Option<bool> {
    if matches!(name, b"." | b"..") {
        return Some(false);
    }
    let is_allowed = |byte: &u8| *byte >= b' ' && !ILLEGAL.contains(byte) && !LONG_ONLY.contains(byte);
    let (base, extension) = match name.iter().position(|byte| *byte == b'.') {
        Some(dot) => (name.get(..dot)?, Some(name.get(dot + 1..)?)),
        None => (name, None),
    };
    let fits = |part: &[u8], most| (1..=most).contains(&part.len()) && !part.contains(&b'.') && !part.ends_with(b" ");
    let legal = fits(base, BASE) && extension.is_none_or(|extension| fits(extension, EXTENSION));
    (legal && name.iter().all(is_allowed)).then(|| name.contains(&b' '))
}

extern "efiapi" fn rtl_is_name_legal_dos_8dot3(
    name: Raw<UNICODE_STRING>,
    oem_name: Raw<UNICODE_STRING>,
    has_spaces: Raw<u8>,
) -> u8 {
    let _call = Call::enter();
    let name = units(name);
    if name.len() > WHOLE {
        return 0;
    }
    let oem: Vec<u8> = name.iter().map(|unit| narrow(upcase(*unit))).collect();
    if let Some(out) = oem_name.some() {
        let room = out.read();
        if usize::from(room.MaximumLength) < oem.len() {
            return 0;
        }
        Raw::<u8>::of(room.Buffer.cast()).write_bytes(&oem);
        field!(out, UNICODE_STRING, Length).write(oem.len() as u16);
    }
    let Some(spaces) = is_legal(&oem) else { return 0 };
    has_spaces.write_if_some(spaces.into());
    1
}

/// What a character of a long name is in a short one; `None` for one that is left out.
fn short_character(unit: u16, extended: bool) -> Option<u16> {
    let byte = u8::try_from(unit).unwrap_or(0x80);
    if unit == SPACE || unit == DOT || ILLEGAL.iter().any(|illegal| *illegal == byte && *illegal != b':') {
        return None;
    }
    if byte == b':' || LONG_ONLY.contains(&byte) {
        return Some(UNDERSCORE);
    }
    if unit < 0x80 {
        return Some(upcase(unit)).filter(|unit| *unit > SPACE);
    }
    let mapped = widen(narrow(upcase(unit)));
    Some(if extended && mapped == upcase(unit) { mapped } else { UNDERSCORE })
}

/// The parts of a long name that short ones are made of: what comes before its last dot, and what comes behind it.
fn parts(name: &[u16], extended: bool) -> (Vec<u16>, Vec<u16>) {
    let start = name.iter().position(|unit| *unit != DOT).unwrap_or(name.len());
    let name = name.get(start..).unwrap_or_default();
    let (base, extension) = match name.iter().rposition(|unit| *unit == DOT) {
        Some(dot) => name.split_at(dot),
        None => (name, &[][..]),
    };
    let take =
        |part: &[u16], most| part.iter().filter_map(|unit| short_character(*unit, extended)).take(most).collect();
    (take(base, KEPT), take(extension, EXTENSION))
}

/// A checksum over the long name, as four hexadecimal digits.
fn digits(checksum: u16) -> impl Iterator<Item = u16> {
    (0..4).map(move |place| u16::from(b"0123456789ABCDEF"[usize::from(checksum >> (4 * place) & 0xF)]))
}

/// The state between the calls for one long name, in the caller's buffer.
struct Context(Raw<u8>);

impl Context {
    fn base(&self) -> Vec<u16> {
        let length = self.0.field::<u8>(context::NAME_LENGTH).read();
        self.0.field::<u16>(context::NAME).read_slice(usize::from(length).min(BASE))
    }

    fn set_base(&self, base: &[u16]) {
        self.0.field::<u8>(context::NAME_LENGTH).write(base.len() as u8);
        base.iter().enumerate().for_each(|(at, unit)| self.0.field::<u16>(context::NAME).index(at).write(*unit));
    }

    fn index(&self) -> Raw<u32> {
        self.0.field(context::LAST_INDEX)
    }

    /// The first call: takes from the long name what all short ones have.
    fn begin(&self, name: &[u16], extended: bool) {
        let (base, extension) = parts(name, extended);
        let sum = name.iter().fold(0_u16, |sum, unit| sum.rotate_left(3).wrapping_mul(0x9E37) ^ unit);
        self.0.field::<u16>(context::CHECKSUM).write(sum);
        self.0.field::<u32>(context::EXTENSION_LENGTH).write(extension.len() as u32);
        let at = self.0.field::<u16>(context::EXTENSION);
        extension.iter().enumerate().for_each(|(index, unit)| at.index(index).write(*unit));
        self.set_base(&base);
        // So little is left of the name that numbers alone would soon run out.
        if base.len() <= KEPT_BEFORE_CHECKSUM {
            self.insert_checksum();
        }
    }

    fn insert_checksum(&self) {
        let sum = self.0.field::<u16>(context::CHECKSUM).read();
        let base: Vec<u16> = self.base().into_iter().take(KEPT_BEFORE_CHECKSUM).chain(digits(sum)).collect();
        self.set_base(&base);
        self.0.field::<u8>(context::CHECKSUM_INSERTED).write(1);
    }

    /// The next name.
    fn next(&self) -> Option<Vec<u16>> {
        let mut index = self.index().read() + 1;
        if index > PLAIN_TRIES && self.0.field::<u8>(context::CHECKSUM_INSERTED).read() == 0 {
            self.insert_checksum();
            index = 1;
        }
        if index >= MOST_TRIES {
            return None;
        }
        self.index().write(index);
        let tail: Vec<u16> = format!("~{index}").encode_utf16().collect();
        let mut name = self.base();
        name.truncate(BASE - tail.len());
        name.extend(tail);
        let length = self.0.field::<u32>(context::EXTENSION_LENGTH).read() as usize;
        let extension = self.0.field::<u16>(context::EXTENSION).read_slice(length.min(EXTENSION));
        if !extension.is_empty() {
            name.push(DOT);
            name.extend(extension);
        }
        Some(name)
    }
}

extern "efiapi" fn rtl_generate_8dot3_name(
    name: Raw<UNICODE_STRING>,
    extended: u8,
    state: Raw<u8>,
    short_name: Raw<UNICODE_STRING>,
) -> NtStatus {
    let call = Call::enter();
    let room = field!(short_name, UNICODE_STRING, MaximumLength).read();
    if usize::from(room) < WHOLE * 2 {
        let message = format!("the buffer for a short name has {room} bytes; {} are needed", WHOLE * 2);
        call.stop(crate::finding::Rule::BadArgument, message);
    }
    let context = Context(state);
    if context.index().read() == 0 && context.base().is_empty() {
        context.begin(&units(name), extended != 0);
    }
    let Some(short) = context.next() else { return NtStatus::FILE_SYSTEM_LIMITATION };
    let buffer = Raw::of(field!(short_name, UNICODE_STRING, Buffer).read());
    short.iter().enumerate().for_each(|(at, unit)| buffer.index(at).write(*unit));
    field!(short_name, UNICODE_STRING, Length).write((short.len() * 2) as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_is_valid_oem_character(character: Raw<u16>) -> u8 {
    let _call = Call::enter();
    let unit = upcase(character.read());
    // What the code page lacks becomes a question mark, which the character may also have been.
    let oem = narrow(unit);
    if oem == b'?' && unit != u16::from(b'?') {
        return 0;
    }
    character.write(widen(oem));
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn legal(name: &str) -> Option<(bool, Vec<u8>)> {
        let text: Vec<u16> = name.encode_utf16().collect();
        let mut string = UNICODE_STRING::from_utf16(&text).expect("short");
        let mut room = [0_u8; 16];
        let mut oem = UNICODE_STRING { Length: 0, MaximumLength: 16, Buffer: room.as_mut_ptr().cast() };
        let (mut spaces, oem) = (9, Raw::of(&raw mut oem));
        let is = rtl_is_name_legal_dos_8dot3(Raw::of(&raw mut string), oem, Raw::of(&raw mut spaces));
        (is != 0).then(|| (spaces != 0, crate::nt::ansi::bytes(oem)))
    }

    /// The first `count` names for a long one.
    fn generate(name: &str, extended: u8, count: usize) -> Vec<String> {
        let text: Vec<u16> = name.encode_utf16().collect();
        let mut string = UNICODE_STRING::from_utf16(&text).expect("short");
        let mut state = [0_u32; 9];
        let mut room = [0_u16; 12];
        let mut short = UNICODE_STRING { Length: 0, MaximumLength: 24, Buffer: room.as_mut_ptr() };
        let short = Raw::of(&raw mut short);
        let state = Raw::<u32>::of((&raw mut state).cast()).cast();
        let next = |_| {
            assert_eq!(rtl_generate_8dot3_name(Raw::of(&raw mut string), extended, state, short), NtStatus::SUCCESS);
            String::from_utf16(&units(short)).unwrap()
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn names_of_eight_and_three_legal_characters_are_short_names() {
        conforms!(
            "ntifs/nf-ntifs-rtlisnamelegaldos8dot3.md",
            "TRUE is returned for a properly formed 8.3 name of legal characters, whose upper-case OEM form is stored."
        );
        conforms!("ntifs/nf-ntifs-rtlisnamelegaldos8dot3.md", "NameContainsSpaces says whether a legal name has any.");
        Bench::new()
            .run(|| {
                assert_eq!(legal("Setup.exe"), Some((false, b"SETUP.EXE".to_vec())));
                assert_eq!(legal("a b.c"), Some((true, b"A B.C".to_vec())));
                for name in ["x", "12345678.123", ".", ".."] {
                    assert!(legal(name).is_some(), "{name}");
                }
                for name in ["", "123456789", "a.1234", "a.b.c", ".a", "a.", "a .b", "a+b", "a*b", "a\u{1}"] {
                    assert_eq!(legal(name), None, "{name}");
                }
            })
            .unwrap();
    }

    #[test]
    fn short_names_are_numbered_and_then_told_apart_by_a_checksum() {
        conforms!(
            "ntifs/nf-ntifs-rtlgenerate8dot3name.md",
            "At most eight characters, a period and up to three more, all upper case; a further call gives another name."
        );
        conforms!("ntifs/nf-ntifs-rtlgenerate8dot3name.md", "Leading periods of the long name are skipped.");
        conforms!(
            "ntifs/nf-ntifs-rtlgenerate8dot3name.md",
            "Colons, semicolons, commas, plus and equal signs and square brackets become underscores."
        );
        Bench::new()
            .run(|| {
                let names = generate("..Long file.name.html", 0, 40);
                assert_eq!(names[..4], ["LONGFI~1.HTM", "LONGFI~2.HTM", "LONGFI~3.HTM", "LONGFI~4.HTM"]);
                assert!(names[4].starts_with("LO") && names[4].ends_with("~1.HTM"), "{}", names[4]);
                assert!(names.iter().all(|name| legal(name).is_some()), "{names:?}");
                let mut different = names.clone();
                different.dedup();
                assert_eq!(different.len(), names.len());
                assert_eq!(generate("a+b,c;d=[e]", 0, 1), ["A_B_C_~1"]);
            })
            .unwrap();
    }

    #[test]
    fn characters_beyond_ascii_are_kept_only_where_they_may_be() {
        conforms!(
            "ntifs/nf-ntifs-rtlgenerate8dot3name.md",
            "Characters beyond 0x7F are in the short name only with AllowExtendedCharacters."
        );
        Bench::new()
            .run(|| {
                assert_eq!(generate("größe der datei", 1, 1), ["GRÖßED~1"]);
                assert_eq!(generate("größe der datei", 0, 1), ["GR__ED~1"]);
            })
            .unwrap();
    }

    #[test]
    fn a_character_is_valid_when_the_code_page_has_it() {
        conforms!(
            "ntifs/nf-ntifs-rtlisvalidoemcharacter.md",
            "TRUE is returned for a character that the OEM code page has, which is stored in upper case."
        );
        Bench::new()
            .run(|| {
                let valid = |unit: u16| {
                    let mut unit = unit;
                    let is = rtl_is_valid_oem_character(Raw::of(&raw mut unit));
                    (is, unit)
                };
                assert_eq!([valid(0x61), valid(0xE4), valid(0x3F)], [(1, 0x41), (1, 0xC4), (1, 0x3F)]);
                assert_eq!(valid(0x4E2D).0, 0);
            })
            .unwrap();
    }
}
