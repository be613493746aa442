//! A simulated kernel thread: the state that NT keeps per thread, bound to the Linux thread that runs it.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::ddi::CallSite;
use crate::finding::{Finding, Rule, Stopped};
use crate::machine::{Driver, Inner};
use crate::nt::ob::ObjectRef;
use crate::nt::security::impersonation::Impersonation;
use crate::process::{Process, exposure};
use crate::watchdog;

mod attaching;
mod identity;
mod lateness;
mod levels;
mod own;
mod pcr;
mod stack;

pub(crate) use identity::{Identities, Identity};
pub(crate) use levels::Exit;
use levels::Levels;
use own::Own;
pub(crate) use pcr::{GATE_BINDING, GATE_FIRST_PARAMETER, GATE_REGISTERS, Pcr};
use stack::KernelStack;
pub(crate) use stack::StackBounds;

/// Kernel-side state of one Linux thread in one machine.
///
/// Only the thread itself changes it; other threads may look, which is why the fields are atomic.
#[derive(Debug)]
pub struct Thread {
    /// What drivers get as `PETHREAD`.
    object: ObjectRef,
    machine: Arc<Inner>,
    id: u32,
    /// Not a system thread: the Linux thread comes and goes.
    is_visitor: bool,
    irql: AtomicU8,
    critical_regions: AtomicU32,
    guarded_regions: AtomicU32,
    process: Mutex<Option<Arc<Process>>>,
    /// Processes to go back to, outermost first: one for each `KeStackAttachProcess` without its detach.
    attached_from: Mutex<Vec<Option<Arc<Process>>>>,
    /// How many those are: every callback's levels are looked at before and after.
    attached: AtomicUsize,
    /// For whom it acts, when not for its process.
    impersonation: Mutex<Option<Impersonation>>,
    /// The client's token, 0 for none: as above.
    client: AtomicUsize,
    entries: Own<Vec<Entry>>,
    /// Calls of exports that are under way, innermost last.
    calls: Own<Vec<CallSite>>,
    /// Points at which the thread could be held up, so far.
    steps: AtomicU64,
    /// Address of the saved stack pointer that leads out of driver code; zero outside.
    way_out: AtomicUsize,
}

/// One entry into driver code that has not returned yet.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The driver entered.
    pub(crate) driver: Arc<Driver>,
    /// Documented name of the callback.
    pub(crate) callback: &'static str,
    /// Calls of exports that were under way when it began.
    open_calls: usize,
}

thread_local! {
    /// How many calls of exports are under way; also for the fault handler.
    static OPEN_CALLS: Cell<usize> = const { Cell::new(0) };
    /// The stack that driver code runs on: for the fault handler, which may touch nothing that needs to be set up first.
    static STACK: Cell<Option<StackBounds>> = const { Cell::new(None) };
    static CURRENT: RefCell<Option<Arc<Thread>>> = const { RefCell::new(None) };
    /// Threads of machines that this Linux thread entered before, so that it keeps its identity while anyone holds it.
    static KNOWN: RefCell<Vec<Weak<Thread>>> = const { RefCell::new(Vec::new()) };
    /// A stack that is mapped already; callbacks are too frequent to map one each time.
    static SPARE_STACK: RefCell<Option<KernelStack>> = const { RefCell::new(None) };
}

/// Puts the previous current thread back, also when a panic passes.
struct Restore(Option<Arc<Thread>>);

impl Drop for Restore {
    fn drop(&mut self) {
        make_current(self.0.take());
    }
}

fn make_current(thread: Option<Arc<Thread>>) -> Option<Arc<Thread>> {
    let object = thread.as_ref().map_or(std::ptr::null(), |thread| thread.object());
    Pcr::of_this_linux_thread().set_current_thread(object);
    CURRENT.replace(thread)
}

impl Thread {
    /// The simulated thread of the calling Linux thread.
    ///
    /// # Panics
    /// When the calling Linux thread is not inside [`Thread::enter`]: a bug in this crate.
    #[must_use]
    pub fn current() -> Arc<Self> {
        Self::try_current().expect("this Linux thread entered no machine")
    }

