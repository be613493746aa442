//! `ntoskrnl.exe`: the kernel's own services, as their DDI pages document them.
//!
//! One file per theme; each has its part of [`Nt`] and its own export table. [`ob`], [`handles`] and
//! [`namespace`] are what the other subsystems (file systems, filter manager, NDIS) build their objects on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::ddi::{Call, Export};
use crate::leak::{Leak, LeakKind, LeakSource};
use crate::machine::{Driver, Inner};
use crate::process::{Process, SYSTEM_PROCESS_ID, Token};
use crate::thread::Thread;

mod active;
mod ansi;
pub(crate) mod arena;
mod avl;
mod bitmaps;
mod bug_check;
mod c_strings;
pub(crate) mod callbacks;
mod compression;
mod contiguous;
mod convert;
pub(crate) mod crt;
pub(crate) mod debug;
mod device_memory;
mod device_queues;
pub(crate) mod dispatcher;
mod dos_errors;
pub(crate) mod etw;
pub(crate) mod events;
mod ex_timers;
mod formatted;
pub(crate) mod fsrtl;
mod fsrtl_names;
mod fsrtl_status;
mod generic_tables;
pub(crate) mod handles;
pub mod hive;
pub(crate) mod hive_file;
pub(crate) mod io;
pub(crate) mod irql;
pub(crate) mod locks;
mod lookaside;
mod mappings;
mod mcb;
pub(crate) mod mdl;
mod memory;
pub(crate) mod misc;
pub(crate) mod namespace;
pub(crate) mod notify;
pub(crate) mod ob;
pub(crate) mod ob_callbacks;
pub(crate) mod ob_events;
mod ob_exports;
mod ob_named;
mod ob_query;
mod oem;
pub(crate) mod paging;
pub(crate) mod parse;
pub(crate) mod physical;
pub(crate) mod pool;
mod pool_exports;
mod power;
mod prefixes;
mod probe;
mod process_handles;
pub(crate) mod processes;
mod processor_events;
mod processors;
mod queue_lock;
mod queues;
mod quota;
pub(crate) mod raw;
pub(crate) mod registered;
pub(crate) mod registry;
pub(crate) mod registry_callbacks;
mod registry_information;
mod routines;
mod run_once;
pub(crate) mod sections;
pub(crate) mod security;
mod short_names;
pub(crate) mod slist;
mod sorting;
mod splay;
mod strings;
mod table_routines;
pub(crate) mod threads;
pub(crate) mod time;
mod time_fields;
pub(crate) mod timers;
pub(crate) mod unicode;
mod unicode_exports;
mod variables;
mod version;
mod virtual_memory;
pub(crate) mod wait;
pub(crate) mod work_items;

use arena::Arena;
use ob::{ObjectManager, ObjectRef};

/// Kernel address space of one machine. Only reserved: memory is taken as it is used.
const KERNEL_SPACE: usize = 1 << 37;

/// Address space that freed kernel memory stays out of use for.
const KERNEL_QUARANTINE: usize = 1 << 32;

/// First process id after the system's.
const FIRST_PROCESS_ID: u64 = 1000;

/// State of the kernel's own subsystems.
#[derive(Debug)]
pub(crate) struct Nt {
    arena: Arc<Arena>,
    /// What the registry holds; packages are installed into it by [`crate::inf`]. The `Zw*Key` calls are exports over it.
    hive: hive::Hive,
    objects: Arc<ObjectManager>,
    pool: pool::Pool,
    paging: paging::Paging,
    io: io::Io,
    threads: threads::Threads,
    timers: timers::Timers,
    work_items: work_items::WorkItems,
    physical: Arc<physical::PhysicalMemory>,
    mappings: mdl::Mappings,
    sections: sections::Sections,
    contiguous: contiguous::Contiguous,
    ex_timers: ex_timers::ExTimers,
    variables: variables::Variables,
    lock_order: locks::order::LockOrder,
    resources: locks::resource::Resources,
    lookaside: lookaside::Lookaside,
    debug_log: debug::DebugLog,
    callbacks: callbacks::Callbacks,
    notify: notify::Notify,
    ob_callbacks: ob_callbacks::ObCallbacks,
    registry_callbacks: registry_callbacks::RegistryCallbacks,
    etw: etw::Etw,
    dispatcher: dispatcher::Dispatcher,
    registered: registered::Registered,
    power: power::Power,
    quotas: quota::Quotas,
    processes: Mutex<BTreeMap<u64, (Arc<Process>, ObjectRef)>>,
    system: OnceLock<Arc<Process>>,
    ids: AtomicU64,
}

