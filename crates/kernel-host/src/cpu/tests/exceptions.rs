//! Exceptions that cross frames, handlers and exports.

use super::{bench, finding_of};
use crate::conformance::conforms;
use crate::finding::Rule;
use crate::image::testing::function;
use nt_types::NtStatus;

type Two = extern "efiapi" fn(NtStatus, NtStatus) -> NtStatus;
type Counted = extern "efiapi" fn() -> u32;

/// Where the kernel sees `KUSER_SHARED_DATA`.
const BASE: u64 = 0xFFFF_F780_0000_0000;
const FIRST: NtStatus = NtStatus::ACCESS_DENIED;
const SECOND: NtStatus = NtStatus::INVALID_PARAMETER;

#[test]
fn a_division_raises_by_what_is_wrong_with_it() {
    let (bench, image) = bench();
    let divide: extern "efiapi" fn(i64, i64) -> NtStatus = function(&image, "divide");
    let codes = bench.run(|| (divide(7, 2), divide(7, 0), divide(i64::MIN, -1))).unwrap();
    assert_eq!(codes, (NtStatus::SUCCESS, NtStatus::INTEGER_DIVIDE_BY_ZERO, NtStatus::INTEGER_OVERFLOW));
}

#[test]
fn an_exception_in_a_callback_reaches_the_caller_of_the_export() {
    let (bench, image) = bench();
    let search: extern "efiapi" fn(*const NtStatus) -> NtStatus = function(&image, "search");
    let counted: Counted = function(&image, "counted");
    let result = bench.run(|| {
        let caught = [FIRST, SECOND].map(|status| search(&raw const status));
        (caught, counted(), crate::thread::Thread::current().outer_call(0).is_some())
    });
    assert_eq!(result.unwrap(), ([FIRST, SECOND], 2, false), "__finally ran each time, and no call is left open");
    let calls = bench.machine().trace().iter().filter(|entry| entry.name == "bsearch").count();
    assert_eq!(calls, 2, "the calls that were left are in the trace");
}

#[test]
fn an_exception_does_not_pass_an_export_that_holds_something() {
    let finding = finding_of(|_, image| {
        let through: extern "efiapi" fn(usize, *const NtStatus) -> NtStatus = function(image, "through");
        let status = FIRST;
        let _ = through(function(image, "compare"), &raw const status);
    });
    assert_eq!(finding.rule, Rule::UnhandledException);
    assert!(finding.message.contains("cannot pass KernelHostTestCallBack"), "{}", finding.message);
    assert!(finding.message.contains("TEST_CALLBACK"), "{}", finding.message);
    assert!(finding.stack.len() >= 2, "both frames of the driver: {:?}", finding.stack);
}

#[test]
fn an_exception_in_a_termination_handler_takes_the_place_of_the_first() {
    conforms!(
        "docs:kernel/handling-exceptions.md",
        "Exceptions are handled in try/except blocks, which may be nested."
    );
    let (bench, image) = bench();
    let collide: Two = function(&image, "collide");
    let counted: Counted = function(&image, "counted");
    let result = bench.run(|| (collide(FIRST, SECOND), collide(SECOND, FIRST), counted()));
    assert_eq!(result.unwrap(), (SECOND, FIRST, 2), "each __finally ran once");
}

#[test]
fn an_exception_in_a_filter_is_dispatched_from_where_the_first_happened() {
    let (bench, image) = bench();
    let refilter: Two = function(&image, "refilter");
    let counted: Counted = function(&image, "counted");
    assert_eq!(bench.run(|| (refilter(FIRST, SECOND), counted())).unwrap(), (SECOND, 2));
}

#[test]
fn a_jump_out_of_a_try_block_runs_its_termination_handler() {
    let (bench, image) = bench();
    let leave: Counted = function(&image, "leave");
    let counted: Counted = function(&image, "counted");
    assert_eq!(bench.run(|| (leave(), counted())).unwrap(), (7, 1));
}

#[test]
fn shared_user_data_is_read_like_memory() {
    let (bench, image) = bench();
    let peek: extern "efiapi" fn(u64) -> u64 = function(&image, "peek");
    let peek_self: extern "efiapi" fn(u64) -> u32 = function(&image, "peek_self");
    let absolute: Counted = function(&image, "peek_absolute");
    bench
        .run(|| {
            assert_eq!(peek(BASE + 0x26C) as u32, 10, "NtMajorVersion");
            assert_eq!((peek_self(BASE + 0x26A), absolute()), (9, 26_100), "architecture, build");
            let (first, now) = (peek(BASE + 0x14), crate::nt::time::system_time().cast_unsigned());
            assert!(now - first < 10_000_000, "SystemTime: {first} {now}");
            std::thread::sleep(std::time::Duration::from_millis(40));
            assert!(peek(BASE + 0x14) >= first + 400_000);
            let ticks = peek(BASE + 0x320);
            assert!(ticks > 600, "TickCount: ten seconds of 64 ticks at least, {ticks}");
        })
        .unwrap();
    let finding = finding_of(|_, image| function::<extern "efiapi" fn(u64, u8)>(image, "poke")(BASE, 1));
    assert_eq!(finding.rule, Rule::UnhandledException, "it cannot be written");
}
