//! Which image does an address belong to?
//!
//! Two answers. The fault handler only needs to know whether RIP is in any driver, at a moment when it may take no lock: a
//! list of atomics that only grows. Everything else (unwinding, symbols) runs as ordinary code and gets the image itself.

use std::collections::BTreeMap;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Module;

/// One range. Nodes are leaked and reused, never freed, so that the fault handler can walk them at any time.
struct Node {
    start: AtomicUsize,
    /// Zero while the node is free, so that a half-written range matches nothing.
    end: AtomicUsize,
    next: *mut Node,
}

static HEAD: AtomicPtr<Node> = AtomicPtr::new(null_mut());
/// How many images have been made known so far.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static MODULES: Mutex<BTreeMap<usize, Arc<Module>>> = Mutex::new(BTreeMap::new());

fn modules() -> MutexGuard<'static, BTreeMap<usize, Arc<Module>>> {
    MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nodes() -> impl Iterator<Item = &'static Node> {
    let mut next = HEAD.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: nodes are leaked, and published with release after they were written.
        let node: &'static Node = unsafe { next.as_ref() }?;
        next = node.next;
        Some(node)
    })
}

/// Makes an image known. It stays known, as unloaded, until [`remove`]: a late call into it must be attributed.
pub(super) fn add(module: Arc<Module>) {
    let mut modules = modules();
    let (start, end) = (module.base(), module.base() + module.size());
    GENERATION.fetch_add(1, Ordering::Release);
    modules.insert(start, module);
    // Under the lock, so that two threads do not take the same free node.
    if let Some(free) = nodes().find(|node| node.end.load(Ordering::Relaxed) == 0) {
        free.start.store(start, Ordering::Relaxed);
        free.end.store(end, Ordering::Release);
        return;
    }
    let node = Box::leak(Box::new(Node {
        start: AtomicUsize::new(start),
        end: AtomicUsize::new(end),
        next: HEAD.load(Ordering::Relaxed),
    }));
    HEAD.store(node, Ordering::Release);
}

/// Forgets an image; its address range may be used for something else from now on.
pub(super) fn remove(base: usize) {
    let mut modules = modules();
    modules.remove(&base);
    let node = nodes().find(|node| node.end.load(Ordering::Relaxed) != 0 && node.start.load(Ordering::Relaxed) == base);
    if let Some(node) = node {
        node.end.store(0, Ordering::Release);
    }
}

/// Changes whenever an image is loaded: what was noted of an address before may have been about another image.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Whether `address` is in a driver, loaded or unloaded. Takes no lock and touches no thread-local storage.
pub(crate) fn is_driver_address(address: usize) -> bool {
    nodes().any(|node| {
        // The end is read first and last: a node that changes hands in between does not match.
        let end = node.end.load(Ordering::Acquire);
        let start = node.start.load(Ordering::Acquire);
        start <= address && address < end && node.end.load(Ordering::Acquire) == end
    })
}

/// The image that `address` is in. Not for signal handlers.
pub(crate) fn find(address: usize) -> Option<Arc<Module>> {
    let modules = modules();
    let (_, module) = modules.range(..=address).next_back()?;
    (address - module.base() < module.size()).then(|| Arc::clone(module))
}
