//! What threads check when driver code returns.

use super::*;
use crate::ddi::testing::Bench;

#[test]
fn a_callback_that_returns_at_another_irql_is_found() {
    let bench = Bench::new();
    let stopped = bench.run(|| Thread::current().set_irql(2)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::IrqlChanged);
}

#[test]
fn an_unbalanced_critical_region_is_found() {
    let bench = Bench::new();
    let stopped = bench.run(|| Thread::current().set_critical_regions(1)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::BadState);
}

#[test]
fn a_stop_comes_back_to_the_outermost_caller() {
    let bench = Bench::new();
    let outcome = bench.run(|| {
        let thread = Thread::current();
        let inner = thread
            .call_driver(bench.driver(), "Inner", 2, || thread.stop(Rule::BadState, "on purpose".to_owned(), None));
        unreachable!("{inner:?}")
    });
    let finding = outcome.unwrap_err().0;
    assert_eq!((finding.rule, finding.call.as_str(), finding.irql), (Rule::BadState, "Inner", 2));
    bench.enter(|thread| {
        assert_eq!(thread.irql(), 0, "the thread is where it was before");
        assert!(!thread.is_in_driver());
    });
}

#[test]
fn two_machines_have_two_threads_on_one_linux_thread() {
    let (one, two) = (Bench::new(), Bench::new());
    one.enter(|outer| {
        let object = outer.object();
        two.enter(|inner| assert_ne!(inner.object(), object));
        assert_eq!(Thread::current().object(), object);
    });
}
