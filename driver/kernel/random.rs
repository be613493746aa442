//! Entropy for the key of this boot's handles.

use super::imports::KeQueryInterruptTimePrecise;
use sha2::{Digest, Sha256};
use wdk_sys::ntddk::{PsGetCurrentProcessId, PsGetCurrentThreadId};

/// 256 bits that cannot be foreseen from user mode.
///
/// The processor's generator where there is one, and in any case what differs between boots:
/// counters and addresses. Hashed together, so that the result is no worse than its best source. No cng.sys: a
/// boot-time dependency for one key is a poor trade, and handles are bound to their sessions anyway.
pub(crate) fn key() -> [u64; 4] {
    let mut hash = Sha256::new();
    for _ in 0..8 {
        hash.update(hardware().unwrap_or(0).to_le_bytes());
        let mut counter = 0;
        // SAFETY: the out cell is ours (rule: KeQueryInterruptTimePrecise, any level).
        let time = unsafe { KeQueryInterruptTimePrecise(&raw mut counter) };
        hash.update(time.to_le_bytes());
        hash.update(counter.to_le_bytes());
    }
    // SAFETY: no preconditions (rule: PsGetCurrentThreadId).
    hash.update((unsafe { PsGetCurrentThreadId() } as usize).to_le_bytes());
    // SAFETY: no preconditions (rule: PsGetCurrentProcessId).
    hash.update((unsafe { PsGetCurrentProcessId() } as usize).to_le_bytes());
    // Addresses of the stack, the image and the pool are each randomised on their own.
    hash.update((&raw const hash as usize).to_le_bytes());
    hash.update((key as fn() -> [u64; 4] as usize).to_le_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let (words, _) = digest.as_chunks::<8>();
    let mut key = [0; 4];
    for (to, word) in key.iter_mut().zip(words) {
        *to = u64::from_le_bytes(*word);
    }
    key
}

/// A number from RDRAND, where the processor has it and it works.
#[cfg(target_arch = "x86_64")]
fn hardware() -> Option<u64> {
    const RDRAND: u32 = 1 << 30;

    #[target_feature(enable = "rdrand")]
    fn step() -> Option<u64> {
        let mut value = 0;
        (core::arch::x86_64::_rdrand64_step(&mut value) == 1).then_some(value)
    }

    if core::arch::x86_64::__cpuid(1).ecx & RDRAND == 0 {
        return None;
    }
    // It may run dry for a moment; ten tries is what the manual advises.
    // SAFETY: CPUID says that the instruction exists.
    (0..10).find_map(|_| unsafe { step() })
}

/// Architectures without a generator that can be relied on.
#[cfg(not(target_arch = "x86_64"))]
fn hardware() -> Option<u64> {
    None
}
