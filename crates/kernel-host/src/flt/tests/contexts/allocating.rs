//! FltAllocateContext, FltReferenceContext and FltReleaseContext.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, Ordering};

use fltmgr::raw::FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH;

use super::*;

#[test]
fn a_type_that_is_not_registered_is_not_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "A type that was not registered is STATUS_FLT_CONTEXT_ALLOCATION_NOT_FOUND."
    );
    let bed = Bed::with(&[definition(FLT_STREAM_CONTEXT, 16)]);
    let (status, context) = bed.try_allocate(FLT_FILE_CONTEXT, 16, NON_PAGED).unwrap();
    assert_eq!((status, context), (NtStatus::FLT_CONTEXT_ALLOCATION_NOT_FOUND, 0xBAD));
    bed.end();
}

#[test]
fn a_fixed_size_serves_no_larger_request() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "A ContextSize above the registered fixed Size is STATUS_FLT_CONTEXT_ALLOCATION_NOT_FOUND."
    );
    let bed = Bed::with(&[definition(FLT_STREAM_CONTEXT, 16)]);
    let status = bed.try_allocate(FLT_STREAM_CONTEXT, 17, PAGED).unwrap().0;
    assert_eq!(status, NtStatus::FLT_CONTEXT_ALLOCATION_NOT_FOUND);
}

#[test]
fn a_fixed_size_serves_a_smaller_request_only_with_its_flag() {
    conforms!(
        "docs:ifs/creating-contexts.md",
        "Without NO_EXACT_SIZE_MATCH the ContextSize has to match the registered Size."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "With FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH a fixed size serves smaller requests."
    );
    let exact = definition(FLT_STREAM_CONTEXT, 16);
    let bed = Bed::with(&[exact]);
    let status = bed.try_allocate(FLT_STREAM_CONTEXT, 15, PAGED).unwrap().0;
    assert_eq!(status, NtStatus::FLT_CONTEXT_ALLOCATION_NOT_FOUND);
    let loose = FLT_CONTEXT_REGISTRATION { Flags: FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH, ..exact };
    let bed = Bed::with(&[loose]);
    let (status, context) = bed.try_allocate(FLT_STREAM_CONTEXT, 15, PAGED).unwrap();
    assert_eq!(status, NtStatus::SUCCESS);
    bed.release(context).unwrap();
    bed.end();
}

#[test]
fn several_sizes_are_told_apart_by_the_size() {
    conforms!(
        "docs:ifs/registering-context-types.md",
        "FltAllocateContext selects the definition by its size argument; what no fixed size serves, the variable one does."
    );
    let tagged = |size, tag| FLT_CONTEXT_REGISTRATION { PoolTag: tag, ..definition(FLT_STREAM_CONTEXT, size) };
    let bed = Bed::with(&[tagged(8, 0x38), tagged(16, 0x36), tagged(FLT_VARIABLE_SIZED_CONTEXTS, 0x76)]);
    for (size, tag) in [(8, "tag 8..."), (16, "tag 6..."), (9, "tag v...")] {
        let (_, context) = bed.try_allocate(FLT_STREAM_CONTEXT, size, PAGED).unwrap();
        assert!(bed.setup.leaks()[0].contains(tag), "{:?}", bed.setup.leaks());
        bed.release(context).unwrap();
    }
    bed.end();
}

#[test]
fn the_size_is_checked() {
    conforms!("fltkernel/nf-fltkernel-fltallocatecontext.md", "A ContextSize of zero is STATUS_INVALID_PARAMETER.");
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "A ContextSize above MAXUSHORT is STATUS_INVALID_BUFFER_SIZE."
    );
    let bed = Bed::new();
    let allocate = |size| bed.try_allocate(FLT_STREAM_CONTEXT, size, PAGED).unwrap();
    assert_eq!(allocate(0).0, NtStatus::INVALID_PARAMETER);
    assert_eq!(allocate(0x1_0000).0, NtStatus::INVALID_BUFFER_SIZE);
    let (status, context) = allocate(0xFFFF);
    assert_eq!(status, NtStatus::SUCCESS);
    bed.release(context).unwrap();
    bed.end();
}

#[test]
fn an_unknown_type_is_an_invalid_parameter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "A ContextType that is none is STATUS_INVALID_PARAMETER."
    );
    let bed = Bed::new();
    for kind in [0, 3, 0x80, 0xFFFF] {
        assert_eq!(bed.try_allocate(kind, 16, NON_PAGED).unwrap().0, NtStatus::INVALID_PARAMETER);
    }
}

#[test]
fn volume_contexts_are_nonpaged() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "A volume context comes from nonpaged pool: STATUS_FLT_MUST_BE_NONPAGED_POOL for paged pool."
    );
    let bed = Bed::new();
    let status = bed.try_allocate(FLT_VOLUME_CONTEXT, 16, PAGED).unwrap().0;
    assert_eq!(status, NtStatus::FLT_MUST_BE_NONPAGED_POOL);
    let (status, context) = bed.try_allocate(FLT_VOLUME_CONTEXT, 16, 512).unwrap();
    assert_eq!(status, NtStatus::SUCCESS);
    bed.release(context).unwrap();
    bed.end();
}

