//! Which documented rule a test shows, so that docs/conformance.md can be written from what ran.
//!
//! A test says so in its first line:
//!
//! ```ignore
//! conforms!("fltkernel/nf-fltkernel-fltclose.md", "FltClose releases the handle, not the file object.");
//! ```
//!
//! The page is a path below `wdk-ddi-src/content/` of windows-driver-docs-ddi, or `docs:` and a path below
//! `windows-driver-docs-pr/` of windows-driver-docs, or `sdk:` and one below `sdk-api-src/content/` of sdk-api. The rule is one
//! sentence in our words. One test may show several rules, each by a `conforms!` of its own.
//!
//! With `KERNEL_HOST_CONFORMANCE` naming a folder (`cargo xtask test` does that) each test adds its rules and how
//! they ended to a file there, one JSON object a line; `cargo xtask conformance` makes the page.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// A rule under test; says how the test ended when it goes.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) page: &'static str,
    pub(crate) text: &'static str,
    /// Path of a function inside the test.
    pub(crate) inside: &'static str,
}

impl Drop for Rule {
    fn drop(&mut self) {
        if let Some(folder) = std::env::var_os("KERNEL_HOST_CONFORMANCE") {
            self.write(folder.as_ref(), std::thread::panicking());
        }
    }
}

impl Rule {
    fn write(&self, folder: &Path, broken: bool) {
        let test = self.inside.strip_suffix("::here").unwrap_or(self.inside);
        let line = serde_json::json!({ "page": self.page, "rule": self.text, "test": test, "kept": !broken });
        let file = folder.join(format!("{}.jsonl", std::process::id()));
        // One write of a whole line: lines of tests on other threads stay whole too.
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&file)
            .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("{}: {error}; the conformance page will lack {test}", file.display());
        }
    }
}

/// Says which documented rule the test shows. To be called at the start of a test's own function.
macro_rules! conforms {
    ($page:literal, $text:literal) => {
        let _rule = {
            fn here() {}
            $crate::conformance::Rule { page: $page, text: $text, inside: ::std::any::type_name_of_val(&here) }
        };
    };
}
pub(crate) use conforms;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_its_test_and_says_whether_it_was_kept() {
        fn here() {}
        let folder = tempfile::tempdir().unwrap();
        let rule = Rule { page: "a.md", text: "One.", inside: std::any::type_name_of_val(&here) };
        rule.write(folder.path(), true);
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let line: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let test = "kernel_host::conformance::tests::a_rule_names_its_test_and_says_whether_it_was_kept";
        assert_eq!(line, serde_json::json!({ "page": "a.md", "rule": "One.", "test": test, "kept": false }));
    }
}
