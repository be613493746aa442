//! The header that starts every versioned NDIS structure.

use core::ffi::c_void;

use nt_types::assert_layout;

/// `NDIS_OBJECT_HEADER`. DDI page: `objectheader/ns-objectheader-ndis_object_header`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NDIS_OBJECT_HEADER {
    /// What the structure is: one of the `NDIS_OBJECT_TYPE_*` values.
    pub Type: u8,
    /// Revision of the structure, from 1.
    pub Revision: u8,
    /// Size of that revision in bytes.
    pub Size: u16,
}
assert_layout!(NDIS_OBJECT_HEADER, 4, { Type: 0, Revision: 1, Size: 2 });

impl NDIS_OBJECT_HEADER {
    /// A header with these values.
    #[must_use]
    pub const fn new(kind: u8, revision: u8, size: u16) -> Self {
        Self { Type: kind, Revision: revision, Size: size }
    }
}

/// `NDIS_GENERIC_OBJECT`: an NDIS handle for components that have no other. DDI page: `ndis/ns-ndis-_ndis_generic_object`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_GENERIC_OBJECT {
    /// Type 0x02.
    pub Header: NDIS_OBJECT_HEADER,
    /// Who allocated it.
    pub Caller: *mut c_void,
    /// Who called that.
    pub CallersCaller: *mut c_void,
    /// The driver it was allocated for, or NULL.
    pub DriverObject: *mut nt_types::DRIVER_OBJECT,
}
assert_layout!(NDIS_GENERIC_OBJECT, 32, { Header: 0, Caller: 8, CallersCaller: 16, DriverObject: 24 });

/// Type of [`NDIS_GENERIC_OBJECT`].
pub const NDIS_OBJECT_TYPE_GENERIC_OBJECT: u8 = 0x02;
/// Type of structures whose kind follows from their use.
pub const NDIS_OBJECT_TYPE_DEFAULT: u8 = 0x80;
/// Type of [`NDIS_MINIPORT_INIT_PARAMETERS`](super::NDIS_MINIPORT_INIT_PARAMETERS).
pub const NDIS_OBJECT_TYPE_MINIPORT_INIT_PARAMETERS: u8 = 0x81;
/// Type of [`NDIS_DEVICE_OBJECT_ATTRIBUTES`](super::NDIS_DEVICE_OBJECT_ATTRIBUTES).
pub const NDIS_OBJECT_TYPE_DEVICE_OBJECT_ATTRIBUTES: u8 = 0x85;
/// Type of [`NDIS_BIND_PARAMETERS`](super::NDIS_BIND_PARAMETERS).
pub const NDIS_OBJECT_TYPE_BIND_PARAMETERS: u8 = 0x86;
/// Type of [`NDIS_OPEN_PARAMETERS`](super::NDIS_OPEN_PARAMETERS).
pub const NDIS_OBJECT_TYPE_OPEN_PARAMETERS: u8 = 0x87;
/// Type of [`NDIS_MINIPORT_DRIVER_CHARACTERISTICS`](super::NDIS_MINIPORT_DRIVER_CHARACTERISTICS).
pub const NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS: u8 = 0x8A;
/// Type of [`NDIS_FILTER_DRIVER_CHARACTERISTICS`](super::NDIS_FILTER_DRIVER_CHARACTERISTICS).
pub const NDIS_OBJECT_TYPE_FILTER_DRIVER_CHARACTERISTICS: u8 = 0x8B;
/// Type of [`NDIS_FILTER_PARTIAL_CHARACTERISTICS`](super::NDIS_FILTER_PARTIAL_CHARACTERISTICS).
pub const NDIS_OBJECT_TYPE_FILTER_PARTIAL_CHARACTERISTICS: u8 = 0x8C;
/// Type of [`NDIS_FILTER_ATTRIBUTES`](super::NDIS_FILTER_ATTRIBUTES).
pub const NDIS_OBJECT_TYPE_FILTER_ATTRIBUTES: u8 = 0x8D;
/// Type of the optional Plug and Play handlers of a miniport.
pub const NDIS_OBJECT_TYPE_MINIPORT_PNP_CHARACTERISTICS: u8 = 0x92;
/// Type of [`NDIS_PROTOCOL_DRIVER_CHARACTERISTICS`](super::NDIS_PROTOCOL_DRIVER_CHARACTERISTICS).
pub const NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS: u8 = 0x95;
/// Type of [`NDIS_OID_REQUEST`](super::NDIS_OID_REQUEST).
pub const NDIS_OBJECT_TYPE_OID_REQUEST: u8 = 0x96;
/// Type of [`NDIS_TIMER_CHARACTERISTICS`](super::NDIS_TIMER_CHARACTERISTICS).
pub const NDIS_OBJECT_TYPE_TIMER_CHARACTERISTICS: u8 = 0x97;
/// Type of [`NDIS_STATUS_INDICATION`](super::NDIS_STATUS_INDICATION).
pub const NDIS_OBJECT_TYPE_STATUS_INDICATION: u8 = 0x98;
/// Type of [`NDIS_FILTER_ATTACH_PARAMETERS`](super::NDIS_FILTER_ATTACH_PARAMETERS).
pub const NDIS_OBJECT_TYPE_FILTER_ATTACH_PARAMETERS: u8 = 0x99;
/// Type of [`NDIS_FILTER_PAUSE_PARAMETERS`](super::NDIS_FILTER_PAUSE_PARAMETERS).
pub const NDIS_OBJECT_TYPE_FILTER_PAUSE_PARAMETERS: u8 = 0x9A;
/// Type of [`NDIS_FILTER_RESTART_PARAMETERS`](super::NDIS_FILTER_RESTART_PARAMETERS).
pub const NDIS_OBJECT_TYPE_FILTER_RESTART_PARAMETERS: u8 = 0x9B;
/// Type of [`NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES`](super::NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES).
pub const NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES: u8 = 0x9E;
/// Type of [`NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES`](super::NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES).
pub const NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES: u8 = 0x9F;
/// Type of the offload attributes.
pub const NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_OFFLOAD_ATTRIBUTES: u8 = 0xA0;
/// Type of the native 802.11 attributes.
pub const NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_NATIVE_802_11_ATTRIBUTES: u8 = 0xA1;
/// Type of the attributes that `MiniportAddDevice` may set.
pub const NDIS_OBJECT_TYPE_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES: u8 = 0xA4;
/// Type of [`NDIS_CONFIGURATION_OBJECT`](super::NDIS_CONFIGURATION_OBJECT).
pub const NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT: u8 = 0xA9;
/// Type of the hardware-assist attributes.
pub const NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_HARDWARE_ASSIST_ATTRIBUTES: u8 = 0xAF;
