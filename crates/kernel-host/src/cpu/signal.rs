//! The signal handler: tells drivers' faults from the host's own, and moves the former out of signal context.
//!
//! The handler runs on a stack of its own (`signal_stack`), and in a context where little is allowed. So it only copies the
//! registers onto the driver's stack and makes the signal return into [`fault::enter`], which then is ordinary code
//! running where the fault happened; nothing is left to undo when control moves on to a handler in the driver.
//!
//! Faults of the host's own code go to the handler that was there before: Rust's, which reports stack overflows.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::context::Context;
use super::fault::{self, Fault};
use super::memory::{recovery, try_copy, try_read_u64};
use super::user_access::serve_host;
use crate::image::is_driver_address;
use crate::nt::paging::{Needed, bring_in};
use crate::process::HIGHEST_USER_ADDRESS;
use crate::thread::{StackBounds, Thread};

/// Signals that a processor exception becomes.
const SIGNALS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// The exception vector of page faults.
const PAGE_FAULT: u64 = 14;
/// In a page fault's error code: the access was a write.
const WRITE: u64 = 2;
/// In a page fault's error code: the processor fetched an instruction.
const INSTRUCTION_FETCH: u64 = 16;

static PREVIOUS: OnceLock<[libc::sigaction; 5]> = OnceLock::new();

/// Installs the handler, once per Linux process, and gives the calling Linux thread the stack that it runs on.
pub(crate) fn install_handlers() {
    PREVIOUS.get_or_init(|| {
        install(crate::watchdog::SIGNAL, interrupt as *const () as usize);
        SIGNALS.map(|signal| install(signal, handle as *const () as usize))
    });
    super::signal_stack::ensure();
}

fn install(signal: c_int, handler: usize) -> libc::sigaction {
    // SAFETY: all zero is a valid sigaction (default action, empty mask).
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler;
    // NODEFER: the copy below may itself fault, and is then told so. RESTART: the watchdog's signal may hit a system call.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK | libc::SA_RESTART;
    let mut previous = action;
    // SAFETY: both structures are valid; the handler is an async-signal-safe function of the right type.
    let result = unsafe { libc::sigaction(signal, &raw const action, &raw mut previous) };
    assert_eq!(result, 0, "sigaction cannot fail for these signals");
    previous
}

unsafe extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: Linux passes a valid ucontext_t, ours for the duration of the handler.
    let machine = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let rip = get(machine, libc::REG_RIP) as usize;
    if is_served_page_fault(machine) {
        return;
    }
    if signal == libc::SIGSEGV && is_hosts_touch_of_user_memory(machine) {
        return;
    }
    if let Some(recovery) = recovery(rip) {
        set(machine, libc::REG_RIP, recovery);
        return;
    }
    // A fault of host code that serves a call is a bad pointer that the driver passed.
    let is_drivers = is_driver_address(rip)
        || crate::nt::crt::is_leaf(rip)
        || is_jump_from_driver(machine)
        || Thread::is_serving_call();
    match Thread::driver_stack().filter(|_| is_drivers) {
        Some(stack) => redirect(signal, machine, stack),
        // SAFETY: these are the arguments of this very call.
        None => unsafe { chain(signal, info, context) },
    }
}

/// The watchdog's signal: if the thread is in driver code, and has been for too long, it goes on in [`fault::enter`], which
/// stops the machine. In host code nothing happens; there will be another signal.
unsafe extern "C" fn interrupt(signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: Linux passes a valid ucontext_t, ours for the duration of the handler.
    let machine = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext };
    let rip = get(machine, libc::REG_RIP) as usize;
    if !is_driver_address(rip) && !crate::nt::crt::is_leaf(rip) {
        return;
    }
    // In driver code the thread is in the middle of nothing of the host's, so that ordinary code may run.
    if let Some(stack) = Thread::driver_stack().filter(|_| crate::watchdog::is_overdue().is_some()) {
        set_vector(machine, fault::NEVER_RETURNS);
        redirect(signal, machine, stack);
    }
}

/// Whether the access was to pageable memory and can be tried again now.
fn is_served_page_fault(machine: &libc::mcontext_t) -> bool {
    let error = get(machine, libc::REG_ERR);
    let needed = match (error & INSTRUCTION_FETCH != 0, error & WRITE != 0) {
        (true, _) => Needed::Execute,
        (false, true) => Needed::Write,
        (false, false) => Needed::Read,
    };
    get(machine, libc::REG_TRAPNO) == PAGE_FAULT && bring_in(get(machine, libc::REG_CR2) as usize, needed)
}

