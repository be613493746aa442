//! `IoCreateFile` and its like: `ZwCreateFile` with options of the I/O manager's own.
//!
//! Opens go to the top of the file's stack. Device object hints and extra create parameters are not simulated, and say so.

use nt_types::{IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES};

use super::open::create_file;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::parse::FileOpen;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoCreateFile(max 0, fails IO) = io_create_file;
    IoCreateFileEx(max 0, fails IO) = io_create_file_ex;
    IoCreateFileSpecifyDeviceObjectHint(max 0, fails IO) = io_create_file_specify_device_object_hint;
}

/// `CreateFileTypeNone`.
const TYPE_NONE: i32 = 0;
/// `IO_FORCE_ACCESS_CHECK`.
const FORCE_ACCESS_CHECK: u32 = 1;

/// `IO_DRIVER_CREATE_CONTEXT`: its size, and the pointers that ask for more than an open.
const CONTEXT_LENGTH: i16 = 40;
const EXTRA_CREATE_PARAMETER: usize = 8;
const DEVICE_OBJECT_HINT: usize = 16;
const TRANSACTION_PARAMETERS: usize = 24;

/// What all three have in common, behind the parameters of `ZwCreateFile`.
struct Manner {
    kind: i32,
    parameters: usize,
    options: u32,
}

impl Manner {
    /// Stops on what drivers must not ask for; whether access is checked as for a program.
    fn check(&self, call: &Call) -> bool {
        if self.kind != TYPE_NONE || self.parameters != 0 {
            let kind = self.kind;
            call.stop(
                Rule::BadArgument,
                format!("CreateFileType {kind}, InternalParameters {:#x}: drivers pass none", self.parameters),
            );
        }
        self.options & FORCE_ACCESS_CHECK != 0
    }
}

fn check_hint(call: &Call, hint: usize) {
    if hint != 0 {
        call.stop(Rule::NotImplemented, "opens with a device object hint are not simulated");
    }
}

pub(super) extern "efiapi" fn io_create_file(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    block: Raw<IO_STATUS_BLOCK>,
    size: Raw<i64>,
    file_attributes: u32,
    share_access: u32,
    disposition: u32,
    options: u32,
    ea: usize,
    ea_length: u32,
    kind: i32,
    parameters: usize,
    manner: u32,
) -> NtStatus {
    let call = Call::enter();
    let force = Manner { kind, parameters, options: manner }.check(&call);
    let allocation_size = size.some().map(Raw::read);
    let file = FileOpen {
        file_attributes,
        share_access,
        disposition,
        options,
        allocation_size,
        ea: (ea, ea_length),
        io_flags: manner,
    };
    create_file(&call, handle, access, attributes, block, file, force)
}

extern "efiapi" fn io_create_file_ex(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    block: Raw<IO_STATUS_BLOCK>,
    size: Raw<i64>,
    file_attributes: u32,
    share_access: u32,
    disposition: u32,
    options: u32,
    ea: usize,
    ea_length: u32,
    kind: i32,
    parameters: usize,
    manner: u32,
    context: Raw<i16>,
) -> NtStatus {
    let call = Call::enter();
    let force = Manner { kind, parameters, options: manner }.check(&call);
    if let Some(context) = context.some() {
        if context.read() != CONTEXT_LENGTH {
            return NtStatus::INVALID_PARAMETER;
        }
        check_hint(&call, context.field::<usize>(DEVICE_OBJECT_HINT).read());
        for (field, what) in
            [(EXTRA_CREATE_PARAMETER, "extra create parameters"), (TRANSACTION_PARAMETERS, "transactions")]
        {
            if context.field::<usize>(field).read() != 0 {
                call.stop(Rule::NotImplemented, format!("opens with {what} are not simulated"));
            }
        }
    }
    let allocation_size = size.some().map(Raw::read);
    let file = FileOpen {
        file_attributes,
        share_access,
        disposition,
        options,
        allocation_size,
        ea: (ea, ea_length),
        io_flags: manner,
    };
    create_file(&call, handle, access, attributes, block, file, force)
}

