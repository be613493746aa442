//! Events for protocols: `ProtocolNetPnPEvent` and its answers.

use super::*;
use crate::ndis::protocol::BindingState;

#[test]
fn a_pause_cannot_fail() {
    conforms!("ndis/nc-ndis-protocol_net_pnp_event.md", "A protocol always succeeds NetEventPause.");
    let (_nic, adapter, talk) = Nic::bound();
    talk.on_event(|_| NdisStatus::FAILURE);
    assert_eq!(rule(adapter.pause()), Rule::BadState);
}

#[test]
fn not_supported_is_no_answer_to_an_event() {
    conforms!(
        "ndis/nc-ndis-protocol_net_pnp_event.md",
        "NDIS 6 protocols must not answer an event with NDIS_STATUS_NOT_SUPPORTED."
    );
    let (nic, _adapter, talk) = Nic::bound();
    talk.on_event(|_| NdisStatus::NOT_SUPPORTED);
    assert_eq!(rule(nic.bench.machine().reconfigure_protocol("testprot", &[1])), Rule::BadState);
}

#[test]
fn a_restart_that_fails_leaves_the_binding_paused() {
    conforms!(
        "docs:network/protocol-binding-states-and-operations.md",
        "When the restart of a binding fails, it returns to the Paused state."
    );
    let (_nic, adapter, talk) = Nic::bound();
    adapter.pause().unwrap();
    talk.on_event(|_| NdisStatus::RESOURCES);
    adapter.restart().unwrap();
    assert_eq!(adapter.bindings()[0].state, BindingState::Paused);
}

#[test]
fn an_event_that_pends_is_complete_with_a_call() {
    conforms!(
        "ndis/nf-ndis-ndiscompletenetpnpevent.md",
        "An event for which the callback returned NDIS_STATUS_PENDING is complete with NdisCompleteNetPnPEvent."
    );
    let (nic, adapter, talk) = Nic::bound();
    let machine = nic.bench.machine().clone();
    let driver = Arc::clone(nic.bench.driver());
    talk.on_event(move |(_, notification)| {
        let (machine, driver, binding) = (machine.clone(), Arc::clone(&driver), talk.binding());
        std::thread::spawn(move || {
            crate::thread::Thread::enter(machine.inner(), |thread| {
                thread.call_driver(&driver, "Test", 0, || complete_event(binding, notification))
            })
        });
        NdisStatus::PENDING
    });
    adapter.pause().unwrap();
    assert_eq!(adapter.bindings()[0].state, BindingState::Paused);
}

fn complete_event(binding: usize, notification: usize) {
    let status = NdisStatus::SUCCESS;
    call_ddi!("NdisCompleteNetPnPEvent", fn(usize, usize, NdisStatus), binding, notification, status);
}

#[test]
fn an_event_that_did_not_pend_is_not_completed() {
    let (_nic, adapter, talk) = Nic::bound();
    talk.on_event(move |(_, notification)| {
        complete_event(talk.binding(), notification);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(adapter.pause()), Rule::BadState);
}

#[test]
fn a_protocol_can_refuse_the_removal_of_a_device() {
    conforms!(
        "ndis/nc-ndis-protocol_net_pnp_event.md",
        "A protocol that cannot release a device fails NetEventQueryRemoveDevice; the others are told of the cancel."
    );
    let (_nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    adapter.query_remove().unwrap();
    assert_eq!(talk.take_seen(), ["query remove"]);
    talk.on_event(
        |(event, _)| if event == NetEventQueryRemoveDevice { NdisStatus::FAILURE } else { NdisStatus::SUCCESS },
    );
    assert_eq!(status(adapter.query_remove()), NdisStatus::FAILURE);
    assert_eq!(talk.take_seen(), ["query remove", "cancel remove"]);
}

#[test]
fn sleep_is_asked_then_told_and_the_stack_is_paused_after_that() {
    conforms!(
        "docs:network/handling-pnp-events-and-power-management-events-in-a-protocol-driver.md",
        "After NetEventSetPower for a low power state the stack is paused; it is restarted before NetEventSetPower for D0."
    );
    conforms!("ndis/nc-ndis-protocol_net_pnp_event.md", "NetEventQueryPower is always followed by NetEventSetPower.");
    let (nic, adapter, talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::SUCCESS);
    talk.take_seen();
    adapter.sleep().unwrap();
    assert_eq!(talk.take_seen(), ["query power", "set power", "pause event"]);
    adapter.wake().unwrap();
    assert_eq!(talk.take_seen(), ["restart event", "set power"]);
}
