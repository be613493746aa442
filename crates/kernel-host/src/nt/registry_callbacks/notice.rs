//! One operation on its way past the registry callbacks and back.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nt_types::NtStatus;

use super::structures::{Class, CreateKey, Information, KeyInformation, PostOperation};
use super::{Registration, objects};
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

thread_local! {
    /// Cookies of the callbacks that this thread is in, outermost first: what they call goes to those below them only.
    static INSIDE: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// An operation, as callbacks see it.
pub(crate) struct Notice {
    class: Class,
    information: usize,
    call_context: Raw<usize>,
    object_context: Raw<usize>,
    /// The key object whose contexts count: the operation's own, or the root of a name.
    object: usize,
    /// Where an open's key object is found when it is through.
    result: Option<Raw<usize>>,
}

impl Notice {
    /// An operation on a key object. `information` stays where it is during the operation.
    pub(crate) fn on<T: Information>(class: Class, object: &ObjectRef, information: &mut T) -> Self {
        Self::new(class, object.body(), information, None)
    }

    /// An open or create. `information` stays where it is during the operation.
    pub(crate) fn of_open(class: Class, information: &mut CreateKey) -> Self {
        let (root, result) = (information.root, information.result);
        Self::new(class, root, information, Some(result))
    }

    fn new<T: Information>(class: Class, object: usize, information: &mut T, result: Option<Raw<usize>>) -> Self {
        let information = Raw::of(std::ptr::from_mut(information));
        Self {
            class,
            information: information.address(),
            call_context: information.field(T::CALL_CONTEXT),
            object_context: information.field(T::OBJECT_CONTEXT),
            object,
            result,
        }
    }

    /// Tells the callbacks, carries the operation out unless one of them keeps it, and tells them of its end.
    ///
    /// The status for the caller: a callback may have replaced it. What a callback refuses or does itself does not get to the callbacks
    /// below it, and it does not hear of the end; those above it do.
    pub(crate) fn run(&self, thread: &Thread, operate: impl FnOnce() -> NtStatus) -> NtStatus {
        let callbacks = begin(thread);
        if callbacks.is_empty() {
            return operate();
        }
        let mut reached: Vec<(&Arc<Registration>, usize)> = Vec::new();
        let mut kept = None;
        for callback in &callbacks {
            self.call_context.write(0);
            self.object_context.write(objects::context(thread, callback.cookie, self.object));
            match inside(thread, callback, self.class.pre, self.information) {
                Some(status) if status.is_success() => reached.push((callback, self.call_context.read())),
                // The operation is done, by the callback.
                Some(NtStatus::CALLBACK_BYPASS) => kept = Some(NtStatus::SUCCESS),
                Some(status) => kept = Some(status),
                None => kept = Some(NtStatus::UNSUCCESSFUL),
            }
            if kept.is_some() {
                break;
            }
        }
        let mut status = kept.unwrap_or_else(operate);
        // The lowest first: the reverse of the way in (general knowledge, no page).
        for (callback, call_context) in reached.into_iter().rev() {
            status = self.after(thread, callback, call_context, status);
        }
        for callback in &callbacks {
            callback.running.fetch_sub(1, Ordering::AcqRel);
        }
        thread.machine().nt.dispatcher().wake();
        status
    }

    fn after(&self, thread: &Thread, callback: &Registration, call_context: usize, status: NtStatus) -> NtStatus {
        let object = match self.result {
            None => self.object,
            // NULL where the open has failed.
            Some(result) if status == NtStatus::SUCCESS => result.read(),
            Some(_) => 0,
        };
        let mut post = PostOperation {
            object,
            status,
            pre: self.information,
            return_status: status,
            call_context,
            object_context: objects::context(thread, callback.cookie, object),
            reserved: 0,
        };
        let post = Raw::of(&raw mut post);
        match inside(thread, callback, self.class.post, post.address()) {
            Some(NtStatus::CALLBACK_BYPASS) => field!(post, PostOperation, return_status).read(),
            _ => status,
        }
    }
}

/// The callbacks that an operation of this thread goes to; each is kept from being unregistered until the end.
fn begin(thread: &Thread) -> Vec<Arc<Registration>> {
    let state = thread.machine().nt.registry_callbacks().lock();
    let innermost = INSIDE.with_borrow(|inside| inside.last().copied());
    let above = innermost.and_then(|cookie| state.registrations.iter().position(|entry| entry.cookie == cookie));
    let first = above.map_or(0, |index| index + 1);
    let callbacks: Vec<_> = state.registrations.iter().skip(first).cloned().collect();
    for callback in &callbacks {
        callback.running.fetch_add(1, Ordering::AcqRel);
    }
    callbacks
}

fn inside(thread: &Thread, callback: &Registration, class: u32, information: usize) -> Option<NtStatus> {
    INSIDE.with_borrow_mut(|inside| inside.push(callback.cookie));
    let answer = callback.call(thread, class, information);
    INSIDE.with_borrow_mut(Vec::pop);
    answer
}

/// The last handle to a key object is closed: nothing can keep it from that. Its contexts go.
pub(crate) fn closing(object: &ObjectRef) {
    let Some(thread) = Thread::try_current() else { return };
    let mut information = KeyInformation { object: object.body(), call_context: 0, object_context: 0, reserved: 0 };
    let notice = Notice::on(Class::HANDLE_CLOSE, object, &mut information);
    let _closed = notice.run(&thread, || NtStatus::SUCCESS);
    objects::key_closed(&thread, object.body());
}
