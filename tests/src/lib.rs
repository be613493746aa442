//! What the system tests share: a machine with the release drivers, clients, NICs, and the programs of this workspace.

#![expect(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "helpers of tests: each panics where the test has failed, and most are called for that"
)]

pub mod bench;
pub mod churn;
pub mod client;
pub mod consumer;
pub mod drivers;
pub mod nic;
pub mod programs;
pub mod random;

pub use bench::Bench;
pub use client::{Client, Refused};
pub use consumer::Consumer;
pub use nic::{BootReport, Nic, Source};
pub use random::Random;

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// SHA-256 as the host computes it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
