//! The C run-time routines that `ntoskrnl.exe` exports: `memcpy` and its like.
//!
//! They are leaf functions in assembly: no stack frame, volatile registers only. Drivers copy user memory with them inside
//! `__try`; when such a copy faults, the exception belongs to the driver, whose frame is right behind the
//! return address at the stack pointer. [`is_leaf`] tells the fault handler that this is so.

use crate::ddi::exports;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    memcpy(max 31) = kernel_host_memmove;
    memmove(max 31) = kernel_host_memmove;
    memset(max 31) = kernel_host_memset;
    memcmp(max 31) = kernel_host_memcmp;
    RtlCopyMemory(max 31) = kernel_host_memmove;
    RtlMoveMemory(max 31) = kernel_host_memmove;
    RtlCopyMemoryNonTemporal(max 31) = kernel_host_memmove;
    RtlPrefetchMemoryNonTemporal(max 31) = kernel_host_nothing;
    RtlZeroMemory(max 31) = kernel_host_zero;
    RtlFillMemory(max 31) = kernel_host_fill;
    RtlCompareMemory(max 31) = kernel_host_compare;
    strlen(max 31) = kernel_host_strlen;
    wcslen(max 31) = kernel_host_wcslen;
    __chkstk(max 31) = kernel_host_chkstk;
}

/// Whether `address` is inside one of the leaf functions.
pub(crate) fn is_leaf(address: usize) -> bool {
    let start = kernel_host_crt_start as *const () as usize;
    let end = kernel_host_crt_end as *const () as usize;
    (start..end).contains(&address)
}

unsafe extern "efiapi" {
    fn kernel_host_crt_start();
    fn kernel_host_crt_end();
    fn kernel_host_memmove();
    fn kernel_host_memset();
    fn kernel_host_memcmp();
    fn kernel_host_zero();
    fn kernel_host_nothing();
    fn kernel_host_fill();
    fn kernel_host_compare();
    fn kernel_host_strlen();
    fn kernel_host_wcslen();
    fn kernel_host_chkstk();
}

// Arguments: rcx, rdx, r8; result: rax. Volatile: rax, rcx, rdx, r8 to r11, xmm0 to xmm5. The direction flag is clear.
core::arch::global_asm!(
    r#"
    .text
    .p2align 4
    .globl kernel_host_crt_start
kernel_host_crt_start:

    # memmove(to, from, length): forwards, unless the target begins inside the source.
    .globl kernel_host_memmove
kernel_host_memmove:
    mov rax, rcx
    mov r9, rcx
    sub r9, rdx
    cmp r9, r8
    jb 5f
2:  cmp r8, 16
    jb 3f
    movups xmm0, [rdx]
    movups [rcx], xmm0
    add rdx, 16
    add rcx, 16
    sub r8, 16
    jmp 2b
3:  test r8, r8
    jz 4f
    mov r9b, [rdx]
    mov [rcx], r9b
    inc rdx
    inc rcx
    dec r8
    jmp 3b
4:  ret
5:  cmp r8, 16
    jb 6f
    movups xmm0, [rdx + r8 - 16]
    movups [rcx + r8 - 16], xmm0
    sub r8, 16
    jmp 5b
6:  test r8, r8
    jz 4b
    mov r9b, [rdx + r8 - 1]
    mov [rcx + r8 - 1], r9b
    dec r8
    jmp 6b

    # RtlPrefetchMemoryNonTemporal(from, length): a hint.
    .globl kernel_host_nothing
kernel_host_nothing:
    ret

    # RtlFillMemory(to, length, byte), RtlZeroMemory(to, length): memset with the arguments in another order.
    .globl kernel_host_fill
kernel_host_fill:
    xchg rdx, r8
    jmp kernel_host_memset
    .globl kernel_host_zero
kernel_host_zero:
    mov r8, rdx
    xor edx, edx

    # memset(to, byte, length)
    .globl kernel_host_memset
kernel_host_memset:
    mov rax, rcx
    movzx edx, dl
    mov r9, 0x0101010101010101
    imul rdx, r9
    movq xmm0, rdx
    punpcklqdq xmm0, xmm0
2:  cmp r8, 16
    jb 3f
    movups [rcx], xmm0
    add rcx, 16
    sub r8, 16
    jmp 2b
3:  test r8, r8
    jz 4f
    mov [rcx], dl
    inc rcx
    dec r8
    jmp 3b
4:  ret

    # memcmp(left, right, length)
    .globl kernel_host_memcmp
kernel_host_memcmp:
    xor eax, eax
2:  test r8, r8
    jz 3f
    movzx eax, byte ptr [rcx]
    movzx r9d, byte ptr [rdx]
    inc rcx
    inc rdx
    dec r8
    sub eax, r9d
    jz 2b
3:  ret

    # RtlCompareMemory(left, right, length): how many bytes are equal.
    .globl kernel_host_compare
kernel_host_compare:
    xor eax, eax
2:  cmp rax, r8
    jae 3f
    mov r9b, [rcx + rax]
    cmp r9b, [rdx + rax]
    jne 3f
    inc rax
    jmp 2b
3:  ret

    .globl kernel_host_strlen
kernel_host_strlen:
    xor eax, eax
2:  cmp byte ptr [rcx + rax], 0
    je 3f
    inc rax
    jmp 2b
3:  ret

    .globl kernel_host_wcslen
kernel_host_wcslen:
    xor eax, eax
2:  cmp word ptr [rcx + rax * 2], 0
    je 3f
    inc rax
    jmp 2b
3:  ret

    # Touches every page of a frame of rax bytes, so that a stack overflow hits the guard page. All registers stay.
    .globl kernel_host_chkstk
kernel_host_chkstk:
    push rcx
    push rax
    lea rcx, [rsp + 24]
2:  cmp rax, 4096
    jb 3f
    sub rcx, 4096
    test byte ptr [rcx], 0
    sub rax, 4096
    jmp 2b
3:  sub rcx, rax
    test byte ptr [rcx], 0
    pop rax
    pop rcx
    ret
    .globl kernel_host_crt_end
kernel_host_crt_end:
"#
);

