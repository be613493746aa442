//! `KQUEUE`: entries that threads wait for.
//!
//! The count of threads that run at once on a queue's entries is a hint to the scheduler of Windows, which lets more run as
//! soon as one of them blocks; here all of them may run.

use std::sync::atomic::Ordering;

use nt_types::{DISPATCHER_HEADER, NtStatus};

use super::dispatcher::{Kind, initialise, state};
use super::queue_lock::{List, locked};
use super::raw::{Raw, field};
use super::wait::{Limit, check_irql, check_mode};
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeInitializeQueue(max 2) = ke_initialize_queue;
    KeInsertQueue(max 2) = ke_insert_queue;
    KeInsertHeadQueue(max 2) = ke_insert_head_queue;
    KeRemoveQueue(max 2) = ke_remove_queue;
    KeRemoveQueueEx(max 2) = ke_remove_queue_ex;
    KeRundownQueue(max 2) = ke_rundown_queue;
    KeReadStateQueue(max 2) = ke_read_state_queue;
}

/// Fields of `KQUEUE` behind its header.
mod queue {
    pub(super) const ENTRIES: usize = 24;
    pub(super) const CURRENT_COUNT: usize = 40;
    pub(super) const MAXIMUM_COUNT: usize = 44;
    pub(super) const THREADS: usize = 48;
    pub(super) const LENGTH: usize = 64;
}

/// Processors of the simulated computer: the count where none is given.
const PROCESSORS: u32 = 1;
/// `DISPATCHER_HEADER::Signalling` of a queue that was run down.
const ABANDONED: u8 = 1;
/// `STATUS_ABANDONED`.
const STATUS_ABANDONED: usize = 0x80;

/// A queue in the driver's memory.
#[derive(Clone, Copy)]
struct Queue(Raw<DISPATCHER_HEADER>);

impl Queue {
    fn of(call: &Call, at: Raw<DISPATCHER_HEADER>) -> Self {
        if Kind::of(call, at) != Kind::Queue {
            call.stop(Rule::BadArgument, format!("{at:?} is no queue that KeInitializeQueue made"));
        }
        Self(at)
    }

    fn entries(self) -> List {
        List(self.0.field(queue::ENTRIES))
    }

    fn locked<R>(self, call: &Call, body: impl FnOnce(List) -> R) -> R {
        locked(call, self.0.field(queue::THREADS), || body(self.entries()))
    }

    fn is_abandoned(self) -> bool {
        field!(self.0, DISPATCHER_HEADER, Signalling).read() == ABANDONED
    }

    /// Puts an entry at one end; how many there were.
    fn insert(self, call: &Call, entry: usize, at_head: bool) -> i32 {
        if self.is_abandoned() {
            call.stop(Rule::BadState, format!("{:?} was run down and is not initialised again", self.0));
        }
        let is_queued = self.locked(call, |list| {
            if list.entries().any(|other| other == entry) {
                return true;
            }
            let place = if at_head { list.entries().next() } else { None };
            List::insert_before(place.unwrap_or(list.0.address()), entry);
            false
        });
        if is_queued {
            call.stop(Rule::BadState, format!("the entry {entry:#x} is in the queue already"));
        }
        let before = state(self.0).fetch_add(1, Ordering::AcqRel);
        call.machine().nt.dispatcher().wake();
        before
    }

    /// Takes up to `most` entries; none when there are none.
    fn take(self, call: &Call, most: usize) -> Vec<usize> {
        if state(self.0).load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let taken: Vec<usize> = self.locked(call, |list| std::iter::from_fn(|| list.pop()).take(most).collect());
        // A queue in memory has fewer entries than an i32 counts.
        state(self.0).fetch_sub((taken.len() as u32).cast_signed(), Ordering::AcqRel);
        taken
    }

    /// Waits for entries: up to `most` of them, or why there are none.
    fn wait(self, call: &Call, most: usize, mode: i8, timeout: Raw<i64>) -> Result<Vec<usize>, usize> {
        let limit = Limit::of(timeout);
        check_irql(call, limit);
        check_mode(call, mode, self.0);
        let mut taken = Vec::new();
        let satisfied = || {
            taken = self.take(call, most);
            !taken.is_empty() || self.is_abandoned()
        };
        if !call.machine().nt.dispatcher().wait(call, limit.deadline(), satisfied) {
            return Err(NtStatus::TIMEOUT.bits() as usize);
        }
        if taken.is_empty() { Err(STATUS_ABANDONED) } else { Ok(taken) }
    }
}

