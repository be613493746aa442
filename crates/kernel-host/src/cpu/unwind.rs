//! Walks from a frame of driver code to its caller, by the image's unwind data (x64, versions 1 and 2).
//!
//! The data and the stack belong to the driver and may be wrong: every read is one that survives a bad address, and every
//! loop is bounded.

use std::sync::Arc;

use super::context::{Context, RSP};
use super::epilogue;
use super::memory::{try_read, try_read_u64};
use crate::image::{Module, find, pe::RuntimeFunction};

/// Chained unwind data nests no deeper than this in sane images.
const LONGEST_CHAIN: usize = 32;

/// `UNW_FLAG_EHANDLER`: the frame's handler takes part in the first pass.
pub(super) const EXCEPTION_HANDLER: u8 = 1;
/// `UNW_FLAG_UHANDLER`: the frame's handler takes part in the second pass.
pub(super) const TERMINATION_HANDLER: u8 = 2;
/// `UNW_FLAG_CHAININFO`: another entry's codes follow.
const CHAINED: u8 = 4;

const UWOP_PUSH_NONVOL: u8 = 0;
const UWOP_ALLOC_LARGE: u8 = 1;
const UWOP_ALLOC_SMALL: u8 = 2;
const UWOP_SET_FPREG: u8 = 3;
const UWOP_SAVE_NONVOL: u8 = 4;
const UWOP_SAVE_NONVOL_FAR: u8 = 5;
const UWOP_EPILOG: u8 = 6;
const UWOP_SPARE: u8 = 7;
const UWOP_SAVE_XMM128: u8 = 8;
const UWOP_SAVE_XMM128_FAR: u8 = 9;
const UWOP_PUSH_MACHFRAME: u8 = 10;

/// One frame that was walked out of.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) module: Arc<Module>,
    /// RIP in the frame.
    pub(super) control_pc: u64,
    /// Address of the frame's `RUNTIME_FUNCTION`; 0 for a leaf function, which has none.
    pub(super) function_entry: u64,
    /// What identifies the frame: its frame pointer or stack pointer after the prologue.
    pub(super) establisher: u64,
    /// Handler flags of the unwind data, zero in a prologue or epilogue.
    pub(super) flags: u8,
    /// Address of the language handler, when `flags` is not zero.
    pub(super) handler: u64,
    /// Address of the handler's own data.
    pub(super) handler_data: u64,
    /// Where the return address was; `None` when an interrupt's frame held the next RIP.
    pub(super) return_slot: Option<u64>,
    /// The function's frame register, when the stack below it is known by that alone.
    pub(super) anchor: Option<usize>,
    /// Integer registers that were restored, by number, and from where.
    pub(super) saved: Vec<(u8, u64)>,
}

/// `UNWIND_INFO` as read from the image.
struct UnwindInfo {
    flags: u8,
    prologue: u8,
    frame_register: usize,
    frame_offset: u64,
    codes: Vec<[u8; 2]>,
    /// Address of what follows the codes: handler, or chained entry.
    tail: u64,
}

impl UnwindInfo {
    fn read(address: u64) -> Option<Self> {
        let [first, prologue, count, frame] = try_read(address)?;
        if !matches!(first & 7, 1 | 2) {
            return None;
        }
        let codes = (0..u64::from(count)).map(|index| try_read(address + 4 + 2 * index)).collect::<Option<_>>()?;
        Some(Self {
            flags: first >> 3,
            prologue,
            frame_register: usize::from(frame & 15),
            frame_offset: u64::from(frame >> 4) * 16,
            codes,
            // The array is padded to an even number of entries.
            tail: address + 4 + 2 * u64::from(count).next_multiple_of(2),
        })
    }

    /// Base of saved registers, and identity of the frame: the frame pointer once it is set, else the stack pointer.
    fn frame_base(&self, context: &Context, offset: u32) -> u64 {
        let set_at = self.codes.iter().find(|code| code[1] & 15 == UWOP_SET_FPREG).map(|code| u32::from(code[0]));
        if self.frame_register == 0 || set_at.is_none_or(|set_at| offset < set_at) && offset < u32::from(self.prologue)
        {
            return context.rsp();
        }
        context.integer[self.frame_register].wrapping_sub(self.frame_offset)
    }

    /// Undoes what the prologue did up to `offset`. `Some(true)` when a machine frame gave the next RIP.
    fn undo(&self, context: &mut Context, offset: u32, base: u64, saved: &mut Vec<(u8, u64)>) -> Option<bool> {
        let mut machine_frame = false;
        let mut index = 0;
        while let Some(&[at, operation]) = self.codes.get(index) {
            let (kind, info) = (operation & 15, operation >> 4);
            let slots = match kind {
                UWOP_ALLOC_LARGE => 2 + usize::from(info != 0),
                UWOP_SAVE_NONVOL | UWOP_SAVE_XMM128 | UWOP_EPILOG => 2,
                UWOP_SAVE_NONVOL_FAR | UWOP_SAVE_XMM128_FAR | UWOP_SPARE => 3,
                _ => 1,
            };
            // Instructions that have not run yet have nothing to undo; an epilogue code undoes nothing.
            if u32::from(at) <= offset && kind != UWOP_EPILOG {
                machine_frame |= kind == UWOP_PUSH_MACHFRAME;
                let extra = self.codes.get(index + 1..index + slots)?;
                if let Some(from) = saved_at(context, kind, extra, base) {
                    saved.push((info, from));
                }
                self.undo_one(context, kind, info, extra, base)?;
            }
            index += slots;
        }
        Some(machine_frame)
    }

