//! Recognises a frame that is already being torn down.
//!
//! Unwind codes describe prologues only. An x64 epilogue has a fixed form instead, so that an unwinder can tell it from the
//! body by looking at the instructions ahead: optionally `add rsp, n` or `lea rsp, [frame pointer + n]`, then pops, then
//! `ret` or a jump out of the function. The rest of it is then simulated.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::context::{Context, RSP};
use super::memory::{try_read, try_read_u64};
use crate::image::pe::RuntimeFunction;

/// Longest x86 instruction in bytes.
const LONGEST: usize = 15;
/// An epilogue has at most: one stack adjustment, eight pops, one return.
const MOST_INSTRUCTIONS: usize = 10;

/// If RIP is in an epilogue, runs it to its end on `context` and says so; else leaves `context` alone.
pub(super) fn finish(context: &mut Context, base: u64, function: RuntimeFunction, frame_register: usize) -> bool {
    let mut after = *context;
    for position in 0..MOST_INSTRUCTIONS {
        let Some(instruction) = decode(after.rip) else {
            return false;
        };
        let (begin, end) = (base + u64::from(function.begin), base + u64::from(function.end));
        let done = match instruction.flow_control() {
            FlowControl::Return => true,
            // A jump is only the end of an epilogue when it leaves the function (a tail call).
            FlowControl::UnconditionalBranch => !(begin..end).contains(&instruction.near_branch_target()),
            FlowControl::IndirectBranch => instruction.op0_kind() == OpKind::Memory,
            _ => false,
        };
        if done {
            let Some(rip) = try_read_u64(after.rsp()) else {
                return false;
            };
            after.rip = rip;
            after.integer[RSP] = after.rsp().wrapping_add(8);
            *context = after;
            return true;
        }
        if !simulate(&mut after, &instruction, position == 0, frame_register) {
            return false;
        }
        after.rip = instruction.next_ip();
    }
    false
}

/// Applies one instruction of an epilogue; false when it is none.
fn simulate(context: &mut Context, instruction: &Instruction, is_first: bool, frame_register: usize) -> bool {
    match instruction.code() {
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 if is_first && instruction.op0_register() == Register::RSP => {
            context.integer[RSP] = context.rsp().wrapping_add(instruction.immediate(1));
            true
        }
        Code::Lea_r64_m if is_first && instruction.op0_register() == Register::RSP => {
            let from = instruction.memory_base();
            if frame_register == 0 || from.number() != frame_register || instruction.memory_index() != Register::None {
                return false;
            }
            let offset = instruction.memory_displacement64();
            context.integer[RSP] = context.integer[frame_register].wrapping_add(offset);
            true
        }
        _ if instruction.mnemonic() == Mnemonic::Pop && instruction.op0_register().is_gpr64() => {
            let Some(value) = try_read_u64(context.rsp()) else {
                return false;
            };
            context.integer[RSP] = context.rsp().wrapping_add(8);
            context.integer[instruction.op0_register().number()] = value;
            true
        }
        _ => false,
    }
}

/// Decodes the instruction at an address, which may lie just before the end of readable memory.
pub(super) fn decode(address: u64) -> Option<Instruction> {
    let mut bytes = [0x90; LONGEST];
    for (index, byte) in bytes.iter_mut().enumerate() {
        match try_read::<1>(address.wrapping_add(index as u64)) {
            Some([value]) => *byte = value,
            None if index == 0 => return None,
            None => break,
        }
    }
    let mut decoder = Decoder::with_ip(64, &bytes, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}
