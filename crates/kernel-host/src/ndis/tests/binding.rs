//! The life of a binding: bind, open, pause, restart, unbind, close.

use super::protocol::{close, complete_bind, complete_unbind, current, deregister_protocol};
use super::*;
use crate::ndis::protocol::BindingState;

#[test]
fn a_protocol_is_bound_to_the_adapters_that_are_there_before_registration_returns() {
    conforms!(
        "ndis/nf-ndis-ndisregisterprotocoldriver.md",
        "Drivers must be prepared for an immediate call to any of their callbacks."
    );
    conforms!("ndis/nc-ndis-protocol_net_pnp_event.md", "NetEventBindsComplete comes with a NULL binding context.");
    let (_nic, adapter, talk) = Nic::bound();
    assert_eq!(talk.take_seen(), ["bind", "restart event", "binds complete"]);
    assert_eq!(adapter.bindings()[0].state, BindingState::Running);
}

#[test]
fn a_protocol_is_bound_to_an_adapter_that_comes_later() {
    conforms!(
        "ndis/nc-ndis-protocol_bind_adapter_ex.md",
        "NDIS calls ProtocolBindAdapterEx whenever an adapter that the protocol can bind to becomes available."
    );
    let nic = Nic::new();
    let talk = nic.talk();
    nic.register_protocol().unwrap().ok().unwrap();
    assert_eq!(talk.take_seen(), ["binds complete"]);
    let adapter = nic.add().unwrap();
    assert_eq!(talk.take_seen(), ["bind", "restart event"]);
    assert_eq!(adapter.bindings()[0].state, BindingState::Running);
    assert_eq!(callbacks(), ["initialize", "power profile", "restart"]);
}

#[test]
fn the_stack_is_paused_while_a_protocol_binds_and_restarted_after() {
    conforms!("docs:network/pausing-a-driver-stack.md", "The stack is paused to add a binding.");
    let (_nic, _adapter, _talk) = Nic::bound();
    assert_eq!(callbacks(), ["initialize", "power profile", "restart", "pause", "restart"]);
}

