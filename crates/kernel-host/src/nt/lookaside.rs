//! Lookaside lists.
//!
//! Windows keeps freed entries on the list up to a depth that it chooses. As under Driver Verifier's special pool that depth
//! is 0 here: each entry goes back to the pool, where a late access faults and a second free is seen. Compilers inline
//! the taking and giving back: they change the counters, try the list, and call the routines stored in the structure. So the
//! structure has the documented layout, and the routines are ones that a driver can call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{DISPATCH_LEVEL, NtStatus};

use super::pool_exports::{OldPool, allocate_from_type};
use super::raw::Raw;
use super::slist;
use crate::cpu::bridge::call_out;
use crate::ddi::{Call, Export, Target, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::origin::Origin;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExInitializeNPagedLookasideList(max 2) = initialize_npaged;
    ExInitializePagedLookasideList(max 1) = initialize_paged;
    ExInitializeLookasideListEx(max 2, fails RESOURCES) = initialize_ex;
    ExDeleteNPagedLookasideList(max 2) = delete_npaged;
    ExDeletePagedLookasideList(max 1) = delete_paged;
    ExDeleteLookasideListEx(max 2) = delete_ex;
    ExFlushLookasideListEx(max 2) = flush_ex;
    ExAllocateFromNPagedLookasideList(max 2) = allocate;
    ExAllocateFromPagedLookasideList(max 1) = allocate;
    ExAllocateFromLookasideListEx(max 2) = allocate_ex;
    ExFreeToNPagedLookasideList(max 2) = free;
    ExFreeToPagedLookasideList(max 1) = free;
    ExFreeToLookasideListEx(max 2) = free_ex;
}

/// What the structures point at when the driver gave no routines of its own. Not exported: no driver can import it.
static DEFAULT_ALLOCATE: Export = Export {
    module: "ntoskrnl.exe",
    name: "the allocator of a lookaside list",
    target: Target::Function(default_allocate as *const ()),
    max_irql: 2,
    failures: crate::fault::POOL,
};
static DEFAULT_FREE: Export = Export {
    module: "ntoskrnl.exe",
    name: "the deallocator of a lookaside list",
    target: Target::Function(default_free as *const ()),
    max_irql: 2,
    failures: &[],
};

/// Fields of `GENERAL_LOOKASIDE`, which all three list types start with.
mod at {
    pub(super) const TOTAL_ALLOCATES: usize = 20;
    pub(super) const ALLOCATE_MISSES: usize = 24;
    pub(super) const TOTAL_FREES: usize = 28;
    pub(super) const FREE_MISSES: usize = 32;
    pub(super) const TYPE: usize = 36;
    pub(super) const TAG: usize = 40;
    pub(super) const SIZE: usize = 44;
    pub(super) const ALLOCATE: usize = 48;
    pub(super) const FREE: usize = 56;
}
/// Bytes of `LOOKASIDE_LIST_EX`, which are also what of the other two types is used.
const LENGTH: usize = 96;

/// `EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL`.
const RAISE_ON_FAIL: u32 = 1;
/// `EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE`.
const FAIL_NO_RAISE: u32 = 2;
/// `POOL_NX_ALLOCATION` as `Flags` of the older routines.
const NX: u32 = 512;

/// Which of the three types a list is: their routines must not be mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    NonPaged,
    Paged,
    Ex,
}

/// The lists of a machine that are in use, by address.
#[derive(Debug, Default)]
pub(crate) struct Lookaside(Mutex<HashMap<usize, List>>);

#[derive(Clone, Debug)]
struct List {
    kind: Kind,
    tag: u32,
    size: usize,
    /// Entries come from [`DEFAULT_ALLOCATE`], so that those not given back can be counted.
    is_default: bool,
    driver: Arc<Driver>,
    site: Origin,
}

impl Lookaside {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, List>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists that `driver` has not deleted.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let lists = self.lock();
        let mine = lists.iter().filter(|(_, list)| std::ptr::eq(Arc::as_ptr(&list.driver), driver));
        let leak = |(address, list): (&usize, &List)| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!("the lookaside list {address:#x} was not deleted (initialised from {})", list.site),
        };
        mine.map(leak).collect()
    }

    /// A list inside a range of memory that is about to be freed.
    pub(crate) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let inside = |address: &&usize| address.wrapping_sub(start) < length;
        let found = self.lock().keys().find(inside).copied()?;
        Some(format!("the lookaside list {found:#x} in it was not deleted"))
    }
}

extern "efiapi" fn initialize_npaged(
    list: Raw<u8>,
    allocate: usize,
    free: usize,
    flags: u32,
    size: usize,
    tag: u32,
    _depth: u16,
) {
    let call = Call::enter();
    initialize(&call, list, (allocate, free), (flags & NX).cast_signed(), size, tag, Kind::NonPaged);
}

