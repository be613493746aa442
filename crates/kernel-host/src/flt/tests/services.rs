//! Loading, unloading and finding other filters; routines by name.

use super::*;
use crate::conformance::conforms;

#[test]
fn a_filter_is_found_by_name_in_any_case() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilterfromname.md",
        "A filter is found by name, without regard to case, and comes with a reference."
    );
    conforms!("fltkernel/nf-fltkernel-fltgetfilterfromname.md", "STATUS_FLT_FILTER_NOT_FOUND when no filter matches.");
    let setup = Setup::new();
    let filter = setup.filter();
    let get = ddi!(FltGetFilterFromName: fn(usize, usize) -> NtStatus);
    let get = |name: &str| with_name(name, |name| with_out(|out| setup.run(|| get(name, out)).unwrap()));
    assert_eq!(get("TESTfilter"), (NtStatus::SUCCESS, filter));
    setup.dereference(filter).unwrap();
    assert_eq!(get("Nobody").0, NtStatus::FLT_FILTER_NOT_FOUND);
    setup.unregister(filter).unwrap();
}

#[test]
fn what_is_not_installed_is_not_loaded() {
    conforms!("fltkernel/nf-fltkernel-fltloadfilter.md", "STATUS_OBJECT_NAME_NOT_FOUND without such a filter.");
    conforms!("sdk:fltuser/nf-fltuser-filterload.md", "A service that is not there is a file that is not found.");
    let setup = Setup::new();
    let load = ddi!(FltLoadFilter: fn(usize) -> NtStatus);
    let status = with_name("Nobody", |name| setup.run(|| load(name)));
    assert_eq!(status, Ok(NtStatus::OBJECT_NAME_NOT_FOUND));
    assert_eq!(setup.process().filter_load("Nobody"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
}

#[test]
fn what_is_not_registered_is_not_unloaded() {
    conforms!("fltkernel/nf-fltkernel-fltunloadfilter.md", "STATUS_FLT_FILTER_NOT_FOUND when no filter matches.");
    let setup = Setup::new();
    let unload = ddi!(FltUnloadFilter: fn(usize) -> NtStatus);
    let status = with_name("Nobody", |name| setup.run(|| unload(name)));
    assert_eq!(status, Ok(NtStatus::FLT_FILTER_NOT_FOUND));
    assert_eq!(setup.process().filter_unload("Nobody"), Err(NtStatus::FLT_FILTER_NOT_FOUND));
}

#[test]
fn a_filter_does_not_unload_itself() {
    conforms!("fltkernel/nf-fltkernel-fltunloadfilter.md", "A filter cannot call FltUnloadFilter to unload itself.");
    let setup = Setup::new();
    setup.filter();
    let unload = ddi!(FltUnloadFilter: fn(usize) -> NtStatus);
    let status = with_name("TestFilter", |name| setup.run(|| unload(name)));
    assert_eq!(status, Err(Rule::BadState));
}

#[test]
fn routines_of_the_filter_manager_are_found_by_name() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetroutineaddress.md",
        "The address of a routine of the filter manager, or NULL when the name is not resolved."
    );
    let setup = Setup::new();
    let get = ddi!(FltGetRoutineAddress: fn(usize) -> usize);
    let address = |name: &std::ffi::CStr| setup.run(|| get(name.as_ptr().expose_provenance())).unwrap();
    assert_ne!(address(c"FltGetStreamContext"), 0);
    assert_eq!(address(c"FltGetStreamContext"), address(c"FltGetStreamContext"));
    assert_eq!(address(c"FltNoSuchRoutine"), 0);
    assert_eq!(address(c"ExAllocatePool2"), 0, "that is the kernel's");
}
