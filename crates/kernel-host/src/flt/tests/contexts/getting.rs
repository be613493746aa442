//! FltGetXxxContext, FltGetContexts, and whether contexts are supported.

use fltmgr::raw::FLT_ALL_CONTEXTS;

use super::*;
use crate::fs::program::OpenOptions;

#[test]
fn a_context_that_is_set_is_found_and_referenced() {
    conforms!("fltkernel/nf-fltkernel-fltgetvolumecontext.md", "A found context gets a reference for the caller.");
    conforms!("fltkernel/nf-fltkernel-fltgetinstancecontext.md", "A found context gets a reference for the caller.");
    conforms!("fltkernel/nf-fltkernel-fltgetfilecontext.md", "A found context gets a reference for the caller.");
    conforms!("fltkernel/nf-fltkernel-fltgetstreamcontext.md", "A found context gets a reference for the caller.");
    conforms!(
        "fltkernel/nf-fltkernel-fltgetstreamhandlecontext.md",
        "A found context gets a reference for the caller."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        let context = bed.attach(kind, file.object);
        assert_eq!(bed.get(kind, file.object), (NtStatus::SUCCESS, context));
        assert_eq!(bed.delete(kind, file.object, 0), NtStatus::SUCCESS);
        assert_eq!(cleaned(), NONE, "the caller's reference keeps it");
        bed.release(context).unwrap();
        assert_eq!(cleaned(), [context]);
    }
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn where_no_context_is_set_none_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumecontext.md",
        "Without a context: STATUS_NOT_FOUND, and NULL_CONTEXT in the out parameter."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetinstancecontext.md",
        "Without a context: STATUS_NOT_FOUND, and NULL_CONTEXT in the out parameter."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilecontext.md",
        "Without a context: STATUS_NOT_FOUND, and NULL_CONTEXT in the out parameter."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetstreamcontext.md",
        "Without a context: STATUS_NOT_FOUND, and NULL_CONTEXT in the out parameter."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetstreamhandlecontext.md",
        "Without a context: STATUS_NOT_FOUND, and NULL_CONTEXT in the out parameter."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        assert_eq!(bed.get(kind, file.object), (NtStatus::NOT_FOUND, 0));
    }
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn a_transaction_that_is_none_has_no_context() {
    conforms!("fltkernel/nf-fltkernel-fltgettransactioncontext.md", "Without a context: STATUS_NOT_FOUND.");
    conforms!("fltkernel/nf-fltkernel-fltdeletetransactioncontext.md", "Without a context: STATUS_NOT_FOUND.");
    let bed = Bed::new();
    let instance = bed.instance();
    let get = ddi!(FltGetTransactionContext: fn(usize, usize, usize) -> NtStatus);
    let delete = ddi!(FltDeleteTransactionContext: fn(usize, usize, usize) -> NtStatus);
    assert_eq!(with_out(|out| bed.setup.run(|| get(instance, 0, out)).unwrap()), (NtStatus::NOT_FOUND, 0));
    assert_eq!(bed.setup.run(|| delete(instance, 0, 0)), Ok(NtStatus::NOT_FOUND));
    let set = ddi!(FltSetTransactionContext: fn(usize, usize, i32, usize, usize) -> NtStatus);
    assert_eq!(bed.setup.run(|| set(instance, 0x1000, 0, 0x2000, 0)), Err(Rule::NotImplemented));
}

#[test]
fn a_volume_without_data_scan_has_no_section_contexts() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetsectioncontext.md",
        "STATUS_NOT_SUPPORTED where the instance's volume has no section contexts."
    );
    let bed = Bed::new();
    let (instance, file) = (bed.instance(), bed.open(BOOT));
    let get = ddi!(FltGetSectionContext: fn(usize, usize, usize) -> NtStatus);
    let outcome = with_out(|out| bed.setup.run(|| get(instance, file.object, out)).unwrap());
    assert_eq!(outcome, (NtStatus::NOT_SUPPORTED, 0));
    file.release(&bed.setup);
    bed.end();
}

/// FLT_RELATED_OBJECTS for a file.
fn related(bed: &Bed, file: usize) -> flt::FLT_RELATED_OBJECTS {
    let stacks = super::super::super::volume_stacks(bed.setup.bench.machine().inner());
    stacks[0].instances()[0].related(file)
}

fn get_all(bed: &Bed, related: &flt::FLT_RELATED_OBJECTS, desired: u16) -> [usize; 6] {
    let get = ddi!(FltGetContexts: fn(usize, u16, usize));
    let mut contexts = [0xBAD_usize; 6];
    let at = contexts.as_mut_ptr().expose_provenance();
    bed.setup.run(|| get(std::ptr::from_ref(related).expose_provenance(), desired, at)).unwrap();
    std::array::from_fn(|index| Raw::<usize>::at(at).index(index).read())
}

