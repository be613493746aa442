//! Sections that drivers make of files, as a filter sees them.

use nt_types::HANDLE;

use super::*;
use crate::conformance::conforms;

/// `ZwCreateSection` of the whole file, writable.
fn create(file: HANDLE) -> Result<HANDLE, NtStatus> {
    let mut section = 0_usize;
    let out = (&raw mut section).expose_provenance();
    let status = ddi!(ZwCreateSection: fn(usize, u32, usize, usize, u32, u32, HANDLE) -> NtStatus)(
        out,
        0xF,
        0,
        0,
        4,
        0x0800_0000,
        file,
    );
    status.ok().map(|()| std::ptr::without_provenance_mut(Raw::<usize>::at(out).read()))
}

#[test]
fn a_section_is_announced_read_and_written_as_paging_io() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-acquire-for-section-synchronization.md",
        "A filter is asked before a section of a file is made, and may refuse it."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_io_parameter_block.md",
        "Pages of a mapped file come in and go out as reads and writes with IRP_PAGING_IO."
    );
    let rig = Rig::new(&[0x03, 0x04, 0xFF, 0xFE, 0xFD, 0xFC]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let flags = if matches!(op.major(), 3 | 4) { op.irp_flags() & 3 } else { 0 };
        push(&down, (op.major(), flags));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let inner = rig.setup.bench.machine().inner();
    let system = inner.nt.system_process(inner).clone();
    let file = std::ptr::without_provenance_mut(system.open(BOOT, 0x12_019F).unwrap());
    rig.run(|| {
        let section = create(file).unwrap();
        assert_eq!(take(&seen), [(0xFF, 0), (0xFE, 0)]);
        let current: HANDLE = std::ptr::without_provenance_mut(usize::MAX);
        let (mut base, mut size) = (0_usize, 0_usize);
        let (out, size) = (Raw::of(&raw mut base), (&raw mut size).expose_provenance());
        let map =
            ddi!(ZwMapViewOfSection: fn(HANDLE, HANDLE, usize, usize, usize, usize, usize, u32, u32, u32) -> NtStatus);
        assert_eq!(map(section, current, out.address(), 0, 0, 0, size, 2, 0, 4), NtStatus::SUCCESS);
        assert_eq!(take(&seen), [(0x03, 3)]);
        Raw::<u8>::at(out.read()).write(b'X');
        let unmap = ddi!(ZwUnmapViewOfSection: fn(HANDLE, usize) -> NtStatus);
        assert_eq!(unmap(current, out.read()), NtStatus::SUCCESS);
        assert_eq!(take(&seen), [(0xFD, 0), (0x04, 3), (0xFC, 0)]);
        assert!(ddi!(ZwClose: fn(HANDLE) -> NtStatus)(section).is_success());
    })
    .unwrap();
    assert_eq!(std::fs::read(rig.setup.folder.path().join("boot.rom")).unwrap(), b"X123456789");
    rig.pre(|op| {
        let refused = op.major() == 0xFF;
        if refused { op.complete(NtStatus::ACCESS_DENIED) } else { flt::FLT_PREOP_SUCCESS_NO_CALLBACK }
    });
    assert_eq!(rig.run(|| create(file)), Ok(Err(NtStatus::ACCESS_DENIED)));
}
