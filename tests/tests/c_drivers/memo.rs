//! memo.sys: raw user addresses, `__try` with filters and `__finally`, a lookaside list, an ERESOURCE and a DPC.

use std::sync::Arc;

use kernel_host::process::Process;
use kernel_host::{Machine, ProgramDevice};
use nt_types::NtStatus;

use crate::bench::{Bench, check};

/// The driver's control codes.
const ADD: u32 = 0x22_2003;
const READ: u32 = 0x22_2007;
const CLEAR: u32 = 0x22_200B;
const COUNT: u32 = 0x22_200C;

/// An address at which programs have nothing.
const NOTHING: usize = 0x1000;

/// An address of the kernel's half.
const KERNEL: usize = 0xFFFF_8000_0000_1000;

fn device(program: &Arc<Process>) -> Result<ProgramDevice, NtStatus> {
    program.open_device(r"\\.\Memo")
}

fn count(memo: &ProgramDevice) -> Result<i32, NtStatus> {
    let answer = memo.control(COUNT, &[], 4)?;
    Ok(i32::from_le_bytes(answer.try_into().expect("four bytes")))
}

#[test]
fn texts_are_kept_in_order_and_cleared() {
    let bench = Bench::started("memo");
    let memo = device(&bench.program()).expect("the device opens");
    for text in ["milk", "bread", "eggs"] {
        memo.control(ADD, text.as_bytes(), 0).expect("there is room");
    }
    assert_eq!(count(&memo), Ok(3));
    assert_eq!(memo.control(READ, &1_u32.to_le_bytes(), 16), Ok(b"bread".to_vec()));
    assert_eq!(memo.control(READ, &3_u32.to_le_bytes(), 16), Err(NtStatus::NOT_FOUND));
    assert_eq!(memo.control(READ, &2_u32.to_le_bytes(), 3), Err(NtStatus::BUFFER_TOO_SMALL));
    memo.control(CLEAR, &[], 0).expect("it cannot fail");
    assert_eq!(count(&memo), Ok(0));
    memo.control(ADD, b"left for unload to free", 0).expect("there is room");
    drop(memo);
    bench.finish();
}

#[test]
fn programs_share_the_list() {
    let bench = Bench::started("memo");
    let (one, other) = (device(&bench.program()).expect("it opens"), device(&bench.program()).expect("it opens"));
    one.control(ADD, b"from the first", 0).expect("there is room");
    assert_eq!(other.control(READ, &0_u32.to_le_bytes(), 64), Ok(b"from the first".to_vec()));
    drop((one, other));
    bench.finish();
}

#[test]
fn bad_lengths_are_refused() {
    let bench = Bench::started("memo");
    let memo = device(&bench.program()).expect("the device opens");
    assert_eq!(memo.control(ADD, &[], 0), Err(NtStatus::INVALID_BUFFER_SIZE));
    assert_eq!(memo.control(ADD, &[b'x'; 257], 0), Err(NtStatus::INVALID_BUFFER_SIZE));
    assert_eq!(memo.control(READ, &[0], 16), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(memo.control(COUNT, &[], 3), Err(NtStatus::BUFFER_TOO_SMALL));
    assert_eq!(memo.control(0x22_2FFF, &[], 0), Err(NtStatus::INVALID_DEVICE_REQUEST));
    drop(memo);
    bench.finish();
}

#[test]
fn bad_addresses_end_in_a_status_and_locks_are_given_back() {
    let bench = Bench::started("memo");
    let program = bench.program();
    let memo = device(&program).expect("the device opens");
    memo.control(ADD, b"milk", 0).expect("there is room");
    let number = program.buffer(&0_u32.to_le_bytes()).expect("there is memory");
    let number = (number.address(), 4);
    for bad in [NOTHING, KERNEL] {
        let ended = |code, input, output| memo.control_at(code, input, output).map(|ended| ended.Status);
        assert_eq!(ended(ADD, (bad, 4), (0, 0)), Ok(NtStatus::ACCESS_VIOLATION), "{bad:#x}");
        assert_eq!(ended(READ, (bad, 4), (0, 0)), Ok(NtStatus::ACCESS_VIOLATION), "{bad:#x}");
        // The exception crosses the __finally that gives the resource back.
        assert_eq!(ended(READ, number, (bad, 16)), Ok(NtStatus::ACCESS_VIOLATION), "{bad:#x}");
    }
    // It could not be had exclusively if a reader had kept it.
    memo.control(CLEAR, &[], 0).expect("the resource is free");
    drop(memo);
    bench.finish();
}

#[test]
fn a_text_that_ends_in_missing_memory_is_not_kept() {
    let bench = Bench::started("memo");
    let program = bench.program();
    let memo = device(&program).expect("the device opens");
    let text = program.buffer(&[b'x'; 4096]).expect("there is memory");
    // Four bytes are there, and behind them nothing is.
    let edge = text.address() + 4092;
    let ended = memo.control_at(ADD, (edge, 8), (0, 0)).expect("it is sent");
    assert_eq!(ended.Status, NtStatus::ACCESS_VIOLATION);
    assert_eq!(count(&memo), Ok(0));
    memo.control_at(ADD, (edge, 4), (0, 0)).expect("it is sent").Status.ok().expect("these four can be read");
    assert_eq!(count(&memo), Ok(1));
    drop(memo);
    bench.finish();
}

#[test]
fn many_programs_at_once_lose_nothing() {
    let bench = Bench::started("memo");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let memo = device(&bench.program()).expect("the device opens");
            scope.spawn(move || {
                for _ in 0..50 {
                    memo.control(ADD, b"one more", 0).expect("there is room");
                    memo.control(READ, &0_u32.to_le_bytes(), 64).expect("there is one");
                    assert!(count(&memo).is_ok_and(|count| count > 0));
                }
            });
        }
    });
    let memo = device(&bench.program()).expect("the device opens");
    assert_eq!(count(&memo), Ok(200));
    drop(memo);
    bench.finish();
}

#[test]
fn loading_using_and_unloading_survive_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::installed("memo");
        trial.begin(bench.machine());
        if trial.attempt(bench.load()).is_some()
            && let Some(memo) = trial.attempt(device(&bench.program()))
        {
            let added = trial.attempt(memo.control(ADD, b"milk", 0)).is_some();
            if let Some(text) = trial.attempt(memo.control(READ, &0_u32.to_le_bytes(), 16)) {
                assert_eq!(text, b"milk");
            }
            if let Some(count) = trial.attempt(count(&memo)) {
                assert_eq!(count, i32::from(added));
            }
            let _cleared = trial.attempt(memo.control(CLEAR, &[], 0));
        }
        bench.recover(trial);
    }));
}