    fn undo_one(&self, context: &mut Context, kind: u8, info: u8, extra: &[[u8; 2]], base: u64) -> Option<()> {
        let register = usize::from(info);
        // Operands follow their code in the array, low word first.
        let words = |index: usize| extra.get(index).map_or(0, |word| u64::from(u16::from_le_bytes(*word)));
        let (scaled, far) = (words(0), words(0) | words(1) << 16);
        match kind {
            UWOP_PUSH_NONVOL => {
                context.integer[register] = try_read_u64(context.rsp())?;
                context.integer[RSP] = context.rsp().wrapping_add(8);
            }
            UWOP_ALLOC_LARGE => {
                let bytes = if info == 0 { scaled * 8 } else { far };
                context.integer[RSP] = context.rsp().wrapping_add(bytes);
            }
            UWOP_ALLOC_SMALL => {
                context.integer[RSP] = context.rsp().wrapping_add(u64::from(info) * 8 + 8);
            }
            UWOP_SET_FPREG => {
                context.integer[RSP] = context.integer[self.frame_register].wrapping_sub(self.frame_offset);
            }
            UWOP_SAVE_NONVOL => context.integer[register] = try_read_u64(base.wrapping_add(scaled * 8))?,
            UWOP_SAVE_NONVOL_FAR => context.integer[register] = try_read_u64(base.wrapping_add(far))?,
            UWOP_SAVE_XMM128 => {
                context.xmm[register] = u128::from_le_bytes(try_read(base.wrapping_add(scaled * 16))?);
            }
            UWOP_SAVE_XMM128_FAR => {
                context.xmm[register] = u128::from_le_bytes(try_read(base.wrapping_add(far))?);
            }
            UWOP_PUSH_MACHFRAME => {
                // An interrupt pushed [error code,] RIP, CS, flags, RSP, SS.
                let frame = context.rsp().wrapping_add(u64::from(info) * 8);
                context.rip = try_read_u64(frame)?;
                context.integer[RSP] = try_read_u64(frame.wrapping_add(24))?;
            }
            UWOP_SPARE => {}
            _ => return None,
        }
        Some(())
    }
}

/// Where the register is that an unwind code restores, if it is about an integer register.
fn saved_at(context: &Context, kind: u8, extra: &[[u8; 2]], base: u64) -> Option<u64> {
    let words = |index: usize| extra.get(index).map_or(0, |word| u64::from(u16::from_le_bytes(*word)));
    match kind {
        UWOP_PUSH_NONVOL => Some(context.rsp()),
        UWOP_SAVE_NONVOL => Some(base.wrapping_add(words(0) * 8)),
        UWOP_SAVE_NONVOL_FAR => Some(base.wrapping_add(words(0) | words(1) << 16)),
        _ => None,
    }
}

/// Makes `context` the caller's. `None` when RIP is in no driver, or the driver's data cannot be followed.
pub(super) fn step(context: &mut Context) -> Option<Frame> {
    step_from(context, false)
}

/// As [`step`], where RIP is the return address of a call: the frame is in its body, whatever the next instructions are.
pub(super) fn step_from_call(context: &mut Context) -> Option<Frame> {
    step_from(context, true)
}

fn step_from(context: &mut Context, is_call: bool) -> Option<Frame> {
    let control_pc = context.rip;
    let module = find(control_pc as usize).filter(|module| !module.is_unloaded())?;
    let base = module.base() as u64;
    let mut frame = Frame {
        control_pc,
        function_entry: 0,
        establisher: context.rsp(),
        flags: 0,
        handler: 0,
        handler_data: 0,
        return_slot: None,
        anchor: None,
        saved: Vec::new(),
        module: Arc::clone(&module),
    };
    let Some((function, entry)) = module.function_at((control_pc - base) as u32) else {
        frame.return_slot = Some(context.rsp());
        return_from(context)?; // a leaf function changes neither stack nor non-volatile registers
        return Some(frame);
    };
    frame.function_entry = base + u64::from(entry);
    unwind_function(context, &mut frame, base, function, is_call)?;
    Some(frame)
}

fn return_from(context: &mut Context) -> Option<()> {
    context.rip = try_read_u64(context.rsp())?;
    context.integer[RSP] = context.rsp().wrapping_add(8);
    Some(())
}

fn unwind_function(
    context: &mut Context,
    frame: &mut Frame,
    base: u64,
    function: RuntimeFunction,
    is_call: bool,
) -> Option<()> {
    let mut function = function;
    let mut offset = (context.rip - base) as u32 - function.begin;
    for depth in 0..LONGEST_CHAIN {
        let info = UnwindInfo::read(base + u64::from(function.unwind))?;
        let frame_base = info.frame_base(context, offset);
        let in_prologue = offset < u32::from(info.prologue);
        if depth == 0 {
            frame.establisher = frame_base;
            frame.anchor = Some(info.frame_register).filter(|register| *register != 0);
            if !in_prologue && !is_call && epilogue::finish(context, base, function, info.frame_register) {
                return Some(());
            }
            if !in_prologue && info.flags & CHAINED == 0 && info.flags != 0 {
                frame.flags = info.flags;
                frame.handler = base + u64::from(u32::from_le_bytes(try_read(info.tail)?));
                frame.handler_data = info.tail + 4;
            }
        }
        if info.undo(context, offset, frame_base, &mut frame.saved)? {
            return Some(());
        }
        if info.flags & CHAINED == 0 {
            frame.return_slot = Some(context.rsp());
            return return_from(context);
        }
        let word = |index: u64| Some(u32::from_le_bytes(try_read(info.tail + 4 * index)?));
        function = RuntimeFunction { begin: word(0)?, end: word(1)?, unwind: word(2)? };
        // The whole prologue of the function that the chain leads to has run.
        offset = u32::MAX;
    }
    None
}
