//! One test per documented rule of the registry calls.

use super::opening::{REG_CREATED_NEW_KEY, REG_OPENED_EXISTING_KEY};
use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::nt::hive::Value;
use nt_types::{KEY_READ, REG_DWORD};

const SERVICE: &str = r"\Registry\Machine\System\CurrentControlSet\Services\Test";

/// Runs `body` as driver code with an open handle to a key that has the value `Number` = 7.
fn with_open_key(body: impl FnOnce(HANDLE)) {
    let bench = Bench::new();
    let key = bench.machine().inner().nt.hive().create(SERVICE).unwrap();
    key.set_value("Number", Value::dword(7)).unwrap();
    let mut body = Some(body);
    bench
        .run(|| {
            let handle = open_path(SERVICE).expect("the key is there");
            body.take().expect("called once")(handle);
            let closed = crate::nt::ob_exports::close(&Call::enter(), handle.addr(), nt_types::KERNEL_MODE);
            assert!(closed.is_success());
        })
        .unwrap();
}

/// A counted string with its characters.
struct Text(Vec<u16>, UNICODE_STRING);

#[expect(clippy::unnecessary_box_returns, reason = "the structure points into itself and may not move")]
fn text(value: &str) -> Box<Text> {
    let units: Vec<u16> = value.encode_utf16().collect();
    let mut text = Box::new(Text(units, UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: std::ptr::null_mut() }));
    let bytes = (text.0.len() * 2) as u16;
    text.1 = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: text.0.as_mut_ptr() };
    text
}

fn raw<T>(value: &mut T) -> Raw<T> {
    Raw::of(std::ptr::from_mut(value))
}

fn attributes(root: HANDLE, name: &mut Text) -> OBJECT_ATTRIBUTES {
    OBJECT_ATTRIBUTES {
        Length: 48,
        RootDirectory: root,
        ObjectName: &raw mut name.1,
        Attributes: nt_types::ObjectFlags::KERNEL_HANDLE.bits(),
        SecurityDescriptor: std::ptr::null_mut(),
        SecurityQualityOfService: std::ptr::null_mut(),
    }
}

fn open_path(path: &str) -> Result<HANDLE, NtStatus> {
    let mut name = text(path);
    let mut attributes = attributes(std::ptr::null_mut(), &mut name);
    let mut handle = 0;
    match zw_open_key(raw(&mut handle), KEY_READ, raw(&mut attributes)) {
        NtStatus::SUCCESS => Ok(std::ptr::without_provenance_mut(handle)),
        status => Err(status),
    }
}

fn query(handle: HANDLE, name: &str, class: i32, buffer: &mut [u8]) -> (NtStatus, u32) {
    let mut name = text(name);
    let mut length = 0;
    let status = zw_query_value_key(
        handle,
        raw(&mut name.1),
        class,
        Raw::of(buffer.as_mut_ptr()),
        buffer.len() as u32,
        raw(&mut length),
    );
    (status, length)
}

