//! Activity identifiers, from the packet to the thread that works for it.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const ACTIVITY: [u8; 16] = *b"what belongs tog";

#[test]
fn an_activity_goes_from_the_packet_to_the_thread_and_back_again() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetactivityidcallbackdata.md",
        "STATUS_NOT_FOUND for a packet without an activity ID."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetactivityidcallbackdata.md",
        "The ID that Guid points at is the packet's from now on."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetactivityidcallbackdata.md",
        "Without a GUID, and on a thread without one, it is STATUS_NOT_SUPPORTED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltpropagateactivityidtothread.md",
        "The thread has the packet's ID until IoClearActivityIdThread gets the original back."
    );
    conforms!("ntddk/nf-ntddk-iosetactivityidthread.md", "It returns the address of the ID before, or NULL.");
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        let data = op.data.address();
        let get = ddi!(FltGetActivityIdCallbackData: fn(usize, usize) -> NtStatus);
        let set = ddi!(FltSetActivityIdCallbackData: fn(usize, usize) -> NtStatus);
        let propagate = ddi!(FltPropagateActivityIdToThread: fn(usize, usize, usize) -> NtStatus);
        let of_thread = ddi!(IoGetActivityIdThread: fn() -> usize);
        let into_thread = ddi!(IoSetActivityIdThread: fn(usize) -> usize);
        let clear = ddi!(IoClearActivityIdThread: fn(usize));
        let (mut guid, mut place) = ([0_u8; 16], [0_u8; 16]);
        let (at, place_at) = ((&raw mut guid).expose_provenance(), (&raw mut place).expose_provenance());
        assert_eq!(get(data, at), NtStatus::NOT_FOUND);
        assert_eq!(set(data, 0), NtStatus::NOT_SUPPORTED);
        assert_eq!(with_out(|out| propagate(data, place_at, out)).0, NtStatus::NOT_FOUND);
        assert_eq!(set(data, ACTIVITY.as_ptr().expose_provenance()), NtStatus::SUCCESS);
        assert_eq!((get(data, at), Raw::<[u8; 16]>::at(at).read()), (NtStatus::SUCCESS, ACTIVITY));
        let own = *b"an own activity.";
        let own_at = own.as_ptr().expose_provenance();
        assert_eq!(into_thread(own_at), 0);
        let (status, original) = with_out(|out| propagate(data, place_at, out));
        assert_eq!((status, original, of_thread()), (NtStatus::SUCCESS, own_at, place_at));
        assert_eq!(Raw::<[u8; 16]>::at(place_at).read(), ACTIVITY);
        clear(original);
        assert_eq!(of_thread(), own_at);
        // Without a GUID the thread's own is taken.
        assert_eq!(set(data, 0), NtStatus::SUCCESS);
        assert_eq!((get(data, at), Raw::<[u8; 16]>::at(at).read()), (NtStatus::SUCCESS, own));
        clear(0);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.reader().read(0, 1).unwrap();
    rig.assert_no_finding();
}

#[test]
fn the_extension_of_a_packet_is_copied_to_another() {
    conforms!("fltkernel/nf-fltkernel-fltpropagateirpextension.md", "What the source has is copied to the target.");
    conforms!("fltkernel/nf-fltkernel-fltpropagateirpextension.md", "What is no packet is STATUS_INVALID_PARAMETER.");
    let rig = Rig::new(&[READ]);
    let seen = log();
    let (down, instance) = (Arc::clone(&seen), rig.instance);
    rig.pre(move |op| {
        let data = op.data.address();
        let copy = ddi!(FltPropagateIrpExtension: fn(usize, usize, u32) -> NtStatus);
        let allocate = ddi!(FltAllocateCallbackData: fn(usize, usize, usize) -> NtStatus);
        let get = ddi!(FltGetActivityIdCallbackData: fn(usize, usize) -> NtStatus);
        let set = ddi!(FltSetActivityIdCallbackData: fn(usize, usize) -> NtStatus);
        let (_, other) = with_out(|out| allocate(instance, op.file(), out));
        let mut guid = [0_u8; 16];
        let at = (&raw mut guid).expose_provenance();
        let first = copy(data, other, 0);
        let before = get(other, at);
        let _set = set(data, ACTIVITY.as_ptr().expose_provenance());
        push(&down, (op.flag(IRP), first, before, copy(data, other, 0), get(other, at)));
        ddi!(FltFreeCallbackData: fn(usize))(other);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    file.read(0, 1).unwrap();
    let (done, no, none) = (NtStatus::SUCCESS, NtStatus::INVALID_PARAMETER, NtStatus::NOT_FOUND);
    assert_eq!(take(&seen), [(true, done, none, done, done), (false, no, none, no, none)]);
}
