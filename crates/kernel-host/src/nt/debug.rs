//! `DbgPrint`, its formats, and bug checks.

use std::sync::{Mutex, PoisonError};

use nt_types::{NtStatus, UNICODE_STRING};

use super::raw::Raw;
use super::unicode;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Inner, Machine};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    DbgPrint(max 31) = kernel_host_dbg_print;
    DbgPrintEx(max 31) = kernel_host_dbg_print_ex;
    vDbgPrintEx(max 31) = dbg_print_ex;
    vDbgPrintExWithPrefix(max 31) = dbg_print_ex_with_prefix;
    DbgQueryDebugFilterState(max 31) = dbg_query_debug_filter_state;
    DbgSetDebugFilterState(max 31) = dbg_set_debug_filter_state;
    KeBugCheckEx(max 31) = ke_bug_check_ex;
    KeBugCheck(max 31) = ke_bug_check;
    RtlAssert(max 31) = rtl_assert;
}

/// Longest message in bytes; the kernel cuts what is longer.
const MAX_MESSAGE: usize = 512;

/// Lines that drivers printed.
#[derive(Debug, Default)]
pub(crate) struct DebugLog(Mutex<Vec<String>>);

impl DebugLog {
    fn push(&self, line: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// What a debugger shows before somebody types `g`.
pub(crate) fn log_breakpoint(machine: &Inner, address: u64) {
    let address = address as usize;
    let place =
        crate::image::find(address).map_or_else(|| format!("{address:#x}"), |module| module.name_address(address));
    machine.nt.debug_log().push(format!("break instruction exception at {place}"));
}

impl Machine {
    /// What drivers printed with `DbgPrint` and its like, oldest first, each as `driver: text`.
    #[must_use]
    pub fn debug_log(&self) -> Vec<String> {
        self.inner().nt.debug_log().0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

unsafe extern "efiapi" {
    fn kernel_host_dbg_print();
    fn kernel_host_dbg_print_ex();
}

// Variadic functions cannot be written in stable Rust. In the Microsoft convention the variadic arguments form an array as
// soon as those in registers are stored where the caller has left room for them.
core::arch::global_asm!(
    r#"
    .text
    .globl kernel_host_dbg_print
kernel_host_dbg_print:
    mov [rsp + 16], rdx
    mov [rsp + 24], r8
    mov [rsp + 32], r9
    lea rdx, [rsp + 16]
    jmp {dbg_print}
    .globl kernel_host_dbg_print_ex
kernel_host_dbg_print_ex:
    mov [rsp + 32], r9
    lea r9, [rsp + 32]
    jmp {dbg_print_ex}
"#,
    dbg_print = sym dbg_print,
    dbg_print_ex = sym dbg_print_ex,
);

extern "efiapi" fn dbg_print(format: Raw<u8>, arguments: Raw<u64>) -> u32 {
    print(&Call::enter(), format, arguments)
}

extern "efiapi" fn dbg_print_ex(_component: u32, _level: u32, format: Raw<u8>, arguments: Raw<u64>) -> u32 {
    print(&Call::enter(), format, arguments)
}

extern "efiapi" fn dbg_print_ex_with_prefix(
    prefix: Raw<u8>,
    _component: u32,
    _level: u32,
    format: Raw<u8>,
    arguments: Raw<u64>,
) -> u32 {
    let call = Call::enter();
    let prefix = c_string(prefix, MAX_MESSAGE).into_iter().map(char::from).collect();
    print_behind(&call, prefix, format, arguments)
}

/// Every component prints at every level.
extern "efiapi" fn dbg_query_debug_filter_state(_component: u32, _level: u32) -> u32 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn dbg_set_debug_filter_state(_component: u32, _level: u32, _state: u8) -> NtStatus {
    let _call = Call::enter();
    NtStatus::SUCCESS
}

fn print(call: &Call, format: Raw<u8>, arguments: Raw<u64>) -> u32 {
    print_behind(call, String::new(), format, arguments)
}

fn print_behind(call: &Call, prefix: String, format: Raw<u8>, arguments: Raw<u64>) -> u32 {
    let format = c_string(format, usize::MAX);
    if call.thread().irql() > nt_types::PASSIVE_LEVEL && has_wide_conversion(&format) {
        call.stop(
            Rule::IrqlTooHigh,
            format!("{:?}: wide characters are printed at PASSIVE_LEVEL only", String::from_utf8_lossy(&format)),
        );
    }
    let mut text = prefix + &format_message(&format, arguments, false);
    let end = (0..=MAX_MESSAGE.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or_default());
    let line = text.trim_end_matches(['\r', '\n']);
    call.detail(line);
    call.machine().nt.debug_log().push(format!("{}: {line}", call.driver().name));
    0
}

pub(super) extern "efiapi" fn ke_bug_check_ex(code: u32, first: usize, second: usize, third: usize, fourth: usize) {
    let call = Call::enter();
    super::bug_check::call_back(&call, code);
    call.stop(Rule::BugCheck, format!("bug check {code:#x} ({first:#x}, {second:#x}, {third:#x}, {fourth:#x})"));
}

extern "efiapi" fn ke_bug_check(code: u32) {
    let call = Call::enter();
    super::bug_check::call_back(&call, code);
    call.stop(Rule::BugCheck, format!("bug check {code:#x}"));
}

/// What `ASSERT` of a checked build calls: a finding, where Windows breaks into the debugger.
extern "efiapi" fn rtl_assert(assertion: Raw<u8>, file: Raw<u8>, line: u32, message: Raw<u8>) {
    let call = Call::enter();
    let text = |at: Raw<u8>| {
        at.some().map_or_else(String::new, |at| String::from_utf8_lossy(&c_string(at, MAX_MESSAGE)).into_owned())
    };
    let (assertion, file, message) = (text(assertion), text(file), text(message));
    call.stop(Rule::UnhandledException, format!("assertion failed: {assertion} at {file}:{line} {message}"));
}

/// One conversion of a format string.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are printf's independent flags")]
struct Conversion {
    left: bool,
    zeros: bool,
    plus: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    size: Size,
    wide: bool,
    narrow: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Size {
    Short,
    #[default]
    Int,
    Wide,
}

/// Expands a format of the kernel's printf with an array of 64-bit argument slots. `wide` makes 16-bit characters the
/// ordinary ones, as in the wide routines, where `%S` and `%hs` are 8-bit.
pub(super) fn format_message(format: &[u8], arguments: Raw<u64>, wide: bool) -> String {
    let mut taken = 0;
    let mut next = || {
        taken += 1;
        arguments.index(taken - 1).read()
    };
    let mut out = String::new();
    let mut rest = format;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(char::from(byte));
            continue;
        }
        let mut conversion = Conversion::default();
        conversion.parse(&mut rest, &mut next);
        let Some((&kind, tail)) = rest.split_first() else { break };
        rest = tail;
        if kind == b'%' {
            out.push('%');
        } else {
            let kind = match kind {
                b's' if wide && !conversion.narrow => b'S',
                b'S' if wide && !conversion.wide => b's',
                other => other,
            };
            out.push_str(&conversion.expand(kind, next()));
        }
    }
    out
}

/// Whether a format prints wide characters: `%C`, `%S`, `%lc`, `%ls`, `%wc`, `%ws`, `%wZ`.
fn has_wide_conversion(format: &[u8]) -> bool {
    let mut rest = format;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            continue;
        }
        let mut conversion = Conversion::default();
        // Widths that are arguments are of no interest.
        conversion.parse(&mut rest, &mut || 0);
        let Some((&kind, tail)) = rest.split_first() else { break };
        rest = tail;
        let wide = match kind {
            b'C' | b'S' => !conversion.narrow,
            b'c' | b's' | b'Z' => conversion.wide,
            _ => false,
        };
        if wide {
            return true;
        }
    }
    false
}

impl Conversion {
    /// Reads flags, width, precision and size.
    fn parse(&mut self, rest: &mut &[u8], next: &mut impl FnMut() -> u64) {
        while let Some((flag, tail)) = rest.split_first() {
            match flag {
                b'-' => self.left = true,
                b'0' => self.zeros = true,
                b'+' => self.plus = true,
                b'#' => self.alternate = true,
                b' ' => {}
                _ => break,
            }
            *rest = tail;
        }
        self.width = number(rest, next).unwrap_or(0);
        if let Some(tail) = rest.strip_prefix(b".") {
            *rest = tail;
            self.precision = Some(number(rest, next).unwrap_or(0));
        }
        for (prefix, size) in [
            (&b"I64"[..], Size::Wide),
            (b"I32", Size::Int),
            (b"ll", Size::Wide),
            (b"I", Size::Wide),
            (b"z", Size::Wide),
        ] {
            if let Some(tail) = rest.strip_prefix(prefix) {
                *rest = tail;
                self.size = size;
                return;
            }
        }
        match rest.split_first() {
            // `l` makes characters wide; integers of type long have 32 bits.
            Some((b'w' | b'l', tail)) => (self.wide, *rest) = (true, tail),
            Some((b'h', tail)) => (self.narrow, self.size, *rest) = (true, Size::Short, tail),
            _ => {}
        }
    }

