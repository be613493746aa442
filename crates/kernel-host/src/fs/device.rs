//! Volumes and files as kernel objects: the device that a name leads to, and the file object of each open.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use nt_types::{DEVICE_OBJECT, FILE_OBJECT, FileObjectFlags, NtStatus, UNICODE_STRING};

use super::access::Subject;
use super::create::Created;
use super::open::Open;
use super::options::option;
use super::volume::Volume;
use crate::machine::Inner;
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::parse::ParseRequest;
use crate::nt::raw::{Raw, field};
use crate::process::{Process, Token};

/// `FILE_DEVICE_DISK_FILE_SYSTEM`.
pub(crate) const DISK_FILE_SYSTEM: u32 = 8;

/// Payload of a volume's device object.
#[derive(Debug)]
pub(crate) struct VolumeDevice {
    pub(crate) volume: Arc<Volume>,
    pub(crate) machine: Weak<Inner>,
}

impl ObjectBody for VolumeDevice {
    fn type_name(&self) -> &'static str {
        "Device"
    }

    fn parse(&self, device: &ObjectRef, request: &ParseRequest<'_>) -> Result<ObjectRef, NtStatus> {
        let machine = self.machine.upgrade().ok_or(NtStatus::NO_SUCH_DEVICE)?;
        let open = super::io::OpenParameters::from_parse(request);
        super::io::create(&machine, device, request.rest, &open, None).map(|(file, _)| file)
    }
}

/// Fills a volume's device object.
pub(crate) fn initialise_device(body: usize) {
    let device = Raw::<DEVICE_OBJECT>::at(body);
    field!(device, DEVICE_OBJECT, Type).write(3);
    field!(device, DEVICE_OBJECT, Size).write(size_of::<DEVICE_OBJECT>() as u16);
    field!(device, DEVICE_OBJECT, DeviceType).write(DISK_FILE_SYSTEM);
    field!(device, DEVICE_OBJECT, StackSize).write(1);
    field!(device, DEVICE_OBJECT, SectorSize).write(512);
}

/// Payload of a file object.
#[derive(Debug)]
pub(crate) struct File {
    machine: Weak<Inner>,
    /// The volume's device; keeps it alive.
    device: ObjectRef,
    /// Set when the create has succeeded.
    open: OnceLock<Arc<Open>>,
    /// The name as it was given, behind `FILE_OBJECT::FileName`.
    name: Box<[u16]>,
    /// The name that a driver put in its place, and that `FILE_OBJECT::FileName` leads to since.
    replaced: Mutex<Option<Box<[u16]>>>,
    information: AtomicUsize,
    /// One more than the `IO_PRIORITY_HINT` that a filter gave the file object; 0 for none.
    pub(crate) io_priority: AtomicU8,
}

impl File {
    /// Makes a file object for an open that is on its way.
    pub(crate) fn create_object(machine: &Arc<Inner>, device: &ObjectRef, name: &[u16]) -> Result<ObjectRef, NtStatus> {
        let name: Box<[u16]> = name.into();
        let text = UNICODE_STRING::from_utf16(&name).ok_or(NtStatus::OBJECT_NAME_INVALID)?;
        let payload = Arc::new(Self {
            machine: Arc::downgrade(machine),
            device: device.clone(),
            open: OnceLock::new(),
            name,
            replaced: Mutex::default(),
            information: AtomicUsize::new(0),
            io_priority: AtomicU8::new(0),
        });
        let object = machine.nt.objects().create(size_of::<FILE_OBJECT>(), payload)?;
        let body = Raw::<FILE_OBJECT>::at(object.body());
        field!(body, FILE_OBJECT, Type).write(5);
        field!(body, FILE_OBJECT, Size).write(const { size_of::<FILE_OBJECT>() as u16 }.cast_signed());
        field!(body, FILE_OBJECT, DeviceObject).write(Raw::<DEVICE_OBJECT>::at(device.body()).pointer());
        field!(body, FILE_OBJECT, FileName).write(text);
        Ok(object)
    }

    /// The open behind a file object; an error before the create succeeded.
    pub(crate) fn open(&self) -> Result<&Arc<Open>, NtStatus> {
        self.open.get().ok_or(NtStatus::INVALID_DEVICE_REQUEST)
    }