impl Default for Nt {
    fn default() -> Self {
        let arena = Arena::reserve(None, KERNEL_SPACE, KERNEL_QUARANTINE);
        let arena = Arc::new(arena.expect("Linux has 128 GiB of address space to reserve"));
        Self {
            objects: ObjectManager::new(Arc::clone(&arena)),
            pool: pool::Pool::new(Arc::clone(&arena)),
            paging: paging::Paging::default(),
            io: io::Io::default(),
            threads: threads::Threads::default(),
            timers: timers::Timers::default(),
            work_items: work_items::WorkItems::default(),
            physical: Arc::default(),
            mappings: mdl::Mappings::default(),
            sections: sections::Sections::default(),
            contiguous: contiguous::Contiguous::default(),
            ex_timers: ex_timers::ExTimers::default(),
            variables: variables::Variables::default(),
            lock_order: locks::order::LockOrder::default(),
            resources: locks::resource::Resources::default(),
            lookaside: lookaside::Lookaside::default(),
            debug_log: debug::DebugLog::default(),
            callbacks: callbacks::Callbacks::default(),
            notify: notify::Notify::default(),
            ob_callbacks: ob_callbacks::ObCallbacks::default(),
            registry_callbacks: registry_callbacks::RegistryCallbacks::default(),
            etw: etw::Etw::default(),
            dispatcher: dispatcher::Dispatcher::default(),
            registered: registered::Registered::default(),
            power: power::Power::default(),
            quotas: quota::Quotas::default(),
            arena,
            hive: hive::Hive::default(),
            processes: Mutex::default(),
            system: OnceLock::new(),
            ids: AtomicU64::new(FIRST_PROCESS_ID),
        }
    }
}

impl Nt {
    /// Page-granular kernel memory.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Memory that may be paged out.
    pub(crate) fn paging(&self) -> &paging::Paging {
        &self.paging
    }

    /// The registry.
    pub(crate) fn hive(&self) -> &hive::Hive {
        &self.hive
    }

    /// Kernel objects, handles and names.
    pub(crate) fn objects(&self) -> &Arc<ObjectManager> {
        &self.objects
    }

    /// Pool memory.
    pub(crate) fn pool(&self) -> &pool::Pool {
        &self.pool
    }

    /// Devices and requests.
    pub(crate) fn io(&self) -> &io::Io {
        &self.io
    }

    /// Threads that drivers started.
    fn threads(&self) -> &threads::Threads {
        &self.threads
    }

    /// Timers and deferred procedure calls.
    fn timers(&self) -> &timers::Timers {
        &self.timers
    }

    /// Work items.
    pub(crate) fn work_items(&self) -> &work_items::WorkItems {
        &self.work_items
    }

    /// Page frames.
    pub(crate) fn physical(&self) -> &Arc<physical::PhysicalMemory> {
        &self.physical
    }

    /// Mappings of described pages.
    pub(crate) fn mappings(&self) -> &mdl::Mappings {
        &self.mappings
    }

    /// Section objects and their views.
    pub(crate) fn sections(&self) -> &sections::Sections {
        &self.sections
    }

    /// Timers of `ExAllocateTimer`.
    fn ex_timers(&self) -> &ex_timers::ExTimers {
        &self.ex_timers
    }

    /// Exported variables that are this machine's own.
    fn variables(&self) -> &variables::Variables {
        &self.variables
    }

