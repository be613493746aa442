use std::sync::Arc;

use nt_types::{FILE_OBJECT, HANDLE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING};

use super::closing::{mm_can_file_be_truncated, mm_flush_image_section, mm_force_section_closed};
use super::create::{zw_create_section, zw_open_section};
use super::view::{
    mm_map_view_in_system_space, mm_unmap_view_in_system_space, zw_flush_virtual_memory, zw_map_view_of_section,
    zw_unmap_view_of_section,
};
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::finding::Rule;
use crate::machine::Machine;
use crate::nt::raw::{Raw, field};
use crate::process::Process;
use crate::thread::Thread;

const CURRENT_PROCESS: HANDLE = std::ptr::without_provenance_mut(usize::MAX);
const READ_ONLY: u32 = 2;
const READ_WRITE: u32 = 4;
const WRITE_COPY: u32 = 8;
const COMMIT: u32 = 0x0800_0000;
const IMAGE: u32 = 0x0100_0000;

/// A machine with `C:\file`, which has ten digits, and drivers that act for the system.
struct Setup {
    folder: tempfile::TempDir,
    bench: Bench,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"0123456789").unwrap();
        std::fs::write(folder.path().join("empty"), b"").unwrap();
        std::fs::write(folder.path().join("image.sys"), crate::image::testing::driver_file()).unwrap();
        let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
        Self { folder, bench }
    }

    /// A handle of the system's to a file.
    fn open(&self, name: &str) -> HANDLE {
        let inner = self.bench.machine().inner();
        let handle = inner.nt.system_process(inner).open(&format!(r"\??\C:\{name}"), 0x12_019F);
        std::ptr::without_provenance_mut(handle.unwrap())
    }

    fn pointers(&self, file: HANDLE) -> usize {
        let inner = self.bench.machine().inner();
        let object = inner.nt.system_process(inner).handles().entry(file.addr()).unwrap().object;
        let file = Raw::<FILE_OBJECT>::at(object.body());
        field!(file, FILE_OBJECT, SectionObjectPointer).read().addr()
    }

    fn close(&self, handle: HANDLE) {
        let inner = self.bench.machine().inner();
        let system = inner.nt.system_process(inner);
        Thread::enter(inner, |_| system.close_handle(handle.addr())).unwrap();
    }
}

fn create(size: i64, protection: u32, allocation: u32, file: HANDLE) -> Result<HANDLE, NtStatus> {
    let (mut handle, mut size) = (0_usize, size);
    let out = Raw::of(&raw mut handle);
    let size = Raw::of(&raw mut size);
    zw_create_section(out, 0xF, Raw::NULL, size, protection, allocation, file).ok()?;
    Ok(std::ptr::without_provenance_mut(out.read()))
}

fn map(section: HANDLE, offset: i64, size: usize, protection: u32) -> Result<(usize, i64, usize), NtStatus> {
    let (mut base, mut offset, mut size) = (0_usize, offset, size);
    let (base, offset, size) = (Raw::of(&raw mut base), Raw::of(&raw mut offset), Raw::of(&raw mut size));
    zw_map_view_of_section(section, CURRENT_PROCESS, base, 0, 0, offset, size, 2, 0, protection).ok()?;
    Ok((base.read(), offset.read(), size.read()))
}

fn body(setup: &Setup, handle: HANDLE) -> usize {
    let inner = setup.bench.machine().inner();
    inner.nt.system_process(inner).handles().entry(handle.addr()).unwrap().object.body()
}

fn in_process<R>(process: &Arc<Process>, run: impl FnOnce() -> R) -> R {
    let before = Thread::current().set_process(Some(Arc::clone(process)));
    let result = run();
    Thread::current().set_process(before);
    result
}

