//! The edits that let wdk-build compile on a host other than Windows.
//!
//! wdk-build reads the kit's folder from the Windows registry and refuses other hosts. With `WDKContentRoot` given it
//! needs neither, so the *vendored copy* is edited; Windows users build the published crate. Every edit must match
//! exactly once: when the crate moves on, this fails and says so instead of building something untried.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::read_text;

/// The only version that the edits below were written for and tried with.
pub(crate) const VERSION: &str = "0.6.0";

/// A text that must occur in the file exactly `times`, and what takes its place.
struct Edit {
    file: &'static str,
    times: usize,
    expected: &'static str,
    replacement: &'static str,
}

const EDITS: [Edit; 8] = [
    // The `windows` crate does not compile here. Under `target.'cfg(windows)'` it stays in the dependency graph, so
    // that Cargo.lock is the same on both hosts.
    Edit {
        file: "Cargo.toml",
        times: 1,
        expected: "[dependencies.windows]\n",
        replacement: "[target.\"cfg(windows)\".dependencies.windows]\n",
    },
    Edit {
        file: "src/utils.rs",
        times: 1,
        expected: "use windows::{\n",
        replacement: "#[cfg(windows)]\nuse windows::{\n",
    },
    Edit { file: "src/utils.rs", times: 1, expected: "    ffi::{CStr, OsStr},\n", replacement: "    ffi::OsStr,\n" },
    Edit {
        file: "src/utils.rs",
        times: 1,
        expected: "                    CStr::from_bytes_with_nul(",
        replacement: "                    std::ffi::CStr::from_bytes_with_nul(",
    },
    // The registry look-up: the two call sites become one block, so that it can be left out as a whole.
    Edit {
        file: "src/utils.rs",
        times: 1,
        expected: "    // Check HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows Kits\\Installed\n",
        replacement: "    #[cfg(windows)]\n    {\n",
    },
    Edit {
        file: "src/utils.rs",
        times: 1,
        expected: "        return Some(Path::new(path.as_str()).to_path_buf());\n    }\n\n    None\n}\n",
        replacement: "        return Some(Path::new(path.as_str()).to_path_buf());\n    }\n    }\n\n    None\n}\n",
    },
    Edit {
        file: "src/utils.rs",
        times: 1,
        expected: "fn read_registry_key_string_value(\n",
        replacement: "#[cfg(windows)]\nfn read_registry_key_string_value(\n",
    },
    // Links the makefile for cargo-make, which is a Windows affair; the path exists on every host.
    Edit {
        file: "src/cargo_make.rs",
        times: 2,
        expected: "std::os::windows::fs::symlink_file(",
        replacement: "std::os::unix::fs::symlink(",
    },
];

/// The two `compile_error!`s in `set_var` and `remove_var`. Nothing in a build script calls either.
const REFUSAL: Edit = Edit {
    file: "src/utils.rs",
    times: 2,
    expected: "    compile_error!(\n        \"windows-drivers-rs is designed to be run on a Windows host machine in a WDK \
               environment. \\\n         Please build using a Windows target.\"\n    );\n",
    replacement: "    unreachable!(\"only cargo-make tasks change the environment, and they run on Windows\");\n",
};

/// What a change of the edits must change too: the input of the vendored folder's stamp.
pub(crate) const SOURCE: &str = include_str!("wdk_build_edits.rs");

/// Edits the vendored crate in `folder`, and unlists its files so that cargo accepts them.
pub(crate) fn apply(folder: &Path) -> Result<()> {
    check_version(folder)?;
    for edit in EDITS.iter().chain([&REFUSAL]) {
        let path = folder.join(edit.file);
        // The sources were published with CR LF, the manifest with LF; rustc takes either.
        let edited = replace(&read_text(&path)?.replace("\r\n", "\n"), edit)?;
        fs::write(&path, edited).with_context(|| format!("cannot write {}", path.display()))?;
    }
    unlist_files(&folder.join(".cargo-checksum.json"))
}

fn check_version(folder: &Path) -> Result<()> {
    let manifest = read_text(&folder.join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap_or("unknown");
    if version.trim_matches('"') != VERSION {
        bail!(
            "the lock file has wdk-build {version}, and the edits that make it build on Linux are for {VERSION}.\n\
             Keep `wdk-build = \"={VERSION}\"` in Cargo.toml, or bring xtask/src/setup/wdk_build_edits.rs up to date."
        );
    }
    Ok(())
}

fn replace(text: &str, edit: &Edit) -> Result<String> {
    let found = text.matches(edit.expected).count();
    if found != edit.times {
        bail!(
            "wdk-build {VERSION}: {} has {found} times what an edit expects {} times:\n{}\n\
             The crate's text is not that of {VERSION}; see xtask/src/setup/wdk_build_edits.rs.",
            edit.file,
            edit.times,
            edit.expected
        );
    }
    Ok(text.replace(edit.expected, edit.replacement))
}

/// Cargo checks vendored files against digests; with none listed it checks only the package's own.
fn unlist_files(path: &Path) -> Result<()> {
    let mut checksums: serde_json::Value =
        serde_json::from_str(&read_text(path)?).with_context(|| format!("{} is not JSON", path.display()))?;
    checksums["files"] = serde_json::json!({});
    fs::write(path, checksums.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_no_longer_matches_names_the_version() {
        let moved = replace("fn somewhere_else() {}\n", &REFUSAL).map_err(|error| error.to_string());
        assert!(moved.is_err_and(|message| message.contains(VERSION) && message.contains("src/utils.rs")));
    }

    #[test]
    fn an_edit_replaces_every_place_it_expects() -> Result<()> {
        let edit = Edit { file: "f", times: 2, expected: "a", replacement: "b" };
        assert_eq!(replace("a-a", &edit)?, "b-b");
        Ok(())
    }
}
