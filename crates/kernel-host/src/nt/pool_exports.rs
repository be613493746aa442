//! `ExAllocatePool*` and `ExFreePool*`.

use nt_types::{NtStatus, PoolFlags};

use super::pool::{PoolKind, Request, Tag};
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExAllocatePool2(max 2, fails POOL) = ex_allocate_pool2;
    ExAllocatePool3(max 2, fails POOL) = ex_allocate_pool3;
    ExAllocatePoolWithTag(max 2, fails POOL) = ex_allocate_pool_with_tag;
    ExAllocatePoolWithTagPriority(max 2, fails POOL) = ex_allocate_pool_with_tag_priority;
    ExAllocatePoolWithQuotaTag(max 2, fails POOL) = ex_allocate_pool_with_quota_tag;
    ExAllocatePoolWithQuota(max 2, fails POOL) = ex_allocate_pool_with_quota;
    ExAllocatePool(max 2, fails POOL) = ex_allocate_pool;
    FsRtlAllocatePool(max 2, fails POOL) = fs_rtl_allocate_pool;
    FsRtlAllocatePoolWithTag(max 2, fails POOL) = fs_rtl_allocate_pool_with_tag;
    FsRtlAllocatePoolWithQuota(max 2, fails POOL) = fs_rtl_allocate_pool;
    FsRtlAllocatePoolWithQuotaTag(max 2, fails POOL) = fs_rtl_allocate_pool_with_tag;
    ExFreePool(max 2) = ex_free_pool;
    ExFreePoolWithTag(max 2) = ex_free_pool_with_tag;
    ExFreePool2(max 2) = ex_free_pool2;
    ExQueryPoolBlockSize(max 2) = ex_query_pool_block_size;
}

/// Flags whose meaning is known; bits 32 and up are optional by definition and may be ignored.
const REQUIRED_FLAGS: u64 = 0xFFFF_FFFF;

/// The tag of allocations that name none.
const NO_TAG: u32 = u32::from_le_bytes(*b"None");

/// A `POOL_TYPE` with its flag bits, as the routines before `ExAllocatePool2` take it.
///
/// `ExAllocatePoolZero`, `ExAllocatePoolUninitialized`, `ExAllocatePoolQuotaZero` and their like are inline functions of the
/// header: they set [`ZERO`](Self::ZERO) and call these.
#[derive(Clone, Copy, Debug)]
pub(super) struct OldPool(i32);

impl OldPool {
    /// `POOL_QUOTA_FAIL_INSTEAD_OF_RAISE`.
    pub(super) const QUOTA_FAIL_INSTEAD_OF_RAISE: i32 = 8;
    /// `POOL_RAISE_IF_ALLOCATION_FAILURE`.
    pub(super) const RAISE: i32 = 16;
    /// `POOL_COLD_ALLOCATION`: a hint.
    const COLD: i32 = 256;
    /// `POOL_NX_ALLOCATION`.
    const NX: i32 = 512;
    /// `POOL_ZERO_ALLOCATION`.
    const ZERO: i32 = 1024;

    /// `None` for a type that is none of the enumeration's that drivers may use.
    pub(super) fn parse(pool_type: i32) -> Option<Self> {
        let flags = Self::QUOTA_FAIL_INSTEAD_OF_RAISE | Self::RAISE | Self::COLD | Self::NX | Self::ZERO;
        // NonPagedPool, PagedPool, and both cache aligned.
        matches!(pool_type & !flags, 0 | 1 | 4 | 5).then_some(Self(pool_type))
    }

    pub(super) fn bits(self) -> i32 {
        self.0
    }

    fn has(self, flag: i32) -> bool {
        self.0 & flag != 0
    }

    fn kind(self) -> PoolKind {
        match (self.has(1), self.has(Self::NX)) {
            (true, _) => PoolKind::Paged,
            (false, false) => PoolKind::NonPagedExecute,
            (false, true) => PoolKind::NonPaged,
        }
    }
}

extern "efiapi" fn ex_allocate_pool2(flags: u64, length: usize, tag: u32) -> usize {
    allocate(Call::enter(), flags, length, tag)
}

/// `POOL_EXTENDED_PARAMETER`: type in the low byte, `Optional` in bit 8, then the value.
const EXTENDED_PRIORITY: u64 = 1;
const EXTENDED_SECURE: u64 = 2;
const EXTENDED_NUMA_NODE: u64 = 3;
const EXTENDED_OPTIONAL: u64 = 1 << 8;

extern "efiapi" fn ex_allocate_pool3(flags: u64, length: usize, tag: u32, parameters: Raw<u64>, count: u32) -> usize {
    let call = Call::enter();
    let mut invalid = count > 0 && parameters.is_null();
    for index in 0..if invalid { 0 } else { count as usize } {
        let parameter = parameters.index(2 * index).read();
        match parameter & 0xFF {
            // Priority and node are hints, which a pool without pressure and with one node can grant.
            EXTENDED_PRIORITY | EXTENDED_NUMA_NODE => {}
            EXTENDED_SECURE => {
                if parameter & EXTENDED_OPTIONAL == 0 {
                    call.stop(Rule::NotImplemented, "secure pools (PoolExtendedParameterSecurePool) are not simulated");
                }
            }
            _ => invalid |= parameter & EXTENDED_OPTIONAL == 0,
        }
    }
    if invalid {
        return fail(call, PoolFlags::from_bits_truncate(flags).contains(PoolFlags::RAISE_ON_FAILURE));
    }
    allocate(call, flags, length, tag)
}

/// What a failed allocation is: NULL, or an exception for those who asked for one.
fn fail(call: Call, raises: bool) -> usize {
    if raises { call.raise(NtStatus::INSUFFICIENT_RESOURCES) } else { 0 }
}

