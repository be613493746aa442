//! Every kind of operation that a program can cause, as a filter sees it.

use super::*;
use crate::conformance::conforms;

/// Everything that happens between `begin` and the end of `body`: major, minor and whether it is a packet.
fn seen(majors: &'static [u8], body: impl FnOnce(&Rig)) -> Vec<(u8, u8, bool)> {
    let rig = Rig::new(majors);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        push(&down, (op.major(), op.minor(), op.flag(IRP)));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    body(&rig);
    rig.assert_no_finding();
    take(&seen)
}

#[test]
fn an_open_file_is_created_cleaned_up_and_closed() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-create.md",
        "An open is IRP_MJ_CREATE; its last handle's end is IRP_MJ_CLEANUP, its last reference's IRP_MJ_CLOSE."
    );
    let seen = seen(&[0x00, 0x12, 0x02], |rig| drop(rig.reader()));
    assert_eq!(seen, [(0x00, 0, true), (0x12, 0, true), (0x02, 0, true)]);
}

#[test]
fn writes_have_their_parameters() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-write.md",
        "Length, ByteOffset and WriteBuffer describe the write; the buffer may be a user address."
    );
    let rig = Rig::new(&[0x04]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let buffer = op.parameter::<usize>(24).read();
        assert!(buffer <= crate::process::HIGHEST_USER_ADDRESS);
        push(&down, (op.parameter::<u32>(0).read(), op.parameter::<i64>(16).read()));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.writer().write(3, b"abc").unwrap();
    assert_eq!(take(&seen), [(3, 3)]);
}

#[test]
fn queries_and_changes_have_a_system_buffer() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-query-information.md",
        "InfoBuffer is a system buffer of Length bytes for FileInformationClass."
    );
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-set-information.md",
        "InfoBuffer has the new values of FileInformationClass."
    );
    let rig = Rig::new(&[0x05, 0x06]);
    let seen = log();
    let (down, up) = (Arc::clone(&seen), Arc::clone(&seen));
    rig.pre(move |op| {
        if op.major() == 6 {
            let buffer = Raw::<i64>::at(op.parameter::<usize>(32).read());
            push(&down, (6, op.parameter::<u32>(8).read(), buffer.read()));
        }
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    rig.post(move |op| {
        if op.major() == 5 {
            let buffer = Raw::<i64>::at(op.parameter::<usize>(16).read());
            push(&up, (5, op.parameter::<u32>(8).read(), buffer.field::<i64>(8).read()));
        }
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    let file = rig.writer();
    file.set_length(4).unwrap();
    file.query(5, 24).unwrap();
    assert_eq!(take(&seen), [(6, 20, 4), (5, 5, 4)]);
}

#[test]
fn basic_and_standard_information_are_fast_first() {
    conforms!(
        "docs:ifs/operations-that-can-be-irp-based-or-fast-i-o.md",
        "IRP_MJ_QUERY_INFORMATION of basic or standard information can be fast I/O; other classes are packets."
    );
    let seen = seen(&[0x05], |rig| {
        let file = rig.reader();
        file.query(4, 40).unwrap();
        file.query(6, 8).unwrap();
    });
    assert_eq!(seen, [(0x05, 0, false), (0x05, 0, true)]);
}

#[test]
fn extended_attributes_are_set_and_queried() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-set-ea.md",
        "IRP_MJ_SET_EA has a FILE_FULL_EA_INFORMATION list of Length bytes in EaBuffer."
    );
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-query-ea.md",
        "IRP_MJ_QUERY_EA fills EaBuffer with FILE_FULL_EA_INFORMATION entries."
    );
    let list = [&[0, 0, 0, 0, 0, 2, 3, 0][..], b"ab\0xyz"].concat();
    let expected = [&[0, 0, 0, 0, 0, 2, 3, 0][..], b"AB\0xyz"].concat();
    let seen = seen(&[0x07, 0x08], |rig| {
        let file = rig.writer();
        assert_eq!(file.query_ea(64), Err(NtStatus::NO_EAS_ON_FILE));
        file.set_ea(&list).unwrap();
        assert_eq!(file.query_ea(64), Ok(expected));
        assert_eq!(file.query(7, 4), Ok(16_u32.to_le_bytes().to_vec()));
    });
    assert_eq!(seen, [(0x07, 0, true), (0x08, 0, true), (0x07, 0, true)]);
}

#[test]
fn a_flush_is_an_operation_of_its_own() {
    conforms!("fltkernel/nf-fltkernel-fltflushbuffers.md", "A flush is IRP_MJ_FLUSH_BUFFERS.");
    let seen = seen(&[0x09], |rig| {
        rig.writer().flush().unwrap();
        assert_eq!(rig.reader().flush(), Err(NtStatus::ACCESS_DENIED));
    });
    assert_eq!(seen, [(0x09, 0, true), (0x09, 0, true)]);
}