#[test]
fn all_contexts_are_got_and_released_at_once() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetcontexts.md",
        "Each context that is returned gets a reference; members not asked for or not found are zero."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasecontexts.md",
        "Every context of the structure is released, and its member set to NULL_CONTEXT."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    let related = related(&bed, file.object);
    let set: Vec<usize> = TYPES.into_iter().map(|kind| bed.attach(kind, file.object)).collect();
    let [volume, instance, of_file, stream, handle] = set[..] else { unreachable!("five types") };
    assert_eq!(get_all(&bed, &related, FLT_STREAM_CONTEXT), [0, 0, 0, stream, 0, 0]);
    let mut all = get_all(&bed, &related, FLT_ALL_CONTEXTS);
    assert_eq!(all, [volume, instance, of_file, stream, handle, 0]);
    for kind in TYPES {
        assert_eq!(bed.delete(kind, file.object, 0), NtStatus::SUCCESS);
    }
    bed.release(stream).unwrap();
    assert_eq!(cleaned(), NONE);
    let at = all.as_mut_ptr().expose_provenance();
    bed.setup.run(|| ddi!(FltReleaseContexts: fn(usize))(at)).unwrap();
    assert_eq!(cleaned(), set);
    assert!((0..6).all(|index| Raw::<usize>::at(at).index(index).read() == 0));
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn the_extended_form_has_a_section_context_too() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetcontextsex.md",
        "STATUS_INVALID_PARAMETER for a type that is none; else the contexts, each with a reference, and zero for the rest."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasecontextsex.md",
        "Every context of the structure is released, and its member set to NULL_CONTEXT."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    let related = related(&bed, file.object);
    let related = (&raw const related).expose_provenance();
    let context = bed.attach(FLT_STREAM_CONTEXT, file.object);
    let get = ddi!(FltGetContextsEx: fn(usize, u16, usize, usize) -> NtStatus);
    let mut contexts = [0xBAD_usize; 7];
    let at = contexts.as_mut_ptr().expose_provenance();
    assert_eq!(bed.setup.run(|| get(related, 0x80, 56, at)), Ok(NtStatus::INVALID_PARAMETER));
    assert_eq!(bed.setup.run(|| get(related, FLT_ALL_CONTEXTS, 56, at)), Ok(NtStatus::SUCCESS));
    assert_eq!(Raw::<[usize; 7]>::at(at).read(), [0, 0, 0, context, 0, 0, 0]);
    bed.setup.run(|| ddi!(FltReleaseContextsEx: fn(usize, usize))(56, at)).unwrap();
    assert_eq!(Raw::<[usize; 7]>::at(at).read(), [0; 7]);
    file.release(&bed.setup);
    bed.end();
    let bed = Bed::new();
    assert_eq!(bed.setup.run(|| get(related, 1, 48, at)), Err(Rule::BadArgument));
}

thread_local! {
    static SUPPORTED: RefCell<Vec<[u8; 4]>> = const { RefCell::new(Vec::new()) };
}

fn ask(instance: usize, file: usize) {
    let answers = [
        ddi!(FltSupportsFileContexts: fn(usize) -> u8)(file),
        ddi!(FltSupportsFileContextsEx: fn(usize, usize) -> u8)(file, instance),
        ddi!(FltSupportsStreamContexts: fn(usize) -> u8)(file),
        ddi!(FltSupportsStreamHandleContexts: fn(usize) -> u8)(file),
    ];
    SUPPORTED.with_borrow_mut(|supported| supported.push(answers));
}

unsafe extern "efiapi" fn ask_before(
    _: *mut flt::FLT_CALLBACK_DATA,
    related: *const flt::FLT_RELATED_OBJECTS,
    _: *mut PVOID,
) -> i32 {
    let related = Raw::of(related.cast_mut()).read();
    ask(related.Instance.addr(), related.FileObject.addr());
    flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
}

unsafe extern "efiapi" fn ask_after(
    _: *mut flt::FLT_CALLBACK_DATA,
    related: *const flt::FLT_RELATED_OBJECTS,
    _: PVOID,
    _: u32,
) -> i32 {
    let related = Raw::of(related.cast_mut()).read();
    ask(related.Instance.addr(), related.FileObject.addr());
    flt::FLT_POSTOP_FINISHED_PROCESSING
}

fn answers_around(major: u8) -> Vec<[u8; 4]> {
    let operations = super::super::callbacks::operations(major, Some(ask_before), Some(ask_after));
    let bed = Bed::with_callbacks(
        &[],
        FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY },
    );
    drop(bed.setup.process().create_file(BOOT, &OpenOptions::new()).unwrap());
    bed.end();
    SUPPORTED.take()
}

#[test]
fn a_file_supports_contexts_while_it_is_open() {
    conforms!("fltkernel/nf-fltkernel-fltsupportsfilecontexts.md", "TRUE where the file can have file contexts.");
    conforms!("fltkernel/nf-fltkernel-fltsupportsfilecontextsex.md", "TRUE where the file can have file contexts.");
    conforms!("fltkernel/nf-fltkernel-fltsupportsstreamcontexts.md", "TRUE where the stream can have stream contexts.");
    conforms!(
        "fltkernel/nf-fltkernel-fltsupportsstreamhandlecontexts.md",
        "TRUE where the file object can have stream handle contexts."
    );
    conforms!(
        "docs:ifs/file-system-support-for-contexts.md",
        "Contexts are not supported in pre-create and in post-close."
    );
    assert_eq!(answers_around(0), [[0; 4], [1; 4]]);
    assert_eq!(answers_around(2), [[1; 4], [0; 4]]);
}
