//! NDIS filters: registration, attach and detach, requests, net buffer lists.

use fwbroker_tests::drivers::c_driver_dir;
use kernel_host::{LeakKind, Rule};
use nt_types::NtStatus;

use crate::family::Caught::{Left, Refused, Returning, While};
use crate::family::family;
use crate::ndis_miniport::{ANSWER, LATER, NOW, add_adapter};
use crate::rig::{Broken, Rig, same};

/// `NDIS_STATUS_BAD_CHARACTERISTICS`, as the I/O manager sees it.
const BAD_CHARACTERISTICS: NtStatus = NtStatus(0xC001_0005_u32.cast_signed());

/// Attaches the filter to an adapter of the correct miniport, which answers two requests through it. The unload detaches it.
fn attach_and_ask(rig: &Rig) -> Result<(), Broken> {
    let folder = c_driver_dir().expect("the C drivers are built");
    let (sys, inf) = (folder.join("ndis_miniport.sys"), folder.join("ndis_adapter.inf"));
    let miniport = rig.machine().install_service(&sys, Some(&inf))?;
    rig.machine().load_driver(&miniport)?;
    let adapter = add_adapter(rig, "MutantNic")?;
    rig.load()?;
    same(&adapter.filters().len(), &1)?;
    same(&adapter.oid_query(NOW, 4)?.as_slice(), &ANSWER.as_slice())?;
    same(&adapter.oid_query(LATER, 4)?.as_slice(), &ANSWER.as_slice())?;
    adapter.pause()?;
    Ok(adapter.restart()?)
}

family! { ndis_filter, attach_and_ask;
    unique_name_is_no_guid: Refused(BAD_CHARACTERISTICS);
    no_completion_handler: Refused(BAD_CHARACTERISTICS);
    not_deregistered: Left(Rule::PoolLeak, LeakKind::Registration, "NdisFRegisterFilterDriver");
    deregistered_twice: While(Rule::InvalidHandle, "NdisFDeregisterFilterDriver", "DriverUnload");
    data_without_a_buffer: While(Rule::BadArgument, "NdisAllocateNetBufferListPool", "AllocateList");
    context_size_not_aligned: While(Rule::BadArgument, "NdisAllocateNetBufferListPool", "AllocateList");
    written_past_the_data: While(Rule::PoolCorruption, "FilterAttach", "AllocateList");
    pool_handle_overwritten: While(Rule::BadArgument, "NdisFreeNetBufferList", "FreeList");
    list_freed_as_memory: While(Rule::BadState, "NdisFreeMemory", "FreeList");
    list_freed_twice: While(Rule::BadPoolFree, "NdisFreeNetBufferList", "FreeList");
    pool_freed_first: While(Rule::BadState, "NdisFreeNetBufferListPool", "FreeList");
    pool_left: Left(Rule::HandleLeak, LeakKind::Handle, "NdisAllocateNetBufferListPool");
    context_left: Left(Rule::PoolLeak, LeakKind::Pool, "NdisAllocateMemoryWithTagPriority");
    indication_while_attaching: While(Rule::BadState, "NdisFIndicateStatus", "Attach");
    no_attributes: Returning(Rule::BadState, "FilterAttach");
    attach_pended: Returning(Rule::BadState, "FilterAttach");
    detach_keeps_a_work_item: Returning(Rule::BadState, "FilterDetach");
    restart_completed_unasked: Returning(Rule::BadState, "FilterRestart");
    pause_refused: Returning(Rule::BadState, "FilterPause");
    pause_never_completed: Returning(Rule::Deadlock, "FilterPause");
    original_forwarded: While(Rule::BadState, "NdisFOidRequest", "OidRequest");
    request_never_completed: Returning(Rule::Deadlock, "FilterOidRequest");
    clone_left: Left(Rule::PoolLeak, LeakKind::Pool, "NdisAllocateCloneOidRequest");
    clone_freed_twice: While(Rule::BadPoolFree, "NdisFreeCloneOidRequest", "OidRequestComplete");
    clone_freed_while_pended: While(Rule::BadState, "NdisFreeCloneOidRequest", "OidRequest");
    clone_completed: While(Rule::BadState, "NdisFOidRequestComplete", "OidRequestComplete");
    request_completed_twice: While(Rule::BadState, "NdisFOidRequestComplete", "OidRequestComplete");
    indication_without_header: While(Rule::BadArgument, "NdisFIndicateStatus", "Status");
}
