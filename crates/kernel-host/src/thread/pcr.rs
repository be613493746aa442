//! The processor control region that GS points at while a Linux thread runs driver code.
//!
//! Linux user programs leave GS alone (thread-local storage uses FS), so the host can give it the meaning it has in the
//! Windows kernel: drivers find their own fields at the documented offsets, and the import gate has a place to write to
//! that it can reach without spending a register.

use std::cell::Cell;
use std::ffi::c_void;
use std::mem::offset_of;

use crate::cpu::registers::NonVolatile;
use crate::image::Binding;

/// Offset of the host's own record, past everything that a `KPCR` documents.
pub(crate) const HOST_AREA: usize = 0x1000;

/// One per Linux thread that ever ran driver code.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(crate) struct Pcr {
    reserved0: [u8; 0x18],
    /// `KPCR.Self`.
    this: Cell<*const Self>,
    /// `KPCR.CurrentPrcb`.
    prcb: Cell<*const c_void>,
    reserved1: [u8; 0x180 - 0x28],
    /// `KPRCB.MxCsr` and what follows it.
    prcb_head: [u8; 8],
    /// `KPRCB.CurrentThread`: what an inlined `KeGetCurrentThread` reads.
    current_thread: Cell<*const c_void>,
    reserved2: [u8; HOST_AREA - 0x190],
    /// What the import gate saw last.
    gate: GateRecord,
}

/// Written by the import gate (`image/gate.rs`), which knows these offsets.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct GateRecord {
    binding: Cell<*const Binding>,
    /// RCX.
    first_parameter: Cell<usize>,
    registers: Cell<NonVolatile>,
}

pub(crate) const GATE_BINDING: usize = HOST_AREA + offset_of!(GateRecord, binding);
pub(crate) const GATE_FIRST_PARAMETER: usize = HOST_AREA + offset_of!(GateRecord, first_parameter);
pub(crate) const GATE_REGISTERS: usize = HOST_AREA + offset_of!(GateRecord, registers);

const _: () = assert!(offset_of!(Pcr, this) == 0x18);
const _: () = assert!(offset_of!(Pcr, prcb) == 0x20);
const _: () = assert!(offset_of!(Pcr, current_thread) == 0x188);
const _: () = assert!(offset_of!(Pcr, gate) == HOST_AREA);

thread_local! {
    /// Leaked on purpose when the Linux thread ends: GS still points at it until the kernel has torn the thread down.
    static PCR: Cell<Option<&'static Pcr>> = const { Cell::new(None) };
}

impl Pcr {
    /// The calling Linux thread's region; made, and put in GS, on first use.
    pub(crate) fn of_this_linux_thread() -> &'static Self {
        if let Some(pcr) = PCR.get() {
            return pcr;
        }
        let pcr: &'static Self = Box::leak(Box::new(Self {
            reserved0: [0; 0x18],
            this: Cell::new(std::ptr::null()),
            prcb: Cell::new(std::ptr::null()),
            reserved1: [0; 0x180 - 0x28],
            prcb_head: [0; 8],
            current_thread: Cell::new(std::ptr::null()),
            reserved2: [0; HOST_AREA - 0x190],
            gate: GateRecord {
                binding: Cell::new(std::ptr::null()),
                first_parameter: Cell::default(),
                registers: Cell::default(),
            },
        }));
        pcr.this.set(pcr);
        pcr.prcb.set(std::ptr::from_ref(pcr).cast::<c_void>().wrapping_byte_add(0x180));
        set_gs(pcr);
        PCR.set(Some(pcr));
        pcr
    }

    /// Makes `object` the answer to "which thread am I".
    pub(crate) fn set_current_thread(&self, object: *const c_void) {
        self.current_thread.set(object);
    }

    /// Takes the gate's record, so that one call is not attributed twice.
    pub(crate) fn take_gate_record(&self) -> Option<(*const Binding, usize, NonVolatile)> {
        let binding = self.gate.binding.replace(std::ptr::null());
        (!binding.is_null()).then(|| (binding, self.gate.first_parameter.get(), self.gate.registers.get()))
    }
}

fn set_gs(pcr: &'static Pcr) {
    const ARCH_SET_GS: libc::c_int = 0x1001;
    // SAFETY: arch_prctl(ARCH_SET_GS) only changes this thread's GS base, which neither libc nor Rust uses; the
    // address is that of a leaked allocation.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, std::ptr::from_ref(pcr)) };
    assert_eq!(result, 0, "arch_prctl(ARCH_SET_GS) cannot fail for a user address");
}
