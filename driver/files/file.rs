//! A firmware file that is open.

use crate::kernel::upcase;
use broker::policy::DeviceName;
use broker::{Error, FileFacts, FileIdentity, Name, Source};
use fltmgr::{FileName, Instance, OpenFile, Passive, Volume};
use nt_types::{
    FILE_ATTRIBUTE_TAG_INFORMATION, FILE_BASIC_INFORMATION, FILE_ID_INFORMATION, FILE_INTERNAL_INFORMATION,
    FILE_OBJECT, FILE_STANDARD_INFORMATION, FileAttributes, FileObjectFlags, NtStatus,
};
use protocol::{ObjectKind, QueryReply};
use wdk_sys::ntddk::MmDoesFileHaveUserWritableReferences;

/// An open file, with all that is needed to read it and to say which file it is.
///
/// Dropped at PASSIVE_LEVEL. The fields drop in their order: the file before the instance it was opened through.
pub(crate) struct File {
    open: OpenFile,
    instance: Instance,
    volume: VolumeId,
    name: Name,
}

/// The volume's GUID as 16 bytes; all zero where the volume has none that can be asked for.
type VolumeId = [u8; 16];

impl File {
    /// Takes over an open file, and finds out its normalised name.
    pub(super) fn new(open: OpenFile, instance: Instance, volume: &Volume, passive: Passive) -> Result<Self, Error> {
        let name = FileName::normalized(&open, &instance, passive).map_err(Error::System)?;
        upcase::prepare(name.full(), passive)?;
        let name = Name::try_new(name.full())?;
        let volume = volume_id(volume, passive)?;
        Ok(Self { open, instance, volume, name })
    }

    /// The normalised name.
    pub(crate) fn device_name(&self) -> Result<DeviceName<'_>, Error> {
        DeviceName::from_normalized(self.name.units())
    }

    /// The normalised name's UTF-16 units.
    pub(crate) fn name(&self) -> &[u16] {
        self.name.units()
    }

    /// Whether the file was opened through this instance.
    pub(crate) fn is_on(&self, instance: fltmgr::raw::PFLT_INSTANCE) -> bool {
        self.instance.as_ptr() == instance
    }

    /// What the file is now.
    pub(crate) fn facts(&self, passive: Passive) -> Result<FileFacts, Error> {
        let information = self.information(passive)?;
        let attributes = FileAttributes::from_bits_retain(information.tag.FileAttributes);
        let flags = self.object_flags();
        Ok(FileFacts {
            identity: FileIdentity {
                volume: self.volume,
                file_id: information.id.FileId,
                change_time: information.basic.ChangeTime,
                size: information.size()?,
            },
            is_directory: information.standard.Directory != 0,
            is_special: attributes.contains(FileAttributes::DEVICE)
                || flags.intersects(FileObjectFlags::VOLUME_OPEN | FileObjectFlags::NAMED_PIPE),
            is_reparse_point: attributes.contains(FileAttributes::REPARSE_POINT),
            delete_pending: information.standard.DeletePending != 0,
            has_writable_mapping: self.has_writable_mapping(passive),
        })
    }

    /// What a client is told about the file.
    pub(crate) fn query(&self, passive: Passive) -> Result<QueryReply, Error> {
        let information = self.information(passive)?;
        Ok(QueryReply {
            size: information.size()?,
            allocation_size: u64::try_from(information.standard.AllocationSize).unwrap_or(0),
            change_time: information.basic.ChangeTime,
            volume_serial: information.id.VolumeSerialNumber,
            file_id: information.id.FileId,
            attributes: information.tag.FileAttributes,
            number_of_links: information.standard.NumberOfLinks,
            kind: ObjectKind::File.code(),
        })
    }

    /// Length in bytes, now.
    pub(crate) fn size(&self, passive: Passive) -> Result<u64, Error> {
        let standard: FILE_STANDARD_INFORMATION = self.ask(passive)?;
        u64::try_from(standard.EndOfFile).map_err(|_| Error::NotRegular)
    }

    /// Reads at `offset`; how many bytes were read, zero at the end of the file.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8], passive: Passive) -> Result<usize, Error> {
        let offset = i64::try_from(offset).map_err(|_| Error::OffsetOverflow)?;
        match self.open.read_at(&self.instance, offset, buffer, passive) {
            Err(NtStatus::END_OF_FILE) => Ok(0),
            Err(status) => Err(Error::System(status)),
            Ok(read) => Ok(read),
        }
    }

    /// For a staging job.
    pub(crate) const fn source(&self, passive: Passive) -> impl Source + '_ {
        FileSource { file: self, passive }
    }

    fn information(&self, passive: Passive) -> Result<Information, Error> {
        Ok(Information {
            standard: self.ask(passive)?,
            basic: self.ask(passive)?,
            tag: self.ask(passive)?,
            id: self.id(passive)?,
        })
    }

    /// The 128-bit id, or the older 64-bit one where the file system has no other.
    fn id(&self, passive: Passive) -> Result<FILE_ID_INFORMATION, Error> {
        self.ask(passive).or_else(|error| match error {
            Error::System(NtStatus::INVALID_PARAMETER | NtStatus::INVALID_INFO_CLASS | NtStatus::NOT_SUPPORTED) => {
                let internal: FILE_INTERNAL_INFORMATION = self.ask(passive)?;
                let mut id = FILE_ID_INFORMATION::default();
                if let Some(low) = id.FileId.first_chunk_mut() {
                    *low = internal.IndexNumber.to_le_bytes();
                }
                Ok(id)
            }
            _ => Err(error),
        })
    }

    fn ask<T: fltmgr::FileInformation>(&self, passive: Passive) -> Result<T, Error> {
        self.open.query(&self.instance, passive).map_err(Error::System)
    }

    fn object_flags(&self) -> FileObjectFlags {
        let object: *mut FILE_OBJECT = self.open.object();
        // SAFETY: we own a reference to the file object; the field is public, and a stale value does no harm.
        FileObjectFlags::from_bits_retain(unsafe { (*object).Flags })
    }

    /// Whether a program can change the file behind our open: through a mapping that it made before.
    fn has_writable_mapping(&self, _passive: Passive) -> bool {
        let object: *mut FILE_OBJECT = self.open.object();
        // SAFETY: as in `object_flags`; file systems set the field at create and never change it.
        let sections = unsafe { (*object).SectionObjectPointer };
        if sections.is_null() {
            // Without it nothing of the file can be mapped.
            return false;
        }
        // SAFETY: the structure lives as long as the file is open (rule: MmDoesFileHaveUserWritableReferences, <= APC_LEVEL).
        unsafe { MmDoesFileHaveUserWritableReferences(sections.cast()) != 0 }
    }
}

