//! The table at the end, and what the drivers left behind.

use std::fmt::Write as _;

use fltlib_socket::UnloadReport;
use sha2::{Digest, Sha256};

/// One image.
pub(super) struct Row {
    pub(super) device: String,
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) by_driver: String,
    pub(super) by_host: String,
    pub(super) handed_to: String,
}

impl Row {
    /// Whether driver and host computed the same SHA-256.
    pub(super) fn is_equal(&self) -> bool {
        self.by_driver == self.by_host
    }
}

/// Prints the table and the leak reports; true when nothing was left behind.
pub(super) fn print(rows: &[Row], reports: &[UnloadReport]) -> bool {
    let width = |length: fn(&Row) -> usize, least: usize| rows.iter().map(length).max().unwrap_or(0).max(least);
    let name_width = width(|row| row.name.len(), 5);
    let device_width = width(|row| row.device.len(), 6);
    println!(
        "\n{:<name_width$}  {:<device_width$}  {:>8}  {:<64}  {:<7}  handed to",
        "image", "device", "bytes", "SHA-256 by fwbroker.sys", "by host"
    );
    for row in rows {
        let equal = if row.is_equal() { "equal" } else { "DIFFERS" };
        println!(
            "{:<name_width$}  {:<device_width$}  {:>8}  {:<64}  {:<7}  {}",
            row.name, row.device, row.bytes, row.by_driver, equal, row.handed_to
        );
        if !row.is_equal() {
            println!("{:<name_width$}  by host: {}", "", row.by_host);
        }
    }
    println!();
    for report in reports {
        println!(
            "{}: unloaded with {} handles, {} pool bytes and {} references left",
            report.driver, report.handles, report.pool_bytes, report.references
        );
        for line in &report.details {
            println!("   {line}");
        }
    }
    reports.iter().all(UnloadReport::is_clean)
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
