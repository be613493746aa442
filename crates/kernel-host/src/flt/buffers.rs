//! Buffers of operations: locked for the filter, swapped by it, aligned for the device.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FltCallbackDataFlags};
use nt_types::{MDL, MdlFlags, NtStatus};

use super::flight::{Flight, Stage};
use super::object;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::buffer::{Access, Places};
use crate::machine::Inner;
use crate::nt::arena::PAGE;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::{Raw, field};
use crate::process::HIGHEST_USER_ADDRESS;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltLockUserBuffer(max 1, fails RESOURCES) = flt_lock_user_buffer;
    FltGetSwappedBufferMdlAddress(max 2) = flt_get_swapped_buffer_mdl_address;
    FltRetainSwappedBufferMdlAddress(max 2) = flt_retain_swapped_buffer_mdl_address;
    FltGetNewSystemBufferAddress(max 2) = flt_get_new_system_buffer_address;
    FltAllocatePoolAlignedWithTag(max 2, fails NULL) = flt_allocate_pool_aligned_with_tag;
    FltFreePoolAlignedWithTag(max 2) = flt_free_pool_aligned_with_tag;
}

/// `IRP_MN_MDL`: the file system makes the MDL.
const IRP_MN_MDL: u8 = 2;

/// A list that FltLockUserBuffer made: the header, and a slot for each page. It goes with the operation.
#[derive(Debug)]
pub(crate) struct LockedBuffer(Box<[u64]>);

impl LockedBuffer {
    /// Describes `length` bytes at `address`, which the filter gets at `system`.
    fn new(address: usize, system: usize, length: usize) -> Self {
        let pages = (address % PAGE + length).div_ceil(PAGE);
        let words = size_of::<MDL>().div_ceil(size_of::<u64>()) + pages;
        let mut list = Self(vec![0; words].into_boxed_slice());
        list.list().write(MDL {
            // As in IoAllocateMdl: what fits, for lists that are larger.
            Size: i16::try_from(words * size_of::<u64>()).unwrap_or(i16::MAX & !7),
            MdlFlags: (MdlFlags::PAGES_LOCKED | MdlFlags::MAPPED_TO_SYSTEM_VA).bits(),
            MappedSystemVa: Raw::at(system).pointer(),
            StartVa: Raw::at(address & !(PAGE - 1)).pointer(),
            ByteCount: length as u32,
            ByteOffset: (address % PAGE) as u32,
            ..MDL::ZERO
        });
        list
    }

    fn list(&mut self) -> Raw<MDL> {
        Raw::at(self.0.as_mut_ptr().expose_provenance())
    }
}

extern "efiapi" fn flt_lock_user_buffer(data: Raw<FLT_CALLBACK_DATA>) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let block = flight.block();
    let minor = field!(block, FLT_IO_PARAMETER_BLOCK, MinorFunction).read();
    let transfer = super::major::is_transfer(flight.major());
    let places = Places::of(block).filter(|_| flight.kind != Kind::FsFilter && !(transfer && minor & IRP_MN_MDL != 0));
    let Some(Places { buffer, length: Some(length), list: Some(list), access }) = places else {
        return NtStatus::INVALID_PARAMETER;
    };
    let parameters = field!(block, FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u8>();
    let slot = parameters.field::<usize>(list);
    if slot.read() != 0 {
        return NtStatus::SUCCESS;
    }
    let (address, length) = (parameters.field::<usize>(buffer).read(), parameters.field::<u32>(length).read() as usize);
    if length != 0 && !can_lock(&flight, address, length, access) {
        return NtStatus::INVALID_USER_BUFFER;
    }
    let user = flight.process().filter(|_| length != 0 && address <= HIGHEST_USER_ADDRESS);
    // A program's pages have an address in system space too, at which they can be touched without a guard.
    let system = user.map_or(address, |process| process.memory().system_address(address));
    let mut locked = LockedBuffer::new(address, system, length);
    slot.write(locked.list().address());
    flight.locked.lock().unwrap_or_else(PoisonError::into_inner).push(locked);
    if flight.is_on_its_way_down() {
        // The page: so that the list is freed with the operation.
        let flags = flight.flags();
        flags.write(flags.read() | FltCallbackDataFlags::DIRTY.bits());
    }
    NtStatus::SUCCESS
}

