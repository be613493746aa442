//! Key objects in registry callbacks: contexts, identifiers and names.

use std::sync::Arc;

use nt_types::{NtStatus, UNICODE_STRING};

use super::Registration;
use super::structures::{CONTEXT_CLEANUP, ContextCleanup};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::Raw;
use crate::nt::registry::OpenKey;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    CmSetCallbackObjectContext(max 1, fails RESOURCES) = cm_set_callback_object_context;
    CmCallbackGetKeyObjectID(max 1, fails RESOURCES) = cm_callback_get_key_object_id;
    CmCallbackGetKeyObjectIDEx(max 1, fails RESOURCES) = cm_callback_get_key_object_id_ex;
    CmCallbackReleaseKeyObjectIDEx(max 1) = cm_callback_release_key_object_id_ex;
    CmGetBoundTransaction(max 1) = cm_get_bound_transaction;
}

/// A counted string with its characters, at an address that does not change.
#[derive(Debug)]
pub(in crate::nt) struct CountedName {
    /// What `string` points into.
    #[expect(dead_code, reason = "drivers read it through the string")]
    units: Box<[u16]>,
    string: Box<UNICODE_STRING>,
}

// SAFETY: the pointer inside is into the value's own memory, and nobody writes there.
unsafe impl Send for CountedName {}
// SAFETY: as above.
unsafe impl Sync for CountedName {}

impl CountedName {
    /// `None` for what is too long for a counted string.
    pub(in crate::nt) fn new(text: &str) -> Option<Self> {
        let units: Box<[u16]> = text.encode_utf16().collect();
        let string = Box::new(UNICODE_STRING::from_utf16(&units)?);
        Some(Self { units, string })
    }

    pub(in crate::nt) fn address(&self) -> usize {
        std::ptr::from_ref(&*self.string).expose_provenance()
    }
}

impl Default for CountedName {
    /// An empty one.
    fn default() -> Self {
        Self::new("").expect("nothing is not too long")
    }
}

/// A name that a driver has to give back.
#[derive(Debug)]
pub(super) struct LentName {
    name: CountedName,
    driver: Arc<Driver>,
}

impl LentName {
    pub(super) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    pub(super) fn bytes(&self) -> usize {
        usize::from(self.name.string.Length) + size_of::<UNICODE_STRING>()
    }
}

/// The context that a callback has given a key object; 0 without.
pub(super) fn context(thread: &Thread, cookie: i64, object: usize) -> usize {
    let state = thread.machine().nt.registry_callbacks().lock();
    state.contexts.get(&(cookie, object)).copied().unwrap_or(0)
}

/// A callback is unregistered: it hears of each of its contexts once more.
pub(super) fn drop_contexts(thread: &Thread, callback: &Registration) {
    let gone: Vec<_> = {
        let mut state = thread.machine().nt.registry_callbacks().lock();
        state.contexts.extract_if(|(cookie, _), _| *cookie == callback.cookie).collect()
    };
    for ((_, object), context) in gone {
        clean_up(thread, callback, object, context);
    }
}

/// A key object's last handle is closed: each callback hears of its context.
pub(super) fn key_closed(thread: &Thread, object: usize) {
    let gone: Vec<_> = {
        let mut state = thread.machine().nt.registry_callbacks().lock();
        let gone: Vec<_> = state.contexts.extract_if(|(_, of), _| *of == object).collect();
        let callback = |cookie| state.registrations.iter().find(|entry| entry.cookie == cookie).cloned();
        gone.into_iter().filter_map(|((cookie, _), context)| Some((callback(cookie)?, context))).collect()
    };
    for (callback, context) in gone {
        clean_up(thread, &callback, object, context);
    }
}

fn clean_up(thread: &Thread, callback: &Registration, object: usize, context: usize) {
    let mut information = ContextCleanup { object, object_context: context, reserved: 0 };
    let information = (&raw mut information).expose_provenance();
    // The answer is not looked at: the context goes.
    let _answer = callback.call(thread, CONTEXT_CLEANUP, information);
}

/// The key object that a callback names, with its cookie.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` when either is none.
fn checked(call: &Call, cookie: Raw<i64>, object: usize) -> Result<(i64, Arc<OpenKey>), NtStatus> {
    let cookie = cookie.some().ok_or(NtStatus::INVALID_PARAMETER)?.read();
    let is_registered = {
        let state = call.machine().nt.registry_callbacks().lock();
        state.registrations.iter().any(|entry| entry.cookie == cookie)
    };
    let key = call.machine().nt.objects().payload::<OpenKey>(object).filter(|_| is_registered);
    Ok((cookie, key.ok_or(NtStatus::INVALID_PARAMETER)?))
}

pub(super) extern "efiapi" fn cm_set_callback_object_context(
    object: usize,
    cookie: Raw<i64>,
    new: usize,
    old: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let (cookie, _) = match checked(&call, cookie, object) {
        Ok(checked) => checked,
        Err(status) => return status,
    };
    let mut state = call.machine().nt.registry_callbacks().lock();
    let before =
        if new == 0 { state.contexts.remove(&(cookie, object)) } else { state.contexts.insert((cookie, object), new) };
    drop(state);
    old.write_if_some(before.unwrap_or(0));
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn cm_callback_get_key_object_id(
    cookie: Raw<i64>,
    object: usize,
    id: Raw<usize>,
    name: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    match checked(&call, cookie, object) {
        Ok((_, key)) => {
            id.write_if_some(key.id());
            // The string is the key object's, and goes with it.
            name.write_if_some(key.counted_name().address());
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn cm_callback_get_key_object_id_ex(
    cookie: Raw<i64>,
    object: usize,
    id: Raw<usize>,
    name: Raw<usize>,
    flags: u32,
) -> NtStatus {
    let call = Call::enter();
    let found = checked(&call, cookie, object).and_then(|(_, key)| {
        if flags != 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if let Some(name) = name.some() {
            let lent = CountedName::new(key.path()).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
            let address = lent.address();
            let lent = LentName { name: lent, driver: Arc::clone(call.driver()) };
            call.machine().nt.registry_callbacks().lock().names.insert(address, lent);
            name.write(address);
        }
        id.write_if_some(key.id());
        Ok(NtStatus::SUCCESS)
    });
    found.unwrap_or_else(|status| status)
}

pub(super) extern "efiapi" fn cm_callback_release_key_object_id_ex(name: usize) {
    let call = Call::enter();
    let released = call.machine().nt.registry_callbacks().lock().names.remove(&name);
    if released.is_none() {
        call.stop(
            Rule::BadPoolFree,
            format!("{name:#x} is no name of CmCallbackGetKeyObjectIDEx, or one that is released already"),
        );
    }
}

/// No key is bound to a transaction: there are none.
extern "efiapi" fn cm_get_bound_transaction(cookie: Raw<i64>, object: usize) -> usize {
    let call = Call::enter();
    if checked(&call, cookie, object).is_err() {
        call.stop(Rule::BadArgument, format!("{object:#x} is no key object, or the cookie is no callback's"));
    }
    0
}
