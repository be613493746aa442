//! FltSetXxxContext, for each type.

use std::cell::Cell;

use fltmgr::raw::FLT_SET_CONTEXT_REPLACE_IF_EXISTS;

use super::*;
use crate::fs::program::OpenOptions;

const KEEP: i32 = FLT_SET_CONTEXT_KEEP_IF_EXISTS;
const REPLACE: i32 = FLT_SET_CONTEXT_REPLACE_IF_EXISTS;

/// Runs `check` once for each type, with an open file.
fn for_each_type(check: impl Fn(&Bed, u16, usize)) {
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        check(&bed, kind, file.object);
        cleaned();
    }
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn a_set_context_outlives_the_first_reference() {
    conforms!("docs:ifs/setting-contexts.md", "A successful set adds a reference of the object's own.");
    conforms!(
        "docs:ifs/releasing-contexts.md",
        "After a successful set the reference of FltAllocateContext is still to be released."
    );
    for_each_type(|bed, kind, file| {
        let context = bed.attach(kind, file);
        assert_eq!(cleaned(), NONE, "{kind:#x}");
        assert_eq!(bed.delete(kind, file, 0), NtStatus::SUCCESS);
        assert_eq!(cleaned(), [context], "{kind:#x}");
    });
}

#[test]
fn a_context_that_is_there_is_kept() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetvolumecontext.md",
        "KEEP_IF_EXISTS with a context there is STATUS_FLT_CONTEXT_ALREADY_DEFINED; OldContext gets a referenced pointer to it."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetinstancecontext.md",
        "KEEP_IF_EXISTS with a context there is STATUS_FLT_CONTEXT_ALREADY_DEFINED; OldContext gets a referenced pointer to it."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "KEEP_IF_EXISTS with a context there is STATUS_FLT_CONTEXT_ALREADY_DEFINED; OldContext gets a referenced pointer to it."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "KEEP_IF_EXISTS with a context there is STATUS_FLT_CONTEXT_ALREADY_DEFINED; OldContext gets a referenced pointer to it."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "KEEP_IF_EXISTS with a context there is STATUS_FLT_CONTEXT_ALREADY_DEFINED; OldContext gets a referenced pointer to it."
    );
    for_each_type(|bed, kind, file| {
        let first = bed.attach(kind, file);
        let second = bed.allocate(kind);
        assert_eq!(bed.set(kind, file, KEEP, second), (NtStatus::FLT_CONTEXT_ALREADY_DEFINED, first));
        bed.release(first).unwrap();
        bed.release(second).unwrap();
        assert_eq!(cleaned(), [second], "the count of the new context did not change");
        assert_eq!(bed.delete(kind, file, 0), NtStatus::SUCCESS);
    });
}

#[test]
fn a_refused_set_without_room_for_the_old_context_adds_no_reference() {
    conforms!(
        "docs:ifs/setting-contexts.md",
        "The existing context is returned, and referenced, only when OldContext is not NULL."
    );
    for_each_type(|bed, kind, file| {
        let first = bed.attach(kind, file);
        let second = bed.allocate(kind);
        assert_eq!(bed.set_with(kind, file, KEEP, second, 0), Ok(NtStatus::FLT_CONTEXT_ALREADY_DEFINED));
        bed.release(second).unwrap();
        assert_eq!(bed.delete(kind, file, 0), NtStatus::SUCCESS);
        assert_eq!(cleaned(), [second, first]);
    });
}

