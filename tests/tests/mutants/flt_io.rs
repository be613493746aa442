//! What callbacks of minifilters return, and what they owe an operation.

use kernel_host::Rule;

use crate::family::Caught::{Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { flt_io, Rig::open_a_file;
    file_opened_under_a_spin_lock: While(Rule::IrqlTooHigh, "FltCreateFileEx", "OpenLog");
    unknown_status_returned: Returning(Rule::BadState, "PreOperationCallback");
    completed_as_pending: Returning(Rule::BadState, "PreOperationCallback");
    pended_and_forgotten: Returning(Rule::Deadlock, "PreOperationCallback");
    context_without_callback: Returning(Rule::BadState, "PreOperationCallback");
    changed_and_not_dirty: Returning(Rule::BadState, "PreOperationCallback");
    completed_from_below: Returning(Rule::BadState, "PreOperationCallback");
    pre_returns_at_dispatch: Returning(Rule::IrqlChanged, "PreOperationCallback");
    unknown_post_status_returned: Returning(Rule::BadState, "PostOperationCallback");
    kept_after_the_operation: Returning(Rule::Deadlock, "PostOperationCallback");
}
