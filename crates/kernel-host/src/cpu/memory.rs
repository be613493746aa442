//! Reading and writing memory that may not be there, for the host itself.
//!
//! Assembly, because the fault handler has to know from RIP alone where to go on. (Drivers' own copies fault in
//! [`crate::nt::crt`] and become exceptions in the driver.)

std::arch::global_asm!(
    // u64 kh_try_copy(rdi: to, rsi: from, rdx: bytes): bytes not copied.
    ".global kh_try_copy, kh_try_copy_begin, kh_try_copy_end",
    "kh_try_copy:",
    "mov rcx, rdx",
    "kh_try_copy_begin:",
    "rep movsb",
    "kh_try_copy_end:", // the fault handler goes on here, with RCX counting what is missing
    "mov rax, rcx",
    "ret",
);

unsafe extern "sysv64" {
    safe static kh_try_copy_begin: u8;
    safe static kh_try_copy_end: u8;
    fn kh_try_copy(to: *mut u8, from: *const u8, bytes: usize) -> usize;
}

/// Where to go on when [`try_copy`] faulted at `rip`.
pub(super) fn recovery(rip: usize) -> Option<usize> {
    let end = &raw const kh_try_copy_end as usize;
    (&raw const kh_try_copy_begin as usize..end).contains(&rip).then_some(end)
}

/// Copies memory that may not be there. Returns the number of bytes not copied: 0 when all went well.
///
/// Needs the fault handler, which [`crate::thread::Thread::enter`] installs.
///
/// # Safety
/// What is written must be plain memory that no Rust reference claims at the moment.
pub(crate) unsafe fn try_copy(to: *mut u8, from: *const u8, bytes: usize) -> usize {
    // SAFETY: faults are survived; the caller answers for what is written.
    unsafe { kh_try_copy(to, from, bytes) }
}

/// Reads a value from an address that may be bad.
pub(crate) fn try_read<const N: usize>(address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: only our own array is written.
    let missing = unsafe { try_copy(bytes.as_mut_ptr(), address as *const u8, N) };
    (missing == 0).then_some(bytes)
}

/// Reads a 64-bit word from an address that may be bad.
pub(crate) fn try_read_u64(address: u64) -> Option<u64> {
    try_read(address).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_a_bad_address_reports_instead_of_crashing() {
        crate::cpu::install_handlers();
        assert_eq!(try_read_u64(0x10), None);
        let value = 0x1234_u64;
        assert_eq!(try_read_u64(&raw const value as u64), Some(0x1234));
    }
}
