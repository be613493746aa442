//! Ports, their programs' memory, and what keeps a filter from unloading.

use kernel_host::{LeakKind, Rule};
use nt_types::NtStatus;

use crate::family::Caught::{Left, Refused, Returning, While};
use crate::family::family;
use crate::rig::{Broken, Rig, same};

/// An address in the kernel's half where nothing is.
const KERNEL_ADDRESS: u64 = 0xFFFF_F000_0000_0000;

/// A program connects, is answered, and goes.
fn converse(rig: &Rig) -> Result<(), Broken> {
    rig.load()?;
    let program = rig.program();
    let port = program.connect(r"\MutantPort", &[])?;
    // The second half of the page behind the buffer is not the program's, so that a driver that writes too much is caught.
    let answer = port.send_message(b"are you there?", 32)?;
    same(&answer.as_slice(), &b"are you there?".as_slice())?;
    // A program may lie: about where its buffers are, and in what it says.
    let nothing = 0x1000;
    let buffer = program.buffer(&KERNEL_ADDRESS.to_le_bytes())?;
    same(&port.send_raw(nothing, 16, 0, 0), &Err(NtStatus::ACCESS_VIOLATION))?;
    same(&port.send_raw(buffer.address(), 8, nothing, 16), &Err(NtStatus::ACCESS_VIOLATION))?;
    let answer = port.send_message(&KERNEL_ADDRESS.to_le_bytes(), 8)?;
    same(&answer.as_slice(), &KERNEL_ADDRESS.to_le_bytes().as_slice())?;
    drop(port);
    Ok(())
}

family! { flt_ports, converse;
    unguarded_read: While(Rule::UnguardedUserAccess, "MessageNotifyCallback", "OnMessage");
    unguarded_write: While(Rule::UnguardedUserAccess, "MessageNotifyCallback", "OnMessage");
    write_past_the_output_buffer: While(Rule::UnguardedUserAccess, "MessageNotifyCallback", "OnMessage");
    address_inside_the_message_not_probed: While(Rule::UnhandledException, "MessageNotifyCallback", "OnMessage");
    returns_more_than_the_buffer: Returning(Rule::BadArgument, "MessageNotifyCallback");
    returns_at_apc_level: Returning(Rule::IrqlChanged, "MessageNotifyCallback");
    work_item_not_freed: Left(Rule::BadState, LeakKind::Execution, "WORKITEM");
    work_item_freed_by_both: While(Rule::BadArgument, "FltFreeGenericWorkItem", "Work");
    client_port_not_closed: Left(Rule::HandleLeak, LeakKind::Port, "client");
    server_port_not_closed: While(Rule::Deadlock, "FltUnregisterFilter", "FilterUnload");
    server_port_closed_twice: While(Rule::BadArgument, "FltCloseCommunicationPort", "FilterUnload");
    volume_not_dereferenced: Left(Rule::ReferenceLeak, LeakKind::Reference, "PFLT_VOLUME");
    volume_dereferenced_twice: While(Rule::ReferenceUnderflow, "FltObjectDereference", "FilterUnload");
    filter_referenced_and_kept: While(Rule::Deadlock, "FltUnregisterFilter", "FilterUnload");
    port_with_a_user_handle: Refused(NtStatus::INVALID_PARAMETER);
    descriptor_not_freed: Left(Rule::PoolLeak, LeakKind::Pool, "OpenPort");
}
