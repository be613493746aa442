//! The object manager: kernel objects, who references them, and when they end.
//!
//! An object is two things with one life: the *body*, NT-visible bytes at a kernel address that drivers hold pointers to,
//! and the *payload*, the Rust value in which this crate keeps what drivers cannot see. Handles are in
//! [`handles`](super::handles), names in [`namespace`](super::namespace).

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nt_types::NtStatus;

use super::arena::{Access, Arena, PAGE, pages_for};
use super::namespace::Namespace;
use super::parse::ParseRequest;
use crate::ddi::Call;
use crate::finding::Rule;
use crate::machine::Driver;
use crate::origin::Origin;
use crate::process::Process;

/// Alignment of bodies in bytes, the same as pool's.
const BODY_ALIGNMENT: usize = 16;

/// Rust side of a kernel object.
///
/// The callbacks may enter driver code, so they are called without any lock held, on a thread that belongs to the machine.
pub trait ObjectBody: Any + Send + Sync + fmt::Debug {
    /// Name of the object type as Windows spells it: `File`, `Device`, `Event`, `FilterConnectionPort`.
    fn type_name(&self) -> &'static str;

    /// The last handle to the object was closed, by `process`; pointers may remain. For a file: `IRP_MJ_CLEANUP`.
    fn on_last_handle_close(&self, _object: &ObjectRef, _process: &Arc<Process>) {}

    /// The last reference is gone. The body is still readable during the call. For a file: `IRP_MJ_CLOSE`.
    fn on_delete(&self, _body: usize) {}

    /// `IoStatusBlock.Information` of the create that made this file object; `None` means `FILE_OPENED`.
    fn create_information(&self) -> Option<usize> {
        None
    }

    /// `ZwMakeTemporaryObject`: from now on the name goes with the last handle. Does nothing for types that have none.
    fn make_temporary(&self) {}

    /// An open by name reached this object with `request.rest` left of the path (the type's parse procedure).
    ///
    /// The default serves types that have no names below them: the object itself, or `STATUS_OBJECT_TYPE_MISMATCH`
    /// when a rest is left.
    fn parse(&self, object: &ObjectRef, request: &ParseRequest<'_>) -> Result<ObjectRef, NtStatus> {
        if request.rest.is_empty() { Ok(object.clone()) } else { Err(NtStatus::OBJECT_TYPE_MISMATCH) }
    }
}

/// All objects of a machine.
#[derive(Debug)]
pub(crate) struct ObjectManager {
    me: Weak<Self>,
    arena: Arc<Arena>,
    objects: Mutex<HashMap<usize, Arc<Object>>>,
    namespace: Namespace,
}

