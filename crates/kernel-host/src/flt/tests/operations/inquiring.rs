//! What became of a packet, and waits that its cancellation ends.

use super::*;
use crate::conformance::conforms;
use crate::nt::dispatcher::{self, Kind as Dispatcher};

const READ: u8 = 3;
const CLOSE: u8 = 2;
const DIRECTORY_CONTROL: u8 = 0x0C;

type Told = (NtStatus, usize, u64);

/// What status callbacks were told: status, context, offset of the read in the snapshot. By instance.
static TOLD: Mutex<Vec<(usize, Told)>> = Mutex::new(Vec::new());

unsafe extern "efiapi" fn status_callback(
    related: *const FLT_RELATED_OBJECTS,
    snapshot: *const FLT_IO_PARAMETER_BLOCK,
    status: NtStatus,
    context: PVOID,
) {
    let instance = Raw::of(related.cast_mut()).read().Instance.addr();
    let offset = field!(Raw::of(snapshot.cast_mut()), FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u8>().field::<u64>(16);
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).push((instance, (status, context.addr(), offset.read())));
}

fn told(rig: &Rig) -> Vec<Told> {
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.iter().filter(|(instance, _)| *instance == rig.instance).map(|(_, told)| *told).collect()
}

fn inquire(data: usize) -> NtStatus {
    let callback: unsafe extern "efiapi" fn(
        *const FLT_RELATED_OBJECTS,
        *const FLT_IO_PARAMETER_BLOCK,
        NtStatus,
        PVOID,
    ) = status_callback;
    ddi!(FltRequestOperationStatusCallback: fn(usize, usize, usize) -> NtStatus)(data, callback as usize, 7)
}

#[test]
fn who_asks_is_told_what_the_file_system_answered() {
    conforms!(
        "fltkernel/nf-fltkernel-fltrequestoperationstatuscallback.md",
        "The callback gets the status with which the file system returned, and the requester's context."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltrequestoperationstatuscallback.md",
        "The callback gets the parameters as they were when it was requested, not as the filter changed them later."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        assert_eq!(inquire(op.data.address()), NtStatus::SUCCESS);
        op.parameter::<i64>(16).write(2);
        op.set_dirty();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 2), Ok(b"23".to_vec()));
    assert_eq!(told(&rig), [(NtStatus::SUCCESS, 7, 0)]);
    rig.pre(|op| {
        assert_eq!(inquire(op.data.address()), NtStatus::SUCCESS);
        op.complete(NtStatus::CRC_ERROR)
    });
    assert_eq!(rig.reader().read(4, 2), Err(NtStatus::CRC_ERROR));
    assert_eq!(told(&rig).len(), 1, "the packet never was sent");
    rig.assert_no_finding();
}

#[test]
fn a_packet_that_the_file_system_keeps_has_status_pending() {
    conforms!(
        "fltkernel/nf-fltkernel-fltrequestoperationstatuscallback.md",
        "The callback is called when the packet was sent, also while the file system keeps it: STATUS_PENDING."
    );
    let rig = Rig::new(&[DIRECTORY_CONTROL]);
    rig.pre(|op| {
        assert_eq!(inquire(op.data.address()), NtStatus::SUCCESS);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let folder = rig.setup.process().create_file(r"\??\C:\", &OpenOptions::new().directory().overlapped()).unwrap();
    let watch = folder.watch(1, false, 256).unwrap();
    assert!(watch.is_pending());
    assert_eq!(told(&rig)[0].0, NtStatus::PENDING);
    watch.cancel().unwrap();
    assert_eq!(told(&rig).len(), 1);
}

#[test]
fn only_packets_on_their_way_down_are_asked_after() {
    conforms!(
        "fltkernel/nf-fltkernel-fltrequestoperationstatuscallback.md",
        "Outside of a pre-operation callback, and for IRP_MJ_CLOSE, it returns STATUS_INVALID_PARAMETER."
    );
    let rig = Rig::new(&[READ, CLOSE]);
    let seen = log();
    let (down, up) = (Arc::clone(&seen), Arc::clone(&seen));
    rig.pre(move |op| {
        if op.major() == CLOSE {
            push(&down, inquire(op.data.address()));
        }
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    rig.post(move |op| {
        if op.major() == READ {
            push(&up, inquire(op.data.address()));
        }
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.reader().read(0, 1).unwrap();
    assert_eq!(take(&seen), [NtStatus::INVALID_PARAMETER; 2]);
}

/// An event that is never signalled, or is already.
fn event(signalled: bool) -> usize {
    let memory = Box::leak(Box::new([0_u64; 3]));
    let event = Raw::of((&raw mut *memory).cast());
    dispatcher::initialise(event, Dispatcher::NotificationEvent, 24, i32::from(signalled));
    event.address()
}

#[test]
fn the_cancellation_of_a_packet_ends_a_wait() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcancellablewaitforsingleobject.md",
        "STATUS_CANCELLED when the packet is cancelled during the wait, STATUS_TIMEOUT when time is up."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcancellablewaitforsingleobject.md",
        "An object that is signalled satisfies the wait."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcancellablewaitformultipleobjects.md",
        "With WaitAny the index of the object that satisfied the wait is returned; STATUS_CANCELLED for a cancelled packet."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    let (never, already) = (event(false), event(true));
    rig.pre(move |op| {
        let data = op.data.address();
        let single = ddi!(FltCancellableWaitForSingleObject: fn(usize, usize, usize) -> NtStatus);
        let many = ddi!(FltCancellableWaitForMultipleObjects: fn(u32, usize, i32, usize, usize, usize) -> NtStatus);
        let objects = [never, already];
        let (list, soon) = (objects.as_ptr().expose_provenance(), -10_000_i64);
        let soon_at = (&raw const soon).expose_provenance();
        push(&down, single(already, 0, data));
        push(&down, single(never, soon_at, data));
        push(&down, many(2, list, 1, 0, 0, data));
        // Without a routine nobody is told, but the cancel bit is set.
        assert_eq!(ddi!(FltCancelIo: fn(usize) -> u8)(data), 0);
        push(&down, single(never, 0, data));
        push(&down, many(2, list, 0, 0, 0, data));
        op.complete(NtStatus::CANCELLED)
    });
    assert_eq!(rig.reader().read(0, 1), Err(NtStatus::CANCELLED));
    let (done, over, cancelled) = (NtStatus::SUCCESS, NtStatus::TIMEOUT, NtStatus::CANCELLED);
    assert_eq!(take(&seen), [done, over, NtStatus(1), cancelled, cancelled]);
    rig.assert_no_finding();
}

#[test]
fn a_wait_beside_a_cancel_routine_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcancellablewaitforsingleobject.md",
        "The operation must not have a cancel routine."
    );
    let rig = Rig::new(&[READ]);
    let already = event(true);
    rig.pre(move |op| {
        unsafe extern "efiapi" fn nothing(_data: *mut FLT_CALLBACK_DATA) {}
        let routine: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA) = nothing;
        ddi!(FltSetCancelCompletion: fn(usize, usize) -> NtStatus)(op.data.address(), routine as usize).ok().unwrap();
        let wait = ddi!(FltCancellableWaitForSingleObject: fn(usize, usize, usize) -> NtStatus);
        wait(already, 0, op.data.address()).ok().unwrap();
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}
