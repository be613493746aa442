//! Extra create parameters: what one driver tells another about an open, beside the parameters of IRP_MJ_CREATE.
//!
//! `FltAllocateExtraCreateParameterList` and its relatives, and the same calls by their `FsRtl` names, which have no filter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::{BOOLEAN, NtStatus, PVOID};

use super::flight::Flight;
use super::major;
use super::object::{self, ObjectTable};
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::thread::Thread;

mod lookaside;

pub(super) use lookaside::EXPORTS as LOOKASIDE_EXPORTS;

/// A GUID as it lies in memory.
type Guid = [u8; 16];

/// `PFSRTL_EXTRA_CREATE_PARAMETER_CLEANUP_CALLBACK`.
type Cleanup = unsafe extern "efiapi" fn(PVOID, *const Guid);

/// `FSRTL_ALLOCATE_ECP_FLAG_NONPAGED_POOL`.
const NONPAGED_POOL: u32 = 2;

/// A parameter: its context is what drivers hold.
#[derive(Clone)]
struct Ecp {
    driver: Arc<Driver>,
    kind: Guid,
    size: u32,
    tag: u32,
    cleanup: Option<Cleanup>,
    acknowledged: bool,
    /// The list that it is in, 0 for none.
    list: usize,
}

/// A list of parameters, each of another type.
struct List {
    driver: Arc<Driver>,
    /// Addresses of contexts.
    contexts: Vec<usize>,
    /// Creates that it is attached to clean up when they end.
    attached: bool,
}

/// All parameters and lists, by the addresses that drivers know.
#[derive(Default)]
pub(crate) struct Ecps {
    state: Mutex<State>,
    lookaside: lookaside::Lists,
}

#[derive(Default)]
struct State {
    contexts: HashMap<usize, Ecp>,
    lists: HashMap<usize, List>,
}

impl std::fmt::Debug for Ecps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ECPs", self.lock().contexts.len())
    }
}

impl Ecps {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `driver` has not freed.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let mine = |owner: &Arc<Driver>| std::ptr::eq(Arc::as_ptr(owner), driver);
        let lists = state.lists.values().filter(|list| mine(&list.driver)).count();
        let contexts = state.contexts.values().filter(|ecp| mine(&ecp.driver)).count();
        let leak = |count: usize, detail: &str| Leak {
            kind: LeakKind::Reference,
            count: count as u64,
            bytes: 0,
            detail: detail.to_owned(),
        };
        let all = [
            leak(lists, "ECP_LIST structures (FltFreeExtraCreateParameterList is missing)"),
            leak(contexts, "ECP context structures (FltFreeExtraCreateParameter is missing)"),
            leak(self.lookaside.of(driver), "ECP lookaside lists"),
        ];
        all.into_iter().filter(|leak| leak.count != 0).collect()
    }
}

/// The list of a create, as the create's parameters carry it: 0 for none.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    list: AtomicUsize,
    /// What was in the list when a driver gave it to its own create. `None` for a list that was attached on the way.
    given: Option<Vec<usize>>,
}

impl Attached {
    /// The list that a driver gives to a create of its own, and keeps.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` when it is none.
    pub(super) fn given(machine: &Inner, list: usize) -> Result<Self, NtStatus> {
        let state = machine.flt.ecps.lock();
        let contexts = state.lists.get(&list).ok_or(NtStatus::INVALID_PARAMETER)?.contexts.clone();
        Ok(Self { list: AtomicUsize::new(list), given: Some(contexts) })
    }

    /// The create has ended: what drivers attached on the way is freed.
    pub(crate) fn end(&self, machine: &Arc<Inner>) {
        let list = self.list.swap(0, Ordering::AcqRel);
        if list == 0 {
            return;
        }
        let added: Vec<usize> = {
            let mut state = machine.flt.ecps.lock();
            let Some(known) = state.lists.get_mut(&list) else { return };
            known.attached = false;
            let kept = |context: &usize| self.given.as_ref().is_some_and(|given| given.contains(context));
            let added = known.contexts.extract_if(.., |context| !kept(context)).collect();
            if self.given.is_none() {
                state.lists.remove(&list);
            }
            added
        };
        if self.given.is_none() {
            machine.nt.arena().release(list, 1);
        }
        Thread::enter(machine, |thread| {
            for context in added {
                free_context(thread, context);
            }
        });
    }
}

