//! When contexts go with the objects that they are set on.

use std::cell::Cell;

use super::*;
use crate::fs::program::OpenOptions;

#[test]
fn a_stream_context_lives_until_the_last_close_of_the_stream() {
    conforms!(
        "docs:ifs/referencing-contexts.md",
        "The teardown of a stream, which IRP_MJ_CLOSE triggers, releases its context and runs the cleanup callback."
    );
    conforms!("docs:ifs/deleting-contexts.md", "FltMgr deletes contexts when their object is deleted.");
    let bed = Bed::new();
    let (first, second) = (bed.open(BOOT), bed.open(BOOT));
    let stream = bed.attach(FLT_STREAM_CONTEXT, first.object);
    let handle = bed.attach(FLT_STREAMHANDLE_CONTEXT, first.object);
    assert_eq!(bed.get(FLT_STREAM_CONTEXT, second.object), (NtStatus::SUCCESS, stream), "all opens share it");
    bed.release(stream).unwrap();
    assert_eq!(bed.get(FLT_STREAMHANDLE_CONTEXT, second.object), (NtStatus::NOT_FOUND, 0), "each has its own");
    first.release(&bed.setup);
    assert_eq!(cleaned(), [handle]);
    second.release(&bed.setup);
    assert_eq!(cleaned(), [stream]);
    bed.end();
}

#[test]
fn the_file_object_keeps_a_stream_handle_context_beyond_the_handle() {
    let bed = Bed::new();
    let file = bed.open(BOOT);
    let context = bed.attach(FLT_STREAMHANDLE_CONTEXT, file.object);
    assert_eq!(bed.setup.run(|| ddi!(FltClose: fn(usize) -> NtStatus)(file.handle)), Ok(NtStatus::SUCCESS));
    assert_eq!(cleaned(), NONE, "IRP_MJ_CLEANUP ends nothing");
    bed.setup.run(|| ddi!(ObfDereferenceObject: fn(usize) -> isize)(file.object)).unwrap();
    assert_eq!(cleaned(), [context]);
    bed.end();
}

#[test]
fn a_file_context_is_shared_by_the_streams_of_the_file() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetfilecontext.md",
        "An instance has one context on a file, whichever of its streams is open."
    );
    let bed = Bed::new();
    let process = bed.setup.process();
    let create = OpenOptions::new().write().disposition(3);
    drop(process.create_file(r"\??\C:\boot.rom:notes", &create).unwrap());
    let (main, notes) = (bed.open(BOOT), bed.open(r"\??\C:\boot.rom:notes"));
    let file = bed.attach(FLT_FILE_CONTEXT, main.object);
    let stream = bed.attach(FLT_STREAM_CONTEXT, main.object);
    assert_eq!(bed.get(FLT_FILE_CONTEXT, notes.object), (NtStatus::SUCCESS, file));
    bed.release(file).unwrap();
    assert_eq!(bed.get(FLT_STREAM_CONTEXT, notes.object), (NtStatus::NOT_FOUND, 0));
    main.release(&bed.setup);
    assert_eq!(cleaned(), [stream]);
    notes.release(&bed.setup);
    assert_eq!(cleaned(), [file]);
    bed.end();
}

#[test]
fn a_hard_link_leads_to_the_same_contexts() {
    let bed = Bed::new();
    let process = bed.setup.process();
    process.create_file(BOOT, &OpenOptions::new().write()).unwrap().link("second.rom").unwrap();
    let (one, other) = (bed.open(BOOT), bed.open(r"\??\C:\second.rom"));
    let context = bed.attach(FLT_STREAM_CONTEXT, one.object);
    assert_eq!(bed.get(FLT_STREAM_CONTEXT, other.object), (NtStatus::SUCCESS, context));
    bed.release(context).unwrap();
    one.release(&bed.setup);
    other.release(&bed.setup);
    bed.end();
}

thread_local! {
    static WHERE: Cell<(NtStatus, usize)> = const { Cell::new((NtStatus::PENDING, 0)) };
}

