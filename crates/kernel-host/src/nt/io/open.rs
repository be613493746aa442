//! Opening by name: `ZwCreateFile`, `IoGetDeviceObjectPointer`, and programs' own opens.

use std::sync::Arc;

use nt_types::{
    DEVICE_OBJECT, FILE_OBJECT, FILE_OPENED, IO_STATUS_BLOCK, KERNEL_MODE, KPROCESSOR_MODE, NtStatus,
    OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING, USER_MODE,
};

use super::file::in_context;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::{make_handle, open_entry};
use crate::nt::parse::{FileOpen, ParseRequest};
use crate::nt::raw::{Raw, field};
use crate::nt::{current_process, unicode};
use crate::process::Process;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwCreateFile(max 0, fails IO) = zw_create_file;
    ZwOpenFile(max 0, fails IO) = zw_open_file;
    NtCreateFile(max 0, fails IO) = zw_create_file;
    NtOpenFile(max 0, fails IO) = zw_open_file;
    IoGetDeviceObjectPointer(max 0, fails RESOURCES) = io_get_device_object_pointer;
}

/// Opens what `path` names, the way NT's object manager does: the namespace first, the object's own parse routine then.
///
/// # Errors
/// Those of [`Namespace::lookup`](crate::nt::namespace::Namespace::lookup), and the object's.
pub(crate) fn open_path(machine: &Arc<Inner>, request: &ParseRequest<'_>) -> Result<ObjectRef, NtStatus> {
    let found = machine.nt.objects().namespace().lookup(request.full_path)?;
    let request = ParseRequest { rest: &found.rest, ..*request };
    found.object.any_payload().parse(&found.object, &request)
}

impl Process {
    /// Opens a device or a file by its NT path (`\??\FwBroker`), in user mode and with this process's rights.
    ///
    /// The result is a handle of this process; [`close_handle`](Self::close_handle) closes it.
    ///
    /// # Errors
    /// The status that `NtOpenFile` would return.
    pub fn open(self: &Arc<Self>, path: &str, desired_access: u32) -> Result<usize, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        let request = ParseRequest {
            rest: "",
            full_path: path,
            process: self,
            mode: USER_MODE,
            desired_access,
            attributes: ObjectFlags::CASE_INSENSITIVE.bits(),
            file: Some(FileOpen { disposition: nt_types::FILE_OPEN, ..FileOpen::default() }),
        };
        let object =
            Thread::enter(&machine, |thread| in_context(thread, Some(self), || open_path(&machine, &request)))?;
        Ok(self.handles().insert(&object, desired_access, None))
    }
}

pub(super) extern "efiapi" fn zw_create_file(
    handle: Raw<usize>,
    desired_access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    status_block: Raw<IO_STATUS_BLOCK>,
    allocation_size: Raw<i64>,
    file_attributes: u32,
    share_access: u32,
    disposition: u32,
    options: u32,
    ea_buffer: usize,
    ea_length: u32,
) -> NtStatus {
    let call = Call::enter();
    let allocation_size = allocation_size.some().map(Raw::read);
    let ea = (ea_buffer, ea_length);
    let file = FileOpen { file_attributes, share_access, disposition, options, allocation_size, ea, io_flags: 0 };
    create_file(&call, handle, desired_access, attributes, status_block, file, false)
}

extern "efiapi" fn zw_open_file(
    handle: Raw<usize>,
    desired_access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    status_block: Raw<IO_STATUS_BLOCK>,
    share_access: u32,
    options: u32,
) -> NtStatus {
    let call = Call::enter();
    let file = FileOpen { share_access, options, disposition: nt_types::FILE_OPEN, ..FileOpen::default() };
    create_file(&call, handle, desired_access, attributes, status_block, file, false)
}

/// Opens or creates a file for a driver, and gives a handle to it; with access checked as for a program if `force` says so.
pub(super) fn create_file(
    call: &Call,
    handle: Raw<usize>,
    desired_access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    status_block: Raw<IO_STATUS_BLOCK>,
    file: FileOpen,
    force: bool,
) -> NtStatus {
    let opened = open_checked(call, attributes, desired_access, file, force);
    let attributes = attributes.read();
    match opened {
        Ok(object) => {
            let information = object.any_payload().create_information().unwrap_or(FILE_OPENED);
            handle.write(make_handle(call, &object, desired_access, attributes.Attributes));
            status_block.write(IO_STATUS_BLOCK::new(NtStatus::SUCCESS, information));
            NtStatus::SUCCESS
        }
        Err(status) => {
            call.thread().leave_if_stopped();
            status
        }
    }
}

