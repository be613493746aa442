//! Contexts: memory that a filter attaches to FltMgr's objects and to files.
//!
//! [`definition`] has what the filter registers, [`allocate`] makes and frees contexts, [`attach`] sets, gets and deletes them,
//! [`related`] does so for several at once. This module has the table of them all, and what happens to contexts
//! when the object that they are set on goes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::filter::Filter;
use super::instance::Instance;
use crate::ddi::{Call, CallSite, Export};
use crate::finding::Rule;
use crate::fs::open::Open;
use crate::fs::stream::FileKey;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::pool::Tag;
use crate::origin::Origin;
use crate::thread::Thread;

mod allocate;
mod attach;
mod data_scan;
pub(crate) mod definition;
mod related;

use definition::{Definition, Kind};

/// Freed contexts remembered, to tell a late use from a pointer that never was a context.
const REMEMBERED: usize = 1024;

/// How long FltUnregisterFilter waits for the last references, without any progress, before they count as leaked.
const PATIENCE: Duration = Duration::from_secs(3);

/// What drivers can import from here.
pub(super) fn exports() -> impl Iterator<Item = &'static Export> {
    [allocate::EXPORTS, attach::EXPORTS, data_scan::EXPORTS, related::EXPORTS].into_iter().flatten()
}

/// An object that a context is set on, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    owner: Owner,
    /// The instance, but for volumes the filter: each has a context of its own there.
    whose: usize,
}

/// An object that contexts are set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// Address of the `PFLT_VOLUME`.
    Volume(usize),
    /// The instance is [`Place::whose`].
    Instance,
    /// A file of the volume with this number, whichever stream.
    File(u32, FileKey),
    /// Address of the file system's stream control block.
    Stream(usize),
    /// The same, while a data scan has a section of it.
    Section(usize),
    /// Address of the file object.
    Handle(usize),
}

/// A context.
#[derive(Debug)]
struct Context {
    filter: Arc<Filter>,
    definition: Definition,
    /// Bytes of the filter's part.
    size: usize,
    paged: bool,
    /// Start of the memory, with FltMgr's part.
    block: usize,
    /// The driver's stack at FltAllocateContext.
    stack: Vec<String>,
    /// References that the driver owes, by the call that gave each.
    holds: Vec<Hold>,
    /// Where it is set; counts as a reference too.
    place: Option<Place>,
    /// Has been set at some time.
    was_set: bool,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    ddi: &'static str,
    site: Origin,
}

impl Hold {
    fn of(site: &CallSite) -> Self {
        Self { ddi: site.export.name, site: Origin::of(site) }
    }
}

impl Context {
    fn kind(&self) -> Kind {
        self.definition.kind
    }

    fn is_unused(&self) -> bool {
        self.holds.is_empty() && self.place.is_none()
    }

    /// Type, size, tag and the references, for a report.
    fn describe(&self) -> String {
        let holds: Vec<_> = self.holds.iter().map(|hold| format!("{} from {}", hold.ddi, hold.site)).collect();
        format!(
            "{} of {} bytes, tag {}, {} reference(s) not released: {}; allocated at {}",
            self.kind(),
            self.size,
            Tag(self.definition.tag),
            self.holds.len(),
            holds.join(", "),
            self.stack.join(" < "),
        )
    }
}

/// All contexts of a machine.
#[derive(Debug, Default)]
pub(crate) struct Contexts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    contexts: HashMap<usize, Context>,
    places: HashMap<Place, usize>,
    /// Instances that scan data, by address.
    scanning: HashSet<usize>,
    /// Contexts freed lately and how, in order.
    freed: VecDeque<(usize, String)>,
    /// File objects in IRP_MJ_CLOSE, which the object manager does not know any more.
    closing: HashMap<usize, Closing>,
}

/// How far an IRP_MJ_CLOSE has come.
#[derive(Clone, Debug)]
pub(super) enum Closing {
    /// The file system has not seen it yet.
    Before(Arc<Open>),
    /// The file system has closed the file.
    After,
}

impl Closing {
    /// The open, as long as there is one.
    pub(super) fn open(self) -> Option<Arc<Open>> {
        match self {
            Self::Before(open) => Some(open),
            Self::After => None,
        }
    }
}

/// A context that nobody refers to any more, out of the table; to be cleaned up without the lock.
type Unused = (usize, Context);

impl State {
    /// Takes a context off the object that it is set on, and drops the reference that this was.
    fn unset(&mut self, place: Place) -> Option<Unused> {
        let address = self.places.remove(&place)?;
        self.contexts.get_mut(&address)?.place = None;
        self.take_if_unused(address, "the object that it was set on went")
    }

    /// Removes the context from the table when that was the last reference.
    fn take_if_unused(&mut self, address: usize, why: &str) -> Option<Unused> {
        if !self.contexts.get(&address)?.is_unused() {
            return None;
        }
        let context = self.contexts.remove(&address)?;
        if self.freed.len() == REMEMBERED {
            self.freed.pop_front();
        }
        self.freed.push_back((address, format!("it was a {}, freed when {why}", context.kind())));
        Some((address, context))
    }

