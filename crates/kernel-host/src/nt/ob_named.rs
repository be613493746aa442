//! Objects that have names, and handles to them: events, directories, symbolic links, duplicates.
//!
//! Pages: `ntifs/nf-ntifs-zwcreateevent`, `wdm/nf-wdm-zwcreatedirectoryobject`, `wdm/nf-wdm-zwquerysymboliclinkobject`,
//! `ntifs/nf-ntifs-zwduplicateobject`, `wdm/nf-wdm-zwmaketemporaryobject`, `ntifs/nf-ntifs-obquerynamestring`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nt_types::{FILE_OBJECT, HANDLE, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING};

use super::handles::Opener;
use super::ob::{ObjectBody, ObjectRef};
use super::ob_callbacks::{Duplication, Operation};
use super::ob_exports::{make_handle, open_entry};
use super::processes::process_of_handle;
use super::raw::{Raw, field};
use super::unicode;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::process::Process;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwCreateDirectoryObject(max 0, fails RESOURCES) = zw_create_directory_object;
    ZwOpenDirectoryObject(max 0, fails RESOURCES) = zw_open_directory_object;
    ZwOpenSymbolicLinkObject(max 0, fails RESOURCES) = zw_open_symbolic_link_object;
    ZwQuerySymbolicLinkObject(max 0) = zw_query_symbolic_link_object;
    ZwDuplicateObject(max 0, fails RESOURCES) = zw_duplicate_object;
    ZwMakeTemporaryObject(max 0) = zw_make_temporary_object;
    ObQueryNameString(max 1) = ob_query_name_string;
    ObIsKernelHandle(max 1) = ob_is_kernel_handle;
}

/// Bytes of bodies that drivers never look into.
const BODY_BYTES: usize = 16;

/// Whether a named object keeps its name without handles.
#[derive(Debug, Default)]
pub(super) struct Permanence(AtomicBool);

impl Permanence {
    pub(super) fn of(attributes: u32) -> Self {
        Self(AtomicBool::new(attributes & ObjectFlags::PERMANENT.bits() != 0))
    }

    /// The last handle was closed: a temporary object loses its name.
    pub(super) fn last_handle_closed(&self, object: &ObjectRef) {
        if !self.0.load(Ordering::Acquire) {
            object.unname();
        }
    }

    pub(super) fn end(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Payload of an object directory's handle.
#[derive(Debug)]
struct DirectoryBody {
    path: String,
    permanence: Permanence,
}

impl ObjectBody for DirectoryBody {
    fn type_name(&self) -> &'static str {
        "Directory"
    }

    fn on_last_handle_close(&self, object: &ObjectRef, _process: &Arc<Process>) {
        self.permanence.last_handle_closed(object);
    }

    fn make_temporary(&self) {
        self.permanence.end();
    }
}

/// Payload of an open symbolic link.
#[derive(Debug)]
struct LinkBody {
    target: String,
}

impl ObjectBody for LinkBody {
    fn type_name(&self) -> &'static str {
        "SymbolicLink"
    }
}

/// The path that an `OBJECT_ATTRIBUTES` names, from its root directory if it has one; `None` for an object without a name.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a wrong length, the name's, and the root's.
pub(super) fn path_of(call: &Call, attributes: Raw<OBJECT_ATTRIBUTES>) -> Result<Option<String>, NtStatus> {
    let Some(attributes) = attributes.some() else { return Ok(None) };
    let attributes = attributes.read();
    if attributes.Length as usize != size_of::<OBJECT_ATTRIBUTES>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if attributes.ObjectName.is_null() {
        return Ok(None);
    }
    let name = unicode::name(Raw::of(attributes.ObjectName))?;
    call.detail(name.as_str());
    if attributes.RootDirectory.is_null() {
        return Ok(Some(name));
    }
    let root = open_entry(call, attributes.RootDirectory.addr(), 0, Some("Directory"), KERNEL_MODE)?;
    let directory = root.object.payload::<DirectoryBody>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    if name.starts_with('\\') {
        Err(NtStatus::OBJECT_PATH_SYNTAX_BAD)
    } else {
        Ok(Some(format!("{}\\{name}", directory.path)))
    }
}

/// `OBJECT_ATTRIBUTES::Attributes`; 0 without.
pub(super) fn flags_of(attributes: Raw<OBJECT_ATTRIBUTES>) -> u32 {
    attributes.some().map_or(0, |attributes| field!(attributes, OBJECT_ATTRIBUTES, Attributes).read())
}

