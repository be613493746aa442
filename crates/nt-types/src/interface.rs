//! The WDM convention for function tables that one driver hands to another.

use crate::PVOID;

/// `INTERFACE_REFERENCE` / `INTERFACE_DEREFERENCE`: takes or gives back one reference on the
/// provider. Callable at any IRQL up to DISPATCH_LEVEL.
pub type INTERFACE_REFERENCE = Option<unsafe extern "efiapi" fn(Context: PVOID)>;

/// `INTERFACE`: header of every such table; the functions follow it.
///
/// The provider fills it with one reference taken in the caller's name; the caller gives it
/// back through `InterfaceDereference` when it is done. DDI page: `wdm/ns-wdm-_interface`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct INTERFACE {
    /// Bytes of the whole table, header included.
    pub Size: u16,
    /// Version of the table.
    pub Version: u16,
    /// First argument of every function of the table.
    pub Context: PVOID,
    /// Takes a reference.
    pub InterfaceReference: INTERFACE_REFERENCE,
    /// Gives a reference back.
    pub InterfaceDereference: INTERFACE_REFERENCE,
}

crate::assert_layout!(INTERFACE, 32, {
    Size: 0, Version: 2, Context: 8, InterfaceReference: 16, InterfaceDereference: 24,
});
