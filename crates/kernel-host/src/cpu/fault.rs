//! What a fault in driver code means, decided on the driver's stack as ordinary code.

use iced_x86::{Mnemonic, OpKind, Register};
use nt_types::NtStatus;

use super::context::{Context, ExceptionRecord, RCX, RSP, restore, step};
use super::dispatch::{dispatch, stop};
use super::epilogue::decode;
use super::memory::try_read_u64;
use super::shared_data;
use super::user_access::serve_driver;
use crate::finding::Rule;
use crate::image::is_driver_address;
use crate::process::{HIGHEST_USER_ADDRESS, guard_page_hit};
use crate::thread::Thread;

/// Highest level at which page faults can be served: `APC_LEVEL`.
const HIGHEST_PAGING_IRQL: u8 = 1;
/// Highest value that CR8 holds.
const HIGHEST_IRQL: u64 = 15;

/// Everything the signal handler knows; it copies this onto the driver's stack and returns into [`enter`].
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) context: Context,
    pub(super) signal: i32,
    /// x86 exception vector.
    pub(super) vector: u64,
    /// Error code that the processor pushed.
    pub(super) error: u64,
    /// CR2: the address that was accessed, for page faults.
    pub(super) address: u64,
}

/// In the place of a vector: the watchdog found driver code that runs for too long.
pub(super) const NEVER_RETURNS: u64 = 256;

/// Bits of a page fault's error code.
const WRITE: u64 = 2;
const INSTRUCTION_FETCH: u64 = 16;

/// x86 exception vectors.
mod vector {
    pub(super) const DIVIDE: u64 = 0;
    pub(super) const DEBUG: u64 = 1;
    pub(super) const BREAKPOINT: u64 = 3;
    pub(super) const INVALID_OPCODE: u64 = 6;
    pub(super) const PROTECTION: u64 = 13;
    pub(super) const PAGE: u64 = 14;
    pub(super) const SIMD: u64 = 19;
}

/// Where the signal handler resumes the faulting thread.
pub(super) extern "sysv64" fn enter(fault: *mut Fault) -> ! {
    // SAFETY: the signal handler wrote it below the driver's stack pointer, above our frame, for us alone.
    let fault = unsafe { &mut *fault };
    if serves_shared_data(fault) {
        // SAFETY: the context is the faulting instruction's, or just behind it, on this stack above our frames.
        unsafe { step(&raw const fault.context) }
    }
    let interrupted = fault.context;
    if crate::nt::crt::is_leaf(fault.context.rip as usize) {
        // A copy routine that the driver called: the exception is the caller's.
        step_out(&mut fault.context);
    }
    let stack = Thread::driver_stack();
    if stack.is_some_and(|stack| !stack.has_room_below(fault.context.rsp() as usize)) {
        bad_stack(fault);
    }
    if !is_driver_address(fault.context.rip as usize) && fault.error & INSTRUCTION_FETCH == 0 {
        bad_argument(fault);
    }
    match fault.vector {
        vector::PAGE => page_fault(fault, &interrupted),
        vector::PROTECTION => protection_fault(fault),
        vector::DIVIDE => divide_fault(fault),
        vector::DEBUG => raise(fault, NtStatus::SINGLE_STEP, &[]),
        vector::BREAKPOINT => {
            // RIP is behind the instruction; Windows reports the instruction itself.
            if Thread::current().machine().config.debugger {
                crate::nt::debug::log_breakpoint(Thread::current().machine(), fault.context.rip - 1);
                // SAFETY: the context is the one just behind the instruction, on this stack above our frames.
                unsafe { step(&raw const fault.context) }
            }
            fault.context.rip -= 1;
            raise(fault, NtStatus::BREAKPOINT, &[])
        }
        vector::INVALID_OPCODE => raise(fault, NtStatus::ILLEGAL_INSTRUCTION, &[]),
        NEVER_RETURNS => never_returns(fault),
        vector::SIMD => raise(fault, NtStatus::FLOAT_INVALID_OPERATION, &[]),
        other => stop(
            Rule::UnhandledException,
            format!("processor exception {other}, signal {}", fault.signal),
            &fault.context,
        ),
    }
}

/// A loop of the driver's own.
fn never_returns(fault: &Fault) -> ! {
    let time = crate::watchdog::is_overdue().unwrap_or_default();
    let message = format!(
        "the driver has run for {time:?} of processor time at {}, without calling anything or returning: a loop without an end",
        super::place(fault.context.rip)
    );
    stop(Rule::NeverReturns, message, &fault.context)
}

