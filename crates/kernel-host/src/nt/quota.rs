//! Pool quotas of processes, as drivers charge them for what they allocate on a process's behalf.
//!
//! Simulated processes have no limit that charges could reach: only fault injection raises `STATUS_QUOTA_EXCEEDED` on a
//! charge. What is returned has to have been charged before.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nt_types::NtStatus;

use super::processes::process_at;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsChargePoolQuota(max 1, fails QUOTA) = charge;
    PsReturnPoolQuota(max 1) = give_back;
    PsChargeProcessPoolQuota(max 1, fails QUOTA_STATUS) = charge_status;
    PsChargeProcessPagedPoolQuota(max 1, fails QUOTA_STATUS) = charge_paged;
    PsChargeProcessNonPagedPoolQuota(max 1, fails QUOTA_STATUS) = charge_non_paged;
    PsReturnProcessPagedPoolQuota(max 1) = give_back_paged;
    PsReturnProcessNonPagedPoolQuota(max 1) = give_back_non_paged;
}

const NON_PAGED: i32 = 0;
const PAGED: i32 = 1;

/// Bytes charged, by process object and kind of pool.
#[derive(Debug, Default)]
pub(crate) struct Quotas(Mutex<HashMap<(usize, i32), usize>>);

impl Quotas {
    fn change<R>(&self, process: usize, pool: i32, body: impl FnOnce(&mut usize) -> R) -> R {
        // Cache-aligned kinds are charged like the others.
        let key = (process, pool & PAGED);
        body(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

fn add(call: &Call, process: usize, pool: i32, bytes: usize) {
    process_at(call, process);
    call.machine().nt.quotas().change(process, pool, |charged| *charged = charged.saturating_add(bytes));
}

/// Takes a charge back; false when there was not so much.
fn subtract(call: &Call, process: usize, pool: i32, bytes: usize) -> bool {
    process_at(call, process);
    call.machine().nt.quotas().change(process, pool, |charged| {
        let left = charged.checked_sub(bytes);
        *charged = left.unwrap_or(*charged);
        left.is_some()
    })
}

extern "efiapi" fn charge(process: usize, pool: i32, bytes: usize) {
    let call = Call::enter();
    if call.falls_short() {
        call.raise(NtStatus::QUOTA_EXCEEDED);
    }
    add(&call, process, pool, bytes);
}

extern "efiapi" fn give_back(process: usize, pool: i32, bytes: usize) {
    let call = Call::enter();
    if !subtract(&call, process, pool, bytes) {
        call.raise(NtStatus::QUOTA_EXCEEDED);
    }
}

extern "efiapi" fn charge_status(process: usize, pool: i32, bytes: usize) -> NtStatus {
    add(&Call::enter(), process, pool, bytes);
    NtStatus::SUCCESS
}

extern "efiapi" fn charge_paged(process: usize, bytes: usize) -> NtStatus {
    charge_status(process, PAGED, bytes)
}

extern "efiapi" fn charge_non_paged(process: usize, bytes: usize) -> NtStatus {
    charge_status(process, NON_PAGED, bytes)
}

extern "efiapi" fn give_back_paged(process: usize, bytes: usize) {
    give_back(process, PAGED, bytes);
}

extern "efiapi" fn give_back_non_paged(process: usize, bytes: usize) {
    give_back(process, NON_PAGED, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn what_was_charged_can_be_returned_once() {
        conforms!("ntifs/nf-ntifs-pschargepoolquota.md", "Each charge is matched by a return.");
        conforms!("ntifs/nf-ntifs-psreturnpoolquota.md", "More than was charged cannot be returned.");
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().unwrap();
        let process = program.object();
        bench
            .run(|| {
                charge(process, 1, 100);
                assert_eq!(charge_non_paged(process, 10), NtStatus::SUCCESS);
                let call = Call::enter();
                assert!(!subtract(&call, process, PAGED, 101));
                assert!(!subtract(&call, process, NON_PAGED, 11));
            })
            .unwrap();
        bench
            .run(|| {
                give_back(process, 5, 100);
                give_back_non_paged(process, 10);
                assert!(!subtract(&Call::enter(), process, PAGED, 1));
            })
            .unwrap();
    }
}
