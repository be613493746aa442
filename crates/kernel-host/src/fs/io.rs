//! Requests on files, as they travel: through the filters attached to the volume, then to the file system.
//!
//! Each function takes the instance below which the request starts: `None` is the top of the stack, where programs and
//! Zw calls enter; a filter's own Flt calls start below its own instance and so never come back to it. [`Issue`] has what
//! they share; [`super::serve`] is where they arrive.

use std::sync::Arc;

use nt_types::{FILE_OBJECT, IrpFlags, KERNEL_MODE, KPROCESSOR_MODE, NtStatus, ObjectFlags, USER_MODE};

use super::device::{File, VolumeDevice};
use super::information::class;
use super::open::Open;
use super::options::io_flag;
use crate::flt::ecp::Attached;
use crate::flt::{self, Instance, Kind, Operation, major};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::parse::ParseRequest;
use crate::nt::raw::{Raw, field};
use crate::process::Process;

pub(crate) use super::create_io::{create, create_by_id, open_by_name};

/// Final status and `Information` of a request.
pub(crate) type Outcome = (NtStatus, usize);

/// What an open asks for, but for the name.
#[derive(Clone, Debug)]
pub(crate) struct OpenParameters {
    pub(crate) access: u32,
    pub(crate) file_attributes: u32,
    pub(crate) share: u32,
    pub(crate) disposition: u32,
    pub(crate) options: u32,
    /// `OBJ_*`.
    pub(crate) object_flags: u32,
    /// `IO_*`.
    pub(crate) io_flags: u32,
    pub(crate) mode: KPROCESSOR_MODE,
    /// Whose token counts.
    pub(crate) process: Arc<Process>,
    /// Address and bytes of a FILE_FULL_EA_INFORMATION list.
    pub(crate) ea: (usize, u32),
    /// Bytes to reserve for a new file.
    pub(crate) allocation_size: Option<i64>,
    /// The volume itself is opened.
    pub(crate) of_volume: bool,
    /// The file or folder that the name is relative to, where the name is a file id.
    pub(crate) related: Option<ObjectRef>,
    /// Extra create parameters; the same for all creates that a reparse leads to.
    pub(crate) ecps: Arc<Attached>,
}

impl OpenParameters {
    /// An open for `access` on behalf of `process`, with everything else as seldom-used parameters have it.
    pub(crate) fn new(process: &Arc<Process>, mode: KPROCESSOR_MODE, access: u32) -> Self {
        Self {
            access,
            file_attributes: 0,
            share: 7,
            disposition: super::options::disposition::OPEN,
            options: 0,
            object_flags: ObjectFlags::CASE_INSENSITIVE.bits(),
            io_flags: 0,
            mode,
            process: Arc::clone(process),
            ea: (0, 0),
            allocation_size: None,
            of_volume: false,
            related: None,
            ecps: Arc::default(),
        }
    }

    /// From NtCreateFile or NtOpenFile. An open that is neither (by the object manager alone) is one for attributes.
    pub(crate) fn from_parse(request: &ParseRequest<'_>) -> Self {
        let file = request.file.unwrap_or_default();
        let mut parameters = Self::new(request.process, request.mode, request.desired_access);
        parameters.object_flags = request.attributes;
        parameters.file_attributes = file.file_attributes;
        parameters.share = file.share_access;
        parameters.options = file.options;
        parameters.allocation_size = file.allocation_size;
        parameters.ea = if file.ea.1 == 0 { (0, 0) } else { file.ea };
        parameters.io_flags = file.io_flags;
        if request.file.is_some() {
            parameters.disposition = file.disposition;
        }
        parameters
    }

    pub(crate) fn checked(&self) -> bool {
        self.mode == USER_MODE
            || self.object_flags & ObjectFlags::FORCE_ACCESS_CHECK.bits() != 0
            || self.io_flags & io_flag::FORCE_ACCESS_CHECK != 0
    }

