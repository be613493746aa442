//! Parameters that filters change, and who sees the change.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const CREATE: u8 = 0;

/// Offset of ByteOffset and of Length in the parameters of a read.
const BYTE_OFFSET: usize = 16;
const LENGTH: usize = 0;

#[test]
fn changed_parameters_reach_those_below_and_are_put_back_for_those_above() {
    conforms!(
        "docs:ifs/modifying-the-parameters-for-an-i-o-operation.md",
        "Filters below receive changed parameters in their pre- and post-operation callbacks."
    );
    conforms!(
        "docs:ifs/modifying-the-parameters-for-an-i-o-operation.md",
        "The filter's own post-operation callback and filters above receive the original parameters."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "A filter's pre- and post-operation callbacks receive the same parameter values."
    );
    let rig = Rig::new(&[READ]);
    let (_, upper) = rig.add("Upper", "380000", &[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let seen = log();
    for (instance, who) in [(upper, "upper"), (rig.instance, "own"), (lower, "lower")] {
        let (down, up) = (Arc::clone(&seen), Arc::clone(&seen));
        Rig::pre_of(instance, move |op| {
            let offset = op.parameter::<i64>(BYTE_OFFSET);
            push(&down, (who, "pre", offset.read()));
            if who == "own" {
                offset.write(5);
                op.set_dirty();
            }
            flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
        });
        Rig::post_of(instance, move |op| {
            push(&up, (who, "post", op.parameter::<i64>(BYTE_OFFSET).read()));
            flt::FLT_POSTOP_FINISHED_PROCESSING
        });
    }
    assert_eq!(rig.reader().read(0, 2), Ok(b"56".to_vec()));
    let expected = [
        ("upper", "pre", 0),
        ("own", "pre", 0),
        ("lower", "pre", 5),
        ("lower", "post", 5),
        ("own", "post", 0),
        ("upper", "post", 0),
    ];
    assert_eq!(take(&seen), expected);
    rig.assert_no_finding();
}

#[test]
fn changes_are_put_back_also_for_a_filter_that_does_not_hear_of_the_end() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "Filters above do not see changed parameters, whatever the filter that changed them answered."
    );
    let rig = Rig::new(&[READ]);
    let (_, upper) = rig.add("Upper", "380000", &[READ]);
    let seen = log();
    let up = Arc::clone(&seen);
    Rig::pre_of(upper, |_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    Rig::post_of(upper, move |op| {
        push(&up, op.parameter::<u32>(LENGTH).read());
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.pre(|op| {
        op.parameter::<u32>(LENGTH).write(1);
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 4), Ok(b"0".to_vec()));
    assert_eq!(take(&seen), [4]);
}

#[test]
fn a_change_that_is_not_marked_dirty_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetcallbackdatadirty.md",
        "A callback that changes the callback data calls FltSetCallbackDataDirty."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        op.parameter::<i64>(BYTE_OFFSET).write(5);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 2).is_err());
    let (rule, message) = rig.finding();
    assert!(rule == Rule::BadState && message.contains("FltSetCallbackDataDirty"), "{message}");
}

#[test]
fn changing_the_status_alone_needs_no_mark() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetcallbackdatadirty.md",
        "Changing IoStatus alone needs no FltSetCallbackDataDirty."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| op.complete(NtStatus::CRC_ERROR));
    assert_eq!(rig.reader().read(0, 2), Err(NtStatus::CRC_ERROR));
    rig.assert_no_finding();
}

