//! Name providers: the lower of two instances answers for the names that the upper one asks for.

use std::cell::Cell;

use super::*;

thread_local! {
    /// Options that the provider was asked with, in order.
    static ASKED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    /// Refuses normalized names, so that its parts are asked for.
    static REFUSES: Cell<bool> = const { Cell::new(false) };
    static CACHES: Cell<u8> = const { Cell::new(1) };
    static CLEANED_UP: Cell<usize> = const { Cell::new(0) };
    static PARTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Says that every file is `\Device\HarddiskVolume1\virtual\<a long name>.`
fn provided() -> String {
    format!(r"{VOLUME}\virtual\{}", "n".repeat(100))
}

unsafe extern "efiapi" fn generate(
    instance: flt::PFLT_INSTANCE,
    file: *mut nt_types::FILE_OBJECT,
    data: *mut flt::FLT_CALLBACK_DATA,
    options: u32,
    cache: *mut u8,
    control: *mut flt::FLT_NAME_CONTROL,
) -> NtStatus {
    assert!(!instance.is_null() && !file.is_null() && data.is_null());
    ASKED.with_borrow_mut(|asked| asked.push(options));
    if REFUSES.get() && options & 0xFF == NORMALIZED {
        return NtStatus::NOT_SUPPORTED;
    }
    // The file system's own name, from below.
    let get = ddi!(FltGetFileNameInformationUnsafe: fn(usize, usize, u32, usize) -> NtStatus);
    let below = take(with_out(|out| get(file.addr(), instance.addr(), OPENED | FILESYSTEM_ONLY, out)));
    assert_eq!(below, ok(r"\boot.rom"));
    let name = wide(&provided());
    let bytes = name.len() as u16 * 2;
    let control = Raw::of(control).address();
    assert_eq!(ddi!(FltCheckAndGrowNameControl: fn(usize, u16) -> NtStatus)(control, bytes), NtStatus::SUCCESS);
    let buffer = Raw::<UNICODE_STRING>::at(control).read();
    assert!(buffer.MaximumLength >= bytes);
    for (index, unit) in name.iter().enumerate() {
        Raw::of(buffer.Buffer).index(index).write(*unit);
    }
    Raw::<u16>::at(control).write(bytes);
    Raw::of(cache).write(CACHES.get());
    NtStatus::SUCCESS
}

/// Upper-cases each part.
unsafe extern "efiapi" fn normalize(
    _: flt::PFLT_INSTANCE,
    parent: flt::PCUNICODE_STRING,
    volume: u16,
    part: flt::PCUNICODE_STRING,
    answer: PVOID,
    length: u32,
    _: u32,
    context: *mut PVOID,
) -> NtStatus {
    assert_eq!(usize::from(volume), VOLUME.len() * 2);
    let part = text(Raw::of(part.cast_mut()).read());
    let parent = text(Raw::of(parent.cast_mut()).read());
    PARTS.with_borrow_mut(|parts| parts.push(format!("{parent}|{part}")));
    let answer = Raw::of(answer).cast::<u8>();
    let name: Vec<u8> = part.to_uppercase().encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(name.len() + 12 <= length as usize);
    answer.field::<u32>(8).write(name.len() as u32);
    answer.field::<u8>(12).write_bytes(&name);
    Raw::of(context).write(Raw::<u8>::at(0x55).pointer().cast());
    NtStatus::SUCCESS
}

unsafe extern "efiapi" fn normalize_ex(
    instance: flt::PFLT_INSTANCE,
    file: *mut nt_types::FILE_OBJECT,
    parent: flt::PCUNICODE_STRING,
    volume: u16,
    part: flt::PCUNICODE_STRING,
    answer: PVOID,
    length: u32,
    flags: u32,
    context: *mut PVOID,
) -> NtStatus {
    assert!(!file.is_null());
    PARTS.with_borrow_mut(|parts| parts.push("ex".to_owned()));
    // SAFETY: the parameters are those of the plain form.
    unsafe { normalize(instance, parent, volume, part, answer, length, flags, context) }
}

unsafe extern "efiapi" fn clean_up(context: *mut PVOID) {
    CLEANED_UP.set(Raw::of(context).read().addr());
}

const PROVIDER: FLT_REGISTRATION = FLT_REGISTRATION {
    GenerateFileNameCallback: Some(generate),
    NormalizeNameComponentCallback: Some(normalize),
    NormalizeContextCleanupCallback: Some(clean_up),
    ..FLT_REGISTRATION::EMPTY
};

/// An instance above the provider's, and an open file.
struct Above {
    setup: Setup,
    filter: usize,
    instance: usize,
    file: files::Opened,
}

impl Above {
    fn new(registration: &FLT_REGISTRATION) -> Self {
        let setup = Setup::new();
        let filter = setup.filter_with(registration);
        let attach = ddi!(FltAttachVolumeAtAltitude: fn(usize, usize, usize, usize, usize) -> NtStatus);
        let volume = setup.volume();
        let (status, instance) = with_name("400000", |altitude| {
            with_out(|out| setup.run(|| attach(filter, volume, altitude, 0, out)).unwrap())
        });
        assert_eq!(status, NtStatus::SUCCESS);
        let file = files::open(&setup, filter, instance, r"\??\C:\boot.rom").unwrap();
        Self { setup, filter, instance, file }
    }

    fn name(&self, options: u32) -> Answer {
        name_of(&self.setup, self.instance, self.file.object, options)
    }

    fn end(self) {
        self.file.release(&self.setup);
        self.setup.dereference(self.instance).unwrap();
        self.setup.unregister(self.filter).unwrap();
        assert_eq!(self.setup.leaks(), Vec::<String>::new());
    }
}

#[test]
fn a_provider_is_registered_whole_or_not_at_all() {
    conforms!(
        "fltkernel/nf-fltkernel-fltregisterfilter.md",
        "Name provider callbacks that do not go together are STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "A name provider registers NormalizeNameComponentCallback, the Ex form, or both."
    );
    let register = |registration: FLT_REGISTRATION| Setup::new().register(&registration).unwrap().0;
    assert_eq!(register(PROVIDER), NtStatus::SUCCESS);
    let ex = FLT_REGISTRATION {
        NormalizeNameComponentCallback: None,
        NormalizeNameComponentExCallback: Some(normalize_ex),
        ..PROVIDER
    };
    assert_eq!(register(ex), NtStatus::SUCCESS);
    for registration in [
        FLT_REGISTRATION { NormalizeNameComponentCallback: None, ..PROVIDER },
        FLT_REGISTRATION { GenerateFileNameCallback: None, ..PROVIDER },
        FLT_REGISTRATION { NormalizeContextCleanupCallback: Some(clean_up), ..FLT_REGISTRATION::EMPTY },
    ] {
        assert_eq!(register(registration), NtStatus::INVALID_PARAMETER);
    }
}

#[test]
fn a_provider_answers_for_the_filters_above() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_generate_file_name.md",
        "Name queries of filters above are answered by the provider, also for normalized names."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_generate_file_name.md",
        "CallbackData is NULL for FltGetFileNameInformationUnsafe."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcheckandgrownamecontrol.md",
        "A buffer that is too small is replaced by one of the size that is needed."
    );
    let above = Above::new(&PROVIDER);
    assert_eq!(above.name(NORMALIZED | DEFAULT), (NtStatus::SUCCESS, provided()));
    assert_eq!(ASKED.take(), [NORMALIZED | DEFAULT]);
    assert_eq!(PARTS.take(), Vec::<String>::new(), "a success needs no normalization");
    above.end();
}