impl ObjectManager {
    pub(crate) fn new(arena: Arc<Arena>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), arena, objects: Mutex::default(), namespace: Namespace::default() })
    }

    /// The tree of names.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes an object with a body of `length` zeroed bytes. The result is its first reference, the host's.
    ///
    /// The body ends at a page's end (up to alignment), so that an access past it faults.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` when the machine's kernel address space is exhausted.
    pub(crate) fn create(&self, length: usize, payload: Arc<dyn ObjectBody>) -> Result<ObjectRef, NtStatus> {
        let length = length.next_multiple_of(BODY_ALIGNMENT).max(BODY_ALIGNMENT);
        let pages = pages_for(length);
        let run = self.arena.allocate(pages, Access::ReadWrite).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        let object = Arc::new(Object {
            manager: self.me.clone(),
            body: run + pages * PAGE - length,
            run,
            pages,
            payload,
            references: AtomicIsize::new(1),
            state: Mutex::default(),
        });
        self.lock().insert(object.body, Arc::clone(&object));
        Ok(ObjectRef(object))
    }

    /// A new reference to the object whose body is at `body`; `None` when there is no such object (any more).
    pub(crate) fn lookup(&self, body: usize) -> Option<ObjectRef> {
        let objects = self.lock();
        objects.get(&body).map(ObjectRef::of)
    }

    /// The payload of the object at `body`, when it is a `T`.
    pub(crate) fn payload<T: ObjectBody>(&self, body: usize) -> Option<Arc<T>> {
        self.lookup(body)?.payload::<T>()
    }

    /// Some object whose payload is a `T` that `is_it` accepts.
    pub(crate) fn find<T: ObjectBody>(&self, is_it: impl Fn(&T) -> bool) -> Option<ObjectRef> {
        let objects = self.lock();
        let object = objects.values().find(|object| {
            let any: &dyn Any = object.payload.as_ref();
            any.downcast_ref::<T>().is_some_and(&is_it)
        })?;
        Some(ObjectRef::of(object))
    }

    /// Hands one reference to the calling driver, which owes a dereference from now on: `Ob*Reference*`, and every DDI
    /// that returns a referenced object.
    pub(crate) fn give(&self, object: &ObjectRef, call: &Call) -> usize {
        debug_assert!(self.me.ptr_eq(&object.0.manager), "an object of this machine");
        object.0.references.fetch_add(1, Ordering::Relaxed);
        let mut state = object.0.state();
        let site = call.site();
        let holder = state.holder(call.driver());
        holder.count += 1;
        holder.note(site.export.name, Origin::of(site));
        object.body()
    }

    /// The driver takes a reference on a body that it has a pointer to. The new count.
    ///
    /// Stops with [`Rule::BadArgument`] when there is no such object.
    pub(crate) fn reference(&self, call: &Call, body: usize) -> isize {
        let Some(object) = self.lookup(body) else {
            call.stop(Rule::BadArgument, format!("{body:#x} is no object, or one that is deleted"));
        };
        self.give(&object, call);
        object.references() - 1
    }

    /// The driver drops a reference. The count that is left; the object is deleted at zero.
    ///
    /// Stops with [`Rule::ReferenceUnderflow`] when this driver holds none: the count that it would take belongs to
    /// somebody else, and on Windows the object would die under its real holder.
    pub(crate) fn dereference(&self, call: &Call, body: usize) -> isize {
        let Some(object) = self.lookup(body) else {
            call.stop(Rule::ReferenceUnderflow, format!("{body:#x} is no object, or one that is deleted already"));
        };
        let held = {
            let mut state = object.0.state();
            let holder = state.holder(call.driver());
            holder.count -= 1;
            holder.count >= 0
        };
        if !held {
            let name = object.type_name();
            call.stop(
                Rule::ReferenceUnderflow,
                format!("{} holds no reference to the {name} object at {body:#x}", call.driver().name),
            );
        }
        // Never the last one: `object` is another.
        object.0.references.fetch_sub(1, Ordering::AcqRel);
        object.references() - 1
    }

    /// Takes one reference over from the driver that holds it: it comes with the object's address, as the DDI says. `None` when
    /// no driver holds one.
    pub(crate) fn take_over(&self, body: usize) -> Option<ObjectRef> {
        let object = self.lookup(body)?;
        {
            let mut state = object.0.state();
            let holder = state.holders.iter_mut().find(|holder| holder.count > 0)?;
            holder.count -= 1;
        }
        // Never the last one: `object` is another.
        object.0.references.fetch_sub(1, Ordering::AcqRel);
        Some(object)
    }

    /// References that `driver` still owes, for the leak report: one line per object.
    pub(crate) fn references_of(&self, driver: &Driver) -> Vec<String> {
        let objects: Vec<_> = self.lock().values().cloned().collect();
        let mut lines = Vec::new();
        for object in objects {
            let state = object.state();
            for holder in &state.holders {
                if holder.count > 0 && std::ptr::eq(Arc::as_ptr(&holder.driver), driver) {
                    let type_name = object.payload.type_name();
                    let (body, count, last) = (object.body, holder.count, holder.places());
                    lines.push(format!("{count} reference(s) to {type_name} at {body:#x}, last by {last}"));
                }
            }
        }
        lines
    }

    /// Forgets what `driver` owes, once it is reported and the driver is gone.
    pub(crate) fn forget_driver(&self, driver: &Arc<Driver>) {
        for object in self.lock().values() {
            object.state().holders.retain(|holder| !Arc::ptr_eq(&holder.driver, driver));
        }
    }

    /// Live objects of a type, by its name.
    #[cfg(test)]
    pub(crate) fn count(&self, type_name: &str) -> usize {
        self.lock().values().filter(|object| object.payload.type_name() == type_name).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Object>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One kernel object. Held through [`ObjectRef`]s.
#[derive(Debug)]
pub(crate) struct Object {
    manager: Weak<ObjectManager>,
    body: usize,
    run: usize,
    pages: usize,
    payload: Arc<dyn ObjectBody>,
    /// NT's `PointerCount`: host references, driver references, one per handle, one for a permanent name. Comes to zero, and is
    /// raised by those who only know the address, under the table's lock.
    references: AtomicIsize,
    state: Mutex<ObjectState>,
}

#[derive(Debug, Default)]
struct ObjectState {
    handles: isize,
    holders: Vec<Holder>,
    name: Option<String>,
}

/// What one driver owes.
#[derive(Debug)]
struct Holder {
    driver: Arc<Driver>,
    count: isize,
    /// Where it took references lately, the latest last: by which call, and from where. Which of them it has given back
    /// nobody can tell.
    taken: VecDeque<(&'static str, Origin)>,
}

/// Places where references were taken that a report shows.
const MOST_PLACES: usize = 4;

impl Holder {
    fn note(&mut self, ddi: &'static str, origin: Origin) {
        self.taken.retain(|known| *known != (ddi, origin));
        if self.taken.len() == MOST_PLACES {
            self.taken.pop_front();
        }
        self.taken.push_back((ddi, origin));
    }

    /// The places, the latest first.
    fn places(&self) -> String {
        let places = self.taken.iter().rev().map(|(ddi, origin)| format!("{ddi} from {origin}"));
        places.collect::<Vec<_>>().join("\n    or by ")
    }
}

impl ObjectState {
    fn holder(&mut self, driver: &Arc<Driver>) -> &mut Holder {
        let found = self.holders.iter().position(|holder| Arc::ptr_eq(&holder.driver, driver));
        let index = found.unwrap_or_else(|| {
            self.holders.push(Holder { driver: Arc::clone(driver), count: 0, taken: VecDeque::new() });
            self.holders.len() - 1
        });
        &mut self.holders[index]
    }
}

impl Object {
    fn state(&self) -> MutexGuard<'_, ObjectState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted reference that the host holds. Clone takes another, drop gives it back; the last one deletes the object.
pub struct ObjectRef(Arc<Object>);

impl ObjectRef {
    /// One reference more to an object that has at least one.
    fn of(object: &Arc<Object>) -> Self {
        object.references.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(object))
    }

    /// The payload, when it is a `T`, for as long as this reference.
    pub(crate) fn payload_ref<T: ObjectBody>(&self) -> Option<&T> {
        let any: &dyn Any = self.0.payload.as_ref();
        any.downcast_ref()
    }

    /// Address of the NT-visible body: what drivers get as `PFILE_OBJECT`, `PKEVENT`, ...
    #[must_use]
    pub fn body(&self) -> usize {
        self.0.body
    }

    /// The object type's name.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.0.payload.type_name()
    }

    /// The payload, when it is a `T`.
    #[must_use]
    pub fn payload<T: ObjectBody>(&self) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = self.0.payload.clone();
        any.downcast().ok()
    }

    /// The payload, whatever it is.
    #[must_use]
    pub fn any_payload(&self) -> &Arc<dyn ObjectBody> {
        &self.0.payload
    }

    /// NT's `PointerCount` at this moment (this reference included).
    #[must_use]
    pub fn references(&self) -> isize {
        self.0.references.load(Ordering::Acquire)
    }

    /// Open handles at this moment.
    #[must_use]
    pub fn handles(&self) -> isize {
        self.0.state().handles
    }

    /// Whether both are the same object.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Path under which the object is in the namespace, if it is.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.0.state().name.clone()
    }

    /// Takes the object's name out of the namespace, if it has one.
    pub(crate) fn unname(&self) {
        if let (Some(path), Some(manager)) = (self.name(), self.0.manager.upgrade()) {
            // A directory's name is a node of its own; either way nobody else removes it.
            let _ = manager.namespace.remove_object(&path).or_else(|_| manager.namespace.remove_directory(&path));
        }
    }

    pub(crate) fn set_name(&self, name: Option<String>) {
        self.0.state().name = name;
    }

    pub(super) fn count_handle(&self) {
        self.0.state().handles += 1;
    }

    /// One handle less; true when it was the last.
    pub(super) fn discount_handle(&self) -> bool {
        let mut state = self.0.state();
        state.handles -= 1;
        state.handles == 0
    }
}

impl fmt::Debug for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.type_name(), self.body())
    }
}

impl Clone for ObjectRef {
    fn clone(&self) -> Self {
        Self::of(&self.0)
    }
}

impl Drop for ObjectRef {
    fn drop(&mut self) {
        let others = |count: isize| (count > 1).then(|| count - 1);
        if self.0.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, others).is_ok() {
            return;
        }
        let manager = self.0.manager.upgrade();
        {
            // The table's lock comes first, as in `lookup`: nobody finds an object whose count is going to zero.
            let mut objects = manager.as_ref().map(|manager| manager.lock());
            if self.0.references.fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            if let Some(objects) = &mut objects {
                objects.remove(&self.0.body);
            }
        }
        self.0.payload.on_delete(self.0.body);
        if let Some(manager) = manager {
            manager.arena.release(self.0.run, self.0.pages);
        }
    }
}
