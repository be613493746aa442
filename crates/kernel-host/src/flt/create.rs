//! FltCreateFile, FltCreateFileEx, FltCreateFileEx2 and FltClose.

use std::sync::Arc;

use nt_types::{
    AccessMask, FILE_OBJECT, FileObjectFlags, IO_STATUS_BLOCK, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags,
    UNICODE_STRING,
};

use super::Instance;
use super::ecp::Attached;
use super::flight::Stage;
use super::object;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::device::{File, VolumeDevice};
use crate::fs::io::{self, OpenParameters};
use crate::fs::options::option;
use crate::nt::handles::{Opener, is_kernel_handle};
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::nt::{current_process, unicode};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCreateFile(max 0, fails IO) = flt_create_file;
    FltCreateFileEx(max 0, fails IO) = flt_create_file_ex;
    FltCreateFileEx2(max 0, fails IO) = flt_create_file_ex2;
    FltOpenVolume(max 0, fails IO) = flt_open_volume;
    FltCancelFileOpen(max 0) = flt_cancel_file_open;
    FltClose(max 0) = flt_close;
}

/// The parameters that all three forms share.
struct Arguments {
    filter: usize,
    instance: usize,
    handle: Raw<usize>,
    file_object: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    flags: u32,
    allocation_size: Raw<i64>,
    ea: (usize, u32),
    /// An ECP_LIST of the caller's.
    ecps: usize,
}

extern "efiapi" fn flt_create_file(
    filter: usize,
    instance: usize,
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
    allocation_size: Raw<i64>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    ea_buffer: usize,
    ea_length: u32,
    flags: u32,
) -> NtStatus {
    let file_object = Raw::NULL;
    create(
        Arguments {
            filter,
            instance,
            handle,
            file_object,
            access,
            attributes,
            io_status,
            file_attributes,
            share,
            disposition,
            options,
            flags,
            allocation_size,
            ea: (ea_buffer, ea_length),
            ecps: 0,
        },
        0,
    )
}

extern "efiapi" fn flt_create_file_ex(
    filter: usize,
    instance: usize,
    handle: Raw<usize>,
    file_object: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
    allocation_size: Raw<i64>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    ea_buffer: usize,
    ea_length: u32,
    flags: u32,
) -> NtStatus {
    create(
        Arguments {
            filter,
            instance,
            handle,
            file_object,
            access,
            attributes,
            io_status,
            file_attributes,
            share,
            disposition,
            options,
            flags,
            allocation_size,
            ea: (ea_buffer, ea_length),
            ecps: 0,
        },
        0,
    )
}

extern "efiapi" fn flt_create_file_ex2(
    filter: usize,
    instance: usize,
    handle: Raw<usize>,
    file_object: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
    allocation_size: Raw<i64>,
    file_attributes: u32,
    share: u32,
    disposition: u32,
    options: u32,
    ea_buffer: usize,
    ea_length: u32,
    flags: u32,
    driver_context: usize,
) -> NtStatus {
    create(
        Arguments {
            filter,
            instance,
            handle,
            file_object,
            access,
            attributes,
            io_status,
            file_attributes,
            share,
            disposition,
            options,
            flags,
            allocation_size,
            ea: (ea_buffer, ea_length),
            ecps: 0,
        },
        driver_context,
    )
}

fn create(mut arguments: Arguments, driver_context: usize) -> NtStatus {
    let call = Call::enter();
    if driver_context != 0 {
        let Some(ecps) = check_context(&call, Raw::at(driver_context)) else {
            let status = NtStatus::INVALID_PARAMETER;
            arguments.io_status.write(IO_STATUS_BLOCK::new(status, 0));
            return status;
        };
        arguments.ecps = ecps;
    }
    let (status, information) = match open(&call, &arguments) {
        Ok(information) => (NtStatus::SUCCESS, information),
        Err(status) => (status, 0),
    };
    arguments.io_status.write(IO_STATUS_BLOCK::new(status, information));
    status
}

/// `IO_DRIVER_CREATE_CONTEXT`.
#[repr(C)]
#[derive(Clone, Copy)]
struct DriverCreateContext {
    size: u16,
    extra_create_parameter: usize,
    device_object_hint: usize,
    transaction_parameters: usize,
}

/// The ECP_LIST of a driver context, `None` when it is no driver context; stops where it asks for what is not there.
fn check_context(call: &Call, context: Raw<DriverCreateContext>) -> Option<usize> {
    let size = context.cast::<u16>().read();
    if usize::from(size) < size_of::<DriverCreateContext>() {
        // IoInitializeDriverCreateContext was forgotten.
        return None;
    }
    let context = context.read();
    for (given, what) in
        [(context.device_object_hint, "a device object hint"), (context.transaction_parameters, "transactions")]
    {
        if given != 0 {
            call.stop(Rule::NotImplemented, format!("kernel-host does not support {what} in creates yet"));
        }
    }
    Some(context.extra_create_parameter)
}

