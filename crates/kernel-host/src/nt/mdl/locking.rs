//! `MmProbeAndLockPages` and its end.

use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

use nt_types::{APC_LEVEL, KERNEL_MODE, KPROCESSOR_MODE, MDL, MdlFlags, NtStatus};

use super::{Mappings, describe_kernel_pages, frame_slot, read_list, unmap};
use crate::ddi::{Call, exports};
use crate::finding::{Finding, Rule};
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::arena::PAGE;
use crate::nt::current_process;
use crate::nt::memory::read_kernel;
use crate::nt::raw::{Raw, field};
use crate::origin::Origin;
use crate::process::{HIGHEST_USER_ADDRESS, Process};

exports! { pub(in crate::nt) EXPORTS in "ntoskrnl.exe":
    MmProbeAndLockPages(max 2, fails LOCKING) = mm_probe_and_lock_pages;
    MmUnlockPages(max 2) = mm_unlock_pages;
}

/// `IoReadAccess` of `LOCK_OPERATION`; the others, `IoWriteAccess` and `IoModifyAccess`, need write access.
const IO_READ_ACCESS: i32 = 0;
const IO_MODIFY_ACCESS: i32 = 2;

/// How long requests of a process that ends may take to unlock its pages.
const LONGEST_UNLOCKING: Duration = Duration::from_secs(1);

/// What a list has locked.
#[derive(Debug)]
pub(super) struct Locked {
    /// Pinned frames; none for kernel memory, which cannot go away unnoticed.
    pub(super) frames: Vec<u64>,
    pages: usize,
    /// Whose user memory it is.
    process: Option<Weak<Process>>,
    driver: Arc<Driver>,
    site: Origin,
}

impl Mappings {
    /// Whether a list has locked pages with `MmProbeAndLockPages`.
    pub(super) fn is_locked(&self, list: usize) -> bool {
        self.with_locked(|locked| locked.contains_key(&list))
    }

