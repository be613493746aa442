//! How many mappings of Linux's the machines of this process keep in reserve, and what happens when there are none left.
//!
//! Linux lets a process have a fixed number of mappings (`vm.max_map_count`, 65,530 where nobody changed it), and every page
//! with rights of its own is one, with another one behind it. Pages that keep theirs while they are free are quick to hand out
//! again, which is worth a part of that number and no more: all arenas share one budget, however many machines and
//! processes there are.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What Linux allows where it does not say.
const DEFAULT_LIMIT: usize = 65_530;

/// Of Linux's mappings, one in so many goes to pages that keep theirs: two for each, so a quarter of them all.
const SHARE: usize = 8;

/// Pages that have a mapping of their own at the moment.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// Asks for a mapping that is kept; false when the budget is spent, and the page has to do without.
pub(super) fn take() -> bool {
    let budget = limit() / SHARE;
    KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| (kept < budget).then_some(kept + 1)).is_ok()
}

/// Gives mappings back to the budget.
pub(super) fn give_back(count: usize) {
    KEPT.fetch_sub(count, Ordering::Relaxed);
}

/// Linux refused a change of mappings. Says so, once: drivers only see an allocation that fails, and a test that fails for
/// that reason should say why.
pub(super) fn failed(error: rustix::io::Errno) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if error == rustix::io::Errno::NOMEM && !SAID.swap(true, Ordering::Relaxed) {
        eprintln!("{}", explanation(limit()));
    }
}

fn explanation(limit: usize) -> String {
    format!(
        "kernel-host: Linux gives this process no more memory mappings (vm.max_map_count is {limit}): allocations of \
         drivers and programs fail from now on. Each block of pool takes two, so drivers that leak are the usual cause; \
         `sysctl vm.max_map_count=1048576` makes room for more."
    )
}

/// `vm.max_map_count`.
fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(DEFAULT_LIMIT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nt::arena::{Access, Arena, PAGE};

    /// Mappings of this process that lie in a range.
    fn mappings_in(low: usize, high: usize) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux shows mappings");
        let start = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
        maps.lines().filter_map(start).filter(|start| (low..high).contains(start)).count()
    }

    #[test]
    fn freed_pages_of_many_arenas_keep_no_more_mappings_than_the_budget_has() {
        // More pages than the budget has, spread over arenas that stay: what never-exiting processes do.
        let budget = limit() / SHARE;
        let count = budget / 1000 + 2;
        let arenas: Vec<Arena> =
            (0..count).map(|_| Arena::reserve(None, 4096 * PAGE, 0).expect("address space")).collect();
        let mut kept = 0;
        for arena in &arenas {
            let pages: Vec<usize> =
                (0..1000).map(|_| arena.allocate(1, Access::ReadWrite).expect("a mapping")).collect();
            for page in &pages {
                arena.release(*page, 1);
            }
            let low = pages.iter().min().copied().expect("pages");
            kept += mappings_in(low & !0xFFF, low + 4096 * PAGE);
        }
        assert!(KEPT.load(Ordering::Relaxed) <= budget);
        assert!(kept <= 2 * budget + 4 * count, "{kept} mappings, {budget} pages may keep theirs");
        drop(arenas);
        assert!(take(), "what is dropped gives its mappings back");
        give_back(1);
    }

    #[test]
    fn the_end_of_linux_mappings_is_explained() {
        let text = explanation(65_530);
        assert!(text.contains("vm.max_map_count is 65530") && text.contains("sysctl"), "{text}");
    }
}
