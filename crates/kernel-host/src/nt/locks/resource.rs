//! `ERESOURCE`: a lock that is shared or exclusive, recursive, and fair to those who want it exclusively.
//!
//! The structure is opaque to drivers, so who owns and who waits is kept by the host, by address. Its memory only gets a
//! pattern that no driver should find useful.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::order::{Hold, Kind};
use super::{acquired, initialised, me, waiting};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::nt::irql::{enter_critical_region, leave_critical_region, normal_apcs_disabled};
use crate::nt::raw::Raw;
use crate::origin::Origin;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ExInitializeResourceLite(max 2) = initialize;
    ExReinitializeResourceLite(max 2) = reinitialize;
    ExDeleteResourceLite(max 1) = delete;
    ExAcquireResourceExclusiveLite(max 1) = acquire_exclusive;
    ExTryToAcquireResourceExclusiveLite(max 1) = try_to_acquire_exclusive;
    ExAcquireResourceSharedLite(max 1) = acquire_shared;
    ExAcquireSharedStarveExclusive(max 1) = acquire_starve_exclusive;
    ExAcquireSharedWaitForExclusive(max 1) = acquire_wait_for_exclusive;
    ExEnterCriticalRegionAndAcquireResourceExclusive(max 1) = enter_and_acquire_exclusive;
    ExEnterCriticalRegionAndAcquireResourceShared(max 1) = enter_and_acquire_shared;
    ExEnterCriticalRegionAndAcquireSharedWaitForExclusive(max 1) = enter_and_acquire_wait_for_exclusive;
    ExReleaseResourceLite(max 2) = release;
    ExReleaseResourceForThreadLite(max 2) = release_for_thread;
    ExReleaseResourceAndLeaveCriticalRegion(max 1) = release_and_leave;
    ExConvertExclusiveToSharedLite(max 1) = convert_to_shared;
    ExSetResourceOwnerPointer(max 2) = set_owner_pointer;
    ExSetResourceOwnerPointerEx(max 2) = set_owner_pointer_ex;
    ExIsResourceAcquiredExclusiveLite(max 2) = is_acquired_exclusive;
    ExIsResourceAcquiredSharedLite(max 2) = is_acquired_shared;
    ExGetExclusiveWaiterCount(max 2) = exclusive_waiters;
    ExGetSharedWaiterCount(max 2) = shared_waiters;
    ExDisableResourceBoostLite(max 2) = disable_boost;
}

/// Bytes of an `ERESOURCE`.
const LENGTH: usize = 104;
/// What fills it.
const PATTERN: u8 = 0xE5;
/// Low bits of an owner that is a pointer of the driver's and no thread.
const OWNER_POINTER: usize = 3;

/// How a resource is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Exclusive,
    Shared,
    /// Shared, past those who wait for exclusive access.
    StarveExclusive,
    /// Shared, behind those who wait for exclusive access, even for a thread that shares already.
    WaitForExclusive,
}

/// The resources of a machine, by address.
#[derive(Debug, Default)]
pub(crate) struct Resources(Mutex<HashMap<usize, Resource>>);

#[derive(Debug)]
struct Resource {
    /// Threads, or owner pointers, and how often each has acquired it.
    owners: HashMap<usize, u32>,
    exclusive: bool,
    exclusive_waiters: u32,
    shared_waiters: u32,
    driver: Arc<Driver>,
    site: Origin,
}

impl Resources {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Resource>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resources that `driver` has not deleted.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let resources = self.lock();
        let mine = resources.iter().filter(|(_, resource)| std::ptr::eq(Arc::as_ptr(&resource.driver), driver));
        let leak = |(address, resource): (&usize, &Resource)| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!("the ERESOURCE {address:#x} was not deleted (initialised from {})", resource.site),
        };
        mine.map(leak).collect()
    }

    /// A resource inside a range of memory that is about to be freed.
    pub(crate) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let inside = |address: &&usize| address.wrapping_sub(start) < length;
        let found = self.lock().keys().find(inside).copied()?;
        Some(format!("the ERESOURCE {found:#x} in it was not deleted"))
    }
}

impl Resource {
    /// Grants `access` to `owner` if that is possible now.
    fn grant(&mut self, owner: usize, access: Access) -> bool {
        let mine = self.owners.contains_key(&owner);
        let granted = match (self.owners.is_empty(), access) {
            (true, _) => true,
            (false, Access::Exclusive) => self.exclusive && mine,
            (false, Access::StarveExclusive) => !self.exclusive || mine,
            (false, _) if self.exclusive => mine,
            (false, Access::Shared) => mine || self.exclusive_waiters == 0,
            (false, Access::WaitForExclusive) => self.exclusive_waiters == 0,
        };
        if granted {
            if self.owners.is_empty() {
                self.exclusive = access == Access::Exclusive;
            }
            *self.owners.entry(owner).or_default() += 1;
        }
        granted
    }

    /// Takes back one acquisition; false when `owner` has none.
    fn release(&mut self, owner: usize) -> bool {
        let Some(count) = self.owners.get_mut(&owner) else { return false };
        *count -= 1;
        if *count == 0 {
            self.owners.remove(&owner);
        }
        true
    }

