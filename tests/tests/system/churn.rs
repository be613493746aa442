//! Rounds of open, read and close by many clients, of whom some disappear and some lose their handles: what was opened is closed.

use fwbroker_tests::churn::{Churn, Outcome};

#[test]
fn a_short_churn_closes_what_it_opens() {
    let outcome: Outcome = Churn { clients: 8, rounds: 4_000, seed: 0x5eed }.run();
    println!("{outcome}");
}
