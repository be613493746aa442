//! Buffers: where they are, locked, swapped.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;

fn lock(op: &Op) -> NtStatus {
    ddi!(FltLockUserBuffer: fn(usize) -> NtStatus)(op.data.address())
}

#[test]
fn a_locked_buffer_has_an_mdl_in_the_parameters() {
    conforms!(
        "fltkernel/nf-fltkernel-fltlockuserbuffer.md",
        "FltLockUserBuffer puts the MDL of the locked pages into MdlAddress."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltlockuserbuffer.md",
        "A buffer that is locked already stays so: STATUS_SUCCESS again, and the same MDL."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltlockuserbuffer.md",
        "In a pre-operation callback FltLockUserBuffer marks the callback data dirty."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let list = || op.parameter::<usize>(32).read();
        assert_eq!((list(), lock(op)), (0, NtStatus::SUCCESS));
        let first = list();
        assert!(first != 0 && op.flag(0x8000_0000));
        assert_eq!((lock(op), list()), (NtStatus::SUCCESS, first));
        let list = Raw::<nt_types::MDL>::at(first).read();
        push(
            &down,
            (list.ByteCount, list.StartVa.addr() + list.ByteOffset as usize == op.parameter::<usize>(24).read()),
        );
        assert!(list.MappedSystemVa.addr() > crate::process::HIGHEST_USER_ADDRESS, "an address that needs no guard");
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 4), Ok(b"0123".to_vec()));
    assert_eq!(take(&seen), [(4, true)]);
    rig.assert_no_finding();
}

#[test]
fn a_pended_operation_is_locked_by_whoever_goes_on_with_it() {
    let rig = Rig::new(&[READ]);
    let kept = log();
    let down = Arc::clone(&kept);
    rig.pre(move |op| {
        push(&down, op.data.address());
        flt::FLT_PREOP_PENDING
    });
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    let data = take(&kept)[0];
    let locked = rig.run(|| {
        let locked = ddi!(FltLockUserBuffer: fn(usize) -> NtStatus)(data);
        let dirty = Raw::<u32>::at(data).read() & 0x8000_0000 != 0;
        ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 0);
        (locked, dirty)
    });
    assert_eq!(locked, Ok((NtStatus::SUCCESS, true)), "the parameters have an MDL now");
    assert_eq!(read.wait(Duration::from_secs(1)), Ok(b"0123".to_vec()));
    rig.assert_no_finding();
}

#[test]
fn only_operations_with_an_mdl_can_be_locked() {
    conforms!(
        "fltkernel/nf-fltkernel-fltlockuserbuffer.md",
        "STATUS_INVALID_PARAMETER for an operation without an MDL parameter."
    );
    let rig = Rig::new(&[0x05, 0x12]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        push(&down, lock(op));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.query(6, 8).unwrap();
    drop(file);
    assert_eq!(take(&seen), [NtStatus::INVALID_PARAMETER; 2]);
}

#[test]
fn parameters_are_found_without_a_switch() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdecodeparameters.md",
        "Pointers to MDL, buffer and length are returned, so that a filter can change them; reads are IoWriteAccess."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdecodeparameters.md",
        "STATUS_INVALID_PARAMETER for an operation without buffers."
    );
    let rig = Rig::new(&[READ, 0x04, 0x12]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let mut found = [0_usize; 3];
        let mut access = -1_i32;
        let at = (&raw mut found).expose_provenance();
        let access_at = (&raw mut access).expose_provenance();
        let decode = ddi!(FltDecodeParameters: fn(usize, usize, usize, usize, usize) -> NtStatus);
        let status = decode(op.data.address(), at, at + 8, at + 16, access_at);
        let base = op.parameter::<u8>(0).address();
        let found = Raw::<[usize; 3]>::at(at).read().map(|pointer| pointer.wrapping_sub(base));
        push(&down, (op.major(), status, found, Raw::<i32>::at(access_at).read()));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.writer();
    file.read(0, 1).unwrap();
    file.write(0, b"0").unwrap();
    drop(file);
    let seen = take(&seen);
    assert_eq!(seen[0], (READ, NtStatus::SUCCESS, [32, 24, 0], 1));
    assert_eq!(seen[1], (0x04, NtStatus::SUCCESS, [32, 24, 0], 0));
    assert_eq!(seen[2].1, NtStatus::INVALID_PARAMETER);
}

