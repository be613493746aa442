//! The gate between drivers and this crate: export tables, and the [`Call`] every export opens first.
//!
//! An export is an ordinary `extern "efiapi"` function. Loading a driver makes one thunk for each of its imports; the thunk
//! writes a record (who calls, which export, return address, registers) into the current thread and jumps to
//! the function, arguments untouched. The function's first act is [`Call::enter`], which takes that record. Attribution
//! therefore survives tail calls in the driver, and host code that calls another export's inner function directly leaves no trace.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use nt_types::NtStatus;

use crate::cpu::registers::NonVolatile;
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::process::exposure::hide_opened;
use crate::thread::Thread;

mod table;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use table::exports;
pub use table::{Export, Target};

/// Who called which export from where; written by the import thunk.
#[derive(Clone, Debug)]
pub struct CallSite {
    /// The calling driver.
    pub driver: Arc<Driver>,
    /// The export.
    pub export: &'static Export,
    /// Address in the driver to which the call returns.
    pub return_address: usize,
    /// Stack pointer at entry (points at the return address).
    pub stack_pointer: usize,
    /// The first parameter, as the driver passed it in RCX.
    pub(crate) first_parameter: usize,
    /// The driver's registers at the call: where an exception raised by the export starts to unwind.
    pub(crate) registers: NonVolatile,
}

impl CallSite {
    pub(crate) fn new(
        driver: Arc<Driver>,
        export: &'static Export,
        first_parameter: usize,
        registers: NonVolatile,
    ) -> Self {
        Self {
            driver,
            export,
            return_address: registers.rip as usize,
            stack_pointer: registers.rsp as usize,
            first_parameter,
            registers,
        }
    }

    /// The driver's stack from here outwards, as `image!symbol+0xoffset`.
    #[must_use]
    pub fn stack(&self) -> Vec<String> {
        crate::cpu::stack_from_call(&self.registers)
    }

    /// The addresses of [`CallSite::stack`], without their names.
    pub(crate) fn return_addresses(&self) -> Vec<usize> {
        crate::cpu::addresses_from_call(&self.registers)
    }
}

/// An open DDI call. Dropping it writes the trace entry.
#[derive(Debug)]
pub struct Call {
    site: CallSite,
    thread: Arc<Thread>,
    /// When the call began; `None` where no trace is kept.
    started: Option<Instant>,
    detail: std::cell::RefCell<String>,
    bytes: std::cell::Cell<u64>,
    falls_short: bool,
}

impl Call {
    /// Opens the call that the import thunk announced, checks the export's IRQL rule, and lets the call fail when it is its turn.
    ///
    /// Must be the first thing that an export's function does, which owns nothing yet: this does not return when the machine
    /// has stopped, or when the call fails by injection.
    #[must_use]
    pub fn enter() -> Self {
        let thread = Thread::current();
        let site = thread.take_call_site();
        thread.leave_if_stopped();
        hide_opened();
        thread.linger();
        thread.call_began(&site);
        thread.stop_if_late(&site);
        let started = thread.machine().trace.is_kept().then(Instant::now);
        let mut call = Self {
            site,
            thread,
            started,
            detail: std::cell::RefCell::default(),
            bytes: std::cell::Cell::default(),
            falls_short: false,
        };
        let irql = call.thread.irql();
        if irql > call.site.export.max_irql {
            call.stop(Rule::IrqlTooHigh, format!("IRQL {irql}, the highest allowed is {}", call.site.export.max_irql));
        }
        if let Some(failure) = call.machine().faults.of_call(&call.site) {
            call.detail(format_args!("injected: {failure}"));
            match failure.carry_out(&call.site) {
                Some(result) => call.leave(result),
                None => call.falls_short = true,
            }
        }
        call
    }

    /// Whether fault injection wants the export to give less than asked for, in the way that its table entry names.
    #[must_use]
    pub(crate) fn falls_short(&self) -> bool {
        self.falls_short
    }

    /// Returns to the driver with `result` in RAX, past the export's function.
    fn leave(self, result: u64) -> ! {
        let registers = self.site.registers;
        drop(self);
        // SAFETY: the call was all that `enter` and the export's function owned; the registers are those of the driver's call.
        unsafe { crate::cpu::return_from_call(&registers, result) }
    }

    /// The machine in which the call happens.
    #[must_use]
    pub fn machine(&self) -> &Arc<Inner> {
        self.thread.machine()
    }

