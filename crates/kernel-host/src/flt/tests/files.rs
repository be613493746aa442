//! FltCreateFileEx, FltClose, FltReadFile, names, volumes and instances.

use super::*;
use crate::conformance::conforms;

/// What FltCreateFileEx gave.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) status: NtStatus,
    pub(super) information: usize,
    pub(super) handle: usize,
    pub(super) object: usize,
}

impl Opened {
    /// Gives both obligations back.
    pub(super) fn release(self, setup: &Setup) {
        assert_eq!(close(setup, self.handle), Ok(NtStatus::SUCCESS));
        setup.run(|| ddi!(ObfDereferenceObject: fn(usize) -> isize)(self.object)).unwrap();
    }
}

/// FltCreateFileEx for reading, as a kernel handle.
pub(super) fn open(setup: &Setup, filter: usize, instance: usize, path: &str) -> Result<Opened, Rule> {
    open_with(setup, filter, instance, path, ObjectFlags::KERNEL_HANDLE, 0x40 | 0x20)
}

pub(super) fn open_with(
    setup: &Setup,
    filter: usize,
    instance: usize,
    path: &str,
    flags: ObjectFlags,
    options: u32,
) -> Result<Opened, Rule> {
    let name = wide(path);
    Create { flags, options, ..Create::new(&name) }.run(setup, filter, instance)
}

/// What a call of FltCreateFileEx is told.
pub(super) struct Create<'a> {
    pub(super) name: &'a [u16],
    /// Handle of the root directory.
    pub(super) root: usize,
    pub(super) flags: ObjectFlags,
    pub(super) access: AccessMask,
    pub(super) disposition: u32,
    pub(super) options: u32,
    /// FILE_FULL_EA_INFORMATION list.
    pub(super) ea: &'a [u8],
}

impl<'a> Create<'a> {
    /// Opens a file to read it.
    pub(super) fn new(name: &'a [u16]) -> Self {
        let access = AccessMask::FILE_READ_DATA | AccessMask::FILE_READ_ATTRIBUTES | AccessMask::SYNCHRONIZE;
        Self { name, root: 0, flags: ObjectFlags::KERNEL_HANDLE, access, disposition: 1, options: 0x60, ea: &[] }
    }

    pub(super) fn run(&self, setup: &Setup, filter: usize, instance: usize) -> Result<Opened, Rule> {
        let name = UNICODE_STRING::from_utf16(self.name).unwrap();
        let mut attributes = OBJECT_ATTRIBUTES::new(&raw const name, self.flags);
        attributes.RootDirectory = Raw::<u8>::at(self.root).pointer().cast();
        let (mut handle, mut object, mut status_block) = (0usize, 0usize, IO_STATUS_BLOCK::default());
        let at = |pointer: *mut u8| pointer.expose_provenance();
        let (handle_at, object_at) = (at((&raw mut handle).cast()), at((&raw mut object).cast()));
        let (block_at, attributes_at) =
            (at((&raw mut status_block).cast()), at((&raw const attributes).cast_mut().cast()));
        let ea_at = if self.ea.is_empty() { 0 } else { self.ea.as_ptr().expose_provenance() };
        let (access, ea_length) = (self.access.bits(), self.ea.len() as u32);
        let (disposition, options) = (self.disposition, self.options);
        let create = ddi!(FltCreateFileEx: fn(
            usize, usize, usize, usize, u32, usize, usize, usize, u32, u32, u32, u32, usize, u32, u32
        ) -> NtStatus);
        let status = setup.call("FltCreateFileEx", || {
            create(
                filter,
                instance,
                handle_at,
                object_at,
                access,
                attributes_at,
                block_at,
                0,
                0x80,
                7,
                disposition,
                options,
                ea_at,
                ea_length,
                0,
            )
        })?;
        let read = |address| Raw::<usize>::at(address).read();
        Ok(Opened {
            status,
            information: Raw::<IO_STATUS_BLOCK>::at(block_at).read().Information,
            handle: read(handle_at),
            object: read(object_at),
        })
    }
}

fn close(setup: &Setup, handle: usize) -> Result<NtStatus, Rule> {
    setup.run(|| ddi!(FltClose: fn(usize) -> NtStatus)(handle))
}

