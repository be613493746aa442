//! Sequenced singly linked lists (`SLIST_HEADER`) and the lists that a spin lock of the caller's guards.
//!
//! The header is 16 bytes, changed as one by a locked 16-byte compare and exchange, as the pages promise: atomic at any
//! IRQL, among processors and with interrupts. On x64 the low quadword holds the depth in 16 bits and a sequence number in 48,
//! the high one the address of the first entry, whose low four bits are zero because entries are 16-byte aligned, and may be
//! used as flags. Compilers inline `ExQueryDepthSList` as a read of the low 16 bits.

use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExpInterlockedPopEntrySList(max 31) = pop_entry_slist;
    ExpInterlockedPushEntrySList(max 31) = push_entry_slist;
    ExpInterlockedFlushSList(max 31) = flush_slist;
    InitializeSListHead(max 31) = initialize_slist_head;
    ExQueryDepthSList(max 31) = query_depth_slist;
    FirstEntrySList(max 31) = first_entry_slist;
    ExInterlockedInsertHeadList(max 31) = insert_head_list;
    ExInterlockedInsertTailList(max 31) = insert_tail_list;
    ExInterlockedRemoveHeadList(max 31) = remove_head_list;
    ExInterlockedPopEntryList(max 31) = pop_entry_list;
    ExInterlockedPushEntryList(max 31) = push_entry_list;
    ExInterlockedAddLargeInteger(max 31) = add_large_integer;
    ExInterlockedAddUlong(max 31) = add_ulong;
}

/// Alignment that `SLIST_HEADER` and its entries must have on x64.
const ALIGNMENT: usize = 16;
/// Low four bits of the second quadword: not part of the address.
const FLAGS: u64 = 0xF;

std::arch::global_asm!(
    // u8 kh_exchange_16(rdi: *mut [u64; 2], rsi: *mut [u64; 2] expected, rdx: new low, rcx: new high): 1 when exchanged; else
    // `expected` has what is there.
    ".global kh_exchange_16",
    "kh_exchange_16:",
    "push rbx",
    "mov rbx, rdx",
    "mov rax, [rsi]",
    "mov rdx, [rsi + 8]",
    "lock cmpxchg16b [rdi]",
    "mov [rsi], rax",
    "mov [rsi + 8], rdx",
    "sete al",
    "movzx eax, al",
    "pop rbx",
    "ret",
);

unsafe extern "sysv64" {
    fn kh_exchange_16(header: *mut [u64; 2], expected: *mut [u64; 2], low: u64, high: u64) -> u8;
}

/// An `SLIST_HEADER` in driver memory.
type Header = Raw<[u64; 2]>;

fn check(call: &Call, header: Header, entry: usize) {
    for (what, address) in [("SLIST_HEADER", header.address()), ("entry", entry)] {
        if !address.is_multiple_of(ALIGNMENT) {
            call.stop(Rule::BadArgument, format!("the {what} {address:#x} is not aligned to 16 bytes"));
        }
    }
}

fn depth(header: [u64; 2]) -> u16 {
    header[0] as u16
}

fn first(header: [u64; 2]) -> usize {
    (header[1] & !FLAGS) as usize
}

/// Replaces the header by what `change` makes of it, until nobody was faster; the header before.
fn update(header: Header, change: impl Fn([u64; 2]) -> Option<(u16, usize)>) -> [u64; 2] {
    let mut seen = header.read();
    while let Some((depth, first)) = change(seen) {
        // Bits 16 and up count changes, so that an entry that came back in between is noticed.
        let low = (seen[0] & !0xFFFF).wrapping_add(1 << 16) | u64::from(depth);
        let high = first as u64 | (seen[1] & FLAGS);
        // SAFETY: the header is the driver's, aligned as checked; see `Raw` for a bad address.
        if unsafe { kh_exchange_16(header.pointer(), &raw mut seen, low, high) } != 0 {
            break;
        }
    }
    seen
}

/// Takes the first entry of a list; 0 when it is empty.
pub(super) fn pop(call: &Call, header: Header) -> usize {
    check(call, header, 0);
    first(update(header, |seen| {
        let entry = first(seen);
        // Another processor may have taken the entry, and freed it: then what it reads as is discarded, as the exchange fails.
        let next = || crate::cpu::memory::try_read_u64(entry as u64).unwrap_or(0) as usize;
        (entry != 0).then(|| (depth(seen).wrapping_sub(1), next()))
    }))
}

extern "efiapi" fn pop_entry_slist(header: Header) -> usize {
    pop(&Call::enter(), header)
}

