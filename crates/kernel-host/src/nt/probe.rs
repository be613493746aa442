//! `ProbeForRead` and `ProbeForWrite`: is a range the program's own memory?

use nt_types::NtStatus;

use super::arena::PAGE;
use super::current_process;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::process::HIGHEST_USER_ADDRESS;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ProbeForRead(max 1) = probe_for_read;
    ProbeForWrite(max 1) = probe_for_write;
}

extern "efiapi" fn probe_for_read(address: usize, length: usize, alignment: u32) {
    let call = Call::enter();
    if let Some(status) = refusal(&call, address, length, alignment) {
        call.raise(status);
    }
}

extern "efiapi" fn probe_for_write(address: usize, length: usize, alignment: u32) {
    let call = Call::enter();
    let status = refusal(&call, address, length, alignment).or_else(|| touch(&call, address, length).err());
    if let Some(status) = status {
        call.raise(status);
    }
}

/// What both routines raise without looking at the memory itself: nothing for an empty range, wherever it is.
fn refusal(call: &Call, address: usize, length: usize, alignment: u32) -> Option<NtStatus> {
    call.bytes(length as u64);
    call.needs_guard(address);
    if !alignment.is_power_of_two() || alignment > 16 {
        call.stop(Rule::BadArgument, format!("alignment {alignment}: 1, 2, 4, 8 or 16 can be asked for"));
    }
    if length == 0 {
        None
    } else if !address.is_multiple_of(alignment as usize) {
        Some(NtStatus::DATATYPE_MISALIGNMENT)
    } else {
        let last = address.checked_add(length - 1);
        last.is_none_or(|last| last > HIGHEST_USER_ADDRESS).then_some(NtStatus::ACCESS_VIOLATION)
    }
}

/// Writes each page's first byte of the range back, as the page says that the routine does.
fn touch(call: &Call, address: usize, length: usize) -> Result<(), NtStatus> {
    let process = current_process(call);
    let mut at = address;
    while at < address + length {
        let mut byte = [0];
        process.memory().read(at, &mut byte)?;
        process.memory().write(at, &byte)?;
        at = (at / PAGE + 1) * PAGE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::process::{Placement, Process, Protection};
    use crate::thread::Thread;

    /// What `body` raises in a process; `None` when it returns.
    fn raised(body: impl FnOnce(&Arc<Process>)) -> Option<String> {
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        let result = bench.run(|| {
            Thread::current().set_process(Some(process.clone()));
            body(&process);
            Thread::current().set_process(None);
        });
        result.err().map(|stopped| {
            assert_eq!(stopped.0.rule, Rule::UnhandledException, "{}", stopped.0);
            stopped.0.message
        })
    }

    fn raises(status: &str, body: impl FnOnce(&Arc<Process>)) {
        let message = raised(body).expect("an exception");
        assert!(message.contains(status), "{message}");
    }

    #[test]
    fn an_empty_range_is_not_looked_at() {
        conforms!("wdm/nf-wdm-probeforread.md", "With a length of 0 nothing is checked, whatever the address.");
        conforms!("wdm/nf-wdm-probeforwrite.md", "With a length of 0 nothing is checked, whatever the address.");
        let odd_kernel_address = usize::MAX - 2;
        assert_eq!(raised(|_| probe_for_read(odd_kernel_address, 0, 8)), None);
        assert_eq!(raised(|_| probe_for_write(odd_kernel_address, 0, 8)), None);
    }

    #[test]
    fn a_misaligned_start_raises() {
        conforms!(
            "wdm/nf-wdm-probeforread.md",
            "A start that is not aligned as asked raises STATUS_DATATYPE_MISALIGNMENT."
        );
        conforms!(
            "wdm/nf-wdm-probeforwrite.md",
            "A start that is not aligned as asked raises STATUS_DATATYPE_MISALIGNMENT."
        );
        raises("DATATYPE_MISALIGNMENT", |_| probe_for_read(0x10002, 4, 4));
        raises("DATATYPE_MISALIGNMENT", |_| probe_for_write(0x10001, 4, 2));
        assert_eq!(raised(|_| probe_for_read(0x10003, 4, 1)), None);
    }

    #[test]
    fn a_range_that_leaves_user_space_raises() {
        conforms!("wdm/nf-wdm-probeforread.md", "A range outside of user space raises STATUS_ACCESS_VIOLATION.");
        conforms!("wdm/nf-wdm-probeforwrite.md", "A base and length that wrap around raise STATUS_ACCESS_VIOLATION.");
        raises("ACCESS_VIOLATION", |_| probe_for_read(HIGHEST_USER_ADDRESS, 2, 1));
        raises("ACCESS_VIOLATION", |_| probe_for_read(HIGHEST_USER_ADDRESS + 1, 1, 1));
        raises("ACCESS_VIOLATION", |_| probe_for_read(0x10000, usize::MAX - 0x100, 1));
        raises("ACCESS_VIOLATION", |_| probe_for_write(0x10000, usize::MAX - 0x100, 1));
        assert_eq!(raised(|_| probe_for_read(HIGHEST_USER_ADDRESS, 1, 1)), None);
    }

    #[test]
    fn probing_for_read_does_not_touch_the_memory_and_for_write_does() {
        conforms!("wdm/nf-wdm-probeforwrite.md", "Memory that cannot be written raises STATUS_ACCESS_VIOLATION.");
        assert_eq!(raised(|_| probe_for_read(0x10000, 4096, 1)), None, "nothing is there");
        raises("ACCESS_VIOLATION", |_| probe_for_write(0x10000, 1, 1));
        raises("ACCESS_VIOLATION", |process| {
            let buffer = process.allocate(PAGE + 1, Protection::ReadOnly, Placement::PageStart).expect("room");
            probe_for_write(buffer.address(), PAGE + 1, 8);
        });
        raises("GUARD_PAGE_VIOLATION", |process| {
            let buffer = process.allocate(1, Protection::Guard, Placement::PageStart).expect("room");
            probe_for_write(buffer.address(), 1, 1);
        });
        let nothing = raised(|process| {
            let buffer = process.buffer(&[7; 10]).expect("room");
            probe_for_write(buffer.address(), 10, 1);
            assert_eq!(buffer.read().expect("readable"), [7; 10]);
        });
        assert_eq!(nothing, None);
    }

    #[test]
    fn memory_of_another_process_cannot_be_probed_for_write() {
        let bench = Bench::new();
        let process = bench.machine().process("p.exe").start().expect("room");
        let buffer = process.buffer(&[1; 8]).expect("room");
        let stopped = bench.run(|| probe_for_write(buffer.address(), 8, 1)).unwrap_err();
        assert!(stopped.0.message.contains("ACCESS_VIOLATION"));
    }
}
