//! Requests that are lost, completed twice, or pended wrongly.

use kernel_host::Rule;

use crate::family::Caught::{Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { irps, Rig::exercise;
    cancel_routine_left_set: While(Rule::BadState, "IofCompleteRequest", "Answer");
    completed_under_a_spin_lock: While(Rule::BadState, "IofCompleteRequest", "Answer");
    never_completed: Returning(Rule::Deadlock, "IRP_MJ_DEVICE_CONTROL");
    completed_with_status_pending: While(Rule::BadArgument, "IofCompleteRequest", "Answer");
    completed_twice: While(Rule::BadState, "IofCompleteRequest", "Answer");
    touched_after_completion: While(Rule::PoolCorruption, "IO_WORKITEM_ROUTINE", "Answer");
    pending_without_the_mark: Returning(Rule::BadState, "IRP_MJ_DEVICE_CONTROL");
    marked_but_not_pending: Returning(Rule::BadState, "IRP_MJ_DEVICE_CONTROL");
    not_completed_at_all: Returning(Rule::BadState, "IRP_MJ_DEVICE_CONTROL");
    pending_returned_but_completed: Returning(Rule::BadState, "IRP_MJ_DEVICE_CONTROL");
    another_status_than_completed: Returning(Rule::BadState, "IRP_MJ_DEVICE_CONTROL");
}
