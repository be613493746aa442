//! Contexts of minifilters that are not released, released too often, or outlived.

use kernel_host::Rule;
use nt_types::NtStatus;

use crate::family::Caught::{Refused, Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { flt_contexts, Rig::open_a_file;
    overrun: Returning(Rule::PoolCorruption, "ContextCleanupCallback");
    not_released_after_setting: While(Rule::ReferenceLeak, "FltUnregisterFilter", "FilterUnload");
    not_released_after_getting: While(Rule::ReferenceLeak, "FltUnregisterFilter", "FilterUnload");
    referenced_and_kept: While(Rule::ReferenceLeak, "FltUnregisterFilter", "FilterUnload");
    released_twice: While(Rule::ReferenceUnderflow, "FltReleaseContext", "PostCreate");
    freed_as_pool: While(Rule::BadPoolFree, "ExFreePoolWithTag", "PostCreate");
    used_after_delete: While(Rule::PoolCorruption, "PreOperationCallback", "PreWrite");
    unknown_type: Refused(NtStatus::FLT_INVALID_CONTEXT_REGISTRATION);
}
