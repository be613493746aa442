//! What registry callbacks get: `REG_NOTIFY_CLASS` and its structures. Pages: `wdm/ne-wdm-_reg_notify_class`,
//! `wdm/ns-wdm-_reg_create_key_information_v1` and their neighbours.

use nt_types::{NtStatus, UNICODE_STRING};

use crate::nt::raw::Raw;

/// A kind of operation: the classes before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(super) pre: u32,
    pub(super) post: u32,
}

impl Class {
    const fn new(pre: u32, post: u32) -> Self {
        Self { pre, post }
    }

    pub(crate) const DELETE_KEY: Self = Self::new(0, 15);
    pub(crate) const SET_VALUE: Self = Self::new(1, 16);
    pub(crate) const DELETE_VALUE: Self = Self::new(2, 17);
    pub(crate) const ENUMERATE_KEY: Self = Self::new(5, 20);
    pub(crate) const ENUMERATE_VALUE: Self = Self::new(6, 21);
    pub(crate) const QUERY_KEY: Self = Self::new(7, 22);
    pub(crate) const QUERY_VALUE: Self = Self::new(8, 23);
    pub(super) const HANDLE_CLOSE: Self = Self::new(14, 25);
    pub(crate) const CREATE_KEY: Self = Self::new(26, 27);
    pub(crate) const OPEN_KEY: Self = Self::new(28, 29);
    pub(crate) const FLUSH_KEY: Self = Self::new(30, 31);
}

/// `RegNtCallbackObjectContextCleanup`.
pub(super) const CONTEXT_CLEANUP: u32 = 40;

/// Fields that every structure of an operation has, at places of its own.
pub(crate) trait Information: Copy {
    /// Where `CallContext` lies.
    const CALL_CONTEXT: usize;
    /// Where `ObjectContext`, or `RootObjectContext`, lies.
    const OBJECT_CONTEXT: usize;
}

/// Declares structures of operations: their own members, then the contexts and what follows them.
macro_rules! information {
    ($($(#[$doc:meta])* $name:ident, $size:literal, $object_context:ident { $($field:ident: $type:ty,)* } then { $($rest:ident: $after:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
                pub(crate) call_context: usize,
                pub(crate) $object_context: usize,
                $(pub(crate) $rest: $after,)*
            }

            const _: () = assert!(size_of::<$name>() == $size);

            impl Information for $name {
                const CALL_CONTEXT: usize = std::mem::offset_of!($name, call_context);
                const OBJECT_CONTEXT: usize = std::mem::offset_of!($name, $object_context);
            }
        )*
    };
}

information! {
    /// `REG_DELETE_KEY_INFORMATION`, `REG_FLUSH_KEY_INFORMATION`, `REG_KEY_HANDLE_CLOSE_INFORMATION`.
    KeyInformation, 32, object_context { object: usize, } then { reserved: usize, }
    /// `REG_SET_VALUE_KEY_INFORMATION`.
    SetValue, 64, object_context {
        object: usize,
        name: Raw<UNICODE_STRING>,
        title_index: u32,
        kind: u32,
        data: Raw<u8>,
        size: u32,
    } then { reserved: usize, }
    /// `REG_DELETE_VALUE_KEY_INFORMATION`.
    DeleteValue, 40, object_context { object: usize, name: Raw<UNICODE_STRING>, } then { reserved: usize, }
    /// `REG_ENUMERATE_KEY_INFORMATION` and `REG_ENUMERATE_VALUE_KEY_INFORMATION`.
    Enumerate, 64, object_context {
        object: usize,
        index: u32,
        class: i32,
        buffer: Raw<u8>,
        length: u32,
        result_length: Raw<u32>,
    } then { reserved: usize, }
    /// `REG_QUERY_KEY_INFORMATION`.
    QueryKey, 64, object_context {
        object: usize,
        class: i32,
        buffer: Raw<u8>,
        length: u32,
        result_length: Raw<u32>,
    } then { reserved: usize, }
    /// `REG_QUERY_VALUE_KEY_INFORMATION`.
    QueryValue, 72, object_context {
        object: usize,
        name: Raw<UNICODE_STRING>,
        class: i32,
        buffer: Raw<u8>,
        length: u32,
        result_length: Raw<u32>,
    } then { reserved: usize, }
    /// `REG_CREATE_KEY_INFORMATION_V1`, `REG_OPEN_KEY_INFORMATION_V1`.
    CreateKey, 136, root_context {
        complete_name: Raw<UNICODE_STRING>,
        root: usize,
        object_type: usize,
        options: u32,
        class: Raw<UNICODE_STRING>,
        descriptor: usize,
        quality: usize,
        desired: u32,
        granted: u32,
        disposition: Raw<u32>,
        result: Raw<usize>,
    } then {
        transaction: usize,
        version: usize,
        remaining_name: Raw<UNICODE_STRING>,
        wow64: u32,
        attributes: u32,
        check_mode: u64,
    }
}

/// `REG_POST_OPERATION_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PostOperation {
    pub(super) object: usize,
    pub(super) status: NtStatus,
    pub(super) pre: usize,
    pub(super) return_status: NtStatus,
    pub(super) call_context: usize,
    pub(super) object_context: usize,
    pub(super) reserved: usize,
}

const _: () = assert!(size_of::<PostOperation>() == 56);

/// `REG_CALLBACK_CONTEXT_CLEANUP_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct ContextCleanup {
    pub(super) object: usize,
    pub(super) object_context: usize,
    pub(super) reserved: usize,
}
