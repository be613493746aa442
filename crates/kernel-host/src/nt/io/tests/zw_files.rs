//! `Zw*File` on files of a volume and on devices.

use std::cell::Cell;

use nt_types::{HANDLE, IRP_MJ_DEVICE_CONTROL, OBJECT_ATTRIBUTES, ObjectFlags};

use super::programs::{complete, mark_pending};
use super::*;
use crate::conformance::conforms;
use crate::ddi::Call;
use crate::machine::Machine;
use crate::nt::io::open::zw_create_file;
use crate::nt::io::zw_file::{zw_device_io_control_file, zw_read_file, zw_write_file};
use crate::nt::io::zw_file_information::{
    zw_delete_file, zw_flush_buffers_file, zw_query_directory_file, zw_query_information_file,
    zw_query_volume_information_file, zw_set_information_file,
};
use crate::nt::ob_events::{zw_create_event, zw_wait_for_single_object};
use crate::nt::ob_exports::close;

thread_local! {
    static KEPT: Cell<usize> = const { Cell::new(0) };
}

const SYNCHRONOUS: u32 = 0x20;

fn with_attributes<R>(path: &str, body: impl FnOnce(Raw<OBJECT_ATTRIBUTES>) -> R) -> R {
    string(path, |name| {
        let mut attributes = OBJECT_ATTRIBUTES::new(name.pointer(), ObjectFlags::KERNEL_HANDLE);
        body(Raw::of(&raw mut attributes))
    })
}

/// Opens or creates (`FILE_OPEN_IF`) with all rights.
fn open(path: &str, options: u32) -> Result<HANDLE, NtStatus> {
    let (mut handle, mut block) = (0, IO_STATUS_BLOCK::default());
    let (out, block) = (Raw::of(&raw mut handle), Raw::of(&raw mut block));
    let status = with_attributes(path, |attributes| {
        zw_create_file(out, 0x1F_01FF, attributes, block, Raw::NULL, 0x80, 7, 3, options, 0, 0)
    });
    status.ok()?;
    Ok(std::ptr::without_provenance_mut(out.read()))
}

fn shut(handle: HANDLE) {
    assert!(close(&Call::enter(), handle.addr(), 0).is_success());
}

const NONE: HANDLE = std::ptr::null_mut();

/// A machine with a volume, on which driver code runs `body`.
fn with_volume(body: impl FnOnce()) {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
    bench.run(body).unwrap();
}

#[test]
fn a_synchronous_file_is_written_and_read_at_its_position() {
    conforms!("wdm/nf-wdm-zwreadfile.md", "A synchronous file has a current position, which transfers use and move.");
    conforms!("wdm/nf-wdm-zwreadfile.md", "Reading behind the end of the file is an error.");
    conforms!(
        "wdm/nf-wdm-zwqueryinformationfile.md",
        "IoStatusBlock.Information is the number of bytes written to the buffer."
    );
    with_volume(|| {
        let file = open("\\??\\C:\\a.bin", SYNCHRONOUS).unwrap();
        let (mut block, mut data) = (IO_STATUS_BLOCK::default(), *b"hello, file");
        let (block, data) = (Raw::of(&raw mut block), Raw::<u8>::of(data.as_mut_ptr()));
        assert_eq!(zw_write_file(file, NONE, 0, 0, block, data.address(), 11, Raw::NULL, 0), NtStatus::SUCCESS);
        assert_eq!(block.read().Information, 11);
        assert!(
            !zw_read_file(file, NONE, 0, 0, block, data.address(), 4, Raw::NULL, 0).is_success(),
            "the position is at the end"
        );
        let mut position = 7_i64;
        let position = Raw::of(&raw mut position);
        assert_eq!(zw_set_information_file(file, block, position.cast(), 8, 14), NtStatus::SUCCESS);
        assert_eq!(zw_read_file(file, NONE, 0, 0, block, data.address(), 9, Raw::NULL, 0), NtStatus::SUCCESS);
        assert_eq!((block.read().Information, data.read_bytes(4)), (4, b"file".to_vec()));
        let mut standard = [0_u64; 3];
        let standard = Raw::<u8>::of(standard.as_mut_ptr().cast());
        assert_eq!(zw_query_information_file(file, block, standard, 24, 5), NtStatus::SUCCESS);
        assert_eq!((block.read().Information, standard.field::<u64>(8).read()), (24, 11));
        assert_eq!(zw_flush_buffers_file(file, block), NtStatus::SUCCESS);
        shut(file);
    });
}

#[test]
fn an_asynchronous_file_wants_an_offset() {
    conforms!(
        "wdm/nf-wdm-zwwritefile.md",
        "A file that is not synchronous has no position: ByteOffset is needed; -1 appends."
    );
    with_volume(|| {
        let file = open("\\??\\C:\\b.bin", 0).unwrap();
        let (mut block, mut data, mut offset) = (IO_STATUS_BLOCK::default(), *b"abcd", 0_i64);
        let (block, data, offset) =
            (Raw::of(&raw mut block), Raw::<u8>::of(data.as_mut_ptr()), Raw::of(&raw mut offset));
        assert_eq!(
            zw_write_file(file, NONE, 0, 0, block, data.address(), 4, Raw::NULL, 0),
            NtStatus::INVALID_PARAMETER
        );
        assert_eq!(zw_write_file(file, NONE, 0, 0, block, data.address(), 4, offset, 0), NtStatus::SUCCESS);
        offset.write(-1);
        assert_eq!(zw_write_file(file, NONE, 0, 0, block, data.address(), 4, offset, 0), NtStatus::SUCCESS);
        offset.write(2);
        assert_eq!(zw_read_file(file, NONE, 0, 0, block, data.address(), 4, offset, 0), NtStatus::SUCCESS);
        assert_eq!(data.read_bytes(4), b"cdab");
        shut(file);
    });
}

