//! A copy that survives a fault.
//!
//! Touching user memory can raise an exception at any byte, and Rust has no `__try`. This routine
//! carries its own unwind data: `__C_specific_handler` finds the faulting instruction in the scope table and goes on at the
//! label behind it, with an error in eax. Every exception counts, an in-page error and a guard page too.
//!
//! What has been copied before the fault stays copied: after an error the destination is partly written.

use nt_types::NtStatus;

unsafe extern "C" {
    /// Copies `length` bytes; 0, or STATUS_ACCESS_VIOLATION when either side faulted.
    fn fwbroker_guarded_copy(destination: *mut u8, source: *const u8, length: usize) -> u32;
}

/// Copies between kernel and user memory.
///
/// # Errors
/// STATUS_ACCESS_VIOLATION.
///
/// # Safety
/// IRQL <= APC_LEVEL, in the context of the process that the user memory belongs to. One side is kernel memory of at
/// least `length` bytes, which nobody else touches meanwhile; the other is any range below MmHighestUserAddress.
pub(super) unsafe fn copy(destination: *mut u8, source: *const u8, length: usize) -> Result<(), NtStatus> {
    // SAFETY: the caller's contract is the routine's; a fault on the user side comes back as a status.
    match unsafe { fwbroker_guarded_copy(destination, source, length) } {
        0 => Ok(()),
        _ => Err(NtStatus::ACCESS_VIOLATION),
    }
}

// rcx, rdx, r8 as the convention has them. The handler relies on rsp alone, which the prologue
// describes; rsi and rdi come back from the stack on both ways out. The scope begins at the copy and
// ends behind the nop, so that the address after `rep movsb` still lies inside it.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    r#"
    .text
    .globl fwbroker_guarded_copy
    .p2align 4
fwbroker_guarded_copy:
    .seh_proc fwbroker_guarded_copy
    .seh_handler __C_specific_handler, @unwind, @except
    pushq %rsi
    .seh_pushreg %rsi
    pushq %rdi
    .seh_pushreg %rdi
    subq $40, %rsp
    .seh_stackalloc 40
    .seh_endprologue
    movq %rcx, %rdi
    movq %rdx, %rsi
    movq %r8, %rcx
30: rep movsb
    nop
31: xorl %eax, %eax
    jmp 33f
32: movl $0xC0000005, %eax
33: addq $40, %rsp
    popq %rdi
    popq %rsi
    retq
    .seh_handlerdata
    .long 1
    .long (30b)@IMGREL
    .long (31b)@IMGREL
    .long 1
    .long (32b)@IMGREL
    .text
    .seh_endproc
"#,
    options(att_syntax)
);

#[cfg(not(target_arch = "x86_64"))]
compile_error!("write fwbroker_guarded_copy for this architecture: a copy loop with .seh_handler data");
