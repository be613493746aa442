//! A driver's stack as bare return addresses, quickly enough to be taken with every allocation.
//!
//! Unwinding reads and decodes an image's data anew for each frame, which takes microseconds. But what it comes to depends on
//! nothing but RIP: where the return address and the saved registers lie, relative to the stack pointer or to the function's
//! frame register. So the first walk through a place learns that, and later ones only follow, at a few loads per frame.
//!
//! All frames here are callers, at the return address of a call: none of them is in its prologue or epilogue.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::context::{Context, RSP};
use super::registers::NonVolatile;
use super::unwind::{Frame, step_from_call};
use crate::nt::raw::Raw;
use crate::thread::{StackBounds, Thread};

/// Non-volatile integer registers that a function can save.
const MOST_SAVED: usize = 8;

/// How to get from a frame to its caller.
#[derive(Clone, Copy, Debug)]
struct Recipe {
    /// The register that all offsets are from: RSP, or the function's frame register.
    anchor: usize,
    /// Where the return address is; the caller's stack begins behind it.
    return_slot: i64,
    /// Registers that the function saved, and where.
    saved: [(u8, i64); MOST_SAVED],
    count: usize,
}

/// The recipes of places that were passed before; `None` where the driver's frames end, or cannot be followed like this.
#[derive(Debug, Default)]
struct Known {
    /// Images that were loaded when these were learnt: addresses can mean something else after that.
    images: u64,
    recipes: HashMap<u64, Option<Recipe>, BuildHasherDefault<AddressHasher>>,
}

/// Addresses need no better hash than this, and it is asked for every frame.
#[derive(Debug, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// Fills `frames` with return addresses from the driver's call of an export outwards, as far as there is room. How many.
pub(crate) fn capture(registers: &NonVolatile, frames: &mut [usize]) -> usize {
    let Some(stack) = Thread::driver_stack() else { return 0 };
    let mut walk = Walk::new(registers);
    KNOWN.with_borrow_mut(|known| {
        let images = crate::image::generation();
        if known.images != images {
            *known = Known { images, ..Known::default() };
        }
        let mut count = 0;
        while let Some(frame) = frames.get_mut(count) {
            let recipe = *known.recipes.entry(walk.rip).or_insert_with(|| walk.learn());
            if recipe.is_none() && !crate::image::is_driver_address(walk.rip as usize) {
                break;
            }
            *frame = walk.rip as usize;
            count += 1;
            if recipe.and_then(|recipe| walk.follow(&recipe, stack)).is_none() {
                break;
            }
        }
        count
    })
}

/// What of the processor's state leads from frame to frame.
struct Walk {
    rip: u64,
    integer: [u64; 16],
}

impl Walk {
    fn new(registers: &NonVolatile) -> Self {
        let NonVolatile { rip, rsp, rbx, rbp, rsi, rdi, r12, r13, r14, r15, .. } = *registers;
        let integer = [0, 0, 0, rbx, rsp.wrapping_add(8), rbp, rsi, rdi, 0, 0, 0, 0, r12, r13, r14, r15];
        Self { rip, integer }
    }

    /// Unwinds the frame at hand in full, and notes what that came to.
    fn learn(&self) -> Option<Recipe> {
        let mut context = Context::new();
        (context.rip, context.integer) = (self.rip, self.integer);
        let Frame { saved, return_slot, anchor, .. } = step_from_call(&mut context)?;
        let anchor = anchor.unwrap_or(RSP);
        let from_anchor =
            |address: u64| address.wrapping_sub(self.integer.get(anchor).copied().unwrap_or(0)).cast_signed();
        let mut recipe =
            Recipe { anchor, return_slot: from_anchor(return_slot?), saved: [(0, 0); MOST_SAVED], count: saved.len() };
        for (slot, (register, address)) in recipe.saved.iter_mut().zip(&saved) {
            *slot = (*register, from_anchor(*address));
        }
        (saved.len() <= MOST_SAVED).then_some(recipe)
    }

    /// Goes on to the caller; `None` where the driver's stack does not hold what it should.
    fn follow(&mut self, recipe: &Recipe, stack: StackBounds) -> Option<()> {
        let (low, high) = stack.limits();
        let anchor = *self.integer.get(recipe.anchor)?;
        let load = |offset: i64| {
            let address = anchor.wrapping_add_signed(offset) as usize;
            let inside = address.is_multiple_of(8) && low <= address && address < high;
            inside.then(|| Raw::<u64>::at(address).read())
        };
        self.rip = load(recipe.return_slot)?;
        for (register, offset) in recipe.saved.get(..recipe.count)? {
            let value = load(*offset)?;
            *self.integer.get_mut(usize::from(*register))? = value;
        }
        *self.integer.get_mut(RSP)? = anchor.wrapping_add_signed(recipe.return_slot).wrapping_add(8);
        Some(())
    }
}
