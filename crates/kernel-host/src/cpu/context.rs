//! The structures of x64 exception handling, as `winnt.h` and `wdm.h` lay them out, and how a `CONTEXT` becomes the processor's state again.

use std::ffi::c_void;
use std::mem::offset_of;

use super::registers::NonVolatile;

/// `CONTEXT` of x64, control, integer and floating-point parts.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub(crate) struct Context {
    pub(crate) home: [u64; 6],
    pub(crate) flags: u32,
    pub(crate) mx_csr: u32,
    pub(crate) segments: [u16; 6],
    pub(crate) eflags: u32,
    pub(crate) debug: [u64; 6],
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the numbering of instructions and of unwind codes.
    pub(crate) integer: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) legacy: [u8; 160],
    pub(crate) xmm: [u128; 16],
    pub(crate) rest: [u8; 96],
    pub(crate) vector: [u128; 26],
    pub(crate) tail: [u64; 6],
}

const _: () = assert!(size_of::<Context>() == 1232);
const _: () = assert!(offset_of!(Context, mx_csr) == 0x34);
const _: () = assert!(offset_of!(Context, eflags) == 0x44);
const _: () = assert!(offset_of!(Context, integer) == 0x78);
const _: () = assert!(offset_of!(Context, rip) == 0xF8);
const _: () = assert!(offset_of!(Context, xmm) == 0x1A0);
const _: () = assert!(offset_of!(Context, tail) == 0x4A0);

/// Indices into [`Context::integer`].
pub(crate) const RAX: usize = 0;
pub(crate) const RCX: usize = 1;
pub(crate) const RBX: usize = 3;
pub(crate) const RSP: usize = 4;
pub(crate) const RBP: usize = 5;
pub(crate) const RSI: usize = 6;
pub(crate) const RDI: usize = 7;

/// `CONTEXT_AMD64 | CONTROL | INTEGER | FLOATING_POINT`.
const CONTEXT_FULL: u32 = 0x0010_000B;
/// All floating-point exceptions masked, round to nearest: how Windows starts every thread.
const INITIAL_MXCSR: u32 = 0x1F80;

impl Context {
    pub(crate) fn new() -> Self {
        Self {
            home: [0; 6],
            flags: CONTEXT_FULL,
            mx_csr: INITIAL_MXCSR,
            segments: [0x10, 0x2B, 0x2B, 0x53, 0x2B, 0x18],
            eflags: 0x202,
            debug: [0; 6],
            integer: [0; 16],
            rip: 0,
            legacy: [0; 160],
            xmm: [0; 16],
            rest: [0; 96],
            vector: [0; 26],
            tail: [0; 6],
        }
    }

    /// The state just after the call that the import gate saw would have returned.
    pub(crate) fn after_call(registers: &NonVolatile) -> Self {
        let mut context = Self::new();
        context.rip = registers.rip;
        context.integer[RSP] = registers.rsp.wrapping_add(8);
        context.integer[RBX] = registers.rbx;
        context.integer[RBP] = registers.rbp;
        context.integer[RSI] = registers.rsi;
        context.integer[RDI] = registers.rdi;
        context.integer[12] = registers.r12;
        context.integer[13] = registers.r13;
        context.integer[14] = registers.r14;
        context.integer[15] = registers.r15;
        context.xmm[6..].copy_from_slice(&registers.xmm);
        context
    }

    pub(crate) fn rsp(&self) -> u64 {
        self.integer[RSP]
    }
}

/// `EXCEPTION_RECORD`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExceptionRecord {
    pub(crate) code: i32,
    pub(crate) flags: u32,
    pub(crate) nested: *mut Self,
    pub(crate) address: u64,
    pub(crate) parameter_count: u32,
    pub(crate) parameters: [u64; 15],
}

const _: () = assert!(size_of::<ExceptionRecord>() == 152);

/// The handler must not ask to continue execution.
pub(crate) const EXCEPTION_NONCONTINUABLE: u32 = 0x1;
/// Second pass: termination handlers run.
pub(crate) const EXCEPTION_UNWINDING: u32 = 0x2;
/// Second pass without a target frame.
pub(crate) const EXCEPTION_EXIT_UNWIND: u32 = 0x4;
/// Second pass has reached the frame that handles the exception.
pub(crate) const EXCEPTION_TARGET_UNWIND: u32 = 0x20;

/// `EXCEPTION_POINTERS`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct ExceptionPointers {
    pub(crate) record: *mut ExceptionRecord,
    pub(crate) context: *mut Context,
}

/// `DISPATCHER_CONTEXT` of x64: what a language handler learns about the frame it is asked about.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct DispatcherContext {
    pub(crate) control_pc: u64,
    pub(crate) image_base: u64,
    /// Address of the frame's `RUNTIME_FUNCTION`.
    pub(crate) function_entry: u64,
    pub(crate) establisher_frame: u64,
    pub(crate) target_ip: u64,
    pub(crate) context_record: *mut Context,
    pub(crate) language_handler: u64,
    pub(crate) handler_data: u64,
    pub(crate) history_table: *mut c_void,
    pub(crate) scope_index: u32,
    pub(crate) fill: u32,
}

