//! Import thunks: how a call from a driver learns who called what before any host code runs.
//!
//! An import slot cannot hold the export's address alone: two drivers import the same export, and the host has to know
//! which of them calls. So each (driver, import) pair gets a thunk of its own that loads the address of its
//! [`Binding`] and jumps to the one gate below:
//!
//! ```text
//! mov r11, <binding>     49 BB imm64
//! mov r10, <gate>        49 BA imm64
//! jmp r10                41 FF E2
//! ```
//!
//! The gate writes the binding, the return address, RCX (the first parameter) and every register that the Microsoft x64 convention preserves into the
//! `KPCR`-like block behind GS, and jumps on. R10 and R11 are the only registers it changes: they are volatile and carry no
//! arguments (RAX is an argument of `__chkstk`). Stack and arguments are untouched, so that exports are plain functions, with
//! any number of stack arguments, and the driver's return address is the export's own.
//!
//! The gate also counts the calls of each binding: always, since that costs less than telling whether somebody wants to know.
//!
//! The saved registers are what an exception raised inside the export unwinds from: the host's frames in between have no
//! unwind data of the Windows kind, and need none.
//!
//! Thunks are written into a fresh private page which then becomes read and execute only; it is never both writable
//! and executable.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::Binding;
use crate::cpu::registers::NonVolatile;
use crate::thread::{GATE_BINDING, GATE_FIRST_PARAMETER, GATE_REGISTERS};

/// Bytes from one thunk to the next.
const STRIDE: usize = 32;

std::arch::global_asm!(
    ".global kh_import_gate",
    "kh_import_gate:",
    "mov gs:[{binding}], r11",
    "mov gs:[{first}], rcx",
    "mov r10, [rsp]",
    "mov gs:[{regs} + {rip}], r10",
    "mov gs:[{regs} + {rsp}], rsp",
    "mov gs:[{regs} + {rbx}], rbx",
    "mov gs:[{regs} + {rbp}], rbp",
    "mov gs:[{regs} + {rsi}], rsi",
    "mov gs:[{regs} + {rdi}], rdi",
    "mov gs:[{regs} + {r12}], r12",
    "mov gs:[{regs} + {r13}], r13",
    "mov gs:[{regs} + {r14}], r14",
    "mov gs:[{regs} + {r15}], r15",
    "movups gs:[{regs} + {xmm} + 0], xmm6",
    "movups gs:[{regs} + {xmm} + 16], xmm7",
    "movups gs:[{regs} + {xmm} + 32], xmm8",
    "movups gs:[{regs} + {xmm} + 48], xmm9",
    "movups gs:[{regs} + {xmm} + 64], xmm10",
    "movups gs:[{regs} + {xmm} + 80], xmm11",
    "movups gs:[{regs} + {xmm} + 96], xmm12",
    "movups gs:[{regs} + {xmm} + 112], xmm13",
    "movups gs:[{regs} + {xmm} + 128], xmm14",
    "movups gs:[{regs} + {xmm} + 144], xmm15",
    "lock inc qword ptr [r11 + {calls}]",
    "jmp qword ptr [r11 + {target}]",
    // What a control-flow-guard check pointer points at: any target is fine.
    ".global kh_cfg_check, kh_cfg_dispatch",
    "kh_cfg_check:",
    "ret",
    // ... and a dispatch pointer: the target is in RAX.
    "kh_cfg_dispatch:",
    "jmp rax",
    binding = const GATE_BINDING,
    first = const GATE_FIRST_PARAMETER,
    regs = const GATE_REGISTERS,
    rip = const offset_of!(NonVolatile, rip),
    rsp = const offset_of!(NonVolatile, rsp),
    rbx = const offset_of!(NonVolatile, rbx),
    rbp = const offset_of!(NonVolatile, rbp),
    rsi = const offset_of!(NonVolatile, rsi),
    rdi = const offset_of!(NonVolatile, rdi),
    r12 = const offset_of!(NonVolatile, r12),
    r13 = const offset_of!(NonVolatile, r13),
    r14 = const offset_of!(NonVolatile, r14),
    r15 = const offset_of!(NonVolatile, r15),
    xmm = const offset_of!(NonVolatile, xmm),
    target = const offset_of!(Binding, target),
    calls = const offset_of!(Binding, calls),
);

unsafe extern "efiapi" {
    fn kh_import_gate();
    fn kh_cfg_check();
    fn kh_cfg_dispatch();
}

/// Address for `GuardCFCheckFunctionPointer`.
pub(super) fn cfg_check() -> u64 {
    kh_cfg_check as *const () as u64
}

/// Address for `GuardCFDispatchFunctionPointer`.
pub(super) fn cfg_dispatch() -> u64 {
    kh_cfg_dispatch as *const () as u64
}

/// The thunks of one driver and the bindings they name.
#[derive(Debug)]
pub(super) struct Thunks {
    bindings: Box<[Binding]>,
    base: usize,
    length: usize,
}

impl Thunks {
    /// Generates one thunk per binding.
    pub(super) fn new(bindings: Box<[Binding]>) -> rustix::io::Result<Self> {
        let length = (bindings.len().max(1) * STRIDE).next_multiple_of(4096);
        // SAFETY: a new anonymous mapping disturbs nothing.
        let page = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let thunks = Self { bindings, base: page as usize, length };
        // SAFETY: the mapping is `length` bytes, zeroed, and nobody else knows of it yet.
        let code = unsafe { std::slice::from_raw_parts_mut(page.cast::<u8>(), length) };
        // Calls through a stale pointer into the padding trap.
        code.fill(0xCC);
        for (thunk, binding) in code.chunks_exact_mut(STRIDE).zip(&thunks.bindings) {
            thunk[..2].copy_from_slice(&[0x49, 0xBB]);
            thunk[2..10].copy_from_slice(&(std::ptr::from_ref(binding) as u64).to_le_bytes());
            thunk[10..12].copy_from_slice(&[0x49, 0xBA]);
            thunk[12..20].copy_from_slice(&(kh_import_gate as *const () as u64).to_le_bytes());
            thunk[20..23].copy_from_slice(&[0x41, 0xFF, 0xE2]);
        }
        // SAFETY: the same mapping; `code` is not used any more.
        unsafe { mprotect(page, length, MprotectFlags::READ | MprotectFlags::EXEC) }?;
        Ok(thunks)
    }

    /// How often an export of this name was called through these thunks.
    pub(super) fn calls(&self, export: &str) -> u64 {
        let bindings = self.bindings.iter().filter(|binding| binding.export.name == export);
        bindings.map(|binding| binding.calls.load(Ordering::Relaxed)).sum()
    }

    /// Address of the thunk of binding `index`.
    pub(super) fn address(&self, index: usize) -> u64 {
        debug_assert!(index < self.bindings.len());
        (self.base + index * STRIDE) as u64
    }
}

impl Drop for Thunks {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the driver that calls through it is gone.
        let result = unsafe { munmap(self.base as *mut _, self.length) };
        debug_assert!(result.is_ok(), "a thunk page could not be unmapped");
    }
}
