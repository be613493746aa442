//! Sections for data scans and their contexts.

use fltmgr::raw::FLT_SECTION_CONTEXT;
use nt_types::HANDLE;

use super::*;

const COMMIT: u32 = 0x0800_0000;
const READ_ONLY: u32 = 2;

/// A filter that registers section contexts, and a file.
fn bed() -> (Bed, Opened) {
    let bed = Bed::with(&[definition(FLT_SECTION_CONTEXT, 16)]);
    let file = bed.open(BOOT);
    (bed, file)
}

fn register(bed: &Bed) {
    let register = ddi!(FltRegisterForDataScan: fn(usize) -> NtStatus);
    let instance = bed.instance();
    assert_eq!(bed.setup.run(|| register(instance)), Ok(NtStatus::SUCCESS));
}

/// The section's handle, object and size.
fn create(bed: &Bed, file: &Opened, context: usize, protection: u32) -> Result<(HANDLE, usize, i64), NtStatus> {
    type Create =
        extern "efiapi" fn(usize, usize, usize, u32, usize, usize, u32, u32, u32, usize, usize, usize) -> NtStatus;
    let create: Create = ddi!(FltCreateSectionForDataScan: fn(usize, usize, usize, u32, usize, usize, u32, u32, u32, usize, usize, usize) -> NtStatus);
    let instance = bed.instance();
    let mut out = [0_usize; 3];
    let at = Raw::of(out.as_mut_ptr());
    let status = bed.setup.run(|| {
        let [handle, object, size] = [0, 1, 2].map(|index| at.index(index).address());
        create(instance, file.object, context, 0xF, 0, 0, protection, COMMIT, 0, handle, object, size)
    });
    status.unwrap().ok()?;
    let handle = std::ptr::without_provenance_mut(at.read());
    Ok((handle, at.index(1).read(), at.index(2).read().cast_signed() as i64))
}

#[test]
fn a_scan_maps_the_file_and_is_known_by_its_context() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesectionfordatascan.md",
        "A handle and a referenced object of the section are returned, and the file's size; both are the caller's to give back."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesectionfordatascan.md",
        "One section per stream and instance: STATUS_FLT_CONTEXT_ALREADY_DEFINED for another."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltclosesectionfordatascan.md",
        "STATUS_NOT_FOUND once the context is closed; STATUS_INVALID_PARAMETER for one that no section was created with."
    );
    let (bed, file) = bed();
    register(&bed);
    let [first, second] = [bed.allocate(FLT_SECTION_CONTEXT), bed.allocate(FLT_SECTION_CONTEXT)];
    let (handle, object, size) = create(&bed, &file, first, READ_ONLY).unwrap();
    assert_eq!(size, 10);
    assert_eq!(create(&bed, &file, second, READ_ONLY), Err(NtStatus::FLT_CONTEXT_ALREADY_DEFINED));
    let get = ddi!(FltGetSectionContext: fn(usize, usize, usize) -> NtStatus);
    let instance = bed.instance();
    let found = with_out(|out| bed.setup.run(|| get(instance, file.object, out)).unwrap());
    assert_eq!(found, (NtStatus::SUCCESS, first));
    let map = ddi!(MmMapViewInSystemSpace: fn(usize, usize, usize) -> NtStatus);
    let unmap = ddi!(MmUnmapViewInSystemSpace: fn(usize) -> NtStatus);
    let close = ddi!(FltCloseSectionForDataScan: fn(usize) -> NtStatus);
    let release = ddi!(FltReleaseContext: fn(usize));
    bed.setup
        .run(|| {
            let (mut base, mut length) = (0_usize, 0_usize);
            let (base, length) = (Raw::of(&raw mut base), Raw::of(&raw mut length));
            assert!(map(object, base.address(), length.address()).is_success());
            assert_eq!(Raw::<u8>::at(base.read()).read_bytes(10), b"0123456789");
            assert!(unmap(base.read()).is_success());
            assert!(ddi!(ZwClose: fn(HANDLE) -> NtStatus)(handle).is_success());
            ddi!(ObfDereferenceObject: fn(usize) -> isize)(object);
            assert_eq!(
                [close(second), close(first), close(first)],
                [NtStatus::INVALID_PARAMETER, NtStatus::SUCCESS, NtStatus::NOT_FOUND]
            );
            // The allocation's reference, and the look-up's.
            for context in [first, first, second] {
                release(context);
            }
        })
        .unwrap();
    assert_eq!(cleaned(), [first, second]);
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn a_section_needs_a_scanning_instance_and_sound_parameters() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesectionfordatascan.md",
        "An instance that has not called FltRegisterForDataScan gets no section."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesectionfordatascan.md",
        "A protection but PAGE_READONLY and PAGE_READWRITE is STATUS_INVALID_PARAMETER_8."
    );
    let (bed, file) = bed();
    let context = bed.allocate(FLT_SECTION_CONTEXT);
    assert_eq!(create(&bed, &file, context, READ_ONLY), Err(NtStatus::INVALID_PARAMETER));
    register(&bed);
    assert_eq!(create(&bed, &file, context, 0x10), Err(NtStatus::INVALID_PARAMETER_8));
    let release = ddi!(FltReleaseContext: fn(usize));
    bed.setup.run(|| release(context)).unwrap();
    file.release(&bed.setup);
    bed.end();
}
