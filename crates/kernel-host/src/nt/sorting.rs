//! `bsearch` and `qsort`, which call the driver back to compare.

use super::raw::Raw;
use crate::cpu::bridge::call_out;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    bsearch(max 31) = bsearch;
    qsort(max 31) = qsort;
}

/// The comparing routine of both: less than, equal to or greater than zero.
type Compare = unsafe extern "efiapi" fn(usize, usize) -> i32;

fn compare(call: Call, routine: usize, left: usize, right: usize) -> (Call, i32) {
    // SAFETY: the address of the caller's comparing routine.
    let routine = unsafe { std::mem::transmute::<usize, Compare>(routine) };
    // SAFETY: it gets two elements, or the key and an element, as documented.
    call_out(call, "the comparing routine", || unsafe { routine(left, right) })
}

extern "efiapi" fn bsearch(key: usize, base: usize, count: usize, width: usize, routine: usize) -> usize {
    let mut call = Call::enter();
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        let element = base + middle * width;
        let order;
        (call, order) = compare(call, routine, key, element);
        match order {
            0 => return element,
            1.. => low = middle + 1,
            _ => high = middle,
        }
    }
    0
}

/// Heap sort: in place, and without recursion whatever the elements are.
extern "efiapi" fn qsort(base: usize, count: usize, width: usize, routine: usize) {
    let mut call = Call::enter();
    let at = |index: usize| base + index * width;
    let swap = |left: usize, right: usize| {
        for byte in 0..width {
            let (one, other) = (Raw::<u8>::at(at(left) + byte), Raw::<u8>::at(at(right) + byte));
            let (low, high) = (one.read(), other.read());
            one.write(high);
            other.write(low);
        }
    };
    let mut start = count / 2;
    let mut end = count;
    while end > 1 {
        if start > 0 {
            start -= 1;
        } else {
            end -= 1;
            swap(0, end);
        }
        // Sift the element at `start` down to its place.
        let mut parent = start;
        loop {
            let mut child = 2 * parent + 1;
            if child >= end {
                break;
            }
            let mut order;
            if child + 1 < end {
                (call, order) = compare(call, routine, at(child), at(child + 1));
                if order < 0 {
                    child += 1;
                }
            }
            (call, order) = compare(call, routine, at(parent), at(child));
            if order >= 0 {
                break;
            }
            swap(parent, child);
            parent = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;

    extern "efiapi" fn by_value(left: Raw<u32>, right: Raw<u32>) -> i32 {
        left.read().cmp(&right.read()) as i32
    }

    #[test]
    fn elements_are_sorted_and_found() {
        let mut numbers: Vec<u32> = (0..100).map(|index| index * 7919 % 101).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let base = Raw::of(numbers.as_mut_ptr()).address();
        let routine = by_value as *const () as usize;
        Bench::new()
            .run(|| {
                qsort(base, 100, 4, routine);
                assert_eq!(Raw::<u32>::at(base).read_slice(100), sorted);
                let mut key = sorted[42];
                let key = Raw::of(&raw mut key);
                assert_eq!(bsearch(key.address(), base, 100, 4, routine), base + 4 * 42);
                key.write(1000);
                assert_eq!(bsearch(key.address(), base, 100, 4, routine), 0);
            })
            .unwrap();
    }
}
