//! One cache line per processor, for what threads would otherwise fight over.

use core::marker::PhantomData;
use core::ops::Deref;

use crate::LockContext;
use crate::atomics::{AtomicU32, Ordering, in_sequence, spin};
use crate::tickets::Credit;

/// The lanes of a table. A thread uses that of the processor it runs on ([`LockContext::processor`]).
pub(crate) struct Lanes<C: LockContext> {
    /// Keeps the first lane apart from what lies before it.
    _apart: [u64; 8],
    lanes: [Lane<C>; LANES],
}

/// More processors than these share lanes, or, where lanes belong to threads, go without.
pub(crate) const LANES: usize = if cfg!(loom) { 2 } else { 16 };

/// So many entries can be announced in a lane at a time; further pins are counted in the slot's word.
const PINS: usize = if cfg!(loom) { 1 } else { 6 };

/// In a place without an announcement. No slot has this number.
const NOBODY: u32 = 0;

/// A processor's lane.
///
/// Apart by a cache line, which is more than an alignment to one would take: but that the kernel's heap cannot give.
#[repr(C, align(16))]
pub(crate) struct Lane<C: LockContext> {
    /// The numbers of slots that are in use. Written by who uses them, read by who closes them.
    pins: [AtomicU32; PINS],
    lock: LaneLock<C>,
    shelf: Shelf,
    _apart: [u64; 8],
}

/// What a lane's lock protects. Its parts are atomics only so that reports can read them without the lock.
#[repr(C)]
pub(crate) struct Shelf {
    /// The first free slot's link; the others hang on to it.
    pub(crate) free: AtomicU32,
    /// How many slots are on that list.
    pub(crate) length: AtomicU32,
    /// How many slots were ever taken here, wrapping.
    pub(crate) taken: AtomicU32,
    /// How many slots were ever put back here, wrapping: also those taken elsewhere, and those that were retired.
    pub(crate) returned: AtomicU32,
    pub(crate) credit: Credit,
}

/// A lock that costs its own processor nothing where there are [`Barriers`](crate::Barriers), and is a plain spin lock elsewhere.
///
/// Like [`IrqlLock`](crate::IrqlLock) it raises the IRQL before the first attempt and lowers it after the release, and
/// whoever waits for it does so for the few steps that another processor takes under it.
struct LaneLock<C: LockContext> {
    /// Not zero while the lane's own threads are at its shelf.
    owner: AtomicU32,
    /// Not zero while another thread is, or waits for the owner to leave. Only with barriers.
    visitor: AtomicU32,
    context: PhantomData<fn() -> C>,
}

/// The right to use a shelf; unlocks on drop.
pub(crate) struct Locked<'a, C: LockContext> {
    lane: &'a Lane<C>,
    flag: &'a AtomicU32,
    saved: C::Saved,
    /// The IRQL belongs to the processor that raised it.
    not_send: PhantomData<*mut ()>,
}

/// The number of this thread's lane, if it has one.
#[inline]
pub(crate) fn own_number<C: LockContext>() -> Option<usize> {
    let processor = C::processor();
    match C::BARRIERS {
        Some(_) => (processor < LANES).then_some(processor),
        None => Some(processor % LANES),
    }
}

/// Makes what this thread has written visible to those who only have the light barrier between their own write and read.
///
/// Where there are no barriers, each side's operations are in one order already.
pub(crate) fn order_everybody<C: LockContext>() {
    if let Some(barriers) = C::BARRIERS {
        (barriers.heavy)();
    }
    in_sequence();
}

/// After a write that [`order_everybody`] makes visible, and before a read of what its caller writes.
#[inline]
pub(crate) fn order_self<C: LockContext>() {
    if let Some(barriers) = C::BARRIERS {
        (barriers.light)();
    }
    in_sequence();
}

impl<C: LockContext> Lanes<C> {
    pub(crate) fn new() -> Self {
        Self { _apart: [0; 8], lanes: core::array::from_fn(|_| Lane::new()) }
    }

    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<&Lane<C>> {
        self.lanes.get(number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane<C>> {
        self.lanes.iter()
    }

    /// Locks the lane of this thread; some other one, where it has none. `None` never.
    #[inline]
    pub(crate) fn lock_own(&self) -> Option<Locked<'_, C>> {
        match own_number::<C>() {
            Some(number) => self.lanes.get(number).map(Lane::lock_as_owner),
            None => self.lock_first(),
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_first(&self) -> Option<Locked<'_, C>> {
        self.lanes.first().map(Lane::lock_as_visitor)
    }

    /// All lanes but that of this thread.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Lane<C>> {
        let own = own_number::<C>();
        self.lanes.iter().enumerate().filter(move |(number, _)| Some(*number) != own).map(|(_, lane)| lane)
    }
}

impl<C: LockContext> Lane<C> {
    const SIZE: () = assert!(cfg!(loom) || size_of::<Self>() == 128, "a lane is a cache line, and one apart");

    fn new() -> Self {
        let () = Self::SIZE;
        let lock = LaneLock { owner: AtomicU32::new(0), visitor: AtomicU32::new(0), context: PhantomData };
        let shelf = Shelf {
            free: AtomicU32::new(0),
            length: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            returned: AtomicU32::new(0),
            credit: Credit::new(),
        };
        Self { pins: core::array::from_fn(|_| AtomicU32::new(0)), lock, shelf, _apart: [0; 8] }
    }