/// Whether host code touched user memory that is only hidden, and can try again now.
fn is_hosts_touch_of_user_memory(machine: &libc::mcontext_t) -> bool {
    let (rip, address) = (get(machine, libc::REG_RIP) as usize, get(machine, libc::REG_CR2) as usize);
    let error = get(machine, libc::REG_ERR);
    get(machine, libc::REG_TRAPNO) == PAGE_FAULT
        && address <= HIGHEST_USER_ADDRESS
        && error & INSTRUCTION_FETCH == 0
        && !is_driver_address(rip)
        && !crate::nt::crt::is_leaf(rip)
        && serve_host(address, error & WRITE != 0, recovery(rip).is_some())
}

/// Whether a driver called or jumped to an address where there is no code (a null function pointer).
fn is_jump_from_driver(machine: &libc::mcontext_t) -> bool {
    let is_fetch = get(machine, libc::REG_TRAPNO) == PAGE_FAULT && get(machine, libc::REG_ERR) & INSTRUCTION_FETCH != 0;
    is_fetch && try_read_u64(get(machine, libc::REG_RSP)).is_some_and(|address| is_driver_address(address as usize))
}

/// Makes the signal return into [`fault::enter`] on the driver's stack, or on the spare one when that has no room.
fn redirect(signal: c_int, machine: &mut libc::mcontext_t, stack: StackBounds) {
    const DIRECTION_FLAG: usize = 0x400;
    const TRAP_FLAG: usize = 0x100;
    let fault = Fault {
        context: context_of(machine),
        signal,
        vector: get(machine, libc::REG_TRAPNO),
        error: get(machine, libc::REG_ERR),
        address: get(machine, libc::REG_CR2),
    };
    let rsp = fault.context.rsp() as usize;
    let top = if stack.has_room_below(rsp) { rsp } else { stack.spare() };
    let below = (top - size_of::<Fault>()) & !63;
    // SAFETY: below the stack pointer of code in the Windows convention nothing lives, and nothing uses the spare stack.
    let missing = unsafe { try_copy(below as *mut u8, (&raw const fault).cast(), size_of::<Fault>()) };
    debug_assert_eq!(missing, 0, "kernel stacks are mapped");
    let flags = get(machine, libc::REG_EFL) as usize & !(DIRECTION_FLAG | TRAP_FLAG);
    set(machine, libc::REG_EFL, flags);
    set(machine, libc::REG_RDI, below);
    // As after a call: the stack pointer is 8 below a multiple of 16.
    set(machine, libc::REG_RSP, below - 8);
    set(machine, libc::REG_RIP, fault::enter as *const () as usize);
}

/// One register of the interrupted code.
fn get(machine: &libc::mcontext_t, register: c_int) -> u64 {
    machine.gregs[register.cast_unsigned() as usize].cast_unsigned()
}

/// Makes a signal look like an exception with this vector.
fn set_vector(machine: &mut libc::mcontext_t, vector: u64) {
    set(machine, libc::REG_TRAPNO, vector as usize);
    set(machine, libc::REG_ERR, 0);
}

/// Changes one register of the interrupted code.
fn set(machine: &mut libc::mcontext_t, register: c_int, value: usize) {
    machine.gregs[register.cast_unsigned() as usize] = value.cast_signed() as i64;
}

fn context_of(machine: &libc::mcontext_t) -> Context {
    /// In the order of [`Context::integer`].
    const ORDER: [c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    let mut context = Context::new();
    context.integer = ORDER.map(|register| get(machine, register));
    context.rip = get(machine, libc::REG_RIP);
    context.eflags = get(machine, libc::REG_EFL) as u32;
    // SAFETY: Linux saves the floating-point state in every signal frame on x86-64.
    let float = unsafe { &*machine.fpregs };
    context.mx_csr = float.mxcsr;
    for (to, from) in context.xmm.iter_mut().zip(&float._xmm) {
        let words = from.element.map(u128::from);
        *to = words[0] | words[1] << 32 | words[2] << 64 | words[3] << 96;
    }
    context
}

/// Passes a foreign fault on.
unsafe fn chain(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let index = SIGNALS.iter().position(|known| *known == signal);
    let previous = PREVIOUS.get().zip(index).map(|(all, index)| all[index]);
    match previous {
        Some(action) if action.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
            // SAFETY: with SA_SIGINFO the field holds a function of this type.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(action.sa_sigaction) };
            // SAFETY: the arguments are those Linux passed to us.
            unsafe { handler(signal, info, context) };
        }
        // Put the default action back and return: the instruction faults again, and the process ends as it should.
        _ => {
            // SAFETY: SIG_DFL is valid for these signals.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}