#[test]
fn a_context_that_is_there_is_replaced() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetvolumecontext.md",
        "REPLACE_IF_EXISTS takes the place of the context that is there, which OldContext gets with its reference."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetinstancecontext.md",
        "REPLACE_IF_EXISTS takes the place of the context that is there, which OldContext gets with its reference."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "REPLACE_IF_EXISTS takes the place of the context that is there, which OldContext gets with its reference."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "REPLACE_IF_EXISTS takes the place of the context that is there, which OldContext gets with its reference."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "REPLACE_IF_EXISTS takes the place of the context that is there, which OldContext gets with its reference."
    );
    for_each_type(|bed, kind, file| {
        let first = bed.attach(kind, file);
        let second = bed.allocate(kind);
        assert_eq!(bed.set(kind, file, REPLACE, second), (NtStatus::SUCCESS, first));
        assert_eq!(cleaned(), NONE, "OldContext has a reference");
        bed.release(first).unwrap();
        assert_eq!(cleaned(), [first]);
        let third = bed.allocate(kind);
        assert_eq!(bed.set_with(kind, file, REPLACE, third, 0), Ok(NtStatus::SUCCESS));
        bed.release(second).unwrap();
        assert_eq!(cleaned(), [second], "without room for it the old context is released");
        bed.release(third).unwrap();
        assert_eq!(bed.delete(kind, file, 0), NtStatus::SUCCESS);
    });
}

#[test]
fn replacing_nothing_sets() {
    conforms!(
        "docs:ifs/setting-contexts.md",
        "REPLACE_IF_EXISTS always attaches the new context, also when none was there."
    );
    for_each_type(|bed, kind, file| {
        let context = bed.allocate(kind);
        assert_eq!(bed.set(kind, file, REPLACE, context), (NtStatus::SUCCESS, 0));
        bed.release(context).unwrap();
        assert_eq!(bed.delete(kind, file, 0), NtStatus::SUCCESS);
    });
}

#[test]
fn a_context_is_set_on_one_object_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetvolumecontext.md",
        "A context that is in use by an earlier set is STATUS_FLT_CONTEXT_ALREADY_LINKED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetinstancecontext.md",
        "A context that is in use by an earlier set is STATUS_FLT_CONTEXT_ALREADY_LINKED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "A context that is in use by an earlier set is STATUS_FLT_CONTEXT_ALREADY_LINKED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "A context that is in use by an earlier set is STATUS_FLT_CONTEXT_ALREADY_LINKED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "A context that is in use by an earlier set is STATUS_FLT_CONTEXT_ALREADY_LINKED."
    );
    for_each_type(|bed, kind, file| {
        let context = bed.attach(kind, file);
        for operation in [KEEP, REPLACE] {
            let outcome = bed.set(kind, file, operation, context);
            assert_eq!(outcome, (NtStatus::FLT_CONTEXT_ALREADY_LINKED, 0));
        }
        assert_eq!(bed.delete(kind, file, 0), NtStatus::SUCCESS);
    });
}

#[test]
fn a_context_of_another_type_is_an_invalid_parameter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetvolumecontext.md",
        "A NewContext that is no volume context is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetinstancecontext.md",
        "A NewContext that is no instance context is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "A NewContext that is no file context is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "A NewContext that is no stream context is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "A NewContext that is no stream handle context is STATUS_INVALID_PARAMETER."
    );
    for_each_type(|bed, kind, file| {
        for other in TYPES.into_iter().filter(|other| *other != kind) {
            let context = bed.allocate(other);
            assert_eq!(bed.set(kind, file, KEEP, context), (NtStatus::INVALID_PARAMETER, 0));
            bed.release(context).unwrap();
            assert_eq!(cleaned(), [context], "a failed set changes no count");
        }
        assert_eq!(bed.set(kind, file, KEEP, 0), (NtStatus::INVALID_PARAMETER, 0));
    });
}

#[test]
fn another_operation_is_an_invalid_parameter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetvolumecontext.md",
        "Operation is REPLACE_IF_EXISTS or KEEP_IF_EXISTS; else STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetinstancecontext.md",
        "Operation is REPLACE_IF_EXISTS or KEEP_IF_EXISTS; else STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "Operation is REPLACE_IF_EXISTS or KEEP_IF_EXISTS; else STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "Operation is REPLACE_IF_EXISTS or KEEP_IF_EXISTS; else STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "Operation is REPLACE_IF_EXISTS or KEEP_IF_EXISTS; else STATUS_INVALID_PARAMETER."
    );
    for_each_type(|bed, kind, file| {
        let context = bed.allocate(kind);
        for operation in [-1, 2] {
            assert_eq!(bed.set(kind, file, operation, context), (NtStatus::INVALID_PARAMETER, 0));
        }
        bed.release(context).unwrap();
    });
}

