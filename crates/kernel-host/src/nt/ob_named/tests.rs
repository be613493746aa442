//! One test per documented rule of named objects and events.

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::nt::io::device::io_create_symbolic_link as create_link;
use crate::nt::ob_events::{
    io_create_notification_event, zw_create_event, zw_open_event, zw_set_event, zw_wait_for_single_object,
};
use crate::nt::ob_exports::close;

/// Attributes with their name, which may not move.
struct Named {
    _units: Vec<u16>,
    name: Box<UNICODE_STRING>,
    attributes: Box<OBJECT_ATTRIBUTES>,
}

fn named(path: &str, flags: ObjectFlags) -> Named {
    let units: Vec<u16> = path.encode_utf16().collect();
    let mut name = Box::new(UNICODE_STRING::from_utf16(&units).expect("short"));
    let attributes = Box::new(OBJECT_ATTRIBUTES::new(&raw mut *name, flags | ObjectFlags::KERNEL_HANDLE));
    Named { _units: units, name, attributes }
}

impl Named {
    fn raw(&mut self) -> Raw<OBJECT_ATTRIBUTES> {
        Raw::of(&raw mut *self.attributes)
    }

    fn string(&mut self) -> Raw<UNICODE_STRING> {
        Raw::of(&raw mut *self.name)
    }
}

fn handle(number: usize) -> HANDLE {
    std::ptr::without_provenance_mut(number)
}

fn shut(number: usize) {
    assert!(close(&Call::enter(), number, KERNEL_MODE).is_success());
}

fn event(path: &str, flags: ObjectFlags) -> (NtStatus, usize) {
    let mut out = 0;
    let out = Raw::of(&raw mut out);
    let status = zw_create_event(out, 0x1F_0003, named(path, flags).raw(), 0, 0);
    (status, out.read())
}

#[test]
fn a_named_event_is_shared_and_its_name_ends_with_the_last_handle() {
    conforms!(
        "ntifs/nf-ntifs-zwcreateevent.md",
        "An event of the name is STATUS_OBJECT_NAME_COLLISION, or opened with OBJ_OPENIF."
    );
    conforms!("wdm/nf-wdm-zwopenevent.md", "A name that no event has is STATUS_OBJECT_NAME_NOT_FOUND.");
    conforms!(
        "wdm/nf-wdm-zwmaketemporaryobject.md",
        "A temporary object has its name only as long as there are handles."
    );
    let bench = Bench::new();
    bench
        .run(|| {
            const PATH: &str = "\\BaseNamedObjects\\Ready";
            let (status, first) = event(PATH, ObjectFlags::empty());
            assert_eq!(status, NtStatus::SUCCESS);
            assert_eq!(event(PATH, ObjectFlags::empty()).0, NtStatus::OBJECT_NAME_COLLISION);
            let (status, second) = event(PATH, ObjectFlags::OPENIF);
            assert_eq!(status, NtStatus::OBJECT_NAME_EXISTS);
            let mut before = 9;
            let before = Raw::of(&raw mut before);
            assert_eq!(zw_set_event(handle(first), before), NtStatus::SUCCESS);
            assert_eq!(before.read(), 0);
            assert_eq!(zw_wait_for_single_object(handle(second), 0, Raw::NULL), NtStatus::SUCCESS);
            shut(first);
            shut(second);
            let mut out = 0;
            let status = zw_open_event(Raw::of(&raw mut out), 1, named(PATH, ObjectFlags::empty()).raw());
            assert_eq!(status, NtStatus::OBJECT_NAME_NOT_FOUND);
        })
        .unwrap();
}

#[test]
fn a_notification_event_is_made_signalled() {
    conforms!(
        "wdm/nf-wdm-iocreatenotificationevent.md",
        "A new event is signalled; one that exists is opened; the result is the event, the handle a kernel handle."
    );
    let bench = Bench::new();
    bench
        .run(|| {
            let mut out = 0;
            let out = Raw::of(&raw mut out);
            let object =
                io_create_notification_event(named("\\BaseNamedObjects\\N", ObjectFlags::empty()).string(), out);
            assert_ne!(object, 0);
            assert!(super::super::handles::is_kernel_handle(out.read()));
            let mut zero = 0_i64;
            assert_eq!(zw_wait_for_single_object(handle(out.read()), 0, Raw::of(&raw mut zero)), NtStatus::SUCCESS);
            shut(out.read());
        })
        .unwrap();
}

