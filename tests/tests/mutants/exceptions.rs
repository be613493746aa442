//! Exceptions that nobody takes.

use kernel_host::Rule;

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::Rig;

family! { exceptions, Rig::exercise;
    raised_outside_of_try: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Raise");
    raises_in_finally: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "RaiseInside");
    filter_searches_on: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "RaiseInside");
    another_status_raised: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "RaiseInside");
}