fn allocate(call: Call, bits: u64, length: usize, tag: u32) -> usize {
    check_length(&call, length);
    let flags = PoolFlags::from_bits_truncate(bits);
    let raises = flags.contains(PoolFlags::RAISE_ON_FAILURE);
    let kinds = [
        (PoolFlags::NON_PAGED, PoolKind::NonPaged),
        (PoolFlags::NON_PAGED_EXECUTE, PoolKind::NonPagedExecute),
        (PoolFlags::PAGED, PoolKind::Paged),
    ];
    let mut asked = kinds.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, kind)| *kind);
    // The page: failure for a tag of 0 and for invalid flags, which includes none or two kinds of pool.
    let (Some(kind), None) = (asked.next(), asked.next()) else { return fail(call, raises) };
    if tag == 0 || bits & REQUIRED_FLAGS & !PoolFlags::all().bits() != 0 {
        return fail(call, raises);
    }
    check_tag(&call, tag);
    let request = Request {
        kind,
        length,
        tag,
        zeroed: !flags.contains(PoolFlags::UNINITIALIZED),
        cache_aligned: flags.contains(PoolFlags::CACHE_ALIGNED),
    };
    take(call, request, raises)
}

fn take(call: Call, request: Request, raises: bool) -> usize {
    let block = if call.falls_short() { 0 } else { call.machine().nt.pool().allocate(&call, request) };
    if block == 0 { fail(call, raises) } else { block }
}

extern "efiapi" fn ex_allocate_pool_with_tag(pool_type: i32, length: usize, tag: u32) -> usize {
    allocate_from_type(Call::enter(), pool_type, length, tag)
}

extern "efiapi" fn ex_allocate_pool_with_tag_priority(
    pool_type: i32,
    length: usize,
    tag: u32,
    _priority: i32,
) -> usize {
    allocate_from_type(Call::enter(), pool_type, length, tag)
}

extern "efiapi" fn ex_allocate_pool(pool_type: i32, length: usize) -> usize {
    allocate_from_type(Call::enter(), pool_type, length, NO_TAG)
}

extern "efiapi" fn ex_allocate_pool_with_quota_tag(pool_type: i32, length: usize, tag: u32) -> usize {
    allocate_with_quota(Call::enter(), pool_type, length, tag)
}

extern "efiapi" fn ex_allocate_pool_with_quota(pool_type: i32, length: usize) -> usize {
    allocate_with_quota(Call::enter(), pool_type, length, NO_TAG)
}

/// The page: raises when it fails, unless told not to. Simulated processes have no quota that could run out.
fn allocate_with_quota(call: Call, pool_type: i32, length: usize, tag: u32) -> usize {
    let raise = if pool_type & OldPool::QUOTA_FAIL_INSTEAD_OF_RAISE == 0 { OldPool::RAISE } else { 0 };
    allocate_from_type(call, pool_type | raise, length, tag)
}

/// The pages: these raise `STATUS_INSUFFICIENT_RESOURCES` instead of returning NULL.
extern "efiapi" fn fs_rtl_allocate_pool(pool_type: i32, length: usize) -> usize {
    allocate_from_type(Call::enter(), pool_type | OldPool::RAISE, length, NO_TAG)
}

extern "efiapi" fn fs_rtl_allocate_pool_with_tag(pool_type: i32, length: usize, tag: u32) -> usize {
    allocate_from_type(Call::enter(), pool_type | OldPool::RAISE, length, tag)
}

/// Allocates as `ExAllocatePoolWithTag` does.
pub(super) fn allocate_from_type(call: Call, pool_type: i32, length: usize, tag: u32) -> usize {
    check_length(&call, length);
    if tag == 0 {
        call.stop(Rule::BadArgument, "pool tag 0");
    }
    check_tag(&call, tag);
    let Some(pool) = OldPool::parse(pool_type) else {
        call.stop(Rule::BadArgument, format!("pool type {pool_type:#x}"));
    };
    let request =
        Request { kind: pool.kind(), length, tag, zeroed: pool.has(OldPool::ZERO), cache_aligned: pool.has(4) };
    take(call, request, pool.has(OldPool::RAISE))
}

fn check_length(call: &Call, length: usize) {
    if length == 0 {
        call.stop(Rule::BadArgument, "a pool block of 0 bytes");
    }
}

fn check_tag(call: &Call, tag: u32) {
    // Fewer than four characters leave zero bytes at the end, which the pages' examples use.
    let bytes = tag.to_le_bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if !bytes.iter().take(used).all(|byte| (0x20..=0x7E).contains(byte)) {
        call.stop(Rule::BadArgument, format!("pool tag {tag:#010x} has characters outside 0x20 to 0x7E"));
    }
}

extern "efiapi" fn ex_free_pool(block: usize) {
    let call = Call::enter();
    call.machine().nt.pool().free(&call, block, 0);
}

extern "efiapi" fn ex_free_pool_with_tag(block: usize, tag: u32) {
    let call = Call::enter();
    call.detail(Tag(tag));
    call.machine().nt.pool().free(&call, block, tag);
}

extern "efiapi" fn ex_free_pool2(block: usize, tag: u32, _parameters: Raw<u8>, _count: u32) {
    let call = Call::enter();
    call.detail(Tag(tag));
    call.machine().nt.pool().free(&call, block, tag);
}

extern "efiapi" fn ex_query_pool_block_size(block: usize, quota_charged: Raw<u8>) -> usize {
    let call = Call::enter();
    match call.machine().nt.pool().containing(block) {
        Some((start, length)) if start == block => {
            quota_charged.write(0);
            length
        }
        _ => call.stop(Rule::BadArgument, format!("{block:#x} is no pool block")),
    }
}

#[cfg(test)]
mod tests;
