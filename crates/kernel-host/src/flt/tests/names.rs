//! File names: formats, query methods, when they cannot be had, and who answers for them.

use std::cell::RefCell;

use super::*;
use crate::conformance::conforms;
use crate::fs::program::OpenOptions;

mod destination;
mod provider;

const NORMALIZED: u32 = flt::FLT_FILE_NAME_NORMALIZED;
const OPENED: u32 = flt::FLT_FILE_NAME_OPENED;
const SHORT: u32 = flt::FLT_FILE_NAME_SHORT;
const DEFAULT: u32 = flt::FLT_FILE_NAME_QUERY_DEFAULT;
const CACHE_ONLY: u32 = flt::FLT_FILE_NAME_QUERY_CACHE_ONLY;
const FILESYSTEM_ONLY: u32 = flt::FLT_FILE_NAME_QUERY_FILESYSTEM_ONLY;
const ALLOW_CACHE: u32 = flt::FLT_FILE_NAME_QUERY_ALWAYS_ALLOW_CACHE_LOOKUP;

const VOLUME: &str = r"\Device\HarddiskVolume1";

/// A status, and the name when there is one.
type Answer = (NtStatus, String);

thread_local! {
    /// Options that the callbacks ask with, and what they were told.
    static ASK: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static TOLD: RefCell<Vec<Answer>> = const { RefCell::new(Vec::new()) };
}

fn text(string: UNICODE_STRING) -> String {
    String::from_utf16(&Raw::of(string.Buffer).read_slice(usize::from(string.Length / 2))).unwrap()
}

/// The name in a structure, which is released.
fn take((status, information): (NtStatus, usize)) -> Answer {
    if status != NtStatus::SUCCESS {
        return (status, String::new());
    }
    let name = text(Raw::<flt::FLT_FILE_NAME_INFORMATION>::at(information).read().Name);
    ddi!(FltReleaseFileNameInformation: fn(usize))(information);
    (status, name)
}

fn ask_all(data: *mut flt::FLT_CALLBACK_DATA) {
    let get = ddi!(FltGetFileNameInformation: fn(usize, u32, usize) -> NtStatus);
    for options in ASK.with_borrow(Clone::clone) {
        let answer = take(with_out(|out| get(data.expose_provenance(), options, out)));
        TOLD.with_borrow_mut(|told| told.push(answer));
    }
}

unsafe extern "efiapi" fn ask_before(
    data: *mut flt::FLT_CALLBACK_DATA,
    _: *const flt::FLT_RELATED_OBJECTS,
    _: *mut PVOID,
) -> i32 {
    ask_all(data);
    flt::FLT_PREOP_SUCCESS_NO_CALLBACK
}

unsafe extern "efiapi" fn ask_after(
    data: *mut flt::FLT_CALLBACK_DATA,
    _: *const flt::FLT_RELATED_OBJECTS,
    _: PVOID,
    _: u32,
) -> i32 {
    ask_all(data);
    flt::FLT_POSTOP_FINISHED_PROCESSING
}

/// What a filter is told in its callback of `major` (before or after the operation) while `run` runs in a program.
fn told(major: u8, after: bool, options: &[u32], run: impl FnOnce(&Setup)) -> Vec<Answer> {
    let (pre, post): (flt::PFLT_PRE_OPERATION_CALLBACK, flt::PFLT_POST_OPERATION_CALLBACK) =
        if after { (None, Some(ask_after)) } else { (Some(ask_before), None) };
    let operations = callbacks::operations(major, pre, post);
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY };
    let filter = setup.filter_with(&registration);
    ASK.set(options.to_vec());
    TOLD.take();
    run(&setup);
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
    TOLD.take()
}

fn open(setup: &Setup, path: &str) {
    let _opened = setup.process().create_file(path, &OpenOptions::new());
}

fn ok(name: &str) -> Answer {
    (NtStatus::SUCCESS, format!("{VOLUME}{name}"))
}

fn no(status: NtStatus) -> Answer {
    (status, String::new())
}

