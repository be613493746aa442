//! WPP software tracing: the routines that its macros call. No session listens to WPP providers, so that drivers hear that
//! tracing is off; a message that one writes all the same goes into the log as it is.
//!
//! Pages: `wdm/nf-wdm-wmitracemessage`, `wdm/nf-wdm-wmiquerytraceinformation`, `wdm/nf-wdm-iowmiregistrationcontrol`.

use nt_types::NtStatus;

use super::{Event, Guid, metadata};
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    WmiTraceMessage(max 31) = wmi_trace_message;
    WmiTraceMessageVa(max 31) = wmi_trace_message_va;
    WmiQueryTraceInformation(max 31) = wmi_query_trace_information;
    IoWMIRegistrationControl(max 0) = io_wmi_registration_control;
}

/// Return address and home space of the four register parameters: the variable ones lie behind.
const VARIABLE_ARGUMENTS: usize = 40;
/// Most parts of one message; the list ends with a NULL pointer.
const MAX_PARTS: usize = 128;

extern "efiapi" fn wmi_trace_message(_logger: u64, _flags: u32, id: Raw<Guid>, number: u16) -> NtStatus {
    let call = Call::enter();
    let arguments = Raw::at(call.site().stack_pointer + VARIABLE_ARGUMENTS);
    record(&call, id, number, arguments)
}

extern "efiapi" fn wmi_trace_message_va(
    _logger: u64,
    _flags: u32,
    id: Raw<Guid>,
    number: u16,
    arguments: Raw<usize>,
) -> NtStatus {
    record(&Call::enter(), id, number, arguments)
}

/// Keeps a message: pairs of address and length follow until a NULL.
fn record(call: &Call, id: Raw<Guid>, number: u16, arguments: Raw<usize>) -> NtStatus {
    let mut payload = Vec::new();
    for part in 0..MAX_PARTS {
        let address = arguments.index(part * 2).read();
        if address == 0 {
            break;
        }
        let length = arguments.index(part * 2 + 1).read();
        payload.extend(Raw::<u8>::at(address).read_bytes(length));
    }
    call.machine().nt.etw().record(Event {
        driver: call.driver().name.clone(),
        provider: id.some().map_or_else(String::new, |id| metadata::guid_text(&id.read())),
        name: format!("WPP message {number}"),
        level: 0,
        keyword: 0,
        fields: Vec::new(),
        payload,
    });
    NtStatus::SUCCESS
}

/// There is no logger to be asked about.
extern "efiapi" fn wmi_query_trace_information(
    _class: u32,
    _buffer: usize,
    _length: u32,
    _needed: Raw<u32>,
    _input: usize,
) -> NtStatus {
    let _call = Call::enter();
    NtStatus::NOT_FOUND
}

/// Registering with WMI only matters to those who ask WMI, and nobody does here.
extern "efiapi" fn io_wmi_registration_control(_device: usize, _action: u32) -> NtStatus {
    let _call = Call::enter();
    NtStatus::SUCCESS
}