#[test]
fn a_pointer_that_is_no_context_is_found() {
    let bed = Bed::new();
    let old = 0;
    assert_eq!(bed.set_with(FLT_VOLUME_CONTEXT, 0, KEEP, 0x1000, old), Err(Rule::BadArgument));
}

thread_local! {
    /// The filter, and what its callbacks saw.
    static FILTER: Cell<usize> = const { Cell::new(0) };
    static SEEN: RefCell<Vec<NtStatus>> = const { RefCell::new(Vec::new()) };
}

fn see(status: NtStatus) {
    SEEN.with_borrow_mut(|seen| seen.push(status));
}

/// Allocates and sets a context of each type on a file, and says how that went.
unsafe extern "efiapi" fn set_in_pre_create(
    _: *mut flt::FLT_CALLBACK_DATA,
    related: *const flt::FLT_RELATED_OBJECTS,
    _: *mut PVOID,
) -> i32 {
    let related = Raw::of(related.cast_mut()).read();
    let (instance, file) = (related.Instance.addr(), related.FileObject.addr());
    let allocate = ddi!(FltAllocateContext: fn(usize, u16, usize, i32, usize) -> NtStatus);
    for kind in FILE_TYPES {
        let (_, context) = with_out(|out| allocate(FILTER.get(), kind, 16, NON_PAGED, out));
        let (set, get) = match kind {
            FLT_FILE_CONTEXT => (
                ddi!(FltSetFileContext: fn(usize, usize, i32, usize, usize) -> NtStatus),
                ddi!(FltGetFileContext: fn(usize, usize, usize) -> NtStatus),
            ),
            FLT_STREAM_CONTEXT => (
                ddi!(FltSetStreamContext: fn(usize, usize, i32, usize, usize) -> NtStatus),
                ddi!(FltGetStreamContext: fn(usize, usize, usize) -> NtStatus),
            ),
            _ => (
                ddi!(FltSetStreamHandleContext: fn(usize, usize, i32, usize, usize) -> NtStatus),
                ddi!(FltGetStreamHandleContext: fn(usize, usize, usize) -> NtStatus),
            ),
        };
        see(set(instance, file, KEEP, context, 0));
        see(with_out(|out| get(instance, file, out)).0);
        ddi!(FltReleaseContext: fn(usize))(context);
    }
    flt::FLT_PREOP_SUCCESS_NO_CALLBACK
}

#[test]
fn a_file_that_is_not_open_yet_has_no_contexts() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "On a file object that is not open (pre-create) contexts cannot be set: STATUS_NOT_SUPPORTED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "On a file object that is not open (pre-create) contexts cannot be set: STATUS_NOT_SUPPORTED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "On a file object that is not open (pre-create) contexts cannot be set: STATUS_NOT_SUPPORTED."
    );
    conforms!("fltkernel/nf-fltkernel-fltgetfilecontext.md", "STATUS_NOT_SUPPORTED where a file has no file contexts.");
    conforms!(
        "fltkernel/nf-fltkernel-fltgetstreamcontext.md",
        "STATUS_NOT_SUPPORTED where a file stream has no stream contexts."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetstreamhandlecontext.md",
        "STATUS_NOT_SUPPORTED where a file stream has no stream handle contexts."
    );
    let operations = super::super::callbacks::operations(0, Some(set_in_pre_create), None);
    let bed = Bed::with_callbacks(
        &FILE_TYPES.map(|kind| definition(kind, 16)),
        FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY },
    );
    FILTER.set(bed.filter);
    drop(bed.setup.process().create_file(BOOT, &OpenOptions::new()).unwrap());
    assert_eq!(SEEN.take(), [NtStatus::NOT_SUPPORTED; 6]);
    bed.end();
}