#[test]
fn a_provider_is_not_asked_by_its_own_instance() {
    conforms!(
        "docs:ifs/flt-file-name-options.md",
        "REQUEST_FROM_CURRENT_PROVIDER redirects a provider's query to itself; without it those below answer."
    );
    let above = Above::new(&PROVIDER);
    let stacks = super::super::super::volume_stacks(above.setup.bench.machine().inner());
    let lower = stacks[0].instances()[1].address;
    let name = |options| name_of(&above.setup, lower, above.file.object, options);
    assert_eq!(name(OPENED | DEFAULT), ok(r"\boot.rom"));
    let own = OPENED | DEFAULT | flt::FLT_FILE_NAME_REQUEST_FROM_CURRENT_PROVIDER;
    assert_eq!(name(own), (NtStatus::SUCCESS, provided()));
    above.end();
}

#[test]
fn a_refused_normalized_name_is_put_together_from_its_parts() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_generate_file_name.md",
        "A provider that refuses a normalized name is asked for the opened one, whose parts are normalized then."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_normalize_name_component.md",
        "The callback gets the parent directory, the length of the volume's name in it, and one component at a time."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_normalize_context_cleanup.md",
        "The context that the normalization callback set is handed to the cleanup callback at the end."
    );
    REFUSES.set(true);
    let above = Above::new(&PROVIDER);
    let expected = format!(r"{VOLUME}\VIRTUAL\{}", "N".repeat(100));
    assert_eq!(above.name(NORMALIZED | FILESYSTEM_ONLY), (NtStatus::SUCCESS, expected));
    assert_eq!(ASKED.take(), [NORMALIZED | FILESYSTEM_ONLY, OPENED | FILESYSTEM_ONLY]);
    let parts = PARTS.take();
    assert_eq!(parts, [format!(r"{VOLUME}\|virtual"), format!(r"{VOLUME}\VIRTUAL\|{}", "n".repeat(100))]);
    assert_eq!(CLEANED_UP.get(), 0x55);
    above.end();
}