    fn expand(&self, kind: u8, value: u64) -> String {
        let (text, numeric) = match kind {
            b'd' | b'i' => (self.signed(value), true),
            b'u' => (self.unsigned(value).to_string(), true),
            b'x' => (self.prefixed("0x", format!("{:x}", self.unsigned(value))), true),
            b'X' => (self.prefixed("0X", format!("{:X}", self.unsigned(value))), true),
            b'o' => (format!("{:o}", self.unsigned(value)), true),
            b'p' => (format!("{value:016X}"), true),
            b'c' | b'C' => (character(value as u32), false),
            b's' => (self.string(value, self.wide), false),
            b'S' => (self.string(value, !self.narrow), false),
            b'Z' => (self.counted(value), false),
            other => (format!("%{}", char::from(other)), false),
        };
        self.pad(&text, numeric)
    }

    fn signed(&self, value: u64) -> String {
        let number = match self.size {
            Size::Short => i64::from(value as i16),
            Size::Int => i64::from(value as i32),
            Size::Wide => value.cast_signed(),
        };
        if self.plus && number >= 0 { format!("+{number}") } else { number.to_string() }
    }

    fn unsigned(&self, value: u64) -> u64 {
        match self.size {
            Size::Short => u64::from(value as u16),
            Size::Int => u64::from(value as u32),
            Size::Wide => value,
        }
    }

