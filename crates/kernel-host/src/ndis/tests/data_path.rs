//! Sends and receives, through a filter and without one.

use super::buffers::*;
use super::filter::{on, register_filter, sieve};
use super::protocol::Talk;
use super::*;

/// Registers the protocol's pools and a frame for the adapter's address or for somebody else.
struct Frame {
    list: Nbl,
    memory: usize,
    mdl: Raw<nt_types::MDL>,
    pool: usize,
}

impl Frame {
    /// A frame that `source` sends or indicates.
    fn new(source: usize, destination: [u8; 6]) -> Self {
        let memory = memory(60);
        Raw::<u8>::at(memory).write_bytes(&destination);
        let pool = list_pool(true, 0);
        let mdl = mdl(memory, 60);
        let list = list_over(pool, mdl, 0, 60);
        field!(list, NET_BUFFER_LIST, SourceHandle).write(Raw::at(source).pointer());
        Self { list, memory, mdl, pool }
    }

    fn free(&self) {
        free_list(self.list);
        free_mdl(self.mdl);
        free_memory(self.memory);
        free_list_pool(self.pool);
    }
}

/// The address of the test's adapter.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0];

fn send(binding: usize, list: Nbl) {
    call_ddi!("NdisSendNetBufferLists", fn(usize, Nbl, u32, u32), binding, list, 0, 0);
}

fn complete(adapter: usize, list: usize, status: NdisStatus) {
    field!(Nbl::at(list), NET_BUFFER_LIST, Status).write(status);
    call_ddi!("NdisMSendNetBufferListsComplete", fn(usize, usize, u32), adapter, list, 0);
}

fn indicate(adapter: usize, list: Nbl, count: u32, flags: u32) {
    call_ddi!("NdisMIndicateReceiveNetBufferLists", fn(usize, Nbl, u32, u32, u32), adapter, list, 0, count, flags);
}

fn give_back(binding: usize, list: usize) {
    call_ddi!("NdisReturnNetBufferLists", fn(usize, usize, u32), binding, list, 0);
}

/// A bound protocol that wants what comes for the adapter.
fn receiver() -> (Nic, Adapter, &'static Talk, usize) {
    let (nic, adapter, talk) = Nic::bound();
    let binding = adapter.port().bindings(nic.bench.machine().inner()).pop().unwrap();
    binding.set_packet_filter(1);
    talk.take_seen();
    callbacks();
    (nic, adapter, talk, script().adapter.get())
}

/// Completes every send at once.
fn complete_at_once(adapter: usize) {
    on(&script().send, move |list| {
        complete(adapter, list, NdisStatus::SUCCESS);
        NdisStatus::SUCCESS
    });
}

#[test]
fn a_send_goes_to_the_miniport_and_comes_back_complete() {
    conforms!(
        "ndis/nf-ndis-ndissendnetbufferlists.md",
        "NDIS passes the lists to MiniportSendNetBufferLists and returns them to ProtocolSendNetBufferListsComplete."
    );
    let (nic, _adapter, talk, handle) = receiver();
    complete_at_once(handle);
    nic.bench
        .run(|| {
            let frame = Frame::new(talk.binding(), OWN);
            send(talk.binding(), frame.list);
            frame.free();
        })
        .unwrap();
    assert_eq!(callbacks(), ["send"]);
    assert_eq!(talk.take_seen(), ["sent 1"]);
}