#[test]
fn a_swapped_buffer_is_read_into_and_its_mdl_is_there_afterwards() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetswappedbuffermdladdress.md",
        "The post-operation callback gets the MDL of the buffer that its pre-operation callback swapped in."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetswappedbuffermdladdress.md",
        "The MDL is freed when the post-operation callback returns."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltretainswappedbuffermdladdress.md",
        "After FltRetainSwappedBufferMdlAddress the filter frees the MDL itself."
    );
    for retain in [false, true] {
        let rig = Rig::new(&[READ]);
        let seen = log();
        let (down, up) = (Arc::clone(&seen), Arc::clone(&seen));
        rig.pre(move |op| {
            if op.flag(FAST_IO) {
                return flt::FLT_PREOP_DISALLOW_FASTIO;
            }
            let allocate = ddi!(ExAllocatePool2: fn(u64, usize, u32) -> usize);
            let buffer = allocate(0x40, 512, u32::from_le_bytes(*b"Swap"));
            let list = ddi!(IoAllocateMdl: fn(usize, u32, u8, u8, usize) -> usize)(buffer, 512, 0, 0, 0);
            ddi!(MmBuildMdlForNonPagedPool: fn(usize))(list);
            op.parameter::<usize>(24).write(buffer);
            op.parameter::<usize>(32).write(list);
            op.set_dirty();
            push(&down, list);
            op.context.write(buffer);
            flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
        });
        rig.post(move |op| {
            let list = ddi!(FltGetSwappedBufferMdlAddress: fn(usize) -> usize)(op.data.address());
            push(&up, list);
            // The data are in the swapped buffer; the program's has to get them.
            assert_eq!(Raw::<u8>::at(op.given).read_bytes(4), b"0123");
            Raw::<u8>::at(op.parameter::<usize>(24).read()).write_bytes(b"swap");
            ddi!(ExFreePoolWithTag: fn(usize, u32))(op.given, u32::from_le_bytes(*b"Swap"));
            if retain {
                ddi!(FltRetainSwappedBufferMdlAddress: fn(usize))(op.data.address());
                ddi!(IoFreeMdl: fn(usize))(list);
            }
            flt::FLT_POSTOP_FINISHED_PROCESSING
        });
        assert_eq!(rig.reader().read(0, 4), Ok(b"swap".to_vec()));
        let seen = take(&seen);
        assert_eq!(seen[0], seen[1]);
        rig.assert_no_finding();
        let pool = rig.setup.bench.machine().inner().nt.pool().leaks(rig.setup.bench.driver());
        assert!(pool.is_empty(), "{pool:?}");
    }
}

#[test]
fn a_swapped_buffer_is_asked_for_in_posts_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetswappedbuffermdladdress.md",
        "FltGetSwappedBufferMdlAddress is for post-operation callbacks only."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        ddi!(FltGetSwappedBufferMdlAddress: fn(usize) -> usize)(op.data.address());
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn who_asks_is_known_in_any_thread() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetrequestorprocess.md",
        "The process of the thread that asked for the operation."
    );
    conforms!("fltkernel/nf-fltkernel-fltgetrequestorprocessid.md", "The id of the requesting process.");
    conforms!("fltkernel/nf-fltkernel-fltis32bitprocess.md", "FALSE for a 64-bit process.");
    conforms!("fltkernel/ns-fltkernel-_flt_callback_data.md", "RequestorMode is UserMode for a program's request.");
    let rig = Rig::new(&[READ]);
    let process = rig.setup.process();
    let (id, object) = (process.id() as usize, process.object());
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let data = op.data.address();
        push(&down, ddi!(FltGetRequestorProcess: fn(usize) -> usize)(data));
        push(&down, ddi!(FltGetRequestorProcessId: fn(usize) -> u32)(data) as usize);
        push(&down, ddi!(FltGetRequestorProcessIdEx: fn(usize) -> usize)(data));
        push(&down, usize::from(ddi!(FltIs32bitProcess: fn(usize) -> u8)(data)));
        push(&down, usize::try_from(field!(op.data, FLT_CALLBACK_DATA, RequestorMode).read()).unwrap());
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    process.create_file(BOOT, &OpenOptions::new()).unwrap().read(0, 1).unwrap();
    assert_eq!(take(&seen), [object, id, id, 0, 1]);
}

#[test]
fn an_operation_is_synchronous_by_its_file_its_api_or_its_kind() {
    conforms!(
        "fltkernel/nf-fltkernel-fltisoperationsynchronous.md",
        "An operation on a file that was opened for synchronous I/O is synchronous."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltisoperationsynchronous.md",
        "Queries and changes are synchronous even on a file for asynchronous I/O (IRP_SYNCHRONOUS_API)."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltisoperationsynchronous.md",
        "Other operations on a file for asynchronous I/O are asynchronous."
    );
    for (options, reads) in [(OpenOptions::new(), 1), (OpenOptions::new().overlapped(), 0)] {
        let rig = Rig::new(&[READ, 0x05]);
        let seen = log();
        let down = Arc::clone(&seen);
        rig.pre(move |op| {
            push(&down, (op.major(), ddi!(FltIsOperationSynchronous: fn(usize) -> u8)(op.data.address())));
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK
        });
        let file = rig.open(options).unwrap();
        file.read_overlapped(0, 1).unwrap().wait(Duration::from_secs(1)).unwrap();
        file.query(6, 8).unwrap();
        assert_eq!(take(&seen), [(READ, reads), (0x05, 1)]);
    }
}

#[test]
fn a_program_that_takes_its_buffer_away_gets_its_read_refused() {
    conforms!(
        "docs:ifs/accessing-user-buffers-in-a-preoperation-callback-routine.md",
        "A user buffer may become invalid at any time: a filter touches it inside of __try, or locked."
    );
    let rig = Rig::new(&[READ]);
    let process = rig.setup.process();
    let weak = Arc::clone(&process);
    rig.pre(move |op| {
        let address = op.parameter::<usize>(24).read();
        weak.memory().protect(address, 1, crate::process::Protection::NoAccess).unwrap();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    assert_eq!(file.read(0, 4), Err(NtStatus::INVALID_USER_BUFFER));
    rig.assert_no_finding();
}