#[test]
fn the_volume_is_queried_and_labelled() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-query-volume-information.md",
        "IRP_MJ_QUERY_VOLUME_INFORMATION answers FsInformationClass into VolumeBuffer."
    );
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-set-volume-information.md",
        "IRP_MJ_SET_VOLUME_INFORMATION sets FsInformationClass, the label for one."
    );
    let seen = seen(&[0x0A, 0x0B], |rig| {
        let file = rig.writer();
        let attributes = file.query_volume(5, 64).unwrap();
        assert_eq!(attributes[12..], *b"N\0T\0F\0S\0");
        file.set_volume(2, &[4, 0, 0, 0, b'H', 0, b'i', 0]).unwrap();
        assert_eq!(file.query_volume(1, 64).unwrap()[18..], *b"H\0i\0");
        assert_eq!(file.query_volume(1, 8), Err(NtStatus::INFO_LENGTH_MISMATCH));
        assert_eq!(file.query_volume(99, 64), Err(NtStatus::INVALID_INFO_CLASS));
    });
    assert_eq!(seen[0], (0x0A, 0, true));
    assert_eq!(seen[1], (0x0B, 0, true));
}

#[test]
fn a_listing_is_a_directory_control() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-directory-control.md",
        "A listing is IRP_MN_QUERY_DIRECTORY, with FileName as the pattern and FileInformationClass as the form."
    );
    let seen = seen(&[0x0C], |rig| {
        std::fs::write(rig.setup.folder.path().join("b.txt"), b"").unwrap();
        let process = rig.setup.process();
        let folder = || process.create_file(r"\??\C:\", &OpenOptions::new().directory()).unwrap();
        assert_eq!(folder().list("*.ROM"), Ok(vec!["boot.rom".to_owned()]));
        assert_eq!(folder().list("*"), Ok(vec!["b.txt".to_owned(), "boot.rom".to_owned()]));
    });
    assert!(seen.iter().all(|entry| *entry == (0x0C, 1, true)) && !seen.is_empty());
}

#[test]
fn file_system_controls_go_through_the_filters() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-file-system-control.md",
        "A user's control is IRP_MN_USER_FS_REQUEST; METHOD_BUFFERED has one SystemBuffer for both ways."
    );
    let rig = Rig::new(&[0x0D]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let (output, input) = (op.parameter::<u32>(0).read(), op.parameter::<u32>(8).read());
        let first = Raw::<u8>::at(op.parameter::<usize>(24).read()).some().map_or(0, Raw::read);
        push(&down, (op.minor(), op.parameter::<u32>(16).read(), output, input, first));
        if op.parameter::<u32>(16).read() == 0x0022_2000 {
            Raw::<u8>::at(op.parameter::<usize>(24).read()).write(0x99);
            op.set_status(NtStatus::SUCCESS, 1);
            return flt::FLT_PREOP_COMPLETE;
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.writer();
    assert_eq!(file.fs_control(0x0009_003C, &[], 2), Ok(vec![0, 0]), "FSCTL_GET_COMPRESSION");
    assert_eq!(file.fs_control(0x0022_2000, &[0x42], 8), Ok(vec![0x99]), "one of the filter's own");
    assert_eq!(file.fs_control(0x0009_FFFC, &[], 0), Err(NtStatus::INVALID_DEVICE_REQUEST));
    assert_eq!(take(&seen)[..2], [(0, 0x0009_003C, 2, 0, 0), (0, 0x0022_2000, 8, 1, 0x42)]);
}

#[test]
fn a_device_control_is_fast_first_and_then_a_packet() {
    conforms!(
        "docs:ifs/operations-that-can-be-irp-based-or-fast-i-o.md",
        "IRP_MJ_DEVICE_CONTROL can be fast I/O, with neither buffered nor direct I/O."
    );
    let seen = seen(&[0x0E], |rig| {
        let file = rig.reader();
        assert_eq!(file.device_control(0x0022_0000, &[1], 4), Err(NtStatus::INVALID_DEVICE_REQUEST));
    });
    assert_eq!(seen, [(0x0E, 0, false), (0x0E, 0, true)]);
}

#[test]
fn security_is_queried_and_set() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-query-security.md",
        "IRP_MJ_QUERY_SECURITY returns the parts of SecurityInformation in SecurityBuffer."
    );
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-set-security.md",
        "IRP_MJ_SET_SECURITY sets the parts of SecurityInformation from SecurityDescriptor."
    );
    let seen = seen(&[0x14, 0x15], |rig| {
        let access = AccessMask::READ_CONTROL | AccessMask::WRITE_OWNER;
        let file = rig.open(OpenOptions::new().access(access)).unwrap();
        let owner = file.query_security(1, 256).unwrap();
        assert_eq!(file.query_security(1, 10), Err(NtStatus::BUFFER_TOO_SMALL));
        let mut system = owner.clone();
        // S-1-5-32-544 becomes S-1-5-18.
        system.truncate(20);
        system.extend([1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]);
        file.set_security(1, &system).unwrap();
        assert_eq!(file.query_security(1, 256), Ok(system));
    });
    assert_eq!(seen.iter().map(|entry| entry.0).collect::<Vec<_>>(), [0x14, 0x14, 0x15, 0x14]);
}

