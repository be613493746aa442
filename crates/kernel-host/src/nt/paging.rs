//! Memory that Windows may page out: paged pool, and sections of drivers whose names begin with `PAGE`.
//!
//! Nothing is ever written to a disk here. What counts is that a driver must not touch such memory at `DISPATCH_LEVEL` or
//! above, and that on Windows it gets away with it for as long as the page happens to be there. So the machine does what
//! Driver Verifier's forced IRQL checking does: whenever a thread raises its IRQL to `DISPATCH_LEVEL` or above, all pageable
//! memory becomes inaccessible. The first access below that level brings the run back, as a page fault would; one above is a
//! finding. (A thread above can still get away with it when another one has brought the run back meanwhile.)
//!
//! The fault handler asks [`Paging::bring_in`] in signal context, on a thread that may have been anywhere. That is why the
//! lock is one that spins, and nothing pageable is touched while it is held.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::mprotect;
use spin::Mutex;

use super::arena::{Access, PAGE};
use crate::machine::Inner;
use crate::thread::Thread;

/// Pageable memory of one machine.
#[derive(Debug, Default)]
pub(crate) struct Paging {
    /// Runs by address.
    runs: Mutex<BTreeMap<usize, Run>>,
    /// Whether some run may be accessible: raising the IRQL costs one load when none is.
    some_resident: AtomicBool,
}

#[derive(Debug)]
struct Run {
    pages: usize,
    access: Access,
    resident: bool,
    what: Pageable,
}

/// What a run is, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pageable {
    Pool,
    Section,
}

impl Pageable {
    /// As in "the address is in ...".
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Pool => "paged pool",
            Self::Section => "a pageable section of a driver",
        }
    }
}

impl Paging {
    /// A run of pages is pageable from now on. It is accessible now.
    pub(crate) fn add(&self, address: usize, pages: usize, access: Access, what: Pageable) {
        self.runs.lock().insert(address, Run { pages, access, resident: true, what });
        self.some_resident.store(true, Ordering::Release);
    }

    /// A run is pageable no longer; its owner says what may be done with it from now on.
    pub(crate) fn remove(&self, address: usize) {
        self.runs.lock().remove(&address);
    }

    /// A thread has come to `DISPATCH_LEVEL`: all runs become inaccessible.
    pub(crate) fn page_out(&self) {
        if !self.some_resident.load(Ordering::Acquire) {
            return;
        }
        let mut runs = self.runs.lock();
        self.some_resident.store(false, Ordering::Release);
        for (address, run) in runs.iter_mut().filter(|(_, run)| run.resident) {
            run.resident = !protect(*address, run.pages, Access::None);
        }
    }

    /// Serves a page fault: true when the access may be tried again.
    fn bring_in(&self, address: usize, needed: Needed, irql: u8) -> bool {
        let mut runs = self.runs.lock();
        let Some((start, run)) = runs.range_mut(..=address).next_back() else { return false };
        if address - start >= run.pages * PAGE || irql > nt_types::APC_LEVEL || !needed.is_in(run.access) {
            return false;
        }
        if !run.resident {
            run.resident = protect(*start, run.pages, run.access);
            self.some_resident.store(true, Ordering::Release);
        }
        // Resident already: another thread was faster.
        run.resident
    }

    /// What pageable memory lies at `address`.
    pub(crate) fn at(&self, address: usize) -> Option<Pageable> {
        let runs = self.runs.lock();
        let (start, run) = runs.range(..=address).next_back()?;
        (address - start < run.pages * PAGE).then_some(run.what)
    }
}

/// What an access that faulted wanted to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needed {
    Read,
    Write,
    Execute,
}

impl Needed {
    fn is_in(self, access: Access) -> bool {
        match self {
            Self::Read => access != Access::None,
            Self::Write => matches!(access, Access::ReadWrite | Access::ReadWriteExecute),
            Self::Execute => matches!(access, Access::ReadExecute | Access::ReadWriteExecute),
        }
    }
}

/// Serves a page fault of the calling thread, in signal context: true when the access may be tried again.
pub(crate) fn bring_in(address: usize, needed: Needed) -> bool {
    Thread::try_current().is_some_and(|thread| thread.machine().nt.paging().bring_in(address, needed, thread.irql()))
}

/// What pageable memory of the calling thread's machine lies at `address`.
pub(crate) fn at(machine: &Inner, address: usize) -> Option<&'static str> {
    machine.nt.paging().at(address).map(Pageable::describe)
}

fn protect(address: usize, pages: usize, access: Access) -> bool {
    // SAFETY: the run belongs to the machine; hiding it makes accesses fault, which is what the fault handler is for.
    unsafe { mprotect(std::ptr::with_exposed_provenance_mut(address), pages * PAGE, access.mprotect()) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::finding::Rule;
    use crate::nt::raw::Raw;

    /// A page as a driver's paged pool would have it.
    fn page(bench: &Bench) -> usize {
        let nt = &bench.machine().inner().nt;
        let page = nt.arena().allocate(1, Access::ReadWrite).expect("memory");
        nt.paging().add(page, 1, Access::ReadWrite, Pageable::Pool);
        page
    }

    #[test]
    fn pageable_memory_comes_back_below_dispatch_level() {
        let bench = Bench::new();
        let page = page(&bench);
        let value = bench.run(|| {
            Raw::<u32>::at(page).write(7);
            Thread::current().set_irql(2);
            Thread::current().set_irql(0);
            Raw::<u32>::at(page).read()
        });
        assert_eq!(value.unwrap(), 7);
    }

    #[test]
    fn touching_pageable_memory_at_dispatch_level_is_found_even_if_it_was_there_a_moment_ago() {
        conforms!(
            "docs:kernel/managing-hardware-priorities.md",
            "A routine above APC_LEVEL must not touch paged memory: a page fault there is fatal."
        );
        let bench = Bench::new();
        let page = page(&bench);
        let finding = bench
            .run(|| {
                Raw::<u32>::at(page).write(7);
                Thread::current().set_irql(2);
                // As an export does with a buffer of the driver's.
                let _call = crate::ddi::Call::enter();
                Raw::<u32>::at(page).read()
            })
            .unwrap_err()
            .0;
        assert_eq!(finding.rule, Rule::IrqlTooHigh, "{}", finding.message);
        assert!(finding.message.contains("paged pool"), "{}", finding.message);
    }

    #[test]
    fn what_is_pageable_no_longer_stays() {
        let bench = Bench::new();
        let page = page(&bench);
        bench.machine().inner().nt.paging().remove(page);
        let value = bench.run(|| {
            Thread::current().set_irql(2);
            let value = Raw::<u32>::at(page).read();
            Thread::current().set_irql(0);
            value
        });
        assert_eq!(value.unwrap(), 0);
    }

    #[test]
    fn a_write_to_pageable_code_is_not_taken_for_a_page_fault() {
        let paging = Paging::default();
        let arena = crate::nt::arena::Arena::reserve(None, 16 * PAGE, 0).expect("address space");
        let code = arena.allocate(1, Access::ReadExecute).expect("memory");
        paging.add(code, 1, Access::ReadExecute, Pageable::Section);
        paging.page_out();
        assert!(!paging.bring_in(code, Needed::Write, 0));
        assert!(!paging.bring_in(code, Needed::Execute, 2));
        assert!(paging.bring_in(code, Needed::Execute, 1));
        assert!(!paging.bring_in(code + PAGE, Needed::Read, 0), "behind it");
    }
}
