//! ctxfilter.sys: contexts of each type, names and a port.

use std::sync::Arc;

use kernel_host::process::Process;
use kernel_host::{Machine, OpenOptions, PortConnection, ProgramFile};
use nt_types::NtStatus;

use crate::bench::{Bench, check};

/// `ASK_TOTALS` and `ASK_LAST_WRITTEN`.
const TOTALS: u32 = 1;
const LAST_WRITTEN: u32 = 2;

/// `FILE_OPEN_IF`.
const OPEN_IF: u32 = 3;

/// The driver's `TOTALS`.
#[derive(Debug, PartialEq, Eq)]
struct Totals {
    bytes_written: i64,
    bytes_by_handles_closed: i64,
    opens: i32,
    live_contexts: i32,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the answer is long enough")
}

fn connect(program: &Arc<Process>) -> Result<PortConnection, NtStatus> {
    program.connect(r"\CtxFilterPort", &[])
}

fn totals(port: &PortConnection) -> Result<Totals, NtStatus> {
    let answer = port.send_message(&TOTALS.to_le_bytes(), 24)?;
    Ok(Totals {
        bytes_written: i64::from_le_bytes(number(&answer, 0)),
        bytes_by_handles_closed: i64::from_le_bytes(number(&answer, 8)),
        opens: i32::from_le_bytes(number(&answer, 16)),
        live_contexts: i32::from_le_bytes(number(&answer, 20)),
    })
}

/// Bytes written to the stream that was written last, and its name.
fn last_written(port: &PortConnection) -> Result<(i64, String), NtStatus> {
    let answer = port.send_message(&LAST_WRITTEN.to_le_bytes(), 1024)?;
    let length = u32::from_le_bytes(number(&answer, 8)) as usize;
    // LAST_WRITTEN ends at 16: its members take 12, and a LONG64 wants alignment.
    assert_eq!(answer.len(), 16 + length, "the answer says how long it is");
    let units: Vec<u16> = answer[16..].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    Ok((i64::from_le_bytes(number(&answer, 0)), String::from_utf16_lossy(&units)))
}

fn open(program: &Arc<Process>, name: &str) -> Result<ProgramFile, NtStatus> {
    program.create_file(&format!(r"\??\C:\{name}"), &OpenOptions::new().write().disposition(OPEN_IF))
}

#[test]
fn it_counts_per_handle_per_stream_and_in_total() {
    let bench = Bench::started("ctxfilter");
    let program = bench.program();
    let port = connect(&program).expect("nobody else is connected");
    assert_eq!(last_written(&port), Err(NtStatus::NOT_FOUND), "nothing was written yet");

    let first = open(&program, "a.txt").expect("it can be made");
    first.write(0, b"12345").expect("it was opened for writing");
    let second = open(&program, "a.txt").expect("it can be opened again");
    second.write(5, b"678").expect("it was opened for writing");
    let counted = totals(&port).expect("the port answers");
    assert_eq!((counted.bytes_written, counted.bytes_by_handles_closed, counted.opens), (8, 0, 2));

    drop(second);
    assert_eq!(totals(&port).expect("the port answers").bytes_by_handles_closed, 3, "the handle context is gone");
    let (bytes, name) = last_written(&port).expect("something was written");
    assert_eq!(bytes, 8, "both handles have one stream context");
    assert!(name.ends_with(r"\a.txt"), "{name}");

    let other = open(&program, "b.txt").expect("it can be made");
    other.write(0, b"x").expect("it was opened for writing");
    assert!(last_written(&port).expect("something was written").1.ends_with(r"\b.txt"));
    drop((first, other, port));
    bench.finish();
}

#[test]
fn streams_of_one_file_have_contexts_of_their_own() {
    let bench = Bench::started("ctxfilter");
    let program = bench.program();
    let port = connect(&program).expect("nobody else is connected");
    let main = open(&program, "a.txt").expect("it can be made");
    main.write(0, b"main").expect("it was opened for writing");
    let before = totals(&port).expect("the port answers").live_contexts;
    let stream = open(&program, "a.txt:side").expect("the volume has streams");
    stream.write(0, b"on the side").expect("it was opened for writing");
    let (bytes, _) = last_written(&port).expect("something was written");
    assert_eq!(bytes, 11, "the unnamed stream's bytes are not this one's");
    let after = totals(&port).expect("the port answers").live_contexts;
    assert_eq!(after - before, 2, "a stream and a handle more, and the same file");
    drop((main, stream, port));
    bench.finish();
}

#[test]
fn only_one_program_may_connect_and_the_next_after_it() {
    let bench = Bench::started("ctxfilter");
    let (one, other) = (bench.program(), bench.program());
    let port = connect(&one).expect("nobody else is connected");
    assert_eq!(connect(&other).err(), Some(NtStatus::CONNECTION_COUNT_LIMIT));
    drop(port);
    let port = connect(&other).expect("the first has gone");
    drop(port);
    bench.finish();
}

#[test]
fn messages_that_lie_are_refused() {
    let bench = Bench::started("ctxfilter");
    let program = bench.program();
    let port = connect(&program).expect("nobody else is connected");
    assert_eq!(port.send_message(&[1], 24), Err(NtStatus::INVALID_PARAMETER), "too short");
    assert_eq!(port.send_message(&9_u32.to_le_bytes(), 24), Err(NtStatus::INVALID_PARAMETER), "no such question");
    assert_eq!(port.send_message(&TOTALS.to_le_bytes(), 23), Err(NtStatus::BUFFER_TOO_SMALL));
    let nothing = 0x1000;
    assert_eq!(port.send_raw(nothing, 4, 0, 0), Err(NtStatus::ACCESS_VIOLATION));
    let question = program.buffer(&TOTALS.to_le_bytes()).expect("there is memory");
    assert_eq!(port.send_raw(question.address(), 4, nothing, 24), Err(NtStatus::ACCESS_VIOLATION));
    assert!(totals(&port).is_ok(), "it goes on");
    drop(port);
    bench.finish();
}

#[test]
fn it_unloads_while_programs_have_files_open_and_a_port_too() {
    let bench = Bench::started("ctxfilter");
    let program = bench.program();
    let port = connect(&program).expect("nobody else is connected");
    let file = open(&program, "a.txt").expect("it can be made");
    file.write(0, b"12345").expect("it was opened for writing");
    bench.unload();
    file.write(5, b"6").expect("the file is the program's, not the filter's");
    assert!(totals(&port).is_err(), "the port has gone with the filter");
}

#[test]
fn loading_counting_and_unloading_survive_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::installed("ctxfilter");
        trial.begin(bench.machine());
        if trial.attempt(bench.load()).is_some() {
            let program = bench.program();
            let port = trial.attempt(connect(&program));
            if let Some(file) = trial.attempt(open(&program, "a.txt")) {
                // A filter that cannot count must not keep programs from writing.
                assert_eq!(file.write(0, b"12345"), Ok(5));
            }
            if let Some(port) = &port {
                let _totals = trial.attempt(totals(port));
                let _last = trial.attempt(last_written(port));
            }
            let written = std::fs::read(bench.disk().join("a.txt")).unwrap_or_default();
            assert!(written.is_empty() || written == b"12345");
        }
        bench.recover(trial);
    }));
}