const _: () = assert!(size_of::<DispatcherContext>() == 80);

std::arch::global_asm!(
    // Of the context at RDI: SSE registers and their control word.
    ".macro kh_load_float",
    "ldmxcsr [rdi + {mxcsr}]",
    "movups xmm0, [rdi + {xmm} + 0]",
    "movups xmm1, [rdi + {xmm} + 16]",
    "movups xmm2, [rdi + {xmm} + 32]",
    "movups xmm3, [rdi + {xmm} + 48]",
    "movups xmm4, [rdi + {xmm} + 64]",
    "movups xmm5, [rdi + {xmm} + 80]",
    "movups xmm6, [rdi + {xmm} + 96]",
    "movups xmm7, [rdi + {xmm} + 112]",
    "movups xmm8, [rdi + {xmm} + 128]",
    "movups xmm9, [rdi + {xmm} + 144]",
    "movups xmm10, [rdi + {xmm} + 160]",
    "movups xmm11, [rdi + {xmm} + 176]",
    "movups xmm12, [rdi + {xmm} + 192]",
    "movups xmm13, [rdi + {xmm} + 208]",
    "movups xmm14, [rdi + {xmm} + 224]",
    "movups xmm15, [rdi + {xmm} + 240]",
    ".endm",
    // ... and the integer registers, but for RSP, RSI and RDI, which the loading itself needs.
    ".macro kh_load_integers",
    "mov rax, [rdi + {gpr} + 0]",
    "mov rcx, [rdi + {gpr} + 8]",
    "mov rdx, [rdi + {gpr} + 16]",
    "mov rbx, [rdi + {gpr} + 24]",
    "mov rbp, [rdi + {gpr} + 40]",
    "mov r8, [rdi + {gpr} + 64]",
    "mov r9, [rdi + {gpr} + 72]",
    "mov r10, [rdi + {gpr} + 80]",
    "mov r11, [rdi + {gpr} + 88]",
    "mov r12, [rdi + {gpr} + 96]",
    "mov r13, [rdi + {gpr} + 104]",
    "mov r14, [rdi + {gpr} + 112]",
    "mov r15, [rdi + {gpr} + 120]",
    ".endm",
    // ! kh_restore_context(rdi: *const Context)
    // The new RIP goes just below the new stack top, because every register has its new value by the time of the jump.
    // Windows code has no red zone, and Linux signal frames keep 128 bytes of distance, so that slot is free.
    ".global kh_restore_context",
    "kh_restore_context:",
    "kh_load_float",
    "mov eax, [rdi + {eflags}]",
    "push rax",
    "popfq",
    "mov rax, [rdi + {gpr} + 32]",
    "mov rcx, [rdi + {rip}]",
    "mov [rax - 8], rcx",
    "kh_load_integers",
    "mov rsi, [rdi + {gpr} + 48]",
    "mov rsp, [rdi + {gpr} + 32]",
    "mov rdi, [rdi + {gpr} + 56]",
    "jmp qword ptr [rsp - 8]",
    // ! kh_step_context(rdi: *const Context, rsi: *mut [u64; 5] with RIP, -, flags, RSP, -)
    // As above, with RIP and flags taking effect at once: a trap flag set by popfq would already trap on the jump.
    ".global kh_step_context",
    "kh_step_context:",
    "mov rax, cs",
    "mov [rsi + 8], rax",
    "mov rax, ss",
    "mov [rsi + 32], rax",
    "kh_load_float",
    "kh_load_integers",
    "mov rsp, rsi",
    "mov rsi, [rdi + {gpr} + 48]",
    "mov rdi, [rdi + {gpr} + 56]",
    "iretq",
    ".purgem kh_load_float",
    ".purgem kh_load_integers",
    mxcsr = const offset_of!(Context, mx_csr),
    xmm = const offset_of!(Context, xmm),
    eflags = const offset_of!(Context, eflags),
    gpr = const offset_of!(Context, integer),
    rip = const offset_of!(Context, rip),
);

unsafe extern "sysv64" {
    fn kh_restore_context(context: *const Context) -> !;
    fn kh_step_context(context: *const Context, frame: *mut [u64; 5]) -> !;
}

/// Makes `context` the processor's state: execution goes on in the driver.
///
/// # Safety
/// `context` describes a place in driver code on the current kernel stack, above the calling frames, and those frames
/// own nothing that needs dropping.
pub(crate) unsafe fn restore(context: *const Context) -> ! {
    // SAFETY: the caller's promise is exactly what the routine needs.
    unsafe { kh_restore_context(context) }
}

/// As [`restore`], with flags that may have the trap flag set: exactly one instruction of the driver runs.
///
/// # Safety
/// As for [`restore`]. The context lies above this function's frame.
pub(super) unsafe fn step(context: *const Context) -> ! {
    // SAFETY: the caller says that the context is there.
    let seen = unsafe { &*context };
    let mut frame = [seen.rip, 0, u64::from(seen.eflags), seen.rsp(), 0];
    // SAFETY: the frame's selectors are filled in by the routine; the rest is the caller's promise.
    unsafe { kh_step_context(context, &raw mut frame) }
}
