//! The secret that makes handles unpredictable.

/// The key of one boot's handles. The driver fills it from the system's random numbers.
///
/// It turns a slot's generation (1, 2, 3 ...) into the `check` of its handles: adds, multiplies by odd numbers and folds the upper
/// half onto the lower one, all with secret numbers. Each step can be undone, so it is a permutation whatever the key is, and
/// checks repeat only after all 2^32 generations, at which point the slot is retired. It takes some twelve cycles, since every
/// insertion waits for it; it is not a cipher to protect data with. It makes handles differ from boot to boot and keeps a
/// client from computing another handle from its own. What keeps a client away from others' handles is the session
/// that every handle is bound to.
#[derive(Clone)]
pub struct HandleKey {
    /// Make the permutation of each slot a different one.
    slot_add: u64,
    slot_factor: u64,
    factors: [u32; 2],
    add: [u32; 2],
}

impl HandleKey {
    /// A key of 256 random bits.
    #[must_use]
    pub const fn new(random: [u64; 4]) -> Self {
        let [slot_add, slot_factor, first, second] = random;
        let (slot_factor, first, second) = (finish(slot_factor), finish(first), finish(second));
        Self {
            slot_add,
            slot_factor: slot_factor | 1,
            // Odd: only those can be divided by, modulo a power of two.
            factors: [first as u32 | 1, second as u32 | 1],
            add: [(first >> 32) as u32, (second >> 32) as u32],
        }
    }

    /// The check of `slot`'s handles in `generation`: different for each generation of the slot.
    #[inline]
    pub(crate) fn check(&self, slot: u32, generation: u32) -> u32 {
        let [first, second] = self.factors;
        let mixed = fold(generation.wrapping_add(self.tweak(slot)).wrapping_mul(first)).wrapping_add(self.add[0]);
        fold(mixed.wrapping_mul(second)).wrapping_add(self.add[1])
    }

    /// The generation that a check of `slot` stands for: [`check`](Self::check) backwards. Tells a client that closed
    /// a handle twice from one that made it up.
    pub(crate) fn generation(&self, slot: u32, check: u32) -> u32 {
        let [first, second] = self.factors;
        let mixed = fold(check.wrapping_sub(self.add[1])).wrapping_mul(inverse(second));
        fold(mixed.wrapping_sub(self.add[0])).wrapping_mul(inverse(first)).wrapping_sub(self.tweak(slot))
    }

    #[inline]
    fn tweak(&self, slot: u32) -> u32 {
        let mixed = u64::from(slot).wrapping_add(self.slot_add).wrapping_mul(self.slot_factor);
        (mixed >> 32) as u32
    }
}

/// A finaliser of 64 bits (`SplitMix`): numbers that are nearly equal become factors that are not. Costs nothing but at the start.
const fn finish(random: u64) -> u64 {
    let mixed = (random ^ (random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Lets the upper half, where a product depends on all its factors' bits, change the lower one. Its own inverse.
const fn fold(value: u32) -> u32 {
    value ^ (value >> 16)
}

/// What `odd` has to be multiplied with to give one, modulo 2^32.
const fn inverse(odd: u32) -> u32 {
    // Newton: the first guess has three bits right, and each step doubles their number.
    let mut inverse = odd;
    let mut right = 3;
    while right < u32::BITS {
        inverse = inverse.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(inverse)));
        right = right.saturating_mul(2);
    }
    inverse
}

impl core::fmt::Debug for HandleKey {
    // A key in a log would be no secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HandleKey")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: HandleKey = HandleKey::new([0x0123, 0x4567_89AB_CDEF, 42, u64::MAX / 3]);

    #[test]
    fn generations_of_a_slot_never_share_a_check() {
        let count = if cfg!(miri) { 500 } else { 200_000 };
        let checks: HashSet<u32> = (0..count).map(|generation| KEY.check(7, generation)).collect();
        assert_eq!(checks.len(), count as usize);
    }

    #[test]
    fn every_odd_number_has_an_inverse() {
        for odd in [1, 3, 0x9E37_79B9, 0xFFFF_FFFF, 0x8000_0001] {
            assert_eq!(inverse(odd).wrapping_mul(odd), 1);
        }
    }

    #[test]
    fn generation_can_be_told_from_check() {
        for generation in [0, 1, 2, 0xFFFF, 0x1_0000, u32::MAX] {
            assert_eq!(KEY.generation(9, KEY.check(9, generation)), generation);
        }
    }

    #[test]
    fn checks_differ_between_slots_and_between_boots() {
        let other = HandleKey::new([1, 2, 3, 4]);
        let equal = |f: &dyn Fn(u32) -> bool| (1..1000).filter(|g| f(*g)).count();
        assert!(equal(&|g| KEY.check(1, g) == KEY.check(2, g)) < 3);
        assert!(equal(&|g| KEY.check(1, g) == other.check(1, g)) < 3);
        assert!(equal(&|g| KEY.check(1, g).wrapping_add(1) == KEY.check(1, g + 1)) < 3);
    }
}
