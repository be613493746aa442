//! File names: what FltGetFileNameInformation and its relatives hand out.
//!
//! Each structure lives on pages of its own that are read-only for the driver: on Windows it is shared with all other filters, so
//! that a write to it is a bug that only shows elsewhere. Here it faults. [`query`] finds names, [`destination`] those that a
//! rename or a link is about to make, [`provider`] asks filters that change names, [`parse`] cuts names up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::FLT_FILE_NAME_INFORMATION;
use nt_types::{NtStatus, UNICODE_STRING};

use crate::ddi::{Call, Export, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::arena::{Access, pages_for};
use crate::nt::raw::{Raw, field};
use crate::origin::Origin;

mod destination;
mod parse;
pub(super) mod provider;
mod query;

exports! { OWN in "fltmgr.sys":
    FltReferenceFileNameInformation(max 1) = flt_reference_file_name_information;
    FltReleaseFileNameInformation(max 1) = flt_release_file_name_information;
}

/// What drivers can import from here.
pub(super) fn exports() -> impl Iterator<Item = &'static Export> {
    [OWN, destination::EXPORTS, parse::EXPORTS, provider::EXPORTS, query::EXPORTS].into_iter().flatten()
}

/// Names of a machine: what drivers hold, and what is cached.
#[derive(Debug, Default)]
pub(crate) struct NameTable(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By address of the structure.
    held: HashMap<usize, NameInformation>,
    cache: HashMap<CacheKey, Name>,
    /// Buffers of FLT_NAME_CONTROL structures that providers fill, by the structure's address: start and pages.
    controls: HashMap<usize, (usize, usize)>,
}

/// What a cached name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CacheKey {
    /// Address of the file object.
    file: usize,
    /// `FLT_FILE_NAME_*`.
    format: u32,
    /// Address of the instance that provided the name; 0 for the file system.
    provider: usize,
}

/// A name, and how much of it is the volume's device name, in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    text: Vec<u16>,
    volume: usize,
}

#[derive(Debug)]
struct NameInformation {
    driver: Arc<Driver>,
    ddi: &'static str,
    site: Origin,
    references: usize,
    pages: usize,
    format: u32,
    text: Vec<u16>,
    volume: usize,
}

impl NameTable {
    /// What `driver` has not released.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let mine = state.held.values().filter(|name| std::ptr::eq(Arc::as_ptr(&name.driver), driver));
        let leak = |name: &NameInformation| Leak {
            kind: LeakKind::Reference,
            count: name.references as u64,
            bytes: 0,
            detail: format!(
                "FLT_FILE_NAME_INFORMATION of {}, by {} from {}",
                String::from_utf16_lossy(&name.text),
                name.ddi,
                name.site
            ),
        };
        mine.map(leak).collect()
    }

    /// The file object is gone, and its names with it.
    pub(super) fn forget_file(&self, file: usize) {
        self.lock().cache.retain(|key, _| key.file != file);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes the structure, with its text behind it.
///
/// # Errors
/// `INSUFFICIENT_RESOURCES`; `OBJECT_NAME_INVALID` for a name that no UNICODE_STRING can hold.
fn publish(call: &Call, name: Name, format: u32) -> Result<usize, NtStatus> {
    let Name { text, volume } = name;
    if text.len() > UNICODE_STRING::MAX_CHARS {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
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
    call.detail_of(|| String::from_utf16_lossy(&text));
    let entry = NameInformation {
        driver: Arc::clone(call.driver()),
        ddi: call.site().export.name,
        site: Origin::of(call.site()),
        references: 1,
        pages,
        format,
        text,
        volume,
    };
    call.machine().flt.names.lock().held.insert(address, entry);
    Ok(address)
}

/// Hands the structure out.
fn answer(call: &Call, name: Result<Name, NtStatus>, format: u32, out: Raw<usize>) -> NtStatus {
    match name.and_then(|name| publish(call, name, format)) {
        Ok(information) => {
            out.write(information);
            NtStatus::SUCCESS
        }
        Err(status) => {
            call.detail(status);
            status
        }
    }
}

/// Characters `start..end` of the text at `buffer`.
fn slice(buffer: usize, start: usize, end: usize) -> UNICODE_STRING {
    if start == end {
        return UNICODE_STRING::EMPTY;
    }
    let bytes = ((end - start) * 2) as u16;
    UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: Raw::at(buffer + start * 2).pointer() }
}

extern "efiapi" fn flt_reference_file_name_information(information: Raw<FLT_FILE_NAME_INFORMATION>) {
    let call = Call::enter();
    let known = call.machine().flt.names.lock().held.get_mut(&information.address()).map(|name| name.references += 1);
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
    let mut state = machine.flt.names.lock();
    let name = state.held.get_mut(&address)?;
    name.references -= 1;
    if name.references == 0 {
        let pages = name.pages;
        state.held.remove(&address);
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
