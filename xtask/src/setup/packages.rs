//! Debian packages that the cross build needs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::apt;
use super::clang;
use super::kit;
use crate::process;

/// Something that must be on the machine.
struct Need {
    /// What it is and what for, for messages.
    what: &'static str,
    /// Whether it is there, however it came there.
    is_present: fn() -> bool,
    /// The package that brings it; apt-cache is asked where the name depends on the release.
    package: fn() -> String,
}

const NEEDS: [Need; 4] = [
    Need {
        what: "libclang (bindgen reads the kernel headers with it)",
        is_present: libclang_is_present,
        package: libclang_package,
    },
    Need {
        what: "mingw-w64's DDK headers (the kernel declarations)",
        is_present: || kit::find_headers().is_ok(),
        package: || "mingw-w64-common".to_owned(),
    },
    Need {
        what: "x86_64-w64-mingw32-gcc (links fwbctl.exe, builds C drivers)",
        is_present: || process::is_installed("x86_64-w64-mingw32-gcc"),
        package: || "gcc-mingw-w64-x86-64".to_owned(),
    },
    Need {
        what: "clang 19 or newer (builds the C drivers of the test suite that use __try)",
        is_present: || clang::find().is_some(),
        package: clang::package,
    },
];

/// Oldest libclang that bindgen accepts for these headers, and the one that is tried most.
const OLDEST_LIBCLANG: u32 = 14;

/// Installs what is missing, all in one apt-get call.
pub(crate) fn install() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_present)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<String> = missing.iter().map(|need| (need.package)()).collect();
    let wanted: Vec<&str> = missing.iter().map(|need| need.what).collect();
    apt::install(&wanted, &packages)
}

/// Looks where clang-sys looks: `LIBCLANG_PATH`, then the folders of Debian's and others' packages.
fn libclang_is_present() -> bool {
    if let Some(path) = env::var_os("LIBCLANG_PATH") {
        return Path::new(&path).exists();
    }
    let mut folders: Vec<PathBuf> = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from).into();
    for parent in ["/usr/lib", "/usr/local"] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            folders.push(entry.path());
            folders.push(entry.path().join("lib"));
        }
    }
    folders.iter().any(|folder| fs::read_dir(folder).into_iter().flatten().flatten().any(|file| is_libclang(&file)))
}

/// `libclang.so`, `libclang.so.1`, `libclang-14.so.1`, but not `libclang-cpp.so`: that one is the C++ library.
fn is_libclang(file: &fs::DirEntry) -> bool {
    let name = file.file_name();
    let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("libclang")) else {
        return false;
    };
    let version = rest.strip_prefix('-').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    (version == ".so" || version.starts_with(".so.") || version.starts_with('.') && version.contains(".so"))
        && file.path().exists()
}

/// The oldest good enough libclang that this release offers: the closest to what is tried most.
///
/// Where that cannot be found out, the name that Debian 12 has: installing it then fails with an explanation.
fn libclang_package() -> String {
    let offered = apt::search("^libclang1-[0-9]+$").unwrap_or_default();
    let version = |name: &String| name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
    offered
        .into_iter()
        .filter(|name| version(name).is_some_and(|version| version >= OLDEST_LIBCLANG))
        .min_by_key(version)
        .unwrap_or_else(|| format!("libclang1-{OLDEST_LIBCLANG}"))
}
