//! The ways in which calls can fail, and the sets of them that export tables name.

use std::fmt;

use ndis::NdisStatus;
use nt_types::NtStatus;

use crate::ddi::CallSite;
use crate::nt::raw::Raw;

/// One way in which a call can fail, as its page documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// NULL is returned.
    Null,
    /// As [`Failure::Null`], unless the BOOLEAN stack parameter at this place (counted from 1) asks for a bug check instead.
    NullUnless(u8),
    /// A status is returned.
    Status(NtStatus),
    /// A status of NDIS is returned.
    NdisStatus(NdisStatus),
    /// A status of NDIS is stored where the first parameter points.
    NdisStatusThrough(NdisStatus),
    /// `STATUS_TIMEOUT` is returned, where the stack parameter at this place points at a time-out.
    TimeOut(u8),
    /// The export goes on, and does less than asked in the way described; it asks [`crate::ddi::Call::falls_short`].
    Short(&'static str),
}

/// The call has no memory to give.
pub(crate) const NULL: &[Failure] = &[Failure::Null];
/// The call needs memory that is not there.
pub(crate) const RESOURCES: &[Failure] = &[Failure::Status(NtStatus::INSUFFICIENT_RESOURCES)];
/// A pool allocation: NULL, or an exception where the call asked for one.
pub(crate) const POOL: &[Failure] = &[Failure::Short("NULL")];
/// A string routine that may have to allocate a buffer.
pub(crate) const NO_MEMORY: &[Failure] = &[Failure::Status(NtStatus::NO_MEMORY)];
/// The call needs memory, and a device that works.
pub(crate) const IO: &[Failure] =
    &[Failure::Status(NtStatus::INSUFFICIENT_RESOURCES), Failure::Status(NtStatus::IO_DEVICE_ERROR)];
/// `FltReadFile` and `Ex`: as [`IO`], or fewer bytes than there are, as at the end of a file that has become shorter.
pub(crate) const READ: &[Failure] = &[
    Failure::Status(NtStatus::INSUFFICIENT_RESOURCES),
    Failure::Status(NtStatus::IO_DEVICE_ERROR),
    Failure::Short("half of the bytes"),
];
/// The filter, instance or volume is being torn down.
pub(crate) const BUSY: &[Failure] = &[Failure::Status(NtStatus::FLT_DELETING_OBJECT)];
/// `FltSendMessage`: no memory, or nobody answers in time.
pub(crate) const SEND: &[Failure] = &[Failure::Status(NtStatus::INSUFFICIENT_RESOURCES), Failure::TimeOut(7)];
/// `KeWaitForSingleObject`, whose fifth parameter is the time-out.
pub(crate) const WAIT_SINGLE: &[Failure] = &[Failure::TimeOut(5)];
/// `KeWaitForMultipleObjects`, whose seventh parameter is the time-out.
pub(crate) const WAIT_MULTIPLE: &[Failure] = &[Failure::TimeOut(7)];
/// `MmMapLockedPagesSpecifyCache`: no system addresses; `BugCheckOnFailure` is the fifth parameter.
pub(crate) const MAPPING: &[Failure] = &[Failure::NullUnless(5)];
/// `MmProbeAndLockPages`: an exception.
pub(crate) const LOCKING: &[Failure] = &[Failure::Short("STATUS_WORKING_SET_QUOTA raised")];
/// `MmAllocatePagesForMdl` and `Ex`: no pages, or fewer than asked for.
pub(crate) const PAGES: &[Failure] = &[Failure::Null, Failure::Short("half of the pages")];
/// `PsChargePoolQuota`: an exception.
pub(crate) const QUOTA: &[Failure] = &[Failure::Short("STATUS_QUOTA_EXCEEDED raised")];
/// A charge that returns what it lacks.
pub(crate) const QUOTA_STATUS: &[Failure] = &[Failure::Status(NtStatus::QUOTA_EXCEEDED)];
/// `IofCallDriver`: the driver below completes the request without having done anything.
pub(crate) const REQUEST: &[Failure] = &[Failure::Short("completed with STATUS_INSUFFICIENT_RESOURCES")];
/// A call of NDIS that returns what it lacks.
pub(crate) const NDIS_RESOURCES: &[Failure] = &[Failure::NdisStatus(NdisStatus::RESOURCES)];
/// A call of NDIS that returns what it lacks, or that it just failed.
pub(crate) const RETURNS_NDIS_FAILURE: &[Failure] =
    &[Failure::NdisStatus(NdisStatus::RESOURCES), Failure::NdisStatus(NdisStatus::FAILURE)];