    /// Announces that a thread of this lane is at slot `number`; the place is to be cleared by [`withdraw`]. `None` where all are
    /// taken. What the thread reads next, it reads after whoever might miss the announcement has written.
    #[inline]
    pub(crate) fn announce(&self, number: u32) -> Option<&AtomicU32> {
        // The first place nearly always does: who has several entries in use at a time is rare.
        match &self.pins {
            [first, ..] if Self::occupy(first, number) => Some(first),
            _ => self.announce_further(number),
        }
    }

    #[cold]
    #[inline(never)]
    fn announce_further(&self, number: u32) -> Option<&AtomicU32> {
        self.pins.iter().find(|place| Self::occupy(place, number))
    }

    #[inline]
    fn occupy(place: &AtomicU32, number: u32) -> bool {
        if place.load(Ordering::Relaxed) != NOBODY {
            return false;
        }
        match C::BARRIERS {
            // Nobody else writes a free place of this lane. Release: what was done under the place's last
            // announcement must be seen by whoever sees this one in its stead.
            Some(_) => place.store(number, Ordering::Release),
            None if place.compare_exchange(NOBODY, number, Ordering::SeqCst, Ordering::Relaxed).is_err() => {
                return false;
            }
            None => {}
        }
        order_self::<C>();
        true
    }

    /// How many times slot `number` is announced here.
    pub(crate) fn announcements(&self, number: u32) -> u32 {
        // The loads acquire what was done under the announcements that are not there any more.
        let count = self.pins.iter().filter(|place| place.load(Ordering::SeqCst) == number).count();
        count as u32
    }

    /// Locks the shelf for a thread of another lane.
    #[cold]
    #[inline(never)]
    pub(crate) fn lock_as_visitor(&self) -> Locked<'_, C> {
        let saved = C::enter();
        let flag = match C::BARRIERS {
            None => &self.lock.owner,
            Some(_) => &self.lock.visitor,
        };
        acquire(flag);
        if C::BARRIERS.is_some() {
            order_everybody::<C>();
            wait(&self.lock.owner);
        }
        Locked { lane: self, flag, saved, not_send: PhantomData }
    }

    /// Waits until whoever has locked the shelf at this moment has unlocked it.
    pub(crate) fn wait_until_left(&self) {
        wait(&self.lock.owner);
        wait(&self.lock.visitor);
    }

    /// The credit, for questions that need no lock.
    pub(crate) const fn credit(&self) -> &Credit {
        &self.shelf.credit
    }

    /// The counts of slots taken and put back.
    pub(crate) const fn counts(&self) -> (&AtomicU32, &AtomicU32) {
        (&self.shelf.taken, &self.shelf.returned)
    }

    /// How many free slots are on the shelf; a hint.
    pub(crate) fn free_slots(&self) -> u32 {
        self.shelf.length.load(Ordering::Relaxed)
    }

    #[inline]
    fn lock_as_owner(&self) -> Locked<'_, C> {
        let saved = C::enter();
        let flag = &self.lock.owner;
        if C::BARRIERS.is_none() {
            acquire(flag);
        } else {
            // A visitor who does not see this is seen here.
            flag.store(1, Ordering::Relaxed);
            order_self::<C>();
            if self.lock.visitor.load(Ordering::Acquire) != 0 {
                self.wait_for_visitor();
            }
        }
        Locked { lane: self, flag, saved, not_send: PhantomData }
    }

    /// Lets a visitor go first.
    #[cold]
    #[inline(never)]
    fn wait_for_visitor(&self) {
        let flag = &self.lock.owner;
        loop {
            flag.store(0, Ordering::Release);
            wait(&self.lock.visitor);
            flag.store(1, Ordering::Relaxed);
            order_self::<C>();
            if self.lock.visitor.load(Ordering::Acquire) == 0 {
                return;
            }
        }
    }
}

/// Takes away an announcement. What the thread reads next, it reads after whoever might still see it has written.
#[inline]
pub(crate) fn withdraw<C: LockContext>(place: &AtomicU32) {
    match C::BARRIERS {
        // Release: our uses of the entry come before it is taken out.
        Some(_) => place.store(NOBODY, Ordering::Release),
        None => {
            place.swap(NOBODY, Ordering::SeqCst);
        }
    }
    order_self::<C>();
}

#[inline]
fn acquire(flag: &AtomicU32) {
    if flag.compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        acquire_contended(flag);
    }
    in_sequence();
}

fn wait(flag: &AtomicU32) {
    while flag.load(Ordering::SeqCst) != 0 {
        spin();
    }
}

#[cold]
#[inline(never)]
fn acquire_contended(flag: &AtomicU32) {
    loop {
        wait(flag);
        if flag.compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

impl<C: LockContext> Deref for Locked<'_, C> {
    type Target = Shelf;

    #[inline]
    fn deref(&self) -> &Shelf {
        &self.lane.shelf
    }
}

impl<C: LockContext> Drop for Locked<'_, C> {
    #[inline]
    fn drop(&mut self) {
        // A lock released after the IRQL has gone down could be held by a thread that is no longer running.
        self.flag.store(0, Ordering::Release);
        C::leave(self.saved);
    }
}
