//! Runs real driver code that faults, raises and changes CR8.

use nt_types::NtStatus;

use crate::ddi::testing::Bench;
use crate::finding::{Finding, Rule};
use crate::image::Image;
use crate::image::testing::{function, load_on};
use crate::thread::Thread;

mod exceptions;
mod user_memory;

type Copy = extern "efiapi" fn(*mut u8, *const u8, usize) -> NtStatus;
type Poke = extern "efiapi" fn(usize, u8);
type Call = extern "efiapi" fn(usize);

fn bench() -> (Bench, Image) {
    let bench = Bench::new();
    let image = load_on(&bench);
    (bench, image)
}

fn finding_of(body: impl FnOnce(&Bench, &Image)) -> Finding {
    let (bench, image) = bench();
    *bench.run(|| body(&bench, &image)).unwrap_err().0
}

#[test]
fn cr8_is_the_irql() {
    let (bench, image) = bench();
    let get: extern "efiapi" fn() -> u64 = function(&image, "get_irql");
    let set: extern "efiapi" fn(u64) = function(&image, "set_irql");
    let seen = bench.run(|| {
        set(2);
        let seen = (get(), Thread::current().irql());
        set(0);
        seen
    });
    assert_eq!(seen.unwrap(), (2, 2));
}

#[test]
fn other_privileged_instructions_are_named() {
    let finding = finding_of(|_, image| function::<extern "efiapi" fn()>(image, "cli")());
    assert_eq!(finding.rule, Rule::NotImplemented);
    assert!(finding.message.contains("cli"), "{}", finding.message);
    assert_eq!(finding.driver, "test.sys");
}

#[test]
fn a_guarded_copy_returns_the_exception_code() {
    let (bench, image) = bench();
    let copy: Copy = function(&image, "guarded_copy");
    let mut bytes = [0_u8; 4];
    let statuses = bench.run(|| {
        let good = copy(bytes.as_mut_ptr(), b"good".as_ptr(), 4);
        let bad_source = copy(bytes.as_mut_ptr(), 0x10 as *const u8, 1);
        let bad_target = copy(0x1000 as *mut u8, b"x".as_ptr(), 1);
        (good, bad_source, bad_target)
    });
    let violation = NtStatus::ACCESS_VIOLATION;
    assert_eq!(statuses.unwrap(), (NtStatus::SUCCESS, violation, violation));
    assert_eq!(&bytes, b"good");
}

#[test]
fn a_bad_kernel_address_cannot_be_caught() {
    let finding = finding_of(|_, image| {
        let copy: Copy = function(image, "guarded_copy");
        let _ = copy(std::ptr::without_provenance_mut(image.module().base()), b"x".as_ptr(), 1);
    });
    assert_eq!(finding.rule, Rule::UnhandledException);
    assert!(finding.message.contains("PAGE_FAULT_IN_NONPAGED_AREA"), "{}", finding.message);
    assert!(finding.stack[0].starts_with("test+0x"), "{:?}", finding.stack);
}

#[test]
fn user_memory_at_dispatch_level_is_a_finding() {
    let finding = finding_of(|_, image| {
        let copy: Copy = function(image, "guarded_copy");
        Thread::current().set_irql(2);
        let _ = copy(0x1000 as *mut u8, b"x".as_ptr(), 1);
    });
    assert_eq!(finding.rule, Rule::IrqlTooHigh);
}

#[test]
fn an_exception_raised_in_an_export_restores_every_register() {
    let (bench, image) = bench();
    let raise: extern "efiapi" fn(NtStatus, *mut [u32; 2]) -> u32 = function(&image, "raise");
    let mut log = [0_u32; 2];
    let pointer = &raw mut log;
    let result = bench.run(|| {
        let first = raise(NtStatus::INVALID_PARAMETER, pointer);
        (first, raise(NtStatus::ACCESS_DENIED, pointer))
    });
    assert_eq!(result.unwrap(), (0, 0));
    assert_eq!(log, [2, NtStatus::ACCESS_DENIED.bits()], "__finally ran twice, the filter saw the code");
    let trace = bench.machine().trace();
    let calls: Vec<_> = trace.iter().filter(|entry| entry.name == "KernelHostTestRaise").collect();
    assert_eq!(calls.len(), 2);
    for call in calls {
        // Learnt the first time, followed the second; one of the two functions has a frame pointer.
        let (captured, walked) = call.detail.split_once("] [").expect("two lists");
        assert_eq!(captured.trim_matches(['[', ']']), walked.trim_matches(['[', ']']));
        assert_eq!(captured.matches(',').count(), 1, "two functions: {captured}");
    }
}

