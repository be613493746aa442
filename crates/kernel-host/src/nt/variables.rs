//! Variables that the kernel exports.

use std::sync::{Arc, OnceLock};

use nt_types::NtStatus;

use super::misc::BUILD;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    data NtBuildNumber = NT_BUILD_NUMBER;
    data InitSafeBootMode = INIT_SAFE_BOOT_MODE;
    data KeNumberProcessors = KE_NUMBER_PROCESSORS;
    variable KdDebuggerEnabled = kd_debugger_enabled;
    variable KdDebuggerNotPresent = kd_debugger_not_present;
    data NlsMbCodePageTag = NLS_MB_CODE_PAGE_TAG;
    data NlsAnsiCodePage = NLS_ANSI_CODE_PAGE;
    data NlsOemCodePage = NLS_OEM_CODE_PAGE;
    variable PsInitialSystemProcess = ps_initial_system_process;
    KdRefreshDebuggerNotPresent(max 31) = kd_refresh_debugger_not_present;
    MmIsDriverVerifying(max 1) = mm_is_driver_verifying;
    MmIsDriverVerifyingByAddress(max 1) = mm_is_driver_verifying;
    MmIsVerifierEnabled(max 1) = mm_is_verifier_enabled;
    MmIsThisAnNtAsSystem(max 31) = mm_is_this_an_nt_as_system;
    MmQuerySystemSize(max 31) = mm_query_system_size;
    MmLockPagableDataSection(max 1) = mm_lock_pagable_data_section;
    MmLockPagableSectionByHandle(max 1) = mm_lock_pagable_section_by_handle;
    MmUnlockPagableImageSection(max 1) = mm_unlock_pagable_image_section;
    MmPageEntireDriver(max 1) = mm_lock_pagable_data_section;
    MmResetDriverPaging(max 1) = mm_reset_driver_paging;
}

/// The upper bits say that it is a free build.
static NT_BUILD_NUMBER: u32 = 0xF000_0000 | BUILD;
/// A normal start.
static INIT_SAFE_BOOT_MODE: u32 = 0;
static KE_NUMBER_PROCESSORS: u8 = 1;
/// One for each answer: a machine without a debugger, and one that has it ([`with_debugger`](crate::MachineBuilder::with_debugger)).
static FALSE_AND_TRUE: [u8; 2] = [0, 1];
/// One byte per character.
static NLS_MB_CODE_PAGE_TAG: u8 = 0;
static NLS_ANSI_CODE_PAGE: u16 = 1252;
static NLS_OEM_CODE_PAGE: u16 = 437;

/// `MmLargeSystem`.
const LARGE_SYSTEM: i32 = 2;

/// Variables whose value differs between machines.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    initial_system_process: OnceLock<Box<usize>>,
}

/// Address of the variable that points at the system process.
fn ps_initial_system_process(machine: &Arc<Inner>) -> usize {
    let object = || Box::new(machine.nt.system_process(machine).object());
    std::ptr::from_ref::<usize>(machine.nt.variables().initial_system_process.get_or_init(object)).expose_provenance()
}

fn kd_debugger_enabled(machine: &Arc<Inner>) -> usize {
    truth(machine.config.debugger)
}

fn kd_debugger_not_present(machine: &Arc<Inner>) -> usize {
    truth(!machine.config.debugger)
}

/// Address of a byte that is 1 where `is` is true, and 0 elsewhere.
fn truth(is: bool) -> usize {
    std::ptr::from_ref(&FALSE_AND_TRUE[usize::from(is)]).expose_provenance()
}

extern "efiapi" fn kd_refresh_debugger_not_present() -> u8 {
    u8::from(!Call::enter().machine().config.debugger)
}

/// What verifies drivers here is not Driver Verifier: nothing that a driver does for it would help.
extern "efiapi" fn mm_is_driver_verifying(_driver: usize) -> u32 {
    let _call = Call::enter();
    0
}

extern "efiapi" fn mm_is_verifier_enabled(_flags: usize) -> NtStatus {
    let _call = Call::enter();
    NtStatus::NOT_SUPPORTED
}

extern "efiapi" fn mm_is_this_an_nt_as_system() -> u8 {
    let _call = Call::enter();
    0
}

extern "efiapi" fn mm_query_system_size() -> i32 {
    let _call = Call::enter();
    LARGE_SYSTEM
}

/// The image that an address is in, which serves as a section's handle; stops when it is in none.
fn image_at(call: &Call, address: usize) -> usize {
    let Some(module) = crate::image::find(address).filter(|module| !module.is_unloaded()) else {
        call.stop(Rule::BadArgument, format!("{address:#x} is in no loaded driver"));
    };
    module.base()
}

/// Nothing pages drivers' code out here: locking it is a matter of naming an address that is in one.
extern "efiapi" fn mm_lock_pagable_data_section(address: usize) -> usize {
    image_at(&Call::enter(), address)
}

extern "efiapi" fn mm_lock_pagable_section_by_handle(handle: usize) {
    image_at(&Call::enter(), handle);
}

extern "efiapi" fn mm_unlock_pagable_image_section(handle: usize) {
    image_at(&Call::enter(), handle);
}

extern "efiapi" fn mm_reset_driver_paging(address: usize) {
    image_at(&Call::enter(), address);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;
    use crate::image::late::routine;
    use crate::nt::raw::Raw;

    #[test]
    fn each_machine_has_its_own_system_process_behind_the_variable() {
        let (one, two) = (Bench::new(), Bench::new());
        let variable = |bench: &Bench| {
            let address = bench.run(|| routine(bench.driver(), "ntoskrnl.exe", "PsInitialSystemProcess")).unwrap();
            Raw::<usize>::at(address.expect("it is exported")).read()
        };
        let machine = one.machine().inner();
        assert_eq!(variable(&one), machine.nt.system_process(machine).object());
        assert_ne!(variable(&one), variable(&two));
    }

    #[test]
    fn only_addresses_in_drivers_are_locked() {
        assert_eq!(Bench::new().run(|| mm_lock_pagable_data_section(0x1000)).unwrap_err().0.rule, Rule::BadArgument);
    }
}
