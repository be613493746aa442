//! Rounds of open, read and close by many clients, of whom some disappear and some lose their handles: what was opened is closed.

use std::time::{SystemTime, UNIX_EPOCH};

use fwbroker_tests::churn::Churn;

/// Rounds of an ordinary test run. `cargo xtask stress` does the million.
const ROUNDS: u64 = 100_000;

/// A number from the environment, decimal or with 0x.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    Some(number.unwrap_or_else(|error| panic!("{variable} is {text}: {error}")))
}

#[test]
fn churn_closes_what_it_opens() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let seed = number("FWBROKER_STRESS_SEED").unwrap_or(now.as_millis() as u64);
    let rounds = number("FWBROKER_STRESS_ROUNDS").unwrap_or(ROUNDS);
    // First, for whoever has to repeat a run that did not end.
    println!("FWBROKER_STRESS_SEED={seed:#x} FWBROKER_STRESS_ROUNDS={rounds}");
    println!("{}", Churn { clients: 8, rounds, seed }.run());
}