#[test]
fn views_of_one_section_show_the_same_bytes_in_a_process_and_in_system_space() {
    conforms!(
        "wdm/nf-wdm-zwmapviewofsection.md",
        "Several views of a section can be mapped at the same time; the size is rounded up to pages and returned."
    );
    conforms!(
        "ntddk/nf-ntddk-mmmapviewinsystemspace.md",
        "A size of zero maps the whole section into system space; the size mapped is returned."
    );
    let setup = Setup::new();
    let system = setup.bench.machine().inner().nt.system_process(setup.bench.machine().inner()).clone();
    setup
        .bench
        .run(|| {
            let section = create(5000, READ_WRITE, COMMIT, std::ptr::null_mut()).unwrap();
            let (one, _, size) = map(section, 0, 0, READ_WRITE).unwrap();
            assert_eq!(size, 8192);
            let (two, _, size) = map(section, 0, 100, READ_ONLY).unwrap();
            assert_eq!(size, 4096);
            system.memory().write(one, b"shared").unwrap();
            assert_eq!(system.memory().read_vec(two, 6).unwrap(), b"shared");
            assert_eq!(system.memory().write(two, b"x"), Err(NtStatus::ACCESS_VIOLATION));
            let (mut base, mut size) = (0_usize, 0_usize);
            let (base, size) = (Raw::of(&raw mut base), Raw::of(&raw mut size));
            assert!(mm_map_view_in_system_space(body(&setup, section), base, size).is_success());
            assert_eq!(size.read(), 8192);
            Raw::<u8>::at(base.read() + 4096).write(9);
            assert_eq!(system.memory().read_vec(one + 4096, 1).unwrap(), [9]);
            assert!(mm_unmap_view_in_system_space(base.read()).is_success());
            for view in [one + 4097, two] {
                assert_eq!(zw_unmap_view_of_section(CURRENT_PROCESS, view), NtStatus::SUCCESS);
                assert_eq!(zw_unmap_view_of_section(CURRENT_PROCESS, view), NtStatus::NOT_MAPPED_VIEW);
            }
            setup.close(section);
        })
        .unwrap();
}

#[test]
fn a_view_s_protection_and_place_have_to_fit_the_section() {
    conforms!(
        "wdm/nf-wdm-zwmapviewofsection.md",
        "STATUS_SECTION_PROTECTION is for a protection that the section's own does not allow."
    );
    conforms!("wdm/nf-wdm-zwmapviewofsection.md", "The offset is rounded down to the allocation granularity.");
    conforms!("wdm/nf-wdm-zwcreatesection.md", "A protection that is none is STATUS_INVALID_PAGE_PROTECTION.");
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let null = std::ptr::null_mut();
            assert_eq!(create(5000, 0, COMMIT, null), Err(NtStatus::INVALID_PAGE_PROTECTION));
            assert_eq!(create(0, READ_WRITE, COMMIT, null), Err(NtStatus::INVALID_PARAMETER_4));
            assert_eq!(create(5000, READ_WRITE, 0, null), Err(NtStatus::INVALID_PARAMETER_6));
            assert_eq!(create(1 << 50, READ_WRITE, COMMIT, null), Err(NtStatus::SECTION_TOO_BIG));
            let section = create(0x2_0000, READ_ONLY, COMMIT, null).unwrap();
            assert_eq!(map(section, 0, 0, READ_WRITE), Err(NtStatus::SECTION_PROTECTION));
            assert_eq!(map(section, 0, 0, 3), Err(NtStatus::INVALID_PAGE_PROTECTION));
            assert_eq!(map(section, 0, 0x2_0001, READ_ONLY), Err(NtStatus::INVALID_VIEW_SIZE));
            assert_eq!(map(section, 0x2_0000, 0, READ_ONLY), Err(NtStatus::INVALID_VIEW_SIZE));
            let (view, offset, size) = map(section, 0x1_1000, 0, READ_ONLY).unwrap();
            assert_eq!((offset, size), (0x1_0000, 0x1_0000));
            assert!(zw_unmap_view_of_section(CURRENT_PROCESS, view).is_success());
            setup.close(section);
        })
        .unwrap();
}

#[test]
fn what_is_stored_in_a_file_s_view_is_in_the_file_after_a_flush() {
    conforms!(
        "ntifs/nf-ntifs-zwflushvirtualmemory.md",
        "A size of zero flushes to the view's end; base and size of what was flushed are returned."
    );
    conforms!("ntifs/nf-ntifs-zwflushvirtualmemory.md", "An address without a view is STATUS_NOT_MAPPED_VIEW.");
    let setup = Setup::new();
    let file = setup.open("file");
    let pointers = setup.pointers(file);
    let program = setup.bench.machine().process("p.exe").start().unwrap();
    setup
        .bench
        .run(|| {
            let section = create(0, READ_WRITE, COMMIT, file).unwrap();
            assert_ne!(Raw::<usize>::at(pointers).read(), 0, "DataSectionObject says that there is one");
            in_process(&program, || {
                let (view, _, size) = map(section, 0, 0, READ_WRITE).unwrap();
                assert_eq!(size, 4096);
                assert_eq!(program.memory().read_vec(view, 11).unwrap(), b"0123456789\0");
                program.memory().write(view + 2, b"XX").unwrap();
                let mut block = nt_types::IO_STATUS_BLOCK::new(NtStatus::PENDING, 0);
                let (mut base, mut size) = (view + 2, 0_usize);
                let (base, size, block) = (Raw::of(&raw mut base), Raw::of(&raw mut size), Raw::of(&raw mut block));
                assert!(zw_flush_virtual_memory(CURRENT_PROCESS, base, size, block).is_success());
                assert_eq!((base.read(), size.read()), (view, 4096));
                base.write(0x10_0000);
                assert_eq!(zw_flush_virtual_memory(CURRENT_PROCESS, base, size, block), NtStatus::NOT_MAPPED_VIEW);
            });
            assert_eq!(std::fs::read(setup.folder.path().join("file")).unwrap(), b"01XX456789");
            setup.close(section);
        })
        .unwrap();
    Thread::enter(setup.bench.machine().inner(), |_| program.exit());
    assert_eq!(Raw::<usize>::at(pointers).read(), 0, "the last view went with its process");
    setup.close(file);
}