#[test]
fn a_name_is_normalized_before_the_file_is_open() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "FLT_FILE_NAME_NORMALIZED is the name as the volume has it, FLT_FILE_NAME_OPENED as the caller gave it."
    );
    let names = told(0, false, &[NORMALIZED | DEFAULT, OPENED | DEFAULT], |setup| open(setup, r"\??\C:\BOOT.ROM"));
    assert_eq!(names, [ok(r"\boot.rom"), ok(r"\BOOT.ROM")]);
}

#[test]
fn a_stream_s_type_is_not_in_the_normalized_name() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_file_name_information.md",
        "A normalized name has the stream, without :$DATA behind it; an opened name keeps what was given."
    );
    let names = told(0, false, &[NORMALIZED | DEFAULT, OPENED | DEFAULT], |setup| {
        open(setup, r"\??\C:\boot.rom:s:$DATA");
    });
    assert_eq!(names, [ok(r"\boot.rom:s"), ok(r"\boot.rom:s:$DATA")]);
}

#[test]
fn the_file_need_not_exist_but_the_path_to_it() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "In pre-create the opened name is given even when the path does not exist."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "In pre-create the normalized name is given even when the final component does not exist."
    );
    let options = [NORMALIZED | DEFAULT, OPENED | DEFAULT];
    let names = told(0, false, &options, |setup| open(setup, r"\??\C:\none.rom"));
    assert_eq!(names, [ok(r"\none.rom"), ok(r"\none.rom")]);
    let names = told(0, false, &options, |setup| open(setup, r"\??\C:\none\none.rom"));
    assert_eq!(names, [no(NtStatus::OBJECT_PATH_NOT_FOUND), ok(r"\none\none.rom")]);
}

#[test]
fn there_is_no_short_name_before_the_file_is_open() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "The short name cannot be had in pre-create: STATUS_FLT_INVALID_NAME_REQUEST."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_file_name_information.md",
        "A short name has no volume, no path and no stream."
    );
    let boot = |setup: &Setup| open(setup, r"\??\C:\boot.rom");
    assert_eq!(told(0, false, &[SHORT | DEFAULT], boot), [no(NtStatus::FLT_INVALID_NAME_REQUEST)]);
    assert_eq!(told(0, true, &[SHORT | DEFAULT], boot), [(NtStatus::SUCCESS, "boot.rom".to_owned())]);
}

#[test]
fn a_long_name_has_no_short_one_on_a_volume_that_makes_none() {
    let names = told(0, true, &[SHORT | DEFAULT], |setup| {
        let create = OpenOptions::new().write().disposition(3);
        drop(setup.process().create_file(r"\??\C:\much longer than that.rom", &create).unwrap());
    });
    assert_eq!(names, [no(NtStatus::OBJECT_NAME_NOT_FOUND)]);
}

#[test]
fn only_what_was_asked_for_is_in_the_cache() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "CACHE_ONLY: STATUS_FLT_NAME_CACHE_MISS until somebody has asked for the name."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "FILESYSTEM_ONLY does not cache the name; DEFAULT and ALWAYS_ALLOW_CACHE_LOOKUP do."
    );
    conforms!("docs:ifs/flt-file-name-options.md", "A name that is got with DO_NOT_CACHE is not cached.");
    let miss = || no(NtStatus::FLT_NAME_CACHE_MISS);
    let name = || ok(r"\boot.rom");
    let options = [
        OPENED | CACHE_ONLY,
        OPENED | FILESYSTEM_ONLY,
        OPENED | CACHE_ONLY,
        OPENED | DEFAULT | flt::FLT_FILE_NAME_DO_NOT_CACHE,
        OPENED | CACHE_ONLY,
        OPENED | DEFAULT,
        OPENED | CACHE_ONLY,
        NORMALIZED | CACHE_ONLY,
        NORMALIZED | ALLOW_CACHE,
        NORMALIZED | CACHE_ONLY,
    ];
    let names = told(0, true, &options, |setup| open(setup, r"\??\C:\boot.rom"));
    assert_eq!(names, [miss(), name(), miss(), name(), miss(), name(), name(), miss(), name(), name()]);
}