#[test]
fn a_list_that_is_sent_is_not_freed() {
    conforms!(
        "ndis/nf-ndis-ndissendnetbufferlists.md",
        "A protocol has no ownership of a list from the send to its completion."
    );
    let (nic, _adapter, talk, _) = receiver();
    let freed = nic.bench.run(|| {
        let frame = Frame::new(talk.binding(), OWN);
        send(talk.binding(), frame.list);
        frame.free();
    });
    assert_eq!(freed.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_list_is_not_sent_twice_at_a_time() {
    let (nic, _adapter, talk, _) = receiver();
    let twice = nic.bench.run(|| {
        let frame = Frame::new(talk.binding(), OWN);
        send(talk.binding(), frame.list);
        send(talk.binding(), frame.list);
    });
    assert_eq!(twice.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_list_says_who_sends_it() {
    conforms!("ndis/nf-ndis-ndissendnetbufferlists.md", "SourceHandle of each list is the binding handle.");
    let (nic, _adapter, talk, _) = receiver();
    let wrong = nic.bench.run(|| send(talk.binding(), Frame::new(0, OWN).list));
    assert_eq!(wrong.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_paused_binding_does_not_send() {
    conforms!("docs:network/protocol-binding-states-and-operations.md", "A binding that is paused sends nothing.");
    let (nic, adapter, talk, _) = receiver();
    adapter.pause().unwrap();
    let paused = nic.bench.run(|| send(talk.binding(), Frame::new(talk.binding(), OWN).list));
    assert_eq!(paused.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_send_is_completed_once_and_with_a_final_status() {
    conforms!(
        "ndis/nf-ndis-ndismsendnetbufferlistscomplete.md",
        "A miniport completes lists that it received in MiniportSendNetBufferLists, with a final status in each."
    );
    let (nic, _adapter, talk, handle) = receiver();
    on(&script().send, move |list| {
        complete(handle, list, NdisStatus::SUCCESS);
        complete(handle, list, NdisStatus::SUCCESS);
        NdisStatus::SUCCESS
    });
    let twice = nic.bench.run(|| send(talk.binding(), Frame::new(talk.binding(), OWN).list));
    assert_eq!(twice.unwrap_err().0.rule, Rule::BadState);
    let (nic, _adapter, talk, handle) = receiver();
    on(&script().send, move |list| {
        complete(handle, list, NdisStatus::PENDING);
        NdisStatus::SUCCESS
    });
    let pending = nic.bench.run(|| send(talk.binding(), Frame::new(talk.binding(), OWN).list));
    assert_eq!(pending.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_pause_with_sends_outstanding_is_found() {
    conforms!(
        "docs:network/pausing-a-driver-stack.md",
        "A protocol completes its pause when all its sends are complete."
    );
    let (nic, adapter, talk, _) = receiver();
    nic.bench.run(|| send(talk.binding(), Frame::new(talk.binding(), OWN).list)).unwrap();
    assert_eq!(rule(adapter.pause()), Rule::BadState);
}

#[test]
fn a_frame_for_the_adapter_reaches_the_protocol_and_comes_back() {
    conforms!(
        "ndis/nf-ndis-ndismindicatereceivenetbufferlists.md",
        "NDIS passes the lists to ProtocolReceiveNetBufferLists of the bound protocols."
    );
    conforms!(
        "ndis/nf-ndis-ndisreturnnetbufferlists.md",
        "NdisReturnNetBufferLists gives lists back to MiniportReturnNetBufferLists."
    );
    let (nic, _adapter, talk, handle) = receiver();
    let binding = talk.binding();
    on(&talk.receive, move |list| {
        give_back(binding, list);
        NdisStatus::SUCCESS
    });
    nic.bench
        .run(|| {
            let frame = Frame::new(handle, OWN);
            indicate(handle, frame.list, 1, 0);
            frame.free();
        })
        .unwrap();
    assert_eq!(talk.take_seen(), ["receive 1 0x0"]);
    assert_eq!(callbacks(), ["return"]);
}

#[test]
fn a_frame_that_nobody_wants_comes_back_at_once() {
    let (nic, _adapter, talk, handle) = receiver();
    nic.bench
        .run(|| {
            let frame = Frame::new(handle, [2, 0, 0, 0, 0, 9]);
            indicate(handle, frame.list, 1, 0);
            frame.free();
        })
        .unwrap();
    assert!(talk.take_seen().is_empty());
    assert_eq!(callbacks(), ["return"]);
}

#[test]
fn a_frame_on_loan_is_the_miniports_again_after_the_call() {
    conforms!(
        "ndis/nf-ndis-ndismindicatereceivenetbufferlists.md",
        "With NDIS_RECEIVE_FLAGS_RESOURCES the miniport has its lists back when the call returns, and nobody returns them."
    );
    let (nic, _adapter, talk, handle) = receiver();
    nic.bench
        .run(|| {
            let frame = Frame::new(handle, OWN);
            indicate(handle, frame.list, 1, NDIS_RECEIVE_FLAGS_RESOURCES);
            frame.free();
        })
        .unwrap();
    assert_eq!(talk.take_seen(), ["receive 1 0x2"]);
    assert!(callbacks().is_empty());
    let binding = talk.binding();
    on(&talk.receive, move |list| {
        give_back(binding, list);
        NdisStatus::SUCCESS
    });
    let returned = nic.bench.run(|| indicate(handle, Frame::new(handle, OWN).list, 1, NDIS_RECEIVE_FLAGS_RESOURCES));
    assert_eq!(returned.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn the_number_of_lists_is_that_of_the_chain() {
    conforms!(
        "ndis/nf-ndis-ndismindicatereceivenetbufferlists.md",
        "NumberOfNetBufferLists is the number of lists in the chain."
    );
    let (nic, _adapter, _talk, handle) = receiver();
    let wrong = nic.bench.run(|| indicate(handle, Frame::new(handle, OWN).list, 2, 0));
    assert_eq!(wrong.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_paused_miniport_indicates_nothing() {
    conforms!("ndis/nc-ndis-miniport_pause.md", "A paused miniport indicates no data.");
    let (nic, adapter, _talk, handle) = receiver();
    adapter.pause().unwrap();
    let paused = nic.bench.run(|| indicate(handle, Frame::new(handle, OWN).list, 1, 0));
    assert_eq!(paused.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_miniport_waits_for_its_lists_before_it_is_paused() {
    conforms!("ndis/nc-ndis-miniport_pause.md", "A pause is complete when NDIS has returned all indicated lists.");
    let (nic, adapter, _talk, handle) = receiver();
    nic.bench.run(|| indicate(handle, Frame::new(handle, OWN).list, 1, 0)).unwrap();
    assert_eq!(rule(adapter.pause()), Rule::BadState);
}

#[test]
fn the_flags_tell_the_truth_about_the_irql() {
    conforms!(
        "ndis/nf-ndis-ndissendnetbufferlists.md",
        "NDIS_SEND_FLAGS_DISPATCH_LEVEL says that the IRQL is DISPATCH_LEVEL."
    );
    let (nic, _adapter, talk, _) = receiver();
    let lie = nic.bench.run(|| {
        let list = Frame::new(talk.binding(), OWN).list;
        call_ddi!("NdisSendNetBufferLists", fn(usize, Nbl, u32, u32), talk.binding(), list, 0, 1);
    });
    assert_eq!(lie.unwrap_err().0.rule, Rule::BadArgument);
}

unsafe extern "efiapi" fn filter_send(_: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, port: u32, flags: u32) {
    sieve().saw("send");
    let list = list.expose_provenance();
    call_ddi!("NdisFSendNetBufferLists", fn(usize, usize, u32, u32), sieve().module(), list, port, flags);
}

unsafe extern "efiapi" fn filter_sent(_: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, flags: u32) {
    sieve().saw("sent");
    let list = list.expose_provenance();
    if OWN_SEND.get() != list {
        call_ddi!("NdisFSendNetBufferListsComplete", fn(usize, usize, u32), sieve().module(), list, flags);
    }
}

unsafe extern "efiapi" fn filter_receive(
    _: NDIS_HANDLE,
    list: *mut NET_BUFFER_LIST,
    port: u32,
    count: u32,
    flags: u32,
) {
    sieve().saw("receive");
    let list = list.expose_provenance();
    call_ddi!(
        "NdisFIndicateReceiveNetBufferLists",
        fn(usize, usize, u32, u32, u32),
        sieve().module(),
        list,
        port,
        count,
        flags
    );
}

unsafe extern "efiapi" fn filter_return(_: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, flags: u32) {
    sieve().saw("return");
    call_ddi!("NdisFReturnNetBufferLists", fn(usize, usize, u32), sieve().module(), list.expose_provenance(), flags);
}

thread_local! {
    /// The list that the filter sends on its own.
    static OWN_SEND: Cell<usize> = const { Cell::new(0) };
}

fn filtered() -> (Nic, Adapter, &'static Talk, usize) {
    let (nic, adapter, talk, handle) = receiver();
    nic.sieve();
    let registered = nic.bench.run(|| {
        register_filter(|of| {
            of.SendNetBufferListsHandler = Some(filter_send);
            of.SendNetBufferListsCompleteHandler = Some(filter_sent);
            of.ReceiveNetBufferListsHandler = Some(filter_receive);
            of.ReturnNetBufferListsHandler = Some(filter_return);
        })
    });
    assert_eq!(registered.unwrap(), NdisStatus::SUCCESS);
    sieve().take_seen();
    talk.take_seen();
    callbacks();
    (nic, adapter, talk, handle)
}

#[test]
fn sends_and_receives_pass_through_a_filter_and_back() {
    conforms!(
        "ndis/nf-ndis-ndisfsendnetbufferlistscomplete.md",
        "A filter passes completions on with NdisFSendNetBufferListsComplete."
    );
    conforms!(
        "ndis/nf-ndis-ndisfreturnnetbufferlists.md",
        "A filter passes returned lists on with NdisFReturnNetBufferLists."
    );
    let (nic, adapter, talk, handle) = filtered();
    complete_at_once(handle);
    let binding = talk.binding();
    on(&talk.receive, move |list| {
        give_back(binding, list);
        NdisStatus::SUCCESS
    });
    nic.bench
        .run(|| {
            let frame = Frame::new(binding, OWN);
            send(binding, frame.list);
            frame.free();
            let frame = Frame::new(handle, OWN);
            indicate(handle, frame.list, 1, 0);
            frame.free();
        })
        .unwrap();
    assert_eq!(sieve().take_seen(), ["send", "sent", "receive", "return"]);
    assert_eq!(callbacks(), ["send", "return"]);
    adapter.pause().unwrap();
}

#[test]
fn a_filter_sends_on_its_own_and_keeps_the_completion() {
    conforms!(
        "ndis/nf-ndis-ndisfsendnetbufferlists.md",
        "Sends that a filter originates come back to it and go no further."
    );
    let (nic, _adapter, talk, handle) = filtered();
    complete_at_once(handle);
    nic.bench
        .run(|| {
            let frame = Frame::new(sieve().module(), OWN);
            OWN_SEND.set(frame.list.address());
            call_ddi!("NdisFSendNetBufferLists", fn(usize, Nbl, u32, u32), sieve().module(), frame.list, 0, 0);
            frame.free();
        })
        .unwrap();
    assert_eq!(sieve().take_seen(), ["sent"]);
    assert!(talk.take_seen().is_empty());
}

#[test]
fn a_filter_completes_only_what_it_has() {
    let (nic, _adapter, talk, _) = filtered();
    let foreign = nic.bench.run(|| {
        let frame = Frame::new(talk.binding(), OWN);
        call_ddi!("NdisFSendNetBufferListsComplete", fn(usize, Nbl, u32), sieve().module(), frame.list, 0);
    });
    assert_eq!(foreign.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn sends_are_cancelled_by_their_identifier() {
    conforms!(
        "ndis/nf-ndis-ndiscancelsendnetbufferlists.md",
        "NdisCancelSendNetBufferLists asks the miniport, through MiniportCancelSend, to give sends up."
    );
    let (nic, _adapter, talk, _) = receiver();
    nic.bench.run(|| call_ddi!("NdisCancelSendNetBufferLists", fn(usize, usize), talk.binding(), 0x77)).unwrap();
    assert_eq!(callbacks(), ["cancel send"]);
}