/// Probes user memory in the requester's process; kernel memory is taken to be there.
fn can_lock(flight: &Flight, address: usize, length: usize, access: Access) -> bool {
    if address > HIGHEST_USER_ADDRESS {
        return true;
    }
    let Some(process) = flight.process() else { return false };
    let Some(last) = address.checked_add(length - 1).filter(|&last| last <= HIGHEST_USER_ADDRESS) else { return false };
    let pages = (address / PAGE..=last / PAGE).map(|page| (page * PAGE).max(address));
    let memory = process.memory();
    pages.into_iter().all(|at| {
        let writable = || memory.read_vec(at, 1).is_ok_and(|byte| memory.write(at, &byte).is_ok());
        if access == Access::Read { memory.is_accessible(at) } else { writable() }
    })
}

extern "efiapi" fn flt_get_swapped_buffer_mdl_address(data: Raw<FLT_CALLBACK_DATA>) -> usize {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    require_post(&call, &flight);
    if flight.kind == Kind::FastIo { 0 } else { flight.swapped.load(Ordering::Relaxed) }
}

extern "efiapi" fn flt_retain_swapped_buffer_mdl_address(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    require_post(&call, &flight);
    flight.swapped.store(0, Ordering::Relaxed);
}

fn require_post(call: &Call, flight: &Flight) {
    if !flight.is_in(Stage::Post) {
        call.stop(Rule::BadState, "only a post-operation callback may ask for the swapped buffer's MDL");
    }
}

extern "efiapi" fn flt_get_new_system_buffer_address(data: Raw<FLT_CALLBACK_DATA>) -> usize {
    let call = Call::enter();
    let _checked = Flight::of(&call, data);
    // This file system never puts a buffer of its own in place of the I/O manager's.
    0
}

/// The MDL that an operation's parameters name; 0 for none.
pub(super) fn described_by(block: Raw<FLT_IO_PARAMETER_BLOCK>) -> usize {
    let list = Places::of(block).and_then(|places| places.list);
    list.map_or(0, |list| field!(block, FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u8>().field::<usize>(list).read())
}

/// A post-operation callback has returned: the list for the buffer that its filter had swapped in goes, unless it was retained.
pub(super) fn free_swapped(machine: &Inner, flight: &Flight) {
    let swapped = flight.swapped.swap(0, Ordering::Relaxed);
    // One of FltLockUserBuffer's goes with the operation.
    let is_own = flight
        .locked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter_mut()
        .any(|locked| locked.list().address() == swapped);
    if swapped != 0 && !is_own {
        // A list that is no pool block is the filter's own business.
        let _freed = machine.nt.pool().reclaim(swapped);
    }
}

extern "efiapi" fn flt_allocate_pool_aligned_with_tag(instance: usize, pool: i32, length: usize, tag: u32) -> usize {
    /// `PagedPool`, in the kinds that are even more so by other bits.
    const PAGED: i32 = 1;
    let call = Call::enter();
    let _checked = object::instance(&call, instance);
    if tag == 0 {
        call.stop(Rule::BadArgument, "the pool tag is 0");
    }
    let paged = pool & PAGED != 0;
    if paged && call.thread().irql() > 1 {
        call.stop(Rule::IrqlTooHigh, "paged pool cannot be allocated at DISPATCH_LEVEL");
    }
    let kind = if paged { PoolKind::Paged } else { PoolKind::NonPaged };
    // The volumes' devices have no alignment beyond that of pool.
    let request = Request { kind, length: length.max(1), tag, zeroed: false, cache_aligned: true };
    call.machine().nt.pool().allocate(&call, request)
}

extern "efiapi" fn flt_free_pool_aligned_with_tag(instance: usize, buffer: usize, tag: u32) {
    let call = Call::enter();
    let _checked = object::instance(&call, instance);
    call.machine().nt.pool().free(&call, buffer, tag);
}
