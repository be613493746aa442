//! FltMgr as `fltkernel.h` declares it.
//!
//! Names, fields and values keep the header's spelling. Pages are cited by their names in the
//! `fltkernel` folder of the DDI documentation.

#![expect(
    non_camel_case_types,
    non_snake_case,
    reason = "types and fields keep the spelling of fltkernel.h, by which they are looked up"
)]

mod callback_data;
mod context;
mod file_parameters;
#[cfg(windows)]
mod functions;
mod information;
mod message;
mod name;
mod parameters;
mod registration;
mod volume;

pub use callback_data::*;
pub use context::*;
pub use file_parameters::*;
#[cfg(windows)]
pub use functions::*;
pub use information::*;
pub use message::*;
pub use name::*;
pub use parameters::*;
pub use registration::*;
pub use volume::*;

/// Declares opaque FltMgr objects: they exist behind pointers only, and FltMgr alone knows them.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident, $pointer:ident;)*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Debug)]
            pub struct $name {
                _private: [u8; 0],
            }

            #[doc = concat!("Pointer to [`", stringify!($name), "`].")]
            pub type $pointer = *mut $name;
        )*
    };
}

opaque! {
    /// A registered minifilter.
    FLT_FILTER, PFLT_FILTER;
    /// A volume as FltMgr sees it.
    FLT_VOLUME, PFLT_VOLUME;
    /// A minifilter attached to a volume.
    FLT_INSTANCE, PFLT_INSTANCE;
    /// A server port, or the kernel's end of a connection.
    FLT_PORT, PFLT_PORT;
    /// A work item without an I/O operation.
    FLT_GENERIC_WORKITEM, PFLT_GENERIC_WORKITEM;
    /// A work item for an I/O operation.
    FLT_DEFERRED_IO_WORKITEM, PFLT_DEFERRED_IO_WORKITEM;
}

/// A filter-defined context. Its size is given at registration.
pub type PFLT_CONTEXT = nt_types::PVOID;
