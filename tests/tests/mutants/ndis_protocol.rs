//! NDIS protocols: registration, binding, requests.

use fwbroker_tests::drivers::c_driver_dir;
use kernel_host::{LeakKind, Rule};
use nt_types::NtStatus;

use crate::family::Caught::{Left, Refused, Returning, While};
use crate::family::family;
use crate::ndis_miniport::add_adapter;
use crate::rig::{Broken, Rig};

/// `NDIS_STATUS_BAD_CHARACTERISTICS`, as the I/O manager sees it.
const BAD_CHARACTERISTICS: NtStatus = NtStatus(0xC001_0005_u32.cast_signed());

/// Adds an adapter of the correct miniport, has the protocol bind to it and make its request. The unload unbinds.
fn bind_and_ask(rig: &Rig) -> Result<(), Broken> {
    let folder = c_driver_dir().expect("the C drivers are built");
    let (sys, inf) = (folder.join("ndis_miniport.sys"), folder.join("ndis_adapter.inf"));
    let miniport = rig.machine().install_service(&sys, Some(&inf))?;
    rig.machine().load_driver(&miniport)?;
    let _adapter = add_adapter(rig, "MutantNic")?;
    rig.exercise()
}

family! { ndis_protocol, bind_and_ask;
    wrong_size: Refused(BAD_CHARACTERISTICS);
    not_deregistered: Left(Rule::BadState, LeakKind::Registration, "NdisRegisterProtocolDriver");
    deregistered_twice: While(Rule::InvalidHandle, "NdisDeregisterProtocolDriver", "DriverUnload");
    deregistered_in_a_callback: While(Rule::BadState, "NdisDeregisterProtocolDriver", "UnbindAdapter");
    bound_without_an_open: Returning(Rule::BadState, "ProtocolBindAdapterEx");
    failed_bind_left_open: Returning(Rule::HandleLeak, "ProtocolBindAdapterEx");
    bind_completed_unasked: Returning(Rule::BadState, "ProtocolBindAdapterEx");
    unbind_completed_early: While(Rule::BadState, "NdisCompleteUnbindAdapterEx", "UnbindAdapter");
    unbound_without_a_close: Returning(Rule::BadState, "ProtocolUnbindAdapterEx");
    unbind_fails: Returning(Rule::BadState, "ProtocolUnbindAdapterEx");
    closed_twice: While(Rule::InvalidHandle, "NdisCloseAdapterEx", "UnbindAdapter");
    closed_outside_of_an_unbind: While(Rule::BadState, "NdisCloseAdapterEx", "DeviceControl");
    pause_refused: Returning(Rule::BadState, "ProtocolNetPnPEvent");
    event_not_supported: Returning(Rule::BadState, "ProtocolNetPnPEvent");
    request_in_paged_pool: While(Rule::BadArgument, "NdisOidRequest", "AskLater");
    request_without_header: While(Rule::BadArgument, "NdisOidRequest", "AskLater");
    request_made_twice: While(Rule::BadState, "NdisOidRequest", "AskLater");
    request_freed_while_pended: While(Rule::BadState, "ExFreePoolWithTag", "AskLater");
}
