//! Prefix tables: which of a file system's known paths is the longest one that a name begins with.
//!
//! Tables and entries are opaque to drivers but for their size, which their owners allocate. Entries are chained, longest prefix
//! first, so that the first that fits is the best; on Windows they form splay trees, which is faster and finds the same. The
//! `Pfx` routines, for 8-bit names, have no pages; they are what the Unicode ones came from (general knowledge).

use nt_types::UNICODE_STRING;

use super::raw::Raw;
use super::unicode::{units, upcase};
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitializeUnicodePrefix(max 1) = rtl_initialize_unicode_prefix;
    RtlInsertUnicodePrefix(max 1) = rtl_insert_unicode_prefix;
    RtlFindUnicodePrefix(max 0) = rtl_find_unicode_prefix;
    RtlNextUnicodePrefix(max 1) = rtl_next_unicode_prefix;
    RtlRemoveUnicodePrefix(max 1) = rtl_remove_unicode_prefix;
    PfxInitialize(max 1) = pfx_initialize;
    PfxInsertPrefix(max 1) = pfx_insert_prefix;
    PfxFindPrefix(max 1) = pfx_find_prefix;
    PfxRemovePrefix(max 1) = pfx_remove_prefix;
}

/// `NodeTypeCode` of a table and of an entry: Windows' own, which debuggers know.
const UNICODE_TABLE: u16 = 0x0800;
const UNICODE_ENTRY: u16 = 0x0801;
const TABLE: u16 = 0x0200;
const ENTRY: u16 = 0x0201;

/// `NameLength` of either, and `NextPrefixTree`, by which the chain goes.
const NAME_LENGTH: usize = 2;
const NEXT: usize = 8;
/// `LastNextEntry` of a Unicode table: where an enumeration stands.
const LAST: usize = 16;

const SEPARATOR: u16 = b'\\' as u16;

/// How tables of one kind of names are laid out.
struct Form {
    table: u16,
    entry: u16,
    /// Where an entry points at its prefix.
    prefix: usize,
    units: fn(Raw<UNICODE_STRING>) -> Vec<u16>,
}

const UNICODE: Form = Form { table: UNICODE_TABLE, entry: UNICODE_ENTRY, prefix: 48, units };
const EIGHT_BIT: Form = Form { table: TABLE, entry: ENTRY, prefix: 40, units: eight_bit_units };

fn eight_bit_units(string: Raw<UNICODE_STRING>) -> Vec<u16> {
    super::ansi::bytes(string).into_iter().map(u16::from).collect()
}

/// A prefix table in the driver's memory.
struct Prefixes<'a> {
    form: &'a Form,
    at: Raw<u16>,
}

impl<'a> Prefixes<'a> {
    fn initialise(form: &'a Form, at: Raw<u16>) {
        at.write(form.table);
        at.field::<u16>(NAME_LENGTH).write(0);
        at.field::<usize>(NEXT).write(0);
        if form.table == UNICODE_TABLE {
            at.field::<usize>(LAST).write(0);
        }
    }

    fn of(call: &Call, form: &'a Form, at: Raw<u16>) -> Self {
        if at.is_null() || at.read() != form.table {
            call.stop(Rule::BadArgument, format!("{at:?} is no prefix table that was initialised"));
        }
        Self { form, at }
    }

    /// Links of the chain: addresses of fields that point at an entry, or at nothing at the end.
    fn links(&self) -> impl Iterator<Item = Raw<usize>> {
        std::iter::successors(Some(self.at.field::<usize>(NEXT)), |link| {
            Some(link.read()).filter(|entry| *entry != 0).map(|entry| Raw::at(entry + NEXT))
        })
    }

    fn name(&self, entry: usize) -> Vec<u16> {
        (self.form.units)(Raw::at(Raw::<usize>::at(entry + self.form.prefix).read()))
    }

