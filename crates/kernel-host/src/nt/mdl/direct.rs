//! Lists that the I/O manager makes for requests: of a program's pages, which it locks, and of kernel memory.
//! Page: `docs:kernel/using-direct-i-o.md`.

use nt_types::{MDL, MdlFlags, NtStatus};

use super::{Mappings, describe_kernel_pages, frame_slot, list_bytes};
use crate::machine::Inner;
use crate::nt::arena::PAGE;
use crate::nt::raw::{Raw, field};
use crate::process::Process;

/// The pages of a program's buffer, locked for a request. What a driver does to them, the program sees at once, and the other
/// way round: they are the same pages.
#[derive(Debug)]
pub(in crate::nt) struct LockedPages {
    frames: Vec<u64>,
    span: (usize, usize),
    write: bool,
    /// The process object.
    process: usize,
}

/// Bytes of a list that describes `length` bytes at `address`.
pub(in crate::nt) fn bytes_for((address, length): (usize, usize)) -> usize {
    list_bytes(address, length)
}

/// Describes kernel memory, which is mapped where it is.
pub(in crate::nt) fn describe_kernel(list: Raw<MDL>, span: (usize, usize)) {
    let header = MDL {
        MdlFlags: (MdlFlags::PAGES_LOCKED | MdlFlags::MAPPED_TO_SYSTEM_VA).bits(),
        MappedSystemVa: Raw::at(span.0).pointer(),
        ..header(span)
    };
    list.write(header);
    describe_kernel_pages(list, &header);
}

fn header((address, length): (usize, usize)) -> MDL {
    MDL {
        // As in `new_list`.
        Size: i16::try_from(list_bytes(address, length)).unwrap_or(i16::MAX & !7),
        StartVa: Raw::at(address & !(PAGE - 1)).pointer(),
        ByteCount: length as u32,
        ByteOffset: (address % PAGE) as u32,
        ..MDL::ZERO
    }
}

impl LockedPages {
    /// Locks a program's buffer for a driver that reads it, or, with `write`, changes it.
    ///
    /// # Errors
    /// `STATUS_ACCESS_VIOLATION` where the program itself could not do that, `STATUS_NO_MEMORY`.
    pub(in crate::nt) fn new(
        machine: &Inner,
        process: &Process,
        span: (usize, usize),
        write: bool,
    ) -> Result<Self, NtStatus> {
        let frames = process.memory().lock_pages(machine.nt.physical(), span.0, span.1, write)?;
        Ok(Self { frames, span, write, process: process.object() })
    }

    /// Describes the pages. Nothing maps them yet: that is for drivers that want to touch them.
    pub(in crate::nt) fn describe(&self, list: Raw<MDL>) {
        let mut flags = MdlFlags::PAGES_LOCKED;
        flags.set(MdlFlags::WRITE_OPERATION, self.write);
        list.write(MDL { MdlFlags: flags.bits(), Process: Raw::at(self.process).pointer(), ..header(self.span) });
        for (index, frame) in self.frames.iter().enumerate() {
            frame_slot(list, index).write(*frame);
        }
    }

    /// The program has its pages for itself again.
    pub(in crate::nt) fn unlock(&self, machine: &Inner) {
        machine.nt.physical().unpin(&self.frames);
    }
}

impl Mappings {
    /// A request with a list of the I/O manager's is complete: what drivers mapped of it into system space is unmapped, as
    /// `MmUnlockPages` does.
    pub(in crate::nt) fn unmap_all(&self, machine: &Inner, list: Raw<MDL>) {
        let gone: Vec<_> = {
            let mut mappings = self.lock();
            let of_list = mappings.extract_if(|_, mapping| mapping.list == list.address() && mapping.process.is_none());
            of_list.filter_map(|(_, mapping)| Some((mapping.run?, mapping.pages))).collect()
        };
        for (run, pages) in gone {
            machine.nt.arena().release(run, pages);
        }
        let flags = field!(list, MDL, MdlFlags);
        let kept = MdlFlags::from_bits_retain(flags.read()) - MdlFlags::MAPPED_TO_SYSTEM_VA - MdlFlags::PAGES_LOCKED;
        flags.write(kept.bits());
    }
}
