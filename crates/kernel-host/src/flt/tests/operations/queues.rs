//! Queues of callback data: `FltCbdq*`.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;

/// `FLT_CALLBACK_DATA_QUEUE`, and a list with room for one operation behind it.
#[repr(C, align(8))]
struct OneSlot {
    queue: [u8; 128],
    kept: usize,
    locked: usize,
    /// `FLT_CALLBACK_DATA_QUEUE_IO_CONTEXT`.
    context: [usize; 2],
}

fn at(queue: usize, offset: usize) -> Raw<usize> {
    Raw::at(queue + 128 + offset)
}

unsafe extern "efiapi" fn insert(queue: usize, data: usize, context: usize) -> NtStatus {
    assert_eq!(at(queue, 8).read(), 1, "the queue is locked");
    if context == 9 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    at(queue, 0).write(data);
    NtStatus::PENDING
}

unsafe extern "efiapi" fn remove(queue: usize, data: usize) {
    assert_eq!((at(queue, 0).read(), at(queue, 8).read()), (data, 1), "locked, and what is in it");
    at(queue, 0).write(0);
}

/// Looks for the read of this many bytes, or for any with 0.
unsafe extern "efiapi" fn peek_next(queue: usize, after: usize, length: usize) -> usize {
    let kept = at(queue, 0).read();
    if kept == 0 || after == kept {
        return 0;
    }
    let op = Raw::<FLT_CALLBACK_DATA>::at(kept);
    let block = Raw::of(field!(op, FLT_CALLBACK_DATA, Iopb).read());
    let wanted = field!(block, FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u32>().read() as usize;
    if length == 0 || length == wanted { kept } else { 0 }
}

unsafe extern "efiapi" fn acquire(queue: usize, irql: *mut u8) {
    Raw::of(irql).write(7);
    at(queue, 8).write(1);
}

unsafe extern "efiapi" fn release(queue: usize, irql: u8) {
    assert_eq!(irql, 7, "what the lock routine gave");
    at(queue, 8).write(0);
}

unsafe extern "efiapi" fn complete_cancelled(queue: usize, data: usize) {
    assert_eq!((at(queue, 0).read(), at(queue, 8).read()), (0, 0), "out of the queue, and not locked");
    complete(data, NtStatus::CANCELLED);
}

fn complete(data: usize, status: NtStatus) {
    Raw::<NtStatus>::at(data + 24).write(status);
    ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, flt::FLT_PREOP_COMPLETE, 0);
}

/// A filter that keeps reads in a queue; the queue's address.
fn queueing(rig: &Rig) -> usize {
    let queue = Box::new(OneSlot { queue: [0; 128], kept: 0, locked: 0, context: [0; 2] });
    let queue = Box::into_raw(queue).expose_provenance();
    let routines: [usize; 6] = [
        insert as *const () as usize,
        remove as *const () as usize,
        peek_next as *const () as usize,
        acquire as *const () as usize,
        release as *const () as usize,
        complete_cancelled as *const () as usize,
    ];
    let initialise = ddi!(FltCbdqInitialize: fn(usize, usize, usize, usize, usize, usize, usize, usize) -> NtStatus);
    let instance = rig.instance;
    assert_eq!(
        rig.run(move || initialise(
            instance,
            queue,
            routines[0],
            routines[1],
            routines[2],
            routines[3],
            routines[4],
            routines[5]
        )),
        Ok(NtStatus::SUCCESS)
    );
    rig.pre(move |op| match insert_io(queue, op.data.address(), 0) {
        status if status.is_success() => flt::FLT_PREOP_PENDING,
        status => op.complete(status),
    });
    queue
}

fn insert_io(queue: usize, data: usize, context: usize) -> NtStatus {
    ddi!(FltCbdqInsertIo: fn(usize, usize, usize, usize) -> NtStatus)(queue, data, queue + 144, context)
}

