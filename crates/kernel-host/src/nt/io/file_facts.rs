//! Facts about files and requests that file systems and their filters ask for.

use nt_types::{FILE_OBJECT, FileObjectFlags, IRP, NtStatus};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    FsRtlIsPagingFile(max 1) = fs_rtl_is_paging_file;
    FsRtlGetFileSize(max 0, fails RESOURCES) = fs_rtl_get_file_size;
    IoGetTransactionParameterBlock(max 31) = io_get_transaction_parameter_block;
    IoGetFileObjectGenericMapping(max 31) = io_get_file_object_generic_mapping;
    IoIsFileOriginRemote(max 31) = io_is_file_origin_remote;
    IoSetFileOrigin(max 31) = io_set_file_origin;
    IoGetIoPriorityHint(max 31) = io_get_io_priority_hint;
    IoSetIoPriorityHint(max 31) = io_set_io_priority_hint;
}

/// `FileStandardInformation`: its bytes, and where the size and the flag of a directory are.
const STANDARD_INFORMATION: u32 = 5;
const STANDARD_LENGTH: usize = 24;
const END_OF_FILE: std::ops::Range<usize> = 8..16;
const DIRECTORY: usize = 21;

/// Where `IRP::Flags` has a priority hint, plus one, and how many hints there are.
const PRIORITY_SHIFT: u32 = 17;
const PRIORITY_MASK: u32 = 7 << PRIORITY_SHIFT;
const PRIORITIES: u32 = 5;
/// `IoPriorityNormal`.
const NORMAL_PRIORITY: u32 = 2;

/// `FILE_GENERIC_READ`, `_WRITE`, `_EXECUTE` and `FILE_ALL_ACCESS`.
static GENERIC_MAPPING: [u32; 4] = [0x0012_0089, 0x0012_0116, 0x0012_00A0, 0x001F_01FF];

/// The file object at an address; stops when there is none.
fn file_at(call: &Call, file: Raw<FILE_OBJECT>) -> ObjectRef {
    let object = call.machine().nt.objects().lookup(file.address());
    let object = object.filter(|object| object.type_name() == "File");
    object.unwrap_or_else(|| call.stop(Rule::BadArgument, format!("{file:?} is no file object")))
}

/// The simulated computer pages to no file.
extern "efiapi" fn fs_rtl_is_paging_file(file: Raw<FILE_OBJECT>) -> u32 {
    file_at(&Call::enter(), file);
    0
}

extern "efiapi" fn fs_rtl_get_file_size(file: Raw<FILE_OBJECT>, size: Raw<i64>) -> NtStatus {
    let call = Call::enter();
    let object = file_at(&call, file);
    let (status, bytes) = io::query_information(call.machine(), &object, None, STANDARD_INFORMATION, STANDARD_LENGTH);
    call.thread().leave_if_stopped();
    if !status.is_success() {
        return status;
    }
    if bytes.get(DIRECTORY).is_some_and(|is_directory| *is_directory != 0) {
        return NtStatus::FILE_IS_A_DIRECTORY;
    }
    let end = bytes.get(END_OF_FILE).and_then(|bytes| bytes.first_chunk::<8>().copied());
    size.write(i64::from_le_bytes(end.unwrap_or_default()));
    NtStatus::SUCCESS
}

/// No file is opened in a transaction here.
extern "efiapi" fn io_get_transaction_parameter_block(file: Raw<FILE_OBJECT>) -> usize {
    file_at(&Call::enter(), file);
    0
}

/// The `GENERIC_MAPPING` of files.
extern "efiapi" fn io_get_file_object_generic_mapping() -> usize {
    let _call = Call::enter();
    (&raw const GENERIC_MAPPING).expose_provenance()
}

fn is_remote(file: Raw<FILE_OBJECT>) -> bool {
    field!(file, FILE_OBJECT, Flags).read() & FileObjectFlags::REMOTE_ORIGIN.bits() != 0
}

extern "efiapi" fn io_is_file_origin_remote(file: Raw<FILE_OBJECT>) -> u8 {
    file_at(&Call::enter(), file);
    is_remote(file).into()
}

extern "efiapi" fn io_set_file_origin(file: Raw<FILE_OBJECT>, remote: u8) -> NtStatus {
    file_at(&Call::enter(), file);
    if is_remote(file) == (remote != 0) {
        return NtStatus::INVALID_PARAMETER_MIX;
    }
    let flags = field!(file, FILE_OBJECT, Flags);
    flags.write(flags.read() ^ FileObjectFlags::REMOTE_ORIGIN.bits());
    NtStatus::SUCCESS
}

