//! File names: FltGetFileNameInformation and its relatives.
//!
//! Each structure lives on pages of its own that are read-only for the driver: on Windows it is shared with all other filters, so
//! that a write to it is a bug that only shows elsewhere. Here it faults.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_FILE_NAME_INFORMATION, FLT_IO_PARAMETER_BLOCK};
use nt_types::{FILE_OBJECT, NtStatus, UNICODE_STRING};

use super::create::file_object;
use super::object;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::device::File;
use crate::fs::path::wide;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::arena::{Access, pages_for};
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetFileNameInformation(max 1, fails RESOURCES) = flt_get_file_name_information;
    FltGetFileNameInformationUnsafe(max 1, fails RESOURCES) = flt_get_file_name_information_unsafe;
    FltParseFileNameInformation(max 1) = flt_parse_file_name_information;
    FltReferenceFileNameInformation(max 1) = flt_reference_file_name_information;
    FltReleaseFileNameInformation(max 1) = flt_release_file_name_information;
}

const NORMALIZED: u32 = 1;
const OPENED: u32 = 2;
const SHORT: u32 = 3;
const CACHE_ONLY: u32 = 0x200;

/// Name information that drivers hold, by address.
#[derive(Debug, Default)]
pub(crate) struct NameTable(Mutex<HashMap<usize, NameInformation>>);

#[derive(Debug)]
struct NameInformation {
    driver: Arc<Driver>,
    ddi: &'static str,
    site: usize,
    references: usize,
    pages: usize,
    text: Vec<u16>,
    /// Length in characters of the volume's device name.
    volume: usize,
}

impl NameTable {
    /// What `driver` has not released.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let names = self.lock();
        let mine = names.values().filter(|name| std::ptr::eq(Arc::as_ptr(&name.driver), driver));
        let leak = |name: &NameInformation| Leak {
            kind: LeakKind::Reference,
            count: name.references as u64,
            bytes: 0,
            detail: format!(
                "FLT_FILE_NAME_INFORMATION of {}, by {} from {:#x}",
                String::from_utf16_lossy(&name.text),
                name.ddi,
                name.site
            ),
        };
        mine.map(leak).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, NameInformation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

extern "efiapi" fn flt_get_file_name_information(
    data: Raw<FLT_CALLBACK_DATA>,
    options: u32,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let block = Raw::<FLT_IO_PARAMETER_BLOCK>::of(field!(data, FLT_CALLBACK_DATA, Iopb).read());
    let file = Raw::<FILE_OBJECT>::of(field!(block, FLT_IO_PARAMETER_BLOCK, TargetFileObject).read());
    if call.thread().guarded_regions() != 0 {
        return NtStatus::FLT_INVALID_NAME_REQUEST;
    }
    get(&call, file, options, out)
}

extern "efiapi" fn flt_get_file_name_information_unsafe(
    file: Raw<FILE_OBJECT>,
    instance: usize,
    options: u32,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    if instance != 0 {
        let _checked = object::instance(&call, instance);
    }
    if call.thread().guarded_regions() != 0 {
        call.stop(Rule::Deadlock, "a name query with all APCs disabled can wait for ever");
    }
    get(&call, file, options, out)
}

fn get(call: &Call, address: Raw<FILE_OBJECT>, options: u32, out: Raw<usize>) -> NtStatus {
    let (_object, file) = file_object(call, address);
    match query(call, &file, options) {
        Ok((text, volume)) => match publish(call, text, volume, options & 0xFF) {
            Ok(information) => {
                out.write(information);
                NtStatus::SUCCESS
            }
            Err(status) => status,
        },
        Err(status) => status,
    }
}

/// The name, and how much of it is the volume's.
fn query(call: &Call, file: &File, options: u32) -> Result<(Vec<u16>, usize), NtStatus> {
    let (format, method) = (options & 0xFF, options & 0xFF00);
    if !(NORMALIZED..=SHORT).contains(&format) || !(0x100..=0x400).contains(&method) || !method.is_multiple_of(0x100) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let volume = file.volume().ok_or(NtStatus::FLT_INVALID_NAME_REQUEST)?;
    let open = file.open().ok();
    if open.is_some_and(|open| open.is_cleaned_up()) {
        return Err(NtStatus::FLT_INVALID_NAME_REQUEST);
    }
    let device = wide(&volume.device_name());
    let below = match (format, open) {
        // A name in pre-create is what was asked for: nothing is open yet.
        (OPENED, _) | (NORMALIZED, None) => file.name_given().to_vec(),
        (NORMALIZED, Some(open)) => open.name(),
        (_, None) => return Err(NtStatus::FLT_INVALID_NAME_REQUEST),
        (_, Some(open)) => {
            // The volumes have no 8.3 names: the short name is the name. It has no path.
            let name = open.name();
            let start = name.iter().rposition(|&unit| unit == u16::from(b'\\')).map_or(0, |at| at + 1);
            return Ok((name[start..].to_vec(), 0));
        }
    };
    let volume_length = device.len();
    let mut text = device;
    text.extend(below);
    call.detail(String::from_utf16_lossy(&text));
    if method == CACHE_ONLY && !call.machine().flt.names.lock().values().any(|known| known.text == text) {
        return Err(NtStatus::FLT_NAME_CACHE_MISS);
    }
    Ok((text, volume_length))
}

/// Makes the structure, with its text behind it.
fn publish(call: &Call, text: Vec<u16>, volume: usize, format: u32) -> Result<usize, NtStatus> {
    let header = size_of::<FLT_FILE_NAME_INFORMATION>();
    let pages = pages_for(header + text.len() * 2);
    let arena = call.machine().nt.arena();
    let address = arena.allocate(pages, Access::ReadWrite).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    let buffer = address + header;
    let bytes: Vec<u8> = text.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    Raw::<u8>::at(buffer).write_bytes(&bytes);
    let information = Raw::<FLT_FILE_NAME_INFORMATION>::at(address);
    field!(information, FLT_FILE_NAME_INFORMATION, Size).write(header as u16);
    field!(information, FLT_FILE_NAME_INFORMATION, Format).write(format);
    field!(information, FLT_FILE_NAME_INFORMATION, Name).write(slice(buffer, 0, text.len()));
    // Before the name is parsed only Name and Volume have a value.
    field!(information, FLT_FILE_NAME_INFORMATION, Volume).write(slice(buffer, 0, volume));
    arena.protect(address, pages, Access::Read);
    let entry = NameInformation {
        driver: Arc::clone(call.driver()),
        ddi: call.site().export.name,
        site: call.site().return_address,
        references: 1,
        pages,
        text,
        volume,
    };
    call.machine().flt.names.lock().insert(address, entry);
    Ok(address)
}

/// Characters `start..end` of the text at `buffer`.
fn slice(buffer: usize, start: usize, end: usize) -> UNICODE_STRING {
    if start == end {
        return UNICODE_STRING::EMPTY;
    }
    let bytes = ((end - start) * 2) as u16;
    UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: Raw::at(buffer + start * 2).pointer() }
}