    /// Adds an entry before the first with a shorter name; false when the very same name is there.
    fn insert(&self, prefix: Raw<UNICODE_STRING>, entry: Raw<u16>) -> bool {
        let name = (self.form.units)(prefix);
        let is_there = self.links().map(Raw::read).any(|other| other != 0 && self.name(other) == name);
        if is_there {
            return false;
        }
        let mut links = self.links();
        let place = links.find(|link| link.read() == 0 || self.name(link.read()).len() < name.len());
        let Some(place) = place else { return false };
        entry.write(self.form.entry);
        entry.field::<u16>(NAME_LENGTH).write(components(&name));
        entry.field::<usize>(NEXT).write(place.read());
        entry.field::<usize>(self.form.prefix).write(prefix.address());
        place.write(entry.address());
        true
    }

    /// The longest prefix of a name, whose characters from `fold_from` on are compared without case.
    fn find(&self, name: &[u16], fold_from: usize) -> usize {
        let entries = self.links().map(Raw::read).take_while(|entry| *entry != 0);
        entries.into_iter().find(|entry| is_prefix(&self.name(*entry), name, fold_from)).unwrap_or(0)
    }

    fn remove(&self, entry: Raw<u16>) {
        if let Some(link) = self.links().find(|link| link.read() == entry.address()) {
            link.write(entry.field::<usize>(NEXT).read());
            // It may be put into a table again.
            entry.write(0);
        }
    }
}

/// Names in a path: what Windows sorts its trees by.
fn components(name: &[u16]) -> u16 {
    let trimmed = name.strip_prefix(&[SEPARATOR]).unwrap_or(name);
    1 + trimmed.iter().filter(|unit| **unit == SEPARATOR).count() as u16
}

/// Whether a path begins with a prefix that ends where one of its names ends.
fn is_prefix(prefix: &[u16], name: &[u16], fold_from: usize) -> bool {
    let Some(head) = name.get(..prefix.len()) else { return false };
    let same = prefix
        .iter()
        .zip(head)
        .enumerate()
        .all(|(index, (left, right))| left == right || (index >= fold_from && upcase(*left) == upcase(*right)));
    let ends = prefix.last() == Some(&SEPARATOR) || name.get(prefix.len()).is_none_or(|unit| *unit == SEPARATOR);
    same && ends
}

extern "efiapi" fn rtl_initialize_unicode_prefix(table: Raw<u16>) {
    let _call = Call::enter();
    Prefixes::initialise(&UNICODE, table);
}

extern "efiapi" fn pfx_initialize(table: Raw<u16>) {
    let _call = Call::enter();
    Prefixes::initialise(&EIGHT_BIT, table);
}

extern "efiapi" fn rtl_insert_unicode_prefix(table: Raw<u16>, prefix: Raw<UNICODE_STRING>, entry: Raw<u16>) -> u8 {
    let call = Call::enter();
    if units(prefix).first() != Some(&SEPARATOR) {
        call.stop(Rule::BadArgument, "a prefix begins with a backslash");
    }
    u8::from(Prefixes::of(&call, &UNICODE, table).insert(prefix, entry))
}

extern "efiapi" fn pfx_insert_prefix(table: Raw<u16>, prefix: Raw<UNICODE_STRING>, entry: Raw<u16>) -> u8 {
    let call = Call::enter();
    u8::from(Prefixes::of(&call, &EIGHT_BIT, table).insert(prefix, entry))
}

extern "efiapi" fn rtl_find_unicode_prefix(table: Raw<u16>, name: Raw<UNICODE_STRING>, fold_from: u32) -> usize {
    let call = Call::enter();
    Prefixes::of(&call, &UNICODE, table).find(&units(name), fold_from as usize)
}

extern "efiapi" fn pfx_find_prefix(table: Raw<u16>, name: Raw<UNICODE_STRING>) -> usize {
    let call = Call::enter();
    Prefixes::of(&call, &EIGHT_BIT, table).find(&eight_bit_units(name), usize::MAX)
}

extern "efiapi" fn rtl_next_unicode_prefix(table: Raw<u16>, restart: u8) -> usize {
    let call = Call::enter();
    let prefixes = Prefixes::of(&call, &UNICODE, table);
    let last = prefixes.at.field::<usize>(LAST);
    let from = if restart != 0 || last.read() == 0 { table.address() } else { last.read() };
    let next = Raw::<usize>::at(from + NEXT).read();
    // At the end the place is kept, so that asking again gives NULL again.
    if next != 0 {
        last.write(next);
    }
    next
}

