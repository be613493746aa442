//! `IoReplaceFileObjectName`: another name for a file that is being opened.

use nt_types::{FILE_OBJECT, NtStatus};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::device::File;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoReplaceFileObjectName(max 0, fails RESOURCES) = io_replace_file_object_name;
}

extern "efiapi" fn io_replace_file_object_name(file: Raw<FILE_OBJECT>, name: Raw<u16>, length: u16) -> NtStatus {
    let call = Call::enter();
    let Some(object) = call.machine().nt.objects().payload::<File>(file.address()) else {
        call.stop(Rule::BadArgument, format!("{file:?} is no file object of a volume"));
    };
    let name: Vec<u16> = (0..usize::from(length / 2)).map(|index| name.index(index).read()).collect();
    call.detail(String::from_utf16_lossy(&name));
    object.replace_name(file.address(), &name).err().unwrap_or(NtStatus::SUCCESS)
}