extern "efiapi" fn initialize_paged(
    list: Raw<u8>,
    allocate: usize,
    free: usize,
    _flags: u32,
    size: usize,
    tag: u32,
    _depth: u16,
) {
    let call = Call::enter();
    initialize(&call, list, (allocate, free), 1, size, tag, Kind::Paged);
}

extern "efiapi" fn initialize_ex(
    list: Raw<u8>,
    allocate: usize,
    free: usize,
    pool_type: i32,
    flags: u32,
    size: usize,
    tag: u32,
    _depth: u16,
) -> NtStatus {
    let call = Call::enter();
    let Some(pool) = OldPool::parse(pool_type) else { return NtStatus::INVALID_PARAMETER_4 };
    if flags & !(RAISE_ON_FAIL | FAIL_NO_RAISE) != 0 || flags == RAISE_ON_FAIL | FAIL_NO_RAISE {
        return NtStatus::INVALID_PARAMETER_5;
    }
    if allocate == 0 && flags & FAIL_NO_RAISE != 0 {
        call.stop(Rule::BadArgument, "EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE needs an Allocate routine");
    }
    let raise = if flags & RAISE_ON_FAIL != 0 { OldPool::RAISE } else { 0 };
    let quota = if flags & FAIL_NO_RAISE != 0 { OldPool::QUOTA_FAIL_INSTEAD_OF_RAISE } else { 0 };
    initialize(&call, list, (allocate, free), pool.bits() | raise | quota, size, tag, Kind::Ex);
    NtStatus::SUCCESS
}

fn initialize(
    call: &Call,
    list: Raw<u8>,
    (allocate, free): (usize, usize),
    pool_type: i32,
    size: usize,
    tag: u32,
    kind: Kind,
) {
    if !list.address().is_multiple_of(16) {
        call.stop(Rule::BadArgument, format!("the lookaside list {list:?} is not aligned to 16 bytes"));
    }
    if call.machine().nt.lookaside().lock().contains_key(&list.address()) {
        call.stop(Rule::BadState, format!("the lookaside list {list:?} is initialised already and was not deleted"));
    }
    let default =
        |given: usize, export| if given == 0 { call.driver().late.address(call.driver(), export) } else { Some(given) };
    let (Some(allocate_at), Some(free_at)) = (default(allocate, &DEFAULT_ALLOCATE), default(free, &DEFAULT_FREE))
    else {
        call.stop(Rule::BadState, "Linux has no memory for the thunk of an allocator");
    };
    list.fill(0, LENGTH);
    // Depth and MaximumDepth stay 0: see the head of this file.
    list.field::<i32>(at::TYPE).write(pool_type);
    list.field::<u32>(at::TAG).write(tag);
    // The sizes that Windows stores are no smaller than a list entry.
    list.field::<u32>(at::SIZE).write(size.max(16) as u32);
    list.field::<usize>(at::ALLOCATE).write(allocate_at);
    list.field::<usize>(at::FREE).write(free_at);
    let entry = List {
        kind,
        tag,
        size: size.max(16),
        is_default: allocate == 0,
        driver: Arc::clone(call.driver()),
        site: Origin::of(call.site()),
    };
    call.machine().nt.lookaside().lock().insert(list.address(), entry);
}

/// `ALLOCATE_FUNCTION`.
extern "efiapi" fn default_allocate(pool_type: i32, length: usize, tag: u32) -> usize {
    allocate_from_type(Call::enter(), pool_type, length, tag)
}

/// `FREE_FUNCTION`.
extern "efiapi" fn default_free(entry: usize) {
    let call = Call::enter();
    call.machine().nt.pool().free(&call, entry, 0);
}

/// Stops unless `list` is in use and of a kind that the routine takes.
fn check(call: &Call, list: Raw<u8>, kinds: &[Kind]) -> List {
    let found = call.machine().nt.lookaside().lock().get(&list.address()).cloned();
    let Some(found) = found else {
        call.stop(Rule::BadState, format!("the lookaside list {list:?} was not initialised, or was deleted"));
    };
    if !kinds.contains(&found.kind) {
        call.stop(Rule::BadArgument, format!("the lookaside list {list:?} was initialised as {:?}", found.kind));
    }
    if found.kind == Kind::Paged && call.thread().irql() >= DISPATCH_LEVEL {
        call.stop(Rule::IrqlTooHigh, "a paged lookaside list is used above APC_LEVEL");
    }
    found
}