extern "efiapi" fn rtl_remove_unicode_prefix(table: Raw<u16>, entry: Raw<u16>) {
    let call = Call::enter();
    let prefixes = Prefixes::of(&call, &UNICODE, table);
    check_entry(&call, &UNICODE, entry);
    prefixes.at.field::<usize>(LAST).write(0);
    prefixes.remove(entry);
}

extern "efiapi" fn pfx_remove_prefix(table: Raw<u16>, entry: Raw<u16>) {
    let call = Call::enter();
    let prefixes = Prefixes::of(&call, &EIGHT_BIT, table);
    check_entry(&call, &EIGHT_BIT, entry);
    prefixes.remove(entry);
}

fn check_entry(call: &Call, form: &Form, entry: Raw<u16>) {
    if entry.read() != form.entry {
        call.stop(Rule::BadState, format!("{entry:?} is no entry that was inserted, or one that was removed before"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::raw::field;

    /// Room for a string and for an entry about it, as a driver has it.
    struct Entry {
        memory: [u64; 7],
        prefix: UNICODE_STRING,
    }

    fn entries(names: &[&str]) -> Vec<Entry> {
        let make = |name: &&str| {
            let text: Vec<u16> = name.encode_utf16().collect();
            let prefix = UNICODE_STRING::from_utf16(Box::leak(text.into_boxed_slice())).expect("short");
            Entry { memory: [0; 7], prefix }
        };
        names.iter().map(make).collect()
    }

    impl Entry {
        fn raw(&mut self) -> Raw<u16> {
            Raw::of((&raw mut self.memory).cast())
        }

        fn insert(&mut self, table: Raw<u16>) -> u8 {
            rtl_insert_unicode_prefix(table, Raw::of(&raw mut self.prefix), self.raw())
        }
    }

    fn with_table<R>(body: impl FnOnce(Raw<u16>) -> R) -> Result<R, Rule> {
        let mut memory = [0xEE_u64; 3];
        let table = Raw::of((&raw mut memory).cast());
        let run = Bench::new().run(|| {
            rtl_initialize_unicode_prefix(table);
            body(table)
        });
        run.map_err(|stopped| stopped.0.rule)
    }

    fn find(table: Raw<u16>, name: &str, fold_from: u32) -> usize {
        let text: Vec<u16> = name.encode_utf16().collect();
        let mut string = UNICODE_STRING::from_utf16(&text).expect("short");
        rtl_find_unicode_prefix(table, Raw::of(&raw mut string), fold_from)
    }

    #[test]
    fn the_longest_prefix_of_whole_names_is_found() {
        conforms!(
            "ntifs/nf-ntifs-rtlfindunicodeprefix.md",
            "The entry with the longest prefix of the name is returned, NULL when there is none."
        );
        conforms!("ntifs/nf-ntifs-rtlremoveunicodeprefix.md", "An entry that was removed is found no more.");
        with_table(|table| {
            let mut all = entries(&["\\a", "\\a\\bc", "\\a\\bc\\d"]);
            assert_eq!(find(table, "\\a", 0), 0);
            for entry in &mut all {
                assert_eq!(entry.insert(table), 1);
            }
            let [a, abc, abcd] = [0, 1, 2].map(|index| all[index].raw().address());
            for (name, expected) in [
                ("\\a\\b", a),
                ("\\a\\bcd", a),
                ("\\a\\bc", abc),
                ("\\a\\bc\\x", abc),
                ("\\a\\bc\\d\\e", abcd),
                ("\\x", 0),
            ] {
                assert_eq!(find(table, name, 0), expected, "{name}");
            }
            rtl_remove_unicode_prefix(table, all[1].raw());
            assert_eq!(find(table, "\\a\\bc\\x", 0), a);
        })
        .unwrap();
    }

    #[test]
    fn case_counts_before_the_index_only() {
        conforms!(
            "ntifs/nf-ntifs-rtlfindunicodeprefix.md",
            "Characters before CaseInsensitiveIndex are compared with their case, the others without."
        );
        with_table(|table| {
            let mut all = entries(&["\\Ab"]);
            all[0].insert(table);
            let entry = all[0].raw().address();
            let found = [("\\aB", 0), ("\\aB", 1), ("\\aB", 2), ("\\AB", 2), ("\\AB", 3), ("\\Ab", 3)];
            let found = found.map(|(name, index)| find(table, name, index) == entry);
            assert_eq!(found, [true, true, false, true, false, true]);
        })
        .unwrap();
    }

    #[test]
    fn a_prefix_is_inserted_once_and_enumerated_once() {
        conforms!(
            "ntifs/nf-ntifs-rtlinsertunicodeprefix.md",
            "TRUE is returned for a new prefix, FALSE for one that is in the table."
        );
        conforms!(
            "ntifs/nf-ntifs-rtlnextunicodeprefix.md",
            "With Restart the first element is returned, then the others, NULL after the last."
        );
        with_table(|table| {
            let mut all = entries(&["\\a", "\\b\\c", "\\A", "\\a"]);
            let inserted: Vec<u8> = all.iter_mut().map(|entry| entry.insert(table)).collect();
            assert_eq!(inserted, [1, 1, 1, 0]);
            for _ in 0..2 {
                let mut seen: Vec<usize> = vec![rtl_next_unicode_prefix(table, 1)];
                seen.extend(std::iter::from_fn(|| Some(rtl_next_unicode_prefix(table, 0)).filter(|next| *next != 0)));
                seen.sort_unstable();
                let mut expected: Vec<usize> = all[..3].iter_mut().map(|entry| entry.raw().address()).collect();
                expected.sort_unstable();
                assert_eq!(seen, expected);
                assert_eq!(rtl_next_unicode_prefix(table, 0), 0);
            }
        })
        .unwrap();
    }

    #[test]
    fn prefixes_without_a_backslash_and_entries_out_of_the_table_are_found() {
        conforms!("ntifs/nf-ntifs-rtlinsertunicodeprefix.md", "A prefix has to begin with a backslash.");
        conforms!("ntifs/nf-ntifs-rtlinitializeunicodeprefix.md", "The table has to be initialised before its use.");
        let mut all = entries(&["a", "\\b"]);
        assert_eq!(with_table(|table| all[0].insert(table)), Err(Rule::BadArgument));
        let twice = with_table(|table| {
            all[1].insert(table);
            rtl_remove_unicode_prefix(table, all[1].raw());
            rtl_remove_unicode_prefix(table, all[1].raw());
        });
        assert_eq!(twice, Err(Rule::BadState));
        let unknown = with_table(|table| {
            table.write(0);
            find(table, "\\a", 0)
        });
        assert_eq!(unknown, Err(Rule::BadArgument));
    }

    #[test]
    fn tables_of_8_bit_names_keep_case() {
        let mut memory = [0_u64; 2];
        let mut entry = [0_u64; 6];
        let mut text = *b"\\Ab";
        let mut prefix = UNICODE_STRING { Length: 3, MaximumLength: 3, Buffer: text.as_mut_ptr().cast() };
        let mut name = *b"\\Ab\\c";
        let mut string = UNICODE_STRING { Length: 5, MaximumLength: 5, Buffer: name.as_mut_ptr().cast() };
        let (table, entry) = (Raw::<u16>::of((&raw mut memory).cast()), Raw::<u16>::of((&raw mut entry).cast()));
        Bench::new()
            .run(|| {
                pfx_initialize(table);
                assert_eq!(pfx_insert_prefix(table, Raw::of(&raw mut prefix), entry), 1);
                assert_eq!(pfx_find_prefix(table, Raw::of(&raw mut string)), entry.address());
                let first = Raw::<u8>::of(field!(Raw::of(&raw mut string), UNICODE_STRING, Buffer).read().cast());
                first.index(1).write(b'a');
                assert_eq!(pfx_find_prefix(table, Raw::of(&raw mut string)), 0);
                pfx_remove_prefix(table, entry);
            })
            .unwrap();
    }
}