fn read(setup: &Setup, instance: usize, object: usize, offset: i64, length: u32) -> Result<(NtStatus, Vec<u8>), Rule> {
    let mut buffer = vec![0u8; length as usize];
    let mut count = 0u32;
    let (buffer_at, count_at) = (buffer.as_mut_ptr().expose_provenance(), (&raw mut count).expose_provenance());
    let offset_at = (&raw const offset).expose_provenance();
    let call = ddi!(FltReadFile: fn(usize, usize, usize, u32, usize, u32, usize, usize, usize) -> NtStatus);
    let status = setup.run(|| call(instance, object, offset_at, length, buffer_at, 4, count_at, 0, 0))?;
    buffer.truncate(Raw::<u32>::at(count_at).read() as usize);
    Ok((status, buffer))
}

const BOOT: &str = r"\??\C:\boot.rom";

#[test]
fn a_file_is_opened_read_and_released_without_leaks() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "The handle is released with FltClose, the file object with ObDereferenceObject."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let opened = open(&setup, filter, setup.instance(), BOOT).unwrap();
    assert_eq!((opened.status, opened.information), (NtStatus::SUCCESS, 1));
    assert_eq!(read(&setup, setup.instance(), opened.object, 2, 3), Ok((NtStatus::SUCCESS, b"234".to_vec())));
    assert_eq!(read(&setup, setup.instance(), opened.object, 8, 9), Ok((NtStatus::SUCCESS, b"89".to_vec())));
    assert_eq!(read(&setup, setup.instance(), opened.object, 10, 1), Ok((NtStatus::END_OF_FILE, vec![])));
    assert_eq!(setup.leaks().len(), 4, "handle, reference, filter and instance: {:?}", setup.leaks());
    opened.release(&setup);
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn a_handle_and_a_reference_that_are_not_released_are_leaks() {
    let setup = Setup::new();
    let filter = setup.filter();
    let _opened = open(&setup, filter, setup.instance(), BOOT).unwrap();
    setup.unregister(filter).unwrap();
    let leaks = setup.leaks();
    assert_eq!(leaks.len(), 2, "{leaks:?}");
    assert!(leaks[0].contains("FltCreateFileEx") || leaks[1].contains("FltCreateFileEx"), "{leaks:?}");
}

#[test]
fn closing_twice_is_found() {
    conforms!("fltkernel/nf-fltkernel-fltclose.md", "A handle is closed once.");
    let setup = Setup::new();
    let filter = setup.filter();
    let opened = open(&setup, filter, setup.instance(), BOOT).unwrap();
    assert_eq!(close(&setup, opened.handle), Ok(NtStatus::SUCCESS));
    assert_eq!(close(&setup, opened.handle), Err(Rule::InvalidHandle));
}

#[test]
fn reading_after_the_handle_is_closed_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreadfile.md",
        "The file object has to be open: not before its create, not after its cleanup."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let opened = open(&setup, filter, setup.instance(), BOOT).unwrap();
    assert_eq!(close(&setup, opened.handle), Ok(NtStatus::SUCCESS));
    assert_eq!(read(&setup, setup.instance(), opened.object, 0, 1), Err(Rule::BadState));
}

#[test]
fn reading_into_user_memory_is_found() {
    let setup = Setup::new();
    let filter = setup.filter();
    let opened = open(&setup, filter, setup.instance(), BOOT).unwrap();
    let user = setup.process().buffer(&[0; 16]).unwrap();
    let (instance, object, address) = (setup.instance(), opened.object, user.address());
    let offset = 0i64;
    let offset_at = (&raw const offset).expose_provenance();
    let call = ddi!(FltReadFile: fn(usize, usize, usize, u32, usize, u32, usize, usize, usize) -> NtStatus);
    let outcome = setup.run(|| call(instance, object, offset_at, 4, address, 0, 0, 0, 0));
    assert_eq!(outcome, Err(Rule::UnguardedUserAccess));
}

#[test]
fn a_user_handle_in_a_client_s_context_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "Outside of a system thread OBJ_KERNEL_HANDLE has to be set."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let instance = setup.instance();
    let process = setup.process();
    let outcome = setup.bench.enter(|thread| {
        thread.set_process(Some(Arc::clone(&process)));
        open_with(&setup, filter, instance, BOOT, ObjectFlags::empty(), 0x20)
    });
    assert_eq!(outcome.map(|_| ()), Err(Rule::BadArgument));
}