fn open(call: &Call, arguments: &Arguments) -> Result<usize, NtStatus> {
    let machine = call.machine();
    let filter = object::filter(call, arguments.filter);
    let instance = (arguments.instance != 0).then(|| object::instance(call, arguments.instance));
    if instance.as_ref().is_some_and(|instance| !Arc::ptr_eq(&instance.filter, &filter)) {
        call.stop(Rule::BadArgument, "the instance belongs to another filter");
    }
    let attributes = arguments.attributes.some().ok_or(NtStatus::INVALID_PARAMETER)?.read();
    if attributes.Length as usize != size_of::<OBJECT_ATTRIBUTES>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let process = current_process(call);
    let kernel_handle = attributes.Attributes & ObjectFlags::KERNEL_HANDLE.bits() != 0;
    if !kernel_handle && !process.is_system() {
        call.stop(
            Rule::BadArgument,
            format!("OBJ_KERNEL_HANDLE is missing in the context of {process:?}: the handle would be that process's"),
        );
    }
    let parameters = OpenParameters {
        file_attributes: arguments.file_attributes,
        share: arguments.share,
        disposition: arguments.disposition,
        options: arguments.options,
        object_flags: attributes.Attributes,
        io_flags: arguments.flags,
        allocation_size: arguments.allocation_size.some().map(Raw::read),
        ea: if arguments.ea.1 == 0 { (0, 0) } else { arguments.ea },
        ecps: if arguments.ecps == 0 { Arc::default() } else { Arc::new(Attached::given(machine, arguments.ecps)?) },
        ..OpenParameters::new(&process, KERNEL_MODE, arguments.access)
    };
    let (object, information) = if arguments.options & option::OPEN_BY_FILE_ID != 0 {
        let (related, id) = by_id(call, &attributes)?;
        check_volume(instance.as_ref(), &related)?;
        io::create_by_id(machine, &related, &id, &parameters, instance.as_ref())?
    } else {
        let path = full_path(call, &attributes)?;
        call.detail(&path);
        check_target(call, instance.as_ref(), &path)?;
        io::open_by_name(machine, &path, &parameters, instance.as_ref())?
    };
    call.thread().leave_if_stopped();
    io::handle_made(&object);
    let owner = if kernel_handle { machine.nt.system_process(machine) } else { &process };
    let granted = object.payload::<File>().and_then(|file| file.open().ok().map(|open| open.granted.bits()));
    let opener = Some(Opener::of(call.site()));
    let handle = owner.handles().insert(&object, granted.unwrap_or(arguments.access), opener);
    arguments.handle.write(handle);
    if let Some(out) = arguments.file_object.some() {
        out.write(machine.nt.objects().give(&object, call));
    }
    Ok(information)
}

/// FILE_OPEN_BY_FILE_ID: an open file of the volume, and the 8 or 16 bytes that stand in the name's place.
fn by_id(call: &Call, attributes: &OBJECT_ATTRIBUTES) -> Result<(ObjectRef, Vec<u16>), NtStatus> {
    let id = unicode::units(Raw::<UNICODE_STRING>::of(attributes.ObjectName));
    let root = attributes.RootDirectory.addr();
    if root == 0 {
        return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
    }
    let process = current_process(call).table_of(root, KERNEL_MODE)?;
    let entry = process.handles().reference(root, 0, Some("File"))?;
    Ok((entry.object.clone(), id))
}

/// An id is looked up on the instance's volume only.
fn check_volume(instance: Option<&Arc<Instance>>, related: &ObjectRef) -> Result<(), NtStatus> {
    let Some(instance) = instance else { return Ok(()) };
    let (_, open) = io::opened(related)?;
    let same = Arc::ptr_eq(&open.volume, &instance.volume.volume);
    if same { Ok(()) } else { Err(NtStatus::INVALID_DEVICE_OBJECT_PARAMETER) }
}