extern "efiapi" fn ke_initialize_queue(at: Raw<DISPATCHER_HEADER>, count: u32) {
    let _call = Call::enter();
    initialise(at, Kind::Queue, queue::LENGTH, 0);
    Queue(at).entries().initialise();
    at.field::<u32>(queue::CURRENT_COUNT).write(0);
    at.field::<u32>(queue::MAXIMUM_COUNT).write(if count == 0 { PROCESSORS } else { count });
    List(at.field(queue::THREADS)).initialise();
}

extern "efiapi" fn ke_insert_queue(at: Raw<DISPATCHER_HEADER>, entry: usize) -> i32 {
    let call = Call::enter();
    Queue::of(&call, at).insert(&call, entry, false)
}

extern "efiapi" fn ke_insert_head_queue(at: Raw<DISPATCHER_HEADER>, entry: usize) -> i32 {
    let call = Call::enter();
    Queue::of(&call, at).insert(&call, entry, true)
}

/// An entry's address, or a status in its place.
extern "efiapi" fn ke_remove_queue(at: Raw<DISPATCHER_HEADER>, mode: i8, timeout: Raw<i64>) -> usize {
    let call = Call::enter();
    match Queue::of(&call, at).wait(&call, 1, mode, timeout) {
        Ok(taken) => taken.first().copied().unwrap_or_default(),
        Err(status) => status,
    }
}

/// No page: several entries at once, how many (general knowledge), or a status.
extern "efiapi" fn ke_remove_queue_ex(
    at: Raw<DISPATCHER_HEADER>,
    mode: i8,
    _alertable: u8,
    timeout: Raw<i64>,
    entries: Raw<usize>,
    count: u32,
) -> u32 {
    let call = Call::enter();
    if count == 0 {
        call.stop(Rule::BadArgument, "room for no entry");
    }
    match Queue::of(&call, at).wait(&call, count as usize, mode, timeout) {
        Ok(taken) => {
            taken.iter().enumerate().for_each(|(index, entry)| entries.index(index).write(*entry));
            taken.len() as u32
        }
        Err(status) => status as u32,
    }
}

/// The entries stay linked to each other, without the head: the page returns the first, and drivers walk on from it.
extern "efiapi" fn ke_rundown_queue(at: Raw<DISPATCHER_HEADER>) -> usize {
    let call = Call::enter();
    let queue = Queue::of(&call, at);
    let first = queue.locked(&call, |list| {
        let first = list.entries().next();
        List::remove(list.0.address());
        list.initialise();
        first
    });
    state(at).store(0, Ordering::Release);
    field!(at, DISPATCHER_HEADER, Signalling).write(ABANDONED);
    call.machine().nt.dispatcher().wake();
    first.unwrap_or(0)
}

