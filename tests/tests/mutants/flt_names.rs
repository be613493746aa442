//! Names of files that are kept, or looked at too late.

use kernel_host::{LeakKind, Rule};

use crate::family::Caught::{Left, While};
use crate::family::family;
use crate::rig::Rig;

family! { flt_names, Rig::open_a_file;
    not_released: Left(Rule::ReferenceLeak, LeakKind::Reference, "name");
    referenced_and_kept: While(Rule::ReferenceUnderflow, "FltReferenceFileNameInformation", "LookAt");
    released_twice: While(Rule::ReferenceUnderflow, "FltReleaseFileNameInformation", "LookAt");
    used_after_release: While(Rule::ReferenceUnderflow, "FltParseFileNameInformation", "LookAt");
    asked_for_at_dispatch: While(Rule::IrqlTooHigh, "FltGetFileNameInformation", "LookAt");
}