    fn waiters(&mut self, access: Access) -> &mut u32 {
        if access == Access::Exclusive { &mut self.exclusive_waiters } else { &mut self.shared_waiters }
    }
}

/// Runs `body` with the state of a resource; stops when there is none at that address.
fn with<R>(call: &Call, resource: Raw<u8>, body: impl FnOnce(&mut Resource) -> R) -> R {
    let result = call.machine().nt.resources().lock().get_mut(&resource.address()).map(body);
    result.unwrap_or_else(|| {
        call.stop(Rule::BadState, format!("the ERESOURCE {resource:?} is not initialised, or was deleted"))
    })
}

extern "efiapi" fn initialize(resource: Raw<u8>) -> NtStatus {
    let call = Call::enter();
    if call.machine().nt.resources().lock().contains_key(&resource.address()) {
        call.stop(Rule::BadState, format!("the ERESOURCE {resource:?} is initialised already and was not deleted"));
    }
    initialised(&call, resource.address(), LENGTH);
    resource.fill(PATTERN, LENGTH);
    let state = Resource {
        owners: HashMap::new(),
        exclusive: false,
        exclusive_waiters: 0,
        shared_waiters: 0,
        driver: Arc::clone(call.driver()),
        site: Origin::of(call.site()),
    };
    call.machine().nt.resources().lock().insert(resource.address(), state);
    NtStatus::SUCCESS
}

/// Stops unless nobody owns the resource or waits for it.
fn check_idle(call: &Call, resource: Raw<u8>, verb: &str) {
    let busy =
        with(call, resource, |state| !state.owners.is_empty() || state.exclusive_waiters + state.shared_waiters > 0);
    if busy {
        call.stop(Rule::BadState, format!("the ERESOURCE {resource:?} is {verb} while it is owned or waited for"));
    }
}

extern "efiapi" fn reinitialize(resource: Raw<u8>) -> NtStatus {
    let call = Call::enter();
    check_idle(&call, resource, "reinitialised");
    NtStatus::SUCCESS
}

extern "efiapi" fn delete(resource: Raw<u8>) -> NtStatus {
    let call = Call::enter();
    check_idle(&call, resource, "deleted");
    initialised(&call, resource.address(), LENGTH);
    call.machine().nt.resources().lock().remove(&resource.address());
    NtStatus::SUCCESS
}

/// Acquires a resource for the calling thread; without `wait`, false when that is not possible at once.
///
/// Stops when normal kernel APCs are enabled, and when the thread would wait for itself.
pub(super) fn acquire(call: &Call, resource: Raw<u8>, access: Access, wait: bool) -> bool {
    if !normal_apcs_disabled(call) {
        call.stop(Rule::BadState, "an ERESOURCE needs normal kernel APCs disabled: enter a critical region first");
    }
    let owner = me(call);
    let hold = Hold::of(call, resource.address(), Kind::Resource, access != Access::Exclusive);
    let attempt = || with(call, resource, |state| state.grant(owner, access));
    if attempt() {
        // A recursive acquisition waits for nothing, so that it has no place in the order.
        if call.machine().nt.lock_order().hold_of(owner, resource.address()).is_none() && wait {
            waiting(call, resource.address(), Kind::Resource, hold.shared);
        }
        acquired(call, hold);
        return true;
    }
    if !wait {
        return false;
    }
    let (mine, exclusive) = with(call, resource, |state| (state.owners.contains_key(&owner), state.exclusive));
    if mine && !exclusive && access == Access::Exclusive {
        call.stop(
            Rule::Deadlock,
            format!("this thread shares the ERESOURCE {resource:?}, and has to release it before it can own it"),
        );
    }
    waiting(call, resource.address(), Kind::Resource, hold.shared);
    with(call, resource, |state| *state.waiters(access) += 1);
    call.machine().nt.dispatcher().wait(call, None, attempt);
    with(call, resource, |state| *state.waiters(access) -= 1);
    acquired(call, hold);
    // Who shares may go on as soon as nobody waits for exclusive access any more.
    call.machine().nt.dispatcher().wake();
    true
}

extern "efiapi" fn acquire_exclusive(resource: Raw<u8>, wait: u8) -> u8 {
    u8::from(acquire(&Call::enter(), resource, Access::Exclusive, wait != 0))
}

extern "efiapi" fn try_to_acquire_exclusive(resource: Raw<u8>) -> u8 {
    u8::from(acquire(&Call::enter(), resource, Access::Exclusive, false))
}

extern "efiapi" fn acquire_shared(resource: Raw<u8>, wait: u8) -> u8 {
    u8::from(acquire(&Call::enter(), resource, Access::Shared, wait != 0))
}

extern "efiapi" fn acquire_starve_exclusive(resource: Raw<u8>, wait: u8) -> u8 {
    u8::from(acquire(&Call::enter(), resource, Access::StarveExclusive, wait != 0))
}

extern "efiapi" fn acquire_wait_for_exclusive(resource: Raw<u8>, wait: u8) -> u8 {
    u8::from(acquire(&Call::enter(), resource, Access::WaitForExclusive, wait != 0))
}