/// Takes a context out of the world: its cleanup callback, then its memory.
fn free_context(thread: &Thread, context: usize) {
    let machine = thread.machine();
    let Some(ecp) = machine.flt.ecps.lock().contexts.remove(&context) else { return };
    if let Some(cleanup) = ecp.cleanup {
        let kind = ecp.kind;
        // A stop reaches whoever drives the machine.
        let _stopped = thread.call_driver(&ecp.driver, "ExtraCreateParameterCleanupCallback", thread.irql(), || {
            // SAFETY: the driver passed the function with this signature; the context and the GUID live until it returns.
            unsafe { cleanup(Raw::at(context).pointer(), &raw const kind) }
        });
    }
    // A block that the driver overwrote the end of was found by the pool already.
    let _freed = machine.nt.pool().reclaim(context);
}

/// What an allocation is told.
struct New {
    kind: Raw<Guid>,
    size: u32,
    nonpaged: bool,
    cleanup: Option<Cleanup>,
    tag: u32,
    out: Raw<usize>,
}

fn allocate(call: &Call, new: &New) -> NtStatus {
    let kind = if new.nonpaged { PoolKind::NonPaged } else { PoolKind::Paged };
    let length = (new.size as usize).max(1);
    let request = Request { kind, length, tag: new.tag, zeroed: true, cache_aligned: false };
    let guid = new.kind.read();
    let context = call.machine().nt.pool().allocate(call, request);
    new.out.write(context);
    if context == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let driver = Arc::clone(call.driver());
    let ecp =
        Ecp { driver, kind: guid, size: new.size, tag: new.tag, cleanup: new.cleanup, acknowledged: false, list: 0 };
    call.detail(format_args!("{} bytes, tag {:#x}", ecp.size, ecp.tag));
    call.machine().flt.ecps.lock().contexts.insert(context, ecp);
    NtStatus::SUCCESS
}

/// Works on a context that a driver passes; stops when it is none.
fn with<R>(call: &Call, context: usize, body: impl FnOnce(&mut Ecp) -> R) -> R {
    let result = call.machine().flt.ecps.lock().contexts.get_mut(&context).map(body);
    result.unwrap_or_else(|| call.stop(Rule::BadArgument, format!("{context:#x} is no ECP context (any more)")))
}

/// Works on a list that a driver passes; stops when it is none.
fn with_list<R>(call: &Call, list: usize, body: impl FnOnce(&mut State) -> R) -> R {
    let result = {
        let mut state = call.machine().flt.ecps.lock();
        if state.lists.contains_key(&list) { Some(body(&mut state)) } else { None }
    };
    result.unwrap_or_else(|| call.stop(Rule::BadArgument, format!("{list:#x} is no ECP_LIST (any more)")))
}

impl State {
    /// The contexts of a list.
    fn contexts_of(&self, list: usize) -> &[usize] {
        self.lists.get(&list).map_or(&[], |list| &list.contexts)
    }

    fn find(&self, list: usize, kind: Guid) -> Option<usize> {
        let is = |context: &&usize| self.contexts.get(context).is_some_and(|ecp| ecp.kind == kind);
        self.contexts_of(list).iter().find(is).copied()
    }

    fn size(&self, context: usize) -> u32 {
        self.contexts.get(&context).map_or(0, |ecp| ecp.size)
    }
}

fn allocate_list(call: &Call, out: Raw<usize>) -> NtStatus {
    let Ok(address) = ObjectTable::reserve(call.machine()) else {
        out.write(0);
        return NtStatus::INSUFFICIENT_RESOURCES;
    };
    let list = List { driver: Arc::clone(call.driver()), contexts: Vec::new(), attached: false };
    call.machine().flt.ecps.lock().lists.insert(address, list);
    out.write(address);
    NtStatus::SUCCESS
}

fn free_list(call: &Call, list: usize) {
    let removed = with_list(call, list, |state| {
        let attached = state.lists.get(&list).is_some_and(|list| list.attached);
        if attached { None } else { state.lists.remove(&list) }
    });
    let Some(removed) = removed else {
        call.stop(Rule::BadState, "the ECP_LIST is attached to a create, whose end frees it");
    };
    call.machine().nt.arena().release(list, 1);
    for context in removed.contexts {
        free_context(call.thread(), context);
    }
    call.thread().leave_if_stopped();
}