/// The whole path, from the root directory where there is one.
pub(super) fn full_path(call: &Call, attributes: &OBJECT_ATTRIBUTES) -> Result<String, NtStatus> {
    let name = unicode::name(Raw::<UNICODE_STRING>::of(attributes.ObjectName))?;
    let root = attributes.RootDirectory.addr();
    if root == 0 {
        // No root directory, and a name that is empty or does not start at the root.
        return if name.starts_with('\\') { Ok(name) } else { Err(NtStatus::OBJECT_PATH_SYNTAX_BAD) };
    }
    if name.starts_with('\\') {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let process = current_process(call).table_of(root, KERNEL_MODE)?;
    let entry = process.handles().reference(root, 0, Some("File"))?;
    let (file, open) = io::opened(&entry.object)?;
    let volume = file.volume().ok_or(NtStatus::VOLUME_DISMOUNTED)?;
    let folder = String::from_utf16_lossy(&open.name());
    let joint = if name.is_empty() || name.starts_with(':') || folder.ends_with('\\') { "" } else { "\\" };
    Ok(format!("{}{folder}{joint}{name}", volume.device_name()))
}

/// The name has to lead to the volume of the instance: a create cannot start in the middle of another stack.
fn check_target(call: &Call, instance: Option<&Arc<Instance>>, path: &str) -> Result<(), NtStatus> {
    let Some(instance) = instance else { return Ok(()) };
    let found = call.machine().nt.objects().namespace().lookup(path)?;
    let volume = found.object.payload::<VolumeDevice>();
    let same = volume.is_some_and(|device| Arc::ptr_eq(&device.volume, &instance.volume.volume));
    if same { Ok(()) } else { Err(NtStatus::INVALID_DEVICE_OBJECT_PARAMETER) }
}

extern "efiapi" fn flt_open_volume(instance: usize, handle: Raw<usize>, file_object: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let machine = call.machine();
    let system = machine.nt.system_process(machine);
    let access = AccessMask::FILE_READ_DATA | AccessMask::FILE_WRITE_DATA | AccessMask::SYNCHRONIZE;
    let mut parameters = OpenParameters::new(system, KERNEL_MODE, access.bits());
    parameters.options = option::SYNCHRONOUS_IO_NONALERT;
    let path = instance.volume.volume.device_name();
    call.detail(&path);
    let opened = io::open_by_name(machine, &path, &parameters, Some(&instance));
    call.thread().leave_if_stopped();
    match opened {
        Ok((object, _)) => {
            io::handle_made(&object);
            handle.write(system.handles().insert(&object, access.bits(), Some(Opener::of(call.site()))));
            if let Some(out) = file_object.some() {
                out.write(machine.nt.objects().give(&object, &call));
            }
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn flt_cancel_file_open(instance: usize, file: Raw<FILE_OBJECT>) {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let (object, payload) = file_object(&call, file);
    let flags = field!(file, FILE_OBJECT, Flags);
    if flags.read() & FileObjectFlags::HANDLE_CREATED.bits() != 0 {
        call.stop(Rule::BadState, "a handle was made for the file already: FltCancelFileOpen comes too late");
    }
    let flight = call.machine().flt.creating(file.address());
    let Some(flight) = flight.filter(|flight| flight.is_in(Stage::Post) && flight.last_instance() == instance.address)
    else {
        call.stop(Rule::BadState, "FltCancelFileOpen is for the instance's post-create callback only");
    };
    if let Ok(open) = payload.open() {
        flight.open_cancelled.store(true, std::sync::atomic::Ordering::Release);
        flags.write(flags.read() | FileObjectFlags::FILE_OPEN_CANCELLED.bits());
        io::cleanup_below(call.machine(), &object, open, &instance);
        call.thread().leave_if_stopped();
    }
}

extern "efiapi" fn flt_close(handle: usize) -> NtStatus {
    let call = Call::enter();
    let machine = call.machine();
    let process = current_process(&call);
    let owner = if is_kernel_handle(handle) { Arc::clone(machine.nt.system_process(machine)) } else { process };
    let Some(entry) = owner.handles().entry(handle) else {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no open handle; it was closed before, or never opened"));
    };
    let opened_by_flt = entry
        .opener
        .as_ref()
        .is_some_and(|opener| opener.ddi.starts_with("FltCreateFile") || opener.ddi == "FltOpenVolume");
    if !opened_by_flt {
        let ddi = entry.opener.as_ref().map_or("user mode", |opener| opener.ddi);
        call.stop(
            Rule::BadArgument,
            format!("{handle:#x} comes from {ddi}; FltClose is for handles from FltCreateFile* and FltOpenVolume"),
        );
    }
    if let Ok(file) = entry.object.payload::<File>().ok_or(()) {
        call.detail_of(|| String::from_utf16_lossy(&file.name_given()));
    }
    // The entry holds a reference of its own; it goes first, so that the close is the last use where it should be.
    drop(entry);
    match owner.handles().close(handle, &owner) {
        Ok(()) => NtStatus::SUCCESS,
        Err(status) => status,
    }
}

/// The file object that a driver passes; stops when it is none.
pub(super) fn file_object(call: &Call, address: Raw<FILE_OBJECT>) -> (ObjectRef, Arc<File>) {
    let object = call.machine().nt.objects().lookup(address.address());
    let Some((object, file)) = object.and_then(|object| object.payload::<File>().map(|file| (object, file))) else {
        call.stop(Rule::BadArgument, format!("{address:?} is no file object (any more)"));
    };
    let kind = field!(address, FILE_OBJECT, Type).read();
    if kind != 5 {
        call.stop(Rule::PoolCorruption, format!("the file object at {address:?} was overwritten: type {kind}"));
    }
    (object, file)
}
