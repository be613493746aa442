//! `kernel-host check`: a driver file's facts and imports.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use kernel_host::image::{ImageReport, ImportKind};

/// Arguments of `kernel-host check`. Exits with 1 when a name is imported that nothing exports, with 2 when
/// one is imported that this host knows but does not implement.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The driver image.
    file: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let report = ImageReport::of_file(&self.file).with_context(|| self.file.display().to_string())?;
        if self.json {
            show(&(serde_json::to_string_pretty(&report)? + "\n"))?;
        } else {
            show(&text_of(&report)?)?;
        }
        Ok(if report.imports_of(ImportKind::Unknown).next().is_some() {
            ExitCode::from(1)
        } else if report.imports_of(ImportKind::Known).next().is_some() {
            ExitCode::from(2)
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// Writes to the standard output; whoever reads it may have seen enough (`| head`).
fn show(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn text_of(report: &ImageReport) -> Result<String, std::fmt::Error> {
    let yes = |flag| if flag { "yes" } else { "no" };
    let mut text = String::new();
    writeln!(text, "PE32+ for x64, {} bytes mapped, entry point at {:#x}", report.image_size, report.entry)?;
    writeln!(
        text,
        "native: {}, DYNAMIC_BASE: {}, NX_COMPAT: {}, FORCE_INTEGRITY: {}",
        yes(report.native),
        yes(report.dynamic_base),
        yes(report.nx_compatible),
        yes(report.force_integrity)
    )?;
    writeln!(text, "{} functions in .pdata, {} relocations", report.functions, report.relocations)?;
    if let Some(pdb) = &report.pdb {
        writeln!(text, "symbols: {pdb}")?;
    }
    for section in &report.sections {
        let write = if section.writable { 'w' } else { '-' };
        let execute = if section.executable { 'x' } else { '-' };
        writeln!(text, "  {:<8} {:#8x} {:>8} bytes r{write}{execute}", section.name, section.offset, section.size)?;
    }
    for (kind, title) in [
        (ImportKind::Implemented, "implemented"),
        (ImportKind::Known, "known, not implemented: calling one stops the machine"),
        (ImportKind::Unknown, "unknown: the driver cannot be loaded"),
    ] {
        let imports: Vec<_> = report.imports_of(kind).collect();
        if imports.is_empty() {
            continue;
        }
        writeln!(text, "{} imports {title}", imports.len())?;
        for import in imports {
            writeln!(text, "  {}!{}", import.module, import.name)?;
        }
    }
    Ok(text)
}