/// Whether the fault is part of a read of `KUSER_SHARED_DATA`, and the driver can go on.
fn serves_shared_data(fault: &mut Fault) -> bool {
    if fault.vector != vector::DEBUG {
        shared_data::cancel(&mut fault.context);
    }
    match fault.vector {
        vector::PAGE if shared_data::contains(fault.address) && fault.error & (WRITE | INSTRUCTION_FETCH) == 0 => {
            shared_data::prepare(&mut fault.context)
        }
        vector::DEBUG => shared_data::finish(&mut fault.context),
        _ => false,
    }
}

/// One vector for two exceptions: the divisor is zero, or the quotient does not fit.
fn divide_fault(fault: &mut Fault) -> ! {
    let divisor = decode(fault.context.rip).and_then(|instruction| {
        if instruction.op0_kind() == OpKind::Register {
            let register = instruction.op0_register();
            let value = fault.context.integer.get(register.full_register().number())?;
            // AH and its like are no divisors that compilers use.
            return Some(value & (u64::MAX >> (64 - 8 * register.size().min(8))));
        }
        let address = instruction.virtual_address(0, 0, |register, _, _| match register {
            Register::RIP => Some(instruction.next_ip()),
            register if register.is_gpr64() => fault.context.integer.get(register.number()).copied(),
            _ => Some(0),
        })?;
        let value = try_read_u64(address)?;
        Some(value & (u64::MAX >> (64 - 8 * instruction.memory_size().size().clamp(1, 8))))
    });
    let code = if divisor.is_none_or(|divisor| divisor == 0) {
        NtStatus::INTEGER_DIVIDE_BY_ZERO
    } else {
        NtStatus::INTEGER_OVERFLOW
    };
    raise(fault, code, &[])
}

/// An export met a bad pointer. Its frames own things, so they cannot be jumped over as an exception would: the machine
/// stops. Exports whose page promises an exception probe first and raise it themselves.
fn bad_argument(fault: &Fault) -> ! {
    let thread = Thread::current();
    let Some(site) = thread.open_call() else {
        let message = format!("the host itself faulted at {:#x}", fault.context.rip);
        stop(Rule::UnhandledException, message, &fault.context)
    };
    if fault.vector == vector::PAGE
        && let Some(message) = paged_too_high(fault)
    {
        thread.stop(Rule::IrqlTooHigh, format!("{}: {message}", site.export.name), Some(&site));
    }
    let address = if fault.vector == vector::PAGE { fault.address } else { u64::MAX };
    let verb = if fault.error & WRITE != 0 { "written" } else { "read" };
    let message = format!(
        "{} was given an address that cannot be {verb}: {address:#x}{}",
        site.export.name,
        super::explain(address)
    );
    thread.stop(Rule::BadArgument, message, Some(&site))
}

/// The fault was on memory that may be paged out, where nobody could page it in.
fn paged_too_high(fault: &Fault) -> Option<String> {
    let thread = Thread::try_current()?;
    let what = crate::nt::paging::at(thread.machine(), fault.address as usize)?;
    let irql = thread.irql();
    (irql > HIGHEST_PAGING_IRQL).then(|| {
        format!(
            "DRIVER_IRQL_NOT_LESS_OR_EQUAL (0xD1): {:#x} is in {what}, which must not be touched at IRQL {irql}",
            fault.address
        )
    })
}

/// There is no stack to go on with: a double fault on Windows.
fn bad_stack(fault: &Fault) -> ! {
    let rsp = fault.context.rsp();
    let message = format!(
        "UNEXPECTED_KERNEL_MODE_TRAP (0x7F): stack overflow or bad stack pointer {rsp:#x} at {}",
        super::place(fault.context.rip)
    );
    stop(Rule::UnhandledException, message, &fault.context)
}

fn step_out(context: &mut Context) {
    if let Some(rip) = try_read_u64(context.rsp()) {
        context.rip = rip;
        context.integer[RSP] = context.rsp().wrapping_add(8);
    }
}

fn raise(fault: &mut Fault, code: NtStatus, parameters: &[u64]) -> ! {
    let mut record = ExceptionRecord {
        code: code.0,
        flags: 0,
        nested: std::ptr::null_mut(),
        address: fault.context.rip,
        parameter_count: parameters.len() as u32,
        parameters: [0; 15],
    };
    record.parameters[..parameters.len()].copy_from_slice(parameters);
    dispatch(&mut record, &mut fault.context)
}