#[test]
fn the_dirty_flag_is_set_tested_and_cleared() {
    conforms!("fltkernel/nf-fltkernel-fltiscallbackdatadirty.md", "FltIsCallbackDataDirty tests the flag.");
    conforms!("fltkernel/nf-fltkernel-fltclearcallbackdatadirty.md", "FltClearCallbackDataDirty clears the flag.");
    conforms!(
        "fltkernel/ns-fltkernel-_flt_callback_data.md",
        "FLTFL_CALLBACK_DATA_DIRTY is what FltSetCallbackDataDirty sets."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let data = op.data.address();
        let is = || ddi!(FltIsCallbackDataDirty: fn(usize) -> u8)(data);
        push(&down, is());
        op.set_dirty();
        push(&down, is() + u8::from(op.flag(0x8000_0000)));
        ddi!(FltClearCallbackDataDirty: fn(usize))(data);
        push(&down, is());
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.reader().read(0, 1).unwrap();
    assert_eq!(take(&seen), [0, 2, 0]);
}

#[test]
fn the_major_function_cannot_be_changed() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "MajorFunction cannot be changed: a new operation is started instead."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        field!(op.block(), FLT_IO_PARAMETER_BLOCK, MajorFunction).write(4);
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 2).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn another_file_can_be_the_target_if_it_is_on_the_volume() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "TargetFileObject can be changed to a file on the target instance's volume."
    );
    let rig = Rig::new(&[READ]);
    std::fs::write(rig.setup.folder.path().join("other.rom"), b"abcdef").unwrap();
    let process = rig.setup.process();
    let other = process.create_file(r"\??\C:\other.rom", &OpenOptions::new()).unwrap();
    let object = process.handles().entry(other.handle()).unwrap().object.body();
    rig.pre(move |op| {
        field!(op.block(), FLT_IO_PARAMETER_BLOCK, TargetFileObject).write(Raw::at(object).pointer());
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 3), Ok(b"abc".to_vec()));
    rig.assert_no_finding();
    rig.pre(|op| {
        field!(op.block(), FLT_IO_PARAMETER_BLOCK, TargetFileObject).write(Raw::at(0x1000).pointer());
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 3).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn an_operation_can_be_redirected_to_the_same_filter_on_another_volume() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "TargetInstance can be changed to an instance of the same filter at the same altitude on another volume."
    );
    let rig = Rig::new(&[READ]);
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("far.rom"), b"far away").unwrap();
    crate::fs::mount(rig.setup.bench.machine().inner(), "D:", other.path()).unwrap();
    let process = rig.setup.process();
    let far = process.create_file(r"\??\D:\far.rom", &OpenOptions::new()).unwrap();
    let object = process.handles().entry(far.handle()).unwrap().object.body();
    let stacks = crate::flt::volume_stacks(rig.setup.bench.machine().inner());
    let twin = stacks[1].instances()[0].address;
    rig.pre(move |op| {
        field!(op.block(), FLT_IO_PARAMETER_BLOCK, TargetFileObject).write(Raw::at(object).pointer());
        field!(op.block(), FLT_IO_PARAMETER_BLOCK, TargetInstance).write(Raw::at(twin).pointer());
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 3), Ok(b"far".to_vec()));
    rig.assert_no_finding();
}

#[test]
fn a_create_shows_what_was_asked_for() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-create.md",
        "Options has the create options in its low 24 bits and the disposition in the high 8."
    );
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-create.md",
        "SecurityContext leads to the access asked for, FileAttributes and ShareAccess are as given."
    );
    let rig = Rig::new(&[CREATE]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let security = Raw::<u8>::at(op.parameter::<usize>(0).read());
        let access = security.field::<u32>(16).read();
        let state = Raw::<u8>::at(security.field::<usize>(8).read());
        let (attributes, share) = (op.parameter::<u16>(16).read(), op.parameter::<u16>(18).read());
        push(&down, (access, state.field::<u32>(24).read(), op.parameter::<u32>(8).read(), attributes, share));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let options = OpenOptions::new().access(AccessMask::FILE_READ_DATA).share(1).disposition(3).attributes(0x20);
    rig.open(options).unwrap();
    assert_eq!(take(&seen), [(0x10_0001, 0x10_0001, 0x0300_0020, 0x20, 1)]);
}

#[test]
fn a_filter_can_change_what_a_create_does() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-create.md",
        "Changed create options and dispositions count for the file system."
    );
    let rig = Rig::new(&[CREATE]);
    rig.pre(|op| {
        let options = op.parameter::<u32>(8);
        // FILE_OVERWRITE_IF becomes FILE_OPEN.
        options.write(options.read() & 0x00FF_FFFF | 1 << 24);
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.open(OpenOptions::new().write().truncate()).unwrap();
    assert_eq!((file.create_information(), file.read(0, 4)), (1, Ok(b"0123".to_vec())));
}

#[test]
fn operation_flags_say_how_a_create_was_made() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "SL_OPEN_TARGET_DIRECTORY: the target's parent is opened, as for a rename to another folder."
    );
    let rig = Rig::new(&[CREATE, 0x06]);
    std::fs::create_dir(rig.setup.folder.path().join("New")).unwrap();
    let file = rig.open(OpenOptions::new().delete()).unwrap();
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let flags = field!(op.block(), FLT_IO_PARAMETER_BLOCK, OperationFlags).read();
        let parent = if op.major() == 6 { op.parameter::<usize>(16).read() } else { op.file() };
        push(&down, (op.major(), flags, parent));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    file.rename(r"\New\moved.rom", false).unwrap();
    let seen = take(&seen);
    assert_eq!((seen[0].0, seen[0].1 & 4, seen[1].0), (CREATE, 4, 6));
    assert_eq!(seen[0].2, seen[1].2, "ParentOfTarget is that folder");
    assert!(rig.setup.folder.path().join("New/moved.rom").exists());
}
