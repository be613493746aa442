//! Registry values as NDIS hands them out, and the codes of the error log.

use nt_types::{UNICODE_STRING, assert_layout};

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER};

/// `NDIS_CONFIGURATION_OBJECT`: whose configuration to open. DDI page: `ndis/ns-ndis-_ndis_configuration_object`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_CONFIGURATION_OBJECT {
    /// Type 0xA9, revision 1, size [`NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// A driver's or an adapter's handle.
    pub NdisHandle: NDIS_HANDLE,
    /// Zero for miniports.
    pub Flags: u32,
}
assert_layout!(NDIS_CONFIGURATION_OBJECT, 24, { Header: 0, NdisHandle: 8, Flags: 16 });

/// `Header.Size` of revision 1, in bytes: through `Flags`.
pub const NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1: u16 = 20;

/// A `REG_DWORD`.
pub const NdisParameterInteger: u32 = 0;
/// A number kept as hexadecimal text; what comes back is [`NdisParameterInteger`].
pub const NdisParameterHexInteger: u32 = 1;
/// A `REG_SZ`.
pub const NdisParameterString: u32 = 2;
/// A `REG_MULTI_SZ`.
pub const NdisParameterMultiString: u32 = 3;
/// A `REG_BINARY`.
pub const NdisParameterBinary: u32 = 4;

/// `BINARY_DATA`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BINARY_DATA {
    /// Length in bytes.
    pub Length: u16,
    /// The data; owned by the configuration handle.
    pub Buffer: *mut core::ffi::c_void,
}
assert_layout!(BINARY_DATA, 16, { Length: 0, Buffer: 8 });

/// The value in an [`NDIS_CONFIGURATION_PARAMETER`]; `ParameterType` says which member.
#[repr(C)]
#[derive(Clone, Copy)]
pub union NDIS_PARAMETER_DATA {
    /// For [`NdisParameterInteger`].
    pub IntegerData: u32,
    /// For [`NdisParameterString`] and [`NdisParameterMultiString`].
    pub StringData: UNICODE_STRING,
    /// For [`NdisParameterBinary`].
    pub BinaryData: BINARY_DATA,
}

/// `NDIS_CONFIGURATION_PARAMETER`: memory of NDIS, valid until `NdisCloseConfiguration`.
/// DDI page: `ndis/ns-ndis-_ndis_configuration_parameter`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_CONFIGURATION_PARAMETER {
    /// `NDIS_PARAMETER_TYPE`.
    pub ParameterType: u32,
    /// The value.
    pub ParameterData: NDIS_PARAMETER_DATA,
}
assert_layout!(NDIS_CONFIGURATION_PARAMETER, 24, { ParameterType: 0, ParameterData: 8 });

/// `NDIS_ERROR_CODE_OUT_OF_RESOURCES`.
pub const NDIS_ERROR_CODE_OUT_OF_RESOURCES: u32 = 0xC000_1389;
/// `NDIS_ERROR_CODE_HARDWARE_FAILURE`.
pub const NDIS_ERROR_CODE_HARDWARE_FAILURE: u32 = 0xC000_138A;
/// `NDIS_ERROR_CODE_DRIVER_FAILURE`.
pub const NDIS_ERROR_CODE_DRIVER_FAILURE: u32 = 0xC000_138D;
/// `NDIS_ERROR_CODE_MISSING_CONFIGURATION_PARAMETER`.
pub const NDIS_ERROR_CODE_MISSING_CONFIGURATION_PARAMETER: u32 = 0xC000_1393;