#[test]
fn a_longer_writable_section_makes_the_file_longer() {
    conforms!(
        "wdm/nf-wdm-zwcreatesection.md",
        "MaximumSize is what the file can be extended to; above the file's size the section has to be writable."
    );
    conforms!("wdm/nf-wdm-zwcreatesection.md", "An empty file without a size is STATUS_MAPPED_FILE_SIZE_ZERO.");
    let setup = Setup::new();
    let (file, empty) = (setup.open("file"), setup.open("empty"));
    setup
        .bench
        .run(|| {
            assert_eq!(create(20, READ_ONLY, COMMIT, file), Err(NtStatus::SECTION_TOO_BIG));
            assert_eq!(create(0, READ_WRITE, COMMIT, empty), Err(NtStatus::MAPPED_FILE_SIZE_ZERO));
            let section = create(20, READ_WRITE, COMMIT, file).unwrap();
            setup.close(section);
            assert_eq!(std::fs::metadata(setup.folder.path().join("file")).unwrap().len(), 20);
        })
        .unwrap();
    setup.close(file);
    setup.close(empty);
}

#[test]
fn a_copy_on_write_view_keeps_its_stores_to_itself() {
    let setup = Setup::new();
    let file = setup.open("file");
    let program = setup.bench.machine().process("p.exe").start().unwrap();
    setup
        .bench
        .run(|| {
            let section = create(0, WRITE_COPY, COMMIT, file).unwrap();
            in_process(&program, || {
                let (mine, ..) = map(section, 0, 0, WRITE_COPY).unwrap();
                let (other, ..) = map(section, 0, 0, READ_ONLY).unwrap();
                program.memory().write(mine, b"mine").unwrap();
                assert_eq!(program.memory().read_vec(other, 4).unwrap(), b"0123");
                assert!(zw_unmap_view_of_section(CURRENT_PROCESS, mine).is_success());
                assert!(zw_unmap_view_of_section(CURRENT_PROCESS, other).is_success());
            });
            setup.close(section);
        })
        .unwrap();
    assert_eq!(std::fs::read(setup.folder.path().join("file")).unwrap(), b"0123456789");
    setup.close(file);
}

#[test]
fn sections_are_in_the_way_of_truncation_and_deletion() {
    conforms!(
        "ntifs/nf-ntifs-mmcanfilebetruncated.md",
        "With a data section, a file can become longer but not shorter; with an image section, neither."
    );
    conforms!(
        "ntifs/nf-ntifs-mmflushimagesection.md",
        "TRUE is returned when no image section exists; a data section is in the way of a deletion only."
    );
    conforms!("ntifs/nf-ntifs-mmforcesectionclosed.md", "TRUE is returned when there are no sections.");
    let setup = Setup::new();
    let (file, executable) = (setup.open("file"), setup.open("image.sys"));
    let (data, image) = (setup.pointers(file), setup.pointers(executable));
    setup
        .bench
        .run(|| {
            let (mut shorter, mut longer) = (5_i64, 50_i64);
            let (shorter, longer) = (Raw::of(&raw mut shorter), Raw::of(&raw mut longer));
            let truncated =
                |pointers| [shorter, longer, Raw::NULL].map(|size| mm_can_file_be_truncated(pointers, size));
            assert_eq!(truncated(data), [1, 1, 1]);
            let section = create(0, READ_ONLY, COMMIT, file).unwrap();
            assert_eq!(truncated(data), [0, 1, 0]);
            assert_eq!([0, 1].map(|kind| mm_flush_image_section(data, kind)), [0, 1]);
            assert_eq!(mm_force_section_closed(data, 0), 0);
            setup.close(section);
            assert_eq!((truncated(data), mm_force_section_closed(data, 0)), ([1, 1, 1], 1));
            let section = create(0, 0x10, IMAGE, executable).unwrap();
            assert_eq!(truncated(image), [0, 0, 0]);
            assert_eq!([0, 1].map(|kind| mm_flush_image_section(image, kind)), [0, 0]);
            setup.close(section);
        })
        .unwrap();
    setup.close(file);
    setup.close(executable);
}