/// The object of type `T` that has a name.
///
/// # Errors
/// The namespace's; `STATUS_OBJECT_TYPE_MISMATCH` for an object of another type.
pub(super) fn named<T: ObjectBody>(machine: &Inner, path: &str) -> Result<ObjectRef, NtStatus> {
    let object = machine.nt.objects().namespace().lookup(path)?.object;
    if object.payload::<T>().is_some() { Ok(object) } else { Err(NtStatus::OBJECT_TYPE_MISMATCH) }
}

/// Gives a new object its name, if it has one. With `OBJ_OPENIF`, the object of the same type that has the name already takes its
/// place; whether it did.
///
/// # Errors
/// The namespace's, `STATUS_OBJECT_NAME_COLLISION` among them.
pub(super) fn name_or_open<T: ObjectBody>(
    machine: &Inner,
    object: ObjectRef,
    path: Option<&str>,
    flags: u32,
) -> Result<(ObjectRef, bool), NtStatus> {
    let Some(path) = path else { return Ok((object, false)) };
    match machine.nt.objects().namespace().insert_object(path, &object) {
        Err(NtStatus::OBJECT_NAME_COLLISION) if flags & ObjectFlags::OPENIF.bits() != 0 => {
            Ok((named::<T>(machine, path)?, true))
        }
        inserted => inserted.map(|()| (object, false)),
    }
}

/// Opens the object of type `T` that the attributes name.
pub(super) fn open_named<T: ObjectBody>(
    call: &Call,
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
) -> NtStatus {
    let found = path_of(call, attributes)
        .and_then(|path| named::<T>(call.machine(), path.as_deref().ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?));
    give(call, found, access, flags_of(attributes), handle)
}

