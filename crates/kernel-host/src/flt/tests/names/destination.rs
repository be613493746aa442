//! Names that are about to be, and tunneled ones.

use super::*;

/// FltGetDestinationFileNameInformation for `boot.rom`.
fn destination(setup: &Setup, filter: usize, root: usize, name: &str, options: u32) -> Answer {
    let get = ddi!(FltGetDestinationFileNameInformation: fn(usize, usize, usize, usize, u32, u32, usize) -> NtStatus);
    let instance = setup.instance();
    let file = files::open(setup, filter, instance, r"\??\C:\boot.rom").unwrap();
    let units = wide(name);
    let (at, length) = (units.as_ptr().expose_provenance(), units.len() as u32 * 2);
    let object = file.object;
    let found = setup.run(|| take(with_out(|out| get(instance, object, root, at, length, options, out)))).unwrap();
    file.release(setup);
    found
}

#[test]
fn a_destination_is_beside_the_file_or_where_its_name_leads() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetdestinationfilenameinformation.md",
        "A bare name is in the file's own directory; a full one leads from the root of the namespace."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetdestinationfilenameinformation.md",
        "STATUS_FLT_INVALID_NAME_REQUEST for FLT_FILE_NAME_SHORT, STATUS_INVALID_PARAMETER for other bad options."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let of = |name, options| destination(&setup, filter, 0, name, options);
    for format in [OPENED, NORMALIZED] {
        assert_eq!(of("New.rom", format | DEFAULT), ok(r"\New.rom"));
        assert_eq!(of(r"\??\C:\New.rom", format | DEFAULT), ok(r"\New.rom"));
    }
    assert_eq!(of("BOOT.ROM", NORMALIZED | DEFAULT), ok(r"\boot.rom"), "one that is there has its stored case");
    assert_eq!(of("New.rom", SHORT | DEFAULT), no(NtStatus::FLT_INVALID_NAME_REQUEST));
    assert_eq!(of("New.rom", NORMALIZED), no(NtStatus::INVALID_PARAMETER));
    setup.unregister(filter).unwrap();
}

#[test]
fn a_destination_stays_on_its_volume() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetdestinationfilenameinformation.md",
        "STATUS_MOUNT_POINT_NOT_RESOLVED for a name that leads to another volume."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let other = tempfile::tempdir().unwrap();
    crate::fs::mount(setup.bench.machine().inner(), "D:", other.path()).unwrap();
    let found = destination(&setup, filter, 0, r"\??\D:\New.rom", NORMALIZED | DEFAULT);
    assert_eq!(found, no(NtStatus::MOUNT_POINT_NOT_RESOLVED));
    setup.unregister(filter).unwrap();
}

#[test]
fn a_destination_can_be_below_a_directory() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetdestinationfilenameinformation.md",
        "RootDirectory is a handle of the directory that the name is relative to."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let create = OpenOptions::new().write().disposition(3).options(0x21);
    drop(setup.process().create_file(r"\??\C:\Folder", &create).unwrap());
    let folder =
        files::open_with(&setup, filter, setup.instance(), r"\??\C:\folder", ObjectFlags::KERNEL_HANDLE, 0x21).unwrap();
    let found = destination(&setup, filter, folder.handle, "New.rom", NORMALIZED | DEFAULT);
    assert_eq!(found, ok(r"\Folder\New.rom"));
    folder.release(&setup);
    setup.unregister(filter).unwrap();
}

thread_local! {
    static TUNNELED: RefCell<Vec<(NtStatus, usize)>> = const { RefCell::new(Vec::new()) };
    /// Format of the name that is asked about.
    static FORMAT: std::cell::Cell<u32> = const { std::cell::Cell::new(NORMALIZED) };
}

fn tunnel(data: *mut flt::FLT_CALLBACK_DATA) {
    let get = ddi!(FltGetFileNameInformation: fn(usize, u32, usize) -> NtStatus);
    let tunneled = ddi!(FltGetTunneledName: fn(usize, usize, usize) -> NtStatus);
    let data = data.expose_provenance();
    let (status, name) = with_out(|out| get(data, FORMAT.get() | DEFAULT, out));
    assert_eq!(status, NtStatus::SUCCESS);
    let answer = with_out(|out| tunneled(data, name, out));
    TUNNELED.with_borrow_mut(|all| all.push(answer));
    ddi!(FltReleaseFileNameInformation: fn(usize))(name);
}

unsafe extern "efiapi" fn tunnel_before(
    data: *mut flt::FLT_CALLBACK_DATA,
    _: *const flt::FLT_RELATED_OBJECTS,
    _: *mut PVOID,
) -> i32 {
    tunnel(data);
    flt::FLT_PREOP_SUCCESS_NO_CALLBACK
}

unsafe extern "efiapi" fn tunnel_after(
    data: *mut flt::FLT_CALLBACK_DATA,
    _: *const flt::FLT_RELATED_OBJECTS,
    _: PVOID,
    _: u32,
) -> i32 {
    tunnel(data);
    flt::FLT_POSTOP_FINISHED_PROCESSING
}

/// Opens a file below a filter with these callbacks.
fn open_with(
    major: u8,
    pre: flt::PFLT_PRE_OPERATION_CALLBACK,
    post: flt::PFLT_POST_OPERATION_CALLBACK,
) -> Option<Rule> {
    let operations = callbacks::operations(major, pre, post);
    let setup = Setup::new();
    setup.filter_with(&FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY });
    if let Ok(file) = setup.process().create_file(r"\??\C:\boot.rom", &OpenOptions::new()) {
        let _read = file.read(0, 1);
    }
    setup.bench.machine().finding().map(|finding| finding.rule)
}

#[test]
fn a_name_that_was_not_tunneled_stays_as_it_is() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgettunneledname.md",
        "STATUS_SUCCESS and NULL when there is no tunneled name."
    );
    assert_eq!(open_with(0, None, Some(tunnel_after)), None);
    assert_eq!(TUNNELED.take(), [(NtStatus::SUCCESS, 0)]);
}

#[test]
fn tunneled_names_are_for_after_creates_and_renames() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgettunneledname.md",
        "To be called in post-operation callbacks of IRP_MJ_CREATE and IRP_MJ_SET_INFORMATION only."
    );
    assert_eq!(open_with(0, Some(tunnel_before), None), Some(Rule::BadState));
    assert_eq!(open_with(3, None, Some(tunnel_after)), Some(Rule::BadState));
}

#[test]
fn only_normalized_names_are_tunneled() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgettunneledname.md",
        "Filters that have only opened or short names do not call it."
    );
    FORMAT.set(OPENED);
    assert_eq!(open_with(0, None, Some(tunnel_after)), Some(Rule::BadArgument));
}
