//! What a filter registers: captured once, checked as FltRegisterFilter's page says.

use fltmgr::raw::{
    FLT_OPERATION_REGISTRATION, FLT_REGISTRATION, FltOperationFlags, IRP_MJ_OPERATION_END, PFLT_FILTER_UNLOAD_CALLBACK,
    PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK, PFLT_INSTANCE_SETUP_CALLBACK, PFLT_INSTANCE_TEARDOWN_CALLBACK,
    PFLT_POST_OPERATION_CALLBACK, PFLT_PRE_OPERATION_CALLBACK,
};
use nt_types::{IrpFlags, NtStatus};

use super::contexts::definition::Definitions;
use super::major;
use super::names::provider::Callbacks;
use crate::nt::raw::Raw;

/// Size of FLT_REGISTRATION up to NormalizeNameComponentExCallback, which version 0x0202 ends with.
const SIZE_0202: u16 = 104;

/// Entries after which a registration array is taken to have no end.
const MAX_ENTRIES: usize = 256;

/// A filter's callbacks.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) flags: u32,
    pub(crate) unload: PFLT_FILTER_UNLOAD_CALLBACK,
    pub(crate) setup: PFLT_INSTANCE_SETUP_CALLBACK,
    pub(crate) query_teardown: PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK,
    pub(crate) teardown_start: PFLT_INSTANCE_TEARDOWN_CALLBACK,
    pub(crate) teardown_complete: PFLT_INSTANCE_TEARDOWN_CALLBACK,
    pub(crate) operations: Vec<OperationCallbacks>,
    pub(crate) contexts: Definitions,
    pub(crate) provider: Option<Callbacks>,
}

/// Callbacks of one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperationCallbacks {
    pub(crate) major: u8,
    pub(crate) flags: u32,
    pub(crate) pre: PFLT_PRE_OPERATION_CALLBACK,
    pub(crate) post: PFLT_POST_OPERATION_CALLBACK,
}

impl OperationCallbacks {
    /// Whether the registration's flags leave an operation to the filter. `is_of_volume` is asked only when it matters.
    pub(crate) fn wants(&self, major: u8, irp_flags: u32, is_of_volume: impl FnOnce() -> bool) -> bool {
        let flags = FltOperationFlags::from_bits_retain(self.flags);
        let irp_flags = IrpFlags::from_bits_retain(irp_flags);
        let skipped = if !matches!(major, major::READ | major::WRITE) {
            FltOperationFlags::empty()
        } else if irp_flags.contains(IrpFlags::PAGING_IO) {
            FltOperationFlags::SKIP_PAGING_IO
        } else if irp_flags.contains(IrpFlags::NOCACHE) {
            FltOperationFlags::SKIP_NON_CACHED_NON_PAGING_IO
        } else {
            FltOperationFlags::SKIP_CACHED_IO
        };
        // Fast I/O is cached I/O, and has no flags that say otherwise.
        let skips = !skipped.is_empty() && flags.contains(skipped);
        !skips && (!flags.contains(FltOperationFlags::SKIP_NON_DASD_IO) || is_of_volume())
    }
}

impl Registration {
    /// Copies and checks.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`, `FLT_INVALID_CONTEXT_REGISTRATION`.
    pub(crate) fn capture(registration: Raw<FLT_REGISTRATION>) -> Result<Self, NtStatus> {
        let head = registration.some().ok_or(NtStatus::INVALID_PARAMETER)?;
        let (size, version) = (head.field::<u16>(0).read(), head.field::<u16>(2).read());
        // The major version decides; a minor one says which members at the end are there.
        let expected = if version >= 0x0203 { size_of::<FLT_REGISTRATION>() as u16 } else { SIZE_0202 };
        if version >> 8 != 2 || (version >= 0x0202 && size < expected) || size < 80 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let mut whole = FLT_REGISTRATION::EMPTY;
        let length = usize::from(size).min(size_of::<FLT_REGISTRATION>());
        let bytes = head.cast::<u8>().read_bytes(length);
        let target = Raw::<u8>::at((&raw mut whole).expose_provenance());
        target.fill(0, size_of::<FLT_REGISTRATION>());
        target.write_bytes(&bytes);
        Ok(Self {
            flags: whole.Flags,
            unload: whole.FilterUnloadCallback,
            setup: whole.InstanceSetupCallback,
            query_teardown: whole.InstanceQueryTeardownCallback,
            teardown_start: whole.InstanceTeardownStartCallback,
            teardown_complete: whole.InstanceTeardownCompleteCallback,
            operations: capture_operations(Raw::of(whole.OperationRegistration.cast_mut()))?,
            provider: Callbacks::capture(&whole)?,
            contexts: Definitions::capture(Raw::of(whole.ContextRegistration.cast_mut()))?,
        })
    }

    /// The callbacks for a major function.
    pub(crate) fn operation(&self, major: u8) -> Option<OperationCallbacks> {
        self.operations.iter().find(|operation| operation.major == major).copied()
    }
}

fn capture_operations(first: Raw<FLT_OPERATION_REGISTRATION>) -> Result<Vec<OperationCallbacks>, NtStatus> {
    let mut operations: Vec<OperationCallbacks> = Vec::new();
    let Some(first) = first.some() else { return Ok(operations) };
    for index in 0..MAX_ENTRIES {
        let entry = first.index(index).read();
        let callbacks = OperationCallbacks {
            major: entry.MajorFunction,
            flags: entry.Flags,
            pre: entry.PreOperation,
            post: entry.PostOperation,
        };
        match callbacks.major {
            IRP_MJ_OPERATION_END => return Ok(operations),
            // IRP_MJ_POWER and IRP_MJ_DEVICE_CHANGE cannot be registered; IRP_MJ_SHUTDOWN has no post-operation.
            0x16 | 0x18 => return Err(NtStatus::INVALID_PARAMETER),
            0x10 if callbacks.post.is_some() => return Err(NtStatus::INVALID_PARAMETER),
            kind if !major::can_be_registered(kind) => return Err(NtStatus::INVALID_PARAMETER),
            kind if operations.iter().any(|known| known.major == kind) => return Err(NtStatus::FLT_DUPLICATE_ENTRY),
            _ => operations.push(callbacks),
        }
    }
    Err(NtStatus::INVALID_PARAMETER)
}