#[test]
fn forced_access_checks_use_the_client_s_token() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "Without forced checks access is not checked: the previous mode counts as kernel mode."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let instance = setup.instance();
    setup.bench.machine().set_audience(BOOT, crate::Audience::Administrators).unwrap();
    let user = setup.bench.machine().process("user.exe").plain_user().start().unwrap();
    setup.bench.enter(|thread| {
        thread.set_process(Some(Arc::clone(&user)));
        let kernel = ObjectFlags::KERNEL_HANDLE;
        let forced = open_with(&setup, filter, instance, BOOT, kernel | ObjectFlags::FORCE_ACCESS_CHECK, 0x20);
        assert_eq!(forced.unwrap().status, NtStatus::ACCESS_DENIED);
        let unforced = open_with(&setup, filter, instance, BOOT, kernel, 0x20).unwrap();
        assert_eq!(unforced.status, NtStatus::SUCCESS, "without the flag the kernel may open anything");
        unforced.release(&setup);
    });
}

#[test]
fn names_that_lead_nowhere_have_the_documented_statuses() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "A name without a root directory that does not begin at the root is STATUS_OBJECT_PATH_SYNTAX_BAD."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let instance = setup.instance();
    for (path, status) in [
        ("", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        ("boot.rom", NtStatus::OBJECT_PATH_SYNTAX_BAD),
        (r"\??\C:\none.rom", NtStatus::OBJECT_NAME_NOT_FOUND),
        (r"\??\C:\none\boot.rom", NtStatus::OBJECT_PATH_NOT_FOUND),
        (r"\??\C:\..\boot.rom", NtStatus::OBJECT_NAME_INVALID),
        (r"\??\C:\boot.rom:s", NtStatus::OBJECT_NAME_NOT_FOUND),
        (r"\??\C:\", NtStatus::FILE_IS_A_DIRECTORY),
    ] {
        assert_eq!(open(&setup, filter, instance, path).unwrap().status, status, "{path}");
    }
}

#[test]
fn an_instance_opens_on_its_own_volume_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "The file has to be on the instance's volume: STATUS_INVALID_DEVICE_OBJECT_PARAMETER."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let instance = setup.instance();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("x.rom"), b"x").unwrap();
    crate::fs::mount(setup.bench.machine().inner(), "D:", other.path()).unwrap();
    let status = open(&setup, filter, instance, r"\??\D:\x.rom").unwrap().status;
    assert_eq!(status, NtStatus::INVALID_DEVICE_OBJECT_PARAMETER);
    assert_eq!(setup.bench.machine().filters()[0].volumes.len(), 2, "a new volume gets an instance too");
}

#[test]
fn names_are_normalised_parsed_and_released() {
    let setup = Setup::new();
    let filter = setup.filter();
    let opened = open(&setup, filter, setup.instance(), r"\??\C:\BOOT.ROM").unwrap();
    let (instance, object) = (setup.instance(), opened.object);
    let mut information = 0usize;
    let out = (&raw mut information).expose_provenance();
    let get = ddi!(FltGetFileNameInformationUnsafe: fn(usize, usize, u32, usize) -> NtStatus);
    assert_eq!(setup.run(|| get(object, instance, 0x101, out)), Ok(NtStatus::SUCCESS));
    let information = Raw::<usize>::at(out).read();
    assert_eq!(
        setup.run(|| ddi!(FltParseFileNameInformation: fn(usize) -> NtStatus)(information)),
        Ok(NtStatus::SUCCESS)
    );
    let parsed = Raw::<flt::FLT_FILE_NAME_INFORMATION>::at(information).read();
    let text = |string: UNICODE_STRING| {
        String::from_utf16(&Raw::of(string.Buffer).read_slice(usize::from(string.Length / 2))).unwrap()
    };
    assert_eq!(text(parsed.Name), r"\Device\HarddiskVolume1\boot.rom");
    assert_eq!((text(parsed.Extension), text(parsed.ParentDir)), ("rom".to_owned(), "\\".to_owned()));
    let release = ddi!(FltReleaseFileNameInformation: fn(usize));
    assert_eq!(setup.run(|| release(information)), Ok(()));
    assert_eq!(setup.run(|| release(information)), Err(Rule::ReferenceUnderflow));
}

#[test]
fn a_name_that_is_not_released_is_a_leak() {
    let setup = Setup::new();
    let filter = setup.filter();
    let opened = open(&setup, filter, setup.instance(), BOOT).unwrap();
    let (instance, object) = (setup.instance(), opened.object);
    let mut information = 0usize;
    let out = (&raw mut information).expose_provenance();
    let get = ddi!(FltGetFileNameInformationUnsafe: fn(usize, usize, u32, usize) -> NtStatus);
    assert_eq!(setup.run(|| get(object, instance, 0x101, out)), Ok(NtStatus::SUCCESS));
    opened.release(&setup);
    setup.unregister(filter).unwrap();
    let leaks = setup.leaks();
    assert!(leaks.len() == 1 && leaks[0].contains("FLT_FILE_NAME_INFORMATION"), "{leaks:?}");
}

