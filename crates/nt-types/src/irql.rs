//! Interrupt request levels of x64 and ARM64.

/// `KIRQL`: the level that a processor runs at.
pub type KIRQL = u8;

/// Threads run and can wait, page faults are fine, all APCs are delivered.
pub const PASSIVE_LEVEL: KIRQL = 0;

/// As [`PASSIVE_LEVEL`] with normal and special kernel APCs held back.
pub const APC_LEVEL: KIRQL = 1;

/// The scheduler's level: no waiting, no pageable memory.
pub const DISPATCH_LEVEL: KIRQL = 2;

/// The highest level of x64.
pub const HIGH_LEVEL: KIRQL = 15;