    /// `SL_*` flags of the create.
    pub(crate) fn operation_flags(&self) -> u8 {
        const SL_FORCE_ACCESS_CHECK: u8 = 0x01;
        const SL_OPEN_TARGET_DIRECTORY: u8 = 0x04;
        const SL_STOP_ON_SYMLINK: u8 = 0x08;
        const SL_CASE_SENSITIVE: u8 = 0x80;
        let forced = self.object_flags & ObjectFlags::FORCE_ACCESS_CHECK.bits() != 0
            || self.io_flags & io_flag::FORCE_ACCESS_CHECK != 0;
        let mut flags = 0;
        for (set, flag) in [
            (forced, SL_FORCE_ACCESS_CHECK),
            (self.io_flags & io_flag::OPEN_TARGET_DIRECTORY != 0, SL_OPEN_TARGET_DIRECTORY),
            (self.io_flags & io_flag::STOP_ON_SYMLINK != 0, SL_STOP_ON_SYMLINK),
            (self.object_flags & ObjectFlags::CASE_INSENSITIVE.bits() == 0, SL_CASE_SENSITIVE),
        ] {
            flags |= if set { flag } else { 0 };
        }
        flags
    }
}

/// Somebody who issues requests on an open file.
pub(crate) struct Issue<'a> {
    pub(crate) machine: &'a Arc<Inner>,
    pub(crate) object: &'a ObjectRef,
    pub(crate) open: &'a Arc<Open>,
    pub(crate) below: Option<&'a Arc<Instance>>,
    pub(crate) mode: KPROCESSOR_MODE,
}

impl<'a> Issue<'a> {
    /// # Errors
    /// Those of [`opened`].
    pub(crate) fn on(
        machine: &'a Arc<Inner>,
        object: &'a ObjectRef,
        below: Option<&'a Arc<Instance>>,
        mode: KPROCESSOR_MODE,
    ) -> Result<Self, NtStatus> {
        let file = object.payload_ref::<File>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
        Ok(Self { machine, object, open: file.open()?, below, mode })
    }

    /// A request packet. Synchronous handles wait for all of theirs.
    pub(crate) fn irp(&self, major: u8) -> Operation {
        let operation = Operation::irp(major, self.object, self.open, self.mode);
        if self.below.is_some() { operation.generated() } else { operation }
    }

    /// A request packet of an interface that always waits.
    pub(crate) fn synchronous_irp(&self, major: u8) -> Operation {
        self.irp(major).irp_flags(IrpFlags::SYNCHRONOUS_API)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, operation: &Operation) -> Outcome {
        flt::run(self.machine, &self.open.volume, self.below, operation)
    }

    /// Runs it as fast I/O, where the file is one for that; as a packet when it is refused, or is no fast I/O.
    pub(crate) fn run_fast_first(&self, operation: Operation) -> Outcome {
        let packet_only = self.below.is_some() || !self.open.is_synchronous() || operation.is_non_cached();
        if packet_only {
            return self.run(&operation);
        }
        let mut fast = operation;
        fast.kind = Kind::FastIo;
        let outcome = self.run(&fast);
        if outcome.0 != NtStatus::FLT_DISALLOW_FAST_IO {
            return outcome;
        }
        fast.kind = Kind::Irp;
        self.run(&fast)
    }

    /// A read or write of memory that is there until the end. `flags` on top of what the file's own options say.
    pub(crate) fn transfer(
        &self,
        major: u8,
        offset: i64,
        (address, length): (usize, u32),
        flags: IrpFlags,
    ) -> Operation {
        let kind = if major == major::READ { IrpFlags::READ_OPERATION } else { IrpFlags::WRITE_OPERATION };
        let uncached = if self.open.is_non_cached() { IrpFlags::NOCACHE } else { IrpFlags::empty() };
        self.irp(major).irp_flags(kind | uncached | flags).transfer(offset, address, length, 0)
    }

    /// Runs a read or write: cached ones of synchronous files go by fast I/O once the first has set up the cache.
    pub(crate) fn run_transfer(&self, operation: Operation) -> Outcome {
        if self.open.has_cache() { self.run_fast_first(operation) } else { self.run(&operation) }
    }

    /// A query with a system buffer of `length` bytes: status, and what is in it. Some are `fast` I/O first.
    pub(crate) fn query(
        &self,
        operation: impl FnOnce(usize) -> Operation,
        length: u32,
        fast: bool,
    ) -> (NtStatus, Vec<u8>) {
        let mut bytes = vec![0_u8; length as usize];
        let address = bytes.as_mut_ptr().expose_provenance();
        let operation = operation(address).system_buffer();
        let (status, information) = if fast { self.run_fast_first(operation) } else { self.run(&operation) };
        let kept = if status.is_error() { 0 } else { information.min(bytes.len()) };
        bytes.truncate(kept);
        (status, bytes)
    }
}