extern "efiapi" fn push_entry_slist(header: Header, entry: Raw<usize>) -> usize {
    let call = Call::enter();
    check(&call, header, entry.address());
    if entry.is_null() {
        call.stop(Rule::BadArgument, "the entry to be pushed is NULL");
    }
    first(update(header, |seen| {
        if first(seen) == entry.address() {
            call.stop(Rule::BadState, format!("the entry {entry:?} is at the head of the list already"));
        }
        entry.write(first(seen));
        Some((depth(seen).wrapping_add(1), entry.address()))
    }))
}

extern "efiapi" fn flush_slist(header: Header) -> usize {
    let call = Call::enter();
    check(&call, header, 0);
    first(update(header, |_| Some((0, 0))))
}

extern "efiapi" fn initialize_slist_head(header: Header) {
    let call = Call::enter();
    check(&call, header, 0);
    header.write([0, 0]);
}

extern "efiapi" fn query_depth_slist(header: Header) -> u16 {
    let _call = Call::enter();
    depth(header.read())
}

extern "efiapi" fn first_entry_slist(header: Header) -> usize {
    let _call = Call::enter();
    first(header.read())
}

/// Runs `body` as the owner of the caller's spin lock. These routines take the lock at any IRQL, with interrupts off; the page's
/// rule is that nobody else takes it by other means, which makes any mutual exclusion as good.
fn locked<R>(call: &Call, lock: Raw<usize>, body: impl FnOnce() -> R) -> R {
    if lock.is_null() {
        call.stop(Rule::BadArgument, "the spin lock is NULL");
    }
    super::locks::spin::hold_briefly(call, lock, body)
}

/// Links of a `LIST_ENTRY`: next, and previous.
fn link(entry: Raw<usize>, index: usize) -> Raw<usize> {
    entry.index(index)
}

pub(crate) extern "efiapi" fn insert_head_list(head: Raw<usize>, entry: Raw<usize>, lock: Raw<usize>) -> usize {
    let call = Call::enter();
    locked(&call, lock, || {
        let next = link(head, 0).read();
        link(entry, 0).write(next);
        link(entry, 1).write(head.address());
        link(Raw::at(next), 1).write(entry.address());
        link(head, 0).write(entry.address());
        // The page: the first entry before, NULL when the list was empty.
        if next == head.address() { 0 } else { next }
    })
}

pub(crate) extern "efiapi" fn insert_tail_list(head: Raw<usize>, entry: Raw<usize>, lock: Raw<usize>) -> usize {
    let call = Call::enter();
    locked(&call, lock, || {
        let last = link(head, 1).read();
        link(entry, 0).write(head.address());
        link(entry, 1).write(last);
        link(Raw::at(last), 0).write(entry.address());
        link(head, 1).write(entry.address());
        if last == head.address() { 0 } else { last }
    })
}

pub(crate) extern "efiapi" fn remove_head_list(head: Raw<usize>, lock: Raw<usize>) -> usize {
    let call = Call::enter();
    locked(&call, lock, || {
        let entry = link(head, 0).read();
        if entry == head.address() {
            return 0;
        }
        let next = link(Raw::at(entry), 0).read();
        link(head, 0).write(next);
        link(Raw::at(next), 1).write(head.address());
        entry
    })
}

extern "efiapi" fn pop_entry_list(head: Raw<usize>, lock: Raw<usize>) -> usize {
    let call = Call::enter();
    locked(&call, lock, || {
        let entry = head.read();
        if entry != 0 {
            head.write(Raw::<usize>::at(entry).read());
        }
        entry
    })
}

extern "efiapi" fn push_entry_list(head: Raw<usize>, entry: Raw<usize>, lock: Raw<usize>) -> usize {
    let call = Call::enter();
    locked(&call, lock, || {
        let before = head.read();
        entry.write(before);
        head.write(entry.address());
        before
    })
}

extern "efiapi" fn add_large_integer(addend: Raw<i64>, increment: i64, lock: Raw<usize>) -> i64 {
    let call = Call::enter();
    locked(&call, lock, || {
        let before = addend.read();
        addend.write(before.wrapping_add(increment));
        before
    })
}

