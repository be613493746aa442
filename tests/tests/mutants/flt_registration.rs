//! How a minifilter registers and unregisters.

use kernel_host::{LeakKind, Rule};
use nt_types::NtStatus;

use crate::family::Caught::{Left, Refused, Returning, While};
use crate::family::family;
use crate::rig::Rig;

family! { flt_registration, Rig::open_a_file;
    wrong_size: Refused(NtStatus::INVALID_PARAMETER);
    wrong_version: Refused(NtStatus::INVALID_PARAMETER);
    operation_twice: Refused(NtStatus::FLT_DUPLICATE_ENTRY);
    power_registered: Refused(NtStatus::INVALID_PARAMETER);
    shutdown_with_post_operation: Refused(NtStatus::INVALID_PARAMETER);
    started_twice: Refused(NtStatus::INVALID_PARAMETER);
    fails_without_unregistering: Left(Rule::BadState, LeakKind::Registration, "PFLT_FILTER");
    not_unregistered: Returning(Rule::Deadlock, "FilterUnloadCallback");
    unregistered_twice: While(Rule::BadArgument, "FltUnregisterFilter", "FilterUnload");
}