    /// The volume, as long as it is mounted.
    pub(crate) fn volume(&self) -> Option<Arc<Volume>> {
        let device = self.device.payload::<VolumeDevice>()?;
        (!device.volume.is_dismounted()).then(|| Arc::clone(&device.volume))
    }

    /// The volume's device.
    pub(crate) fn device(&self) -> &ObjectRef {
        &self.device
    }

    /// The name given to the open, or by the driver that replaced it since.
    pub(crate) fn name_given(&self) -> Vec<u16> {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.as_ref().unwrap_or(&self.name).to_vec()
    }

    /// Gives the file object at `body`, which is this one, another name.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for one without a name, or a name that is too long.
    pub(crate) fn replace_name(&self, body: usize, name: &[u16]) -> Result<(), NtStatus> {
        let now = field!(Raw::<FILE_OBJECT>::at(body), FILE_OBJECT, FileName);
        if now.read().Length == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let name: Box<[u16]> = name.into();
        now.write(UNICODE_STRING::from_utf16(&name).ok_or(NtStatus::INVALID_PARAMETER)?);
        // The name before is nobody's any more.
        *self.replaced.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
        Ok(())
    }

    /// The create has succeeded: connects the file object with the file system's structures.
    pub(crate) fn attach(&self, object: &ObjectRef, created: &Created) {
        let open = &created.open;
        self.information.store(created.information, Ordering::Relaxed);
        let body = Raw::<FILE_OBJECT>::at(object.body());
        let mut flags = FileObjectFlags::CACHE_SUPPORTED | FileObjectFlags::FILE_OPEN;
        if open.is_synchronous() {
            flags |= FileObjectFlags::SYNCHRONOUS_IO;
        }
        for (option, flag) in [
            (option::NO_INTERMEDIATE_BUFFERING, FileObjectFlags::NO_INTERMEDIATE_BUFFERING),
            (option::DELETE_ON_CLOSE, FileObjectFlags::DELETE_ON_CLOSE),
        ] {
            if open.options & option != 0 {
                flags |= flag;
            }
        }
        if open.stream.kind == super::stream::Kind::Volume {
            flags |= FileObjectFlags::VOLUME_OPEN;
        }
        field!(body, FILE_OBJECT, FsContext).write(Arc::as_ptr(&open.stream).cast_mut().cast());
        field!(body, FILE_OBJECT, FsContext2).write(Arc::as_ptr(open).cast_mut().cast());
        let sections = open.stream.sections.0.get();
        sections.expose_provenance();
        field!(body, FILE_OBJECT, SectionObjectPointer).write(sections);
        field!(body, FILE_OBJECT, Flags).write(flags.bits());
        field!(body, FILE_OBJECT, ReadAccess).write(open.share.read.into());
        field!(body, FILE_OBJECT, WriteAccess).write(open.share.write.into());
        field!(body, FILE_OBJECT, DeleteAccess).write(open.share.delete.into());
        field!(body, FILE_OBJECT, SharedRead).write(open.share.shared_read.into());
        field!(body, FILE_OBJECT, SharedWrite).write(open.share.shared_write.into());
        field!(body, FILE_OBJECT, SharedDelete).write(open.share.shared_delete.into());
        // A file object gets one open in its life.
        let _ = self.open.set(Arc::clone(open));
    }
}

impl ObjectBody for File {
    fn type_name(&self) -> &'static str {
        "File"
    }

    fn create_information(&self) -> Option<usize> {
        Some(self.information.load(Ordering::Relaxed))
    }

    fn on_last_handle_close(&self, object: &ObjectRef, _process: &Arc<Process>) {
        let Some(open) = self.open.get() else { return };
        super::io::cleanup(self.machine.upgrade().as_ref(), object, open);
    }

    fn on_delete(&self, body: usize) {
        if let (Some(open), Some(machine)) = (self.open.get(), self.machine.upgrade()) {
            super::io::close(&machine, body, open);
        }
    }
}

/// On whose behalf `process` opens in `mode`.
pub(crate) fn subject(process: &Process, check: bool) -> Subject {
    match crate::nt::security::impersonation::effective_kind(process) {
        _ if !check => Subject::Kernel,
        Token::System => Subject::System,
        Token::Administrator => Subject::Administrator,
        Token::User => Subject::User,
    }
}
