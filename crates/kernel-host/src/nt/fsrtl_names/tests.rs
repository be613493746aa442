//! The pages' own examples, and their rules for names.

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;

fn works(body: impl FnOnce()) {
    Bench::new().run(body).expect("no rule is broken");
}

fn string(text: &[u16]) -> UNICODE_STRING {
    UNICODE_STRING::from_utf16(text).expect("short")
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn with_dbcs<R>(text: &str, body: impl FnOnce(String8) -> R) -> R {
    let mut bytes = text.as_bytes().to_vec();
    let length = bytes.len() as u16;
    let mut string = UNICODE_STRING { Length: length, MaximumLength: length, Buffer: bytes.as_mut_ptr().cast() };
    body(Raw::of(&raw mut string))
}

#[test]
fn a_path_is_split_behind_its_first_name() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtldissectname.md",
        "The first name goes up to the first backslash, a leading one aside; the rest is what follows that one."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtldissectname.md",
        "Both results point into the buffer of the path."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtldissectdbcs.md",
        "An 8-bit path is split in the same way."
    );
    works(|| {
        for (path, first, rest) in [
            ("", "", ""),
            ("A", "A", ""),
            ("A\\B\\C\\D\\E", "A", "B\\C\\D\\E"),
            ("*A?", "*A?", ""),
            ("\\A", "A", ""),
            ("A[,]", "A[,]", ""),
            ("A\\\\B+;\\C", "A", "\\B+;\\C"),
        ] {
            let text = utf16(path);
            let mut source = string(&text);
            let (mut one, mut other) = (string(&[]), string(&[]));
            let (one, other) = (Raw::of(&raw mut one), Raw::of(&raw mut other));
            fs_rtl_dissect_name(Raw::of(&raw mut source), one, other);
            assert_eq!((units(one), units(other)), (utf16(first), utf16(rest)), "{path}");
            let inside = |part: Raw<UNICODE_STRING>| {
                let start = part.read().Buffer.addr();
                start == 0 || text.as_ptr_range().contains(&std::ptr::without_provenance(start))
            };
            assert!(inside(one) && inside(other));
            with_dbcs(path, |path| fs_rtl_dissect_dbcs(path, one, other));
        }
    });
}

#[test]
fn names_are_equal_by_the_table_that_is_given() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlarenamesequal.md",
        "TRUE is returned for the same names; case is ignored by the given table, or by the system's."
    );
    works(|| {
        let (left, right) = (utf16("aB"), utf16("Ab"));
        let (mut left, mut right) = (string(&left), string(&right));
        let (left, right) = (Raw::of(&raw mut left), Raw::of(&raw mut right));
        let mut table: Vec<u16> = (0..128).collect();
        table[0x61] = 0x41;
        let table = Raw::of(table.as_mut_ptr());
        let equal = |fold, table| fs_rtl_are_names_equal(left, right, fold, table);
        assert_eq!([equal(1, Raw::NULL), equal(0, Raw::NULL), equal(1, table)], [1, 0, 0]);
        table.index(0x62).write(0x42);
        assert_eq!([equal(1, table), equal(0, table)], [1, 0]);
    });
}

#[test]
fn wildcards_in_8_bit_names_are_seen_and_matched() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtldoesdbcscontainwildcards.md",
        "TRUE is returned for a name with an asterisk, a question mark or one of the wildcards of DOS."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisdbcsinexpression.md",
        "Matching respects case, an asterisk matches any number of characters."
    );
    works(|| {
        for (name, wild) in [("a.b", 0), ("a*", 1), ("?", 1), ("<", 1), (">", 1), ("\"", 1)] {
            assert_eq!(with_dbcs(name, |name| fs_rtl_does_dbcs_contain_wild_cards(name)), wild, "{name}");
        }
        let is_in = |pattern, name| {
            with_dbcs(pattern, |pattern| with_dbcs(name, |name| fs_rtl_is_dbcs_in_expression(pattern, name)))
        };
        assert_eq!([is_in("*.TXT", "A.TXT"), is_in("*.TXT", "A.txt"), is_in("A?", "AB")], [1, 0, 1]);
    });
}

#[test]
fn fat_names_have_eight_and_three_characters() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisfatdbcslegal.md",
        "Names are one to eight bytes and an extension of one to three, without the illegal characters."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisfatdbcslegal.md",
        "Wildcards, paths and a leading backslash are legal only where the caller says so."
    );
    works(|| {
        let legal =
            |name, wild, path, leading| with_dbcs(name, |name| fs_rtl_is_fat_dbcs_legal(name, wild, path, leading));
        for name in ["foo.bar", "f", "12345678.123", "foo .b".trim_end_matches(" .b")] {
            assert_eq!(legal(name, 0, 0, 0), 1, "{name}");
        }
        for name in [".foo", "foo.", "foo .b", "123456789", "a.1234", "a+b", "a*", "a\\b", "\\a", ""] {
            assert_eq!(legal(name, 0, 0, 0), 0, "{name}");
        }
        assert_eq!(
            [legal("*.*", 1, 0, 0), legal("a\\b", 0, 1, 0), legal("\\a", 0, 0, 1), legal("\\a\\b", 0, 0, 1)],
            [1, 1, 1, 0]
        );
    });
}

#[test]
fn hpfs_names_do_not_end_in_a_dot_or_a_space() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlishpfsdbcslegal.md",
        "A name has at most 255 bytes and does not end in a period or a space."
    );
    works(|| {
        let legal = |name: &str| with_dbcs(name, |name| fs_rtl_is_hpfs_dbcs_legal(name, 0, 0, 0));
        assert_eq!([legal(".foo"), legal(" foo"), legal("foo.bar.foo"), legal(&"x".repeat(255))], [1; 4]);
        assert_eq!([legal("foo "), legal("foo."), legal("a|b"), legal(&"x".repeat(256))], [0; 4]);
    });
}

#[test]
fn dots_are_taken_out_of_a_path_unless_they_lead_out_of_it() {
    conforms!(
        "ntifs/nf-ntifs-fsrtlremovedotsfrompath.md",
        "The path is changed in place, and its new length is stored."
    );
    conforms!(
        "ntifs/nf-ntifs-fsrtlremovedotsfrompath.md",
        "STATUS_IO_REPARSE_DATA_INVALID is returned for a path that begins with dot-dot."
    );
    works(|| {
        let clean = |path: &str| {
            let mut text = utf16(path);
            let mut length = 0;
            let buffer = Raw::of(text.as_mut_ptr());
            let status = fs_rtl_remove_dots_from_path(buffer, (text.len() * 2) as u16, Raw::of(&raw mut length));
            let kept = buffer.read_slice(usize::from(length / 2));
            status.ok().map(|()| String::from_utf16(&kept).unwrap())
        };
        assert_eq!(clean("\\dir1\\dir2\\..\\dir3\\.\\file.txt"), Ok("\\dir1\\dir3\\file.txt".into()));
        assert_eq!(clean("a\\..\\b"), Ok("b".into()));
        for path in ["\\..", "..", "..\\anyOtherContent", "\\a\\..\\.."] {
            assert_eq!(clean(path), Err(NtStatus::IO_REPARSE_DATA_INVALID), "{path}");
        }
    });
}
