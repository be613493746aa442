//! NDIS miniports: registration, attributes, requests, files, and what is left after a halt.

use kernel_host::{Adapter, AdapterError, LeakKind, OpenOptions, Rule};
use nt_types::{AccessMask, NtStatus};

use crate::family::Caught::{Left, Refused, Returning, While};
use crate::family::family;
use crate::rig::{Broken, Rig, same};

/// `OID_MUTANT_NOW` and `OID_MUTANT_LATER`: one answered at once, one from a work item.
pub(crate) const NOW: u32 = 0xFF00_0001;
pub(crate) const LATER: u32 = 0xFF00_0002;

/// What both answer.
pub(crate) const ANSWER: [u8; 4] = [7, 0, 0, 0];

/// `FILE_CREATE`.
const CREATE: u32 = 2;

/// `NDIS_STATUS_BAD_CHARACTERISTICS` and `NDIS_STATUS_BAD_VERSION`, as the I/O manager sees them.
const BAD_CHARACTERISTICS: NtStatus = NtStatus(0xC001_0005_u32.cast_signed());
const BAD_VERSION: NtStatus = NtStatus(0xC001_0004_u32.cast_signed());

impl From<AdapterError> for Broken {
    fn from(error: AdapterError) -> Self {
        Self::Odd(error.to_string())
    }
}

/// Puts the file where `NdisOpenFile` looks, and adds an adapter of the loaded miniport driver `service`.
pub(crate) fn add_adapter(rig: &Rig, service: &str) -> Result<Adapter, Broken> {
    let program = rig.program();
    let path = r"\??\C:\Windows\System32\drivers\mutant.bin";
    let file = program.create_file(path, &OpenOptions::new().write().disposition(CREATE))?;
    file.write(0, b"firmware")?;
    drop(file);
    Ok(rig.machine().add_adapter(service, "nic0", &[])?)
}

/// Starts an adapter, asks both OIDs and one with too little room, and removes the adapter.
fn start_ask_remove(rig: &Rig) -> Result<(), Broken> {
    rig.load()?;
    let adapter = add_adapter(rig, "Mutant")?;
    same(&adapter.oid_query(NOW, 4)?.as_slice(), &ANSWER.as_slice())?;
    same(&adapter.oid_query(NOW, 1).map_err(|error| error.to_string()).is_err(), &true)?;
    same(&adapter.oid_query(LATER, 4)?.as_slice(), &ANSWER.as_slice())?;
    same(&adapter.status_indications().len(), &1)?;
    let access = AccessMask::FILE_READ_DATA;
    drop(rig.program().open_device_with(r"\??\MutantNic", access)?);
    Ok(adapter.remove()?)
}

family! { ndis_miniport, start_ask_remove;
    wrong_revision: Refused(BAD_CHARACTERISTICS);
    wrong_version: Refused(BAD_VERSION);
    not_deregistered: Left(Rule::BadState, LeakKind::Registration, "NdisMRegisterMiniportDriver");
    device_left: Left(Rule::BadState, LeakKind::Device, "MutantNic");
    device_deregistered_twice: While(Rule::InvalidHandle, "NdisDeregisterDeviceEx", "Unload");
    general_attributes_first: While(Rule::BadState, "NdisMSetMiniportAttributes", "SetAttributes");
    no_general_attributes: Returning(Rule::BadState, "MiniportInitializeEx");
    initialisation_pended: Returning(Rule::BadState, "MiniportInitializeEx");
    failed_start_keeps_a_timer: Returning(Rule::BadState, "MiniportInitializeEx");
    file_left_open: Returning(Rule::HandleLeak, "MiniportInitializeEx");
    file_opened_late: While(Rule::BadState, "NdisOpenFile", "ReadFile");
    file_unmapped_twice: While(Rule::BadState, "NdisUnmapFile", "ReadFile");
    file_closed_twice: While(Rule::InvalidHandle, "NdisCloseFile", "ReadFile");
    file_used_after_unmap: While(Rule::PoolCorruption, "MiniportInitializeEx", "ReadFile");
    file_used_after_close: While(Rule::PoolCorruption, "MiniportInitializeEx", "ReadFile");
    configuration_left_open: Returning(Rule::HandleLeak, "MiniportHaltEx");
    configuration_closed_twice: While(Rule::InvalidHandle, "NdisCloseConfiguration", "Initialize");
    more_written_than_room: Returning(Rule::BadArgument, "MiniportOidRequest");
    buffer_overrun: While(Rule::PoolCorruption, "MiniportOidRequest", "Answer");
    too_short_without_length: Returning(Rule::BadArgument, "MiniportOidRequest");
    completed_and_returned: Returning(Rule::BadState, "MiniportOidRequest");
    completed_as_pending: While(Rule::BadArgument, "NdisMOidRequestComplete", "AnswerLater");
    request_completed_twice: While(Rule::BadState, "NdisMOidRequestComplete", "AnswerLater");
    request_never_completed: Returning(Rule::Deadlock, "MiniportOidRequest");
    work_item_freed_twice: While(Rule::InvalidHandle, "NdisFreeIoWorkItem", "Halt");
    work_item_left: Returning(Rule::BadState, "MiniportHaltEx");
    timer_left_armed: Returning(Rule::BadState, "MiniportHaltEx");
    timer_freed_while_armed: While(Rule::BadState, "NdisFreeTimerObject", "Halt");
    wait_under_a_lock: While(Rule::IrqlTooHigh, "NdisWaitEvent", "Halt");
    sleep_under_a_lock: While(Rule::IrqlTooHigh, "NdisMSleep", "Halt");
    pause_refused: Returning(Rule::BadState, "MiniportPause");
    pause_completed_unasked: Returning(Rule::BadState, "MiniportPause");
    indication_without_header: While(Rule::BadArgument, "NdisMIndicateStatusEx", "Restart");
    indication_without_source: While(Rule::BadArgument, "NdisMIndicateStatusEx", "Restart");
}
