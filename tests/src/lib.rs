//! See Cargo.toml.
pub mod drivers;
