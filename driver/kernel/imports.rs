//! ntoskrnl exports that wdk-sys does not bind: macros and inline functions in the C headers, and data.
//!
//! Bound by raw-dylib, so no import library has to know them.

use nt_types::{KIRQL, PVOID};

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// Page `wdm/nf-wdm-keraiseirqltodpclevel`. IRQL <= DISPATCH_LEVEL.
    pub(super) fn KeRaiseIrqlToDpcLevel() -> KIRQL;

    /// Page `wdm/nf-wdm-kelowerirql`. Only to a level that was raised from.
    pub(super) fn KeLowerIrql(NewIrql: KIRQL);

    /// Page `wdm/nf-wdm-kequeryinterrupttimeprecise`. Any IRQL. 100 ns since boot.
    pub(super) fn KeQueryInterruptTimePrecise(QpcTimeStamp: *mut u64) -> u64;

    /// The highest address that a user-mode pointer can have; a constant of the boot.
    pub(super) static MmHighestUserAddress: PVOID;
}
