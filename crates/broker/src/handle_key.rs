//! The secret that makes handles unpredictable.

/// The key of one boot's handles. The driver fills it from the system's random numbers.
///
/// It turns a slot's generation (1, 2, 3 ...) into the `check` of its handles through a four-round Feistel network over
/// 16-bit halves. That is a permutation whatever the key is, so checks repeat only after all 2^32 generations, at which
/// point the slot is retired. It is not a cipher to protect data with: it makes handles differ from boot to boot and keeps a
/// client from computing another handle from its own. What keeps a client away from others' handles is the session
/// that every handle is bound to.
#[derive(Clone)]
pub struct HandleKey([u64; 4]);

impl HandleKey {
    /// A key of 256 random bits.
    #[must_use]
    pub const fn new(random: [u64; 4]) -> Self {
        Self(random)
    }

    /// The check of `slot`'s handles in `generation`: different for each generation of the slot.
    pub(crate) fn check(&self, slot: u32, generation: u32) -> u32 {
        let tweak = tweak(slot);
        let (mut left, mut right) = (generation >> 16, generation & 0xFFFF);
        for key in self.0 {
            let mixed = left ^ round(key ^ tweak, right);
            left = right;
            right = mixed & 0xFFFF;
        }
        (left << 16) | right
    }
}

impl HandleKey {
    /// The generation that a check of `slot` stands for: [`check`](Self::check) backwards. Tells a client that closed
    /// a handle twice from one that made it up.
    pub(crate) fn generation(&self, slot: u32, check: u32) -> u32 {
        let tweak = tweak(slot);
        let (mut left, mut right) = (check >> 16, check & 0xFFFF);
        for key in self.0.iter().rev() {
            let mixed = right ^ round(key ^ tweak, left);
            right = left;
            left = mixed & 0xFFFF;
        }
        (left << 16) | right
    }
}

/// Makes the network of each slot a different one.
fn tweak(slot: u32) -> u64 {
    u64::from(slot).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The round function: need not be invertible, only hard to foresee without `key`.
fn round(key: u64, half: u32) -> u32 {
    let mut mixed = (key ^ u64::from(half)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(key | 1);
    (mixed >> 40) as u32
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
