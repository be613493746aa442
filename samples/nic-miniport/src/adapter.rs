//! One adapter.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ndis::NdisStatus;
use ndis::memory::NdisBox;
use ndis::miniport::{GeneralAttributes, Initializing, Miniport, MiniportDriver, RegistrationAttributes};
use ndis::oid::OidRequest;
use ndis::raw::{
    NDIS_MINIPORT_ATTRIBUTES_SURPRISE_REMOVE_OK, NDIS_PACKET_TYPE_BROADCAST, NDIS_PACKET_TYPE_DIRECTED,
    NDIS_PACKET_TYPE_MULTICAST, NDIS_STATISTICS_FLAGS_VALID_ALL, NdisInterfaceInternal, NdisShutdownBugCheck,
};

use crate::device::Device;
use crate::firmware::{self, BootReport};
use crate::oid;

/// Largest payload of a frame, in bytes.
pub(crate) const MTU: u32 = 1500;

/// Longest multicast list, in addresses.
pub(crate) const MULTICAST_LIST: u32 = 32;

/// What the adapter can filter by.
pub(crate) const PACKET_FILTERS: u32 =
    NDIS_PACKET_TYPE_DIRECTED | NDIS_PACKET_TYPE_MULTICAST | NDIS_PACKET_TYPE_BROADCAST;

/// A locally administered address: the NIC has no vendor.
pub(crate) const MAC_ADDRESS: [u8; 6] = [0x02, 0x46, 0x57, 0x00, 0x00, 0x01];

/// One adapter.
pub(crate) struct Nic {
    device: NdisBox<Device>,
    /// What the device booted with; written once, before any other callback can run.
    pub(crate) boot: BootReport,
    /// `OID_GEN_CURRENT_PACKET_FILTER`.
    pub(crate) packet_filter: AtomicU32,
    /// `OID_GEN_CURRENT_LOOKAHEAD`, in bytes.
    pub(crate) lookahead: AtomicU32,
    running: AtomicBool,
}

impl Miniport for Nic {
    const DRIVER_VERSION: (u8, u8) = (1, 0);
    const POOL_TAG: u32 = u32::from_le_bytes(*b"SNic");
    const ATTRIBUTES: RegistrationAttributes = RegistrationAttributes {
        // The device is memory of ours: there are no hardware resources to claim, and it can vanish at any time.
        flags: NDIS_MINIPORT_ATTRIBUTES_SURPRISE_REMOVE_OK,
        interface_type: NdisInterfaceInternal,
    };

    fn driver() -> &'static MiniportDriver {
        &crate::DRIVER
    }

    fn create(adapter: &Initializing<'_>) -> Result<Self, NdisStatus> {
        Ok(Self {
            device: NdisBox::new(adapter.handle(), Self::POOL_TAG, Device::new())?,
            boot: BootReport::NONE,
            packet_filter: AtomicU32::new(0),
            lookahead: AtomicU32::new(MTU),
            running: AtomicBool::new(false),
        })
    }

    fn start(&mut self, adapter: &Initializing<'_>) -> Result<GeneralAttributes, NdisStatus> {
        match firmware::boot(adapter, &mut self.device) {
            Ok(report) => self.boot = report,
            Err(failure) => {
                self.device.reset();
                return Err(failure.report(adapter.handle()));
            }
        }
        Ok(GeneralAttributes {
            mac_address: MAC_ADDRESS,
            mtu: MTU,
            link_speed: 1_000_000_000,
            packet_filters: PACKET_FILTERS,
            multicast_list: MULTICAST_LIST,
            statistics: NDIS_STATISTICS_FLAGS_VALID_ALL,
            oids: oid::SUPPORTED,
        })
    }

    fn halt(&mut self, _action: u32) {
        self.device.reset();
    }

    fn pause(&self) {
        self.running.store(false, Ordering::Release);
    }

    fn restart(&self) -> Result<(), NdisStatus> {
        // A device that lost its firmware must not look alive.
        if !self.device.is_running() {
            return Err(NdisStatus::FAILURE);
        }
        self.running.store(true, Ordering::Release);
        Ok(())
    }

    fn oid_request(&self, request: &mut OidRequest<'_>) -> NdisStatus {
        oid::answer(self, request)
    }

    fn shutdown(&self, action: u32) {
        // After a bug check nothing may be touched; before a power-off it is enough to fall silent.
        if action != NdisShutdownBugCheck {
            self.running.store(false, Ordering::Release);
        }
    }
}
