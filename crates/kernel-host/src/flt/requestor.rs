//! Who asked for an operation, of what kind it is, and where its parameters are.

use std::sync::{Arc, PoisonError};

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::{BOOLEAN, NtStatus};

use super::flight::Flight;
use super::major;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::fs::buffer::Places;
use crate::fs::serve;
use crate::nt::raw::{Raw, field};
use crate::process::SYSTEM_PROCESS_ID;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetRequestorProcess(max 2) = flt_get_requestor_process;
    FltGetRequestorProcessId(max 2) = flt_get_requestor_process_id;
    FltGetRequestorProcessIdEx(max 2) = flt_get_requestor_process_id_ex;
    FltGetRequestorSessionId(max 2) = flt_get_requestor_session_id;
    FltIs32bitProcess(max 2) = flt_is_32bit_process;
    FltIsOperationSynchronous(max 2) = flt_is_operation_synchronous;
    FltDecodeParameters(max 2) = flt_decode_parameters;
    FltGetIrpName(max 2) = flt_get_irp_name;
}

extern "efiapi" fn flt_get_requestor_process(data: Raw<FLT_CALLBACK_DATA>) -> usize {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    // Not referenced: the page leaves that to the caller.
    flight
        .process()
        .map_or_else(|| call.machine().nt.system_process(call.machine()).object(), |process| process.object())
}

extern "efiapi" fn flt_get_requestor_process_id(data: Raw<FLT_CALLBACK_DATA>) -> u32 {
    let call = Call::enter();
    process_id(&Flight::of(&call, data)) as u32
}

extern "efiapi" fn flt_get_requestor_process_id_ex(data: Raw<FLT_CALLBACK_DATA>) -> usize {
    let call = Call::enter();
    process_id(&Flight::of(&call, data)) as usize
}

fn process_id(flight: &Flight) -> u64 {
    flight.process().map_or(SYSTEM_PROCESS_ID, |process| process.id())
}

extern "efiapi" fn flt_get_requestor_session_id(data: Raw<FLT_CALLBACK_DATA>, session: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    // Services and the system are session 0; whoever runs programs has logged on, which makes it session 1.
    session.write(u32::from(flight.process().is_some_and(|process| !process.is_system())));
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_is_32bit_process(data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    if !data.is_null() {
        let _checked = Flight::of(&call, data);
    }
    // Simulated programs are all 64-bit.
    0
}

extern "efiapi" fn flt_is_operation_synchronous(data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    BOOLEAN::from(serve::is_synchronous(&Flight::of(&call, data)))
}

extern "efiapi" fn flt_decode_parameters(
    data: Raw<FLT_CALLBACK_DATA>,
    list: Raw<usize>,
    buffer: Raw<usize>,
    length: Raw<usize>,
    access: Raw<i32>,
) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let Some(places) = Places::of(flight.block()).filter(|_| flight.kind != Kind::FsFilter) else {
        return NtStatus::INVALID_PARAMETER;
    };
    let parameters = field!(flight.block(), fltmgr::raw::FLT_IO_PARAMETER_BLOCK, Parameters).address();
    let at = |offset: Option<usize>| offset.map_or(0, |offset| parameters + offset);
    list.write_if_some(at(places.list));
    buffer.write_if_some(at(Some(places.buffer)));
    length.write_if_some(at(places.length));
    access.write_if_some(places.access as i32);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_get_irp_name(major: u8) -> usize {
    let call = Call::enter();
    let mut names = call.machine().flt.irp_names.lock().unwrap_or_else(PoisonError::into_inner);
    let name = names.entry(major).or_insert_with(|| {
        let mut name = major::name(major).into_bytes();
        name.push(0);
        Arc::from(name)
    });
    name.as_ptr().expose_provenance()
}
