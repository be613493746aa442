//! Raised and not lowered, or raised too high for what is called.

use kernel_host::Rule;

use crate::family::Caught::{Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { irql, Rig::exercise;
    registry_at_dispatch: While(Rule::IrqlTooHigh, "ZwOpenKey", "Lookup");
    wait_at_dispatch: While(Rule::IrqlTooHigh, "KeWaitForSingleObject", "Pause");
    delay_at_dispatch: While(Rule::IrqlTooHigh, "KeDelayExecutionThread", "Count");
    paged_pool_at_dispatch: While(Rule::IrqlTooHigh, "ExAllocatePool2", "Count");
    paged_pool_touched_at_dispatch: While(Rule::IrqlTooHigh, "IRP_MJ_DEVICE_CONTROL", "Count");
    string_compared_at_dispatch: While(Rule::IrqlTooHigh, "RtlEqualUnicodeString", "Count");
    returns_at_dispatch: While(Rule::IrqlTooHigh, "ZwOpenKey", "Lookup");
    critical_region_left_open: Returning(Rule::BadState, "IRP_MJ_DEVICE_CONTROL");
    critical_region_left_twice: While(Rule::BadState, "KeLeaveCriticalRegion", "Exercise");
}