#[test]
fn another_pool_type_is_found() {
    conforms!("fltkernel/nf-fltkernel-fltallocatecontext.md", "PoolType is NonPagedPool, PagedPool or NonPagedPoolNx.");
    let bed = Bed::new();
    assert_eq!(bed.try_allocate(FLT_STREAM_CONTEXT, 16, 5), Err(Rule::BadArgument));
}

#[test]
fn only_contexts_of_variable_size_are_zeroed() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatecontext.md",
        "Contexts of variable size are zeroed (Windows 11); those of a fixed size cannot be assumed to be."
    );
    let fixed = definition(FLT_FILE_CONTEXT, 8);
    let bed = Bed::with(&[fixed, definition(FLT_STREAM_CONTEXT, FLT_VARIABLE_SIZED_CONTEXTS)]);
    let bytes = |kind| {
        let (_, context) = bed.try_allocate(kind, 8, NON_PAGED).unwrap();
        let bytes = Raw::<u8>::at(context).read_bytes(8);
        bed.release(context).unwrap();
        bytes
    };
    assert_eq!(bytes(FLT_STREAM_CONTEXT), [0; 8]);
    assert_ne!(bytes(FLT_FILE_CONTEXT), [0; 8]);
    bed.end();
}

#[test]
fn a_new_context_has_one_reference() {
    conforms!("fltkernel/nf-fltkernel-fltallocatecontext.md", "A new context has a reference count of 1.");
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasecontext.md",
        "When the reference count reaches zero at IRQL <= APC_LEVEL the context is freed at once."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreferencecontext.md",
        "FltReferenceContext adds a reference, which FltReleaseContext takes off."
    );
    let bed = Bed::new();
    let context = bed.allocate(FLT_STREAM_CONTEXT);
    bed.reference(context).unwrap();
    bed.release(context).unwrap();
    assert_eq!(cleaned(), NONE);
    bed.release(context).unwrap();
    assert_eq!(cleaned(), [context]);
    bed.end();
}

#[test]
fn a_release_too_many_is_found() {
    let bed = Bed::new();
    let context = bed.attach(FLT_INSTANCE_CONTEXT, 0);
    assert_eq!(bed.release(context), Err(Rule::ReferenceUnderflow), "the instance's reference is not the driver's");
}

#[test]
fn a_context_is_dead_after_its_last_release() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasecontext.md",
        "After FltReleaseContext the context must not be used: it may have been freed."
    );
    let bed = Bed::new();
    let context = bed.allocate(FLT_STREAM_CONTEXT);
    bed.release(context).unwrap();
    let stopped = bed.setup.bench.run(|| ddi!(FltReferenceContext: fn(usize))(context)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::BadArgument);
    assert!(stopped.0.message.contains("it was a FLT_STREAM_CONTEXT, freed when"), "{}", stopped.0.message);
}

#[test]
fn the_memory_of_a_released_context_faults() {
    let bed = Bed::new();
    let context = bed.allocate(FLT_STREAM_CONTEXT);
    bed.release(context).unwrap();
    let instance = bed.instance();
    // The export stores through the pointer, on the driver's account.
    let outcome = bed.setup.run(|| ddi!(FltGetInstanceContext: fn(usize, usize) -> NtStatus)(instance, context));
    assert_eq!(outcome, Err(Rule::BadArgument));
}

#[test]
fn a_context_is_no_pool_block_of_the_drivers() {
    let bed = Bed::new();
    let context = bed.allocate(FLT_STREAM_CONTEXT);
    let outcome = bed.setup.run(|| ddi!(ExFreePoolWithTag: fn(usize, u32))(context, 0));
    assert_eq!(outcome, Err(Rule::BadPoolFree));
}

#[test]
fn writing_before_a_context_is_found() {
    let bed = Bed::new();
    let context = bed.allocate(FLT_STREAM_CONTEXT);
    Raw::<u8>::at(context - 1).write(0);
    assert_eq!(bed.release(context), Err(Rule::PoolCorruption));
}

/// Where `note` ran.
static IRQL: AtomicU8 = AtomicU8::new(99);

unsafe extern "efiapi" fn note(_: flt::PFLT_CONTEXT, _: u16) {
    IRQL.store(Thread::current().irql(), Ordering::SeqCst);
}