#[test]
fn a_folder_is_listed_and_its_volume_told() {
    conforms!("ntifs/nf-ntifs-zwquerydirectoryfile.md", "Entries come until STATUS_NO_MORE_FILES ends the listing.");
    conforms!("ntifs/nf-ntifs-zwqueryvolumeinformationfile.md", "Information is the number of bytes in the buffer.");
    with_volume(|| {
        shut(open("\\??\\C:\\one.bin", SYNCHRONOUS).unwrap());
        let folder = open("\\??\\C:\\", SYNCHRONOUS | 1).unwrap();
        let (mut block, mut buffer) = (IO_STATUS_BLOCK::default(), [0_u64; 64]);
        let (block, buffer) = (Raw::of(&raw mut block), Raw::<u8>::of(buffer.as_mut_ptr().cast()));
        let (null, address) = (Raw::NULL, buffer.address());
        let next = |restart| zw_query_directory_file(folder, NONE, 0, 0, block, address, 512, 12, 0, null, restart);
        assert_eq!(next(1), NtStatus::SUCCESS);
        assert!(block.read().Information > 12);
        assert_eq!(next(0), NtStatus::NO_MORE_FILES);
        assert_eq!(zw_query_volume_information_file(folder, block, buffer, 512, 3), NtStatus::SUCCESS);
        assert_eq!(block.read().Information, 24, "FILE_FS_SIZE_INFORMATION");
        shut(folder);
    });
}

#[test]
fn a_file_is_deleted_by_name() {
    conforms!("ntifs/nf-ntifs-zwdeletefile.md", "ZwDeleteFile deletes the file that the attributes name.");
    with_volume(|| {
        shut(open("\\??\\C:\\c.bin", SYNCHRONOUS).unwrap());
        assert_eq!(with_attributes("\\??\\C:\\c.bin", zw_delete_raw), NtStatus::SUCCESS);
        assert_eq!(with_attributes("\\??\\C:\\c.bin", zw_delete_raw), NtStatus::OBJECT_NAME_NOT_FOUND);
    });
}

fn zw_delete_raw(attributes: Raw<OBJECT_ATTRIBUTES>) -> NtStatus {
    zw_delete_file(attributes)
}

#[test]
fn file_i_o_in_a_guarded_region_is_found() {
    conforms!("wdm/nf-wdm-zwreadfile.md", "Special kernel APCs have to be enabled.");
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
    let stopped = bench.run(|| {
        let file = open("\\??\\C:\\d.bin", SYNCHRONOUS).unwrap();
        crate::thread::Thread::current().set_guarded_regions(1);
        let mut block = IO_STATUS_BLOCK::default();
        let _ = zw_flush_buffers_file(file, Raw::of(&raw mut block));
    });
    assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
}

extern "efiapi" fn double(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let buffer = Raw::<u32>::at(field!(irp, IRP, SystemBuffer).read().addr());
    buffer.write(buffer.read() * 2);
    assert_eq!(field!(irp, IRP, RequestorMode).read(), 0);
    complete(irp, NtStatus::SUCCESS, 4)
}

#[test]
fn a_device_gets_control_requests_from_the_kernel() {
    conforms!(
        "ntddk/nf-ntddk-zwdeviceiocontrolfile.md",
        "IoStatusBlock receives the final status and the bytes returned."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, double);
    world.run(|| {
        let file = open(DEVICE_NAME, SYNCHRONOUS).unwrap();
        let (mut block, mut value) = (IO_STATUS_BLOCK::default(), 21_u32);
        let (block, value) = (Raw::of(&raw mut block), Raw::of(&raw mut value));
        let status =
            zw_device_io_control_file(file, NONE, 0, 0, block, BUFFERED, value.address(), 4, value.address(), 4);
        assert_eq!((status, block.read().Information, value.read()), (NtStatus::SUCCESS, 4, 42));
        shut(file);
    });
}

extern "efiapi" fn keep(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    mark_pending(Raw::of(irp));
    KEPT.set(irp.addr());
    NtStatus::PENDING
}

#[test]
fn an_asynchronous_request_is_pending_and_sets_its_event_at_the_end() {
    conforms!(
        "ntddk/nf-ntddk-zwdeviceiocontrolfile.md",
        "On an asynchronous file the call is STATUS_PENDING, and the event is signalled when the request ends."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    world.run(|| {
        let file = open(DEVICE_NAME, 0).unwrap();
        let (mut event, mut block) = (0, IO_STATUS_BLOCK::default());
        let (out, block) = (Raw::of(&raw mut event), Raw::of(&raw mut block));
        assert_eq!(zw_create_event(out, 0x1F_0003, Raw::NULL, 0, 1), NtStatus::SUCCESS);
        let event: HANDLE = std::ptr::without_provenance_mut(out.read());
        let status = zw_device_io_control_file(file, event, 0, 0, block, BUFFERED, 0, 0, 0, 0);
        assert_eq!(status, NtStatus::PENDING);
        let mut zero = 0_i64;
        let zero = Raw::of(&raw mut zero);
        assert_eq!(zw_wait_for_single_object(event, 0, zero), NtStatus::TIMEOUT, "it was reset");
        let _ = complete(Raw::at(KEPT.get()), NtStatus::SUCCESS, 3);
        let mut second = -10_000_000_i64;
        assert_eq!(zw_wait_for_single_object(event, 0, Raw::of(&raw mut second)), NtStatus::SUCCESS);
        assert_eq!(block.read().Information, 3);
        shut(event);
        shut(file);
    });
}
