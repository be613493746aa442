//! Handles and references that are not given back, or too often.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, While};
use crate::family::family;
use crate::rig::Rig;

family! { objects, Rig::exercise;
    missing_dereference: Left(Rule::ReferenceLeak, LeakKind::Reference, "File");
    dereferenced_twice: While(Rule::ReferenceUnderflow, "ObfDereferenceObject", "UseObject");
    handle_leak: Left(Rule::HandleLeak, LeakKind::Handle, "File");
    referenced_after_the_close: While(Rule::InvalidHandle, "ObReferenceObjectByHandle", "UseObject");
    closed_twice: While(Rule::InvalidHandle, "ZwClose", "UseObject");
    object_used_after_the_last_reference: While(Rule::PoolCorruption, "IRP_MJ_DEVICE_CONTROL", "UseObject");
    registry_key_left_open: Left(Rule::HandleLeak, LeakKind::Handle, "Key");
    file_left_open: Left(Rule::HandleLeak, LeakKind::Handle, "File");
    close_of_no_handle: While(Rule::InvalidHandle, "ZwClose", "UseFile");
    process_looked_up_and_kept: Left(Rule::ReferenceLeak, LeakKind::Reference, "Process");
}
