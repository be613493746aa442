//! Real NIC firmware for the demo, from Debian packages that are unpacked below `target/` and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::setup::apt;
use crate::workspace::Workspace;

/// A firmware image in a file of its own.
pub(crate) struct Image {
    /// What it is for, as the demo shows it.
    pub(crate) device: String,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

/// Packages that carry firmware of network adapters.
const PACKAGES: [&str; 2] = ["ipxe-qemu", "firmware-ath9k-htc"];

/// Device, and how its image's file name begins and ends; releases differ in folders and version numbers.
///
/// The first three are PCI option ROMs, which the card keeps and its driver can reflash; the last two are what the USB
/// adapter's driver loads at every start.
const IMAGES: [(&str, &str, &str); 5] = [
    ("e1000", "pxe-e1000", ".rom"),
    ("rtl8139", "pxe-rtl8139", ".rom"),
    ("virtio-net", "pxe-virtio", ".rom"),
    ("ath9k AR7010", "htc_7010", ".fw"),
    ("ath9k AR9271", "htc_9271", ".fw"),
];

/// The images, fetched on first use and cached in `target/firmware/`.
pub(crate) fn images(workspace: &Workspace) -> Result<Vec<Image>> {
    let folder = workspace.generated("firmware");
    for package in PACKAGES {
        unpack(package, &folder).with_context(|| {
            format!(
                "cannot get the firmware images of Debian's {package}.\n\
                 Without apt and a network, use your own: cargo xtask demo --image FILE"
            )
        })?;
    }
    let mut files = Vec::new();
    list_files(&folder, &mut files)?;
    files.sort();
    IMAGES.iter().map(|image| find(image, &files)).collect()
}

/// Downloads and unpacks one package, unless that is done.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    let unpacked = folder.join(package);
    if unpacked.is_dir() {
        return Ok(());
    }
    if !apt::is_available() || !process::is_installed("dpkg-deb") {
        bail!("apt-get and dpkg-deb are needed to fetch it, and this machine lacks them");
    }
    let download = folder.join("download").join(package);
    let partial = folder.join("download").join(format!("{package}.unpacked"));
    for stale in [&download, &partial] {
        if stale.exists() {
            fs::remove_dir_all(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    fs::create_dir_all(&download).with_context(|| format!("cannot create {}", download.display()))?;
    eprintln!("firmware: apt-get download {package}");
    if fetch(package, &download).is_err() {
        eprintln!("firmware: apt-get update, then the same again");
        apt::update()?;
        fetch(package, &download)?;
    }
    let mut archives = Vec::new();
    list_files(&download, &mut archives)?;
    let [archive] = archives.as_slice() else { bail!("apt-get download left {} files, not one", archives.len()) };
    process::run_quietly(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&partial))?;
    // Renamed at the end, so that a folder of this name is always complete.
    fs::rename(&partial, &unpacked).with_context(|| format!("cannot create {}", unpacked.display()))
}

/// `apt-get download` writes into the current folder and needs no root.
fn fetch(package: &str, folder: &Path) -> Result<()> {
    process::run_quietly(Command::new("apt-get").args(["--quiet", "download", package]).current_dir(folder))
}

/// All regular files below a folder. Links are left out: the packages have some for older names of the same images.
fn list_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list_files(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn find(&(device, start, end): &(&str, &str, &str), files: &[PathBuf]) -> Result<Image> {
    // Between start and end there is nothing or a version: pxe-e1000e.rom is another card's.
    let matches = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let middle = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        middle.is_some_and(|middle| middle.is_empty() || middle.starts_with('-'))
    };
    let path = files
        .iter()
        .find(matches)
        .with_context(|| format!("the packages hold no {start}*{end}; delete target/firmware and try again"))?;
    let bytes = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    Ok(Image { device: device.to_owned(), path: path.clone(), bytes })
}
