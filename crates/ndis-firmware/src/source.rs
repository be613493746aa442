//! Where a miniport gets firmware from during initialisation: the broker, or `NdisOpenFile` where there is no broker.

use core::ops::Deref;

use ndis::NdisStatus;
use ndis::file::{MappedFile, NdisFile};
use ndis::miniport::Initializing;
use nt_types::NtStatus;

use crate::broker::Broker;
use crate::file::{FirmwareFile, Mapping};

/// The place to ask.
pub enum Source {
    /// `fwbroker.sys` is loaded.
    Broker(Broker),
    /// It is not: files in the system's driver folder, through NDIS, without a digest.
    DriverFolder,
}

impl Source {
    /// Connects to the broker as `consumer`. `PASSIVE_LEVEL`.
    ///
    /// Only a broker that is not loaded makes this fall back. One that refuses does not: what it refuses on purpose must not come
    /// in through the back door.
    ///
    /// # Errors
    /// What [`Broker::connect`] says, except that the device does not exist.
    pub fn connect(consumer: &[u16]) -> Result<Self, NtStatus> {
        match Broker::connect(consumer) {
            Ok(broker) => Ok(Self::Broker(broker)),
            Err(NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::OBJECT_PATH_NOT_FOUND) => Ok(Self::DriverFolder),
            Err(status) => Err(status),
        }
    }

    /// Opens the image `name` (UTF-16 without NUL, a bare file name). No byte lies above the physical address `highest`; -1 for no limit.
    ///
    /// # Errors
    /// The broker's status as NDIS spells it ([`NdisStatus::from_nt`]), or `NdisOpenFile`'s.
    pub fn open<'a>(
        &'a self,
        init: &'a Initializing<'_>,
        name: &[u16],
        highest: i64,
    ) -> Result<Firmware<'a>, NdisStatus> {
        match self {
            Self::Broker(broker) => {
                broker.table().open(name, highest).map(Firmware::Brokered).map_err(NdisStatus::from_nt)
            }
            Self::DriverFolder => NdisFile::open(init, name, highest).map(Firmware::Ndis),
        }
    }
}

/// An open image from either place; dropping it closes it.
pub enum Firmware<'a> {
    /// From the broker.
    Brokered(FirmwareFile<'a>),
    /// From NDIS.
    Ndis(NdisFile<'a>),
}

impl Firmware<'_> {
    /// SHA-256 as computed by the broker; NDIS computes none.
    #[must_use]
    pub const fn sha256(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Brokered(file) => Some(file.sha256()),
            Self::Ndis(_) => None,
        }
    }

    /// Gives access to the bytes.
    ///
    /// # Errors
    /// The broker's status as NDIS spells it, or `NDIS_STATUS_ALREADY_MAPPED`.
    pub fn map(&mut self) -> Result<FirmwareBytes<'_>, NdisStatus> {
        match self {
            Self::Brokered(file) => file.map().map(FirmwareBytes::Brokered).map_err(NdisStatus::from_nt),
            Self::Ndis(file) => file.map().map(FirmwareBytes::Ndis),
        }
    }
}

/// The bytes of an image; dropping it unmaps them.
pub enum FirmwareBytes<'a> {
    /// From the broker: shared, read-only.
    Brokered(Mapping<'a>),
    /// From NDIS.
    Ndis(MappedFile<'a>),
}

impl Deref for FirmwareBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Brokered(bytes) => bytes,
            Self::Ndis(bytes) => bytes,
        }
    }
}
