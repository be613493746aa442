//! What running a driver in kernel-host costs, beside what Linux does without it; in one process and one run.
//!
//! `cargo xtask bench host [--json FILE]`. Ours and the baseline take turns, in many short samples; the fastest of each
//! counts, since everything else on the machine can only make a sample slower.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use fwbroker_tests::Client;
use fwbroker_tests::client::hello_bytes;
use fwbroker_tests::drivers::driver_dir;
use kernel_host::{Machine, MachineBuilder, OpenOptions};
use serde::Serialize;
use tempfile::TempDir;

/// Bytes of one file read.
const READ: usize = 4096;

#[derive(Parser)]
struct Options {
    /// Write one JSON object per measurement: {case, `ours_ns`, `baseline_ns`, ratio}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Samples of each measurement.
    #[arg(long, default_value_t = 200)]
    samples: u32,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    case: String,
    /// Given by `cargo bench`; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One measurement: the fastest sample of ours and of the baseline, per operation.
#[derive(Debug, Serialize)]
struct Row {
    case: &'static str,
    ours_ns: f64,
    baseline_ns: f64,
    ratio: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let wanted = |case: &str| case.contains(&options.case);
    let mut rows = Vec::new();
    if wanted("machine-start") {
        rows.push(machine_start(options.samples)?);
    }
    for (case, traced) in [("read-4k", false), ("read-4k-traced", true)] {
        if wanted(case) {
            rows.push(intercepted_read(case, traced, options.samples)?);
        }
    }
    for (case, traced) in [("port-round-trip", false), ("port-round-trip-traced", true)] {
        if wanted(case) {
            rows.push(port_round_trip(case, traced, options.samples)?);
        }
    }
    println!("| {:<22} | {:>12} | {:>12} | {:>6} |", "case", "ours ns", "baseline ns", "ratio");
    println!("|:{:-<23}|{:->13}:|{:->13}:|{:->7}:|", "", "", "", "");
    for Row { case, ours_ns, baseline_ns, ratio } in &rows {
        println!("| {case:<22} | {ours_ns:>12.0} | {baseline_ns:>12.0} | {ratio:>6.2} |");
    }
    if let Some(path) = options.json {
        let mut text = String::new();
        for row in &rows {
            text += &serde_json::to_string(row)?;
            text.push('\n');
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// From nothing to a machine with a volume and a minifilter that filters; the baseline is a Linux process that starts and ends.
fn machine_start(samples: u32) -> Result<Row> {
    let disk = disk()?;
    let driver = driver_dir()?.join("passthru.sys");
    compare(
        "machine-start",
        samples.min(50),
        1,
        || {
            let machine = Machine::builder().volume("C:", disk.path()).build()?;
            let service = machine.install_service(&driver, None)?;
            machine.load_driver(&service)?;
            black_box(machine.unload_driver(&service, false)?);
            Ok(())
        },
        || {
            let status = Command::new("true").stdin(Stdio::null()).status().context("cannot start `true`")?;
            anyhow::ensure!(status.success(), "`true` failed");
            Ok(())
        },
    )
}

/// A program reads 4 KiB of a file through a filter's pre- and post-operation callbacks; the baseline is `pread` of the same
/// bytes. Either has a buffer that it keeps.
fn intercepted_read(case: &'static str, traced: bool, samples: u32) -> Result<Row> {
    let disk = disk()?;
    let machine = builder(traced).volume("C:", disk.path()).build()?;
    let service = machine.install_service(&driver_dir()?.join("passthru.sys"), None)?;
    machine.load_driver(&service)?;
    let program = machine.process("reader.exe").start()?;
    let file = program.create_file(r"\??\C:\Windows\data.bin", &OpenOptions::new())?;
    let host = File::open(disk.path().join("Windows/data.bin"))?;
    let (mut bytes, mut buffer) = (vec![0; READ], vec![0; READ]);
    let row = compare(
        case,
        samples,
        500,
        || {
            anyhow::ensure!(file.read_into(0, black_box(&mut bytes))? == READ, "a short read");
            Ok(())
        },
        || host.read_exact_at(black_box(&mut buffer), 0).context("the host file"),
    )?;
    drop(file);
    machine.unload_driver(&service, false)?;
    Ok(row)
}

/// A program sends the shortest request to fwbroker.sys and has the reply; the baseline is as many bytes there and back over a
/// Unix socket to another thread.
fn port_round_trip(case: &'static str, traced: bool, samples: u32) -> Result<Row> {
    let disk = disk()?;
    let machine = builder(traced).volume("C:", disk.path()).build()?;
    let service = machine.install_service(&driver_dir()?.join("fwbroker.sys"), None)?;
    machine.load_driver(&service)?;
    let client = Client::start(&machine);
    let request = hello_bytes();
    let reply = client.send(&request, 256).map_err(|refused| anyhow::anyhow!("{refused:?}"))?.len();

    let (mut here, mut there) = UnixStream::pair()?;
    let length = request.len();
    let echo = thread::spawn(move || {
        let (mut question, answer) = (vec![0; length], vec![0; reply]);
        while there.read_exact(&mut question).is_ok() {
            if there.write_all(&answer).is_err() {
                break;
            }
        }
    });
    let mut answer = vec![0; reply];
    let row = compare(
        case,
        samples,
        200,
        || client.send(&request, 256).map(|_| ()).map_err(|refused| anyhow::anyhow!("{refused:?}")),
        || {
            here.write_all(&request)?;
            here.read_exact(black_box(&mut answer))?;
            Ok(())
        },
    )?;
    drop(here);
    let _ = echo.join();
    drop(client);
    machine.unload_driver(&service, false)?;
    Ok(row)
}

fn builder(traced: bool) -> MachineBuilder {
    if traced { Machine::builder() } else { Machine::builder().without_trace() }
}

/// A system volume with a file to read.
fn disk() -> Result<TempDir> {
    let disk = tempfile::tempdir()?;
    std::fs::create_dir_all(disk.path().join("Windows/System32/drivers"))?;
    std::fs::create_dir_all(disk.path().join("Windows/Firmware"))?;
    std::fs::write(disk.path().join("Windows/data.bin"), vec![7; 1 << 20])?;
    Ok(disk)
}

/// Lets both take turns in samples of `count` operations.
fn compare(
    case: &'static str,
    samples: u32,
    count: u32,
    mut ours: impl FnMut() -> Result<()>,
    mut baseline: impl FnMut() -> Result<()>,
) -> Result<Row> {
    let (mut best_ours, mut best_baseline) = (f64::MAX, f64::MAX);
    for _ in 0..samples {
        best_ours = best_ours.min(sample(count, &mut ours)?);
        best_baseline = best_baseline.min(sample(count, &mut baseline)?);
    }
    Ok(Row { case, ours_ns: best_ours, baseline_ns: best_baseline, ratio: best_ours / best_baseline })
}

/// Nanoseconds of one operation.
fn sample(count: u32, work: &mut impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        work()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(count))
}