extern "efiapi" fn flt_parse_file_name_information(information: Raw<FLT_FILE_NAME_INFORMATION>) -> NtStatus {
    /// `FLTFL_FILE_NAME_PARSED_*`: final component 1, extension 2, stream 4, parent directory 8.
    const ALL_PARSED: u16 = 0xF;
    let call = Call::enter();
    let known = call
        .machine()
        .flt
        .names
        .lock()
        .get(&information.address())
        .map(|name| (name.text.clone(), name.volume, name.pages));
    let Some((text, volume, pages)) = known else { unknown(&call, information) };
    let parts = Parts::of(&text, volume);
    let arena = call.machine().nt.arena();
    arena.protect(information.address(), pages, Access::ReadWrite);
    let buffer = information.address() + size_of::<FLT_FILE_NAME_INFORMATION>();
    let part = |(start, end): (usize, usize)| slice(buffer, start, end);
    field!(information, FLT_FILE_NAME_INFORMATION, FinalComponent).write(part(parts.final_component));
    field!(information, FLT_FILE_NAME_INFORMATION, Extension).write(part(parts.extension));
    field!(information, FLT_FILE_NAME_INFORMATION, Stream).write(part(parts.stream));
    field!(information, FLT_FILE_NAME_INFORMATION, ParentDir).write(part(parts.parent));
    field!(information, FLT_FILE_NAME_INFORMATION, NamesParsed).write(ALL_PARSED);
    arena.protect(information.address(), pages, Access::Read);
    NtStatus::SUCCESS
}

/// Start and end of each part, in characters.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    parent: (usize, usize),
    final_component: (usize, usize),
    extension: (usize, usize),
    stream: (usize, usize),
}

impl Parts {
    fn of(text: &[u16], volume: usize) -> Self {
        let end = text.len();
        let last = text[volume..].iter().rposition(|&unit| unit == u16::from(b'\\'));
        let start = last.map_or(volume, |at| volume + at + 1);
        let colon = text[start..].iter().position(|&unit| unit == u16::from(b':')).map_or(end, |at| start + at);
        let dot = text[start..colon].iter().rposition(|&unit| unit == u16::from(b'.'));
        Self {
            parent: (volume, start),
            final_component: (start, end),
            extension: dot.map_or((colon, colon), |at| (start + at + 1, colon)),
            stream: (colon, end),
        }
    }
}

extern "efiapi" fn flt_reference_file_name_information(information: Raw<FLT_FILE_NAME_INFORMATION>) {
    let call = Call::enter();
    let known = call.machine().flt.names.lock().get_mut(&information.address()).map(|name| name.references += 1);
    if known.is_none() {
        unknown(&call, information);
    }
}

extern "efiapi" fn flt_release_file_name_information(information: Raw<FLT_FILE_NAME_INFORMATION>) {
    let call = Call::enter();
    match release(call.machine(), information.address()) {
        Some(()) => {}
        None => unknown(&call, information),
    }
}

fn release(machine: &Inner, address: usize) -> Option<()> {
    let mut names = machine.flt.names.lock();
    let name = names.get_mut(&address)?;
    name.references -= 1;
    if name.references == 0 {
        let pages = name.pages;
        names.remove(&address);
        machine.nt.arena().release(address, pages);
    }
    Some(())
}

fn unknown(call: &Call, information: Raw<FLT_FILE_NAME_INFORMATION>) -> ! {
    call.stop(
        Rule::ReferenceUnderflow,
        format!("{information:?} is no file name information; it was released before, or never handed out"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_parsed_as_the_page_shows() {
        let text = wide(r"\Device\HarddiskVolume1\Docume~1\MyUser\My Documents\TestRe~1.txt:stream1:$DATA");
        let parts = Parts::of(&text, r"\Device\HarddiskVolume1".len());
        let get = |(start, end): (usize, usize)| String::from_utf16_lossy(&text[start..end]);
        assert_eq!(get(parts.extension), "txt");
        assert_eq!(get(parts.stream), ":stream1:$DATA");
        assert_eq!(get(parts.final_component), "TestRe~1.txt:stream1:$DATA");
        assert_eq!(get(parts.parent), r"\Docume~1\MyUser\My Documents\");
    }

    #[test]
    fn a_dot_in_the_stream_is_no_extension() {
        let text = wide(r"\v\a:b.c");
        let parts = Parts::of(&text, 2);
        assert_eq!(parts.extension, (4, 4));
    }
}