/// Only addresses of user memory become exceptions: a driver cannot catch a bad kernel address. `interrupted` is where to go
/// on when it was no fault after all.
fn page_fault(fault: &mut Fault, interrupted: &Context) -> ! {
    let (is_write, is_fetch) = (fault.error & WRITE != 0, fault.error & INSTRUCTION_FETCH != 0);
    let access = match (is_write, is_fetch) {
        (_, true) => 8,
        (true, false) => 1,
        (false, false) => 0,
    };
    let address = fault.address;
    if let Some(message) = paged_too_high(fault) {
        stop(Rule::IrqlTooHigh, format!("{}: {message}", super::place(fault.context.rip)), &fault.context);
    }
    if is_fetch {
        bad_jump(fault);
    }
    let verb = if is_write { "writes" } else { "reads" };
    if address > HIGHEST_USER_ADDRESS as u64 {
        let what = super::explain(address);
        let message = format!(
            "PAGE_FAULT_IN_NONPAGED_AREA (0x50): {} {verb} kernel address {address:#x}{what}",
            super::place(fault.context.rip)
        );
        stop(super::rule_of(address), message, &fault.context)
    }
    let irql = Thread::current_irql();
    if irql > HIGHEST_PAGING_IRQL {
        let message = format!(
            "DRIVER_IRQL_NOT_LESS_OR_EQUAL (0xD1): {} {verb} user address {address:#x} at IRQL {irql}",
            super::place(fault.context.rip)
        );
        stop(Rule::IrqlTooHigh, message, &fault.context)
    }
    if fault.signal == libc::SIGSEGV && serve_driver(address as usize, is_write, &fault.context) {
        // SAFETY: the context is the faulting instruction's, on this stack above our frames, which own nothing.
        unsafe { restore(interrupted) }
    }
    let code = if guard_page_hit(address as usize) {
        NtStatus::GUARD_PAGE_VIOLATION
    } else if fault.signal == libc::SIGBUS {
        NtStatus::IN_PAGE_ERROR
    } else {
        NtStatus::ACCESS_VIOLATION
    };
    raise(fault, code, &[access, address])
}

/// A call or jump to something that is no code: unloaded drivers above all.
fn bad_jump(fault: &mut Fault) -> ! {
    let target = fault.context.rip;
    let message = match crate::image::find(target as usize) {
        Some(module) if module.is_unloaded() => {
            format!("{} was called at {} after it was unloaded", module.name(), super::place(target))
        }
        Some(module) => match module.discarded_section(target as usize) {
            Some(section) => format!(
                "{} was called, but its section {section} went away when DriverEntry had returned",
                super::place(target)
            ),
            None => format!("{} is data, not code", super::place(target)),
        },
        None => format!("a call or jump to {target:#x}, where there is no code"),
    };
    let mut caller = fault.context;
    step_out(&mut caller);
    stop(Rule::UnhandledException, message, &caller)
}

/// A privileged instruction, or an address that is not canonical.
fn protection_fault(fault: &mut Fault) -> ! {
    let Some(instruction) = decode(fault.context.rip) else {
        raise(fault, NtStatus::ACCESS_VIOLATION, &[0, u64::MAX]);
    };
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    match instruction.mnemonic() {
        Mnemonic::Mov if from == Register::CR8 && to.is_gpr64() => {
            fault.context.integer[to.number()] = u64::from(Thread::current_irql());
        }
        Mnemonic::Mov if to == Register::CR8 && from.is_gpr64() => {
            let value = fault.context.integer[from.number()];
            if value > HIGHEST_IRQL {
                let message = format!("CR8 set to {value:#x}, the highest IRQL is {HIGHEST_IRQL}");
                stop(Rule::BadArgument, message, &fault.context);
            }
            Thread::current().set_irql(value as u8);
        }
        Mnemonic::Int if instruction.immediate8() == 0x29 => {
            let code = fault.context.integer[RCX];
            let message = format!("KERNEL_SECURITY_CHECK_FAILURE (0x139): fast fail {code:#x}");
            stop(Rule::BugCheck, message, &fault.context)
        }
        Mnemonic::Int if instruction.immediate8() == 0x2C => {
            raise(fault, NtStatus::ASSERTION_FAILURE, &[]);
        }
        mnemonic if instruction.is_privileged() || is_port_access(mnemonic) => {
            let message = format!("kernel-host does not simulate the instruction {mnemonic:?}").to_lowercase();
            stop(Rule::NotImplemented, message, &fault.context)
        }
        // Windows reports the address of a non-canonical access as all ones, as it does not know it either.
        _ => raise(fault, NtStatus::ACCESS_VIOLATION, &[0, u64::MAX]),
    }
    fault.context.rip = instruction.next_ip();
    // SAFETY: the context is the faulting instruction's, moved past it, on this stack above our frames.
    unsafe { restore(&raw const fault.context) }
}

/// Instructions that programs may use only with the system's leave, which no simulated driver has.
fn is_port_access(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Cli, In, Insb, Insd, Insw, Out, Outsb, Outsd, Outsw, Sti};
    matches!(mnemonic, In | Insb | Insd | Insw | Out | Outsb | Outsd | Outsw | Cli | Sti)
}