extern "efiapi" fn io_get_io_priority_hint(irp: Raw<IRP>) -> u32 {
    let _call = Call::enter();
    let hint = (field!(irp, IRP, Flags).read() & PRIORITY_MASK) >> PRIORITY_SHIFT;
    hint.checked_sub(1).unwrap_or(NORMAL_PRIORITY)
}

extern "efiapi" fn io_set_io_priority_hint(irp: Raw<IRP>, hint: u32) -> NtStatus {
    let _call = Call::enter();
    if hint >= PRIORITIES {
        return NtStatus::INVALID_PARAMETER;
    }
    let flags = field!(irp, IRP, Flags);
    flags.write(flags.read() & !PRIORITY_MASK | (hint + 1) << PRIORITY_SHIFT);
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::super::irp::{io_allocate_irp, io_free_irp};
    use super::super::tests::{DEVICE_NAME, World};
    use super::*;
    use crate::conformance::conforms;
    use crate::nt::ob_exports::obf_dereference_object;

    #[test]
    fn a_file_is_no_paging_file_and_in_no_transaction() {
        conforms!("ntifs/nf-ntifs-fsrtlispagingfile.md", "FALSE is returned for a file that is no paging file.");
        conforms!(
            "ntddk/nf-ntddk-iogettransactionparameterblock.md",
            "NULL is returned for a file whose operations are not transacted."
        );
        let world = World::new();
        let (_, file) = world.connect(DEVICE_NAME);
        let file = Raw::at(file);
        let facts = world.run(|| (fs_rtl_is_paging_file(file), io_get_transaction_parameter_block(file)));
        assert_eq!(facts, (0, 0));
        world.run(|| obf_dereference_object(file.address()));
        assert_eq!(world.broken(|| _ = fs_rtl_is_paging_file(Raw::at(world.device))), Rule::BadArgument);
    }

    #[test]
    fn the_origin_of_a_file_changes_only_to_the_other_one() {
        conforms!("ntddk/nf-ntddk-ioisfileoriginremote.md", "TRUE is returned for a file whose origin is remote.");
        conforms!(
            "ntddk/nf-ntddk-iosetfileorigin.md",
            "STATUS_INVALID_PARAMETER_MIX is returned when the flag is set, or cleared, as asked already."
        );
        let world = World::new();
        let (_, file) = world.connect(DEVICE_NAME);
        let file = Raw::at(file);
        world.run(|| {
            assert_eq!(io_is_file_origin_remote(file), 0);
            assert_eq!(
                [1, 1].map(|remote| io_set_file_origin(file, remote)),
                [NtStatus::SUCCESS, NtStatus::INVALID_PARAMETER_MIX]
            );
            assert_eq!((io_is_file_origin_remote(file), io_set_file_origin(file, 0)), (1, NtStatus::SUCCESS));
            obf_dereference_object(file.address());
        });
    }

    #[test]
    fn a_priority_hint_is_normal_until_it_is_set() {
        conforms!("wdm/nf-wdm-iogetiopriorityhint.md", "The hint of the request is returned.");
        conforms!("wdm/nf-wdm-iosetiopriorityhint.md", "STATUS_SUCCESS is returned for a hint that is set.");
        World::new().run(|| {
            let irp = Raw::<IRP>::at(io_allocate_irp(1, 0));
            assert_eq!(io_get_io_priority_hint(irp), 2);
            assert_eq!((io_set_io_priority_hint(irp, 0), io_get_io_priority_hint(irp)), (NtStatus::SUCCESS, 0));
            assert_eq!(io_set_io_priority_hint(irp, 5), NtStatus::INVALID_PARAMETER);
            assert_eq!(io_get_io_priority_hint(irp), 0);
            io_free_irp(irp);
        });
    }

    #[test]
    fn generic_rights_to_files_are_mapped_as_for_every_file() {
        conforms!(
            "ntddk/nf-ntddk-iogetfileobjectgenericmapping.md",
            "The generic mapping of file objects is returned."
        );
        World::new().run(|| {
            let mapping = Raw::<[u32; 4]>::at(io_get_file_object_generic_mapping()).read();
            assert_eq!(mapping, [0x0012_0089, 0x0012_0116, 0x0012_00A0, 0x001F_01FF]);
        });
    }
}
