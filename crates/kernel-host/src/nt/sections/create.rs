//! `ZwCreateSection` and `ZwOpenSection`.

use std::sync::Arc;

use nt_types::{FILE_OBJECT, HANDLE, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES};

use super::pages::{Pages, read_pages};
use super::{Section, Sections, image};
use crate::ddi::{Call, exports};
use crate::fs::information::class;
use crate::fs::section::{self, WritableReference};
use crate::fs::{io, stream};
use crate::machine::Inner;
use crate::nt::arena::{PAGE, pages_for};
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::{make_handle, open_entry};
use crate::nt::ob_named::{Permanence, flags_of, name_or_open, open_named, path_of};
use crate::nt::physical::FRAMES;
use crate::nt::raw::{Raw, field};

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ZwCreateSection(max 0, fails RESOURCES) = zw_create_section;
    NtCreateSection(max 0, fails RESOURCES) = zw_create_section;
    ZwOpenSection(max 0, fails RESOURCES) = zw_open_section;
}

/// Bytes of a section's body; drivers never look into it.
const BODY_BYTES: usize = 16;

/// `SEC_*`.
const SEC_IMAGE: u32 = 0x0100_0000;
const SEC_RESERVE: u32 = 0x0400_0000;
const SEC_COMMIT: u32 = 0x0800_0000;

/// The largest section, in bytes: what the machine has frames for.
const LARGEST: u64 = FRAMES * PAGE as u64;

/// What a section is to be.
struct Wanted {
    maximum: u64,
    protection: u32,
    attributes: u32,
    is_writable: bool,
    permanence: Permanence,
}

pub(super) extern "efiapi" fn zw_create_section(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    maximum: Raw<i64>,
    protection: u32,
    allocation: u32,
    file: HANDLE,
) -> NtStatus {
    let call = Call::enter();
    let maximum = maximum.some().map_or(0, Raw::read);
    let made = create(&call, attributes, maximum, protection, allocation, file);
    call.thread().leave_if_stopped();
    match made {
        Ok((object, existed)) => {
            handle.write(make_handle(&call, &object, access, flags_of(attributes)));
            if existed { NtStatus::OBJECT_NAME_EXISTS } else { NtStatus::SUCCESS }
        }
        Err(status) => status,
    }
}

/// Whether sections of a `PAGE_*` protection can be written through views.
fn writable(protection: u32) -> Result<bool, NtStatus> {
    // PAGE_READONLY, PAGE_WRITECOPY and the executable kinds; PAGE_READWRITE, PAGE_EXECUTE_READWRITE.
    match protection & 0xFF {
        0x02 | 0x08 | 0x10 | 0x20 | 0x80 => Ok(false),
        0x04 | 0x40 => Ok(true),
        _ => Err(NtStatus::INVALID_PAGE_PROTECTION),
    }
}

/// The section, and whether one of that name was there already.
fn create(
    call: &Call,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    maximum: i64,
    protection: u32,
    allocation: u32,
    file: HANDLE,
) -> Result<(ObjectRef, bool), NtStatus> {
    let machine = call.machine();
    let flags = flags_of(attributes);
    let is_writable = writable(protection)?;
    if allocation & (SEC_IMAGE | SEC_RESERVE | SEC_COMMIT) == 0 {
        return Err(NtStatus::INVALID_PARAMETER_6);
    }
    let maximum = u64::try_from(maximum).ok().filter(|maximum| *maximum <= LARGEST).ok_or(NtStatus::SECTION_TOO_BIG)?;
    let permanence = Permanence::of(flags);
    let wanted = Wanted { maximum, protection, attributes: allocation, is_writable, permanence };
    let path = path_of(call, attributes)?;
    let section = if file.is_null() {
        of_paging_file(machine, wanted)?
    } else {
        let file = open_entry(call, file.addr(), 0, Some("File"), KERNEL_MODE)?.object;
        of_file(machine, &file, wanted)?
    };
    let object = machine.nt.objects().create(BODY_BYTES, Arc::new(section))?;
    name_or_open::<Section>(machine, object, path.as_deref(), flags)
}

fn of_paging_file(machine: &Arc<Inner>, wanted: Wanted) -> Result<Section, NtStatus> {
    if wanted.attributes & SEC_IMAGE != 0 {
        return Err(NtStatus::INVALID_FILE_FOR_SECTION);
    }
    // A section of the paging file has no other size (general knowledge, no page).
    if wanted.maximum == 0 {
        return Err(NtStatus::INVALID_PARAMETER_4);
    }
    let pages = Pages::of_paging_file(machine.nt.physical(), pages_for(wanted.maximum as usize))?;
    let Wanted { maximum: size, is_writable, permanence, .. } = wanted;
    Ok(Section { size, is_writable, permanence, writable: None, pages })
}

