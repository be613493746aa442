//! Rules of this repository that no tool knows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace::read_text;

/// A source file longer than this holds more than one thing.
const LONGEST_FILE_LINES: usize = 600;

/// Checks the manifests and Rust sources below `root`, and reports everything found at once.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut files = Vec::new();
    list_files(root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for path in &files {
        let text = read_text(path)?;
        let shown = path.strip_prefix(root).unwrap_or(path).display();
        let found = if path.extension().is_some_and(|extension| extension == "rs") {
            check_source(&text)
        } else {
            check_manifest(&text)
        };
        findings.extend(found.into_iter().map(|(line, what)| format!("{shown}:{line}: {what}")));
    }
    if !findings.is_empty() {
        bail!("{} findings:\n{}", findings.len(), findings.join("\n"));
    }
    Ok(())
}

/// A line number, counted from 1, and what is wrong there.
type Finding = (usize, String);

/// Every package takes the workspace's lints, which deny unsafe code: without this line the compiler would not ask for
/// the attribute that [`check_source`] looks at.
fn check_manifest(text: &str) -> Vec<Finding> {
    let is_package = text.lines().any(|line| line.trim() == "[package]");
    let mut after_lints = text.lines().skip_while(|line| line.trim() != "[lints]").skip(1);
    if is_package && after_lints.next().map(str::trim) != Some("workspace = true") {
        return vec![(1, "the package does not take the workspace's lints ([lints] workspace = true)".to_owned())];
    }
    Vec::new()
}

fn check_source(text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_FILE_LINES {
        findings.push((lines, format!("{lines} lines; a file has at most {LONGEST_FILE_LINES}")));
    }
    // rustfmt may put an attribute's arguments on lines of their own, so the search is not by line.
    for (at, lint) in text.match_indices("(unsafe_code").chain(text.match_indices("(\n    unsafe_code")) {
        let before = text.get(..at).unwrap_or_default();
        let after = text.get(at + lint.len()..).unwrap_or_default();
        let line = before.lines().count();
        let level = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        let reason = after.trim_start_matches([',', ' ', '\n']).starts_with("reason = \"");
        match level {
            "expect" if reason => {}
            "expect" => findings.push((line, "unsafe code is expected here without a reason".to_owned())),
            "allow" | "warn" => {
                findings.push((line, format!("{level} hides unsafe code; expect it, with a reason")));
            }
            _ => {}
        }
    }
    findings
}

/// Manifests and Rust sources, without what is generated and what version control keeps.
fn list_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                list_files(&path, found)?;
            }
        } else if name == "Cargo.toml" || path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The attribute, spelled so that this file does not contain it.
    fn attribute(level: &str, rest: &str) -> String {
        format!("#![{level}{}{rest})]\n", "(unsafe_code")
    }

    #[test]
    fn expecting_unsafe_code_needs_a_reason() {
        assert!(check_source(&attribute("expect", ", reason = \"maps pages\"")).is_empty());
        assert_eq!(check_source(&attribute("expect", "")).len(), 1);
    }

    #[test]
    fn allowing_unsafe_code_is_refused_even_with_a_reason() {
        assert_eq!(check_source(&attribute("allow", ", reason = \"maps pages\"")).len(), 1);
        assert!(check_source(&attribute("forbid", "")).is_empty());
    }

    #[test]
    fn an_overlong_file_is_named() {
        let text = "\n".repeat(LONGEST_FILE_LINES + 1);
        assert_eq!(check_source(&text).len(), 1);
    }

    #[test]
    fn a_package_without_the_workspace_lints_is_refused() {
        assert!(check_manifest("[package]\n[lints]\nworkspace = true\n").is_empty());
        assert_eq!(check_manifest("[package]\n").len(), 1);
    }
}
