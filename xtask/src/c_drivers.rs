//! Drivers written in C: three models and the mutants, built with clang or MinGW's gcc into `target/driver-c/`.
//!
//! They are there for kernel-host's sake: what other compilers make of a driver has to load, unwind and be checked like
//! what rustc makes. `tests/drivers/README.md` says how the folder is laid out.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::arch::Names;
use crate::inf;
use crate::setup::exports;
use crate::workspace::{Workspace, read_text, write_atomically};

mod compiler;
mod sources;

use compiler::Tools;
use sources::Image;

/// Compilers at work at the same time.
const JOBS: usize = 2;

/// Builds what is not up to date, and returns the folder with the results.
///
/// # Errors
/// The compiler's own words, for the first source that it refuses.
pub(crate) fn build(workspace: &Workspace, names: &Names) -> Result<PathBuf> {
    let output = workspace.generated("driver-c");
    let folder = workspace.root.join("tests/drivers");
    let libraries = output.join("lib");
    write_libraries(&libraries, names)?;
    let tools = Tools::locate(&folder, &libraries)?;
    let images = sources::images(&folder)?;
    copy_infs(&folder, &output, names)?;
    let queue: Mutex<VecDeque<&Image>> = Mutex::new(images.iter().collect());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(image) = next() {
                tools.make(image, &output).with_context(|| format!("{} does not build", image.name))?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..JOBS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(output)
}

/// Makes import libraries for both linkers: GNU ld makes nothing usable of those that lld reads.
fn write_libraries(folder: &Path, names: &Names) -> Result<()> {
    for module in exports::MODULES.iter().chain(&exports::FRAMEWORKS) {
        let definition = folder.join(module.library).with_extension("def");
        let text = module.definition();
        if fs::read(&definition).is_ok_and(|present| present == text.as_bytes()) {
            continue;
        }
        module.write_library(folder, names.machine)?;
        let pending = definition.with_extension("def.new");
        write_atomically(&pending, text.as_bytes())?;
        compiler::make_gnu_library(&pending, &definition.with_extension("a"))?;
        // Last: an interrupted step must leave no sign of being done.
        fs::rename(&pending, &definition).with_context(|| format!("cannot write {}", definition.display()))?;
    }
    Ok(())
}

/// Makes an .inf of each .inx, under the same name.
fn copy_infs(folder: &Path, output: &Path, names: &Names) -> Result<()> {
    for source in sources::files(folder, "inx")? {
        let text = inf::stamp(&read_text(&source)?, names.inf, env!("CARGO_PKG_VERSION"))
            .with_context(|| format!("cannot make an INF of {}", source.display()))?;
        let inf = output.join(source.file_name().unwrap_or_default()).with_extension("inf");
        // Left alone when nothing changed: tests of another run may be reading it.
        if fs::read(&inf).is_ok_and(|present| present == text.as_bytes()) {
            continue;
        }
        write_atomically(&inf, text.as_bytes())?;
    }
    Ok(())
}
