//! Files for miniports: `NdisOpenFile`, `NdisMapFile`, `NdisUnmapFile`, `NdisCloseFile`.
//!
//! Open reads the whole file into memory; mapping only makes that memory accessible, so that a driver that uses the buffer before it
//! maps, after it unmaps or after it closes faults. What the pages leave undefined is a finding here: unmapping what is not mapped, and
//! closing twice.

use std::sync::Arc;

use ndis::NdisStatus;
use nt_types::{KERNEL_MODE, NtStatus, UNICODE_STRING};

use super::{end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io::{self, OpenParameters};
use crate::machine::{Driver, Inner};
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::physical::Owner;
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisOpenFile(max 0, fails NDIS_FILE) = open;
    NdisMapFile(max 2) = map;
    NdisUnmapFile(max 0) = unmap;
    NdisCloseFile(max 0) = close;
}

/// Where a file name is looked up. No page says so; NDIS has done it since NT 3.1.
const FOLDER: &str = r"\SystemRoot\System32\drivers\";

/// What is mapped of an empty file: one inaccessible page, so that there is an address.
const LEAST_PAGES: usize = 1;

/// An open file: its contents in memory.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) driver: Arc<Driver>,
    pub(super) name: String,
    /// In bytes.
    pub(super) length: usize,
    /// Handle of the adapter whose initialisation opened it.
    pub(super) port: usize,
    /// The memory, and the frames behind it.
    run: usize,
    pages: usize,
    frames: Vec<u64>,
    is_mapped: bool,
}

extern "efiapi" fn open(
    status: Raw<NdisStatus>,
    handle_out: Raw<usize>,
    length_out: Raw<u32>,
    name: Raw<UNICODE_STRING>,
    highest: i64,
) {
    let call = Call::enter();
    let port = call.machine().ndis.initializing(&call).handle;
    let opened = unicode::name(name).map_err(|_| NdisStatus::FILE_NOT_FOUND).and_then(|name| {
        call.detail(&*name);
        load(&call, &name, highest, port)
    });
    let (handle, file) = match opened {
        Ok(opened) => opened,
        Err(refused) => return status.write(refused),
    };
    call.bytes(file.length as u64);
    let length = file.length as u32;
    call.machine().ndis.lock().files.insert(handle, file);
    handle_out.write(handle);
    length_out.write(length);
    status.write(NdisStatus::SUCCESS);
}

fn load(call: &Call, name: &str, highest: i64, port: usize) -> Result<(usize, OpenFile), NdisStatus> {
    let contents = read_file(call.machine(), name)?;
    if u32::try_from(contents.len()).is_err() {
        return Err(NdisStatus::RESOURCES);
    }
    let nt = &call.machine().nt;
    let pages = pages_for(contents.len()).max(LEAST_PAGES);
    let site = call.site();
    let owner =
        Owner { driver: Arc::clone(call.driver()), ddi: site.export.name, site: crate::origin::Origin::of(site) };
    // All bits set means no limit, and is the highest address when taken as unsigned. A frame counts when its last byte does.
    let frames_below = highest.cast_unsigned().saturating_add(1) / PAGE as u64;
    let taken = match frames_below.checked_sub(1) {
        Some(highest_frame) => nt.physical().take(pages as u64, 1, highest_frame, &owner),
        None => Vec::new(),
    };
    let frames: Vec<u64> = taken.into_iter().flat_map(|(first, count)| first..first + count).collect();
    let run = if frames.len() == pages { nt.physical().map(nt.arena(), &frames, Access::ReadWrite) } else { None };
    let handle = new_handle(call.machine());
    let Some(run) = run.filter(|_| handle != 0) else {
        let _ = nt.physical().give_back(&frames);
        return Err(NdisStatus::RESOURCES);
    };
    Raw::at(run).write_bytes(&contents);
    nt.arena().protect(run, pages, Access::None);
    let driver = Arc::clone(call.driver());
    let length = contents.len();
    Ok((handle, OpenFile { driver, name: name.to_owned(), length, port, run, pages, frames, is_mapped: false }))
}

