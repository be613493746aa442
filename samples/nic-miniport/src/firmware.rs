//! From the name in the registry to a running device.

use alloc::vec::Vec;

use ndis::NdisStatus;
use ndis::configuration::Configuration;
use ndis::miniport::Initializing;
use ndis_firmware::interface::ANY_ADDRESS;
use ndis_firmware::source::Source;
use nt_types::utf16;
use sha2::{Digest, Sha256};

use crate::device::Device;
use crate::failure::Failure;
use crate::image::{self, Crc32, Unfit};

/// Bytes hashed at a time.
const HASH_STEP: usize = 4096;

/// What the device booted with; the answer to the private OID.
pub(crate) struct BootReport {
    /// Where the image came from: 1 the broker, 2 `NdisOpenFile`; 0 before a boot.
    pub(crate) source: u32,
    /// Bytes that the device received.
    pub(crate) received: u64,
    /// CRC-32 as the device computed it.
    pub(crate) checksum: u32,
    /// SHA-256 of the mapped image, computed here.
    pub(crate) sha256: [u8; 32],
}

impl BootReport {
    /// Before a boot.
    pub(crate) const NONE: Self = Self { source: 0, received: 0, checksum: 0, sha256: [0; 32] };
}

/// Boots `device` with the image that the registry names. Whatever happens, the image is unmapped and closed on return, and so is the
/// connection to the broker.
pub(crate) fn boot(adapter: &Initializing<'_>, device: &mut Device) -> Result<BootReport, Failure> {
    let name = configured_name(adapter).map_err(Failure::NoName)?;
    let source = Source::connect(utf16!("samplenic")).map_err(|status| Failure::Broker(NdisStatus::from_nt(status)))?;
    let mut firmware = source.open(adapter, &name, ANY_ADDRESS).map_err(Failure::Open)?;
    let promised = firmware.sha256().copied();
    let image = firmware.map().map_err(Failure::Map)?;

    image::check(&image).map_err(|unfit| match unfit {
        Unfit::Empty => Failure::Empty,
        Unfit::BadOptionRom => Failure::BadOptionRom,
    })?;
    let sha256 = hash(&image);
    if promised.is_some_and(|promised| promised != sha256) {
        return Err(Failure::Digest);
    }
    device.load(&image, Crc32::of(&image)).map_err(|_refused| Failure::Device)?;
    Ok(BootReport {
        source: match &source {
            Source::Broker(_) => 1,
            Source::DriverFolder => 2,
        },
        received: device.received(),
        checksum: device.checksum(),
        sha256,
    })
}

/// `FirmwareName` of the adapter, copied, because it dies with the configuration handle.
fn configured_name(adapter: &Initializing<'_>) -> Result<Vec<u16>, NdisStatus> {
    let mut configuration = Configuration::open(adapter.handle())?;
    let value = configuration.read_string(utf16!("FirmwareName"))?;
    if value.is_empty() {
        return Err(NdisStatus::FAILURE);
    }
    let mut name = Vec::new();
    name.try_reserve_exact(value.len()).map_err(|_no_memory| NdisStatus::RESOURCES)?;
    name.extend_from_slice(value);
    Ok(name)
}

/// SHA-256 in steps, so that the hasher's buffer handling, not a copy of the image, is all it needs.
fn hash(image: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for step in image.chunks(HASH_STEP) {
        hasher.update(step);
    }
    hasher.finalize().into()
}