#[test]
fn nonpaged_contexts_are_referenced_and_released_up_to_dispatch() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasecontext.md",
        "At DISPATCH_LEVEL a nonpaged context can be released, and a work item frees it."
    );
    conforms!("fltkernel/nf-fltkernel-fltreferencecontext.md", "FltReferenceContext can be called at DISPATCH_LEVEL.");
    conforms!(
        "fltkernel/nc-fltkernel-pflt_context_cleanup_callback.md",
        "The cleanup callback runs at IRQL <= APC_LEVEL."
    );
    let noted = FLT_CONTEXT_REGISTRATION { ContextCleanupCallback: Some(note), ..definition(FLT_STREAM_CONTEXT, 16) };
    let bed = Bed::with(&[noted]);
    let context = bed.allocate(FLT_STREAM_CONTEXT);
    let outcome = bed.setup.call("FltReleaseContext", || {
        Thread::current().set_irql(2);
        ddi!(FltReferenceContext: fn(usize))(context);
        ddi!(FltReleaseContext: fn(usize))(context);
        ddi!(FltReleaseContext: fn(usize))(context);
        Thread::current().set_irql(0);
    });
    assert_eq!(outcome, Ok(()));
    bed.end();
    assert_eq!(IRQL.load(Ordering::SeqCst), 0, "unregistering waits for the work item");
}

#[test]
fn a_paged_context_is_not_released_at_dispatch() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreleasecontext.md",
        "A context in paged pool is released at IRQL <= APC_LEVEL."
    );
    let bed = Bed::new();
    let (_, context) = bed.try_allocate(FLT_STREAM_CONTEXT, 16, PAGED).unwrap();
    let outcome = bed.setup.call("FltReleaseContext", || {
        Thread::current().set_irql(2);
        ddi!(FltReleaseContext: fn(usize))(context);
    });
    assert_eq!(outcome, Err(Rule::IrqlTooHigh));
}

#[test]
fn contexts_are_not_allocated_at_dispatch() {
    conforms!("fltkernel/nf-fltkernel-fltallocatecontext.md", "FltAllocateContext is called at IRQL <= APC_LEVEL.");
    let bed = Bed::new();
    let allocate = ddi!(FltAllocateContext: fn(usize, u16, usize, i32, usize) -> NtStatus);
    let outcome = bed.setup.call("FltAllocateContext", || {
        Thread::current().set_irql(2);
        allocate(bed.filter, FLT_STREAM_CONTEXT, 16, NON_PAGED, 0)
    });
    assert_eq!(outcome, Err(Rule::IrqlTooHigh));
}

thread_local! {
    /// What the filter's own allocator got, and what it returned.
    static ASKED: Cell<(i32, usize, u16)> = const { Cell::new((0, 0, 0)) };
    static MADE: Cell<usize> = const { Cell::new(0) };
    static FREED: Cell<(usize, u16)> = const { Cell::new((0, 0)) };
}

unsafe extern "efiapi" fn own_allocate(pool: i32, size: usize, kind: u16) -> PVOID {
    ASKED.set((pool, size, kind));
    if MADE.get() == usize::MAX {
        return std::ptr::null_mut();
    }
    MADE.set(ddi!(ExAllocatePoolWithTag: fn(i32, usize, u32) -> usize)(pool, size, 0x6E77_4F20));
    Raw::<u8>::at(MADE.get()).pointer().cast()
}

unsafe extern "efiapi" fn own_free(memory: PVOID, kind: u16) {
    FREED.set((memory.addr(), kind));
    ddi!(ExFreePoolWithTag: fn(usize, u32))(memory.addr(), 0x6E77_4F20);
}

fn own() -> FLT_CONTEXT_REGISTRATION {
    FLT_CONTEXT_REGISTRATION {
        ContextAllocateCallback: Some(own_allocate),
        ContextFreeCallback: Some(own_free),
        ..definition(FLT_STREAM_CONTEXT, 0)
    }
}

#[test]
fn a_filters_own_allocator_gives_and_takes_the_memory() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_context_allocate_callback.md",
        "The callback gets the pool type, the context type and the whole size, with FltMgr's part in it."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_context_free_callback.md",
        "The callback gets what the allocation callback returned, and the type."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_context_cleanup_callback.md",
        "The callback gets the filter's part of the context and its type, before the memory is freed."
    );
    let bed = Bed::with(&[own()]);
    let (status, context) = bed.try_allocate(FLT_STREAM_CONTEXT, 100, PAGED).unwrap();
    assert_eq!(status, NtStatus::SUCCESS);
    let (pool, size, kind) = ASKED.get();
    assert_eq!((pool, kind), (PAGED, FLT_STREAM_CONTEXT));
    assert!(size > 100 && MADE.get() + size == context + 100, "FltMgr's part lies before the context");
    bed.release(context).unwrap();
    assert_eq!(cleaned(), [context]);
    assert_eq!(FREED.get(), (MADE.get(), FLT_STREAM_CONTEXT));
    bed.end();
}

#[test]
fn an_own_allocator_without_memory_makes_the_allocation_fail() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_context_allocate_callback.md",
        "NULL from the callback means that there is not enough pool: STATUS_INSUFFICIENT_RESOURCES."
    );
    let bed = Bed::with(&[own()]);
    MADE.set(usize::MAX);
    let status = bed.try_allocate(FLT_STREAM_CONTEXT, 100, NON_PAGED).unwrap().0;
    assert_eq!(status, NtStatus::INSUFFICIENT_RESOURCES);
    bed.end();
}
