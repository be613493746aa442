//! Measures the handle table of `broker` beside what else could hold handles: in one process, in one run, with the same
//! cases. `cargo xtask bench handles` runs it.
//!
//! Criterion warms up, samples and keeps its reports in `target/criterion`; the rows that this program prints and writes
//! as JSON are the medians of the very same samples. On a machine that does other things as well only
//! the ratios between rows of one run mean anything, so the tables take turns within each case.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

mod cases;
mod contender;
mod heap;
mod report;
mod run;
mod table;
mod tables;
mod thread;

/// What to measure.
#[derive(Parser)]
pub(crate) struct Options {
    /// Write one JSON object per measurement: {table, case, threads, live, mops, `bytes_per_handle`}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Few and short samples, and at most 1,000 live handles: whether it works, not how fast it is.
    #[arg(long)]
    short: bool,
    /// Only these numbers of live handles.
    #[arg(long, value_delimiter = ',', value_name = "N")]
    live: Vec<usize>,
    /// Only these cases.
    #[arg(long = "case", value_enum, value_delimiter = ',', value_name = "CASE")]
    cases: Vec<cases::Case>,
    /// Only these tables, by name.
    #[arg(long = "table", value_delimiter = ',', value_name = "TABLE")]
    tables: Vec<String>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let rows = run::run(&options)?;
    report::print(&rows);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