fn insert(call: &Call, list: usize, context: usize) -> NtStatus {
    let (kind, is_in) = with(call, context, |ecp| (ecp.kind, ecp.list));
    if is_in != 0 && is_in != list {
        call.stop(Rule::BadState, "the ECP context is in another list");
    }
    with_list(call, list, |state| {
        if state.find(list, kind).is_some() {
            return NtStatus::INVALID_PARAMETER;
        }
        if let Some(list) = state.lists.get_mut(&list) {
            list.contexts.push(context);
        }
        if let Some(ecp) = state.contexts.get_mut(&context) {
            ecp.list = list;
        }
        NtStatus::SUCCESS
    })
}

fn find(call: &Call, list: usize, kind: Raw<Guid>, out: Raw<usize>, size: Raw<u32>) -> NtStatus {
    let kind = kind.read();
    let found = with_list(call, list, |state| state.find(list, kind).map(|context| (context, state.size(context))));
    out.write_if_some(found.map_or(0, |(context, _)| context));
    size.write_if_some(found.map_or(0, |(_, size)| size));
    if found.is_some() { NtStatus::SUCCESS } else { NtStatus::NOT_FOUND }
}

fn remove(call: &Call, list: usize, kind: Raw<Guid>, out: Raw<usize>, size: Raw<u32>) -> NtStatus {
    let status = find(call, list, kind, out, size);
    let context = out.read();
    with_list(call, list, |state| {
        if let Some(list) = state.lists.get_mut(&list) {
            list.contexts.retain(|known| *known != context);
        }
        if let Some(ecp) = state.contexts.get_mut(&context) {
            ecp.list = 0;
        }
    });
    status
}

fn next(call: &Call, list: usize, current: usize, kind: Raw<Guid>, out: Raw<usize>, size: Raw<u32>) -> NtStatus {
    if list == 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let found = with_list(call, list, |state| {
        let contexts = state.contexts_of(list);
        let at = contexts.iter().position(|known| *known == current).map_or(0, |at| at + 1);
        let context = *contexts.get(at)?;
        Some((context, state.contexts.get(&context)?.clone()))
    });
    out.write_if_some(found.as_ref().map_or(0, |(context, _)| *context));
    size.write_if_some(found.as_ref().map_or(0, |(_, ecp)| ecp.size));
    match found {
        Some((_, ecp)) => {
            kind.write_if_some(ecp.kind);
            NtStatus::SUCCESS
        }
        None => NtStatus::NOT_FOUND,
    }
}

fn free(call: &Call, context: usize) {
    if with(call, context, |ecp| ecp.list) != 0 {
        call.stop(Rule::BadState, "the ECP context is in a list still: FltRemoveExtraCreateParameter comes first");
    }
    free_context(call.thread(), context);
    call.thread().leave_if_stopped();
}

/// The list of a create's callback data; `None` when it is no create.
fn slot(call: &Call, data: Raw<FLT_CALLBACK_DATA>) -> Option<Arc<Attached>> {
    let flight = Flight::of(call, data);
    let is_create = flight.kind == Kind::Irp && flight.major() == major::CREATE;
    flight.create.as_ref().filter(|_| is_create).map(|create| Arc::clone(&create.ecps))
}

extern "efiapi" fn flt_get_ecp_list_from_callback_data(
    filter: usize,
    data: Raw<FLT_CALLBACK_DATA>,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let Some(slot) = slot(&call, data) else { return NtStatus::INVALID_PARAMETER };
    out.write(slot.list.load(Ordering::Acquire));
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_set_ecp_list_into_callback_data(
    filter: usize,
    data: Raw<FLT_CALLBACK_DATA>,
    list: usize,
) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let Some(slot) = slot(&call, data) else { return NtStatus::INVALID_PARAMETER_2 };
    with_list(&call, list, |_| ());
    if slot.list.compare_exchange(0, list, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return NtStatus::INVALID_PARAMETER_3;
    }
    with_list(&call, list, |state| {
        if let Some(list) = state.lists.get_mut(&list) {
            list.attached = true;
        }
    });
    NtStatus::SUCCESS
}

/// Declares each call by both its names: with a filter, and without one.
macro_rules! both {
    ($($flt:ident $fsrtl:ident ($($name:ident: $type:ty),*) $(-> $result:ty)? = |$call:ident| $body:expr;)*) => {$(
        extern "efiapi" fn $flt(filter: usize, $($name: $type),*) $(-> $result)? {
            let $call = Call::enter();
            let _filter = object::filter(&$call, filter);
            $body
        }

        extern "efiapi" fn $fsrtl($($name: $type),*) $(-> $result)? {
            let $call = Call::enter();
            $body
        }
    )*};
}