#[test]
fn an_image_is_laid_out_as_its_headers_say() {
    let setup = Setup::new();
    let (file, executable) = (setup.open("file"), setup.open("image.sys"));
    let program = setup.bench.machine().process("p.exe").start().unwrap();
    setup
        .bench
        .run(|| {
            assert_eq!(create(0, 0x10, IMAGE, file), Err(NtStatus::INVALID_IMAGE_NOT_MZ));
            assert_eq!(create(0, 0x10, IMAGE, std::ptr::null_mut()), Err(NtStatus::INVALID_FILE_FOR_SECTION));
            let section = create(0, 0x10, IMAGE, executable).unwrap();
            in_process(&program, || {
                let (mut base, mut size) = (0_usize, 0_usize);
                let (base, size) = (Raw::of(&raw mut base), Raw::of(&raw mut size));
                let status =
                    zw_map_view_of_section(section, CURRENT_PROCESS, base, 0, 0, Raw::NULL, size, 2, 0, READ_ONLY);
                assert_eq!((status, size.read()), (NtStatus::IMAGE_NOT_AT_BASE, 0x5000));
                assert_eq!(program.memory().read_vec(base.read(), 2).unwrap(), b"MZ");
            });
            setup.close(section);
        })
        .unwrap();
    setup.close(file);
    setup.close(executable);
}

#[test]
fn a_named_section_is_opened_by_its_name_until_its_last_handle_goes() {
    conforms!(
        "wdm/nf-wdm-zwopensection.md",
        "An existing section is opened by its name; one that is not there is not."
    );
    let setup = Setup::new();
    let units: Vec<u16> = r"\BaseNamedObjects\Shared".encode_utf16().collect();
    let mut name = UNICODE_STRING::from_utf16(&units).unwrap();
    // SAFETY: all members are integers or pointers, for which zero is a value.
    let mut attributes: OBJECT_ATTRIBUTES = unsafe { std::mem::zeroed() };
    attributes.Length = size_of::<OBJECT_ATTRIBUTES>() as u32;
    attributes.ObjectName = &raw mut name;
    attributes.Attributes = ObjectFlags::KERNEL_HANDLE.bits();
    let attributes = Raw::of(&raw mut attributes);
    setup
        .bench
        .run(|| {
            let (mut handle, mut size) = (0_usize, 4096_i64);
            let (out, size) = (Raw::of(&raw mut handle), Raw::of(&raw mut size));
            let null = std::ptr::null_mut();
            assert_eq!(zw_open_section(out, 4, attributes), NtStatus::OBJECT_NAME_NOT_FOUND);
            assert!(zw_create_section(out, 4, attributes, size, READ_WRITE, COMMIT, null).is_success());
            let first = std::ptr::without_provenance_mut(out.read());
            assert!(zw_open_section(out, 4, attributes).is_success());
            let second = std::ptr::without_provenance_mut(out.read());
            assert_eq!(body(&setup, first), body(&setup, second));
            setup.close(first);
            setup.close(second);
            assert_eq!(zw_open_section(out, 4, attributes), NtStatus::OBJECT_NAME_NOT_FOUND);
        })
        .unwrap();
}

#[test]
fn a_view_in_system_space_that_stays_is_reported_and_one_that_is_none_is_a_bug_check() {
    conforms!("ntddk/nf-ntddk-mmunmapviewinsystemspace.md", "What is unmapped is the address of a view.");
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let section = create(4096, READ_WRITE, COMMIT, std::ptr::null_mut()).unwrap();
            let (mut base, mut size) = (0_usize, 0_usize);
            let out = Raw::of(&raw mut base);
            assert!(mm_map_view_in_system_space(body(&setup, section), out, Raw::of(&raw mut size)).is_success());
            setup.close(section);
            // Without its object, the view is still there.
            Raw::<u8>::at(out.read()).write(1);
        })
        .unwrap();
    let leaks = setup.bench.machine().inner().nt.sections().leaks(setup.bench.driver());
    assert_eq!((leaks.len(), leaks[0].bytes), (1, 4096));
    let stopped = setup.bench.run(|| mm_unmap_view_in_system_space(0x1234_5000)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::BugCheck);
}
