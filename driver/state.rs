//! The one global of the driver.
//!
//! Life of [`State`]: made by DriverEntry before anything can call back, found by every callback through [`get`], and freed
//! by whoever undoes DriverEntry (a DriverEntry that fails, or FilterUnload) when nothing can call back any more: after
//! FltUnregisterFilter, which waits for all callbacks and work items. Callbacks therefore treat it as `'static`.

use crate::entry::{DrainItem, Entry, Reaper};
use crate::files::Roots;
use crate::kernel::heap;
use crate::kernel::irql::RaiseToDispatch;
use crate::kernel::numbered::Numbered;
use crate::kernel::platform::Kernel;
use crate::kernel::{random, time};
use crate::nic::Consumer;
use crate::port::Connection;
use crate::settings::Settings;
use broker::staging::Images;
use broker::{EntryIds, Error, HandleKey, HandleTable, IrqlLock, Limits};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use fltmgr::raw::FLT_FILTER;
use fltmgr::{Filter, FilterRef, Passive, ServerPort};

/// The handle table with what the driver puts into it.
pub(crate) type Table = HandleTable<Entry, Reaper, RaiseToDispatch>;

/// Everything that outlives a single call.
pub(crate) struct State {
    /// Every handle of every client and NIC driver.
    pub(crate) table: Table,
    /// Numbers of those handles in lists.
    pub(crate) entry_ids: EntryIds,
    /// Every staged image.
    pub(crate) images: Images<Kernel>,
    /// Clients, by the cookie that FltMgr carries for them.
    pub(crate) connections: Numbered<Connection>,
    /// NIC drivers, by the context of their function table.
    pub(crate) consumers: Numbered<Consumer>,
    /// Where firmware may lie.
    pub(crate) roots: Roots,
    /// Limits, all within their hard caps.
    pub(crate) limits: Limits,
    /// What staging demands, as the protocol's code.
    pub(crate) policy: u32,
    /// Whether clients without administrator rights may connect.
    pub(crate) allow_users: bool,
    /// Closes handles that were closed above PASSIVE_LEVEL.
    pub(crate) drain: DrainItem,
    /// What has to be given back at unload, in the order of [`Registered`].
    pub(crate) registered: IrqlLock<Registered, RaiseToDispatch>,
    filter: AtomicPtr<FLT_FILTER>,
    closing: AtomicBool,
    last_session: AtomicU64,
}

/// What is registered with the system. Filled by `start` from the bottom up, emptied by `unload` from the top down.
#[derive(Default)]
pub(crate) struct Registered {
    /// Where administrators connect.
    pub(crate) port: Option<ServerPort>,
    /// Where other clients connect, if they may.
    pub(crate) user_port: Option<ServerPort>,
    /// Where NIC drivers come.
    pub(crate) device: Option<crate::nic::Device>,
    /// The registration itself.
    pub(crate) filter: Option<Filter>,
}

/// The state; NULL before DriverEntry made it and after it was freed.
static STATE: AtomicPtr<State> = AtomicPtr::new(ptr::null_mut());

/// The driver's state, for a callback.
///
/// `None` where the driver is not started, which no callback should see; they refuse then.
pub(crate) fn get() -> Option<&'static State> {
    // SAFETY: the pointer comes from `install`, and stays valid until `remove`, which is called when no
    // callback runs and none can start (module documentation).
    unsafe { STATE.load(Ordering::SeqCst).as_ref() }
}

/// Calls of clients and NIC drivers that are inside the driver now. Not part of the state: a call has to be counted
/// before it may look at the state.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Counts a call from outside; `None` once the driver is leaving. Any IRQL.
pub(crate) fn enter() -> Option<Call> {
    enter_to_leave().filter(|call| !call.closing.load(Ordering::SeqCst))
}

/// As [`enter`], for a call that has to be let in while the driver is leaving, because it gives something back.
pub(crate) fn enter_to_leave() -> Option<Call> {
    // Count first, look second: whoever waits for the count to fall either sees us, or we see that it waits.
    CALLS.fetch_add(1, Ordering::SeqCst);
    let Some(state) = get() else {
        CALLS.fetch_sub(1, Ordering::SeqCst);
        return None;
    };
    Some(Call { state })
}

/// Calls that are under way.
pub(crate) fn calls() -> u32 {
    CALLS.load(Ordering::SeqCst)
}

/// Makes `state` the driver's state.
///
/// [`Error::OutOfMemory`]; `STATUS_IMAGE_ALREADY_LOADED` where there is one already.
pub(crate) fn install(state: State) -> Result<&'static State, Error> {
    let state = heap::boxed(state)?;
    if STATE.compare_exchange(ptr::null_mut(), state, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: made above, and not known to anybody.
        unsafe { heap::free(state) };
        return Err(Error::System(nt_types::NtStatus::IMAGE_ALREADY_LOADED));
    }
    get().ok_or(Error::OutOfMemory)
}

/// Frees the driver's state.
///
/// # Safety
/// Nothing runs that uses it, and nothing will: the filter is unregistered, or never was registered.
pub(crate) unsafe fn remove(passive: Passive) {
    let state = STATE.swap(ptr::null_mut(), Ordering::SeqCst);
    // A call that found the pointer before it went was counted before, and leaves as soon as it sees that it is refused.
    while calls() != 0 {
        time::sleep(1, passive);
    }
    // SAFETY: made by `install`, taken out, and nothing uses it (the caller's word).
    unsafe { heap::free(state) };
    crate::kernel::upcase::free();
}

impl State {
    /// State without a filter yet.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn try_new(settings: Settings) -> Result<Self, Error> {
        let Settings { policy, allow_users, roots, limits } = settings;
        Ok(Self {
            table: HandleTable::new(HandleKey::new(random::key()), limits.handles, Reaper),
            // A key of its own: a number must not give its handle away.
            entry_ids: EntryIds::new(HandleKey::new(random::key())),
            images: Images::try_new(limits, policy)?,
            connections: Numbered::try_new(usize::from(crate::port::MAX_CONNECTIONS))?,
            consumers: Numbered::try_new(crate::nic::MAX_CONSUMERS)?,
            roots: Roots::new(roots),
            limits,
            policy: policy.code(),
            allow_users,
            drain: DrainItem::try_new()?,
            registered: IrqlLock::new(Registered::default()),
            filter: AtomicPtr::new(ptr::null_mut()),
            closing: AtomicBool::new(false),
            last_session: AtomicU64::new(0),
        })
    }

    /// The filter, for calls. Set before the first callback, and the state is gone soon after the filter is.
    pub(crate) fn filter(&self) -> FilterRef {
        // SAFETY: asked for by callbacks, which FltMgr waits for before the filter is gone (module documentation).
        unsafe { FilterRef::from_ptr(self.filter.load(Ordering::Acquire)) }
    }

    /// Says which filter this is. Before the first callback.
    pub(crate) fn set_filter(&self, filter: FilterRef) {
        self.filter.store(filter.as_ptr(), Ordering::Release);
    }

    /// A number for a session, or for anything else that must not be mistaken for an older one.
    pub(crate) fn next_number(&self) -> u64 {
        // 2^64 of them will not be used up.
        self.last_session.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// Begins to refuse everything new, or, where an unload is refused after all, takes that back.
    pub(crate) fn set_closing(&self, closing: bool) {
        self.closing.store(closing, Ordering::SeqCst);
    }
}

/// A call from outside, counted until dropped. While it lives the state does.
pub(crate) struct Call {
    state: &'static State,
}

impl core::ops::Deref for Call {
    type Target = State;

    fn deref(&self) -> &State {
        self.state
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}