    fn prefixed(&self, prefix: &str, digits: String) -> String {
        if self.alternate && digits != "0" { format!("{prefix}{digits}") } else { digits }
    }

    fn string(&self, address: u64, wide: bool) -> String {
        let limit = self.precision.unwrap_or(usize::MAX);
        let address = address as usize;
        if address == 0 {
            "(null)".to_owned()
        } else if wide {
            let text = Raw::<u16>::at(address);
            let units: Vec<u16> = (0..limit).map(|at| text.index(at).read()).take_while(|unit| *unit != 0).collect();
            String::from_utf16_lossy(&units)
        } else {
            c_string(Raw::at(address), limit).into_iter().map(char::from).collect()
        }
    }

    fn counted(&self, address: u64) -> String {
        let string = Raw::<UNICODE_STRING>::at(address as usize);
        if string.is_null() {
            "(null)".to_owned()
        } else if self.wide {
            String::from_utf16_lossy(&unicode::units(string))
        } else {
            let string = string.read();
            let bytes = Raw::of(string.Buffer.cast::<u8>()).read_bytes(usize::from(string.Length));
            bytes.into_iter().map(char::from).collect()
        }
    }

    fn pad(&self, text: &str, numeric: bool) -> String {
        let (width, minimum) = (self.width, if numeric { self.precision.unwrap_or(0) } else { 0 });
        let text = format!("{text:0>minimum$}");
        if self.left {
            format!("{text:<width$}")
        } else if self.zeros && numeric {
            let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
            let width = width.saturating_sub(sign.len());
            format!("{sign}{digits:0>width$}")
        } else {
            format!("{text:>width$}")
        }
    }
}

/// A decimal number, or `*`: the next argument.
fn number(rest: &mut &[u8], next: &mut impl FnMut() -> u64) -> Option<usize> {
    if let Some(tail) = rest.strip_prefix(b"*") {
        *rest = tail;
        return Some((next() as u32 as usize).min(MAX_MESSAGE));
    }
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (text, tail) = rest.split_at(digits);
    *rest = tail;
    let value =
        text.iter().fold(0_usize, |value, digit| value.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    (digits > 0).then_some(value.min(MAX_MESSAGE))
}

fn character(value: u32) -> String {
    char::from_u32(value & 0xFFFF).unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
}

/// The bytes of a NUL-terminated string, `limit` at most.
fn c_string(text: Raw<u8>, limit: usize) -> Vec<u8> {
    (0..limit).map(|at| text.index(at).read()).take_while(|byte| *byte != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn expand(format: &str, arguments: &[u64]) -> String {
        let mut slots = arguments.to_vec();
        slots.push(0);
        format_message(format.as_bytes(), Raw::of(slots.as_mut_ptr()), false)
    }

    #[test]
    fn integers_have_32_bits_unless_the_format_says_64() {
        assert_eq!(expand("%d %u %x", &[u64::MAX, u64::MAX, u64::MAX]), "-1 4294967295 ffffffff");
        assert_eq!(expand("%I64u %lld %Ix", &[1 << 40, u64::MAX, 1 << 40]), "1099511627776 -1 10000000000");
        assert_eq!(expand("%lu|%hd", &[7 | 1 << 40, 0x1_FFFF]), "7|-1");
    }

    #[test]
    fn width_precision_and_flags_pad() {
        assert_eq!(expand("[%5d][%-5d][%05d][%.3d][%#x]", &[42, 42, 42, 7, 255]), "[   42][42   ][00042][007][0xff]");
        assert_eq!(expand("[%*d]", &[4, 1]), "[   1]");
    }

    #[test]
    fn strings_come_in_four_kinds() {
        let narrow = c"narrow";
        let wide: Vec<u16> = "wide\0".encode_utf16().collect();
        let mut counted = UNICODE_STRING::from_utf16(&wide[..4]).expect("short");
        let arguments = [
            narrow.as_ptr().expose_provenance() as u64,
            wide.as_ptr().expose_provenance() as u64,
            wide.as_ptr().expose_provenance() as u64,
            (&raw mut counted).expose_provenance() as u64,
            0,
        ];
        assert_eq!(expand("%s %ws %S %wZ %s %%", &arguments), "narrow wide wide wide (null) %");
    }

    #[test]
    fn wide_characters_are_printed_at_passive_level_only() {
        conforms!("wdm/nf-wdm-dbgprint.md", "Unicode format codes are for PASSIVE_LEVEL.");
        let print_at = |irql: u8, format: &'static std::ffi::CStr| {
            let bench = Bench::new();
            // As many as the longest format below takes.
            let mut arguments = [0_u64; 3];
            bench.run(|| {
                crate::thread::Thread::current().set_irql(irql);
                dbg_print(Raw::at(format.as_ptr().expose_provenance()), Raw::of(arguments.as_mut_ptr()));
                crate::thread::Thread::current().set_irql(0);
            })
        };
        assert!(print_at(2, c"%d %hS %s").is_ok());
        assert!(print_at(0, c"%wZ").is_ok());
        for format in [c"%wZ", c"%5.3ws", c"%S", c"%lc"] {
            assert_eq!(print_at(2, format).unwrap_err().0.rule, Rule::IrqlTooHigh, "{format:?}");
        }
    }

    #[test]
    fn a_message_is_cut_at_512_bytes() {
        conforms!("wdm/nf-wdm-dbgprint.md", "One call transmits 512 bytes at most.");
        let bench = Bench::new();
        let long = std::ffi::CString::new("x".repeat(600)).unwrap();
        // As many as a format above has.
        let mut arguments = [0_u64; 3];
        bench.run(|| dbg_print(Raw::at(long.as_ptr().expose_provenance()), Raw::of(arguments.as_mut_ptr()))).unwrap();
        assert_eq!(bench.machine().debug_log()[0].len(), "test.sys: ".len() + MAX_MESSAGE);
    }

    #[test]
    fn pointers_are_sixteen_digits() {
        assert_eq!(expand("%p", &[0xABC]), "0000000000000ABC");
    }

    #[test]
    fn a_debugger_goes_on_at_breakpoints_and_shows_where_they_were() {
        let bench = Bench::with(Machine::builder().with_debugger());
        bench.run(|| crate::cpu::dbg_break_point(0)).unwrap();
        let log = bench.machine().debug_log();
        assert!(matches!(&log[..], [line] if line.starts_with("break instruction exception at ")), "{log:?}");
        let alone = Bench::new().run(|| crate::cpu::dbg_break_point(0)).unwrap_err().0;
        assert_eq!(alone.rule, Rule::UnhandledException);
    }

    #[test]
    fn messages_are_logged_with_their_driver() {
        conforms!("wdm/nf-wdm-dbgprint.md", "The message goes to the debugger, formatted as by printf.");
        let bench = Bench::new();
        let mut arguments = [5_u64];
        let format = Raw::at(c"n=%d\n".as_ptr().expose_provenance());
        bench.run(|| dbg_print(format, Raw::of(arguments.as_mut_ptr()))).unwrap();
        assert_eq!(bench.machine().debug_log(), ["test.sys: n=5"]);
    }

    #[test]
    fn variadic_arguments_arrive_from_registers_and_stack() {
        type Print = unsafe extern "efiapi" fn(*const i8, u64, u64, u64, u64) -> u32;
        let address = kernel_host_dbg_print as *const ();
        // SAFETY: the symbol is DbgPrint; a fixed number of arguments is passed like a variable one.
        let print = unsafe { std::mem::transmute::<*const (), Print>(address) };
        let bench = Bench::new();
        // SAFETY: the format takes the four integers that are passed.
        bench.run(|| unsafe { print(c"%u %u %u %u".as_ptr(), 1, 2, 3, 4) }).unwrap();
        assert_eq!(bench.machine().debug_log(), ["test.sys: 1 2 3 4"]);
    }

    #[test]
    fn a_bug_check_stops_the_machine_with_its_code() {
        conforms!("wdm/nf-wdm-kebugcheckex.md", "The system stops, and tells the code and its parameters.");
        let finding = Bench::new().run(|| ke_bug_check_ex(0xC4, 1, 2, 3, 4)).unwrap_err().0;
        assert_eq!(finding.rule, Rule::BugCheck);
        assert!(finding.message.contains("0xc4"), "{}", finding.message);
    }
}
