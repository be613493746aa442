//! Pageable memory touched where nobody can page it in.

use kernel_host::Rule;

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::Rig;

family! { paging, Rig::exercise;
    paged_pool_read_under_a_spin_lock: While(Rule::IrqlTooHigh, "IRP_MJ_DEVICE_CONTROL", "Update");
    paged_pool_written_under_a_spin_lock: While(Rule::IrqlTooHigh, "IRP_MJ_DEVICE_CONTROL", "Update");
    paged_pool_given_to_a_call_under_a_spin_lock: While(Rule::IrqlTooHigh, "IRP_MJ_DEVICE_CONTROL", "Update");
    pageable_code_under_a_spin_lock: While(Rule::IrqlTooHigh, "IRP_MJ_DEVICE_CONTROL", "Scaled");
    initialisation_code_called_later: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Exercise");
}