#[test]
fn a_section_is_announced_and_can_be_refused() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-acquire-for-section-synchronization.md",
        "SyncType is SyncTypeCreateSection and PageProtection the section's, when a section is made."
    );
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-acquire-for-section-synchronization.md",
        "A filter may fail the making of a section."
    );
    let rig = Rig::new(&[0xFF, 0xFE]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        assert!(op.flag(FS_FILTER));
        if op.major() == 0xFF {
            push(&down, (0xFF, op.parameter::<i32>(0).read(), op.parameter::<u32>(4).read()));
        } else {
            push(&down, (op.major(), 0, 0));
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.writer();
    drop(file.map_writable().unwrap());
    assert_eq!(take(&seen), [(0xFF, 1, 4), (0xFE, 0, 0)]);
    rig.pre(|op| op.complete(NtStatus::INSUFFICIENT_RESOURCES));
    assert_eq!(file.map_writable().map(drop), Err(NtStatus::INSUFFICIENT_RESOURCES));
    rig.assert_no_finding();
}

#[test]
fn stores_through_a_view_come_as_paging_writes() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-acquire-for-mod-write.md",
        "The page writer announces itself with EndingOffset; the paging write follows, then the release."
    );
    conforms!("fltkernel/ns-fltkernel-_flt_io_parameter_block.md", "IRP_PAGING_IO and IRP_NOCACHE mark paging I/O.");
    let rig = Rig::new(&[0x04, 0xFD, 0xFC, 0xFB, 0xFA]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let value = match op.major() {
            0xFD => Raw::<i64>::at(op.parameter::<usize>(0).read()).read(),
            0x04 => i64::from(op.irp_flags() & 3),
            _ => 0,
        };
        push(&down, (op.major(), value));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let view = rig.writer().map_writable().unwrap();
    view.store(2, b"zz").unwrap();
    view.flush().unwrap();
    assert_eq!(take(&seen), [(0xFB, 0), (0x04, 3), (0xFA, 0)]);
    view.store(2, b"ZZ").unwrap();
    drop(view);
    assert_eq!(take(&seen), [(0xFD, 4), (0x04, 3), (0xFC, 0)]);
    assert_eq!(rig.reader().read(0, 5), Ok(b"01ZZ4".to_vec()));
}

#[test]
fn a_call_of_the_memory_manager_that_must_succeed_cannot_be_failed_nor_pended() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "Calls of the memory manager are no packets: they cannot be pended."
    );
    let rig = Rig::new(&[0xFE]);
    rig.pre(|op| op.complete(NtStatus::UNSUCCESSFUL));
    drop(rig.writer().map_writable());
    assert_eq!(rig.finding().0, Rule::BadState);
    let rig = Rig::new(&[0xFF]);
    rig.pre(|_| flt::FLT_PREOP_PENDING);
    assert!(rig.writer().map_writable().is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn a_shutdown_reaches_filters_before_the_file_system_only() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "IRP_MJ_SHUTDOWN has a pre-operation callback only."
    );
    let seen = seen(&[0x10], |rig| rig.setup.bench.machine().shut_down().unwrap());
    assert_eq!(seen, [(0x10, 0, true)]);
}

#[test]
fn a_filter_can_give_a_create_another_name() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcancelfileopen.md",
        "STATUS_REPARSE says that the file was not opened: nothing has to be cancelled."
    );
    conforms!(
        "ntifs/nf-ntifs-ioreplacefileobjectname.md",
        "The file object gets the new name, whose memory is the I/O manager's."
    );
    let rig = Rig::new(&[0x00]);
    std::fs::write(rig.setup.folder.path().join("other.rom"), b"other").unwrap();
    rig.pre(|op| {
        let file = Raw::<nt_types::FILE_OBJECT>::at(op.file());
        let name = field!(file, nt_types::FILE_OBJECT, FileName);
        if crate::nt::unicode::units(name) != wide(r"\boot.rom") {
            return flt::FLT_PREOP_SUCCESS_NO_CALLBACK;
        }
        let text = wide(r"\Device\HarddiskVolume1\other.rom");
        let (at, length) = (text.as_ptr().expose_provenance(), (text.len() * 2) as u16);
        let replace = ddi!(IoReplaceFileObjectName: fn(usize, usize, u16) -> NtStatus);
        assert_eq!(replace(op.file(), at, length), NtStatus::SUCCESS);
        // IO_REPARSE.
        op.set_status(NtStatus::REPARSE, 0);
        flt::FLT_PREOP_COMPLETE
    });
    assert_eq!(rig.reader().read(0, 5), Ok(b"other".to_vec()));
}