/// `NdisReadConfiguration`.
pub(crate) const NDIS_FAILURE: &[Failure] =
    &[Failure::NdisStatusThrough(NdisStatus::RESOURCES), Failure::NdisStatusThrough(NdisStatus::FAILURE)];
/// `NdisOpenFile`.
pub(crate) const NDIS_FILE: &[Failure] =
    &[Failure::NdisStatusThrough(NdisStatus::RESOURCES), Failure::NdisStatusThrough(NdisStatus::ERROR_READING_FILE)];

impl Failure {
    /// Whether the call's parameters allow this way.
    pub(crate) fn is_possible(self, call: &CallSite) -> bool {
        match self {
            Self::TimeOut(place) => stack_parameter::<usize>(call, place).read() != 0,
            Self::NullUnless(place) => stack_parameter::<u8>(call, place).read() == 0,
            _ => true,
        }
    }

    /// What the call leaves in RAX; `None` when the export itself carries the failure out.
    pub(crate) fn carry_out(self, call: &CallSite) -> Option<u64> {
        match self {
            Self::Null | Self::NullUnless(_) => Some(0),
            Self::Status(status) => Some(status.bits().into()),
            Self::NdisStatus(status) => Some(status.bits().into()),
            Self::NdisStatusThrough(status) => {
                Raw::at(call.first_parameter).write(status);
                Some(0)
            }
            Self::TimeOut(_) => Some(NtStatus::TIMEOUT.bits().into()),
            Self::Short(_) => None,
        }
    }
}

/// Where a parameter lies that is not passed in a register: the fifth is behind the return address and 32 bytes of home space.
fn stack_parameter<T>(call: &CallSite, place: u8) -> Raw<T> {
    debug_assert!(place > 4, "the first four are in registers");
    Raw::at(call.stack_pointer + 8 * usize::from(place))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null | Self::NullUnless(_) => write!(f, "NULL"),
            Self::Status(status) => write!(f, "{status}"),
            Self::NdisStatus(status) | Self::NdisStatusThrough(status) => write!(f, "{status}"),
            Self::TimeOut(_) => write!(f, "STATUS_TIMEOUT"),
            Self::Short(how) => write!(f, "{how}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::{Bench, call_site};

    /// A call whose fifth parameter is `fifth` and whose seventh is `seventh`, with rubbish around them.
    fn possible(failure: Failure, fifth: u64, seventh: u64) -> bool {
        let stack = [0xdead, 1, 2, 3, 4, fifth, 0xbeef, seventh];
        let bench = Bench::new();
        let mut call = call_site(bench.driver().clone());
        call.stack_pointer = stack.as_ptr().addr();
        stack.as_ptr().expose_provenance();
        failure.is_possible(&call)
    }

    #[test]
    fn only_a_wait_with_a_time_out_can_time_out() {
        assert!(possible(Failure::TimeOut(5), 0x1000, 0));
        assert!(!possible(Failure::TimeOut(5), 0, 0x1000));
        assert!(possible(Failure::TimeOut(7), 0, 0x1000));
    }

    #[test]
    fn a_mapping_that_may_bug_check_does_not_fail_otherwise() {
        // A BOOLEAN is one byte; the caller leaves the rest of the slot as it is.
        assert!(possible(Failure::NullUnless(5), 0xabcd_ef00, 0));
        assert!(!possible(Failure::NullUnless(5), 0xabcd_ef01, 0));
    }

    #[test]
    fn a_status_of_ndis_is_stored_where_the_first_parameter_points() {
        let bench = Bench::new();
        let mut status = NdisStatus::SUCCESS;
        let mut call = call_site(bench.driver().clone());
        call.first_parameter = (&raw mut status).expose_provenance();
        let returned = bench.run(|| Failure::NdisStatusThrough(NdisStatus::RESOURCES).carry_out(&call)).unwrap();
        assert_eq!((returned, status), (Some(0), NdisStatus::RESOURCES));
    }
}
