//! One test per documented rule of `RtlQueryRegistryValues` and the calls for single values.

use std::cell::RefCell;

use nt_types::REG_DWORD;

use super::super::rtl::{
    rtl_check_registry_key, rtl_create_registry_key, rtl_delete_registry_value, rtl_write_registry_value,
};
use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;

const SERVICE: &str = r"\Registry\Machine\System\CurrentControlSet\Services\Test";

thread_local! {
    /// What the routine was given, and what it answers.
    static CALLS: RefCell<Vec<(String, u32, Vec<u8>)>> = const { RefCell::new(Vec::new()) };
    static ANSWER: std::cell::Cell<NtStatus> = const { std::cell::Cell::new(NtStatus::SUCCESS) };
}

extern "efiapi" fn note(name: Raw<u16>, kind: u32, data: Raw<u8>, length: u32, context: usize, own: usize) -> NtStatus {
    assert_eq!((context, own), (1, 2));
    let data = data.read_bytes(length as usize);
    CALLS.with_borrow_mut(|calls| calls.push((text(name).expect("UTF-16"), kind, data)));
    ANSWER.get()
}

/// Characters with their terminator, which have to outlive the call.
fn wide(text: &str) -> (Vec<u16>, Raw<u16>) {
    let mut units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    let pointer = Raw::of(units.as_mut_ptr());
    (units, pointer)
}

fn entry(name: Raw<u16>, flags: u32) -> Entry {
    Entry {
        routine: note as *const () as usize,
        flags,
        name,
        context: 2,
        default_type: REG_NONE,
        default_data: Raw::NULL,
        default_length: 0,
    }
}

const END: Entry = Entry {
    routine: 0,
    flags: 0,
    name: Raw::NULL,
    context: 0,
    default_type: 0,
    default_data: Raw::NULL,
    default_length: 0,
};

/// A machine whose service key has values, in which driver code runs `body`.
fn with_values(body: impl FnOnce()) {
    let bench = Bench::new();
    let key = bench.machine().registry().create(SERVICE).unwrap();
    key.set_value("Number", Value::dword(7)).unwrap();
    key.set_value("Text", Value::text("hello")).unwrap();
    key.set_value("List", Value::list(&["a", "bc"])).unwrap();
    key.set_value("Block", Value { kind: 3, data: vec![9; 8] }).unwrap();
    key.create("Sub").unwrap().0.set_value("Inner", Value::dword(1)).unwrap();
    CALLS.take();
    ANSWER.set(NtStatus::SUCCESS);
    bench.run(body).unwrap();
}

/// Queries relative to `Services` with a table of entries.
fn query(entries: &[Entry]) -> NtStatus {
    let (_path, pointer) = wide("Test");
    let mut table = entries.to_vec();
    table.push(END);
    rtl_query_registry_values(1, pointer, Raw::of(table.as_mut_ptr()), 1, 0)
}

#[test]
fn a_value_is_reported_to_the_routine() {
    conforms!("wdm/nf-wdm-rtlqueryregistryvalues.md", "The routine gets name, type, data and length of the value.");
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "A list is reported string by string, unless NOEXPAND asks for it as one value."
    );
    with_values(|| {
        let ((_n, number), (_l, list)) = (wide("Number"), wide("List"));
        let entries = [entry(number, 0), entry(list, 0), entry(list, flag::NOEXPAND)];
        assert_eq!(query(&entries), NtStatus::SUCCESS);
        let calls = CALLS.take();
        assert_eq!(calls[0], ("Number".to_owned(), REG_DWORD, vec![7, 0, 0, 0]));
        assert_eq!((calls[1].1, calls[1].2.len(), calls[2].2.len()), (REG_SZ, 4, 6));
        assert_eq!((calls[3].1, calls[3].2.len()), (REG_MULTI_SZ, 12));
    });
}

