//! Lines for the debugger.
//!
//! DbgPrint formats in the kernel, so a line costs no formatting code here: core::fmt would
//! bring code into the driver that can panic.

/// Prints one line: `log!(c"text %u", number)`. Arguments as DbgPrint's: integers and pointers. IRQL <= DIRQL.
macro_rules! log {
    ($format:literal $(, $argument:expr)* $(,)?) => {{
        const LINE: &core::ffi::CStr = $format;
        // SAFETY: the format is a literal with a terminator and matches its arguments (rule: DbgPrint).
        let _ = unsafe { wdk_sys::ntddk::DbgPrint(LINE.as_ptr().cast() $(, $argument)*) };
    }};
}

pub(crate) use log;
