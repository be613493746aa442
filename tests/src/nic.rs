//! The sample NIC, plugged into a machine.

use kernel_host::{Adapter, AdapterError, PlugInError};

use crate::Bench;

/// `OID_SAMPLENIC_BOOT_REPORT` of samplenic.sys, which documents the answer.
const OID_SAMPLENIC_BOOT_REPORT: u32 = 0xFF46_5701;

/// Length of that answer in bytes.
const BOOT_REPORT_BYTES: usize = 56;

/// A NIC that has booted.
#[derive(Debug)]
pub struct Nic {
    adapter: Adapter,
}

/// Where the NIC's driver got the image from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// fwbroker.
    Broker,
    /// `NdisOpenFile`.
    NdisOpenFile,
}

/// What the device booted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootReport {
    /// Where the image came from.
    pub source: Source,
    /// Bytes that the device received.
    pub bytes: u64,
    /// CRC-32 that the device computed.
    pub crc32: u32,
    /// SHA-256 that the driver computed over the mapped image.
    pub sha256: [u8; 32],
}

impl Nic {
    /// Plugs in a NIC whose driver is told to boot it with the image `firmware`.
    pub fn add(bench: &Bench, firmware: &str) -> Result<Self, AdapterError> {
        bench.load_nic_driver();
        let parameters = [("FirmwareName", firmware)];
        let adapter = bench.machine().add_adapter("samplenic", "nic0", &parameters)?;
        Ok(Self { adapter })
    }

    /// As [`add`](Self::add) where everything may fail, the load of the installed driver too.
    pub fn try_add(bench: &Bench, firmware: &str) -> Result<Self, PlugInError> {
        let adapter = bench.machine().plug_in("samplenic", "nic0", &[("FirmwareName", firmware)])?;
        Ok(Self { adapter })
    }

    /// What the device booted with.
    ///
    /// # Panics
    /// When the driver does not answer.
    #[must_use]
    pub fn boot_report(&self) -> BootReport {
        self.try_boot_report().expect("the driver reports")
    }

    /// What the device booted with, if its driver answers.
    pub fn try_boot_report(&self) -> Result<BootReport, AdapterError> {
        let answer = self.adapter.oid_query(OID_SAMPLENIC_BOOT_REPORT, BOOT_REPORT_BYTES)?;
        let number = |at: usize| u32::from_le_bytes(answer[at..at + 4].try_into().expect("four bytes"));
        Ok(BootReport {
            source: match number(4) {
                1 => Source::Broker,
                2 => Source::NdisOpenFile,
                other => panic!("unknown source {other}"),
            },
            bytes: u64::from_le_bytes(answer[8..16].try_into().expect("eight bytes")),
            crc32: number(16),
            sha256: answer[24..56].try_into().expect("32 bytes"),
        })
    }

    /// Unplugs it.
    ///
    /// # Panics
    /// When the machine has stopped on a finding.
    pub fn remove(self) {
        self.adapter.remove().expect("the driver halts cleanly");
    }
}

impl BootReport {
    /// The report of a NIC that got exactly `image` from `source`.
    #[must_use]
    pub fn of(image: &[u8], source: Source) -> Self {
        Self { source, bytes: image.len() as u64, crc32: crc32(image), sha256: crate::sha256(image) }
    }
}

/// CRC-32 as Ethernet computes it, bit by bit: the plain definition beside the driver's quicker one.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_of_the_standard_check_string_is_right() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
    }
}
