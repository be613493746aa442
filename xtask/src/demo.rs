//! The main job, shown: real firmware files go through the real fwbroker.sys into a NIC driver.
//!
//! A kernel-host process runs both drivers; `fwbctl` and this program talk to it over its socket, as any program would.
//! What is printed is what happened: every step line comes from the machine's own record of DDI calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::arch::Arch;
use crate::workspace::Workspace;
use crate::{driver, firmware, programs};

mod client;
mod machine;
mod report;
mod steps;

use client::Fwbctl;
use machine::Machine;
use report::Row;
use steps::Steps;

/// Folder of firmware below the system volume: fwbroker's default root.
const FIRMWARE_FOLDER: &str = "Windows/Firmware";

/// Where `NdisOpenFile` looks, below the system volume.
const DRIVERS_FOLDER: &str = "Windows/System32/drivers";

/// One file of the demo.
struct Image {
    /// Device that the firmware is for, or `yours`.
    device: String,
    /// Name on the machine's volume.
    name: String,
    /// The same file as programs in the machine name it.
    path: String,
    /// SHA-256 as this program computes it.
    sha256: String,
    bytes: u64,
}

/// Runs the demo with Debian's firmware, or with the user's own files.
pub(crate) fn run(workspace: &Workspace, own: &[PathBuf]) -> Result<()> {
    let started = Instant::now();
    driver::run(workspace, Arch::X64)?;
    let programs = programs::build(workspace)?;
    let disk = workspace.generated("demo/disk");
    let images = fill_disk(workspace, &disk, own)?;
    let ready = started.elapsed();

    let machine = Machine::start(workspace, &programs, &disk)?;
    let fwbctl = Fwbctl::new(&programs, machine.socket());
    let result = tell(&machine, &fwbctl, &images);
    machine.stop()?;
    result?;
    let told = started.elapsed().saturating_sub(ready);
    println!("\nset-up and builds took {:.1} s, the demo {:.1} s", ready.as_secs_f64(), told.as_secs_f64());
    Ok(())
}

/// The story, step by step.
fn tell(machine: &Machine, fwbctl: &Fwbctl, images: &[Image]) -> Result<()> {
    let mut control = machine.connect()?;
    let mut steps = Steps::new();
    steps.show(&mut control, "kernel-host starts the machine and loads fwbroker.sys")?;
    machine::print_entry_times(&mut control)?;

    for image in images {
        fwbctl.run(&["stage", &image.path])?;
        steps.show(&mut control, &format!("fwbctl stage {}", image.path))?;
    }
    let booted = images.first().context("there is no firmware image to show")?;

    machine::plug_in(&mut control, &booted.name)?;
    steps.show(
        &mut control,
        &format!("a NIC is plugged in; samplenic.sys boots it with {} from fwbroker", booted.name),
    )?;
    let rows = rows(fwbctl, images)?;

    fwbctl.run(&["publish", &booted.path])?;
    steps.show(&mut control, &format!("fwbctl publish {}, for drivers that know NdisOpenFile only", booted.path))?;

    machine::unplug(&mut control)?;
    steps.show(&mut control, "the NIC is unplugged")?;
    fwbctl.run(&["unload"])?;
    steps.show(&mut control, "fwbctl unload: fwbroker.sys is gone")?;

    machine::plug_in(&mut control, &booted.name)?;
    steps.show(
        &mut control,
        &format!("the NIC is plugged in again; samplenic.sys takes {} the documented old way", booted.name),
    )?;
    machine::unplug(&mut control)?;
    machine::unload_nic_driver(&mut control)?;
    steps.show(&mut control, "the NIC is unplugged and samplenic.sys unloaded")?;

    let reports = machine::answered(control.unload_reports()?)?;
    let clean = report::print(&rows, &reports);
    ensure!(rows.iter().all(Row::is_equal), "a digest differs between the driver and this program");
    ensure!(reports.len() == 2, "expected a leak report of each driver, got {}", reports.len());
    ensure!(clean, "a driver left something behind; the report above says what");
    Ok(())
}

/// What the driver says of each image, beside what this program computed.
fn rows(fwbctl: &Fwbctl, images: &[Image]) -> Result<Vec<Row>> {
    let list = fwbctl.run(&["list"])?;
    let listed = list["images"].as_array().context("`fwbctl list` gave no images")?;
    let find = |image: &Image| {
        let same = |entry: &&serde_json::Value| {
            entry["name"].as_str().is_some_and(|name| name.to_lowercase().ends_with(&image.name.to_lowercase()))
        };
        let entry = listed.iter().find(same).with_context(|| format!("{} is not listed", image.name))?;
        let handed_to = entry["handed_to"].as_str().unwrap_or("-").to_owned();
        let by_driver = entry["sha256"].as_str().unwrap_or("none").to_owned();
        Ok(Row {
            device: image.device.clone(),
            name: image.name.clone(),
            bytes: image.bytes,
            by_driver,
            by_host: image.sha256.clone(),
            handed_to,
        })
    };
    images.iter().map(find).collect()
}

/// Lays out a fresh system volume with the firmware on it.
fn fill_disk(workspace: &Workspace, disk: &Path, own: &[PathBuf]) -> Result<Vec<Image>> {
    if disk.exists() {
        fs::remove_dir_all(disk).with_context(|| format!("cannot clear {}", disk.display()))?;
    }
    let folder = disk.join(FIRMWARE_FOLDER);
    for folder in [&folder, &disk.join(DRIVERS_FOLDER)] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let sources: Vec<(String, PathBuf)> = if own.is_empty() {
        firmware::images(workspace)?.into_iter().map(|image| (image.device, image.path)).collect()
    } else {
        own.iter().map(|path| ("yours".to_owned(), path.clone())).collect()
    };
    let mut images: Vec<Image> = Vec::new();
    for (device, source) in sources {
        let content = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let name = source.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} has no name that Windows could have", source.display()))?;
        if images.iter().any(|image| image.name.eq_ignore_ascii_case(name)) {
            bail!("two images are named {name}; give files with different names");
        }
        fs::write(folder.join(name), &content).with_context(|| format!("cannot write {name} to the volume"))?;
        images.push(Image {
            device,
            name: name.to_owned(),
            path: format!(r"C:\Windows\Firmware\{name}"),
            sha256: report::sha256(&content),
            bytes: content.len() as u64,
        });
    }
    Ok(images)
}
