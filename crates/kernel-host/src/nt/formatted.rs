//! The `sprintf` family.
//!
//! As with `DbgPrint` (see there), a piece of assembly makes the variadic arguments an array of 64-bit slots.

use super::debug::format_message;
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    sprintf(max 31) = kernel_host_sprintf;
    _snprintf(max 31) = kernel_host_snprintf;
    _vsnprintf(max 31) = vsnprintf;
    sprintf_s(max 31) = kernel_host_sprintf_s;
    vsprintf_s(max 31) = vsprintf_s;
    _snprintf_s(max 31) = kernel_host_snprintf_s;
    _vsnprintf_s(max 31) = vsnprintf_s;
    swprintf(max 31) = kernel_host_swprintf;
    _swprintf(max 31) = kernel_host_swprintf;
    _vswprintf(max 31) = vswprintf;
    _snwprintf(max 31) = kernel_host_snwprintf;
    _vsnwprintf(max 31) = vsnwprintf;
    swprintf_s(max 31) = kernel_host_swprintf_s;
    vswprintf_s(max 31) = vswprintf_s;
    _snwprintf_s(max 31) = kernel_host_snwprintf_s;
    _vsnwprintf_s(max 31) = vsnwprintf_s;
}

/// `_TRUNCATE`.
const TRUNCATE: usize = usize::MAX;

unsafe extern "efiapi" {
    fn kernel_host_sprintf();
    fn kernel_host_snprintf();
    fn kernel_host_sprintf_s();
    fn kernel_host_snprintf_s();
    fn kernel_host_swprintf();
    fn kernel_host_snwprintf();
    fn kernel_host_swprintf_s();
    fn kernel_host_snwprintf_s();
}

// After two fixed parameters the array is the third, and so on; after four its address goes onto the stack, where only the
// callee's own slot is free: the routine with five parameters is therefore given the array's place behind the fourth.
core::arch::global_asm!(
    r#"
    .macro kernel_host_after_2 name, target
    .globl \name
\name:
    mov [rsp + 24], r8
    mov [rsp + 32], r9
    lea r8, [rsp + 24]
    jmp \target
    .endm
    .macro kernel_host_after_3 name, target
    .globl \name
\name:
    mov [rsp + 32], r9
    lea r9, [rsp + 32]
    jmp \target
    .endm
    .macro kernel_host_after_4 name, target
    .globl \name
\name:
    sub rsp, 56
    lea rax, [rsp + 96]
    mov [rsp + 32], rax
    call \target
    add rsp, 56
    ret
    .endm
    .text
    kernel_host_after_2 kernel_host_sprintf, {vsprintf}
    kernel_host_after_3 kernel_host_snprintf, {vsnprintf}
    kernel_host_after_3 kernel_host_sprintf_s, {vsprintf_s}
    kernel_host_after_4 kernel_host_snprintf_s, {vsnprintf_s}
    kernel_host_after_2 kernel_host_swprintf, {vswprintf}
    kernel_host_after_3 kernel_host_snwprintf, {vsnwprintf}
    kernel_host_after_3 kernel_host_swprintf_s, {vswprintf_s}
    kernel_host_after_4 kernel_host_snwprintf_s, {vsnwprintf_s}
"#,
    vsprintf = sym vsprintf,
    vsnprintf = sym vsnprintf,
    vsprintf_s = sym vsprintf_s,
    vsnprintf_s = sym vsnprintf_s,
    vswprintf = sym vswprintf,
    vsnwprintf = sym vsnwprintf,
    vswprintf_s = sym vswprintf_s,
    vsnwprintf_s = sym vsnwprintf_s,
);

/// A text of 8-bit or 16-bit characters as the formatter wants its format and gives its result.
trait Text: Copy + Default {
    /// The format: characters beyond 8 bits do not occur in conversions.
    fn format(at: Raw<Self>) -> Vec<u8>;
    fn encode(text: &str) -> Vec<Self>;
    /// `%s` means the routine's own width.
    const WIDE: bool;
}

impl Text for u8 {
    fn format(at: Raw<Self>) -> Vec<u8> {
        let length = (0..usize::MAX).find(|index| at.index(*index).read() == 0).unwrap_or(0);
        at.read_bytes(length)
    }

    fn encode(text: &str) -> Vec<Self> {
        text.chars().map(|unit| u8::try_from(u32::from(unit)).unwrap_or(b'?')).collect()
    }

    const WIDE: bool = false;
}

impl Text for u16 {
    fn format(at: Raw<Self>) -> Vec<u8> {
        let length = (0..usize::MAX).find(|index| at.index(*index).read() == 0).unwrap_or(0);
        at.read_slice(length).into_iter().map(|unit| u8::try_from(unit).unwrap_or(b'?')).collect()
    }

    fn encode(text: &str) -> Vec<Self> {
        text.encode_utf16().collect()
    }

    const WIDE: bool = true;
}

/// Writes text and terminator as far as they fit; what of both did.
fn store<T: Text>(target: Raw<T>, text: &[T], room: usize) {
    for (index, unit) in text.iter().take(room).enumerate() {
        target.index(index).write(*unit);
    }
    if text.len() < room {
        target.index(text.len()).write(T::default());
    }
}

fn expand<T: Text>(format: Raw<T>, arguments: Raw<u64>) -> Vec<T> {
    T::encode(&format_message(&T::format(format), arguments, T::WIDE))
}

