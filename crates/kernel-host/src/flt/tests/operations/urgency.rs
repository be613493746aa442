//! Priority hints of operations, file objects and threads.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const NORMAL: u32 = 2;
const LOW: u32 = 1;
const HIGH: u32 = 3;

/// The thread object of the calling thread.
fn thread() -> usize {
    Thread::current().object().addr()
}

#[test]
fn the_packet_s_hint_goes_before_the_file_s_and_that_before_the_thread_s() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetiopriorityhint.md",
        "The hint is the packet's, else the file object's, else the thread's; IoPriorityNormal where none has one."
    );
    conforms!("fltkernel/nf-fltkernel-fltgetiopriorityhintfromcallbackdata.md", "IoPriorityNormal without a hint.");
    conforms!("fltkernel/nf-fltkernel-fltgetiopriorityhintfromfileobject.md", "IoPriorityNormal without a hint.");
    conforms!("fltkernel/nf-fltkernel-fltgetiopriorityhintfromthread.md", "IoPriorityNormal without a hint.");
    conforms!(
        "fltkernel/nf-fltkernel-fltsetiopriorityhintintocallbackdata.md",
        "An unknown hint is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetiopriorityhintintofileobject.md",
        "An unknown hint is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetiopriorityhintintothread.md",
        "An unknown hint is STATUS_INVALID_PARAMETER."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        let (data, file, thread) = (op.data.address(), op.file(), thread());
        let of = ddi!(FltGetIoPriorityHint: fn(usize) -> u32);
        let of_data = ddi!(FltGetIoPriorityHintFromCallbackData: fn(usize) -> u32);
        let of_file = ddi!(FltGetIoPriorityHintFromFileObject: fn(usize) -> u32);
        let of_thread = ddi!(FltGetIoPriorityHintFromThread: fn(usize) -> u32);
        let into_data = ddi!(FltSetIoPriorityHintIntoCallbackData: fn(usize, u32) -> NtStatus);
        let into_file = ddi!(FltSetIoPriorityHintIntoFileObject: fn(usize, u32) -> NtStatus);
        let into_thread = ddi!(FltSetIoPriorityHintIntoThread: fn(usize, u32) -> NtStatus);
        assert_eq!([of(data), of_data(data), of_file(file), of_thread(thread)], [NORMAL; 4]);
        assert_eq!((into_thread(thread, HIGH), of(data)), (NtStatus::SUCCESS, HIGH));
        assert_eq!((into_file(file, LOW), of(data), of_file(file)), (NtStatus::SUCCESS, LOW, LOW));
        assert_eq!((into_data(data, 0), of(data), of_data(data)), (NtStatus::SUCCESS, 0, 0));
        assert_eq!(of_thread(thread), HIGH);
        let invalid = NtStatus::INVALID_PARAMETER;
        assert_eq!([into_data(data, 5), into_file(file, 5), into_thread(thread, 5)], [invalid; 3]);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.reader().read(0, 1).unwrap();
    rig.assert_no_finding();
}

#[test]
fn a_direct_call_takes_a_hint_and_keeps_none() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetiopriorityhintintocallbackdata.md",
        "For fast I/O it returns STATUS_SUCCESS."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        if op.flag(FAST_IO) {
            let data = op.data.address();
            let into = ddi!(FltSetIoPriorityHintIntoCallbackData: fn(usize, u32) -> NtStatus);
            push(&down, (into(data, HIGH), ddi!(FltGetIoPriorityHintFromCallbackData: fn(usize) -> u32)(data)));
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    file.read(0, 1).unwrap();
    assert_eq!(take(&seen), [(NtStatus::SUCCESS, NORMAL)]);
}

#[test]
fn priorities_of_a_thread_are_saved_and_put_back() {
    conforms!(
        "fltkernel/nf-fltkernel-fltapplypriorityinfothread.md",
        "OutputPriorityInfo receives the state before, and may be the same structure as InputPriorityInfo."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltapplypriorityinfothread.md",
        "A member that is out of range is STATUS_INVALID_PARAMETER_1."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltretrieveiopriorityinfo.md",
        "Without a thread its members get sentinels, which leave a thread's priorities as they are."
    );
    conforms!("fltkernel/nf-fltkernel-fltretrieveiopriorityinfo.md", "The structure has to be initialised.");
    let rig = Rig::new(&[]);
    let retrieve = ddi!(FltRetrieveIoPriorityInfo: fn(usize, usize, usize, usize) -> NtStatus);
    let apply = ddi!(FltApplyPriorityInfoThread: fn(usize, usize, usize) -> NtStatus);
    let mut info = [16_u32, 0xFFFF, 0, NORMAL];
    let at = (&raw mut info).expose_provenance();
    let read = || Raw::<u32>::at(at).read_slice(4);
    rig.run(|| {
        assert_eq!(retrieve(0, 0, 0, at), NtStatus::SUCCESS);
        assert_eq!(read(), [16, 0xFFFF, 0, NORMAL]);
        assert_eq!(retrieve(0, 0, thread(), at), NtStatus::SUCCESS);
        let normal = read();
        assert_eq!(normal[2..], [5, NORMAL]);
        Raw::<[u32; 4]>::at(at).write([16, 12, 1, LOW]);
        assert_eq!(apply(at, at, thread()), NtStatus::SUCCESS);
        assert_eq!(read(), normal);
        assert_eq!(apply(at, at, thread()), NtStatus::SUCCESS);
        assert_eq!(read(), [16, 12, 1, LOW]);
        Raw::<[u32; 4]>::at(at).write([16, 0xFFFF, 0, HIGH]);
        assert_eq!(apply(at, 0, thread()), NtStatus::SUCCESS);
        assert_eq!(retrieve(0, 0, thread(), at), NtStatus::SUCCESS);
        assert_eq!(read(), [16, normal[1], normal[2], HIGH]);
        Raw::<[u32; 4]>::at(at).write([16, 40, 0, HIGH]);
        assert_eq!(apply(at, 0, thread()), NtStatus::INVALID_PARAMETER_1);
        Raw::<[u32; 4]>::at(at).write([0; 4]);
    })
    .unwrap();
    assert_eq!(rig.run(|| retrieve(0, 0, 0, at)), Err(Rule::BadArgument));
}