pub(crate) extern "efiapi" fn add_ulong(addend: Raw<u32>, increment: u32, lock: Raw<usize>) -> u32 {
    let call = Call::enter();
    locked(&call, lock, || {
        let before = addend.read();
        addend.write(before.wrapping_add(increment));
        before
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[repr(align(16))]
    struct Aligned([[u64; 2]; 4]);

    fn with(body: impl FnOnce(Header, [Raw<usize>; 3])) -> Result<(), crate::finding::Stopped> {
        let mut memory = Aligned([[0; 2]; 4]);
        let base = Raw::<[u64; 2]>::of((&raw mut memory.0).cast());
        Bench::new().run(|| body(base, [1, 2, 3].map(|index| base.index(index).cast())))
    }

    #[test]
    fn a_sequenced_list_gives_back_the_last_entry_first() {
        conforms!(
            "wdm/nf-wdm-exinterlockedpushentryslist.md",
            "Pushing returns the entry that was first before, or NULL."
        );
        conforms!(
            "wdm/nf-wdm-exinterlockedpopentryslist.md",
            "Popping removes the first entry; NULL when the list is empty."
        );
        conforms!("wdm/nf-wdm-exquerydepthslist.md", "The depth is the number of entries in the list.");
        with(|list, [a, b, _]| {
            initialize_slist_head(list);
            assert_eq!(pop_entry_slist(list), 0);
            assert_eq!(push_entry_slist(list, a), 0);
            assert_eq!(push_entry_slist(list, b), a.address());
            assert_eq!((query_depth_slist(list), first_entry_slist(list)), (2, b.address()));
            assert_eq!(pop_entry_slist(list), b.address());
            assert_eq!(pop_entry_slist(list), a.address());
            assert_eq!(pop_entry_slist(list), 0);
        })
        .unwrap();
    }

    #[test]
    fn flushing_takes_all_entries_at_once() {
        conforms!(
            "wdm/nf-wdm-exinterlockedflushslist.md",
            "Flushing empties the list and returns what was its first entry."
        );
        with(|list, [a, b, _]| {
            initialize_slist_head(list);
            push_entry_slist(list, a);
            push_entry_slist(list, b);
            assert_eq!(flush_slist(list), b.address());
            assert_eq!((b.read(), a.read()), (a.address(), 0));
            assert_eq!(query_depth_slist(list), 0);
        })
        .unwrap();
    }

    #[test]
    fn a_sequenced_list_needs_16_byte_alignment() {
        conforms!("wdm/nf-wdm-initializeslisthead.md", "On 64-bit Windows the list head must be aligned to 16 bytes.");
        let stopped = with(|list, _| initialize_slist_head(list.field(8))).unwrap_err();
        assert_eq!(stopped.0.rule, Rule::BadArgument);
        let stopped = with(|list, [a, ..]| _ = push_entry_slist(list, a.field(8))).unwrap_err();
        assert_eq!(stopped.0.rule, Rule::BadArgument);
    }

    #[test]
    fn two_threads_lose_no_entry_of_a_sequenced_list() {
        let mut memory = vec![Aligned([[0; 2]; 4]), Aligned([[0; 2]; 4])];
        let base = Raw::<[u64; 2]>::of(memory.as_mut_ptr().cast()).address();
        let bench = Bench::new();
        let entries: Vec<usize> = (1..8).map(|index| base + 16 * index).collect();
        bench.run(|| entries.iter().for_each(|entry| _ = push_entry_slist(Raw::at(base), Raw::at(*entry)))).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    bench.run(|| {
                        for _ in 0..2000 {
                            let entry = pop_entry_slist(Raw::at(base));
                            assert_ne!(entry, 0, "at most two of seven entries are out at a time");
                            push_entry_slist(Raw::at(base), Raw::at(entry));
                        }
                    })
                });
            }
        });
        let mut left = bench
            .run(|| std::iter::from_fn(|| Some(pop_entry_slist(Raw::at(base))).filter(|e| *e != 0)).collect::<Vec<_>>())
            .unwrap();
        left.sort_unstable();
        assert_eq!(left, entries);
    }

    #[test]
    fn the_locked_lists_insert_and_remove_at_the_named_end() {
        conforms!(
            "wdm/nf-wdm-exinterlockedinserttaillist.md",
            "The entry that was last before is returned, NULL for an empty list."
        );
        conforms!(
            "wdm/nf-wdm-exinterlockedinsertheadlist.md",
            "The entry that was first before is returned, NULL for an empty list."
        );
        conforms!(
            "wdm/nf-wdm-exinterlockedremoveheadlist.md",
            "The first entry is returned, NULL when the list is empty."
        );
        let mut lock = 0_usize;
        let lock = Raw::of(&raw mut lock);
        with(|list, [a, b, _]| {
            let head = list.cast::<usize>();
            head.write(head.address());
            head.index(1).write(head.address());
            assert_eq!(insert_tail_list(head, a, lock), 0);
            assert_eq!(insert_tail_list(head, b, lock), a.address());
            assert_eq!(remove_head_list(head, lock), a.address());
            assert_eq!(insert_head_list(head, a, lock), b.address());
            assert_eq!(remove_head_list(head, lock), a.address());
            assert_eq!(remove_head_list(head, lock), b.address());
            assert_eq!(remove_head_list(head, lock), 0);
        })
        .unwrap();
        assert_eq!(lock.read(), 0);
    }
}
