//! Name providers: filters that change names, and are asked for them by the filters above.

use std::sync::Arc;

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_NAME_CONTROL};
use nt_types::{FILE_OBJECT, NtStatus, PVOID, UNICODE_STRING};

use super::Name;
use super::query::{Options, Query};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::instance::Instance;
use crate::flt::{MACHINE_STOPPED, object};
use crate::fs::path::wide;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCheckAndGrowNameControl(max 1, fails RESOURCES) = flt_check_and_grow_name_control;
    FltPurgeFileNameInformationCache(max 1) = flt_purge_file_name_information_cache;
}

/// Bytes that a name control starts with.
const FIRST_BUFFER: u16 = 128;

/// Bytes of FILE_NAMES_INFORMATION before its name.
const NAMES_HEADER: usize = 12;

/// A filter's name provider callbacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callbacks {
    generate: flt::PFLT_GENERATE_FILE_NAME,
    normalize: flt::PFLT_NORMALIZE_NAME_COMPONENT,
    normalize_ex: flt::PFLT_NORMALIZE_NAME_COMPONENT_EX,
    cleanup: flt::PFLT_NORMALIZE_CONTEXT_CLEANUP,
}

impl Callbacks {
    /// What a registration says; `None` for a filter that provides no names.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` when only some of what a provider needs is there.
    pub(crate) fn capture(registration: &flt::FLT_REGISTRATION) -> Result<Option<Self>, NtStatus> {
        let callbacks = Self {
            generate: registration.GenerateFileNameCallback,
            normalize: registration.NormalizeNameComponentCallback,
            normalize_ex: registration.NormalizeNameComponentExCallback,
            cleanup: registration.NormalizeContextCleanupCallback,
        };
        let normalizes = callbacks.normalize.is_some() || callbacks.normalize_ex.is_some();
        match (callbacks.generate.is_some(), normalizes, callbacks.cleanup.is_some()) {
            (true, true, _) => Ok(Some(callbacks)),
            (false, false, false) => Ok(None),
            _ => Err(NtStatus::INVALID_PARAMETER),
        }
    }
}

/// The nearest provider below the asking instance, or from it downwards when it asks for its own names.
pub(super) fn below(query: &Query<'_>) -> Option<Arc<Instance>> {
    let asking = query.instance.as_ref()?;
    let own = query.options.flags & flt::FLT_FILE_NAME_REQUEST_FROM_CURRENT_PROVIDER != 0;
    let reached = |other: &Instance| other.altitude < asking.altitude || (own && other.address == asking.address);
    let mut instances = asking.volume.instances().into_iter();
    instances.find(|other| other.filter.registration.provider.is_some() && reached(other))
}

/// Asks a provider: for the name in the format that is wanted, or else for the opened name, to be normalized part by part. The
/// name, and whether it may be cached.
pub(super) fn ask(query: &Query<'_>, instance: &Arc<Instance>) -> Result<(Name, bool), NtStatus> {
    instance.rundown.enter()?;
    let result = generate(query, instance, query.options).or_else(|status| {
        if query.options.format != flt::FLT_FILE_NAME_NORMALIZED {
            return Err(status);
        }
        let opened = Options { format: flt::FLT_FILE_NAME_OPENED, ..query.options };
        let (name, cacheable) = generate(query, instance, opened)?;
        Ok((normalize(query, instance, &name)?, cacheable))
    });
    instance.rundown.leave();
    query.call.thread().leave_if_stopped();
    result
}