fn give(call: &Call, made: Result<ObjectRef, NtStatus>, access: u32, flags: u32, handle: Raw<usize>) -> NtStatus {
    match made {
        Ok(object) => {
            handle.write(make_handle(call, &object, access, flags));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn zw_create_directory_object(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
) -> NtStatus {
    let call = Call::enter();
    let flags = flags_of(attributes);
    let namespace = call.machine().nt.objects().namespace();
    let made = path_of(&call, attributes).and_then(|path| {
        let path = path.ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        let opens = flags & ObjectFlags::OPENIF.bits() != 0;
        match namespace.insert_directory(&path) {
            Err(NtStatus::OBJECT_NAME_COLLISION) if opens && namespace.is_directory(&path) => {}
            other => other?,
        }
        let body = DirectoryBody { path: path.clone(), permanence: Permanence::of(flags) };
        let object = call.machine().nt.objects().create(BODY_BYTES, Arc::new(body))?;
        object.set_name(Some(path));
        Ok(object)
    });
    give(&call, made, access, flags, handle)
}

extern "efiapi" fn zw_open_directory_object(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
) -> NtStatus {
    let call = Call::enter();
    let namespace = call.machine().nt.objects().namespace();
    let found = path_of(&call, attributes).and_then(|path| {
        let path = path.ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        if !namespace.is_directory(&path) {
            return Err(namespace.lookup(&path).err().unwrap_or(NtStatus::OBJECT_TYPE_MISMATCH));
        }
        // Whoever only opens it does not end its name.
        let permanence = Permanence::of(ObjectFlags::PERMANENT.bits());
        call.machine().nt.objects().create(BODY_BYTES, Arc::new(DirectoryBody { path, permanence }))
    });
    give(&call, found, access, flags_of(attributes), handle)
}

pub(super) extern "efiapi" fn zw_open_symbolic_link_object(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
) -> NtStatus {
    let call = Call::enter();
    let found = path_of(&call, attributes).and_then(|path| {
        let path = path.ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        let target = call.machine().nt.objects().namespace().link_target(&path)?;
        call.machine().nt.objects().create(BODY_BYTES, Arc::new(LinkBody { target }))
    });
    give(&call, found, access, flags_of(attributes), handle)
}

pub(super) extern "efiapi" fn zw_query_symbolic_link_object(
    handle: HANDLE,
    target: Raw<UNICODE_STRING>,
    length: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let link = open_entry(&call, handle.addr(), 0, Some("SymbolicLink"), KERNEL_MODE)
        .and_then(|entry| entry.object.payload::<LinkBody>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH));
    let bytes = match link {
        Ok(link) => unicode::bytes_of(&link.target),
        Err(status) => return status,
    };
    length.write_if_some(bytes.len() as u32);
    if usize::from(field!(target, UNICODE_STRING, MaximumLength).read()) < bytes.len() {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    Raw::of(field!(target, UNICODE_STRING, Buffer).read().cast::<u8>()).write_bytes(&bytes);
    field!(target, UNICODE_STRING, Length).write(bytes.len() as u16);
    NtStatus::SUCCESS
}

/// `DUPLICATE_CLOSE_SOURCE`, `DUPLICATE_SAME_ACCESS`.
const CLOSE_SOURCE: u32 = 1;
const SAME_ACCESS: u32 = 2;

pub(super) extern "efiapi" fn zw_duplicate_object(
    source_process: HANDLE,
    source: HANDLE,
    target_process: HANDLE,
    target: Raw<usize>,
    access: u32,
    attributes: u32,
    options: u32,
) -> NtStatus {
    let call = Call::enter();
    let duplicated = duplicate(&call, (source_process, source), target_process, access, attributes, options);
    match duplicated {
        Ok(handle) => {
            target.write_if_some(handle.unwrap_or_default());
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

fn duplicate(
    call: &Call,
    (source_process, source): (HANDLE, HANDLE),
    target_process: HANDLE,
    access: u32,
    attributes: u32,
    options: u32,
) -> Result<Option<usize>, NtStatus> {
    let from = process_of_handle(call, source_process)?;
    let owner = from.table_of(source.addr(), KERNEL_MODE)?;
    let entry = owner.handles().reference(source.addr(), 0, None)?;
    let rights = if options & SAME_ACCESS != 0 { entry.access } else { access };
    let made = if target_process.is_null() {
        None
    } else {
        let to = process_of_handle(call, target_process)?;
        let kernel = attributes & ObjectFlags::KERNEL_HANDLE.bits() != 0;
        let system = call.machine().nt.system_process(call.machine());
        // What goes into a program's table is the program's to close.
        let opener = (kernel || to.is_system()).then(|| Opener::of(call.site()));
        let table = if kernel { system } else { &to };
        let between = Duplication { source: from.object(), target: to.object() };
        let object = &entry.object;
        let operation = Operation { object, access: rights, is_kernel: kernel, duplication: Some(between) };
        let made = operation.carry_out(call.thread(), |rights| table.handles().insert(object, rights, opener));
        call.thread().leave_if_stopped();
        Some(made)
    };
    if options & CLOSE_SOURCE != 0 {
        owner.handles().close(source.addr(), &from)?;
    }
    Ok(made)
}

pub(super) extern "efiapi" fn zw_make_temporary_object(handle: HANDLE) -> NtStatus {
    let call = Call::enter();
    match open_entry(&call, handle.addr(), 0, None, KERNEL_MODE) {
        Ok(entry) => {
            entry.object.any_payload().make_temporary();
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn ob_query_name_string(
    object: usize,
    information: Raw<UNICODE_STRING>,
    length: u32,
    needed: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let Some(found) = call.machine().nt.objects().lookup(object) else {
        call.stop(Rule::BadArgument, format!("{object:#x} is no object, or one that is deleted"));
    };
    // Not optional.
    needed.write(0);
    put_name(&name_of(&call, &found).unwrap_or_default(), information, length, needed)
}

/// Writes a string and, behind it, its characters: what calls return that name something. `needed` is optional.
pub(super) fn put_name(name: &str, information: Raw<UNICODE_STRING>, length: u32, needed: Raw<u32>) -> NtStatus {
    let name = unicode::bytes_of(name);
    let header = size_of::<UNICODE_STRING>();
    let terminator = if name.is_empty() { 0 } else { 2 };
    let bytes = header + name.len() + terminator;
    needed.write_if_some(bytes as u32);
    if (length as usize) < bytes {
        return NtStatus::INFO_LENGTH_MISMATCH;
    }
    let characters = information.field::<u8>(header);
    characters.write_bytes(&name);
    characters.field::<u8>(name.len()).fill(0, terminator);
    let buffer = if name.is_empty() { std::ptr::null_mut() } else { characters.cast().pointer() };
    let length = name.len() as u16;
    information.write(UNICODE_STRING { Length: length, MaximumLength: length + terminator as u16, Buffer: buffer });
    NtStatus::SUCCESS
}

/// The full name of an object: a file's begins with its device's.
pub(super) fn name_of(call: &Call, object: &ObjectRef) -> Option<String> {
    if object.type_name() != "File" {
        return object.name();
    }
    let file = Raw::<FILE_OBJECT>::at(object.body());
    let device = field!(file, FILE_OBJECT, DeviceObject).read().addr();
    let device = call.machine().nt.objects().lookup(device)?.name()?;
    Some(device + &unicode::name(field!(file, FILE_OBJECT, FileName)).ok()?)
}

extern "efiapi" fn ob_is_kernel_handle(handle: HANDLE) -> u8 {
    let _call = Call::enter();
    u8::from(super::handles::is_kernel_handle(handle.addr()))
}

#[cfg(test)]
mod tests;