#[test]
fn a_key_that_is_not_there_is_not_found() {
    conforms!("wdm/nf-wdm-zwopenkey.md", "A key that is not there is not opened, and an error returned.");
    Bench::new()
        .run(|| {
            assert_eq!(open_path(r"\Registry\Machine\None"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
            assert_eq!(open_path(r"Registry\Machine"), Err(NtStatus::OBJECT_PATH_SYNTAX_BAD));
        })
        .unwrap();
}

#[test]
fn a_buffer_without_room_for_the_fixed_part_is_too_small_and_the_needed_length_is_told() {
    conforms!(
        "wdm/nf-wdm-zwqueryvaluekey.md",
        "STATUS_BUFFER_TOO_SMALL is returned, with the length that is needed, when nothing was written."
    );
    with_open_key(|handle| {
        let mut buffer = [0xAA; 11];
        assert_eq!(query(handle, "Number", 2, &mut buffer), (NtStatus::BUFFER_TOO_SMALL, 16));
        assert_eq!(buffer, [0xAA; 11]);
    });
}

#[test]
fn a_buffer_without_room_for_all_data_gets_what_fits_and_an_overflow() {
    conforms!(
        "wdm/nf-wdm-zwqueryvaluekey.md",
        "STATUS_BUFFER_OVERFLOW is returned, with the length that is needed, when a part was written."
    );
    with_open_key(|handle| {
        let mut buffer = [0xAA; 14];
        assert_eq!(query(handle, "Number", 2, &mut buffer), (NtStatus::BUFFER_OVERFLOW, 16));
        assert_eq!(buffer[8..], [4, 0, 0, 0, 7, 0]);
    });
}

#[test]
fn every_class_of_value_information_has_its_layout() {
    with_open_key(|handle| {
        let mut partial = [0; 16];
        assert_eq!(query(handle, "NUMBER", 2, &mut partial), (NtStatus::SUCCESS, 16));
        assert_eq!(partial[4..], [REG_DWORD as u8, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0]);
        let mut basic = [0; 24];
        assert_eq!(query(handle, "Number", 0, &mut basic), (NtStatus::SUCCESS, 24));
        assert_eq!(basic[8..14], [12, 0, 0, 0, b'N', 0]);
        let mut full = [0; 36];
        assert_eq!(query(handle, "Number", 1, &mut full), (NtStatus::SUCCESS, 36));
        assert_eq!(full[8], 32, "the data's offset");
        assert_eq!(full[32..], [7, 0, 0, 0]);
        assert_eq!(query(handle, "Number", 99, &mut full).0, NtStatus::INVALID_PARAMETER);
        assert_eq!(query(handle, "None", 2, &mut full).0, NtStatus::OBJECT_NAME_NOT_FOUND);
    });
}

#[test]
fn values_that_are_set_can_be_enumerated_and_deleted() {
    conforms!(
        "wdm/nf-wdm-zwenumeratevaluekey.md",
        "Values are got by their index; STATUS_NO_MORE_ENTRIES is returned behind the last."
    );
    with_open_key(|handle| {
        let mut name = text("Added");
        let mut data = *b"bytes";
        let set = zw_set_value_key(handle, raw(&mut name.1), 0, nt_types::REG_BINARY, Raw::of(data.as_mut_ptr()), 5);
        assert_eq!(set, NtStatus::SUCCESS);
        let mut buffer = [0_u8; 64];
        let mut length = 0;
        let out = Raw::of(buffer.as_mut_ptr());
        let mut at = |index| zw_enumerate_value_key(handle, index, 2, out, 64, raw(&mut length));
        assert_eq!((at(0), at(1), at(2)), (NtStatus::SUCCESS, NtStatus::SUCCESS, NtStatus::NO_MORE_ENTRIES));
        assert_eq!(zw_delete_value_key(handle, raw(&mut name.1)), NtStatus::SUCCESS);
        assert_eq!(zw_delete_value_key(handle, raw(&mut name.1)), NtStatus::OBJECT_NAME_NOT_FOUND);
    });
}

#[test]
fn a_key_is_created_below_an_open_one_and_its_disposition_told() {
    conforms!("wdm/nf-wdm-zwcreatekey.md", "Disposition says whether the key was created or was there.");
    with_open_key(|root| {
        let create = |name: &str| {
            let mut name = text(name);
            let mut attributes = attributes(root, &mut name);
            let (mut handle, mut disposition) = (0, 0);
            let status =
                zw_create_key(raw(&mut handle), KEY_READ, raw(&mut attributes), 0, Raw::NULL, 0, raw(&mut disposition));
            if status.is_success() {
                assert!(crate::nt::ob_exports::close(&Call::enter(), handle, nt_types::KERNEL_MODE).is_success());
            }
            (status, disposition)
        };
        assert_eq!(create("Sub"), (NtStatus::SUCCESS, REG_CREATED_NEW_KEY));
        assert_eq!(create("sub"), (NtStatus::SUCCESS, REG_OPENED_EXISTING_KEY));
        assert_eq!(create(r"None\Deep").0, NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(create(r"\Sub").0, NtStatus::OBJECT_PATH_SYNTAX_BAD);
    });
}

#[test]
fn a_handle_to_a_deleted_key_says_so() {
    with_open_key(|handle| {
        assert_eq!(zw_delete_key(handle), NtStatus::SUCCESS);
        assert_eq!(query(handle, "Number", 2, &mut [0; 16]).0, NtStatus::KEY_DELETED);
    });
}

#[test]
fn a_change_of_a_watched_key_ends_the_wait_once() {
    conforms!(
        "ntifs/nf-ntifs-zwnotifychangekey.md",
        "An asynchronous call is STATUS_PENDING, and its event is set when something of the filter changes."
    );
    conforms!(
        "ntifs/nf-ntifs-zwnotifychangekey.md",
        "Changes of subkeys count with WatchTree only; a value that is set to what it is does not count."
    );
    let bench = Bench::new();
    let key = bench.machine().registry().create(SERVICE).unwrap();
    let below = bench.machine().registry().create(&format!(r"{SERVICE}\Parameters")).unwrap();
    key.set_value("Number", Value::dword(7)).unwrap();
    let mut block = IO_STATUS_BLOCK::new(NtStatus::SUCCESS, 0);
    let block = raw(&mut block);
    bench
        .run(|| {
            let handle = open_path(SERVICE).unwrap();
            let null = std::ptr::null_mut();
            let watch = |filter, tree| {
                block.write(IO_STATUS_BLOCK::new(NtStatus::PENDING, 0));
                zw_notify_change_key(handle, null, Raw::NULL, 0, block, filter, tree, 0, 0, 1)
            };
            let status = || block.read().Status;
            assert_eq!(watch(0, 0), NtStatus::INVALID_PARAMETER);
            assert_eq!(watch(4, 0), NtStatus::PENDING);
            below.set_value("a", Value::dword(1)).unwrap();
            key.set_value("Number", Value::dword(7)).unwrap();
            key.create("Other").unwrap();
            assert_eq!(status(), NtStatus::PENDING);
            key.set_value("Number", Value::dword(8)).unwrap();
            assert_eq!(status(), NtStatus::NOTIFY_ENUM_DIR);
            block.write(IO_STATUS_BLOCK::new(NtStatus::PENDING, 0));
            key.set_value("Number", Value::dword(9)).unwrap();
            assert_eq!(status(), NtStatus::PENDING, "once");
            assert_eq!(watch(4, 1), NtStatus::PENDING);
            below.delete_value("a").unwrap();
            assert_eq!(status(), NtStatus::NOTIFY_ENUM_DIR);
            assert_eq!(watch(1, 0), NtStatus::PENDING);
            key.delete("Other").unwrap();
            assert_eq!(status(), NtStatus::NOTIFY_ENUM_DIR);
            assert_eq!(watch(4, 0), NtStatus::PENDING);
            let closed = crate::nt::ob_exports::close(&Call::enter(), handle.addr(), KERNEL_MODE);
            assert_eq!((closed, status()), (NtStatus::SUCCESS, NtStatus::NOTIFY_CLEANUP));
        })
        .unwrap();
}

#[test]
fn a_key_tells_its_full_name() {
    with_open_key(|handle| {
        let (mut answer, mut length) = ([0_u8; 256], 0);
        let status = zw_query_key(handle, 3, Raw::of(answer.as_mut_ptr()), 256, raw(&mut length));
        assert_eq!(status, NtStatus::SUCCESS);
        let units: Vec<u16> =
            answer[4..length as usize].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        let expected = r"\REGISTRY\MACHINE\System\CurrentControlSet\Services\Test";
        assert_eq!(String::from_utf16(&units).unwrap(), expected);
    });
}
