//! FLT_CONTEXT_REGISTRATION: what may stand in it.

use super::*;

const INVALID: NtStatus = NtStatus::FLT_INVALID_CONTEXT_REGISTRATION;

/// The status of registering these definitions.
fn register(definitions: &[FLT_CONTEXT_REGISTRATION]) -> NtStatus {
    let list = [definitions, &[FLT_CONTEXT_REGISTRATION::END]].concat();
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { ContextRegistration: list.as_ptr(), ..FLT_REGISTRATION::EMPTY };
    setup.register(&registration).unwrap().0
}

unsafe extern "efiapi" fn allocate(_: i32, _: usize, _: u16) -> PVOID {
    std::ptr::null_mut()
}

#[test]
fn every_documented_type_can_be_registered() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "ContextType is one of the seven context types; anything else is refused."
    );
    for kind in [1, 2, 4, 8, 0x10, 0x20, 0x40] {
        assert_eq!(register(&[definition(kind, 8)]), NtStatus::SUCCESS, "{kind:#x}");
    }
    for kind in [0, 3, 0x80, 0x7F] {
        assert_eq!(register(&[definition(kind, 8)]), INVALID, "{kind:#x}");
    }
}

#[test]
fn a_context_without_a_tag_is_refused() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "PoolTag is required and not zero when there is no ContextAllocateCallback."
    );
    let untagged = FLT_CONTEXT_REGISTRATION { PoolTag: 0, ..definition(FLT_STREAM_CONTEXT, 8) };
    assert_eq!(register(&[untagged]), INVALID);
}

#[test]
fn an_own_allocator_makes_size_and_tag_meaningless() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "With a ContextAllocateCallback the Size and PoolTag members are ignored."
    );
    let own = FLT_CONTEXT_REGISTRATION {
        PoolTag: 0,
        Size: 0x10_0000,
        ContextAllocateCallback: Some(allocate),
        ..definition(FLT_STREAM_CONTEXT, 8)
    };
    assert_eq!(register(&[own]), NtStatus::SUCCESS);
}

#[test]
fn an_own_allocator_stands_alone_for_its_type() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "A definition with a ContextAllocateCallback is the only one of its type."
    );
    let own = FLT_CONTEXT_REGISTRATION { ContextAllocateCallback: Some(allocate), ..definition(FLT_STREAM_CONTEXT, 8) };
    assert_eq!(register(&[own, definition(FLT_STREAM_CONTEXT, 16)]), INVALID);
    assert_eq!(register(&[own, definition(FLT_FILE_CONTEXT, 16)]), NtStatus::SUCCESS);
}

#[test]
fn of_identical_definitions_only_the_first_counts() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "Of two or more identical definitions only the first is used."
    );
    assert_eq!(register(&[definition(FLT_STREAM_CONTEXT, 8); 5]), NtStatus::SUCCESS);
    assert_eq!(register(&[definition(FLT_STREAM_CONTEXT, FLT_VARIABLE_SIZED_CONTEXTS); 2]), NtStatus::SUCCESS);
}

#[test]
fn a_type_has_one_variable_size() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "A type has at most one definition with FLT_VARIABLE_SIZED_CONTEXTS."
    );
    let variable = definition(FLT_STREAM_CONTEXT, FLT_VARIABLE_SIZED_CONTEXTS);
    let other = FLT_CONTEXT_REGISTRATION { PoolTag: 0x31, ..variable };
    assert_eq!(register(&[variable, other]), INVALID);
}

#[test]
fn a_type_has_at_most_three_fixed_sizes() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_context_registration.md",
        "A type has at most three definitions of a fixed size."
    );
    conforms!(
        "docs:ifs/registering-context-types.md",
        "A type can have three fixed sizes and a variable one beside them, in any order."
    );
    let of = |size| definition(FLT_STREAM_CONTEXT, size);
    assert_eq!(register(&[of(8), of(FLT_VARIABLE_SIZED_CONTEXTS), of(16), of(24)]), NtStatus::SUCCESS);
    assert_eq!(register(&[of(8), of(16), of(24), of(32)]), INVALID);
}

#[test]
fn a_size_is_between_nothing_and_64_kib() {
    conforms!("fltkernel/ns-fltkernel-_flt_context_registration.md", "Zero is a valid Size.");
    conforms!("docs:ifs/registering-context-types.md", "A context has at most MAXUSHORT bytes.");
    assert_eq!(register(&[definition(FLT_STREAM_CONTEXT, 0)]), NtStatus::SUCCESS);
    assert_eq!(register(&[definition(FLT_STREAM_CONTEXT, 0xFFFF)]), NtStatus::SUCCESS);
    assert_eq!(register(&[definition(FLT_STREAM_CONTEXT, 0x1_0000)]), INVALID);
}

#[test]
fn the_reserved_member_is_null() {
    conforms!("fltkernel/ns-fltkernel-_flt_context_registration.md", "Reserved1 is NULL.");
    let reserved =
        FLT_CONTEXT_REGISTRATION { Reserved1: std::ptr::dangling_mut(), ..definition(FLT_STREAM_CONTEXT, 8) };
    assert_eq!(register(&[reserved]), INVALID);
}

#[test]
fn an_array_without_an_end_is_refused() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "The last element of ContextRegistration is {FLT_CONTEXT_END}."
    );
    let setup = Setup::new();
    let endless = vec![definition(FLT_STREAM_CONTEXT, 8); 300];
    let registration = FLT_REGISTRATION { ContextRegistration: endless.as_ptr(), ..FLT_REGISTRATION::EMPTY };
    assert_eq!(setup.register(&registration).unwrap().0, INVALID);
}
