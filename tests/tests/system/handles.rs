//! Handles: bound to the session that opened them, good until closed, closed once.

use std::collections::HashSet;

use fwbroker_tests::{Bench, Refused};
use nt_types::NtStatus;
use protocol::Reason;

const ROM: &[u8] = b"\x55\xaa firmware";
const INVALID: Refused = Refused::with(NtStatus::INVALID_HANDLE, Reason::HandleInvalid);

#[test]
fn a_handle_cannot_be_used_after_it_was_closed() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    client.close(handle).unwrap();
    assert_eq!(client.close(handle), Err(INVALID));
    assert_eq!(client.read(handle, 0, 4), Err(INVALID));
    assert_eq!(client.query(handle).map(|facts| facts.size), Err(INVALID));
    drop(client);
    bench.finish();
}

#[test]
fn a_closed_handle_never_becomes_the_next_file() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let handle = client.open(&path).unwrap().handle;
        assert!(seen.insert(handle), "{handle:#x} was given out twice");
        client.close(handle).unwrap();
    }
    let live = client.open(&path).unwrap().handle;
    for old in seen {
        assert_eq!(client.close(old), Err(INVALID));
    }
    assert_eq!(client.read(live, 0, 2).unwrap(), ROM[..2]);
    drop(client);
    bench.finish();
}

#[test]
fn a_handle_of_another_session_is_refused() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (owner, thief) = (bench.client(), bench.client());
    let handle = owner.open(&path).unwrap().handle;
    assert_eq!(thief.read(handle, 0, 4), Err(INVALID));
    assert_eq!(thief.query(handle).map(|facts| facts.size), Err(INVALID));
    assert_eq!(thief.close(handle), Err(INVALID));
    assert_eq!(owner.read(handle, 0, 2).unwrap(), ROM[..2]);
    drop((owner, thief));
    bench.finish();
}

#[test]
fn made_up_handles_are_refused() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    let flipped = (0..64).map(|bit| handle ^ (1 << bit));
    let near = [0, 1, 2, u64::MAX, u64::MAX - 1, handle.wrapping_add(1), !handle];
    for made_up in flipped.chain(near) {
        assert_eq!(client.close(made_up), Err(INVALID), "{made_up:#x}");
    }
    client.close(handle).expect("the real one was not touched");
    drop(client);
    bench.finish();
}

#[test]
fn handles_differ_from_one_boot_to_the_next() {
    let first_handle = || {
        let bench = Bench::start();
        let path = bench.write_firmware("good.rom", ROM);
        let client = bench.client();
        let handle = client.open(&path).unwrap().handle;
        drop(client);
        bench.finish();
        handle
    };
    assert_ne!(first_handle(), first_handle());
}

#[test]
fn a_session_holds_no_more_handles_than_the_limit_says() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let limit = client.limits().max_handles_per_session;
    let handles: Vec<u64> = (0..limit).map(|_| client.open(&path).unwrap().handle).collect();
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::TOO_MANY_OPENED_FILES, Reason::TooManyHandles)));
    client.close(handles[0]).unwrap();
    assert!(client.open(&path).is_ok(), "closing makes room");
    drop(client);
    bench.finish();
}

#[test]
fn many_threads_of_one_client_open_read_and_close_at_once() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = bench.client();
                for _ in 0..200 {
                    let handle = client.open(&path).unwrap().handle;
                    assert_eq!(client.read(handle, 0, 64).unwrap(), ROM);
                    client.close(handle).unwrap();
                }
            });
        }
    });
    bench.finish();
}
