//! Registry values. DDI pages: `wdm/nf-wdm-zwqueryvaluekey`, `wdm/ne-wdm-_key_value_information_class`.

/// Right to read values of a key.
pub const KEY_QUERY_VALUE: u32 = 0x0001;

/// All rights that reading a key and its values takes.
pub const KEY_READ: u32 = 0x0002_0019;

/// Text that ends in NUL.
pub const REG_SZ: u32 = 1;

/// Text with `%variables%`.
pub const REG_EXPAND_SZ: u32 = 2;

/// Bytes.
pub const REG_BINARY: u32 = 3;

/// 32-bit number.
pub const REG_DWORD: u32 = 4;

/// A list of texts, each ending in NUL, the list ending in an empty one.
pub const REG_MULTI_SZ: u32 = 7;

/// 64-bit number.
pub const REG_QWORD: u32 = 11;

/// `KeyValuePartialInformation`: the class whose output is [`KEY_VALUE_PARTIAL_INFORMATION`].
pub const KEY_VALUE_PARTIAL_INFORMATION_CLASS: i32 = 2;

/// `KEY_VALUE_PARTIAL_INFORMATION`: the header before a value's data.
///
/// The data start at byte 12, right behind the three fields (`Data[1]` in C, which also makes the C
/// structure 16 bytes long). DDI page: `wdm/ns-wdm-_key_value_partial_information`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KEY_VALUE_PARTIAL_INFORMATION {
    /// Reserved.
    pub TitleIndex: u32,
    /// One of the `REG_*` types.
    pub Type: u32,
    /// Bytes of data behind this header.
    pub DataLength: u32,
}

crate::assert_layout!(KEY_VALUE_PARTIAL_INFORMATION, 12, { TitleIndex: 0, Type: 4, DataLength: 8 });