    pub(super) fn with_locked<R>(&self, body: impl FnOnce(&mut std::collections::HashMap<usize, Locked>) -> R) -> R {
        body(&mut self.locked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who has pages of a process locked, and how that came about.
    fn locked_in(&self, process: &Process) -> Option<(Arc<Driver>, String)> {
        self.with_locked(|locked| {
            let is_its =
                |lock: &&Locked| lock.process.as_ref().is_some_and(|owner| std::ptr::eq(owner.as_ptr(), process));
            let lock = locked.values().find(is_its)?;
            Some((Arc::clone(&lock.driver), format!("{} page(s) are locked from {}", lock.pages, lock.site)))
        })
    }

    /// A process must not end while a driver has its pages locked: bug check 0x76. Requests that were cancelled just now get
    /// a moment to end.
    pub(crate) fn process_ends(&self, machine: &Inner, process: &Process) {
        let began = Instant::now();
        while let Some((driver, pages)) = self.locked_in(process) {
            if began.elapsed() < LONGEST_UNLOCKING {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let message = format!(
                "PROCESS_HAS_LOCKED_PAGES (0x76): {} ends, and of its memory {pages}\n      MmUnlockPages comes before the \
                 request that the buffer came with is completed",
                process.image_name()
            );
            let message = crate::machine::name_addresses(&message);
            return machine.record(Finding::new(Rule::BadState, message, "process exit", &driver.name));
        }
    }

    /// Lists of `driver` whose pages are still locked.
    pub(super) fn locked_by(&self, driver: &Driver) -> Vec<Leak> {
        self.with_locked(|locked| {
            let mine = locked.iter().filter(|(_, lock)| std::ptr::eq(Arc::as_ptr(&lock.driver), driver));
            let leak = |(list, lock): (&usize, &Locked)| Leak {
                kind: LeakKind::Mapping,
                count: 1,
                bytes: (lock.pages * PAGE) as u64,
                detail: format!("pages locked by the MDL at {list:#x} (from {})", lock.site),
            };
            mine.map(leak).collect()
        })
    }
}

pub(super) extern "efiapi" fn mm_probe_and_lock_pages(list: Raw<MDL>, mode: KPROCESSOR_MODE, operation: i32) {
    let call = Call::enter();
    if call.falls_short() {
        call.raise(NtStatus::WORKING_SET_QUOTA);
    }
    if let Err(status) = lock(&call, list, mode, operation) {
        call.raise(status);
    }
}

fn lock(call: &Call, list: Raw<MDL>, mode: KPROCESSOR_MODE, operation: i32) -> Result<(), NtStatus> {
    let header = read_list(call, list);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags);
    let taken = MdlFlags::PAGES_LOCKED | MdlFlags::SOURCE_IS_NONPAGED_POOL | MdlFlags::PARTIAL;
    if flags.intersects(taken) {
        call.stop(Rule::BadState, format!("the MDL's pages are locked already, or need no lock ({flags:?})"));
    }
    if !(IO_READ_ACCESS..=IO_MODIFY_ACCESS).contains(&operation) {
        call.stop(Rule::BadArgument, format!("LOCK_OPERATION {operation}"));
    }
    let (start, length) = (header.StartVa.addr() + header.ByteOffset as usize, header.ByteCount as usize);
    call.bytes(length as u64);
    let last = start.checked_add(length.max(1) - 1).ok_or(NtStatus::ACCESS_VIOLATION)?;
    let write = operation != IO_READ_ACCESS;
    let (mut frames, mut owner) = (Vec::new(), None);
    if start > HIGHEST_USER_ADDRESS {
        if mode != KERNEL_MODE {
            return Err(NtStatus::ACCESS_VIOLATION);
        }
        if read_kernel(start, &mut vec![0; length]) < length {
            return Err(NtStatus::ACCESS_VIOLATION);
        }
        describe_kernel_pages(list, &header);
    } else {
        if last > HIGHEST_USER_ADDRESS {
            return Err(NtStatus::ACCESS_VIOLATION);
        }
        let irql = call.thread().irql();
        if irql > APC_LEVEL {
            call.stop(Rule::IrqlTooHigh, format!("user memory is locked at IRQL {irql}, above APC_LEVEL"));
        }
        call.needs_guard(start);
        let process = current_process(call);
        frames = process.memory().lock_pages(call.machine().nt.physical(), start, length, write)?;
        for (index, frame) in frames.iter().enumerate() {
            frame_slot(list, index).write(*frame);
        }
        field!(list, MDL, Process).write(Raw::at(process.object()).pointer());
        owner = Some(Arc::downgrade(&process));
    }
    let locked = Locked {
        pages: super::pages_of(&header),
        frames,
        process: owner,
        driver: Arc::clone(call.driver()),
        site: Origin::of(call.site()),
    };
    call.machine().nt.mappings().with_locked(|all| all.insert(list.address(), locked));
    let mut flags = flags | MdlFlags::PAGES_LOCKED;
    flags.set(MdlFlags::WRITE_OPERATION, write);
    field!(list, MDL, MdlFlags).write(flags.bits());
    Ok(())
}

pub(super) extern "efiapi" fn mm_unlock_pages(list: Raw<MDL>) {
    let call = Call::enter();
    let header = read_list(&call, list);
    let nt = &call.machine().nt;
    if !nt.mappings().is_locked(list.address()) {
        call.stop(Rule::BadState, "the MDL's pages were not locked by MmProbeAndLockPages, or are unlocked already");
    }
    // The page: a mapping into system space is released first.
    if MdlFlags::from_bits_retain(header.MdlFlags).contains(MdlFlags::MAPPED_TO_SYSTEM_VA) {
        unmap(&call, header.MappedSystemVa.addr(), list);
    }
    let locked = nt.mappings().with_locked(|all| all.remove(&list.address()));
    if let Some(locked) = locked {
        nt.physical().unpin(&locked.frames);
    }
    let flags = MdlFlags::from_bits_retain(field!(list, MDL, MdlFlags).read());
    field!(list, MDL, MdlFlags).write((flags - MdlFlags::PAGES_LOCKED - MdlFlags::WRITE_OPERATION).bits());
    field!(list, MDL, Process).write(std::ptr::null_mut());
}