both! {
    flt_allocate_list fsrtl_allocate_list (_flags: u32, out: Raw<usize>) -> NtStatus = |call| allocate_list(&call, out);
    flt_free_list fsrtl_free_list (list: usize) = |call| free_list(&call, list);
    flt_allocate fsrtl_allocate (
        kind: Raw<Guid>, size: u32, flags: u32, cleanup: Option<Cleanup>, tag: u32, out: Raw<usize>
    ) -> NtStatus = |call| allocate(&call, &New { kind, size, nonpaged: flags & NONPAGED_POOL != 0, cleanup, tag, out });
    flt_insert fsrtl_insert (list: usize, context: usize) -> NtStatus = |call| insert(&call, list, context);
    flt_find fsrtl_find (list: usize, kind: Raw<Guid>, out: Raw<usize>, size: Raw<u32>) -> NtStatus =
        |call| find(&call, list, kind, out, size);
    flt_remove fsrtl_remove (list: usize, kind: Raw<Guid>, out: Raw<usize>, size: Raw<u32>) -> NtStatus =
        |call| remove(&call, list, kind, out, size);
    flt_free fsrtl_free (context: usize) = |call| free(&call, context);
    flt_next fsrtl_next (list: usize, current: usize, kind: Raw<Guid>, out: Raw<usize>, size: Raw<u32>) -> NtStatus =
        |call| next(&call, list, current, kind, out, size);
    flt_acknowledge fsrtl_acknowledge (context: usize) = |call| with(&call, context, |ecp| ecp.acknowledged = true);
    flt_is_acknowledged fsrtl_is_acknowledged (context: usize) -> BOOLEAN =
        |call| with(&call, context, |ecp| ecp.acknowledged.into());
    flt_prepare_to_reuse fsrtl_prepare_to_reuse (context: usize) =
        |call| with(&call, context, |ecp| ecp.acknowledged = false);
    // Simulated programs have no way to attach any.
    flt_is_from_user_mode fsrtl_is_from_user_mode (context: usize) -> BOOLEAN = |call| with(&call, context, |_| 0);
}

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltAllocateExtraCreateParameterList(max 1, fails RESOURCES) = flt_allocate_list;
    FltFreeExtraCreateParameterList(max 1) = flt_free_list;
    FltAllocateExtraCreateParameter(max 1, fails RESOURCES) = flt_allocate;
    FltInsertExtraCreateParameter(max 1) = flt_insert;
    FltFindExtraCreateParameter(max 1) = flt_find;
    FltRemoveExtraCreateParameter(max 1) = flt_remove;
    FltFreeExtraCreateParameter(max 1) = flt_free;
    FltGetNextExtraCreateParameter(max 1) = flt_next;
    FltAcknowledgeEcp(max 1) = flt_acknowledge;
    FltIsEcpAcknowledged(max 1) = flt_is_acknowledged;
    FltPrepareToReuseEcp(max 1) = flt_prepare_to_reuse;
    FltIsEcpFromUserMode(max 1) = flt_is_from_user_mode;
    FltGetEcpListFromCallbackData(max 1) = flt_get_ecp_list_from_callback_data;
    FltSetEcpListIntoCallbackData(max 1) = flt_set_ecp_list_into_callback_data;
}

exports! { pub(crate) NT_EXPORTS in "ntoskrnl.exe":
    FsRtlAllocateExtraCreateParameterList(max 1, fails RESOURCES) = fsrtl_allocate_list;
    FsRtlFreeExtraCreateParameterList(max 1) = fsrtl_free_list;
    FsRtlAllocateExtraCreateParameter(max 1, fails RESOURCES) = fsrtl_allocate;
    FsRtlInsertExtraCreateParameter(max 1) = fsrtl_insert;
    FsRtlFindExtraCreateParameter(max 1) = fsrtl_find;
    FsRtlRemoveExtraCreateParameter(max 1) = fsrtl_remove;
    FsRtlFreeExtraCreateParameter(max 1) = fsrtl_free;
    FsRtlGetNextExtraCreateParameter(max 1) = fsrtl_next;
    FsRtlAcknowledgeEcp(max 1) = fsrtl_acknowledge;
    FsRtlIsEcpAcknowledged(max 1) = fsrtl_is_acknowledged;
    FsRtlPrepareToReuseEcp(max 1) = fsrtl_prepare_to_reuse;
    FsRtlIsEcpFromUserMode(max 1) = fsrtl_is_from_user_mode;
}
