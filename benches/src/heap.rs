//! How much memory a table takes.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; this one only counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The system's heap, which counts requested bytes while asked to. Outside of that it costs one load and one branch, so the
/// tables that allocate on every insertion are not charged for the counting.
struct Counted;

#[global_allocator]
static HEAP: Counted = Counted;

static COUNTING: AtomicBool = AtomicBool::new(false);
static BYTES: AtomicI64 = AtomicI64::new(0);

/// Runs `work`; also returns by how many bytes the heap has grown, without the heap's own overhead.
pub(crate) fn growth<T>(work: impl FnOnce() -> T) -> (T, i64) {
    BYTES.store(0, Ordering::SeqCst);
    COUNTING.store(true, Ordering::SeqCst);
    let result = work();
    COUNTING.store(false, Ordering::SeqCst);
    (result, BYTES.load(Ordering::SeqCst))
}

fn count(layout: Layout, sign: i64) {
    if COUNTING.load(Ordering::Relaxed) {
        let bytes = i64::try_from(layout.size()).unwrap_or(i64::MAX);
        BYTES.fetch_add(sign.wrapping_mul(bytes), Ordering::Relaxed);
    }
}

// SAFETY: [GlobalAlloc] every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: [GlobalAlloc] the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: [GlobalAlloc] the caller's obligations are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(layout, -1);
        // SAFETY: [GlobalAlloc] the caller's obligations are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_what_stays_allocated() {
        const MIB: usize = 1 << 20;
        let (kept, bytes) = growth(|| {
            drop(vec![0_u8; 256 * MIB]);
            vec![0_u8; 64 * MIB]
        });
        // Other tests' threads allocate meanwhile, but much less.
        let mib = bytes >> 20;
        assert!((56..72).contains(&mib), "{mib} MiB for {} bytes", kept.len());
    }
}