#[test]
fn a_missing_value_is_skipped_defaulted_or_an_error() {
    conforms!("wdm/nf-wdm-rtlqueryregistryvalues.md", "A missing value that is REQUIRED ends the call.");
    conforms!("wdm/nf-wdm-rtlqueryregistryvalues.md", "A missing value that has a default is reported with that.");
    with_values(|| {
        let (_n, missing) = wide("Missing");
        assert_eq!(query(&[entry(missing, 0)]), NtStatus::SUCCESS);
        assert!(CALLS.take().is_empty());
        assert_eq!(query(&[entry(missing, flag::REQUIRED)]), NtStatus::OBJECT_NAME_NOT_FOUND);
        let (_d, default) = wide("x");
        let with_default = Entry { default_type: REG_SZ, default_data: default.cast(), ..entry(missing, 0) };
        assert_eq!(query(&[with_default]), NtStatus::SUCCESS);
        assert_eq!(CALLS.take(), [("Missing".to_owned(), REG_SZ, vec![b'x', 0, 0, 0])]);
    });
}

#[test]
fn direct_values_are_stored_by_their_kind() {
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "DIRECT stores up to four bytes of data where EntryContext points."
    );
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "DIRECT text goes into a UNICODE_STRING; a buffer that is too small is STATUS_BUFFER_TOO_SMALL."
    );
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "Longer DIRECT data go behind length and type, in a buffer that begins with its size."
    );
    with_values(|| {
        let ((_n, number), (_t, string), (_b, block)) = (wide("Number"), wide("Text"), wide("Block"));
        let (mut value, mut units) = (0_u32, [0_u16; 8]);
        let mut text = UNICODE_STRING { Length: 0, MaximumLength: 16, Buffer: units.as_mut_ptr() };
        let mut room = [0_u32; 4];
        room[0] = 16;
        let (value, text, room) = (Raw::of(&raw mut value), Raw::of(&raw mut text), Raw::of(room.as_mut_ptr()));
        let direct = |name, context| Entry { routine: 0, context, ..entry(name, flag::DIRECT) };
        let entries = [direct(number, value.address()), direct(string, text.address()), direct(block, room.address())];
        assert_eq!(query(&entries), NtStatus::SUCCESS);
        assert_eq!(value.read(), 7);
        assert_eq!(crate::nt::unicode::name(text).unwrap(), "hello");
        assert_eq!((room.read(), room.index(1).read(), room.index(2).read()), (8, 3, 0x0909_0909));
        field!(text, UNICODE_STRING, MaximumLength).write(10);
        assert_eq!(query(&entries[1..2]), NtStatus::BUFFER_TOO_SMALL);
        room.write(15);
        assert_eq!(query(&entries[2..]), NtStatus::BUFFER_TOO_SMALL);
    });
}

#[test]
fn a_typecheck_refuses_another_type() {
    conforms!("wdm/nf-wdm-rtlqueryregistryvalues.md", "With TYPECHECK another type is STATUS_OBJECT_TYPE_MISMATCH.");
    with_values(|| {
        let (_n, number) = wide("Number");
        let mut value = 0_u32;
        let address = (&raw mut value).expose_provenance();
        let checked = |kind: u32| Entry {
            context: address,
            default_type: kind << TYPECHECK_SHIFT,
            ..entry(number, flag::DIRECT | flag::TYPECHECK)
        };
        let (wrong, right) = (checked(REG_SZ), checked(REG_DWORD));
        assert_eq!(query(&[wrong]), NtStatus::OBJECT_TYPE_MISMATCH);
        assert_eq!(query(&[right]), NtStatus::SUCCESS);
    });
}