#[test]
fn a_stream_handle_context_needs_a_file_object() {
    conforms!("fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md", "A NULL FileObject is STATUS_NOT_SUPPORTED.");
    let bed = Bed::new();
    let context = bed.allocate(FLT_STREAMHANDLE_CONTEXT);
    assert_eq!(bed.set(FLT_STREAMHANDLE_CONTEXT, 0, KEEP, context), (NtStatus::NOT_SUPPORTED, 0));
    bed.release(context).unwrap();
    bed.end();
}

thread_local! {
    /// A file and contexts for the teardown callback to set.
    static FILE: Cell<usize> = const { Cell::new(0) };
    static CONTEXTS: RefCell<Vec<(u16, usize)>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "efiapi" fn set_in_teardown(related: *const flt::FLT_RELATED_OBJECTS, _: u32) {
    let instance = Raw::of(related.cast_mut()).read().Instance.addr();
    for (kind, context) in CONTEXTS.take() {
        let file = FILE.get();
        see(match kind {
            FLT_INSTANCE_CONTEXT => {
                ddi!(FltSetInstanceContext: fn(usize, i32, usize, usize) -> NtStatus)(instance, KEEP, context, 0)
            }
            FLT_FILE_CONTEXT => ddi!(FltSetFileContext: fn(usize, usize, i32, usize, usize) -> NtStatus)(
                instance, file, KEEP, context, 0,
            ),
            FLT_STREAM_CONTEXT => ddi!(FltSetStreamContext: fn(usize, usize, i32, usize, usize) -> NtStatus)(
                instance, file, KEEP, context, 0,
            ),
            _ => ddi!(FltSetStreamHandleContext: fn(usize, usize, i32, usize, usize) -> NtStatus)(
                instance, file, KEEP, context, 0,
            ),
        });
        ddi!(FltReleaseContext: fn(usize))(context);
    }
    see(ddi!(FltDeleteInstanceContext: fn(usize, usize) -> NtStatus)(instance, 0));
    let allocate = ddi!(FltAllocateContext: fn(usize, u16, usize, i32, usize) -> NtStatus);
    see(with_out(|out| allocate(FILTER.get(), FLT_STREAM_CONTEXT, 16, NON_PAGED, out)).0);
}

#[test]
fn nothing_is_set_on_an_instance_that_goes() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetinstancecontext.md",
        "STATUS_FLT_DELETING_OBJECT while the instance is torn down."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "STATUS_FLT_DELETING_OBJECT while the instance is torn down."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamcontext.md",
        "STATUS_FLT_DELETING_OBJECT while the instance is torn down."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetstreamhandlecontext.md",
        "STATUS_FLT_DELETING_OBJECT while the instance is torn down."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdeleteinstancecontext.md",
        "STATUS_FLT_DELETING_OBJECT while the instance is torn down."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "STATUS_FLT_DELETING_OBJECT while the filter is torn down."
    );
    let bed = Bed::with_callbacks(
        &TYPES.map(|kind| definition(kind, 16)),
        FLT_REGISTRATION { InstanceTeardownCompleteCallback: Some(set_in_teardown), ..FLT_REGISTRATION::EMPTY },
    );
    FILTER.set(bed.filter);
    let file = bed.setup.process().create_file(BOOT, &OpenOptions::new()).unwrap();
    FILE.set(bed.open(BOOT).object);
    let kinds = [FLT_INSTANCE_CONTEXT, FLT_FILE_CONTEXT, FLT_STREAM_CONTEXT, FLT_STREAMHANDLE_CONTEXT];
    CONTEXTS.set(kinds.map(|kind| (kind, bed.allocate(kind))).to_vec());
    bed.setup.unregister(bed.filter).unwrap();
    assert_eq!(SEEN.take(), [NtStatus::FLT_DELETING_OBJECT; 6]);
    drop(file);
}