/// GenerateFileNameCallback.
fn generate(query: &Query<'_>, instance: &Arc<Instance>, options: Options) -> Result<(Name, bool), NtStatus> {
    let callbacks = instance.filter.registration.provider.ok_or(NtStatus::NOT_SUPPORTED)?;
    let callback = callbacks.generate.ok_or(NtStatus::NOT_SUPPORTED)?;
    let control = Control::new(query.call)?;
    let mut cache = 0u8;
    let cache_at = &raw mut cache;
    let status = query.call.thread().call_driver(&instance.filter.driver, "GenerateFileNameCallback", 0, || {
        // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
        unsafe {
            callback(
                Raw::at(instance.address).pointer(),
                Raw::<FILE_OBJECT>::at(query.subject.file).pointer(),
                Raw::<FLT_CALLBACK_DATA>::at(query.data.address()).pointer(),
                options.bits(),
                cache_at,
                Raw::<FLT_NAME_CONTROL>::at(control.address).pointer(),
            )
        }
    });
    status.unwrap_or(MACHINE_STOPPED).ok()?;
    let text = control.text();
    let device = wide(&instance.volume.volume.device_name());
    let volume = if text.starts_with(&device) { device.len() } else { 0 };
    Ok((Name { text, volume }, cache != 0))
}

/// NormalizeNameComponentCallback, or the Ex form where there is one, for each part of an opened name; then
/// NormalizeContextCleanupCallback.
fn normalize(query: &Query<'_>, instance: &Arc<Instance>, opened: &Name) -> Result<Name, NtStatus> {
    let callbacks = instance.filter.registration.provider.ok_or(NtStatus::NOT_SUPPORTED)?;
    let (volume, below) = opened.text.split_at(opened.volume);
    let (path, stream) = match below.iter().position(|&unit| unit == u16::from(b':')) {
        Some(colon) => below.split_at(colon),
        None => (below, &[][..]),
    };
    let parts: Vec<&[u16]> = path.split(|&unit| unit == u16::from(b'\\')).filter(|part| !part.is_empty()).collect();
    let mut text = volume.to_vec();
    text.push(u16::from(b'\\'));
    let mut context: PVOID = std::ptr::null_mut();
    let mut result = Ok(());
    for (index, part) in parts.iter().enumerate() {
        match component(query, instance, &text, opened.volume, part, &raw mut context) {
            Ok(name) => text.extend(name),
            // What a create is about to make does not exist yet.
            Err(NtStatus::NO_SUCH_FILE) if index + 1 == parts.len() => text.extend(*part),
            Err(status) => {
                result = Err(status);
                break;
            }
        }
        if index + 1 != parts.len() {
            text.push(u16::from(b'\\'));
        }
    }
    if let Some(cleanup) = callbacks.cleanup.filter(|_| !context.is_null()) {
        let context_at = &raw mut context;
        let thread = query.call.thread();
        let _stopped = thread.call_driver(&instance.filter.driver, "NormalizeContextCleanupCallback", 0, || {
            // SAFETY: the driver registered the function with this signature, and is loaded.
            unsafe { cleanup(context_at) }
        });
    }
    result?;
    text.extend(stream);
    Ok(Name { text, volume: opened.volume })
}