#[test]
fn a_program_cancels_what_is_in_a_queue() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcbdqinitialize.md",
        "A cancelled operation is removed from the queue before CbdqCompleteCanceledIo is called for it."
    );
    let rig = Rig::new(&[READ]);
    queueing(&rig);
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    assert!(read.is_pending());
    read.cancel().unwrap();
    assert_eq!(read.wait(Duration::from_secs(1)), Err(NtStatus::CANCELLED));
    rig.assert_no_finding();
}

#[test]
fn the_next_that_fits_is_taken_out_once() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcbdqremovenextio.md",
        "The operation that CbdqPeekNextIo finds for the peek context is removed and returned, NULL when none fits."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcbdqremoveio.md",
        "The context of an operation that is out of the queue already leads to NULL."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcbdqinsertio.md",
        "Success is whatever success the CbdqInsertIo routine returns."
    );
    let rig = Rig::new(&[READ]);
    let queue = queueing(&rig);
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    assert!(read.is_pending(), "STATUS_PENDING is a success");
    let next = ddi!(FltCbdqRemoveNextIo: fn(usize, usize) -> usize);
    let by_context = ddi!(FltCbdqRemoveIo: fn(usize, usize) -> usize);
    assert_eq!(rig.run(move || next(queue, 5)), Ok(0), "nobody reads five bytes");
    let data = rig.run(move || next(queue, 4)).unwrap();
    assert_ne!(data, 0);
    assert_eq!(rig.run(move || (next(queue, 0), by_context(queue, queue + 144))), Ok((0, 0)));
    let _asked = read.cancel();
    assert!(read.is_pending(), "it is the filter's alone, who is not told any more");
    rig.run(move || complete(data, NtStatus::ACCESS_DENIED)).unwrap();
    assert_eq!(read.wait(Duration::from_secs(1)), Err(NtStatus::ACCESS_DENIED));

    let read = file.read_overlapped(0, 4).unwrap();
    let data = rig.run(move || by_context(queue, queue + 144)).unwrap();
    assert_ne!(data, 0, "the context leads to the one that is there now");
    rig.run(move || complete(data, NtStatus::ACCESS_DENIED)).unwrap();
    assert_eq!(read.wait(Duration::from_secs(1)), Err(NtStatus::ACCESS_DENIED));
    rig.assert_no_finding();
}

#[test]
fn a_disabled_queue_takes_nothing() {
    conforms!("fltkernel/nf-fltkernel-fltcbdqinsertio.md", "STATUS_FLT_CBDQ_DISABLED when the queue is disabled.");
    conforms!("fltkernel/nf-fltkernel-fltcbdqenable.md", "An enabled queue takes operations again.");
    let rig = Rig::new(&[READ]);
    let queue = queueing(&rig);
    rig.run(move || ddi!(FltCbdqDisable: fn(usize))(queue)).unwrap();
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    assert_eq!(read.wait(Duration::from_secs(1)), Err(NtStatus::FLT_CBDQ_DISABLED));
    rig.run(move || ddi!(FltCbdqEnable: fn(usize))(queue)).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    assert!(read.is_pending());
    read.cancel().unwrap();
    assert_eq!(read.wait(Duration::from_secs(1)), Err(NtStatus::CANCELLED));
    rig.assert_no_finding();
}

#[test]
fn a_refused_operation_is_not_in_the_queue() {
    let rig = Rig::new(&[READ]);
    let queue = queueing(&rig);
    rig.pre(move |op| op.complete(insert_io(queue, op.data.address(), 9)));
    assert_eq!(rig.reader().read(0, 1), Err(NtStatus::INSUFFICIENT_RESOURCES));
    let next = ddi!(FltCbdqRemoveNextIo: fn(usize, usize) -> usize);
    assert_eq!(rig.run(move || next(queue, 0)), Ok(0));
    rig.assert_no_finding();
}

#[test]
fn a_queue_that_nobody_initialised_is_found() {
    let rig = Rig::new(&[READ]);
    let queue = [0_usize; 20];
    let address = queue.as_ptr().expose_provenance();
    let stopped = rig.run(|| ddi!(FltCbdqRemoveNextIo: fn(usize, usize) -> usize)(address, 0));
    assert_eq!(stopped, Err(Rule::BadArgument));
}