fn enter_and_acquire(resource: Raw<u8>, access: Access) -> usize {
    let call = Call::enter();
    enter_critical_region(&call);
    acquire(&call, resource, access, true);
    0 // the thread's window manager data, of which kernel threads have none
}

extern "efiapi" fn enter_and_acquire_exclusive(resource: Raw<u8>) -> usize {
    enter_and_acquire(resource, Access::Exclusive)
}

extern "efiapi" fn enter_and_acquire_shared(resource: Raw<u8>) -> usize {
    enter_and_acquire(resource, Access::Shared)
}

extern "efiapi" fn enter_and_acquire_wait_for_exclusive(resource: Raw<u8>) -> usize {
    enter_and_acquire(resource, Access::WaitForExclusive)
}

extern "efiapi" fn release(resource: Raw<u8>) {
    release_own(&Call::enter(), resource);
}

/// Releases what the calling thread acquired.
pub(super) fn release_own(call: &Call, resource: Raw<u8>) {
    if !normal_apcs_disabled(call) {
        call.stop(Rule::BadState, "an ERESOURCE is released with normal kernel APCs enabled");
    }
    release_of(call, resource, me(call));
}

fn release_of(call: &Call, resource: Raw<u8>, owner: usize) {
    if !with(call, resource, |state| state.release(owner)) {
        // RESOURCE_NOT_OWNED (0xE3) on Windows.
        call.stop(Rule::BadState, format!("the ERESOURCE {resource:?} is not owned by {owner:#x}"));
    }
    call.machine().nt.lock_order().released(owner, resource.address());
    call.machine().nt.dispatcher().wake();
}

extern "efiapi" fn release_for_thread(resource: Raw<u8>, owner: usize) {
    release_of(&Call::enter(), resource, owner);
}

extern "efiapi" fn release_and_leave(resource: Raw<u8>) {
    let call = Call::enter();
    release_own(&call, resource);
    leave_critical_region(&call);
}

extern "efiapi" fn convert_to_shared(resource: Raw<u8>) {
    let call = Call::enter();
    let owner = me(&call);
    let converted = with(&call, resource, |state| {
        let owned = state.exclusive && state.owners.contains_key(&owner);
        state.exclusive &= !owned;
        owned
    });
    if !converted {
        call.stop(Rule::BadState, format!("the ERESOURCE {resource:?} is not owned exclusively by this thread"));
    }
    call.machine().nt.dispatcher().wake();
}

extern "efiapi" fn set_owner_pointer(resource: Raw<u8>, owner: usize) {
    hand_over(&Call::enter(), resource, owner);
}

extern "efiapi" fn set_owner_pointer_ex(resource: Raw<u8>, owner: usize, _flags: u32) {
    hand_over(&Call::enter(), resource, owner);
}

fn hand_over(call: &Call, resource: Raw<u8>, owner: usize) {
    if owner & OWNER_POINTER != OWNER_POINTER {
        call.stop(Rule::BadArgument, format!("the owner pointer {owner:#x} needs its two low bits set"));
    }
    let thread = me(call);
    let count = with(call, resource, |state| {
        let count = state.owners.remove(&thread);
        *state.owners.entry(owner).or_default() += count.unwrap_or(0);
        if count.is_none() {
            state.owners.remove(&owner);
        }
        count
    });
    let Some(count) = count else {
        call.stop(Rule::BadState, format!("the ERESOURCE {resource:?} is not owned by this thread"));
    };
    // From now on the thread may return without it.
    for _ in 0..count {
        call.machine().nt.lock_order().released(thread, resource.address());
    }
}

extern "efiapi" fn is_acquired_exclusive(resource: Raw<u8>) -> u8 {
    let call = Call::enter();
    let owner = me(&call);
    u8::from(with(&call, resource, |state| state.exclusive && state.owners.contains_key(&owner)))
}

extern "efiapi" fn is_acquired_shared(resource: Raw<u8>) -> u32 {
    let call = Call::enter();
    let owner = me(&call);
    with(&call, resource, |state| state.owners.get(&owner).copied().unwrap_or(0))
}

extern "efiapi" fn exclusive_waiters(resource: Raw<u8>) -> u32 {
    with(&Call::enter(), resource, |state| state.exclusive_waiters)
}

extern "efiapi" fn shared_waiters(resource: Raw<u8>) -> u32 {
    with(&Call::enter(), resource, |state| state.shared_waiters)
}

extern "efiapi" fn disable_boost(resource: Raw<u8>) {
    // Simulated threads have no priority that could be boosted.
    with(&Call::enter(), resource, |_| ());
}

/// For tests of what is built on resources.
#[cfg(test)]
pub(super) fn tests_initialise(resource: Raw<u8>) {
    assert_eq!(initialize(resource), NtStatus::SUCCESS);
}

/// For tests of what is built on resources.
#[cfg(test)]
pub(super) fn tests_delete(resource: Raw<u8>) {
    assert_eq!(delete(resource), NtStatus::SUCCESS);
}

#[cfg(test)]
mod tests;
