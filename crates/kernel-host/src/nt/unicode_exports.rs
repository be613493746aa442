//! More of the `UNICODE_STRING` routines, and name expressions with wildcards.

use nt_types::{NtStatus, UNICODE_STRING};

use super::ansi::deliver;
use super::raw::Raw;
use super::unicode::{downcase, units, upcase};
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitUnicodeStringEx(max 31) = rtl_init_unicode_string_ex;
    RtlCreateUnicodeString(max 0) = rtl_create_unicode_string;
    RtlDuplicateUnicodeString(max 0, fails NO_MEMORY) = rtl_duplicate_unicode_string;
    RtlDowncaseUnicodeString(max 1, fails NO_MEMORY) = rtl_downcase_unicode_string;
    RtlValidateUnicodeString(max 0) = rtl_validate_unicode_string;
    RtlHashUnicodeString(max 1) = rtl_hash_unicode_string;
    RtlCompareUnicodeStrings(max 0) = rtl_compare_unicode_strings;
    FsRtlIsNameInExpression(max 0) = fs_rtl_is_name_in_expression;
    FsRtlDoesNameContainWildCards(max 0) = fs_rtl_does_name_contain_wild_cards;
}

/// Most characters that a counted string can have with its terminator.
const MOST_CHARACTERS: usize = 0x7FFE;
/// Flags of `RtlDuplicateUnicodeString`.
const NULL_TERMINATE: u32 = 1;
const ALLOCATE_NULL_STRING: u32 = 2;
/// `HASH_STRING_ALGORITHM_DEFAULT` and `HASH_STRING_ALGORITHM_X65599`, which are the same.
const HASH_DEFAULT: u32 = 0;
const HASH_X65599: u32 = 1;

extern "efiapi" fn rtl_init_unicode_string_ex(target: Raw<UNICODE_STRING>, source: Raw<u16>) -> NtStatus {
    let _call = Call::enter();
    target.write(UNICODE_STRING::EMPTY);
    let Some(text) = source.some() else { return NtStatus::SUCCESS };
    let Some(length) = (0..=MOST_CHARACTERS).find(|at| text.index(*at).read() == 0) else {
        return NtStatus::NAME_TOO_LONG;
    };
    let bytes = (length * 2) as u16;
    target.write(UNICODE_STRING { Length: bytes, MaximumLength: bytes + 2, Buffer: source.pointer() });
    NtStatus::SUCCESS
}

fn bytes_of(text: impl IntoIterator<Item = u16>) -> Vec<u8> {
    text.into_iter().flat_map(u16::to_le_bytes).collect()
}

extern "efiapi" fn rtl_create_unicode_string(target: Raw<UNICODE_STRING>, source: Raw<u16>) -> u8 {
    let call = Call::enter();
    let Some(length) = (0..=MOST_CHARACTERS).find(|at| source.index(*at).read() == 0) else { return 0 };
    let bytes = bytes_of(source.read_slice(length + 1));
    u8::from(deliver(&call, target, &bytes, length * 2, 1, NtStatus::NO_MEMORY).is_success())
}

extern "efiapi" fn rtl_duplicate_unicode_string(
    flags: u32,
    source: Raw<UNICODE_STRING>,
    target: Raw<UNICODE_STRING>,
) -> NtStatus {
    let call = Call::enter();
    if flags & !(NULL_TERMINATE | ALLOCATE_NULL_STRING) != 0 || flags == ALLOCATE_NULL_STRING {
        return NtStatus::INVALID_PARAMETER;
    }
    let text = units(source);
    if text.is_empty() && flags & ALLOCATE_NULL_STRING == 0 {
        target.write(UNICODE_STRING::EMPTY);
        return NtStatus::SUCCESS;
    }
    let length = text.len() * 2;
    let terminator = (flags & NULL_TERMINATE != 0).then_some(0);
    let bytes = bytes_of(text.into_iter().chain(terminator));
    deliver(&call, target, &bytes, length, 1, NtStatus::NO_MEMORY)
}

extern "efiapi" fn rtl_downcase_unicode_string(
    target: Raw<UNICODE_STRING>,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let bytes = bytes_of(units(source).into_iter().map(downcase));
    if bytes.is_empty() && allocate != 0 {
        target.write(UNICODE_STRING::EMPTY);
        return NtStatus::SUCCESS;
    }
    deliver(&call, target, &bytes, bytes.len(), allocate, NtStatus::BUFFER_OVERFLOW)
}