/// All that is asked of a file at once.
struct Information {
    standard: FILE_STANDARD_INFORMATION,
    basic: FILE_BASIC_INFORMATION,
    tag: FILE_ATTRIBUTE_TAG_INFORMATION,
    id: FILE_ID_INFORMATION,
}

impl Information {
    fn size(&self) -> Result<u64, Error> {
        // A negative size is no size.
        u64::try_from(self.standard.EndOfFile).map_err(|_| Error::NotRegular)
    }
}

struct FileSource<'a> {
    file: &'a File,
    passive: Passive,
}

impl Source for FileSource<'_> {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        self.file.read_at(offset, buffer, self.passive)
    }

    fn facts(&mut self) -> Result<FileFacts, Error> {
        self.file.facts(self.passive)
    }
}

/// Parses `\??\Volume{01234567-89ab-cdef-0123-456789abcdef}` into the sixteen bytes that its digits spell.
///
/// Which order they have does not matter: it is compared with nothing but itself. A volume without such a
/// name (removable media before the mount manager has seen them) gets zeros, and its files are told apart by name and id.
/// Want of memory is an error instead: the same file must not be another one for that.
#[inline(never)] // for the sake of the stack: its buffer is not for the opener's frame
fn volume_id(volume: &Volume, passive: Passive) -> Result<VolumeId, Error> {
    let mut buffer = [0; Volume::GUID_NAME_CHARS];
    let mut id = VolumeId::default();
    let name = volume.guid_name(&mut buffer, passive);
    if let Err(status @ (NtStatus::INSUFFICIENT_RESOURCES | NtStatus::NO_MEMORY)) = name {
        return Err(Error::System(status));
    }
    if let Ok(name) = name {
        let digits = name.iter().skip_while(|unit| **unit != u16::from(b'{'));
        let mut nibbles = digits.filter_map(|unit| char::from_u32(u32::from(*unit))?.to_digit(16));
        for byte in &mut id {
            let (Some(high), Some(low)) = (nibbles.next(), nibbles.next()) else { break };
            *byte = (high << 4 | low) as u8;
        }
    }
    Ok(id)
}
