//! A program's raw addresses in a device's requests.

use kernel_host::Rule;
use kernel_host::process::{Placement, Protection};

use crate::family::Caught::{Returning, While};
use crate::family::family;
use crate::rig::{Broken, Rig, same};

/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)`, and the next two.
const ECHO: u32 = 0x22_2003;
const KEEP: u32 = 0x22_2007;
const LOOK: u32 = 0x22_200B;
/// The one after that, with `METHOD_BUFFERED`.
const NAME: u32 = 0x22_200C;

/// A program is answered; another one asks about the first one's memory.
fn ask(rig: &Rig) -> Result<(), Broken> {
    rig.load()?;
    let first = rig.program();
    let device = first.open_device(r"\Device\Mutant")?;
    let input = first.buffer(b"some bytes")?;
    let output = first.allocate(10, Protection::ReadWrite, Placement::Aligned)?;
    let (from, to) = ((input.address(), input.len()), (output.address(), output.len()));
    device.control_at(ECHO, from, to)?.Status.ok()?;
    same(&output.read()?.as_slice(), &b"some bytes".as_slice())?;
    let ended = device.control_at(ECHO, (8, 8), to)?;
    same(&ended.Status, &nt_types::NtStatus::ACCESS_VIOLATION)?;
    device.control_at(KEEP, from, (0, 0))?.Status.ok()?;
    let _nothing = device.control(NAME, &device.handle().to_le_bytes(), 0)?;
    let second = rig.program();
    let other = second.open_device(r"\Device\Mutant")?;
    other.control_at(LOOK, (0, 0), (0, 0))?.Status.ok()?;
    first.terminate();
    Ok(())
}

family! { user_memory, ask;
    read_unguarded: While(Rule::UnguardedUserAccess, "IRP_MJ_DEVICE_CONTROL", "Echo");
    read_again_unguarded: While(Rule::UnguardedUserAccess, "IRP_MJ_DEVICE_CONTROL", "Echo");
    written_unguarded: While(Rule::UnguardedUserAccess, "IRP_MJ_DEVICE_CONTROL", "Return");
    probed_unguarded: While(Rule::UnguardedUserAccess, "ProbeForRead", "Echo");
    locked_unguarded: While(Rule::UnguardedUserAccess, "MmProbeAndLockPages", "LookAtLocked");
    locked_and_not_mapped: While(Rule::UnguardedUserAccess, "IRP_MJ_DEVICE_CONTROL", "LookAtLocked");
    locked_until_the_process_ends: Returning(Rule::BadState, "process exit");
    user_handle_as_a_kernel_handle: While(Rule::InvalidHandle, "ObReferenceObjectByHandle", "UseHandle");
    given_to_a_routine_unguarded: While(Rule::UnguardedUserAccess, "RtlCopyUnicodeString", "Echo");
    touched_from_another_process: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Look");
    touched_after_detaching: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Look");
}
