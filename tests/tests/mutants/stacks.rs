//! Leak reports name not only the call that took what is left, but how the driver came there.

use fwbroker_tests::Bench;
use kernel_host::{LeakKind, LeakReport};

use crate::rig::Rig;

/// What a driver leaves after one request.
fn left_by(image: &str) -> LeakReport {
    let rig = Rig::new(image);
    let _expected_to_fail = rig.exercise();
    let _leaves_something = rig.unload();
    rig.machine().unload_reports().pop().unwrap_or_else(|| panic!("{image} was not unloaded"))
}

#[test]
fn the_stack_of_a_leak_leads_to_the_callback() {
    let cases = [
        ("pool-leak", LeakKind::Pool, ["MakeRecord", "Exercise", "DeviceControl"]),
        ("resources-mdl-not-freed", LeakKind::Pool, ["DescribePool", "Exercise", "DeviceControl"]),
        ("objects-handle-leak", LeakKind::Handle, ["UseObject", "Exercise", "DeviceControl"]),
        ("objects-missing-dereference", LeakKind::Reference, ["UseObject", "Exercise", "DeviceControl"]),
        // gcc's image, with its symbols in itself; it lacks that of the static function that makes the call.
        ("leftovers-thread-notify-routine-left", LeakKind::Registration, ["", "SetUp", "DriverEntry"]),
    ];
    for (image, kind, functions) in cases {
        let report = left_by(image);
        let leaks = report.leaks.iter().filter(|leak| leak.kind == kind);
        let has_stack = |detail: &str| {
            let mut rest = detail;
            let named = functions.iter().filter(|function| !function.is_empty());
            named.into_iter().all(|function| match rest.find(&format!("{image}!{function}+")) {
                Some(at) => {
                    rest = &rest[at + 1..];
                    true
                }
                None => false,
            })
        };
        assert!(leaks.map(|leak| leak.detail.as_str()).any(has_stack), "{image}: no {functions:?} in {report}");
    }
}

#[test]
fn what_a_rust_driver_holds_is_reported_with_its_stack() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", b"\x55\xaa firmware");
    let client = bench.client();
    let handle = client.open(&path).expect("the file opens").handle;
    let drivers = bench.machine().drivers();
    let driver = drivers.iter().find(|driver| driver.name == "fwbroker.sys").expect("it is loaded");
    let report = bench.machine().held_by(driver);
    let opened = report.leaks.iter().find(|leak| leak.kind == LeakKind::Handle).expect("the file's handle");
    let callers = opened.detail.matches("called from fwbroker!").count();
    assert!(callers >= 2, "{}", opened.detail);
    client.close(handle).expect("it is open");
    drop(client);
    bench.finish();
}