#[cfg(test)]
mod tests {
    use super::*;

    type Move = unsafe extern "efiapi" fn(*mut u8, *const u8, usize) -> *mut u8;
    type Set = unsafe extern "efiapi" fn(*mut u8, i32, usize) -> *mut u8;
    type Compare = unsafe extern "efiapi" fn(*const u8, *const u8, usize) -> i32;
    type Count = unsafe extern "efiapi" fn(*const u8, *const u8, usize) -> usize;

    /// Sees a symbol as the function that it is.
    macro_rules! function {
        ($symbol:ident as $type:ty) => {{
            let address = $symbol as *const ();
            // SAFETY: the symbol is that function; see the assembly.
            unsafe { std::mem::transmute::<*const (), $type>(address) }
        }};
    }

    #[test]
    fn overlapping_moves_keep_the_source_in_both_directions() {
        let moves = function!(kernel_host_memmove as Move);
        for length in [0, 1, 15, 16, 17, 40] {
            for (from, to) in [(0, 5), (5, 0), (3, 3), (0, 50)] {
                let mut bytes: Vec<u8> = (0..100).collect();
                let mut expected = bytes.clone();
                expected.copy_within(from..from + length, to);
                let base = bytes.as_mut_ptr();
                // SAFETY: both ranges are inside the vector.
                unsafe { moves(base.wrapping_add(to), base.wrapping_add(from), length) };
                assert_eq!(bytes, expected, "{length} from {from} to {to}");
            }
        }
    }

    #[test]
    fn filling_stays_in_its_range() {
        let set = function!(kernel_host_memset as Set);
        let mut bytes = [1_u8; 40];
        // SAFETY: the range is inside the array.
        unsafe { set(bytes.as_mut_ptr().wrapping_add(3), 0x1AB, 33) };
        assert_eq!(bytes[..3], [1; 3]);
        assert_eq!(bytes[3..36], [0xAB; 33]);
        assert_eq!(bytes[36..], [1; 4]);
    }

    #[test]
    fn comparisons_tell_order_and_the_first_difference() {
        let compare = function!(kernel_host_memcmp as Compare);
        let count = function!(kernel_host_compare as Count);
        let (left, right) = (b"abcd", b"abed");
        // SAFETY: both arrays have four bytes.
        assert!(unsafe { compare(left.as_ptr(), right.as_ptr(), 4) } < 0);
        // SAFETY: as above.
        assert_eq!(unsafe { compare(left.as_ptr(), right.as_ptr(), 2) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { count(left.as_ptr(), right.as_ptr(), 4) }, 2);
    }

    #[test]
    fn the_fault_handler_recognises_the_leaf_functions() {
        assert!(is_leaf(kernel_host_memmove as *const () as usize + 3));
        assert!(!is_leaf(is_leaf as *const () as usize));
    }
}