    /// As [`Thread::current`], for code that also runs outside of machines.
    #[must_use]
    pub fn try_current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Option::clone)
    }

    /// Runs `body` as a thread of `machine`. Every public operation of a machine starts with this.
    ///
    /// A Linux thread that is in the machine already stays the same simulated thread.
    pub fn enter<R>(machine: &Arc<Inner>, body: impl FnOnce(&Arc<Self>) -> R) -> R {
        Self::enter_as(machine, None, body)
    }

    /// As [`Thread::enter`], on a Linux thread that is new to the machine and gets this thread object and id.
    pub(crate) fn enter_as<R>(
        machine: &Arc<Inner>,
        identity: Option<Identity>,
        body: impl FnOnce(&Arc<Self>) -> R,
    ) -> R {
        if let Some(thread) = Self::current_of(machine) {
            return body(&thread);
        }
        crate::cpu::install_handlers();
        let thread = Self::of(machine, identity);
        let _restore = Restore(make_current(Some(Arc::clone(&thread))));
        body(&thread)
    }

    /// The calling Linux thread's simulated thread, when it is in this machine.
    fn current_of(machine: &Arc<Inner>) -> Option<Arc<Self>> {
        CURRENT.with_borrow(|current| current.as_ref().filter(|thread| Arc::ptr_eq(&thread.machine, machine)).cloned())
    }

    fn of(machine: &Arc<Inner>, identity: Option<Identity>) -> Arc<Self> {
        KNOWN.with_borrow_mut(|known| {
            known.retain(|thread| thread.strong_count() > 0);
            let found = known.iter().filter_map(Weak::upgrade);
            if let Some(thread) = found.into_iter().find(|thread| Arc::ptr_eq(&thread.machine, machine)) {
                return thread;
            }
            let is_visitor = identity.is_none();
            let (object, id) = identity.or_else(|| machine.identities.take()).unwrap_or_else(|| {
                let id = machine.next_thread_id();
                let object = crate::nt::threads::new_object(machine, id);
                (object.expect("a machine has room for its threads"), id)
            });
            let thread = Arc::new(Self {
                object,
                machine: Arc::clone(machine),
                id,
                is_visitor,
                irql: AtomicU8::new(0),
                critical_regions: AtomicU32::new(0),
                guarded_regions: AtomicU32::new(0),
                process: Mutex::new(None),
                attached_from: Mutex::new(Vec::new()),
                attached: AtomicUsize::new(0),
                impersonation: Mutex::new(None),
                client: AtomicUsize::new(0),
                entries: Own::new(Vec::new()),
                calls: Own::new(Vec::new()),
                steps: AtomicU64::new(0),
                way_out: AtomicUsize::new(0),
            });
            crate::nt::threads::set_thread(&thread.object, &thread);
            known.push(Arc::downgrade(&thread));
            thread
        })
    }

    /// The machine this thread belongs to.
    #[must_use]
    pub fn machine(&self) -> &Arc<Inner> {
        &self.machine
    }

    /// Thread id: a multiple of four, unique in the machine.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What `PsGetCurrentThread` returns.
    #[must_use]
    pub fn object(&self) -> *const c_void {
        std::ptr::with_exposed_provenance(self.object.body())
    }

    /// Current IRQL (CR8).
    #[must_use]
    pub fn irql(&self) -> u8 {
        self.irql.load(Ordering::Relaxed)
    }

    /// IRQL of the calling Linux thread; 0 outside of machines.
    pub(crate) fn current_irql() -> u8 {
        CURRENT.with_borrow(|current| current.as_ref().map_or(0, |thread| thread.irql()))
    }

    /// The stack on which the calling Linux thread runs driver code, if it does. May be asked in a signal handler.
    pub(crate) fn driver_stack() -> Option<StackBounds> {
        STACK.get()
    }

    /// Sets the IRQL (the exports that raise or lower it check their own rules first).
    pub fn set_irql(&self, irql: u8) {
        let before = self.irql.swap(irql, Ordering::Relaxed);
        if before <= nt_types::APC_LEVEL && irql > nt_types::APC_LEVEL {
            self.machine.nt.paging().page_out();
        }
    }

    /// How many critical regions (`KeEnterCriticalRegion`) the thread is in: normal kernel APCs are off when not zero.
    #[must_use]
    pub fn critical_regions(&self) -> u32 {
        self.critical_regions.load(Ordering::Relaxed)
    }

    /// Sets the number of critical regions.
    pub fn set_critical_regions(&self, count: u32) {
        self.critical_regions.store(count, Ordering::Relaxed);
    }

    /// How many guarded regions (`KeEnterGuardedRegion`) the thread is in: all APCs are off when not zero.
    #[must_use]
    pub fn guarded_regions(&self) -> u32 {
        self.guarded_regions.load(Ordering::Relaxed)
    }

    /// Sets the number of guarded regions.
    pub fn set_guarded_regions(&self, count: u32) {
        self.guarded_regions.store(count, Ordering::Relaxed);
    }

    /// The process whose user memory the thread sees; `None` is the system process.
    #[must_use]
    pub fn process(&self) -> Option<Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the process (thread start, `KeStackAttachProcess`); returns the one before.
    pub fn set_process(&self, process: Option<Arc<Process>>) -> Option<Arc<Process>> {
        let mut slot = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut slot, process)
    }

    /// For whom the thread acts; `None` for its own process.
    pub(crate) fn impersonation(&self) -> Option<Impersonation> {
        self.impersonation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes for whom it acts; what was before.
    pub(crate) fn set_impersonation(&self, client: Option<Impersonation>) -> Option<Impersonation> {
        let mut slot = self.impersonation.lock().unwrap_or_else(PoisonError::into_inner);
        self.client.store(client.as_ref().map_or(0, Impersonation::token_body), Ordering::Relaxed);
        std::mem::replace(&mut slot, client)
    }

    /// Takes the record left by the import gate that jumped here.
    ///
    /// # Panics
    /// When no gate did: host code called an export's outer function.
    #[must_use]
    pub fn take_call_site(&self) -> CallSite {
        if let Some((binding, first_parameter, registers)) = Pcr::of_this_linux_thread().take_gate_record() {
            // SAFETY: the gate was reached through a thunk of a loaded image, which owns its bindings and stays loaded
            // while its code runs.
            let binding = unsafe { &*binding };
            let driver = binding.driver.upgrade().expect("a driver outlives the calls it makes");
            return CallSite::new(driver, binding.export, first_parameter, registers);
        }
        self.call_site_without_gate()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test build looks at the thread")]
    fn call_site_without_gate(&self) -> ! {
        panic!("an export's outer function was called by the host itself");
    }

    /// Unit tests call exports as plain functions.
    #[cfg(test)]
    fn call_site_without_gate(&self) -> CallSite {
        let entry = self.entry().expect("tests call exports inside Bench::run");
        crate::ddi::testing::call_site(entry.driver)
    }

    /// Whether a callback of this name is under way on the thread.
    pub(crate) fn is_inside(&self, callback: &str) -> bool {
        self.entries.with(|entries| entries.iter().any(|entry| entry.callback == callback))
    }

    /// The innermost entry into driver code.
    pub(crate) fn entry(&self) -> Option<Entry> {
        self.entries.with(|entries| entries.last().cloned())
    }

    /// Notes that an export's call begins; see [`Thread::call_ended`].
    pub(crate) fn call_began(&self, site: &CallSite) {
        watchdog::beat();
        self.calls.with(|calls| calls.push(site.clone()));
        OPEN_CALLS.set(OPEN_CALLS.get() + 1);
    }

    /// Notes that the innermost call ends.
    pub(crate) fn call_ended(&self) {
        watchdog::beat();
        let _ended = self.calls.with(Vec::pop);
        OPEN_CALLS.set(OPEN_CALLS.get().saturating_sub(1));
    }

    /// Holds the thread up for a moment, if the machine's schedule is perturbed and chance says so.
    pub(crate) fn linger(&self) {
        self.machine.schedule.delay(self.id, &self.steps);
    }

    /// Whether host code runs for a driver, so that a fault in it is a bad pointer of the driver's. May be asked in a
    /// signal handler.
    pub(crate) fn is_serving_call() -> bool {
        OPEN_CALLS.get() != 0
    }

    /// The innermost call of an export that is under way.
    pub(crate) fn open_call(&self) -> Option<CallSite> {
        self.calls.with(|calls| calls.last().cloned())
    }

    /// Drivers' stacks below the innermost `skip` calls: who called the export that called back, and so on.
    pub(crate) fn outer_stacks(&self, skip: usize) -> Vec<String> {
        let calls = self.calls.with(|calls| calls.clone());
        calls.iter().rev().skip(skip).flat_map(CallSite::stack).collect()
    }

    /// The innermost call under way that was made above a stack pointer, and how many calls there were before it.
    pub(crate) fn outer_call(&self, stack_pointer: usize) -> Option<(usize, CallSite)> {
        self.calls.with(|calls| {
            let (index, site) = calls.iter().enumerate().rev().find(|(_, site)| site.stack_pointer > stack_pointer)?;
            Some((index, site.clone()))
        })
    }

    /// An exception leaves callbacks and calls for good: all but the outermost `calls` calls, and what they called.
    pub(crate) fn abandon_calls(&self, calls: usize) {
        let left = self.calls.with(|open| open.split_off(calls.min(open.len()))).len();
        OPEN_CALLS.set(OPEN_CALLS.get().saturating_sub(left));
        self.entries.with(|entries| entries.retain(|entry| entry.open_calls < calls));
    }

    /// Whether driver code is on this thread's stack.
    #[must_use]
    pub fn is_in_driver(&self) -> bool {
        self.way_out.load(Ordering::Relaxed) != 0
    }

    /// Stops the machine on a finding and leaves driver code for whoever entered it. Does not return.
    ///
    /// Whatever the caller holds (locks above all) stays held for ever: let go of what the report needs first.
    ///
    /// # Panics
    /// When called outside of driver code, where there is nothing to leave: use [`Inner::record`] there.
    pub fn stop(&self, rule: Rule, message: String, site: Option<&CallSite>) -> ! {
        self.machine.record(self.finding(rule, message, site));
        self.leave()
    }

    /// Describes a broken rule at this thread's present place.
    pub(crate) fn finding(&self, rule: Rule, message: String, site: Option<&CallSite>) -> Finding {
        let entry = self.entry();
        let call = match (site, &entry) {
            (Some(site), _) => site.export.name,
            (None, Some(entry)) => entry.callback,
            (None, None) => "",
        };
        let driver = site.map(|site| &site.driver).or(entry.as_ref().map(|entry| &entry.driver));
        let stack = match site {
            Some(site) => site.stack().into_iter().chain(self.outer_stacks(1)).collect(),
            None => self.outer_stacks(0),
        };
        Finding { stack, ..Finding::new(rule, message, call, driver.map_or("", |driver| &driver.name)) }
    }

    /// As reports name it.
    pub(crate) fn describe(&self) -> String {
        match self.process().filter(|process| !process.is_system()) {
            Some(process) => format!("thread {} of {} (process {})", self.id, process.image_name(), process.id()),
            None => format!("thread {} of the system", self.id),
        }
    }

    /// Leaves driver code if the machine has stopped. Waits in the host call this whenever they wake up.
    pub fn leave_if_stopped(&self) {
        if self.is_in_driver() && self.machine.stopped().is_some() {
            self.leave();
        }
    }

    /// Leaves driver code for whoever entered it, after a finding was recorded.
    pub(crate) fn leave(&self) -> ! {
        let slot = self.way_out.load(Ordering::Relaxed) as *const usize;
        assert!(!slot.is_null(), "stopped outside of driver code: {:?}", self.machine.stopped());
        // SAFETY: `way_out` is set exactly while this Linux thread runs on that stack.
        unsafe { KernelStack::leave(slot) }
    }

    /// Runs driver code: `body` calls into `driver` for `callback` (its documented name), at `irql`.
    ///
    /// Checks on return that IRQL and APC state are as before. `Err` when the machine stopped meanwhile; where driver code
    /// called the host that called this, a stop does not come back here but to the outermost caller.
    pub fn call_driver<R>(
        &self,
        driver: &Arc<Driver>,
        callback: &'static str,
        irql: u8,
        body: impl FnOnce() -> R,
    ) -> Result<R, Stopped> {
        let result = self.enter_driver(driver, callback, irql, body)?;
        Ok(result.unwrap_or_else(|| unreachable!("only a system thread leaves driver code without a finding")))
    }

    /// As [`Thread::call_driver`], for a routine that is documented to return at another IRQL than it is entered at.
    pub(crate) fn call_driver_until<R>(
        &self,
        driver: &Arc<Driver>,
        callback: &'static str,
        irql: u8,
        exit: Exit,
        body: impl FnOnce() -> R,
    ) -> Result<R, Stopped> {
        let result = self.enter_driver_until(driver, callback, irql, exit, body)?;
        Ok(result.unwrap_or_else(|| unreachable!("only a system thread leaves driver code without a finding")))
    }

    /// As [`Thread::call_driver`], for a routine that may end its thread instead of returning: `Ok(None)` then.
    pub(crate) fn enter_driver<R>(
        &self,
        driver: &Arc<Driver>,
        callback: &'static str,
        irql: u8,
        body: impl FnOnce() -> R,
    ) -> Result<Option<R>, Stopped> {
        self.enter_driver_until(driver, callback, irql, Exit::AsEntered, body)
    }

    fn enter_driver_until<R>(
        &self,
        driver: &Arc<Driver>,
        callback: &'static str,
        irql: u8,
        exit: Exit,
        body: impl FnOnce() -> R,
    ) -> Result<Option<R>, Stopped> {
        if let Some(stopped) = self.machine.stopped() {
            self.leave_if_stopped();
            return Err(stopped);
        }
        let before = self.levels();
        let open_calls = self.calls.with(|calls| calls.len());
        let locks = self.machine.nt.lock_order().depth(self);
        let depth = self.push_entry(Entry { driver: Arc::clone(driver), callback, open_calls });
        self.set_irql(irql);
        let mut entered = self.levels();
        let result = if self.is_in_driver() {
            Some(body())
        } else {
            exposure::callback_begins(&self.machine.user_memory_watch, || self.process());
            watchdog::callback_begins(&self.machine.config.time_limit);
            let result = self.run_on_kernel_stack(body);
            watchdog::callback_ends();
            exposure::callback_ends();
            result
        };
        let left = self.levels();
        let mut kept = self.machine.nt.lock_order().kept(self, locks);
        let mut after = before;
        match exit {
            Exit::AsEntered => {}
            Exit::At(irql) => entered.irql = irql,
            // A routine that takes locks for the kernel returns with them.
            Exit::Anywhere => (entered.irql, after.irql, kept) = (left.irql, left.irql, None),
        }
        if (result.is_some() && left != entered || kept.is_some()) && self.machine.stopped().is_none() {
            let (rule, message) = entered.broken_by(left, kept);
            self.machine.record(self.finding(rule, message, None));
        }
        self.leave_if_stopped();
        self.entries.with(|entries| entries.truncate(depth));
        self.calls.with(|calls| calls.truncate(open_calls));
        if result.is_none() {
            // Calls were left, not ended. Other machines' calls on this Linux thread were left with them.
            OPEN_CALLS.set(open_calls);
        }
        self.set_levels(after);
        self.machine.stopped().map_or(Ok(result), Err)
    }

    fn run_on_kernel_stack<R>(&self, body: impl FnOnce() -> R) -> Option<R> {
        let is_current =
            |thread: &Option<Arc<Self>>| thread.as_ref().is_some_and(|thread| std::ptr::eq(&raw const **thread, self));
        assert!(CURRENT.with_borrow(is_current), "a thread runs driver code only for itself");
        let mut stack = SPARE_STACK.take().unwrap_or_else(|| KernelStack::new().expect("no memory for a kernel stack"));
        self.way_out.store(stack.caller_slot() as usize, Ordering::Relaxed);
        let outer = STACK.replace(Some(stack.bounds()));
        let result = stack.run(body);
        STACK.set(outer);
        self.way_out.store(0, Ordering::Relaxed);
        if result.is_some() {
            SPARE_STACK.set(Some(stack));
        } else {
            // Frames on it are abandoned, not dead: see stack.rs.
            std::mem::forget(stack);
            // What was entered from there was left, not ended: other machines, on the same Linux thread.
            make_current(self.known());
        }
        result
    }

    /// Another reference to this thread.
    fn known(&self) -> Option<Arc<Self>> {
        let mine = |thread: &&Weak<Self>| std::ptr::eq(thread.as_ptr(), self);
        KNOWN.with_borrow(|known| known.iter().find(mine).and_then(Weak::upgrade))
    }

    fn push_entry(&self, entry: Entry) -> usize {
        self.entries.with(|entries| {
            entries.push(entry);
            entries.len() - 1
        })
    }

    fn levels(&self) -> Levels {
        Levels {
            irql: self.irql(),
            critical_regions: self.critical_regions(),
            guarded_regions: self.guarded_regions(),
            attached: self.attached.load(Ordering::Relaxed),
            client: self.client.load(Ordering::Relaxed),
        }
    }

    fn set_levels(&self, levels: Levels) {
        self.set_irql(levels.irql);
        self.set_critical_regions(levels.critical_regions);
        self.set_guarded_regions(levels.guarded_regions);
        while self.attached.load(Ordering::Relaxed) > levels.attached {
            let depth = self.attached_from().len();
            self.detach(depth);
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.is_visitor {
            self.machine.identities.keep((self.object.clone(), self.id));
        }
    }
}

#[cfg(test)]
mod tests;