fn length(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// `_snprintf`: no terminator when the text just fits, -1 when it does not.
fn bounded<T: Text>(target: Raw<T>, room: usize, format: Raw<T>, arguments: Raw<u64>) -> i32 {
    let text = expand(format, arguments);
    store(target, &text, room);
    if text.len() > room { -1 } else { length(text.len()) }
}

/// The `_s` routines: a text without room is an invalid parameter, which ends a driver; with `_TRUNCATE` it is cut.
fn safe<T: Text>(call: &Call, target: Raw<T>, size: usize, most: usize, format: Raw<T>, arguments: Raw<u64>) -> i32 {
    let mut text = expand(format, arguments);
    let whole = text.len();
    text.truncate(if most == TRUNCATE { size.saturating_sub(1) } else { most });
    if target.is_null() || text.len() >= size {
        call.stop(Rule::BadArgument, format!("{whole} characters do not fit into {size} at {target:?}"));
    }
    store(target, &text, size);
    if text.len() < whole { -1 } else { length(whole) }
}

extern "efiapi" fn vsprintf(target: Raw<u8>, format: Raw<u8>, arguments: Raw<u64>) -> i32 {
    let _call = Call::enter();
    bounded(target, usize::MAX, format, arguments)
}

extern "efiapi" fn vsnprintf(target: Raw<u8>, room: usize, format: Raw<u8>, arguments: Raw<u64>) -> i32 {
    let _call = Call::enter();
    bounded(target, room, format, arguments)
}

extern "efiapi" fn vsprintf_s(target: Raw<u8>, size: usize, format: Raw<u8>, arguments: Raw<u64>) -> i32 {
    safe(&Call::enter(), target, size, usize::MAX - 1, format, arguments)
}

extern "efiapi" fn vsnprintf_s(target: Raw<u8>, size: usize, most: usize, format: Raw<u8>, arguments: Raw<u64>) -> i32 {
    safe(&Call::enter(), target, size, most, format, arguments)
}

extern "efiapi" fn vswprintf(target: Raw<u16>, format: Raw<u16>, arguments: Raw<u64>) -> i32 {
    let _call = Call::enter();
    bounded(target, usize::MAX, format, arguments)
}

extern "efiapi" fn vsnwprintf(target: Raw<u16>, room: usize, format: Raw<u16>, arguments: Raw<u64>) -> i32 {
    let _call = Call::enter();
    bounded(target, room, format, arguments)
}

extern "efiapi" fn vswprintf_s(target: Raw<u16>, size: usize, format: Raw<u16>, arguments: Raw<u64>) -> i32 {
    safe(&Call::enter(), target, size, usize::MAX - 1, format, arguments)
}

extern "efiapi" fn vsnwprintf_s(
    target: Raw<u16>,
    size: usize,
    most: usize,
    format: Raw<u16>,
    arguments: Raw<u64>,
) -> i32 {
    safe(&Call::enter(), target, size, most, format, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;

    type Variadic2 = unsafe extern "efiapi" fn(Raw<u8>, *const u8, u64, u64, u64) -> i32;
    type Variadic4 = unsafe extern "efiapi" fn(Raw<u16>, usize, usize, *const u16, u64, u64) -> i32;

    #[test]
    fn arguments_are_found_behind_two_and_behind_four_parameters() {
        // SAFETY: the routine's parameters, and three for its format.
        let sprintf = unsafe { std::mem::transmute::<*const (), Variadic2>(kernel_host_sprintf as *const ()) };
        // SAFETY: the routine's parameters, and two for its format.
        let wide = unsafe { std::mem::transmute::<*const (), Variadic4>(kernel_host_snwprintf_s as *const ()) };
        Bench::new()
            .run(|| {
                let mut target = [0_u8; 32];
                let to = Raw::of(target.as_mut_ptr());
                // SAFETY: as declared.
                let length =
                    unsafe { sprintf(to, c"%d %04x %s".as_ptr().cast(), 7, 0xAB, c"end".as_ptr().addr() as u64) };
                assert_eq!((length, to.read_bytes(11).as_slice()), (10, &b"7 00ab end\0"[..]));
                let mut target = [0_u16; 32];
                let to = Raw::of(target.as_mut_ptr());
                let format: Vec<u16> = "%s-%u\0".encode_utf16().collect();
                let text: Vec<u16> = "wide\0".encode_utf16().collect();
                // SAFETY: as declared.
                let length = unsafe { wide(to, 32, TRUNCATE, format.as_ptr(), text.as_ptr().addr() as u64, 9) };
                assert_eq!((length, String::from_utf16_lossy(&to.read_slice(6))), (6, "wide-9".to_owned()));
            })
            .unwrap();
    }

    #[test]
    fn a_text_that_does_not_fit_is_cut_without_terminator_or_a_finding() {
        let mut target = [0xEE_u8; 8];
        let to = Raw::of(target.as_mut_ptr());
        let format = Raw::of(c"abcdef".as_ptr().cast_mut().cast());
        Bench::new()
            .run(|| {
                assert_eq!(vsnprintf(to, 4, format, Raw::NULL), -1);
                assert_eq!(to.read_bytes(5), [b'a', b'b', b'c', b'd', 0xEE]);
                assert_eq!(vsnprintf_s(to, 4, TRUNCATE, format, Raw::NULL), -1);
                assert_eq!(to.read_bytes(4), *b"abc\0");
            })
            .unwrap();
        let stopped = Bench::new().run(|| vsprintf_s(to, 4, format, Raw::NULL));
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
    }
}
