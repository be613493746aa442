//! What the processor and the kernel's trap handlers do on Windows: privileged instructions, faults, exception dispatch.

pub(crate) mod registers;

use registers::NonVolatile;

/// Makes faults in driver code reach this module; idempotent.
pub(crate) fn install_handlers() {}

/// The driver's stack at a call of an export, as `image!symbol+0xoffset`.
pub(crate) fn stack_from_call(registers: &NonVolatile) -> Vec<String> {
    vec![format!("{:#x}", registers.rip)]
}
