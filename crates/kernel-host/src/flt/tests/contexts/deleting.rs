//! FltDeleteXxxContext and FltDeleteContext.

use super::*;

#[test]
fn a_deleted_context_goes_to_the_caller() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletevolumecontext.md",
        "The context comes off its object; OldContext gets it, to be released by the caller."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdeleteinstancecontext.md",
        "The context comes off its object; OldContext gets it, to be released by the caller."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletefilecontext.md",
        "The context comes off its object; OldContext gets it with the reference of the set, to be released by the caller."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletestreamcontext.md",
        "The context comes off its object; OldContext gets it, to be released by the caller."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletestreamhandlecontext.md",
        "The context comes off its object; OldContext gets it, to be released by the caller."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        let context = bed.attach(kind, file.object);
        let outcome = with_out(|old| bed.delete(kind, file.object, old));
        assert_eq!(outcome, (NtStatus::SUCCESS, context));
        assert_eq!(bed.get(kind, file.object), (NtStatus::NOT_FOUND, 0));
        assert_eq!(cleaned(), NONE);
        bed.release(context).unwrap();
        assert_eq!(cleaned(), [context]);
    }
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn without_room_for_it_a_deleted_context_is_released() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletefilecontext.md",
        "With OldContext NULL the reference of the set is released."
    );
    conforms!(
        "docs:ifs/deleting-contexts.md",
        "With OldContext NULL the context is freed unless the filter has another reference."
    );
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        let context = bed.attach(kind, file.object);
        assert_eq!(bed.delete(kind, file.object, 0), NtStatus::SUCCESS);
        assert_eq!(cleaned(), [context]);
    }
    file.release(&bed.setup);
    bed.end();
}

#[test]
fn where_no_context_is_set_none_is_deleted() {
    conforms!("fltkernel/nf-fltkernel-fltdeletevolumecontext.md", "Without a context: STATUS_NOT_FOUND.");
    conforms!("fltkernel/nf-fltkernel-fltdeleteinstancecontext.md", "Without a context: STATUS_NOT_FOUND.");
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletefilecontext.md",
        "Without a context: STATUS_NOT_FOUND, and NULL_CONTEXT in OldContext."
    );
    conforms!("fltkernel/nf-fltkernel-fltdeletestreamcontext.md", "Without a context: STATUS_NOT_FOUND.");
    conforms!("fltkernel/nf-fltkernel-fltdeletestreamhandlecontext.md", "Without a context: STATUS_NOT_FOUND.");
    let bed = Bed::new();
    let file = bed.open(BOOT);
    for kind in TYPES {
        let outcome = with_out(|old| bed.delete(kind, file.object, old));
        assert_eq!(outcome, (NtStatus::NOT_FOUND, 0));
    }
    file.release(&bed.setup);
    bed.end();
}

fn delete(bed: &Bed, context: usize) -> Result<(), Rule> {
    bed.setup.call("FltDeleteContext", || ddi!(FltDeleteContext: fn(usize))(context))
}

#[test]
fn a_context_can_be_deleted_by_its_pointer() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletecontext.md",
        "A deleted context is not found any more; the caller's reference stays valid until it is released."
    );
    let bed = Bed::new();
    let context = bed.attach(FLT_INSTANCE_CONTEXT, 0);
    assert_eq!(bed.get(FLT_INSTANCE_CONTEXT, 0), (NtStatus::SUCCESS, context));
    delete(&bed, context).unwrap();
    assert_eq!(bed.get(FLT_INSTANCE_CONTEXT, 0), (NtStatus::NOT_FOUND, 0));
    assert_eq!(cleaned(), NONE);
    delete(&bed, context).expect("another thread may have been faster");
    bed.release(context).unwrap();
    assert_eq!(cleaned(), [context]);
    bed.end();
}

#[test]
fn deleting_by_pointer_needs_a_reference() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdeletecontext.md",
        "The caller of FltDeleteContext must have a reference already."
    );
    let bed = Bed::new();
    let context = bed.attach(FLT_INSTANCE_CONTEXT, 0);
    assert_eq!(delete(&bed, context), Err(Rule::ReferenceUnderflow));
}

#[test]
fn a_context_that_was_never_set_is_not_deleted() {
    conforms!("docs:ifs/deleting-contexts.md", "A context cannot be deleted before it has been set.");
    let bed = Bed::new();
    let context = bed.allocate(FLT_INSTANCE_CONTEXT);
    assert_eq!(delete(&bed, context), Err(Rule::BadState));
}

#[test]
fn a_section_context_is_not_deleted() {
    conforms!("fltkernel/nf-fltkernel-fltdeletecontext.md", "FltDeleteContext is not for section contexts.");
    let bed = Bed::with(&[definition(flt::FLT_SECTION_CONTEXT, 16)]);
    let context = bed.allocate(flt::FLT_SECTION_CONTEXT);
    assert_eq!(delete(&bed, context), Err(Rule::BadState));
}