/// One part, below `parent`.
fn component(
    query: &Query<'_>,
    instance: &Arc<Instance>,
    parent: &[u16],
    volume: usize,
    part: &[u16],
    context: *mut PVOID,
) -> Result<Vec<u16>, NtStatus> {
    let callbacks = instance.filter.registration.provider.ok_or(NtStatus::NOT_SUPPORTED)?;
    let string = |text: &[u16]| UNICODE_STRING::from_utf16(text).ok_or(NtStatus::OBJECT_NAME_INVALID);
    let (parent, part) = (string(parent)?, string(part)?);
    let (parent_at, part_at) = (&raw const parent, &raw const part);
    let volume = (volume * 2) as u16;
    let mut answer = [0u32; 256];
    let length = size_of_val(&answer) as u32;
    let out: PVOID = answer.as_mut_ptr().cast();
    let pointer = Raw::at(instance.address).pointer();
    let file = Raw::<FILE_OBJECT>::at(query.subject.file).pointer();
    let thread = query.call.thread();
    let status = thread.call_driver(&instance.filter.driver, "NormalizeNameComponentCallback", 0, || {
        match (callbacks.normalize_ex, callbacks.normalize) {
            // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
            (Some(ex), _) => unsafe { ex(pointer, file, parent_at, volume, part_at, out, length, 0, context) },
            // SAFETY: as above.
            (None, Some(plain)) => unsafe { plain(pointer, parent_at, volume, part_at, out, length, 0, context) },
            (None, None) => NtStatus::NOT_SUPPORTED,
        }
    });
    status.unwrap_or(MACHINE_STOPPED).ok()?;
    let bytes: Vec<u8> = answer.iter().flat_map(|word| word.to_le_bytes()).collect();
    // FILE_NAMES_INFORMATION::FileNameLength.
    let name = bytes.get(NAMES_HEADER..NAMES_HEADER + answer[2] as usize).ok_or(NtStatus::BUFFER_TOO_SMALL)?;
    Ok(name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// An FLT_NAME_CONTROL for a provider to fill.
struct Control<'a> {
    call: &'a Call,
    address: usize,
}

impl<'a> Control<'a> {
    fn new(call: &'a Call) -> Result<Self, NtStatus> {
        let arena = call.machine().nt.arena();
        let place = || arena.allocate(1, Access::ReadWrite).ok_or(NtStatus::INSUFFICIENT_RESOURCES);
        let (address, buffer) = (place()?, place()?);
        // The buffer ends where its page ends, so that a name that does not fit faults.
        let start = buffer + PAGE - usize::from(FIRST_BUFFER);
        let name = UNICODE_STRING { Length: 0, MaximumLength: FIRST_BUFFER, Buffer: Raw::at(start).pointer() };
        field!(Raw::<FLT_NAME_CONTROL>::at(address), FLT_NAME_CONTROL, Name).write(name);
        call.machine().flt.names.lock().controls.insert(address, (buffer, 1));
        Ok(Self { call, address })
    }

    fn text(&self) -> Vec<u16> {
        let name = field!(Raw::<FLT_NAME_CONTROL>::at(self.address), FLT_NAME_CONTROL, Name).read();
        Raw::of(name.Buffer).read_slice(usize::from(name.Length / 2))
    }
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        let arena = self.call.machine().nt.arena();
        if let Some((buffer, pages)) = self.call.machine().flt.names.lock().controls.remove(&self.address) {
            arena.release(buffer, pages);
        }
        arena.release(self.address, 1);
    }
}

extern "efiapi" fn flt_check_and_grow_name_control(control: Raw<FLT_NAME_CONTROL>, size: u16) -> NtStatus {
    let call = Call::enter();
    let arena = call.machine().nt.arena();
    let known = call.machine().flt.names.lock().controls.get(&control.address()).copied();
    let Some((buffer, pages)) = known else {
        call.stop(Rule::BadArgument, format!("{control:?} is no FLT_NAME_CONTROL of a callback that is under way"));
    };
    let name = field!(control, FLT_NAME_CONTROL, Name);
    let old = name.read();
    let run = buffer..buffer + pages * PAGE;
    if !run.contains(&Raw::of(old.Buffer).address()) {
        call.stop(Rule::BadState, "the buffer of an FLT_NAME_CONTROL was replaced by the filter");
    }
    if old.MaximumLength >= size {
        return NtStatus::SUCCESS;
    }
    let wanted = pages_for(usize::from(size));
    let Some(grown) = arena.allocate(wanted, Access::ReadWrite) else { return NtStatus::INSUFFICIENT_RESOURCES };
    let start = grown + wanted * PAGE - usize::from(size).next_multiple_of(2);
    let kept = Raw::of(old.Buffer).cast::<u8>().read_bytes(usize::from(old.Length));
    Raw::<u8>::at(start).write_bytes(&kept);
    name.write(UNICODE_STRING { Length: old.Length, MaximumLength: size, Buffer: Raw::at(start).pointer() });
    call.machine().flt.names.lock().controls.insert(control.address(), (grown, wanted));
    arena.release(buffer, pages);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_purge_file_name_information_cache(instance: usize, file: Raw<FILE_OBJECT>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let mut state = call.machine().flt.names.lock();
    state.cache.retain(|key, _| {
        let of_file = file.is_null() || key.file == file.address();
        !(key.provider == instance.address && of_file)
    });
    NtStatus::SUCCESS
}