/// The whole file, through the filters as any kernel open.
fn read_file(machine: &Arc<Inner>, name: &str) -> Result<Vec<u8>, NdisStatus> {
    const FILE_READ_DATA_AND_SYNCHRONIZE: u32 = 0x0010_0001;
    const FILE_SHARE_READ: u32 = 1;
    const FILE_OPEN: u32 = 1;
    const FILE_SYNCHRONOUS_IO_NONALERT_AND_NON_DIRECTORY_FILE: u32 = 0x0060;
    if name.is_empty() {
        return Err(NdisStatus::FILE_NOT_FOUND);
    }
    let system = machine.nt.system_process(machine);
    let parameters = OpenParameters {
        share: FILE_SHARE_READ,
        disposition: FILE_OPEN,
        options: FILE_SYNCHRONOUS_IO_NONALERT_AND_NON_DIRECTORY_FILE,
        object_flags: 0,
        ..OpenParameters::new(system, KERNEL_MODE, FILE_READ_DATA_AND_SYNCHRONIZE)
    };
    let (object, _) = io::open_by_name(machine, &format!("{FOLDER}{name}"), &parameters, None).map_err(refused_open)?;
    let (_, open) = io::opened(&object).map_err(|_| NdisStatus::ERROR_READING_FILE)?;
    let size = open.size().ok().and_then(|size| usize::try_from(size).ok()).ok_or(NdisStatus::ERROR_READING_FILE)?;
    let mut contents = vec![0; size];
    let mut done = 0;
    let mut failed = false;
    while done < size && !failed {
        let (status, count) = io::read(
            machine,
            &object,
            None,
            KERNEL_MODE,
            i64::try_from(done).unwrap_or(i64::MAX),
            &mut contents[done..],
        );
        failed = status != NtStatus::SUCCESS || count == 0;
        done += count;
    }
    io::cleanup(Some(machine), &object, &open);
    if failed { Err(NdisStatus::ERROR_READING_FILE) } else { Ok(contents) }
}

fn refused_open(status: NtStatus) -> NdisStatus {
    match status {
        NtStatus::INSUFFICIENT_RESOURCES | NtStatus::NO_MEMORY => NdisStatus::RESOURCES,
        NtStatus::ACCESS_DENIED | NtStatus::SHARING_VIOLATION => NdisStatus::ERROR_READING_FILE,
        _ => NdisStatus::FILE_NOT_FOUND,
    }
}

extern "efiapi" fn map(status: Raw<NdisStatus>, buffer_out: Raw<usize>, handle: usize) {
    let call = Call::enter();
    let file = file(&call, handle);
    call.detail(&*file.name);
    buffer_out.write(file.run);
    if file.is_mapped {
        return status.write(NdisStatus::ALREADY_MAPPED);
    }
    call.bytes(file.length as u64);
    if file.length != 0 {
        // Writable, as it is on Windows: the buffer is the driver's own copy.
        call.machine().nt.arena().protect(file.run, file.pages, Access::ReadWrite);
    }
    set_mapped(&call, handle, true);
    status.write(NdisStatus::SUCCESS);
}

extern "efiapi" fn unmap(handle: usize) {
    let call = Call::enter();
    let file = file(&call, handle);
    call.detail(&*file.name);
    if !file.is_mapped {
        call.stop(Rule::BadState, format!("{} is not mapped", file.name));
    }
    call.machine().nt.arena().protect(file.run, file.pages, Access::None);
    set_mapped(&call, handle, false);
}

extern "efiapi" fn close(handle: usize) {
    let call = Call::enter();
    let file = file(&call, handle);
    call.detail(&*file.name);
    call.machine().ndis.lock().files.remove(&handle);
    file.release(call.machine());
    end_handle(call.machine(), handle);
}

/// The file behind a handle. Stops on a handle that is none, and outside of the initialisation that opened it.
fn file(call: &Call, handle: usize) -> OpenFile {
    let found = call.machine().ndis.lock().files.get(&handle).cloned();
    let Some(file) = found.filter(|file| Arc::ptr_eq(&file.driver, call.driver())) else {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no open file, or one that is closed"));
    };
    let port = call.machine().ndis.initializing(call);
    if port.handle != file.port {
        call.stop(Rule::BadState, format!("{} was opened for another adapter", file.name));
    }
    file
}

fn set_mapped(call: &Call, handle: usize, is_mapped: bool) {
    if let Some(file) = call.machine().ndis.lock().files.get_mut(&handle) {
        file.is_mapped = is_mapped;
    }
}

impl OpenFile {
    fn release(&self, machine: &Inner) {
        machine.nt.arena().release(self.run, self.pages);
        // The frames are in use: this file took them.
        let _ = machine.nt.physical().give_back(&self.frames);
    }
}

/// Names of the files that the initialisation of adapter `port` left open.
pub(super) fn left_open(machine: &Inner, port: usize) -> Vec<String> {
    let state = machine.ndis.lock();
    state.files.values().filter(|file| file.port == port).map(|file| file.name.clone()).collect()
}