#[test]
fn volumes_are_found_by_all_their_names_and_referenced() {
    let setup = Setup::new();
    let filter = setup.filter();
    let get = ddi!(FltGetVolumeFromName: fn(usize, usize, usize) -> NtStatus);
    let mut volume = 0usize;
    let out = (&raw mut volume).expose_provenance();
    for (name, status) in [
        (r"\Device\HarddiskVolume1", NtStatus::SUCCESS),
        (r"\??\C:", NtStatus::SUCCESS),
        (r"\DosDevices\C:", NtStatus::SUCCESS),
        ("C:", NtStatus::SUCCESS),
        ("Q:", NtStatus::FLT_VOLUME_NOT_FOUND),
        ("", NtStatus::INVALID_PARAMETER),
    ] {
        let text = wide(name);
        let string = UNICODE_STRING::from_utf16(&text).unwrap();
        let string_at = (&raw const string).expose_provenance();
        assert_eq!(setup.run(|| get(filter, string_at, out)), Ok(status), "{name}");
        if status == NtStatus::SUCCESS {
            let volume = Raw::<usize>::at(out).read();
            setup.run(|| ddi!(FltObjectDereference: fn(usize))(volume)).unwrap();
        }
    }
    assert!(setup.leaks().iter().all(|leak| !leak.contains("PFLT_VOLUME")));
}

#[test]
fn a_volume_name_that_does_not_fit_tells_how_much_it_needs() {
    let setup = Setup::new();
    setup.filter();
    let volume = super::super::volume_stacks(setup.bench.machine().inner())[0].address;
    let get = ddi!(FltGetVolumeGuidName: fn(usize, usize, usize) -> NtStatus);
    let mut needed = 0u32;
    let needed_at = (&raw mut needed).expose_provenance();
    assert_eq!(setup.run(|| get(volume, 0, needed_at)), Ok(NtStatus::BUFFER_TOO_SMALL));
    assert_eq!(Raw::<u32>::at(needed_at).read(), 2 * r"\??\Volume{00000001-6677-6272-6f6b-657266777673}".len() as u32);
    assert_eq!(setup.run(|| get(volume, 0, 0)), Ok(NtStatus::INVALID_PARAMETER));
}

#[test]
fn instances_are_found_by_volume_and_filter() {
    let setup = Setup::new();
    let filter = setup.filter();
    let volume = super::super::volume_stacks(setup.bench.machine().inner())[0].address;
    let get = ddi!(FltGetVolumeInstanceFromName: fn(usize, usize, usize, usize) -> NtStatus);
    let mut instance = 0usize;
    let out = (&raw mut instance).expose_provenance();
    assert_eq!(setup.run(|| get(filter, volume, 0, out)), Ok(NtStatus::SUCCESS));
    assert_eq!(Raw::<usize>::at(out).read(), setup.instance());
    let instance = setup.instance();
    setup.run(|| ddi!(FltObjectDereference: fn(usize))(instance)).unwrap();
    let text = wide("Other Instance");
    let other = UNICODE_STRING::from_utf16(&text).unwrap();
    let other_at = (&raw const other).expose_provenance();
    assert_eq!(setup.run(|| get(filter, volume, other_at, out)), Ok(NtStatus::FLT_INSTANCE_NOT_FOUND));
    setup.unregister(filter).unwrap();
}

#[test]
fn an_enumeration_that_does_not_fit_gives_the_count_and_no_references() {
    let setup = Setup::new();
    let filter = setup.filter();
    let enumerate = ddi!(FltEnumerateInstances: fn(usize, usize, usize, u32, usize) -> NtStatus);
    let mut count = 0u32;
    let count_at = (&raw mut count).expose_provenance();
    assert_eq!(setup.run(|| enumerate(0, filter, 0, 0, count_at)), Ok(NtStatus::BUFFER_TOO_SMALL));
    assert_eq!(Raw::<u32>::at(count_at).read(), 1);
    assert_eq!(setup.run(|| enumerate(0, 0, 0, 0, count_at)), Ok(NtStatus::INVALID_PARAMETER));
    setup.unregister(filter).unwrap();
}