extern "efiapi" fn ke_read_state_queue(at: Raw<DISPATCHER_HEADER>) -> i32 {
    let call = Call::enter();
    Queue::of(&call, at);
    state(at).load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    /// A queue and three entries, off the stack.
    struct World {
        bench: Bench,
        queue: Raw<DISPATCHER_HEADER>,
        entries: [usize; 3],
    }

    fn world() -> World {
        let memory = Raw::<[u64; 16]>::of(Box::leak(Box::new([0_u64; 16])));
        let world = World {
            bench: Bench::new(),
            queue: memory.cast(),
            entries: [64, 80, 96].map(|offset| memory.address() + offset),
        };
        world.bench.run(|| ke_initialize_queue(world.queue, 0)).unwrap();
        world
    }

    /// Looks for an entry without waiting.
    fn look(queue: Raw<DISPATCHER_HEADER>) -> usize {
        let mut zero = 0;
        ke_remove_queue(queue, 0, Raw::of(&raw mut zero))
    }

    const TIMEOUT: usize = NtStatus::TIMEOUT.bits() as usize;

    #[test]
    fn entries_come_out_in_order_and_the_state_counts_them() {
        conforms!("ntifs/nf-ntifs-keinitializequeue.md", "A new queue is not signalled.");
        conforms!(
            "ntifs/nf-ntifs-keinsertqueue.md",
            "The entry goes to the tail; the number of entries that were queued before is returned."
        );
        conforms!("ntifs/nf-ntifs-keinsertheadqueue.md", "The entry goes to the head; the state before is returned.");
        conforms!(
            "ntifs/nf-ntifs-keremovequeue.md",
            "An entry is returned when there is one, STATUS_TIMEOUT when the time has passed, also a time of zero."
        );
        let world = world();
        let [one, two, three] = world.entries;
        world
            .bench
            .run(|| {
                assert_eq!(look(world.queue), TIMEOUT);
                assert_eq!(ke_insert_queue(world.queue, one), 0);
                assert_eq!(ke_insert_queue(world.queue, two), 1);
                assert_eq!(ke_insert_head_queue(world.queue, three), 2);
                assert_eq!(ke_read_state_queue(world.queue), 3);
                assert_eq!([look(world.queue), look(world.queue), look(world.queue)], [three, one, two]);
                assert_eq!(look(world.queue), TIMEOUT);
            })
            .unwrap();
    }

    #[test]
    fn a_thread_that_waits_gets_the_entry() {
        conforms!("ntifs/nf-ntifs-keremovequeue.md", "NULL for the time-out waits until there is an entry.");
        let World { bench, queue, entries } = world();
        let (address, entry) = (queue.address(), entries[0]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                bench.run(|| ke_insert_queue(Raw::at(address), entry)).unwrap();
            });
            assert_eq!(bench.run(|| ke_remove_queue(Raw::at(address), 0, Raw::NULL)).unwrap(), entry);
        });
    }

    #[test]
    fn threads_take_each_entry_once() {
        let World { bench, queue, .. } = world();
        let memory = Raw::<[usize; 2]>::of(Box::leak(vec![[0_usize; 2]; 400].into_boxed_slice()).as_mut_ptr());
        let (queue, base) = (queue.address(), memory.address());
        let mut taken: Vec<usize> = std::thread::scope(|scope| {
            scope.spawn(|| {
                bench.run(|| (0..400).for_each(|at| _ = ke_insert_queue(Raw::at(queue), base + at * 16))).unwrap();
            });
            let take = || {
                let take_one = |_| ke_remove_queue(Raw::at(queue), 0, Raw::NULL);
                bench.run(|| (0..200).map(take_one).collect::<Vec<_>>()).unwrap()
            };
            let takers = [scope.spawn(take), scope.spawn(take)];
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        taken.sort_unstable();
        assert_eq!(taken, (0..400).map(|at| base + at * 16).collect::<Vec<_>>());
    }

    #[test]
    fn a_queue_that_is_run_down_releases_its_threads_and_its_entries() {
        conforms!(
            "ntifs/nf-ntifs-kerundownqueue.md",
            "The first entry is returned, NULL for an empty queue; the queue is initialised again before its next use."
        );
        conforms!(
            "ntifs/nf-ntifs-kerundownqueue.md",
            "Threads that wait are woken with STATUS_ABANDONED, and so are those that wait later."
        );
        let World { bench, queue, entries } = world();
        let address = queue.address();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(bench.run(|| ke_rundown_queue(Raw::at(address))).unwrap(), 0);
            });
            let woken = bench.run(|| ke_remove_queue(Raw::at(address), 0, Raw::NULL));
            assert_eq!(woken.unwrap(), STATUS_ABANDONED);
        });
        bench
            .run(|| {
                assert_eq!(look(queue), STATUS_ABANDONED);
                ke_initialize_queue(queue, 0);
                for entry in entries {
                    ke_insert_queue(queue, entry);
                }
                let first = ke_rundown_queue(queue);
                assert_eq!(first, entries[0]);
                assert_eq!(Raw::<usize>::at(first).read(), entries[1], "the others hang on the first");
            })
            .unwrap();
        assert_eq!(bench.run(|| ke_insert_queue(queue, entries[0])).unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn an_entry_is_in_a_queue_once() {
        let World { bench, queue, entries } = world();
        let stopped = bench.run(|| {
            ke_insert_queue(queue, entries[0]);
            ke_insert_queue(queue, entries[0])
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn several_entries_are_taken_at_once() {
        let World { bench, queue, entries } = world();
        bench
            .run(|| {
                for entry in entries {
                    ke_insert_queue(queue, entry);
                }
                let mut out = [0_usize; 2];
                let room = Raw::<usize>::of((&raw mut out).cast());
                assert_eq!(ke_remove_queue_ex(queue, 0, 0, Raw::NULL, room, 2), 2);
                assert_eq!(room.read_slice(2), entries[..2]);
                assert_eq!(ke_remove_queue_ex(queue, 0, 0, Raw::NULL, room, 2), 1);
            })
            .unwrap();
    }
}