    /// The calling thread.
    #[must_use]
    pub fn thread(&self) -> &Arc<Thread> {
        &self.thread
    }

    /// The calling driver.
    #[must_use]
    pub fn driver(&self) -> &Arc<Driver> {
        &self.site.driver
    }

    /// The call's origin.
    #[must_use]
    pub fn site(&self) -> &CallSite {
        &self.site
    }

    /// Adds what a reader of the trace wants to know, such as the file name. Formatted only where a trace is kept.
    pub fn detail(&self, text: impl fmt::Display) {
        if self.machine().trace.is_kept() {
            *self.detail.borrow_mut() = text.to_string();
        }
    }

    /// As [`detail`](Self::detail), for a text that costs something to gather.
    pub(crate) fn detail_of<T: fmt::Display>(&self, text: impl FnOnce() -> T) {
        if self.machine().trace.is_kept() {
            self.detail(text());
        }
    }

    /// Notes how many bytes the call moved.
    pub fn bytes(&self, count: u64) {
        self.bytes.set(count);
    }

    /// Stops the machine: the driver broke `rule`. Does not return.
    ///
    /// Whatever the export holds (locks above all) stays held for ever: let go of what the report needs first.
    pub fn stop(&self, rule: Rule, message: impl Into<String>) -> ! {
        self.write_trace();
        self.thread.stop(rule, message.into(), Some(&self.site))
    }

    /// Raises `status` as an exception in the driver, at its call of this export (`ExRaiseStatus`, `ProbeForRead`).
    /// Does not return.
    ///
    /// The export's frames are jumped over: whatever it owns besides this call must be dropped before.
    pub fn raise(self, status: NtStatus) -> ! {
        let registers = self.site.registers;
        drop(self);
        // SAFETY: the call was all that this function owned; the export answers for the rest, as documented.
        unsafe { crate::cpu::raise_from_call(&registers, status) }
    }

    /// Stops the machine unless the driver calls from where an exception would be taken, since the call raises one when the
    /// user memory at `address` is not what it should be. Asked only while user memory is watched.
    pub(crate) fn needs_guard(&self, address: usize) {
        if !crate::cpu::user_access::is_call_guarded(&self.site, &self.thread) {
            let name = self.site.export.name;
            self.stop(
                Rule::UnguardedUserAccess,
                format!(
                    "{name} is called outside of __try for user address {address:#x}: it raises an exception when a program \
                     passed a bad address, and nothing on the stack would take that"
                ),
            );
        }
    }

    fn write_trace(&self) {
        if let Some(started) = self.started {
            let detail = std::mem::take(&mut *self.detail.borrow_mut());
            self.machine().trace.record(&self.site, detail, self.bytes.get(), started.elapsed());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.write_trace();
        crate::cpu::user_access::judge(&self.site, &self.thread);
        self.thread.call_ended();
        self.thread.linger();
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Bench;
    use super::*;

    static NOTHING: u64 = 0;
    exports! { pub(super) TABLE in "ntoskrnl.exe":
        TestAtMostApc(max 1) = at_most_apc;
        data TestData = NOTHING;
    }

    extern "efiapi" fn at_most_apc() -> u32 {
        let call = Call::enter();
        call.detail("hello");
        call.bytes(3);
        7
    }

    #[test]
    fn a_table_lists_functions_and_data() {
        assert_eq!(TABLE[0].max_irql, 1);
        assert!(matches!(TABLE[0].target, Target::Function(_)));
        assert!(matches!(TABLE[1].target, Target::Data(address) if address == (&raw const NOTHING).cast()));
    }

    #[test]
    fn a_call_is_traced_with_what_it_did() {
        let bench = Bench::new();
        assert_eq!(bench.call(&TABLE[0], || at_most_apc()).unwrap(), 7);
        let entry = bench.machine().trace().pop().unwrap();
        assert_eq!((entry.name, entry.detail.as_str(), entry.bytes), ("TestAtMostApc", "hello", 3));
        assert_eq!(entry.driver, "test.sys");
    }

    #[test]
    fn a_call_above_its_irql_stops_the_machine() {
        let bench = Bench::new();
        let stopped = bench
            .call(&TABLE[0], || {
                Thread::current().set_irql(2);
                at_most_apc()
            })
            .unwrap_err();
        assert_eq!(stopped.0.rule, Rule::IrqlTooHigh);
        assert_eq!(stopped.0.call, "TestAtMostApc");
        assert!(bench.run(|| at_most_apc()).is_err(), "a stopped machine runs nothing more");
    }
}