    /// Takes off everything that is set on places that `gone` names; in the order of file objects, streams, files, instances,
    /// volumes, from the smallest owner to the largest (general knowledge, no page).
    fn unset_all(&mut self, gone: impl Fn(&Place, &Context) -> bool) -> Vec<Unused> {
        let look = |(place, address): (&Place, &usize)| {
            self.contexts.get(address).filter(|context| gone(place, context)).map(|_| *place)
        };
        let mut places: Vec<Place> = self.places.iter().filter_map(look).collect();
        places.sort_by_key(|place| match place.owner {
            Owner::Handle(_) => 0,
            Owner::Stream(_) | Owner::Section(_) => 1,
            Owner::File(..) => 2,
            Owner::Instance => 3,
            Owner::Volume(_) => 4,
        });
        places.into_iter().filter_map(|place| self.unset(place)).collect()
    }

    /// What became of a pointer that is no context (any more).
    fn explain(&self, address: usize) -> String {
        let known = self.freed.iter().rev().find(|(freed, _)| *freed == address);
        known.map_or_else(|| "it never was a context".to_owned(), |(_, why)| why.clone())
    }
}

impl Contexts {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `driver` has not released.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let mine = state.contexts.values().filter(|context| std::ptr::eq(Arc::as_ptr(&context.filter.driver), driver));
        let leak = |context: &Context| Leak {
            kind: LeakKind::Reference,
            count: context.holds.len() as u64,
            bytes: context.size as u64,
            detail: context.describe(),
        };
        mine.map(leak).collect()
    }
}

/// Runs `look` on a context that the driver passes; stops when it is none.
fn with_context<R>(call: &Call, address: usize, look: impl FnOnce(&mut State) -> R) -> R {
    let mut state = call.machine().flt.contexts.lock();
    if state.contexts.contains_key(&address) {
        return look(&mut state);
    }
    let why = state.explain(address);
    drop(state);
    call.stop(Rule::BadArgument, format!("{address:#x} is passed as PFLT_CONTEXT: {why}"));
}

/// An instance is gone: its contexts are deleted, after InstanceTeardownCompleteCallback.
pub(super) fn instance_gone(thread: &Thread, instance: &Instance) {
    let gone = {
        let mut state = thread.machine().flt.contexts.lock();
        state.scanning.remove(&instance.address);
        state.unset_all(|place, _| place.whose == instance.address)
    };
    allocate::free_all(thread, gone);
}

/// A volume is gone: what filters have set on it is deleted.
pub(super) fn volume_gone(thread: &Thread, volume: usize) {
    let gone = thread.machine().flt.contexts.lock().unset_all(|place, _| place.owner == Owner::Volume(volume));
    allocate::free_all(thread, gone);
}

/// FltUnregisterFilter: deletes all contexts of the filter, and waits for the driver's own references.
///
/// # Errors
/// What is still referenced when nothing has changed for long. On Windows the memory would be lost, or the unload hang.
pub(super) fn filter_gone(thread: &Thread, filter: &Arc<Filter>) -> Result<(), String> {
    let contexts = &thread.machine().flt.contexts;
    let mine = |context: &Context| Arc::ptr_eq(&context.filter, filter);
    let gone = contexts.lock().unset_all(|_, context| mine(context));
    allocate::free_all(thread, gone);
    let left = || contexts.lock().contexts.values().filter(|context| mine(context)).map(Context::describe).collect();
    let (mut held, mut since): (Vec<String>, _) = (left(), Instant::now());
    while !held.is_empty() && since.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
        thread.leave_if_stopped();
        let now: Vec<String> = left();
        if now.len() != held.len() {
            since = Instant::now();
        }
        held = now;
    }
    if held.is_empty() { Ok(()) } else { Err(held.join("; ")) }
}

/// A file object is about to see IRP_MJ_CLOSE: callbacks know it by its address only.
pub(crate) fn closing(machine: &Inner, body: usize, open: &Arc<Open>) {
    machine.flt.contexts.lock().closing.insert(body, Closing::Before(Arc::clone(open)));
}

/// A file object that is in IRP_MJ_CLOSE; `None` for any other.
pub(super) fn closing_open(machine: &Inner, body: usize) -> Option<Closing> {
    machine.flt.contexts.lock().closing.get(&body).cloned()
}

/// IRP_MJ_CLOSE is through, even when a filter kept it from the file system.
pub(crate) fn close_ended(machine: &Arc<Inner>, body: usize, open: &Open) {
    closed(machine, body, open);
    machine.flt.contexts.lock().closing.remove(&body);
    machine.flt.names.forget_file(body);
}

/// The file system has closed a file object: deletes what is set on it, and on its stream and its file when this was their last.
pub(crate) fn closed(machine: &Arc<Inner>, body: usize, open: &Open) {
    open.leave_stream();
    let gone = {
        let mut state = machine.flt.contexts.lock();
        state.closing.insert(body, Closing::After);
        // Under the lock: nobody can set a context on a stream that this still finds in use by an open, nor the reverse.
        let (stream, file) = (&open.stream, open.stream.key.file);
        let stream_gone = stream.file_objects() == 0;
        let in_use = |other: &Arc<crate::fs::stream::Stream>| other.key.file == file && other.file_objects() != 0;
        let file_gone = stream_gone && !state.places.is_empty() && !open.volume.lock().live().iter().any(in_use);
        state.unset_all(|place, _| match place.owner {
            Owner::Handle(address) => address == body,
            Owner::Stream(address) | Owner::Section(address) => stream_gone && address == Arc::as_ptr(stream).addr(),
            Owner::File(volume, key) => file_gone && volume == open.volume.number && key == file,
            Owner::Instance | Owner::Volume(_) => false,
        })
    };
    if !gone.is_empty() {
        Thread::enter(machine, |thread| allocate::free_all(thread, gone));
    }
}