extern "efiapi" fn delete_npaged(list: Raw<u8>) {
    delete(&Call::enter(), list, Kind::NonPaged);
}

extern "efiapi" fn delete_paged(list: Raw<u8>) {
    delete(&Call::enter(), list, Kind::Paged);
}

extern "efiapi" fn delete_ex(list: Raw<u8>) {
    delete(&Call::enter(), list, Kind::Ex);
}

fn delete(call: &Call, list: Raw<u8>, kind: Kind) {
    let entry = check(call, list, &[kind]);
    flush(call, list);
    call.machine().nt.lookaside().lock().remove(&list.address());
    // Two lists with one tag and size cannot be told apart; their entries show as pool leaks at unload.
    let alike =
        call.machine().nt.lookaside().lock().values().any(|other| other.tag == entry.tag && other.size == entry.size);
    let out = call.machine().nt.pool().count(entry.tag, entry.size, DEFAULT_ALLOCATE.name);
    if entry.is_default && !alike && out > 0 {
        call.stop(
            Rule::BadState,
            format!("the lookaside list {list:?} is deleted while {out} of its entries are in use"),
        );
    }
}

extern "efiapi" fn flush_ex(list: Raw<u8>) {
    let call = Call::enter();
    check(&call, list, &[Kind::Ex]);
    flush(&call, list);
}

/// Frees what is on the list (what a driver pushed there itself: the host keeps nothing).
fn flush(call: &Call, list: Raw<u8>) {
    loop {
        match slist::pop(call, list.cast()) {
            0 => return,
            entry => give(call, list, entry),
        }
    }
}

/// Calls the list's free routine.
fn give(call: &Call, list: Raw<u8>, entry: usize) {
    type Free = unsafe extern "efiapi" fn(usize, usize);
    let routine = list.field::<usize>(at::FREE).read();
    // SAFETY: the list's FREE_FUNCTION or FREE_FUNCTION_EX; the former ignores the second argument's register.
    let routine = unsafe { std::mem::transmute::<usize, Free>(routine) };
    let irql = call.thread().irql();
    let driver = Arc::clone(call.driver());
    // A stop leaves through the outermost entry and does not come back here.
    // SAFETY: the arguments are those the page promises.
    let _ = call.thread().call_driver(&driver, "FREE_FUNCTION_EX", irql, || unsafe { routine(entry, list.address()) });
}

extern "efiapi" fn allocate(list: Raw<u8>) -> usize {
    let call = Call::enter();
    check(&call, list, &[Kind::NonPaged, Kind::Paged]);
    take(call, list)
}

extern "efiapi" fn allocate_ex(list: Raw<u8>) -> usize {
    let call = Call::enter();
    check(&call, list, &[Kind::Ex]);
    take(call, list)
}

fn count(list: Raw<u8>, counter: usize) {
    let counter = list.field::<u32>(counter);
    counter.write(counter.read().wrapping_add(1));
}

fn take(call: Call, list: Raw<u8>) -> usize {
    type Allocate = unsafe extern "efiapi" fn(i32, usize, u32, usize) -> usize;
    count(list, at::TOTAL_ALLOCATES);
    let entry = slist::pop(&call, list.cast());
    if entry != 0 {
        return entry;
    }
    count(list, at::ALLOCATE_MISSES);
    let routine = list.field::<usize>(at::ALLOCATE).read();
    // SAFETY: the list's ALLOCATE_FUNCTION or ALLOCATE_FUNCTION_EX; the former ignores the fourth argument's register.
    let routine = unsafe { std::mem::transmute::<usize, Allocate>(routine) };
    let (pool_type, size, tag) =
        (list.field::<i32>(at::TYPE).read(), list.field::<u32>(at::SIZE).read(), list.field::<u32>(at::TAG).read());
    // With RAISE_ON_FAIL the routine raises, and the exception is for the driver that wants an entry.
    // SAFETY: the arguments are those the page promises.
    let body = || unsafe { routine(pool_type, size as usize, tag, list.address()) };
    call_out(call, "ALLOCATE_FUNCTION_EX", body).1
}

extern "efiapi" fn free(list: Raw<u8>, entry: usize) {
    let call = Call::enter();
    check(&call, list, &[Kind::NonPaged, Kind::Paged]);
    put(&call, list, entry);
}

extern "efiapi" fn free_ex(list: Raw<u8>, entry: usize) {
    let call = Call::enter();
    check(&call, list, &[Kind::Ex]);
    put(&call, list, entry);
}

fn put(call: &Call, list: Raw<u8>, entry: usize) {
    count(list, at::TOTAL_FREES);
    count(list, at::FREE_MISSES);
    give(call, list, entry);
}

#[cfg(test)]
mod tests;
