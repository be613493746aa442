//! What stops Windows with a bug check.

use kernel_host::Rule;

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::Rig;

family! { crash, Rig::exercise;
    null_pointer: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Walk");
    division_by_zero: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Divide");
    call_of_null: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Call");
    stack_overflow: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Recurse");
    constant_written: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Store");
    bug_check: While(Rule::BugCheck, "KeBugCheckEx", "Exercise");
    assertion_failed: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Exercise");
    breakpoint: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Exercise");
    privileged_instruction: While(Rule::NotImplemented, "IRP_MJ_DEVICE_CONTROL", "Exercise");
}