fn of_file(machine: &Arc<Inner>, file: &ObjectRef, wanted: Wanted) -> Result<Section, NtStatus> {
    let (_, open) = io::opened(file).map_err(|_| NtStatus::INVALID_FILE_FOR_SECTION)?;
    if open.stream.kind != stream::Kind::File {
        return Err(NtStatus::INVALID_FILE_FOR_SECTION);
    }
    section::acquire(machine, file, wanted.protection)?;
    let made = in_acquired(machine, file, wanted, &open);
    section::release(machine, file);
    made
}

/// A section of an open file as long as it is, committed; for other subsystems' calls.
///
/// # Errors
/// As for `ZwCreateSection`.
pub(crate) fn of_open_file(call: &Call, file: &ObjectRef, protection: u32) -> Result<ObjectRef, NtStatus> {
    let is_writable = writable(protection)?;
    let wanted =
        Wanted { maximum: 0, protection, attributes: SEC_COMMIT, is_writable, permanence: Permanence::default() };
    let section = of_file(call.machine(), file, wanted)?;
    call.machine().nt.objects().create(BODY_BYTES, Arc::new(section))
}

/// The handle to a section that such a call returns.
pub(crate) fn handle_to(call: &Call, section: &ObjectRef, access: u32, attributes: Raw<OBJECT_ATTRIBUTES>) -> usize {
    make_handle(call, section, access, flags_of(attributes))
}

/// Between the acquire and the release: nobody changes the file's size.
fn in_acquired(
    machine: &Arc<Inner>,
    file: &ObjectRef,
    wanted: Wanted,
    open: &Arc<crate::fs::open::Open>,
) -> Result<Section, NtStatus> {
    let length = length_of(machine, file)?;
    let is_image = wanted.attributes & SEC_IMAGE != 0;
    let size = if wanted.maximum == 0 { length } else { wanted.maximum };
    if size == 0 {
        return Err(NtStatus::MAPPED_FILE_SIZE_ZERO);
    }
    let pointers = field!(Raw::<FILE_OBJECT>::at(file.body()), FILE_OBJECT, SectionObjectPointer).read();
    let pointers = pointers.expose_provenance();
    let sections = machine.nt.sections();
    if is_image {
        let bytes = read_pages(machine, file, 0, pages_for(length as usize))?;
        let contents = image::lay_out(bytes.get(..length as usize).unwrap_or(&bytes))?;
        let pages = sections.image_pages(machine, file, pointers, &contents)?;
        let size = contents.len() as u64;
        return Ok(Section { size, is_writable: false, permanence: wanted.permanence, writable: None, pages });
    }
    if size > length {
        if !wanted.is_writable {
            return Err(NtStatus::SECTION_TOO_BIG);
        }
        // The file becomes as long as the section; filters see it.
        io::set_information(machine, file, None, class::END_OF_FILE, &size.to_le_bytes()).ok()?;
    }
    let pages = sections.data_pages(machine, file, pointers, pages_for(size as usize))?;
    let writable = wanted.is_writable.then(|| WritableReference::new(open));
    Ok(Section { size, is_writable: wanted.is_writable, permanence: wanted.permanence, writable, pages })
}

/// The end of the file, as filters show it.
fn length_of(machine: &Arc<Inner>, file: &ObjectRef) -> Result<u64, NtStatus> {
    let (status, bytes) = io::query_information(machine, file, None, class::STANDARD, 24);
    status.ok()?;
    let length = bytes.get(8..).and_then(|rest| rest.first_chunk::<8>()).ok_or(NtStatus::INVALID_FILE_FOR_SECTION)?;
    let length = u64::from_le_bytes(*length);
    if length > LARGEST { Err(NtStatus::SECTION_TOO_BIG) } else { Ok(length) }
}

impl Sections {
    /// The pages that all data sections of a stream share, at least `count` of them.
    fn data_pages(
        &self,
        machine: &Arc<Inner>,
        file: &ObjectRef,
        pointers: usize,
        count: usize,
    ) -> Result<Arc<Pages>, NtStatus> {
        // Bound first: the last reference to pages must not go while the list is locked.
        let found = self.lock().data.get(&pointers).and_then(std::sync::Weak::upgrade);
        if let Some(found) = found {
            found.grow(count)?;
            return Ok(found);
        }
        let made = Pages::of_file(machine.nt.physical(), file, pointers, count)?;
        self.lock().data.insert(pointers, Arc::downgrade(&made));
        Ok(made)
    }

    /// ... and those of its image.
    fn image_pages(
        &self,
        machine: &Arc<Inner>,
        file: &ObjectRef,
        pointers: usize,
        contents: &[u8],
    ) -> Result<Arc<Pages>, NtStatus> {
        let found = self.lock().images.get(&pointers).and_then(std::sync::Weak::upgrade);
        if let Some(found) = found {
            return Ok(found);
        }
        let made = Pages::of_image(machine.nt.physical(), file, pointers, contents)?;
        self.lock().images.insert(pointers, Arc::downgrade(&made));
        Ok(made)
    }
}

pub(super) extern "efiapi" fn zw_open_section(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
) -> NtStatus {
    open_named::<Section>(&Call::enter(), handle, access, attributes)
}
