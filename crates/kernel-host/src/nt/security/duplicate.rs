//! Copies of tokens, threads that act with them, and numbers that are used once.
//!
//! Pages: `ntifs/nf-ntifs-zwduplicatetoken`, `ntddk/nf-ntddk-zwsetinformationthread`, `ntddk/nf-ntddk-zwallocatelocallyuniqueid`.

use std::sync::atomic::{AtomicU64, Ordering};

use nt_types::{HANDLE, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES};

use super::impersonation::{DELEGATION, IMPERSONATION, impersonate};
use super::token::{self, PRIMARY, TokenBody, create};
use crate::ddi::{Call, exports};
use crate::nt::ob_exports::{make_handle, open_entry};
use crate::nt::ob_named::flags_of;
use crate::nt::raw::{Raw, field};
use crate::nt::threads::{thread_at, try_set_priority};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwDuplicateToken(max 0, fails RESOURCES) = zw_duplicate_token;
    NtDuplicateToken(max 0, fails RESOURCES) = zw_duplicate_token;
    ZwSetInformationThread(max 0) = zw_set_information_thread;
    NtSetInformationThread(max 0) = zw_set_information_thread;
    ZwAllocateLocallyUniqueId(max 0) = zw_allocate_locally_unique_id;
}

/// `MAXIMUM_ALLOWED`, `TOKEN_ALL_ACCESS`.
const MAXIMUM_ALLOWED: u32 = 0x0200_0000;
const TOKEN_ALL_ACCESS: u32 = 0xF_01FF;

/// Where `SECURITY_QUALITY_OF_SERVICE` has the level.
const QUALITY_LEVEL: usize = 4;

/// `THREADINFOCLASS` numbers: `ThreadPriority`, `ThreadBasePriority`, `ThreadImpersonationToken`, `ThreadPagePriority`.
const THREAD_PRIORITY: i32 = 2;
const THREAD_BASE_PRIORITY: i32 = 3;
const THREAD_IMPERSONATION_TOKEN: i32 = 5;
const THREAD_PAGE_PRIORITY: i32 = 24;
/// `MEMORY_PRIORITY_NORMAL`.
const HIGHEST_PAGE_PRIORITY: u32 = 5;

/// The last number given away; the first 1000 are reserved.
static LAST_LUID: AtomicU64 = AtomicU64::new(0x1_0000_0000);

pub(super) extern "efiapi" fn zw_duplicate_token(
    existing: HANDLE,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    effective_only: u8,
    kind: u32,
    handle: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let made = open_entry(&call, existing.addr(), 0, Some("Token"), KERNEL_MODE).and_then(|entry| {
        let old = entry.object.payload::<TokenBody>().ok_or(NtStatus::BAD_TOKEN_TYPE)?;
        let asked = attributes.some().and_then(|attributes| {
            let quality = field!(attributes, OBJECT_ATTRIBUTES, SecurityQualityOfService).read();
            Raw::of(quality.cast::<u8>()).some().map(|quality| quality.field::<u32>(QUALITY_LEVEL).read())
        });
        let level = level_of(&old, kind, asked)?;
        let new = create(call.machine(), old.duplicate(level, effective_only != 0))?;
        let rights = match access {
            0 => entry.access,
            access if access & MAXIMUM_ALLOWED != 0 => TOKEN_ALL_ACCESS,
            access => access,
        };
        Ok((new, rights))
    });
    match made {
        Ok((token, rights)) => {
            handle.write(make_handle(&call, &token, rights, flags_of(attributes)));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// The level of a copy; `None` for a primary token.
fn level_of(old: &TokenBody, kind: u32, asked: Option<u32>) -> Result<Option<u32>, NtStatus> {
    match kind {
        PRIMARY => {
            let enough = old.level().is_none_or(|level| level >= IMPERSONATION);
            if enough { Ok(None) } else { Err(NtStatus::BAD_IMPERSONATION_LEVEL) }
        }
        token::IMPERSONATION => {
            let level = asked.or(old.level()).unwrap_or(IMPERSONATION);
            if level > DELEGATION {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            let fits = old.level().is_none_or(|highest| level <= highest);
            if fits { Ok(Some(level)) } else { Err(NtStatus::BAD_IMPERSONATION_LEVEL) }
        }
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

pub(super) extern "efiapi" fn zw_set_information_thread(
    thread: HANDLE,
    class: i32,
    information: Raw<u8>,
    length: u32,
) -> NtStatus {
    let call = Call::enter();
    let needed = if class == THREAD_IMPERSONATION_TOKEN { size_of::<HANDLE>() } else { size_of::<u32>() };
    let object = match open_entry(&call, thread.addr(), 0, Some("Thread"), KERNEL_MODE) {
        Ok(entry) => entry.object,
        Err(status) => return status,
    };
    let known = [THREAD_PRIORITY, THREAD_BASE_PRIORITY, THREAD_IMPERSONATION_TOKEN, THREAD_PAGE_PRIORITY];
    if !known.contains(&class) {
        return NtStatus::INVALID_INFO_CLASS;
    }
    if length as usize != needed {
        return NtStatus::INFO_LENGTH_MISMATCH;
    }
    let number = information.cast::<i32>().read();
    match class {
        THREAD_PRIORITY => try_set_priority(&call, object.body(), number),
        // It is remembered nowhere: the host's threads and pages are all alike.
        THREAD_BASE_PRIORITY => NtStatus::SUCCESS,
        THREAD_PAGE_PRIORITY if (1..=HIGHEST_PAGE_PRIORITY).contains(&number.cast_unsigned()) => NtStatus::SUCCESS,
        THREAD_IMPERSONATION_TOKEN => act_for(&call, object.body(), information.cast::<usize>().read()),
        _ => NtStatus::INVALID_PARAMETER,
    }
}

/// The thread acts for the token behind a handle, or for itself again.
fn act_for(call: &Call, thread: usize, token: usize) -> NtStatus {
    let thread = thread_at(call, thread);
    if token == 0 {
        drop(thread.set_impersonation(None));
        return NtStatus::SUCCESS;
    }
    let result = open_entry(call, token, 0, Some("Token"), KERNEL_MODE).and_then(|entry| {
        let body = entry.object.payload::<TokenBody>().ok_or(NtStatus::BAD_TOKEN_TYPE)?;
        // Primary tokens have to be duplicated first.
        let level = body.level().ok_or(NtStatus::BAD_TOKEN_TYPE)?;
        impersonate(call.machine(), &thread, &entry.object, (false, false), level)
    });
    result.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

pub(super) extern "efiapi" fn zw_allocate_locally_unique_id(luid: Raw<u64>) -> NtStatus {
    let _call = Call::enter();
    luid.write(LAST_LUID.fetch_add(1, Ordering::Relaxed) + 1);
    NtStatus::SUCCESS
}