#[test]
fn subkeys_and_the_top_key_are_walked() {
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "SUBKEY makes following entries apply to a subkey, TOPKEY to the key of the call again."
    );
    conforms!("wdm/nf-wdm-rtlqueryregistryvalues.md", "An entry without a name reports all values of the key.");
    with_values(|| {
        let ((_s, sub), (_i, inner), (_n, number)) = (wide("Sub"), wide("Inner"), wide("Number"));
        let walk = Entry { routine: 0, ..entry(sub, flag::SUBKEY) };
        assert_eq!(query(&[walk, entry(inner, 0), entry(number, flag::TOPKEY)]), NtStatus::SUCCESS);
        let names: Vec<_> = CALLS.take().into_iter().map(|call| call.0).collect();
        assert_eq!(names, ["Inner", "Number"]);
        assert_eq!(query(&[entry(Raw::NULL, flag::NOEXPAND)]), NtStatus::SUCCESS);
        assert_eq!(CALLS.take().len(), 4);
        let nowhere = Entry { routine: 0, ..entry(inner, flag::SUBKEY | flag::REQUIRED) };
        assert_eq!(query(&[nowhere]), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(query(&[entry(Raw::NULL, flag::SUBKEY)]), NtStatus::INVALID_PARAMETER);
    });
}

#[test]
fn a_routine_s_error_ends_the_query_but_one_does_not() {
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "An error of the routine is the result; STATUS_BUFFER_TOO_SMALL is ignored."
    );
    with_values(|| {
        let (_n, number) = wide("Number");
        ANSWER.set(NtStatus::BUFFER_TOO_SMALL);
        assert_eq!(query(&[entry(number, 0), entry(number, 0)]), NtStatus::SUCCESS);
        assert_eq!(CALLS.take().len(), 2);
        ANSWER.set(NtStatus::ACCESS_DENIED);
        assert_eq!(query(&[entry(number, 0), entry(number, 0)]), NtStatus::ACCESS_DENIED);
        assert_eq!(CALLS.take().len(), 1);
    });
}

#[test]
fn a_value_is_deleted_after_it_was_read_when_asked() {
    conforms!("wdm/nf-wdm-rtlqueryregistryvalues.md", "DELETE deletes values after they were queried.");
    with_values(|| {
        let (_n, number) = wide("Number");
        assert_eq!(query(&[entry(number, flag::DELETE)]), NtStatus::SUCCESS);
        assert_eq!(query(&[entry(number, flag::REQUIRED)]), NtStatus::OBJECT_NAME_NOT_FOUND);
    });
}

#[test]
fn a_direct_query_of_a_users_hive_needs_a_typecheck() {
    conforms!(
        "wdm/nf-wdm-rtlqueryregistryvalues.md",
        "DIRECT without TYPECHECK on an untrusted hive is bug check 0x139."
    );
    let bench = Bench::new();
    bench.machine().registry().create(r"\Registry\User\.Default\X").unwrap();
    let stopped = bench.run(|| {
        let ((_p, path), (_n, name)) = (wide("X"), wide("V"));
        let mut table = [Entry { routine: 0, ..entry(name, flag::DIRECT) }, END];
        let _ = rtl_query_registry_values(5, path, Raw::of(table.as_mut_ptr()), 1, 0);
    });
    assert_eq!(stopped.unwrap_err().0.rule, Rule::BugCheck);
}

#[test]
fn single_values_are_written_checked_and_deleted() {
    conforms!("wdm/nf-wdm-rtlwriteregistryvalue.md", "A key that is missing is made, when its parent exists.");
    conforms!("wdm/nf-wdm-rtlcheckregistrykey.md", "STATUS_SUCCESS when the key exists.");
    conforms!("wdm/nf-wdm-rtldeleteregistryvalue.md", "The value is removed from the key.");
    with_values(|| {
        let ((_p, path), (_v, value), (_d, deep)) = (wide(r"Test\New"), wide("V"), wide(r"None\Deep"));
        let mut data = [1_u8, 0, 0, 0];
        let bytes = Raw::of(data.as_mut_ptr());
        assert_eq!(rtl_check_registry_key(1, path), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(rtl_write_registry_value(1, path, value, REG_DWORD, bytes, 4), NtStatus::SUCCESS);
        assert_eq!(rtl_check_registry_key(1, path), NtStatus::SUCCESS);
        assert_eq!(rtl_delete_registry_value(1, path, value), NtStatus::SUCCESS);
        assert_eq!(rtl_delete_registry_value(1, path, value), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(rtl_create_registry_key(1, deep), NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(rtl_check_registry_key(99, path), NtStatus::INVALID_PARAMETER);
    });
}
