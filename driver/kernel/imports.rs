//! ntoskrnl exports that wdk-sys does not bind: macros and inline functions in the C headers, and data.
//!
//! Bound by raw-dylib, so no import library has to know them.

use nt_types::{KIRQL, NtStatus, PVOID, UNICODE_STRING};

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// Page `wdm/nf-wdm-keraiseirqltodpclevel`. IRQL <= DISPATCH_LEVEL.
    pub(super) fn KeRaiseIrqlToDpcLevel() -> KIRQL;

    /// Page `wdm/nf-wdm-kelowerirql`. Only to a level that was raised from.
    pub(super) fn KeLowerIrql(NewIrql: KIRQL);

    /// Page `wdm/nf-wdm-kequeryinterrupttimeprecise`. Any IRQL. 100 ns since boot.
    pub(super) fn KeQueryInterruptTimePrecise(QpcTimeStamp: *mut u64) -> u64;

    /// Page `wdm/nf-wdm-kequerysystemtimeprecise`. Any IRQL. 100 ns since 1601-01-01 UTC.
    pub(super) fn KeQuerySystemTimePrecise(CurrentTime: *mut i64);

    /// Page `ntifs/nf-ntifs-selocateprocessimagename`. PASSIVE_LEVEL. The caller frees the block that it gets.
    pub(super) fn SeLocateProcessImageName(Process: PVOID, pImageFileName: *mut *mut UNICODE_STRING) -> NtStatus;

    /// Page `ntddk/nf-ntddk-exfreepool`. IRQL <= DISPATCH_LEVEL, and <= APC_LEVEL for paged pool.
    pub(super) fn ExFreePool(P: PVOID);

    /// The highest address that a user-mode pointer can have; a constant of the boot.
    pub(super) static MmHighestUserAddress: PVOID;
}
