//! The machine's state in the words of the wire.

use std::path::PathBuf;

use fltlib_socket::{
    AdapterStatus, Answer, DriverStatus, FilterStatus, MachineStatus, PortStatus, Target, TraceEntry, UnloadReport,
};

use crate::flt::program::FilterSummary;
use crate::leak::{LeakKind, LeakReport};
use crate::machine::Machine;

/// Everything there is.
pub(super) fn status(machine: &Machine) -> MachineStatus {
    let filters = machine.filters();
    let drivers = machine.drivers();
    MachineStatus {
        drivers: drivers
            .iter()
            .map(|driver| DriverStatus {
                name: driver.name.clone(),
                service: driver.service.clone(),
                image_bytes: driver.image_bytes() as u64,
                pool_bytes: machine.held_by(driver).bytes(LeakKind::Pool),
                entry_nanoseconds: nanoseconds(driver.entry_time()),
            })
            .collect(),
        ports: filters.iter().flat_map(ports).collect(),
        filters: filters
            .into_iter()
            .map(|filter| FilterStatus {
                name: filter.name,
                altitude: filter.altitude,
                volumes: filter.volumes,
                filtering: filter.filtering,
            })
            .collect(),
        adapters: machine
            .inner()
            .ndis
            .adapters()
            .into_iter()
            .map(|(name, driver, state)| AdapterStatus { name, driver, state: format!("{state:?}") })
            .collect(),
        last_unload: machine.unload_reports().last().map(report),
        stopped: machine.finding().map(|finding| finding.to_string()),
    }
}

fn ports(filter: &FilterSummary) -> Vec<PortStatus> {
    let describe = |port: &crate::flt::program::PortSummary| PortStatus {
        name: port.name.clone(),
        filter: filter.name.clone(),
        connections: port.connections,
        max_connections: port.max_connections,
    };
    filter.ports.iter().map(describe).collect()
}

/// What a driver left behind.
pub(super) fn report(report: &LeakReport) -> UnloadReport {
    UnloadReport {
        driver: report.driver.clone(),
        handles: report.count(LeakKind::Handle),
        pool_bytes: report.bytes(LeakKind::Pool),
        pool_blocks: report.count(LeakKind::Pool),
        references: report.count(LeakKind::Reference),
        details: report.leaks.iter().map(ToString::to_string).collect(),
    }
}

/// Calls from number `since` on, at most `limit`. The wire counts from 1, so that 0 can mean "from the start".
pub(super) fn trace(machine: &Machine, since: u64, limit: u32) -> Answer {
    let calls = machine.trace_since(since.saturating_sub(1));
    let entries: Vec<TraceEntry> = calls
        .into_iter()
        .take(limit as usize)
        .map(|call| TraceEntry {
            sequence: call.sequence + 1,
            driver: call.driver,
            name: call.name.to_owned(),
            detail: call.detail,
            bytes: call.bytes,
            nanoseconds: nanoseconds(call.took),
        })
        .collect();
    let next = entries.last().map_or(since.max(1), |last| last.sequence + 1);
    Answer::Trace { entries, next }
}

/// Host folders; `None` for a machine without volumes.
pub(super) fn target(machine: &Machine) -> Option<Target> {
    let volumes = machine.inner().fs.volumes();
    let absolute = |folder: &PathBuf| std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
    let first = volumes.first()?;
    let system_root = absolute(&first.volume.folder).join("Windows");
    Some(Target {
        volumes: volumes
            .iter()
            .map(|mounted| (format!("{}:", mounted.volume.letter), absolute(&mounted.volume.folder)))
            .collect(),
        drivers: system_root.join("System32").join("drivers"),
        system_root,
    })
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