pub(super) extern "efiapi" fn io_create_file_specify_device_object_hint(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    block: Raw<IO_STATUS_BLOCK>,
    size: Raw<i64>,
    file_attributes: u32,
    share_access: u32,
    disposition: u32,
    options: u32,
    ea: usize,
    ea_length: u32,
    kind: i32,
    parameters: usize,
    manner: u32,
    hint: usize,
) -> NtStatus {
    let call = Call::enter();
    let force = Manner { kind, parameters, options: manner }.check(&call);
    check_hint(&call, hint);
    let allocation_size = size.some().map(Raw::read);
    let file = FileOpen {
        file_attributes,
        share_access,
        disposition,
        options,
        allocation_size,
        ea: (ea, ea_length),
        io_flags: manner,
    };
    create_file(&call, handle, access, attributes, block, file, force)
}

#[cfg(test)]
mod tests {
    use nt_types::{FILE_OPEN, IRP_MJ_CREATE, ObjectFlags};

    use super::super::tests::{DEVICE_NAME, World, seen, string};
    use super::*;
    use crate::conformance::conforms;
    use crate::nt::ob_exports::close;

    /// Opens the world's device; the handle is closed again.
    fn open(world: &World, kind: i32, manner: u32, context: Option<&mut [u64; 5]>) -> Result<NtStatus, Rule> {
        let (mut handle, mut block) = (0_usize, IO_STATUS_BLOCK::default());
        let (handle, block) = (Raw::of(&raw mut handle), Raw::of(&raw mut block));
        let context = context.map_or(Raw::NULL, |context| Raw::<[u64; 5]>::of(&raw mut *context).cast());
        let run = world.bench.run(|| {
            let status = string(DEVICE_NAME, |name| {
                let mut attributes = OBJECT_ATTRIBUTES {
                    Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
                    RootDirectory: std::ptr::null_mut(),
                    ObjectName: name.pointer(),
                    Attributes: ObjectFlags::KERNEL_HANDLE.bits(),
                    SecurityDescriptor: std::ptr::null_mut(),
                    SecurityQualityOfService: std::ptr::null_mut(),
                };
                let attributes = Raw::of(&raw mut attributes);
                io_create_file_ex(
                    handle,
                    1,
                    attributes,
                    block,
                    Raw::NULL,
                    0,
                    7,
                    FILE_OPEN,
                    0,
                    0,
                    0,
                    kind,
                    0,
                    manner,
                    context,
                )
            });
            if status.is_success() {
                let _closed = close(&Call::enter(), handle.read(), 0);
            }
            status
        });
        run.map_err(|stopped| stopped.0.rule)
    }

    #[test]
    fn a_device_is_opened_as_by_zw_create_file() {
        conforms!("wdm/nf-wdm-iocreatefile.md", "An existing device is opened, and a handle to it given.");
        let world = World::new();
        assert_eq!(open(&world, 0, 0, None), Ok(NtStatus::SUCCESS));
        assert_eq!(seen().first(), Some(&IRP_MJ_CREATE));
    }

    #[test]
    fn access_is_checked_when_that_is_forced() {
        conforms!(
            "ntddk/nf-ntddk-iocreatefileex.md",
            "With IO_FORCE_ACCESS_CHECK the open is checked as one from user mode."
        );
        // The world's driver refuses opens from user mode.
        assert_eq!(open(&World::new(), 0, FORCE_ACCESS_CHECK, None), Ok(NtStatus::ACCESS_DENIED));
    }

    #[test]
    fn types_of_files_are_not_for_drivers_and_contexts_have_their_size() {
        conforms!("wdm/nf-wdm-iocreatefile.md", "Drivers pass CreateFileTypeNone, and NULL for its parameters.");
        assert_eq!(open(&World::new(), 1, 0, None), Err(Rule::BadArgument));
        assert_eq!(open(&World::new(), 0, 0, Some(&mut [39, 0, 0, 0, 0])), Ok(NtStatus::INVALID_PARAMETER));
        assert_eq!(open(&World::new(), 0, 0, Some(&mut [40, 0, 0, 0, 0])), Ok(NtStatus::SUCCESS));
        assert_eq!(open(&World::new(), 0, 0, Some(&mut [40, 0, 8, 0, 0])), Err(Rule::NotImplemented));
    }
}
