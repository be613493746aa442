//! What stops Windows with a bug check.

use kernel_host::{Machine, Rule};

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::{Rig, control};

family! { crash, Rig::exercise;
    null_pointer: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Walk");
    division_by_zero: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Divide");
    call_of_null: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Call");
    stack_overflow: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Recurse");
    constant_written: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Store");
    bug_check: While(Rule::BugCheck, "KeBugCheckEx", "Exercise");
    assertion_failed: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Exercise");
    breakpoint: While(Rule::UnhandledException, "IRP_MJ_DEVICE_CONTROL", "Exercise");
    privileged_instruction: While(Rule::NotImplemented, "IRP_MJ_DEVICE_CONTROL", "Exercise");
}

#[test]
fn with_a_debugger_a_driver_goes_on_behind_its_breakpoint() {
    let sys = fwbroker_tests::drivers::c_driver_dir().expect("the C drivers are built").join("crash-breakpoint.sys");
    let machine = Machine::builder().with_debugger().build().expect("the machine starts");
    machine.create_service("Breaking", &sys).expect("no INF is needed");
    machine.load_driver("Breaking").expect("it loads");
    let device = machine.open_device(r"\Device\Mutant").expect("it opens");
    assert!(control(&device, 0).is_ok(), "{:?}", machine.finding());
    let log = machine.debug_log();
    assert!(
        log.iter().any(|line| line.starts_with("break instruction exception at crash-breakpoint!Exercise")),
        "{log:?}"
    );
    drop(device);
    assert!(machine.unload_driver("Breaking", false).expect("it unloads").is_clean());
}