/// Opens what an `OBJECT_ATTRIBUTES` names, for a driver.
///
/// # Errors
/// As for [`open_path`].
pub(super) fn open_by_attributes(
    call: &Call,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    desired_access: u32,
    file: FileOpen,
) -> Result<ObjectRef, NtStatus> {
    open_checked(call, attributes, desired_access, file, false)
}

/// As [`open_by_attributes`], with access checked also where only `force` says so.
fn open_checked(
    call: &Call,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    desired_access: u32,
    file: FileOpen,
    force: bool,
) -> Result<ObjectRef, NtStatus> {
    if attributes.is_null() {
        call.stop(Rule::BadArgument, "ObjectAttributes is NULL");
    }
    let attributes = attributes.read();
    let process = current_process(call);
    let check = force || attributes.Attributes & ObjectFlags::FORCE_ACCESS_CHECK.bits() != 0;
    full_path(call, &attributes).and_then(|path| {
        call.detail(path.as_str());
        let request = ParseRequest {
            rest: "",
            full_path: &path,
            process: &process,
            mode: if check { USER_MODE } else { KERNEL_MODE },
            desired_access,
            attributes: attributes.Attributes,
            file: Some(file),
        };
        open_path(call.machine(), &request)
    })
}

/// The path that an `OBJECT_ATTRIBUTES` names, relative to its root directory if it has one.
pub(super) fn full_path(call: &Call, attributes: &OBJECT_ATTRIBUTES) -> Result<String, NtStatus> {
    if attributes.Length as usize != size_of::<OBJECT_ATTRIBUTES>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let name = unicode::name(Raw::of(attributes.ObjectName))?;
    if attributes.RootDirectory.is_null() {
        return Ok(name);
    }
    let mode: KPROCESSOR_MODE = KERNEL_MODE;
    let root = open_entry(call, attributes.RootDirectory.addr(), 0, Some("File"), mode)?.object;
    if name.starts_with('\\') {
        return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
    }
    let file = Raw::<FILE_OBJECT>::at(root.body());
    let device = field!(file, FILE_OBJECT, DeviceObject).read().addr();
    let device = call.machine().nt.objects().lookup(device).and_then(|device| device.name());
    let device = device.ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)?;
    let folder = unicode::name(field!(file, FILE_OBJECT, FileName))?;
    Ok(format!("{device}{}\\{name}", folder.trim_end_matches('\\')))
}

pub(super) extern "efiapi" fn io_get_device_object_pointer(
    name: Raw<UNICODE_STRING>,
    desired_access: u32,
    file_object: Raw<usize>,
    device_object: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let system = Arc::clone(call.machine().nt.system_process(call.machine()));
    let opened = unicode::name(name).and_then(|path| {
        call.detail(path.as_str());
        let request = ParseRequest {
            rest: "",
            full_path: &path,
            process: &system,
            mode: KERNEL_MODE,
            desired_access,
            attributes: ObjectFlags::KERNEL_HANDLE.bits(),
            file: Some(FileOpen { disposition: nt_types::FILE_OPEN, ..FileOpen::default() }),
        };
        open_path(call.machine(), &request)
    });
    let object = match opened {
        Ok(object) if object.type_name() == "File" => object,
        Ok(_) => return NtStatus::OBJECT_TYPE_MISMATCH,
        Err(status) => {
            call.thread().leave_if_stopped();
            return status;
        }
    };
    // The documented way: a handle is opened, the object referenced, the handle closed, which the driver below sees as
    // IRP_MJ_CLEANUP although the file object lives on.
    let handle = system.handles().insert(&object, desired_access, None);
    call.machine().nt.objects().give(&object, &call);
    let closed = system.handles().close(handle, &system);
    debug_assert!(closed.is_ok(), "the handle was opened just now");
    let mut device = Raw::of(field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, DeviceObject).read());
    while let Some(above) = Raw::of(field!(device, DEVICE_OBJECT, AttachedDevice).read()).some() {
        device = above;
    }
    file_object.write(object.body());
    device_object.write(device.address());
    NtStatus::SUCCESS
}