#[test]
fn of_two_normalization_callbacks_the_extended_one_is_used() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "With both normalization callbacks only NormalizeNameComponentExCallback is used."
    );
    REFUSES.set(true);
    let above = Above::new(&FLT_REGISTRATION { NormalizeNameComponentExCallback: Some(normalize_ex), ..PROVIDER });
    assert_eq!(above.name(NORMALIZED | DEFAULT).0, NtStatus::SUCCESS);
    assert_eq!(PARTS.take().iter().filter(|part| *part == "ex").count(), 2);
    above.end();
}

#[test]
fn a_provider_says_whether_its_name_may_be_cached() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_generate_file_name.md",
        "CacheFileNameInformation says whether the name can be cached."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltpurgefilenameinformationcache.md",
        "The names that an instance provided are purged, for one file or for all."
    );
    let above = Above::new(&PROVIDER);
    CACHES.set(0);
    assert_eq!(above.name(OPENED | DEFAULT).0, NtStatus::SUCCESS);
    assert_eq!(above.name(OPENED | CACHE_ONLY).0, NtStatus::FLT_NAME_CACHE_MISS);
    CACHES.set(1);
    assert_eq!(above.name(OPENED | DEFAULT).0, NtStatus::SUCCESS);
    assert_eq!(above.name(OPENED | CACHE_ONLY), (NtStatus::SUCCESS, provided()));
    let stacks = super::super::super::volume_stacks(above.setup.bench.machine().inner());
    let lower = stacks[0].instances()[1].address;
    let purge = ddi!(FltPurgeFileNameInformationCache: fn(usize, usize) -> NtStatus);
    assert_eq!(above.setup.run(|| purge(lower, 0)), Ok(NtStatus::SUCCESS));
    assert_eq!(above.name(OPENED | CACHE_ONLY).0, NtStatus::FLT_NAME_CACHE_MISS);
    above.end();
}

#[test]
fn a_name_control_is_grown_in_its_callback_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcheckandgrownamecontrol.md",
        "The control is the one that FltMgr gave the callback; its buffer is not the filter's to replace."
    );
    let setup = Setup::new();
    let mut control = UNICODE_STRING::EMPTY;
    let at = (&raw mut control).expose_provenance();
    let grow = ddi!(FltCheckAndGrowNameControl: fn(usize, u16) -> NtStatus);
    assert_eq!(setup.run(|| grow(at, 8)), Err(Rule::BadArgument));
}
