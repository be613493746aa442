//! The documented exports of the modules that drivers may import from: the lists that import libraries are made of.

use std::collections::BTreeSet;

const LISTS: [(&str, &str); 3] = [
    ("ntoskrnl.exe", include_str!("../../../xtask/exports/ntoskrnl.exe.txt")),
    ("fltmgr.sys", include_str!("../../../xtask/exports/fltmgr.sys.txt")),
    ("ndis.sys", include_str!("../../../xtask/exports/ndis.sys.txt")),
];

/// Names that a module exports, or `None` for a module that no driver here may import from.
pub(crate) fn of(module: &str) -> Option<BTreeSet<&'static str>> {
    let (_, list) = LISTS.iter().find(|(name, _)| *name == module)?;
    Some(list.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).collect())
}

#[test]
fn lists_hold_what_the_drivers_are_built_on() {
    assert!(of("ntoskrnl.exe").is_some_and(|names| names.contains("ExAllocatePool2")));
    assert!(of("ntoskrnl.exe").is_some_and(|names| names.contains("IoFileObjectType")));
    assert!(of("fltmgr.sys").is_some_and(|names| names.contains("FltCreateFileEx")));
    assert!(of("ndis.sys").is_some_and(|names| names.contains("NdisOpenFile")));
    assert!(of("win32k.sys").is_none());
}