#[test]
fn a_program_shares_an_event_with_a_driver() {
    let bench = Bench::new();
    let program = bench.machine().process("p.exe").start().expect("room");
    let ready = program.create_event(Some("\\BaseNamedObjects\\Shared"), true).unwrap();
    bench
        .run(|| {
            let mut out = 0;
            let out = Raw::of(&raw mut out);
            let mut name = named("\\BaseNamedObjects\\Shared", ObjectFlags::empty());
            assert_eq!(zw_open_event(out, 2, name.raw()), NtStatus::SUCCESS);
            assert!(zw_set_event(handle(out.read()), Raw::NULL).is_success());
            shut(out.read());
        })
        .unwrap();
    assert!(ready.wait(std::time::Duration::from_secs(1)));
}

#[test]
fn there_is_a_directory_for_the_control_devices_of_filters() {
    let bench = Bench::new();
    let collision = bench.run(|| {
        let mut out = 0;
        let mut directory = named("\\FileSystem\\Filters", ObjectFlags::empty());
        zw_create_directory_object(Raw::of(&raw mut out), 0xF_000F, directory.raw())
    });
    assert_eq!(collision.unwrap(), NtStatus::OBJECT_NAME_COLLISION);
}

#[test]
fn directories_hold_objects_whose_names_are_relative_to_them() {
    conforms!("wdm/nf-wdm-zwcreatedirectoryobject.md", "Creates an object directory, which names can start from.");
    let bench = Bench::new();
    bench
        .run(|| {
            let mut out = 0;
            let out = Raw::of(&raw mut out);
            let mut directory = named("\\Mine", ObjectFlags::empty());
            assert_eq!(zw_create_directory_object(out, 0xF_000F, directory.raw()), NtStatus::SUCCESS);
            let root = out.read();
            let again = zw_create_directory_object(out, 1, directory.raw());
            assert_eq!(again, NtStatus::OBJECT_NAME_COLLISION);
            let mut inner = named("Inner", ObjectFlags::empty());
            inner.attributes.RootDirectory = handle(root);
            assert_eq!(zw_create_event(out, 1, inner.raw(), 0, 0), NtStatus::SUCCESS);
            let (status, absolute) = event("\\Mine\\Inner", ObjectFlags::OPENIF);
            assert_eq!(status, NtStatus::OBJECT_NAME_EXISTS);
            shut(absolute);
            shut(out.read());
            shut(root);
        })
        .unwrap();
}

