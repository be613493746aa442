//! Timers, DPCs, work items and threads that outlive the driver or are misused.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { execution, Rig::exercise;
    dpc_waits: While(Rule::IrqlTooHigh, "KeWaitForSingleObject", "OnDpc");
    dpc_returns_at_passive: Returning(Rule::IrqlChanged, "CustomDpc");
    work_item_returns_at_dispatch: Returning(Rule::IrqlChanged, "IO_WORKITEM_ROUTINE");
    timer_initialised_while_set: While(Rule::BadState, "KeInitializeTimer", "StartTimer");
    timer_freed_while_set: While(Rule::BadState, "ExFreePoolWithTag", "UsePoolTimer");
    dpc_freed_while_its_timer_is_set: While(Rule::BadState, "ExFreePoolWithTag", "UsePoolTimer");
    timer_left_set: Left(Rule::BadState, LeakKind::Execution, "timer");
    work_item_never_freed: Left(Rule::BadState, LeakKind::Execution, "work item");
    thread_left_running: Left(Rule::BadState, LeakKind::Execution, "OnThread");
    thread_reference_kept: Left(Rule::ReferenceLeak, LeakKind::Reference, "Thread");
}