/// IRP_MJ_READ into host memory.
pub(crate) fn read(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    mode: KPROCESSOR_MODE,
    offset: i64,
    buffer: &mut [u8],
) -> Outcome {
    let range = (buffer.as_mut_ptr().expose_provenance(), buffer.len() as u32);
    match Issue::on(machine, object, below, mode) {
        Ok(issue) => issue.run_transfer(issue.transfer(major::READ, offset, range, IrpFlags::empty())),
        Err(status) => (status, 0),
    }
}

/// IRP_MJ_QUERY_INFORMATION: status and answer.
pub(crate) fn query_information(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    class: u32,
    length: usize,
) -> (NtStatus, Vec<u8>) {
    match Issue::on(machine, object, below, KERNEL_MODE) {
        Ok(issue) => {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let irp = issue.synchronous_irp(major::QUERY_INFORMATION).irp_flags(IrpFlags::BUFFERED_IO);
            let fast = matches!(class, class::BASIC | class::STANDARD);
            issue.query(|address| irp.information(class, address, length), length, fast)
        }
        Err(status) => (status, Vec::new()),
    }
}

/// IRP_MJ_SET_INFORMATION.
pub(crate) fn set_information(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    class: u32,
    bytes: &[u8],
) -> NtStatus {
    match Issue::on(machine, object, below, KERNEL_MODE) {
        Ok(issue) => super::set_io::set_information(&issue, class, bytes),
        Err(status) => status,
    }
}

/// IRP_MJ_CLEANUP: the last handle to the file object is closed. Cannot fail, and goes to the file system whatever filters say.
pub(crate) fn cleanup(machine: Option<&Arc<Inner>>, object: &ObjectRef, open: &Arc<Open>) {
    if let Some(machine) = machine {
        let operation = Operation::irp(major::CLEANUP, object, open, KERNEL_MODE)
            .irp_flags(IrpFlags::CLOSE_OPERATION | IrpFlags::SYNCHRONOUS_API);
        let _outcome = flt::run(machine, &open.volume, None, &operation);
    }
    open.clean_up();
}

/// FltCancelFileOpen: to those below `instance` the file appears to be closed again.
pub(crate) fn cleanup_below(machine: &Arc<Inner>, object: &ObjectRef, open: &Arc<Open>, instance: &Arc<Instance>) {
    let operation = Operation::irp(major::CLEANUP, object, open, KERNEL_MODE)
        .irp_flags(IrpFlags::CLOSE_OPERATION | IrpFlags::SYNCHRONOUS_API);
    let _outcome = flt::run(machine, &open.volume, Some(instance), &operation);
    open.clean_up();
}

/// IRP_MJ_CLOSE: the last reference is gone; only the body's address is left of the object.
pub(crate) fn close(machine: &Arc<Inner>, body: usize, open: &Arc<Open>) {
    flt::contexts::closing(machine, body, open);
    // A close cannot fail.
    let _outcome = flt::run(machine, &open.volume, None, &Operation::close(body, open));
    open.clean_up();
    flt::contexts::close_ended(machine, body, open);
}

/// The offset at which a request without one starts, for synchronous opens.
pub(crate) fn current_offset(open: &Open) -> i64 {
    open.position.load(std::sync::atomic::Ordering::Relaxed)
}

/// The payload of an open file object.
///
/// # Errors
/// `OBJECT_TYPE_MISMATCH` for another object, `INVALID_DEVICE_REQUEST` before its create succeeded.
pub(crate) fn opened(object: &ObjectRef) -> Result<(Arc<File>, Arc<Open>), NtStatus> {
    let file = object.payload::<File>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    let open = Arc::clone(file.open()?);
    Ok((file, open))
}

/// The open behind a file object's address.
pub(crate) fn open_at(machine: &Inner, body: usize) -> Option<Arc<Open>> {
    machine.nt.objects().payload::<File>(body)?.open().ok().cloned()
}

/// The volume's device that a path starts with.
pub(crate) fn volume_device(object: &ObjectRef) -> Result<Arc<VolumeDevice>, NtStatus> {
    object.payload::<VolumeDevice>().ok_or(NtStatus::INVALID_DEVICE_REQUEST)
}

/// A handle was made for the file object: FltCancelFileOpen comes too late from now on.
pub(crate) fn handle_made(object: &ObjectRef) {
    let flags = field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, Flags);
    flags.write(flags.read() | nt_types::FileObjectFlags::HANDLE_CREATED.bits());
}