    /// Contiguous memory.
    fn contiguous(&self) -> &contiguous::Contiguous {
        &self.contiguous
    }

    /// Wakes threads that wait.
    pub(crate) fn dispatcher(&self) -> &dispatcher::Dispatcher {
        &self.dispatcher
    }

    /// Who holds which lock.
    pub(crate) fn lock_order(&self) -> &locks::order::LockOrder {
        &self.lock_order
    }

    /// Resources that are initialised.
    fn resources(&self) -> &locks::resource::Resources {
        &self.resources
    }

    /// Lookaside lists that are initialised.
    fn lookaside(&self) -> &lookaside::Lookaside {
        &self.lookaside
    }

    /// Callback objects' registrations.
    fn callbacks(&self) -> &callbacks::Callbacks {
        &self.callbacks
    }

    /// Routines that hear of processes, threads and images.
    fn notify(&self) -> &notify::Notify {
        &self.notify
    }

    /// Callbacks on handles to processes and threads.
    fn ob_callbacks(&self) -> &ob_callbacks::ObCallbacks {
        &self.ob_callbacks
    }

    /// What drivers registered and have to take back.
    pub(crate) fn registered(&self) -> &registered::Registered {
        &self.registered
    }

    /// Power settings and states.
    fn power(&self) -> &power::Power {
        &self.power
    }

    /// Pool that was charged to processes.
    fn quotas(&self) -> &quota::Quotas {
        &self.quotas
    }

    /// Callbacks on registry operations.
    fn registry_callbacks(&self) -> &registry_callbacks::RegistryCallbacks {
        &self.registry_callbacks
    }

    /// Event providers, and what they wrote.
    fn etw(&self) -> &etw::Etw {
        &self.etw
    }

    /// What drivers printed.
    fn debug_log(&self) -> &debug::DebugLog {
        &self.debug_log
    }

    /// The process in which drivers' own threads run, and in which kernel handles live.
    pub(crate) fn system_process(&self, machine: &Arc<Inner>) -> &Arc<Process> {
        self.system.get_or_init(|| {
            Process::create(machine, SYSTEM_PROCESS_ID, "System", Token::System)
                .expect("a new machine has room for its system process")
        })
    }

    /// The process whose user memory `thread` sees.
    pub(crate) fn process_of(&self, thread: &Thread) -> Arc<Process> {
        thread.process().unwrap_or_else(|| Arc::clone(self.system_process(thread.machine())))
    }

    /// The process that `thread` belongs to, whatever process it is attached to.
    pub(crate) fn owner_of(&self, thread: &Thread) -> Arc<Process> {
        thread.own_process().unwrap_or_else(|| Arc::clone(self.system_process(thread.machine())))
    }

    /// A new process id: a multiple of four.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(4, Ordering::Relaxed)
    }

    /// The process with this id, while it has not exited.
    pub(crate) fn process(&self, id: u64) -> Option<Arc<Process>> {
        self.lock_processes().get(&id).map(|(process, _)| Arc::clone(process))
    }

    /// Keeps a process and its object until it exits.
    pub(crate) fn keep_process(&self, process: &Arc<Process>, object: ObjectRef) {
        self.lock_processes().insert(process.id(), (Arc::clone(process), object));
    }

    pub(crate) fn process_exited(&self, process: &Arc<Process>) {
        let gone = self.lock_processes().remove(&process.id());
        drop(gone);
    }

    /// The process that this is the memory of.
    pub(crate) fn process_with(&self, memory: &Arc<crate::process::memory::Regions>) -> Option<Arc<Process>> {
        let processes = self.lock_processes();
        processes.values().map(|(process, _)| process).find(|process| process.memory().is(memory)).cloned()
    }

    fn lock_processes(&self) -> MutexGuard<'_, BTreeMap<u64, (Arc<Process>, ObjectRef)>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeakSource for Nt {
    fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let one = |kind| move |detail| Leak { kind, count: 1, bytes: 0, detail };
        let mut leaks = self.pool.leaks(driver);
        leaks.extend(self.physical.leaks(driver));
        leaks.extend(self.mappings.leaks(driver));
        leaks.extend(self.sections.leaks(driver));
        // Kernel handles are in the system process's table.
        for (process, _) in self.lock_processes().values() {
            leaks.extend(process.handles().opened_by(driver).into_iter().map(one(LeakKind::Handle)));
        }
        leaks.extend(self.objects.references_of(driver).into_iter().map(one(LeakKind::Reference)));
        leaks.extend(self.io.leaks(driver));
        leaks.extend(self.timers.leaks(driver));
        leaks.extend(self.threads.leaks(driver));
        leaks.extend(self.work_items.leaks(driver));
        leaks.extend(self.callbacks.leaks(driver));
        leaks.extend(self.notify.leaks(driver));
        leaks.extend(self.ob_callbacks.leaks(driver));
        leaks.extend(self.registry_callbacks.leaks(driver));
        leaks.extend(self.etw.leaks(driver));
        leaks.extend(self.registered.leaks(driver));
        leaks.extend(self.resources.leaks(driver));
        leaks.extend(self.lookaside.leaks(driver));
        leaks.extend(self.ex_timers.leaks(driver));
        leaks
    }
}