#[test]
fn a_symbolic_link_tells_its_target() {
    conforms!(
        "wdm/nf-wdm-zwquerysymboliclinkobject.md",
        "A string that is too short is STATUS_BUFFER_TOO_SMALL, and the length is told."
    );
    let bench = Bench::new();
    bench
        .run(|| {
            let (mut link, mut to) =
                (named("\\??\\L", ObjectFlags::empty()), named("\\Device\\X", ObjectFlags::empty()));
            assert_eq!(create_link(link.string(), to.string()), NtStatus::SUCCESS);
            let mut out = 0;
            let out = Raw::of(&raw mut out);
            assert_eq!(zw_open_symbolic_link_object(out, 1, link.raw()), NtStatus::SUCCESS);
            let mut units = [0_u16; 16];
            let mut string = UNICODE_STRING { Length: 0, MaximumLength: 4, Buffer: units.as_mut_ptr() };
            let (string, mut length) = (Raw::of(&raw mut string), 0);
            let length = Raw::of(&raw mut length);
            let open = handle(out.read());
            assert_eq!(zw_query_symbolic_link_object(open, string, length), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(length.read(), 18);
            field!(string, UNICODE_STRING, MaximumLength).write(32);
            assert_eq!(zw_query_symbolic_link_object(open, string, length), NtStatus::SUCCESS);
            assert_eq!(unicode::name(string).unwrap(), "\\Device\\X");
            let status = zw_open_symbolic_link_object(out, 1, to.raw());
            assert_eq!(status, NtStatus::OBJECT_NAME_NOT_FOUND);
            shut(open.addr());
        })
        .unwrap();
}

#[test]
fn a_duplicate_has_the_rights_asked_for_and_can_close_its_source() {
    conforms!("ntifs/nf-ntifs-zwduplicateobject.md", "DUPLICATE_SAME_ACCESS keeps the source's rights.");
    conforms!("ntifs/nf-ntifs-zwduplicateobject.md", "DUPLICATE_CLOSE_SOURCE closes the source handle.");
    let bench = Bench::new();
    bench
        .run(|| {
            let (_, source) = event("\\BaseNamedObjects\\D", ObjectFlags::empty());
            let this = handle(usize::MAX);
            let mut out = 0;
            let out = Raw::of(&raw mut out);
            let status = zw_duplicate_object(this, handle(source), this, out, 1, 0x200, SAME_ACCESS | CLOSE_SOURCE);
            assert_eq!(status, NtStatus::SUCCESS);
            let call = Call::enter();
            assert_eq!(open_entry(&call, source, 0, None, KERNEL_MODE).err(), Some(NtStatus::INVALID_HANDLE));
            let entry = open_entry(&call, out.read(), 0, Some("Event"), KERNEL_MODE).unwrap();
            assert_eq!(entry.access, 0x1F_0003);
            drop((call, entry));
            shut(out.read());
        })
        .unwrap();
}

#[test]
fn the_name_of_an_object_is_told_with_its_length() {
    conforms!(
        "ntifs/nf-ntifs-obquerynamestring.md",
        "A buffer that is too small is STATUS_INFO_LENGTH_MISMATCH, and ReturnLength is what it takes."
    );
    conforms!(
        "ntifs/nf-ntifs-obquerynamestring.md",
        "An object without a name has an empty string with a NULL buffer."
    );
    let bench = Bench::new();
    bench
        .run(|| {
            let (_, open) = event("\\BaseNamedObjects\\Q", ObjectFlags::empty());
            let mut buffer = [0_u64; 16];
            let (information, mut needed) = (Raw::<UNICODE_STRING>::of(buffer.as_mut_ptr().cast()), 0);
            let needed = Raw::of(&raw mut needed);
            let object = {
                let call = Call::enter();
                open_entry(&call, open, 0, None, KERNEL_MODE).unwrap().object.body()
            };
            assert_eq!(ob_query_name_string(object, information, 0, needed), NtStatus::INFO_LENGTH_MISMATCH);
            assert_eq!(needed.read(), 16 + 2 * 19 + 2);
            assert_eq!(ob_query_name_string(object, information, 128, needed), NtStatus::SUCCESS);
            assert_eq!(unicode::name(information).unwrap(), "\\BaseNamedObjects\\Q");
            shut(open);
            let process = Call::enter().machine().nt.system_process(Call::enter().machine()).object();
            assert_eq!(ob_query_name_string(process, information, 128, needed), NtStatus::SUCCESS);
            assert!(field!(information, UNICODE_STRING, Buffer).read().is_null());
        })
        .unwrap();
}

#[test]
fn a_permanent_event_keeps_its_name_until_it_is_made_temporary() {
    conforms!(
        "wdm/nf-wdm-zwmaketemporaryobject.md",
        "A permanent object's name goes with its last handle once it is made temporary."
    );
    let bench = Bench::new();
    bench
        .run(|| {
            const PATH: &str = "\\BaseNamedObjects\\P";
            let (_, first) = event(PATH, ObjectFlags::PERMANENT);
            shut(first);
            let (status, again) = event(PATH, ObjectFlags::OPENIF);
            assert_eq!(status, NtStatus::OBJECT_NAME_EXISTS);
            assert_eq!(zw_make_temporary_object(handle(again)), NtStatus::SUCCESS);
            shut(again);
            let (status, last) = event(PATH, ObjectFlags::empty());
            assert_eq!(status, NtStatus::SUCCESS);
            shut(last);
        })
        .unwrap();
}
