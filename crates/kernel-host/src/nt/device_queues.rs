//! `KDEVICE_QUEUE`: requests that wait while a device is busy with one.
//!
//! A queue is busy as long as somebody serves an entry; the entry that finds it not busy is not queued but served at once.

use super::queue_lock::{List, locked};
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeInitializeDeviceQueue(max 2) = ke_initialize_device_queue;
    KeInsertDeviceQueue(max 2) = ke_insert_device_queue;
    KeInsertByKeyDeviceQueue(max 2) = ke_insert_by_key_device_queue;
    KeRemoveDeviceQueue(max 2) = ke_remove_device_queue;
    KeRemoveByKeyDeviceQueue(max 2) = ke_remove_by_key_device_queue;
    KeRemoveByKeyDeviceQueueIfBusy(max 2) = ke_remove_by_key_device_queue_if_busy;
    KeRemoveEntryDeviceQueue(max 2) = ke_remove_entry_device_queue;
}

/// `DeviceQueueObject`: the type of a `KDEVICE_QUEUE`, and its bytes.
const DEVICE_QUEUE_OBJECT: u16 = 20;
const LENGTH: u16 = 40;

/// Fields of a queue.
mod queue {
    pub(super) const SIZE: usize = 2;
    pub(super) const ENTRIES: usize = 8;
    pub(super) const LOCK: usize = 24;
    pub(super) const BUSY: usize = 32;
}

/// Fields of a `KDEVICE_QUEUE_ENTRY` behind its links.
const SORT_KEY: usize = 16;
const INSERTED: usize = 20;

fn key_of(entry: usize) -> u32 {
    Raw::<u32>::at(entry + SORT_KEY).read()
}

/// A device queue in the driver's memory.
#[derive(Clone, Copy)]
pub(super) struct DeviceQueue(Raw<u16>);

impl DeviceQueue {
    /// Makes a queue that is not busy.
    pub(super) fn initialise(at: Raw<u16>) {
        at.write(DEVICE_QUEUE_OBJECT);
        at.field::<u16>(queue::SIZE).write(LENGTH);
        List(at.field(queue::ENTRIES)).initialise();
        at.field::<usize>(queue::LOCK).write(0);
        at.field::<u64>(queue::BUSY).write(0);
    }

    pub(super) fn of(call: &Call, at: Raw<u16>) -> Self {
        if at.is_null() || at.read() != DEVICE_QUEUE_OBJECT {
            call.stop(Rule::BadArgument, format!("{at:?} is no device queue that KeInitializeDeviceQueue made"));
        }
        Self(at)
    }

    fn busy(self) -> Raw<u8> {
        self.0.field(queue::BUSY)
    }

    fn locked<R>(self, call: &Call, body: impl FnOnce(List) -> R) -> R {
        locked(call, self.0.field(queue::LOCK), || body(List(self.0.field(queue::ENTRIES))))
    }

    /// Queues an entry, by its key if it has one; false when it is to be served now, and the queue is busy with it.
    pub(super) fn insert(self, call: &Call, entry: usize, key: Option<u32>) -> bool {
        let queued = self.locked(call, |list| {
            if self.busy().read() == 0 {
                self.busy().write(1);
                Raw::<u8>::at(entry + INSERTED).write(0);
                return Some(false);
            }
            if list.entries().any(|other| other == entry) {
                return None;
            }
            let place = key.and_then(|key| {
                Raw::at(entry + SORT_KEY).write(key);
                list.entries().find(|other| key_of(*other) > key)
            });
            List::insert_before(place.unwrap_or(list.0.address()), entry);
            Raw::<u8>::at(entry + INSERTED).write(1);
            Some(true)
        });
        queued.unwrap_or_else(|| call.stop(Rule::BadState, format!("the entry {entry:#x} is in the queue already")))
    }

    /// Takes the next entry: the first, or the first from a key on. Without one the queue is not busy any more.
    pub(super) fn remove(self, call: &Call, key: Option<u32>) -> usize {
        self.locked(call, |list| {
            let from_key = key.and_then(|key| list.entries().find(|entry| key_of(*entry) >= key));
            let Some(entry) = from_key.or_else(|| list.entries().next()) else {
                self.busy().write(0);
                return 0;
            };
            List::remove(entry);
            Raw::<u8>::at(entry + INSERTED).write(0);
            entry
        })
    }

    /// Takes a certain entry; whether it was there.
    pub(super) fn remove_entry(self, call: &Call, entry: usize) -> bool {
        self.locked(call, |list| {
            let found = list.entries().any(|other| other == entry);
            if found {
                List::remove(entry);
                Raw::<u8>::at(entry + INSERTED).write(0);
            }
            found
        })
    }

    fn check_busy(self, call: &Call) {
        if self.busy().read() == 0 {
            call.stop(Rule::BadState, format!("the device queue {:?} is not busy: nothing is to be removed", self.0));
        }
    }
}

/// The pages' rule of these routines, whose lock is one of `DISPATCH_LEVEL`.
pub(super) fn check_dispatch_level(call: &Call) {
    if call.thread().irql() < nt_types::DISPATCH_LEVEL {
        call.stop(Rule::BadState, format!("called at IRQL {}; DISPATCH_LEVEL is needed", call.thread().irql()));
    }
}

extern "efiapi" fn ke_initialize_device_queue(at: Raw<u16>) {
    let _call = Call::enter();
    DeviceQueue::initialise(at);
}

extern "efiapi" fn ke_insert_device_queue(at: Raw<u16>, entry: usize) -> u8 {
    let call = Call::enter();
    check_dispatch_level(&call);
    DeviceQueue::of(&call, at).insert(&call, entry, None).into()
}

