//! A kit folder that wdk-build accepts in place of the Windows Driver Kit's.
//!
//! wdk-build wants `Include/<version>/{km/crt,km,shared}` and `Lib/<version>/km/<arch>` below `WDKContentRoot`. Here
//! `shared` is mingw-w64's include folder and `km` a copy of its `ddk` folder. `km/crt`, which comes first in the search
//! order, holds the stand-ins of [`STAND_INS`]; the libraries come from [`super::exports`].

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::exports::{self, MODULES};
use super::stamp::Stamp;
use crate::arch::{self, Names};
use crate::workspace::{Workspace, write_atomically};

/// The kit version that the folders claim: the newest that wdk-build 0.6.0 knows layouts for.
const VERSION: &str = "10.0.26100.0";

/// Where distributions put mingw-w64's headers.
const HEADER_FOLDERS: [&str; 3] = [
    "/usr/share/mingw-w64/include",
    "/usr/x86_64-w64-mingw32/include",
    "/usr/x86_64-w64-mingw32/sys-root/mingw/include",
];

/// Headers that replace or wrap the ones found later in the search order.
///
/// The intrinsics headers are empty: clang's own fail under the flags that wdk-build passes, mingw's are written for
/// gcc, and bindgen needs no inline function.
const STAND_INS: [(&str, &str); 8] = [
    ("emmintrin.h", ""),
    ("immintrin.h", ""),
    ("intrin.h", ""),
    ("mmintrin.h", ""),
    ("x86intrin.h", ""),
    ("xmmintrin.h", ""),
    ("ntdef.h", include_str!("kit/ntdef.h")),
    ("ntstrsafe.h", include_str!("kit/ntstrsafe.h")),
];

/// What bindgen must tell clang beside what wdk-build says. From version 16 on, a call without a declaration is an error
/// rather than a warning, and inline functions of the headers call the intrinsics that the stand-ins leave undeclared.
pub(crate) const CLANG_ARGUMENTS: &str = "-Wno-implicit-function-declaration";

/// The folder to hand to wdk-build as `WDKContentRoot`.
pub(crate) fn root(workspace: &Workspace) -> PathBuf {
    workspace.generated("kit")
}

/// Generates the kit unless it is there already, made from the same headers, lists and stand-ins.
pub(crate) fn generate(workspace: &Workspace) -> Result<()> {
    let headers = find_headers()?;
    let kit = root(workspace);
    let stamp = Stamp::new(&kit, &inputs(&headers)?);
    if stamp.is_current() {
        return Ok(());
    }
    eprintln!("setup: generating {} from {}", kit.display(), headers.display());
    if kit.exists() {
        fs::remove_dir_all(&kit).with_context(|| format!("cannot remove {}", kit.display()))?;
    }
    write_headers(&kit.join("Include").join(VERSION), &headers)?;
    for names in arch::BUILT {
        write_libraries(&kit.join("Lib").join(VERSION).join("km").join(names.kit), names)?;
    }
    stamp.write()
}

/// mingw-w64's include folder, the one with the DDK below it.
pub(crate) fn find_headers() -> Result<PathBuf> {
    let found = HEADER_FOLDERS.iter().map(Path::new).find(|folder| folder.join("ddk/ntifs.h").is_file());
    let Some(found) = found else {
        bail!(
            "mingw-w64's DDK headers are in none of {}; on Debian they come with: apt-get install mingw-w64-common",
            HEADER_FOLDERS.join(", ")
        );
    };
    Ok(found.to_owned())
}

/// What the kit is made from. Of the headers, `_mingw_mac.h` is taken: it holds mingw-w64's version.
fn inputs(headers: &Path) -> Result<Vec<&'static [u8]>> {
    let version_header = headers.join("_mingw_mac.h");
    let version = fs::read(&version_header).with_context(|| format!("cannot read {}", version_header.display()))?;
    // Leaked once per run of a short-lived program, so that all inputs can be borrowed alike.
    let version: &'static [u8] = version.leak();
    let mut inputs = vec![version, VERSION.as_bytes()];
    inputs.extend(arch::BUILT.iter().map(|names| names.kit.as_bytes()));
    inputs.extend(MODULES.iter().map(|module| module.list.as_bytes()));
    inputs.extend(STAND_INS.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]));
    Ok(inputs)
}

fn write_headers(include: &Path, headers: &Path) -> Result<()> {
    let km = include.join("km");
    let crt = km.join("crt");
    fs::create_dir_all(&crt).with_context(|| format!("cannot create {}", crt.display()))?;
    for (name, text) in STAND_INS {
        write_atomically(&crt.join(name), text.as_bytes())?;
    }
    let ddk = headers.join("ddk");
    for entry in fs::read_dir(&ddk).with_context(|| format!("cannot list {}", ddk.display()))? {
        let header = entry?.path();
        if let Some(name) = header.file_name().filter(|_| header.is_file()) {
            fs::copy(&header, km.join(name)).with_context(|| format!("cannot copy {}", header.display()))?;
        }
    }
    link_folder(headers, &include.join("shared"))
}

/// The shared headers are over a thousand files that nothing is changed in, so they are linked rather than copied.
#[cfg(unix)]
fn link_folder(target: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, link).with_context(|| format!("cannot link {}", link.display()))
}

/// Windows has the real kit, and `setup::run` has said so by now.
#[cfg(not(unix))]
fn link_folder(_target: &Path, link: &Path) -> Result<()> {
    bail!("cannot link {}: this host has no symbolic links to folders", link.display())
}

fn write_libraries(folder: &Path, names: &Names) -> Result<()> {
    for module in &MODULES {
        module.write_library(folder, names.machine)?;
    }
    // Microsoft's holds the check of stack cookies; rustc makes none.
    exports::write_empty_library(&folder.join("BufferOverflowFastFailK.lib"))
}