#[test]
fn names_are_not_looked_up_once_the_file_is_cleaned_up() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "After IRP_MJ_CLEANUP (post-cleanup, pre-close, post-close) only the cache answers: STATUS_FLT_INVALID_NAME_REQUEST."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "ALWAYS_ALLOW_CACHE_LOOKUP where the file system cannot be asked is STATUS_FLT_NAME_CACHE_MISS for what is not cached."
    );
    let options = [NORMALIZED | DEFAULT, NORMALIZED | FILESYSTEM_ONLY, NORMALIZED | ALLOW_CACHE];
    let boot = |setup: &Setup| open(setup, r"\??\C:\boot.rom");
    let refused = || no(NtStatus::FLT_INVALID_NAME_REQUEST);
    let unsafe_answers = [refused(), refused(), no(NtStatus::FLT_NAME_CACHE_MISS)];
    assert_eq!(told(0x12, false, &options[..1], boot), [ok(r"\boot.rom")], "pre-cleanup is early enough");
    assert_eq!(told(0x12, true, &options, boot), unsafe_answers);
    assert_eq!(told(2, false, &options, boot), unsafe_answers);
    assert_eq!(told(2, true, &options, boot), unsafe_answers);
}

#[test]
fn the_options_name_one_format_and_one_method() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "Options without a format or a method, or with unknown bits, are STATUS_INVALID_PARAMETER."
    );
    let options = [DEFAULT, NORMALIZED, 4 | DEFAULT, NORMALIZED | 0x500, NORMALIZED | DEFAULT | 0x1_0000];
    let names = told(0, true, &options, |setup| open(setup, r"\??\C:\boot.rom"));
    assert_eq!(names, [const { NtStatus::INVALID_PARAMETER }; 5].map(no));
}

unsafe extern "efiapi" fn ask_without_apcs(
    data: *mut flt::FLT_CALLBACK_DATA,
    _: *const flt::FLT_RELATED_OBJECTS,
    _: *mut PVOID,
) -> i32 {
    let thread = Thread::current();
    thread.set_irql(1);
    ask_all(data);
    thread.set_irql(0);
    thread.set_guarded_regions(1);
    ask_all(data);
    thread.set_guarded_regions(0);
    flt::FLT_PREOP_SUCCESS_NO_CALLBACK
}

#[test]
fn names_are_not_looked_up_with_all_apcs_disabled() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "When KeAreAllApcsDisabled returns TRUE: STATUS_FLT_INVALID_NAME_REQUEST."
    );
    let operations = callbacks::operations(0, Some(ask_without_apcs), None);
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY };
    let filter = setup.filter_with(&registration);
    ASK.set(vec![NORMALIZED | DEFAULT]);
    TOLD.take();
    open(&setup, r"\??\C:\boot.rom");
    assert_eq!(TOLD.take(), [NtStatus::FLT_INVALID_NAME_REQUEST; 2].map(no));
    setup.unregister(filter).unwrap();
}

/// FltGetFileNameInformationUnsafe.
fn name_of(setup: &Setup, instance: usize, file: usize, options: u32) -> Answer {
    let get = ddi!(FltGetFileNameInformationUnsafe: fn(usize, usize, u32, usize) -> NtStatus);
    setup.run(|| take(with_out(|out| get(file, instance, options, out)))).unwrap()
}