#[test]
fn the_bindings_are_paused_before_the_miniport_and_restarted_after_it() {
    conforms!("docs:network/pausing-a-driver-stack.md", "The bindings are paused first, the miniport last.");
    conforms!("docs:network/restarting-a-driver-stack.md", "The miniport is restarted first, the bindings last.");
    let (_nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    let (script, order) = (script(), Arc::new(Mutex::new(Vec::new())));
    callbacks();
    let seen = Arc::clone(&order);
    talk.on_event(move |(event, _)| {
        let state = script.seen.lock().unwrap().clone();
        seen.lock().unwrap().push((event, state));
        NdisStatus::SUCCESS
    });
    adapter.pause().unwrap();
    assert_eq!(adapter.bindings()[0].state, BindingState::Paused);
    adapter.restart().unwrap();
    assert_eq!(adapter.bindings()[0].state, BindingState::Running);
    let order = order.lock().unwrap().clone();
    assert_eq!(order, [(NetEventPause, vec![]), (NetEventRestart, vec!["pause", "restart"])]);
}

#[test]
fn after_the_open_a_binding_is_paused() {
    conforms!(
        "docs:network/protocol-binding-states-and-operations.md",
        "After the driver has opened the adapter, the binding is in the Paused state."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|(context, parameters)| {
        let status = current().open(context, parameters);
        let summary = &crate::thread::Thread::current().machine().ndis.lock().bindings[0].state();
        assert_eq!(*summary, BindingState::Paused);
        status
    });
    nic.register_protocol().unwrap().ok().unwrap();
    assert_eq!(adapter.bindings().len(), 1);
}

#[test]
fn the_open_says_which_medium_the_adapter_has() {
    conforms!(
        "ndis/ns-ndis-_ndis_open_parameters.md",
        "NDIS writes at SelectedMediumIndex the index into MediumArray of the medium in use."
    );
    let (_nic, _adapter, talk) = Nic::bound();
    assert_eq!(talk.medium.load(std::sync::atomic::Ordering::Acquire), 1);
}

#[test]
fn bind_parameters_describe_the_adapter() {
    conforms!(
        "ndis/ns-ndis-_ndis_bind_parameters.md",
        "The parameters carry the adapter's address, medium, and a registry path below the service of the protocol."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|(context, parameters)| {
        let bind = Raw::<NDIS_BIND_PARAMETERS>::at(parameters).read();
        let text = |string| crate::nt::unicode::name(Raw::of(string)).unwrap();
        assert_eq!((bind.Header.Type, bind.Header.Revision, bind.Header.Size), (0x86, 4, 312));
        assert_eq!((bind.MediaType, bind.MacAddressLength, bind.CurrentMacAddress[0]), (0, 6, 2));
        assert!(text(bind.ProtocolSection).starts_with(r"testprot\Parameters\Adapters\{"));
        assert!(text(bind.AdapterName).starts_with(r"\DEVICE\{"));
        current().open(context, parameters)
    });
    nic.register_protocol().unwrap().ok().unwrap();
    assert_eq!(talk.take_seen()[0], "bind");
}

/// The status of an open with changed parameters, which the bind then fails with.
fn refused_open(change: impl Fn(&mut NDIS_OPEN_PARAMETERS) + Send + Sync + 'static) -> NdisStatus {
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    let talk = nic.talk();
    let outcome = Arc::new(Mutex::new(NdisStatus::SUCCESS));
    let keep = Arc::clone(&outcome);
    talk.on_bind(move |(context, parameters)| {
        let status = current().open_changed(context, parameters, &change);
        *keep.lock().unwrap() = status;
        status
    });
    nic.register_protocol().unwrap().ok().unwrap();
    assert!(adapter.bindings().is_empty());
    *outcome.lock().unwrap()
}

static OTHER: &[u16] = &[0x5C, 0x58];

#[test]
fn an_adapter_of_another_name_is_not_found() {
    conforms!(
        "ndis/nf-ndis-ndisopenadapterex.md",
        "An AdapterName that no adapter has is NDIS_STATUS_ADAPTER_NOT_FOUND."
    );
    let name = |p: &mut NDIS_OPEN_PARAMETERS| {
        let other: &'static mut UNICODE_STRING = Box::leak(Box::new(UNICODE_STRING::from_utf16(OTHER).unwrap()));
        std::ptr::from_mut(other).expose_provenance();
        OTHER.as_ptr().expose_provenance();
        p.AdapterName = other;
    };
    assert_eq!(refused_open(name), NdisStatus::ADAPTER_NOT_FOUND);
}

#[test]
fn an_adapter_without_a_medium_of_the_protocol_is_unsupported_media() {
    conforms!(
        "ndis/nf-ndis-ndisopenadapterex.md",
        "A MediumArray without the adapter's medium is NDIS_STATUS_UNSUPPORTED_MEDIA."
    );
    assert_eq!(refused_open(|p| p.MediumArraySize = 1), NdisStatus::UNSUPPORTED_MEDIA);
}

#[test]
fn open_parameters_are_what_their_header_says() {
    conforms!(
        "ndis/ns-ndis-_ndis_open_parameters.md",
        "The header must have type OPEN_PARAMETERS, revision 1 and the size of that revision."
    );
    assert_eq!(refused_open(|p| p.Header.Type = 0x86), NdisStatus::FAILURE);
    assert_eq!(refused_open(|p| p.Header.Size = 48), NdisStatus::FAILURE);
}

#[test]
fn an_open_has_at_most_five_frame_types() {
    conforms!(
        "ndis/ns-ndis-_ndis_open_parameters.md",
        "FrameTypeArraySize must not exceed NDIS_MAX_FRAME_TYPES_PER_OPEN."
    );
    assert_eq!(refused_open(|p| p.FrameTypeArraySize = 6), NdisStatus::FAILURE);
}

#[test]
fn an_open_outside_of_the_bind_callback_fails() {
    conforms!(
        "ndis/nf-ndis-ndisopenadapterex.md",
        "NDIS fails any attempt to open an adapter outside of ProtocolBindAdapterEx."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let talk = nic.talk();
    let kept = Arc::new(Mutex::new((0, 0)));
    let keep = Arc::clone(&kept);
    talk.on_bind(move |(context, parameters)| {
        let copy = Box::leak(Box::new(Raw::<NDIS_BIND_PARAMETERS>::at(parameters).read()));
        *keep.lock().unwrap() = (context, std::ptr::from_mut(copy).expose_provenance());
        NdisStatus::RESOURCES
    });
    nic.register_protocol().unwrap().ok().unwrap();
    let (context, parameters) = *kept.lock().unwrap();
    assert_eq!(nic.bench.run(|| current().open(context, parameters)).unwrap(), NdisStatus::FAILURE);
}

#[test]
fn a_protocol_that_does_not_bind_is_not_asked_again_and_others_are_not_hurt() {
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|_| NdisStatus::RESOURCES);
    nic.register_protocol().unwrap().ok().unwrap();
    assert_eq!(talk.take_seen(), ["bind", "binds complete"]);
    assert!(adapter.bindings().is_empty());
    assert_eq!(adapter.state(), crate::ndis::adapter::AdapterState::Running);
}

#[test]
fn an_open_that_pends_completes_the_bind_later() {
    conforms!(
        "ndis/nf-ndis-ndisopenadapterex.md",
        "After NDIS_STATUS_PENDING, ProtocolOpenAdapterCompleteEx is called when the open is complete."
    );
    conforms!(
        "ndis/nf-ndis-ndiscompletebindadapterex.md",
        "A bind that returned NDIS_STATUS_PENDING is complete with NdisCompleteBindAdapterEx."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.bench.machine().pend_opens(true);
    let talk = nic.talk();
    nic.register_protocol().unwrap().ok().unwrap();
    let expected = ["bind", "open complete", "restart event", "binds complete"];
    assert_eq!(talk.take_seen(), expected);
    assert_eq!(adapter.bindings()[0].state, BindingState::Running);
}

#[test]
fn a_bind_completed_twice_is_found() {
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|(context, parameters)| {
        current().open(context, parameters).ok().unwrap();
        complete_bind(context, NdisStatus::SUCCESS);
        complete_bind(context, NdisStatus::SUCCESS);
        NdisStatus::PENDING
    });
    assert_eq!(nic.register_protocol().unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_bind_that_did_not_pend_is_not_completed() {
    conforms!(
        "ndis/nf-ndis-ndiscompletebindadapterex.md",
        "Only a bind whose callback returned NDIS_STATUS_PENDING is completed with the call."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|(context, parameters)| {
        current().open(context, parameters).ok().unwrap();
        complete_bind(context, NdisStatus::SUCCESS);
        NdisStatus::SUCCESS
    });
    assert_eq!(nic.register_protocol().unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_bind_context_is_invalid_once_the_bind_is_complete() {
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let talk = nic.talk();
    let kept = Arc::new(Mutex::new(0));
    let keep = Arc::clone(&kept);
    talk.on_bind(move |(context, parameters)| {
        *keep.lock().unwrap() = context;
        current().open(context, parameters)
    });
    nic.register_protocol().unwrap().ok().unwrap();
    let context = *kept.lock().unwrap();
    let late = nic.bench.run(|| complete_bind(context, NdisStatus::SUCCESS));
    assert_eq!(late.unwrap_err().0.rule, Rule::InvalidHandle);
}

#[test]
fn success_without_an_open_adapter_is_found() {
    conforms!(
        "ndis/nc-ndis-protocol_bind_adapter_ex.md",
        "A bind succeeds only with an open adapter: NdisOpenAdapterEx is called in it."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    nic.talk().on_bind(|_| NdisStatus::SUCCESS);
    assert_eq!(nic.register_protocol().unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_failed_bind_that_leaves_the_adapter_open_is_found() {
    conforms!(
        "ndis/nc-ndis-protocol_bind_adapter_ex.md",
        "A bind that fails after the open must close the adapter before it returns."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    nic.talk().on_bind(|(context, parameters)| {
        current().open(context, parameters).ok().unwrap();
        NdisStatus::FAILURE
    });
    assert_eq!(nic.register_protocol().unwrap_err().0.rule, Rule::HandleLeak);
}

#[test]
fn an_adapter_may_be_closed_within_the_bind() {
    conforms!(
        "ndis/nf-ndis-ndiscloseadapterex.md",
        "The adapter may be closed from ProtocolBindAdapterEx, when a later step of the bind failed."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.talk().on_bind(|(context, parameters)| {
        current().open(context, parameters).ok().unwrap();
        current().close().ok().unwrap();
        NdisStatus::FAILURE
    });
    nic.register_protocol().unwrap().ok().unwrap();
    assert!(adapter.bindings().is_empty());
}

#[test]
fn an_unbind_is_preceded_by_a_pause_and_ends_the_binding() {
    conforms!(
        "ndis/nc-ndis-protocol_unbind_adapter_ex.md",
        "Before ProtocolUnbindAdapterEx NDIS pauses the binding with NetEventPause."
    );
    let (nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    nic.bench.machine().unbind("testprot", "Ethernet").unwrap();
    assert_eq!(talk.take_seen(), ["pause event", "unbind"]);
    assert!(adapter.bindings().is_empty());
    nic.bench.machine().bind("testprot", "Ethernet").unwrap();
    assert_eq!(talk.take_seen(), ["bind", "restart event"]);
}

#[test]
fn a_close_that_pends_completes_the_unbind_later() {
    conforms!(
        "ndis/nf-ndis-ndiscloseadapterex.md",
        "After NDIS_STATUS_PENDING, ProtocolCloseAdapterCompleteEx is called when the close is complete."
    );
    conforms!(
        "ndis/nf-ndis-ndiscompleteunbindadapterex.md",
        "An unbind that returned NDIS_STATUS_PENDING is complete with NdisCompleteUnbindAdapterEx."
    );
    conforms!(
        "ndis/nc-ndis-protocol_close_adapter_complete_ex.md",
        "ProtocolCloseAdapterCompleteEx may complete the unbind."
    );
    let (nic, adapter, talk) = Nic::bound();
    nic.bench.machine().pend_closes(true);
    talk.take_seen();
    nic.bench.machine().unbind("testprot", "Ethernet").unwrap();
    assert_eq!(talk.take_seen(), ["pause event", "unbind", "close complete"]);
    assert!(adapter.bindings().is_empty());
}

#[test]
fn an_unbind_that_returns_before_the_pended_close_is_complete_is_found() {
    conforms!(
        "ndis/nc-ndis-protocol_unbind_adapter_ex.md",
        "After a pended close the unbind must wait for the close's completion before it returns success."
    );
    let (nic, _adapter, talk) = Nic::bound();
    nic.bench.machine().pend_closes(true);
    *talk.closed.lock().unwrap() = Some(Arc::new(|()| {
        std::thread::sleep(std::time::Duration::from_millis(300));
        NdisStatus::SUCCESS
    }));
    talk.on_unbind(|_| {
        let _ = current_close();
        NdisStatus::SUCCESS
    });
    // The completion may already run: then the protocol was lucky, and waits for nothing.
    let outcome = nic.bench.machine().unbind("testprot", "Ethernet");
    assert!(outcome.is_ok() || rule(outcome) == Rule::BadState);
}

fn current_close() -> NdisStatus {
    current().close()
}

#[test]
fn an_unbind_cannot_fail() {
    conforms!("ndis/nc-ndis-protocol_unbind_adapter_ex.md", "A protocol driver cannot fail an unbind operation.");
    let (nic, _adapter, talk) = Nic::bound();
    talk.on_unbind(|_| {
        current_close().ok().unwrap();
        NdisStatus::FAILURE
    });
    assert_eq!(rule(nic.bench.machine().unbind("testprot", "Ethernet")), Rule::BadState);
}

#[test]
fn an_unbind_without_a_close_is_found() {
    conforms!("ndis/nc-ndis-protocol_unbind_adapter_ex.md", "ProtocolUnbindAdapterEx must call NdisCloseAdapterEx.");
    let (nic, _adapter, talk) = Nic::bound();
    talk.on_unbind(|_| NdisStatus::SUCCESS);
    assert_eq!(rule(nic.bench.machine().unbind("testprot", "Ethernet")), Rule::BadState);
}

#[test]
fn an_unbind_is_not_completed_before_the_close() {
    let (nic, _adapter, talk) = Nic::bound();
    talk.on_unbind(|context| {
        complete_unbind(context);
        NdisStatus::PENDING
    });
    assert_eq!(rule(nic.bench.machine().unbind("testprot", "Ethernet")), Rule::BadState);
}

#[test]
fn the_binding_handle_is_invalid_as_soon_as_the_close_is_called() {
    conforms!(
        "ndis/nf-ndis-ndiscloseadapterex.md",
        "The binding handle is invalid as soon as NdisCloseAdapterEx is called."
    );
    let (nic, _adapter, talk) = Nic::bound();
    talk.on_unbind(|_| {
        current_close().ok().unwrap();
        current_close()
    });
    assert_eq!(rule(nic.bench.machine().unbind("testprot", "Ethernet")), Rule::InvalidHandle);
}

#[test]
fn a_close_outside_of_bind_and_unbind_is_found() {
    conforms!(
        "ndis/nf-ndis-ndiscloseadapterex.md",
        "Outside of ProtocolUnbindAdapterEx and ProtocolBindAdapterEx a protocol must call NdisUnbindAdapter."
    );
    let (nic, _adapter, talk) = Nic::bound();
    let binding = talk.binding();
    assert_eq!(nic.bench.run(|| close(binding)).unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_protocol_asks_ndis_to_unbind_it() {
    conforms!(
        "ndis/nf-ndis-ndisunbindadapter.md",
        "NDIS calls ProtocolUnbindAdapterEx from a work item and the call returns at once."
    );
    let (nic, adapter, talk) = Nic::bound();
    let binding = talk.binding();
    let status = nic.bench.run(|| call_ddi!("NdisUnbindAdapter", fn(usize) -> NdisStatus, binding)).unwrap();
    assert_eq!(status, NdisStatus::SUCCESS);
    talk.wait_for("unbind");
    for _ in 0..500 {
        if adapter.bindings().is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(adapter.bindings().is_empty());
    assert_eq!(export("NdisUnbindAdapter").max_irql, 2);
}

#[test]
fn protocols_unbind_before_the_adapter_is_halted() {
    let (_nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    callbacks();
    let script = script();
    talk.on_unbind(move |_| {
        assert_eq!(*script.seen.lock().unwrap(), ["pause"]);
        current_close()
    });
    adapter.remove().unwrap();
    assert_eq!(talk.take_seen(), ["pause event", "unbind"]);
    assert_eq!(callbacks(), ["pause", "halt"]);
}

#[test]
fn a_surprise_removal_unbinds_protocols_too() {
    let (_nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    callbacks();
    adapter.surprise_remove().unwrap();
    assert_eq!(talk.take_seen(), ["pause event", "unbind"]);
    assert_eq!(callbacks(), ["surprise removal", "pause", "halt"]);
}

#[test]
fn bindings_are_made_again_on_request_only_where_there_are_none() {
    conforms!(
        "ndis/nf-ndis-ndisreenumerateprotocolbindings.md",
        "The bind callback is called for each configured adapter to which the protocol is not bound now."
    );
    let (nic, adapter, talk) = Nic::bound();
    nic.bench.machine().unbind("testprot", "Ethernet").unwrap();
    talk.take_seen();
    let handle = talk.handle.load(std::sync::atomic::Ordering::Acquire);
    let again = || call_ddi!("NdisReEnumerateProtocolBindings", fn(usize), handle);
    nic.bench.run(again).unwrap();
    assert_eq!(talk.take_seen(), ["bind", "restart event", "binds complete"]);
    nic.bench.run(again).unwrap();
    assert_eq!(talk.take_seen(), ["binds complete"]);
    assert_eq!(adapter.bindings().len(), 1);
}

#[test]
fn bindings_are_not_enumerated_from_within_a_bind() {
    conforms!(
        "ndis/nf-ndis-ndisreenumerateprotocolbindings.md",
        "Protocols cannot call it from ProtocolBindAdapterEx or ProtocolUnbindAdapterEx."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|_| {
        let handle = current().handle.load(std::sync::atomic::Ordering::Acquire);
        call_ddi!("NdisReEnumerateProtocolBindings", fn(usize), handle);
        NdisStatus::FAILURE
    });
    assert_eq!(nic.register_protocol().unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn bindings_are_not_enumerated_from_within_an_event_of_a_binding() {
    conforms!(
        "ndis/nf-ndis-ndisreenumerateprotocolbindings.md",
        "From ProtocolNetPnPEvent it is legal only when the event is for all bindings."
    );
    let (_nic, adapter, talk) = Nic::bound();
    talk.on_event(|_| {
        let handle = current().handle.load(std::sync::atomic::Ordering::Acquire);
        call_ddi!("NdisReEnumerateProtocolBindings", fn(usize), handle);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(adapter.pause()), Rule::BadState);
}

#[test]
fn the_registry_says_to_which_adapters_a_protocol_binds() {
    let nic = Nic::new();
    let path = r"\Registry\Machine\System\CurrentControlSet\Services\testprot\Linkage";
    let key = nic.bench.machine().inner().nt.hive().create(path).unwrap();
    key.set_value("Bind", crate::nt::hive::Value::list(&[r"\Device\{0}"])).unwrap();
    let talk = nic.talk();
    nic.register_protocol().unwrap().ok().unwrap();
    let adapter = nic.add().unwrap();
    assert_eq!(talk.take_seen(), ["binds complete"]);
    assert!(adapter.bindings().is_empty());
}

#[test]
fn unloading_with_a_registered_protocol_is_a_leak() {
    let (nic, _adapter, _talk) = Nic::bound();
    // The miniport, its adapter, the protocol, the binding.
    assert_eq!(nic.leaks(), 4);
    nic.bench.run(deregister_protocol).unwrap();
    assert_eq!(nic.leaks(), 2);
}
