//! Loops that nothing ends.

use kernel_host::Rule;

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::Rig;

family! { hangs, Rig::exercise;
    loops_at_passive: While(Rule::NeverReturns, "IRP_MJ_DEVICE_CONTROL", "SpinAtPassive");
    loops_at_dispatch: While(Rule::NeverReturns, "IRP_MJ_DEVICE_CONTROL", "SpinAtDispatch");
    polls_for_ever: While(Rule::NeverReturns, "KeDelayExecutionThread", "Poll");
}