#[test]
fn a_filter_can_repair_and_go_on() {
    let (bench, image) = bench();
    let resume: extern "efiapi" fn(usize) -> u32 = function(&image, "resume");
    assert_eq!(bench.run(|| resume(0x2000)).unwrap(), 0x5A);
}

#[test]
fn an_unguarded_access_is_a_finding_with_the_stack() {
    let finding = finding_of(|_, image| {
        let poke: usize = function(image, "poke");
        function::<Call>(image, "call")(poke);
    });
    // poke writes through RCX, which is poke itself: a kernel address that is not writable.
    assert_eq!(finding.rule, Rule::UnhandledException);
    assert_eq!(finding.stack.len(), 2, "{:?}", finding.stack);
    let finding = finding_of(|_, image| function::<Poke>(image, "poke")(8, 1));
    assert!(finding.message.contains("STATUS_ACCESS_VIOLATION"), "{}", finding.message);
    assert!(finding.message.contains("writing 0x8"), "{}", finding.message);
}

#[test]
fn a_call_of_nothing_is_a_finding_of_the_caller() {
    let finding = finding_of(|_, image| function::<Call>(image, "call")(0));
    assert_eq!(finding.rule, Rule::UnhandledException);
    assert!(finding.message.contains("no code"), "{}", finding.message);
    assert_eq!(finding.driver, "test.sys");
}

#[test]
fn a_call_into_an_unloaded_driver_names_it() {
    let finding = finding_of(|bench, image| {
        let gone = load_on(bench);
        let late: usize = function(&gone, "poke");
        gone.unload();
        function::<Call>(image, "call")(late);
    });
    assert!(finding.message.contains("after it was unloaded"), "{}", finding.message);
}

#[test]
fn a_stack_overflow_is_a_finding() {
    let finding = finding_of(|_, image| function::<extern "efiapi" fn()>(image, "recurse")());
    assert_eq!(finding.rule, Rule::UnhandledException);
    assert!(finding.message.contains("stack"), "{}", finding.message);
}

#[test]
fn a_write_past_a_pool_block_is_pool_corruption() {
    let (bench, image) = bench();
    let poke: Poke = function(&image, "poke");
    let page = bench.machine().inner().nt.arena().allocate(1, crate::nt::arena::Access::ReadWrite).unwrap();
    let finding = bench.run(|| poke(page + 4096, 1)).unwrap_err().0;
    assert_eq!(finding.rule, Rule::PoolCorruption, "{}", finding.message);
}

#[test]
fn a_call_that_fails_by_injection_returns_to_the_driver_and_does_nothing() {
    let (bench, image) = bench();
    let raise: extern "efiapi" fn(NtStatus, *mut [u32; 2]) -> u32 = function(&image, "raise");
    let faults = &bench.machine().inner().faults;
    let run_twice = |log: &mut [[u32; 2]; 2]| {
        let [first, second] = log;
        bench.run(|| (raise(NtStatus::INVALID_PARAMETER, first), raise(NtStatus::INVALID_PARAMETER, second))).unwrap()
    };
    faults.arm(Vec::new(), true);
    run_twice(&mut [[0; 2]; 2]);
    let counted = faults.disarm().sites;
    assert_eq!(counted.len(), 2);
    assert_ne!(counted[0].id, counted[1].id, "the same place, passed again");

    faults.arm(vec![counted[1].id], false);
    let mut log = [[0_u32; 2]; 2];
    let results = run_twice(&mut log);
    let sites = faults.disarm().sites;
    assert_eq!((results.0, log[0][1]), (0, NtStatus::INVALID_PARAMETER.bits()), "the first call raised");
    assert_eq!((results.1, log[1]), (1, [0, 0]), "the second returned, and nobody had to unwind");
    assert_eq!((sites.len(), sites[0].call), (1, "KernelHostTestRaise"));
    let entry = bench.machine().trace().pop().unwrap();
    assert!(entry.detail.contains("INSUFFICIENT_RESOURCES"), "{entry}");
}
