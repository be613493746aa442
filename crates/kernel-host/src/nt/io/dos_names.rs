//! A file's name with its drive letter: `IoQueryFileDosDeviceName`; and where a driver's image lies.
//!
//! Pages: `ntifs/nf-ntifs-ioqueryfiledosdevicename`, `ntddk/nf-ntddk-ioqueryfulldriverpath`.

use nt_types::{DRIVER_OBJECT, FILE_OBJECT, NtStatus, UNICODE_STRING};

use super::driver_object::DriverBody;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoQueryFileDosDeviceName(max 0, fails RESOURCES) = io_query_file_dos_device_name;
    IoQueryFullDriverPath(max 1, fails RESOURCES) = io_query_full_driver_path;
}

/// Tag of the names, which their callers free.
const TAG: u32 = u32::from_le_bytes(*b"Io  ");

/// Allocates `before` bytes, and a name with its terminator behind them: the block, and the string that describes it. `None` without
/// memory.
fn named_block(call: &Call, before: usize, name: &str) -> Option<(usize, UNICODE_STRING)> {
    let bytes = unicode::bytes_of(name);
    let length = before + bytes.len() + 2;
    let request = Request { kind: PoolKind::Paged, length, tag: TAG, zeroed: true, cache_aligned: false };
    let block = call.machine().nt.pool().allocate(call, request);
    if block == 0 {
        return None;
    }
    let characters = Raw::<u8>::at(block + before);
    characters.write_bytes(&bytes);
    let length = bytes.len() as u16;
    Some((block, UNICODE_STRING { Length: length, MaximumLength: length + 2, Buffer: characters.cast().pointer() }))
}

/// `OBJECT_NAME_INFORMATION` is a string; its characters are in the same block.
pub(super) extern "efiapi" fn io_query_file_dos_device_name(
    file: Raw<FILE_OBJECT>,
    information: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let Some(object) = call.machine().nt.objects().lookup(file.address()) else {
        call.stop(Rule::BadArgument, format!("{file:?} is no file object (any more)"));
    };
    let Ok((_, open)) = io::opened(&object) else { return NtStatus::INVALID_DEVICE_REQUEST };
    let path = format!("{}:{}", open.volume.letter, String::from_utf16_lossy(&open.name()));
    call.detail(path.as_str());
    match named_block(&call, size_of::<UNICODE_STRING>(), &path) {
        Some((block, string)) => {
            Raw::at(block).write(string);
            information.write(block);
            NtStatus::SUCCESS
        }
        None => NtStatus::INSUFFICIENT_RESOURCES,
    }
}

pub(super) extern "efiapi" fn io_query_full_driver_path(
    driver_object: Raw<DRIVER_OBJECT>,
    path: Raw<UNICODE_STRING>,
) -> NtStatus {
    let call = Call::enter();
    let body = call.machine().nt.objects().payload::<DriverBody>(driver_object.address());
    let Some(driver) = body.and_then(|body| body.driver()) else {
        call.stop(Rule::BadArgument, format!("{driver_object:?} is no driver object"));
    };
    // Any driver's, since Windows 10 version 1709.
    match named_block(&call, 0, &format!(r"\SystemRoot\System32\drivers\{}", driver.name)) {
        Some((_, string)) => {
            path.write(string);
            NtStatus::SUCCESS
        }
        None => NtStatus::INSUFFICIENT_RESOURCES,
    }
}