/// The process in whose context a call happens.
pub(crate) fn current_process(call: &Call) -> Arc<Process> {
    call.machine().nt.process_of(call.thread())
}

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        callbacks::EXPORTS,
        crt::EXPORTS,
        debug::EXPORTS,
        etw::EXPORTS,
        etw::WPP_EXPORTS,
        etw::activity::EXPORTS,
        events::EXPORTS,
        irql::EXPORTS,
        lookaside::EXPORTS,
        mdl::EXPORTS,
        mdl::locking::EXPORTS,
        mdl::partial::EXPORTS,
        contiguous::EXPORTS,
        version::EXPORTS,
        avl::EXPORTS,
        bug_check::EXPORTS,
        compression::EXPORTS,
        device_memory::EXPORTS,
        device_queues::EXPORTS,
        dos_errors::EXPORTS,
        fsrtl_names::EXPORTS,
        fsrtl_status::EXPORTS,
        generic_tables::EXPORTS,
        mcb::EXPORTS,
        oem::EXPORTS,
        power::EXPORTS,
        prefixes::EXPORTS,
        processor_events::EXPORTS,
        queues::EXPORTS,
        quota::EXPORTS,
        short_names::EXPORTS,
        splay::EXPORTS,
        ex_timers::EXPORTS,
        processors::EXPORTS,
        run_once::EXPORTS,
        variables::EXPORTS,
        ansi::EXPORTS,
        bitmaps::EXPORTS,
        c_strings::EXPORTS,
        convert::EXPORTS,
        formatted::EXPORTS,
        fsrtl::EXPORTS,
        time_fields::EXPORTS,
        unicode_exports::EXPORTS,
        virtual_memory::EXPORTS,
        memory::EXPORTS,
        misc::EXPORTS,
        notify::EXPORTS,
        ob_events::EXPORTS,
        ob_exports::EXPORTS,
        ob_named::EXPORTS,
        ob_callbacks::EXPORTS,
        ob_query::EXPORTS,
        process_handles::EXPORTS,
        pool_exports::EXPORTS,
        probe::EXPORTS,
        processes::EXPORTS,
        registry::EXPORTS,
        registry::QUERY_EXPORTS,
        registry::RTL_EXPORTS,
        routines::EXPORTS,
        slist::EXPORTS,
        sorting::EXPORTS,
        strings::EXPORTS,
        threads::EXPORTS,
        time::EXPORTS,
        timers::EXPORTS,
        wait::EXPORTS,
        work_items::EXPORTS,
        work_items::PLAIN_EXPORTS,
    ]
    .into_iter()
    .flatten()
    .chain(io::exports())
    .chain(security::exports())
    .chain(sections::exports())
    .chain(registry_callbacks::exports())
    .chain(locks::exports())
}
