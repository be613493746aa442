//! Fast I/O: which requests go that way first, and how filters refuse it.

use nt_types::{IO_STACK_LOCATION, IRP};

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const LOCK: u8 = 0x11;

#[test]
fn the_first_cached_read_is_a_packet_and_the_next_ones_are_fast() {
    conforms!(
        "docs:ifs/operations-that-can-be-irp-based-or-fast-i-o.md",
        "Reads can be packets or fast I/O: the flags of the callback data say which."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        push(&down, (op.flag(IRP), op.flag(FAST_IO), op.flag(FS_FILTER)));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    for _ in 0..2 {
        file.read(0, 1).unwrap();
    }
    assert_eq!(take(&seen), [(true, false, false), (false, true, false)]);
}

#[test]
fn refused_fast_io_comes_back_as_a_packet() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "After FLT_PREOP_DISALLOW_FASTIO the Filter Manager sets STATUS_FLT_DISALLOW_FAST_IO, and filters above see it."
    );
    conforms!(
        "docs:ifs/disallowing-a-fast-i-o-operation-in-a-preoperation-callback-routine.md",
        "A disallowed fast I/O operation is not sent below; the I/O manager may send a packet instead."
    );
    let rig = Rig::new(&[READ]);
    let (_, upper) = rig.add("Upper", "380000", &[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let seen = log();
    let (above, below) = (Arc::clone(&seen), Arc::clone(&seen));
    Rig::pre_of(upper, |_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    Rig::post_of(upper, move |op| {
        push(&above, ("upper", op.flag(FAST_IO), op.status()));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.pre(|op| if op.flag(FAST_IO) { flt::FLT_PREOP_DISALLOW_FASTIO } else { flt::FLT_PREOP_SUCCESS_NO_CALLBACK });
    Rig::pre_of(lower, move |op| {
        push(&below, ("lower", op.flag(FAST_IO), NtStatus::SUCCESS));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    take(&seen);
    assert_eq!(file.read(1, 1), Ok(b"1".to_vec()));
    let expected = [
        ("upper", true, NtStatus::FLT_DISALLOW_FAST_IO),
        ("lower", false, NtStatus::SUCCESS),
        ("upper", false, NtStatus::SUCCESS),
    ];
    assert_eq!(take(&seen), expected);
    rig.assert_no_finding();
}

#[test]
fn fast_io_cannot_be_pended() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_PENDING is for IRP-based operations only."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "FLT_POSTOP_MORE_PROCESSING_REQUIRED is for IRP-based operations only."
    );
    for in_post in [false, true] {
        let rig = Rig::new(&[READ]);
        rig.pre(move |op| match (op.flag(FAST_IO), in_post) {
            (true, false) => flt::FLT_PREOP_PENDING,
            (true, true) => flt::FLT_PREOP_SUCCESS_WITH_CALLBACK,
            (false, _) => flt::FLT_PREOP_SUCCESS_NO_CALLBACK,
        });
        rig.post(|_| flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED);
        let file = rig.reader();
        file.read(0, 1).unwrap();
        assert!(file.read(0, 1).is_err());
        assert_eq!(rig.finding().0, Rule::BadState);
    }
}

#[test]
fn synchronize_of_fast_io_is_success_with_callback() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_SYNCHRONIZE for what is no packet counts as FLT_PREOP_SUCCESS_WITH_CALLBACK."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let up = Arc::clone(&seen);
    rig.pre(|op| if op.flag(FAST_IO) { flt::FLT_PREOP_SYNCHRONIZE } else { flt::FLT_PREOP_SUCCESS_NO_CALLBACK });
    rig.post(move |op| {
        push(&up, op.flag(FAST_IO));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    assert_eq!(file.read(0, 1), Ok(b"0".to_vec()));
    assert_eq!(take(&seen), [true]);
}

#[test]
fn skipped_cached_io_includes_fast_io() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "SKIP_CACHED_IO keeps cached packets and all fast I/O reads from the filter."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "SKIP_NON_CACHED_NON_PAGING_IO keeps reads past the cache from the filter."
    );
    for (flags, options, calls) in [
        (2, OpenOptions::new(), 0),
        (2, OpenOptions::new().non_cached(), 2),
        (8, OpenOptions::new().non_cached(), 0),
        (8, OpenOptions::new(), 2),
    ] {
        let rig = Rig::with_flags(&[(READ, flags)]);
        std::fs::write(rig.setup.folder.path().join("boot.rom"), [7; 1024]).unwrap();
        let seen = log();
        let down = Arc::clone(&seen);
        rig.pre(move |_| {
            push(&down, ());
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK
        });
        let file = rig.open(options).unwrap();
        for _ in 0..2 {
            file.read(0, 512).unwrap();
        }
        assert_eq!(take(&seen).len(), calls, "{flags} {options:?}");
    }
}

#[test]
fn paging_io_and_files_can_be_skipped() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "SKIP_PAGING_IO keeps paging reads and writes from the filter."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "SKIP_NON_DASD_IO leaves operations on the volume itself only."
    );
    for (flags, paging) in [(0, 1), (1, 0), (4, 0)] {
        let rig = Rig::with_flags(&[(4, flags)]);
        let seen = log();
        let down = Arc::clone(&seen);
        rig.pre(move |op| {
            push(&down, op.irp_flags());
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK
        });
        let view = rig.writer().map_writable().unwrap();
        view.store(0, b"x").unwrap();
        drop(view);
        assert_eq!(take(&seen).len(), paging, "{flags}");
    }
    let rig = Rig::with_flags(&[(0, 4)]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |_| {
        push(&down, ());
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.reader();
    assert!(take(&seen).is_empty());
    rig.setup.process().create_file(r"\??\C:", &OpenOptions::new()).unwrap();
    assert_eq!(take(&seen).len(), 1, "the volume");
}

#[test]
fn locks_go_fast_and_make_fast_reads_a_question() {
    conforms!("docs:ifs/operations-that-can-be-irp-based-or-fast-i-o.md", "Lock requests can be packets or fast I/O.");
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-fast-io-check-if-possible.md",
        "FileOffset, Length, LockKey and CheckForReadOperation describe the fast I/O that is asked about."
    );
    let rig = Rig::new(&[LOCK, 0xF3]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let check = if op.major() == 0xF3 {
            (op.parameter::<i64>(0).read(), op.parameter::<u32>(8).read(), op.parameter::<u8>(24).read())
        } else {
            (0, 0, 0)
        };
        push(&down, (op.major(), op.flag(FAST_IO), check));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    file.lock(0, 4, false, 0).unwrap();
    assert_eq!(file.read(2, 3), Ok(b"234".to_vec()));
    assert_eq!(take(&seen), [(LOCK, true, (0, 0, 0)), (0xF3, true, (2, 3, 1))]);
}

#[test]
fn a_query_of_attributes_is_fast_unless_a_filter_refuses() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-network-query-open.md",
        "IRP_MJ_NETWORK_QUERY_OPEN is fast I/O; refused, it becomes an open, a query and a close."
    );
    let rig = Rig::new(&[0xF2, 0x00, 0x05]);
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-network-query-open.md",
        "Irp is a create IRP that stands for the open."
    );
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        push(&down, op.major());
        let irp = Raw::<IRP>::at(op.parameter::<usize>(0).read());
        let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
        assert_eq!(field!(location, IO_STACK_LOCATION, MajorFunction).read(), 0);
        assert_eq!(field!(location, IO_STACK_LOCATION, FileObject).read().addr(), op.file());
        let options = field!(location, IO_STACK_LOCATION, Parameters).cast::<u32>().index(2).read();
        assert_eq!(options, 1 << 24 | 0x0020_0020, "FILE_OPEN, of what is there, synchronously");
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let process = rig.setup.process();
    let fast = process.query_attributes(BOOT).unwrap();
    assert_eq!(fast[40..48], 10_u64.to_le_bytes());
    assert_eq!(take(&seen), [0xF2]);
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        push(&down, op.major());
        if op.flag(FAST_IO) { flt::FLT_PREOP_DISALLOW_FASTIO } else { flt::FLT_PREOP_SUCCESS_NO_CALLBACK }
    });
    assert_eq!(process.query_attributes(BOOT).unwrap(), fast);
    assert_eq!(take(&seen), [0xF2, 0x00, 0x05]);
}
