//! Names that Windows exports, whether or not this host implements them.
//!
//! A driver may import a routine that it never calls in a given test. Such a driver can be loaded when the name is at least
//! known; the call, should it come, stops the machine with the name. An unknown name is a typing error and fails the load.

/// One name per line, sorted; taken from the import libraries that mingw-w64 publishes for the kernel.
const LISTS: [(&str, &str); 3] = [
    ("ntoskrnl.exe", include_str!("known/ntoskrnl.txt")),
    ("fltmgr.sys", include_str!("known/fltmgr.txt")),
    ("ndis.sys", include_str!("known/ndis.txt")),
];

/// The module and name in this list's own spelling, if it is there.
pub(super) fn known(module: &str, name: &str) -> Option<(&'static str, &'static str)> {
    let module = if module.eq_ignore_ascii_case("hal.dll") { "ntoskrnl.exe" } else { module };
    let (module, list) = LISTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(module))?;
    list.lines().find(|line| *line == name).map(|name| (*module, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_whatever_the_spelling_of_the_module() {
        assert_eq!(known("NTOSKRNL.exe", "KeBugCheckEx"), Some(("ntoskrnl.exe", "KeBugCheckEx")));
        assert!(known("FLTMGR.SYS", "FltRegisterFilter").is_some());
        assert!(known("ndis.sys", "NdisOpenFile").is_some());
        assert!(known("HAL.dll", "KeStallExecutionProcessor").is_some());
    }

    #[test]
    fn a_name_of_another_module_is_not_found() {
        assert_eq!(known("ntoskrnl.exe", "FltRegisterFilter"), None);
        assert_eq!(known("msvcrt.dll", "memcpy"), None);
    }
}