extern "efiapi" fn ke_insert_by_key_device_queue(at: Raw<u16>, entry: usize, key: u32) -> u8 {
    let call = Call::enter();
    check_dispatch_level(&call);
    DeviceQueue::of(&call, at).insert(&call, entry, Some(key)).into()
}

extern "efiapi" fn ke_remove_device_queue(at: Raw<u16>) -> usize {
    let call = Call::enter();
    check_dispatch_level(&call);
    let queue = DeviceQueue::of(&call, at);
    queue.check_busy(&call);
    queue.remove(&call, None)
}

extern "efiapi" fn ke_remove_by_key_device_queue(at: Raw<u16>, key: u32) -> usize {
    let call = Call::enter();
    check_dispatch_level(&call);
    let queue = DeviceQueue::of(&call, at);
    queue.check_busy(&call);
    queue.remove(&call, Some(key))
}

/// No page: as the one before, for a queue that need not be busy (general knowledge).
extern "efiapi" fn ke_remove_by_key_device_queue_if_busy(at: Raw<u16>, key: u32) -> usize {
    let call = Call::enter();
    check_dispatch_level(&call);
    let queue = DeviceQueue::of(&call, at);
    if queue.busy().read() == 0 { 0 } else { queue.remove(&call, Some(key)) }
}

extern "efiapi" fn ke_remove_entry_device_queue(at: Raw<u16>, entry: usize) -> u8 {
    let call = Call::enter();
    DeviceQueue::of(&call, at).remove_entry(&call, entry).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;

    /// A queue and four entries, at `DISPATCH_LEVEL`.
    fn with_queue<R>(body: impl FnOnce(Raw<u16>, [usize; 4]) -> R) -> Result<R, Rule> {
        let mut memory = [0_u64; 17];
        let queue = Raw::<u64>::of((&raw mut memory).cast());
        let entries = [5, 8, 11, 14].map(|word| queue.index(word).address());
        let run = Bench::new().run(|| {
            ke_initialize_device_queue(queue.cast());
            Thread::current().set_irql(2);
            let result = body(queue.cast(), entries);
            Thread::current().set_irql(0);
            result
        });
        run.map_err(|stopped| stopped.0.rule)
    }

    #[test]
    fn the_first_entry_is_served_at_once_and_the_others_wait() {
        conforms!("wdm/nf-wdm-keinitializedevicequeue.md", "A new queue is not busy.");
        conforms!(
            "wdm/nf-wdm-keinsertdevicequeue.md",
            "FALSE is returned when the queue was not busy: the entry is not queued, and the queue is busy."
        );
        conforms!(
            "wdm/nf-wdm-keremovedevicequeue.md",
            "The first entry is returned; NULL, and a queue that is not busy, when there is none."
        );
        with_queue(|queue, [one, two, three, _]| {
            assert_eq!([one, two, three].map(|entry| ke_insert_device_queue(queue, entry)), [0, 1, 1]);
            assert_eq!([(); 3].map(|()| ke_remove_device_queue(queue)), [two, three, 0]);
            assert_eq!(ke_insert_device_queue(queue, one), 0);
        })
        .unwrap();
    }

    #[test]
    fn entries_with_keys_are_sorted_and_found_by_them() {
        conforms!(
            "wdm/nf-wdm-keinsertbykeydevicequeue.md",
            "An entry goes behind those with keys up to its own, before those with greater ones."
        );
        conforms!(
            "wdm/nf-wdm-keremovebykeydevicequeue.md",
            "The first entry with at least the key is removed, the first one of all when there is none such."
        );
        with_queue(|queue, [one, two, three, busy]| {
            ke_insert_device_queue(queue, busy);
            for (entry, key) in [(one, 30), (two, 10), (three, 20)] {
                assert_eq!(ke_insert_by_key_device_queue(queue, entry, key), 1);
            }
            assert_eq!(ke_remove_by_key_device_queue(queue, 15), three);
            assert_eq!(ke_remove_by_key_device_queue(queue, 31), two);
            assert_eq!(ke_remove_by_key_device_queue(queue, 0), one);
            assert_eq!(ke_remove_by_key_device_queue(queue, 0), 0);
            assert_eq!(ke_remove_by_key_device_queue_if_busy(queue, 0), 0);
        })
        .unwrap();
    }

    #[test]
    fn an_entry_is_removed_only_while_it_is_queued() {
        conforms!(
            "wdm/nf-wdm-keremoveentrydevicequeue.md",
            "TRUE is returned when the entry was queued and is removed, FALSE when it was not queued."
        );
        with_queue(|queue, [one, two, ..]| {
            ke_insert_device_queue(queue, one);
            ke_insert_device_queue(queue, two);
            let removed = [one, two, two].map(|entry| ke_remove_entry_device_queue(queue, entry));
            assert_eq!(removed, [0, 1, 0]);
        })
        .unwrap();
    }

    #[test]
    fn an_idle_queue_has_nothing_to_remove_and_a_low_irql_is_not_enough() {
        conforms!("wdm/nf-wdm-keremovedevicequeue.md", "It is an error to remove from a queue that is not busy.");
        conforms!("wdm/nf-wdm-keremovebykeydevicequeue.md", "It is an error to remove from a queue that is not busy.");
        conforms!("wdm/nf-wdm-keinsertdevicequeue.md", "The caller runs at DISPATCH_LEVEL.");
        assert_eq!(with_queue(|queue, _| ke_remove_device_queue(queue)), Err(Rule::BadState));
        assert_eq!(with_queue(|queue, _| ke_remove_by_key_device_queue(queue, 0)), Err(Rule::BadState));
        let low = with_queue(|queue, [one, ..]| {
            Thread::current().set_irql(0);
            ke_insert_device_queue(queue, one)
        });
        assert_eq!(low, Err(Rule::BadState));
    }
}