#[test]
fn a_file_has_a_name_outside_of_operations_while_it_is_open() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformationunsafe.md",
        "The name of an open file can be had outside of an operation; without an instance too, as in DriverEntry."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformationunsafe.md",
        "STATUS_FLT_INVALID_NAME_REQUEST for a file object that is not open."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let file = files::open(&setup, filter, setup.instance(), r"\??\C:\Boot.rom").unwrap();
    for instance in [0, setup.instance()] {
        assert_eq!(name_of(&setup, instance, file.object, NORMALIZED | DEFAULT), ok(r"\boot.rom"));
    }
    assert_eq!(setup.run(|| ddi!(FltClose: fn(usize) -> NtStatus)(file.handle)), Ok(NtStatus::SUCCESS));
    let after = name_of(&setup, 0, file.object, NORMALIZED | DEFAULT);
    assert_eq!(after, no(NtStatus::FLT_INVALID_NAME_REQUEST));
    setup.run(|| ddi!(ObfDereferenceObject: fn(usize) -> isize)(file.object)).unwrap();
    setup.unregister(filter).unwrap();
}

#[test]
fn a_cached_name_does_not_outlive_a_rename() {
    let setup = Setup::new();
    let filter = setup.filter();
    let process = setup.process();
    let program = process.create_file(r"\??\C:\boot.rom", &OpenOptions::new().write().delete().share(7)).unwrap();
    let file = files::open(&setup, filter, setup.instance(), r"\??\C:\boot.rom").unwrap();
    assert_eq!(name_of(&setup, 0, file.object, NORMALIZED | DEFAULT), ok(r"\boot.rom"));
    program.rename("new.rom", false).unwrap();
    assert_eq!(name_of(&setup, 0, file.object, NORMALIZED | CACHE_ONLY), no(NtStatus::FLT_NAME_CACHE_MISS));
    assert_eq!(name_of(&setup, 0, file.object, NORMALIZED | DEFAULT), ok(r"\new.rom"));
    drop(program);
    file.release(&setup);
    setup.unregister(filter).unwrap();
}

#[test]
fn a_name_is_counted_and_read_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreferencefilenameinformation.md",
        "A reference keeps the structure until it is released once more."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasefilenameinformation.md",
        "When the count reaches zero the structure is freed."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilenameinformation.md",
        "The caller must not modify the structure, which all filters share."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let file = files::open(&setup, filter, setup.instance(), r"\??\C:\boot.rom").unwrap();
    let get = ddi!(FltGetFileNameInformationUnsafe: fn(usize, usize, u32, usize) -> NtStatus);
    let release = ddi!(FltReleaseFileNameInformation: fn(usize));
    let (_, name) = with_out(|out| setup.run(|| get(file.object, 0, NORMALIZED | DEFAULT, out)).unwrap());
    setup.run(|| ddi!(FltReferenceFileNameInformation: fn(usize))(name)).unwrap();
    setup.run(|| release(name)).unwrap();
    assert_eq!(text(Raw::<flt::FLT_FILE_NAME_INFORMATION>::at(name).read().Name), ok(r"\boot.rom").1);
    setup.run(|| release(name)).unwrap();
    assert_eq!(setup.run(|| release(name)), Err(Rule::ReferenceUnderflow));
}

#[test]
fn a_string_is_parsed_like_a_name() {
    conforms!(
        "fltkernel/nf-fltkernel-fltparsefilename.md",
        "Extension, stream and final component point into the string; a part that is not there is NULL and empty."
    );
    let setup = Setup::new();
    let parse = ddi!(FltParseFileName: fn(usize, usize, usize, usize) -> NtStatus);
    let parsed = |name: &str| {
        with_name(name, |at| {
            let mut parts = [const { UNICODE_STRING::EMPTY }; 3];
            let base = parts.as_mut_ptr().expose_provenance();
            let part = |index: usize| base + index * size_of::<UNICODE_STRING>();
            assert_eq!(setup.run(|| parse(at, part(0), part(1), part(2))), Ok(NtStatus::SUCCESS));
            [0, 1, 2].map(|index| text(Raw::<UNICODE_STRING>::at(part(index)).read()))
        })
    };
    assert_eq!(parsed(r"\Device\HarddiskVolume1\My Documents\Test.txt:s"), ["txt", ":s", "Test.txt:s"]);
    assert_eq!(parsed("TestRe~1.txt"), ["txt", "", "TestRe~1.txt"]);
    assert_eq!(parsed(r"\a\"), ["", "", ""]);
}
