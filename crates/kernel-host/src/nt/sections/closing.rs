//! What file systems, and filters that act for them, ask before they truncate, delete or rewrite a file.

use std::sync::{Arc, Weak};

use super::pages::Pages;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    MmFlushImageSection(max 1) = mm_flush_image_section;
    MmForceSectionClosed(max 1) = mm_force_section_closed;
    MmCanFileBeTruncated(max 1) = mm_can_file_be_truncated;
}

/// `MmFlushForDelete`.
const FLUSH_FOR_DELETE: i32 = 0;

/// The sections of one stream that are still there. Nothing is cached without one, so none can be closed by force.
struct Sections {
    data: Option<Arc<Pages>>,
    image: Option<Arc<Pages>>,
}

impl Sections {
    fn of(call: &Call, pointers: usize) -> Self {
        if call.machine().fs.writable_references(pointers).is_none() {
            call.stop(
                Rule::BadArgument,
                format!("{pointers:#x} is not the SectionObjectPointer of an open file of a volume"),
            );
        }
        let state = call.machine().nt.sections().lock();
        let alive = |found: Option<&Weak<Pages>>| found.and_then(Weak::upgrade);
        Self { data: alive(state.data.get(&pointers)), image: alive(state.images.get(&pointers)) }
    }
}

pub(super) extern "efiapi" fn mm_flush_image_section(pointers: usize, kind: i32) -> u8 {
    let call = Call::enter();
    let sections = Sections::of(&call, pointers);
    // For a deletion, references to the data section are in the way as well.
    u8::from(sections.image.is_none() && (kind != FLUSH_FOR_DELETE || sections.data.is_none()))
}

pub(super) extern "efiapi" fn mm_force_section_closed(pointers: usize, _delay: u8) -> u8 {
    let call = Call::enter();
    let sections = Sections::of(&call, pointers);
    u8::from(sections.image.is_none() && sections.data.is_none())
}

pub(super) extern "efiapi" fn mm_can_file_be_truncated(pointers: usize, size: Raw<i64>) -> u8 {
    let call = Call::enter();
    let sections = Sections::of(&call, pointers);
    let grows = |data: &Arc<Pages>| size.some().is_some_and(|size| size.read() > data.file_size().cast_signed());
    u8::from(sections.image.is_none() && sections.data.as_ref().is_none_or(grows))
}