unsafe extern "efiapi" fn get_before_close(
    _: *mut flt::FLT_CALLBACK_DATA,
    related: *const flt::FLT_RELATED_OBJECTS,
    _: *mut PVOID,
) -> i32 {
    let related = Raw::of(related.cast_mut()).read();
    let get = ddi!(FltGetStreamHandleContext: fn(usize, usize, usize) -> NtStatus);
    let (status, context) = with_out(|out| get(related.Instance.addr(), related.FileObject.addr(), out));
    WHERE.set((status, context));
    if context != 0 {
        ddi!(FltReleaseContext: fn(usize))(context);
    }
    flt::FLT_PREOP_SUCCESS_NO_CALLBACK
}

#[test]
fn contexts_are_there_until_the_file_system_has_closed_the_file() {
    conforms!(
        "docs:ifs/file-system-support-for-contexts.md",
        "Contexts can still be got in the pre-operation callback of IRP_MJ_CLOSE."
    );
    let operations = super::super::callbacks::operations(2, Some(get_before_close), None);
    let bed = Bed::with_callbacks(
        &[definition(FLT_STREAMHANDLE_CONTEXT, 16)],
        FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY },
    );
    let file = open(&bed.setup, bed.filter, 0, BOOT).unwrap();
    let context = bed.attach(FLT_STREAMHANDLE_CONTEXT, file.object);
    file.release(&bed.setup);
    assert_eq!(WHERE.get(), (NtStatus::SUCCESS, context));
    assert_eq!(cleaned(), [context]);
    bed.end();
}

unsafe extern "efiapi" fn agree(_: *const flt::FLT_RELATED_OBJECTS, _: u32) -> NtStatus {
    NtStatus::SUCCESS
}

unsafe extern "efiapi" fn nothing_cleaned_yet(_: *const flt::FLT_RELATED_OBJECTS, _: u32) {
    assert!(CLEANED.with_borrow(Vec::is_empty), "contexts last until the teardown is complete");
}

#[test]
fn an_instance_that_goes_takes_its_contexts_along() {
    conforms!("docs:ifs/deleting-contexts.md", "FltMgr deletes contexts when the instance is detached.");
    let bed = Bed::with_callbacks(
        &TYPES.map(|kind| definition(kind, 16)),
        FLT_REGISTRATION {
            InstanceQueryTeardownCallback: Some(agree),
            InstanceTeardownCompleteCallback: Some(nothing_cleaned_yet),
            ..FLT_REGISTRATION::EMPTY
        },
    );
    let file = bed.open(BOOT);
    let contexts = TYPES.map(|kind| bed.attach(kind, file.object));
    let [volume, instance, of_file, stream, handle] = contexts;
    bed.setup.bench.machine().filter_detach("TestFilter", "C:").unwrap();
    assert_eq!(cleaned(), [handle, stream, of_file, instance], "the volume's context is the filter's");
    file.release(&bed.setup);
    bed.setup.unregister(bed.filter).unwrap();
    assert_eq!(cleaned(), [volume]);
    assert_eq!(bed.setup.leaks(), Vec::<String>::new());
}

#[test]
fn unregistering_removes_all_contexts() {
    conforms!(
        "fltkernel/nf-fltkernel-fltunregisterfilter.md",
        "FltUnregisterFilter removes the contexts that the filter has set on files, volumes, instances, streams and stream handles."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        bed.attach(kind, file.object);
    }
    file.release(&bed.setup);
    bed.end();
    assert_eq!(CLEANED.take().len(), TYPES.len());
}

#[test]
fn a_context_that_is_not_released_is_named_with_its_type() {
    conforms!(
        "docs:ifs/releasing-contexts.md",
        "Every successful allocation, get and reference is matched by FltReleaseContext."
    );
    let bed = Bed::new();
    let context = bed.attach(FLT_INSTANCE_CONTEXT, 0);
    assert_eq!(bed.get(FLT_INSTANCE_CONTEXT, 0), (NtStatus::SUCCESS, context));
    let stopped = bed.setup.bench.run(|| ddi!(FltUnregisterFilter: fn(usize))(bed.filter)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::ReferenceLeak);
    let message = &stopped.0.message;
    assert!(message.contains("FLT_INSTANCE_CONTEXT of 16 bytes, tag Ctxt, 1 reference(s)"), "{message}");
}

#[test]
fn a_context_that_leaks_is_in_the_report() {
    let bed = Bed::new();
    bed.allocate(FLT_STREAM_CONTEXT);
    let leaks = bed.setup.leaks();
    assert!(leaks[0].contains("FLT_STREAM_CONTEXT of 16 bytes"), "{leaks:?}");
}
