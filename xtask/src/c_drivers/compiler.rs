//! The two compilers, and how each makes a driver.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::sources::{self, Image};
use crate::process;
use crate::setup::stamp::Stamp;
use crate::setup::{clang, kit, toolchain};

/// The first line of a source for MinGW's gcc; clang builds all others.
const MINGW_MARK: &str = "/* Built with MinGW's gcc. */";

/// MinGW's gcc, which is also the linker for what it compiled.
const GCC: &str = "x86_64-w64-mingw32-gcc";

/// What both compilers are told.
///
/// No call is inlined or turned into a jump: a report then shows every function that the source has. A kernel's interrupts
/// use the stack below the stack pointer, so nothing may be kept there.
const COMMON: [&str; 11] = [
    "-c",
    "-std=gnu11",
    "-O1",
    "-ffreestanding",
    "-fno-inline",
    "-fno-optimize-sibling-calls",
    "-fno-stack-protector",
    "-mno-red-zone",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
];

/// Clang in Microsoft's ABI, which has `__try`. Loads and stores inside of it can raise, not only calls.
const CLANG: [&str; 7] = [
    "--target=x86_64-pc-windows-msvc",
    "-fms-extensions",
    "-fasync-exceptions",
    "-nostdinc",
    "-g",
    "-gcodeview",
    // The DDK headers say SECTION-like attributes that mean something to Microsoft's compiler only.
    "-Wno-ignored-attributes",
];

/// How GNU ld makes a driver: no C library, no exports, relocatable.
const GNU_LINK: [&str; 9] = [
    "-shared",
    "-nostdlib",
    "-Wl,--subsystem,native",
    "-Wl,--entry,DriverEntry",
    "-Wl,--exclude-all-symbols",
    "-Wl,--image-base,0x140000000",
    "-Wl,--dynamicbase",
    "-Wl,--nxcompat",
    "-Wl,--no-insert-timestamp",
];

/// How lld makes one.
const LLD_LINK: [&str; 8] =
    ["-flavor", "link", "/nologo", "/driver", "/release", "/debug", "/subsystem:native", "/entry:DriverEntry"];

/// Compilers, linkers, headers and libraries, as found.
pub(super) struct Tools {
    clang: PathBuf,
    lld: PathBuf,
    /// `-isystem` arguments common to both compilers.
    includes: Vec<OsString>,
    /// Clang's own headers: `stdarg.h` and the like.
    clang_headers: PathBuf,
    /// Import libraries without their extension, which depends on the linker.
    libraries: Vec<PathBuf>,
    /// Everything that all images are made from: own headers, versions of the compilers.
    inputs: Vec<Vec<u8>>,
}

impl Tools {
    /// Finds the tools, which set-up has installed. `folder` holds the sources, `libraries` the import libraries.
    pub(super) fn locate(folder: &Path, libraries: &Path) -> Result<Self> {
        let clang = clang::find().context("clang is not installed")?;
        let resources = process::output(Command::new(&clang).arg("-print-resource-dir"))?;
        let headers = kit::find_headers()?;
        let own = folder.join("include");
        let mut inputs = Vec::new();
        for compiler in [clang.as_path(), Path::new(GCC)] {
            inputs.push(process::output(Command::new(compiler).arg("--version"))?.into_bytes());
        }
        for header in sources::files(folder, "h")? {
            inputs.push(fs::read(&header).with_context(|| format!("cannot read {}", header.display()))?);
        }
        let includes = [own, folder.join("mutants"), headers.join("ddk"), headers];
        Ok(Self {
            clang,
            lld: toolchain::linker()?,
            includes: includes.into_iter().flat_map(|folder| ["-isystem".into(), folder.into_os_string()]).collect(),
            clang_headers: Path::new(resources.trim_end()).join("include"),
            libraries: ["ntoskrnl", "hal", "fltmgr", "ndis"].map(|name| libraries.join(name)).into(),
            inputs,
        })
    }

    /// Compiles and links one image into `output`, unless it is there and made from the same.
    pub(super) fn make(&self, image: &Image, output: &Path) -> Result<()> {
        let object = output.join("obj").join(&image.name).with_extension("obj");
        let sys = output.join(&image.name).with_extension("sys");
        let is_mingw = image.text.starts_with(MINGW_MARK);
        let mut compile = if is_mingw { self.gcc() } else { self.clang() };
        if let Some(mutant) = &image.mutant {
            // What a mistake leaves out may have been the only use of something.
            compile.arg(format!("-DMUTANT_{mutant}")).args(["-Wno-unused", "-Wno-infinite-recursion"]);
        }
        compile.arg(&image.source).arg("-o").arg(&object);
        let link = if is_mingw { self.gnu_link(&object, &sys) } else { self.lld_link(&object, &sys) };

        let commands = format!("{compile:?}\n{link:?}");
        let mut inputs = vec![commands.as_bytes(), image.text.as_bytes()];
        inputs.extend(self.inputs.iter().map(Vec::as_slice));
        let stamp = Stamp::new(&output.join("obj").join(&image.name), &inputs);
        if sys.is_file() && stamp.is_current() {
            return Ok(());
        }
        let stamps = output.join("obj").join(&image.name);
        fs::create_dir_all(&stamps).with_context(|| format!("cannot create {}", stamps.display()))?;
        run(compile)?;
        run(link)?;
        stamp.write()
    }

    fn clang(&self) -> Command {
        let mut command = Command::new(&self.clang);
        // Clang's own headers come after ours, which replace one of them, and before mingw-w64's.
        let (own, theirs) = self.includes.split_at(4);
        command.args(COMMON).args(CLANG).args(own).arg("-isystem").arg(&self.clang_headers).args(theirs);
        command
    }

    fn gcc(&self) -> Command {
        let mut command = Command::new(GCC);
        command.args(COMMON).args(&self.includes);
        command
    }

    fn lld_link(&self, object: &Path, sys: &Path) -> Command {
        let mut command = Command::new(&self.lld);
        let mut out = OsString::from("/out:");
        out.push(sys);
        let mut pdb = OsString::from("/pdb:");
        pdb.push(sys.with_extension("pdb"));
        command.args(LLD_LINK).arg("/nodefaultlib").arg(out).arg(pdb).arg(object);
        command.args(self.libraries.iter().map(|library| library.with_extension("lib")));
        command
    }

    /// Symbols stay in the image: that is where MinGW's debuggers, and kernel-host, look for them.
    fn gnu_link(&self, object: &Path, sys: &Path) -> Command {
        let mut command = Command::new(GCC);
        command.args(GNU_LINK).arg(object).arg("-o").arg(sys);
        command.args(self.libraries.iter().map(|library| library.with_extension("a")));
        command
    }
}

/// Makes an import library for GNU ld of a module-definition file.
pub(super) fn make_gnu_library(definition: &Path, library: &Path) -> Result<()> {
    let mut command = Command::new("x86_64-w64-mingw32-dlltool");
    command.arg("-d").arg(definition).arg("-l").arg(library);
    run(command)
}

/// Runs a compiler; its warnings are shown, its errors returned.
fn run(mut command: Command) -> Result<()> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    let mut said = String::from_utf8_lossy(&done.stderr).into_owned();
    said.push_str(&String::from_utf8_lossy(&done.stdout));
    if !done.status.success() {
        bail!("{said}\n{command:?} failed ({})", done.status);
    }
    if !said.trim().is_empty() {
        eprintln!("{}", said.trim_end());
    }
    Ok(())
}