extern "efiapi" fn rtl_validate_unicode_string(_flags: u32, string: Raw<UNICODE_STRING>) -> NtStatus {
    let _call = Call::enter();
    let Some(string) = string.some() else { return NtStatus::SUCCESS };
    let string = string.read();
    let even = string.Length.is_multiple_of(2) && string.MaximumLength.is_multiple_of(2);
    let has_room = string.Length <= string.MaximumLength && (string.MaximumLength == 0 || !string.Buffer.is_null());
    if even && has_room { NtStatus::SUCCESS } else { NtStatus::INVALID_PARAMETER }
}

extern "efiapi" fn rtl_hash_unicode_string(
    string: Raw<UNICODE_STRING>,
    fold: u8,
    algorithm: u32,
    hash: Raw<u32>,
) -> NtStatus {
    let _call = Call::enter();
    if string.is_null() || hash.is_null() || !matches!(algorithm, HASH_DEFAULT | HASH_X65599) {
        return NtStatus::INVALID_PARAMETER;
    }
    let folded = units(string).into_iter().map(|unit| if fold == 0 { unit } else { upcase(unit) });
    hash.write(folded.fold(0_u32, |sum, unit| sum.wrapping_mul(65_599).wrapping_add(unit.into())));
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_compare_unicode_strings(
    left: Raw<u16>,
    left_length: usize,
    right: Raw<u16>,
    right_length: usize,
    fold: u8,
) -> i32 {
    let _call = Call::enter();
    let folded = |unit: u16| if fold == 0 { unit } else { upcase(unit) };
    let (left, right) = (left.read_slice(left_length), right.read_slice(right_length));
    match left.iter().zip(&right).find(|(one, other)| folded(**one) != folded(**other)) {
        Some((one, other)) => i32::from(folded(*one)) - i32::from(folded(*other)),
        None => i32::try_from(left.len()).unwrap_or(i32::MAX) - i32::try_from(right.len()).unwrap_or(i32::MAX),
    }
}

/// Wildcards of DOS, as programs' `*` and `?` are translated.
const DOS_STAR: u16 = b'<' as u16;
const DOS_QM: u16 = b'>' as u16;
const DOS_DOT: u16 = b'"' as u16;
const STAR: u16 = b'*' as u16;
const QM: u16 = b'?' as u16;
const DOT: u16 = b'.' as u16;

/// Whether a name matches an expression, by the rules of the page of `FsRtlIsNameInExpression`; both in the same case.
pub(crate) fn matches_expression(expression: &[u16], name: &[u16]) -> bool {
    if expression.is_empty() || name.is_empty() {
        return expression.is_empty() && name.is_empty();
    }
    // Which ends of the expression's beginnings match what was read of the name: as an automaton with one state per place.
    let mut reached = vec![false; expression.len() + 1];
    reached[0] = true;
    let last_dot = name.iter().rposition(|unit| *unit == DOT);
    spread(expression, &mut reached, name, 0);
    for (at, unit) in name.iter().enumerate() {
        let mut next = vec![false; expression.len() + 1];
        for (place, wanted) in expression.iter().enumerate().filter(|(place, _)| reached[*place]) {
            match *wanted {
                STAR => next[place] = true,
                // Up to the final dot, which it may match too; without one, all.
                DOS_STAR if last_dot.is_none_or(|dot| at <= dot) => {
                    next[place] = true;
                    next[place + 1] |= last_dot == Some(at);
                }
                QM => next[place + 1] = true,
                DOS_QM if *unit != DOT => next[place + 1] = true,
                DOS_DOT if *unit == DOT => next[place + 1] = true,
                wanted if wanted == *unit => next[place + 1] = true,
                _ => {}
            }
        }
        reached = next;
        spread(expression, &mut reached, name, at + 1);
    }
    reached[expression.len()]
}

/// Adds the places that are reached without reading a character.
fn spread(expression: &[u16], reached: &mut [bool], name: &[u16], at: usize) {
    let ends_here = at >= name.len();
    let before_dot = name.get(at) == Some(&DOT);
    for (place, wanted) in expression.iter().enumerate() {
        if !reached[place] {
            continue;
        }
        let empty = match *wanted {
            STAR | DOS_STAR => true,
            DOS_QM => ends_here || before_dot,
            DOS_DOT => ends_here,
            _ => false,
        };
        reached[place + 1] |= empty;
    }
}

extern "efiapi" fn fs_rtl_is_name_in_expression(
    expression: Raw<UNICODE_STRING>,
    name: Raw<UNICODE_STRING>,
    fold: u8,
    _upcase_table: Raw<u16>,
) -> u8 {
    let _call = Call::enter();
    // The page: the expression has to be in upper case already when case is ignored.
    let name: Vec<u16> = units(name).into_iter().map(|unit| if fold == 0 { unit } else { upcase(unit) }).collect();
    u8::from(matches_expression(&units(expression), &name))
}

extern "efiapi" fn fs_rtl_does_name_contain_wild_cards(name: Raw<UNICODE_STRING>) -> u8 {
    let _call = Call::enter();
    let is_wild = |unit: &u16| matches!(*unit, STAR | QM | DOS_STAR | DOS_QM | DOS_DOT);
    u8::from(units(name).iter().any(is_wild))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn wide(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn is_in(expression: &str, name: &str) -> bool {
        matches_expression(&wide(expression), &wide(name))
    }

    #[test]
    fn wildcards_match_as_their_page_says() {
        conforms!(
            "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisnameinexpression.md",
            "An asterisk matches zero or more characters, a question mark a single one."
        );
        conforms!(
            "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisnameinexpression.md",
            "When only one of the two is empty there is no match; two empty strings match."
        );
        for (expression, name, expected) in [
            ("*", "A.TXT", true),
            ("*.TXT", "A.B.TXT", true),
            ("*.TXT", "A.TXTX", false),
            ("?.TXT", "AB.TXT", false),
            ("A?C", "ABC", true),
            ("A*C*", "ABCD", true),
            ("*", "", false),
            ("", "", true),
            ("", "A", false),
        ] {
            assert_eq!(is_in(expression, name), expected, "{expression} {name}");
        }
    }

    #[test]
    fn the_wildcards_of_dos_know_about_dots() {
        conforms!(
            "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisnameinexpression.md",
            "DOS_STAR matches up to the final dot, DOS_QM nothing at a dot or the end, DOS_DOT a dot or nothing at the end."
        );
        assert!(is_in("<.TXT", "A.B.TXT"));
        assert!(!is_in("<TXT", "A.B.TXT.X"));
        assert!(is_in(">>>.TXT", "A.TXT") && is_in("A>>", "AB") && !is_in("A>", "ABC"));
        assert!(is_in("A\"", "A") && is_in("A\"B", "A.B") && !is_in("A\"B", "AXB"));
    }

    #[test]
    fn names_without_wildcards_are_told_apart() {
        Bench::new()
            .run(|| {
                let (plain, wild) = (wide("a.txt"), wide("a<"));
                let mut plain = UNICODE_STRING::from_utf16(&plain).unwrap();
                let mut wild = UNICODE_STRING::from_utf16(&wild).unwrap();
                assert_eq!(fs_rtl_does_name_contain_wild_cards(Raw::of(&raw mut plain)), 0);
                assert_eq!(fs_rtl_does_name_contain_wild_cards(Raw::of(&raw mut wild)), 1);
            })
            .unwrap();
    }

    #[test]
    fn equal_strings_have_equal_hashes_whatever_their_case() {
        conforms!(
            "wdm/nf-wdm-rtlhashunicodestring.md",
            "An algorithm that is not known gives STATUS_INVALID_PARAMETER; case can be ignored."
        );
        Bench::new()
            .run(|| {
                let (one, other) = (wide("Broker"), wide("bROKER"));
                let mut one = UNICODE_STRING::from_utf16(&one).unwrap();
                let mut other = UNICODE_STRING::from_utf16(&other).unwrap();
                let (one, other) = (Raw::of(&raw mut one), Raw::of(&raw mut other));
                let hash = |string, fold| {
                    let mut value = 0;
                    assert_eq!(rtl_hash_unicode_string(string, fold, 0, Raw::of(&raw mut value)), NtStatus::SUCCESS);
                    value
                };
                assert_eq!(hash(one, 1), hash(other, 1));
                assert_ne!(hash(one, 0), hash(other, 0));
                let mut value = 0;
                let status = rtl_hash_unicode_string(one, 0, 7, Raw::of(&raw mut value));
                assert_eq!(status, NtStatus::INVALID_PARAMETER);
            })
            .unwrap();
    }

    #[test]
    fn a_copy_is_the_callers_to_free_and_text_too_long_has_no_counted_string() {
        let bench = Bench::new();
        bench
            .run(|| {
                let mut text = wide("ab\0");
                let mut string = UNICODE_STRING::EMPTY;
                let target = Raw::of(&raw mut string);
                assert_eq!(rtl_create_unicode_string(target, Raw::of(text.as_mut_ptr())), 1);
                assert_eq!((units(target), target.read().MaximumLength), (wide("ab"), 6));
                super::super::strings::release(&Call::enter(), target);
                let mut long = vec![0x41_u16; MOST_CHARACTERS + 2];
                assert_eq!(rtl_init_unicode_string_ex(target, Raw::of(long.as_mut_ptr())), NtStatus::NAME_TOO_LONG);
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }
}
