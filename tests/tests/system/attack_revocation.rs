//! Somebody who wants handles that are not theirs: made-up numbers, made-up cursors, and what a list gives away.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use fwbroker_tests::client::encode;
use fwbroker_tests::{Bench, Refused};
use nt_types::NtStatus;
use protocol::{Kind, Reason, RequestBody, RevokeScope};

const ROM: &[u8] = b"\x55\xaa firmware";
const INVALID: Refused = Refused::with(NtStatus::INVALID_HANDLE, Reason::HandleInvalid);
const NO_HANDLE: Refused = Refused::with(NtStatus::NOT_FOUND, Reason::HandleNotFound);

#[test]
fn no_number_in_a_list_can_be_used_as_a_handle() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handles: Vec<_> = (0..50).map(|_| owner.open(&path).unwrap().handle).collect();
    let numbers: Vec<_> = admin.handles().unwrap().iter().map(|entry| entry.id).collect();
    assert_eq!(numbers.len(), handles.len());
    for number in &numbers {
        for client in [&admin, &owner] {
            assert_eq!(client.read(*number, 0, 2), Err(INVALID));
            assert_eq!(client.query(*number).map(drop), Err(INVALID));
            assert_eq!(client.close(*number), Err(INVALID));
        }
    }
    // Nor does it differ from the handle by something simple.
    let differences: HashSet<_> =
        handles.iter().zip(&numbers).map(|(handle, number)| (handle ^ number) >> 32).collect();
    assert!(differences.len() > 45, "{differences:x?}");
    assert!(handles.iter().all(|handle| admin.revoke(RevokeScope::Handle, *handle) == Err(NO_HANDLE)));
    assert!(handles.iter().all(|handle| owner.read(*handle, 0, 2).is_ok()));
    drop((admin, owner));
    bench.finish();
}

#[test]
fn numbers_that_nobody_was_given_revoke_nothing() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handle = owner.open(&path).unwrap().handle;
    let number = admin.handles().unwrap()[0].id;
    let flipped = (0..64).map(|bit| number ^ (1 << bit));
    let near =
        [1, 2, u64::MAX, u64::MAX - 1, number.wrapping_add(1), number.wrapping_sub(1), !number, handle, number >> 32];
    for forged in flipped.chain(near) {
        assert_eq!(admin.revoke(RevokeScope::Handle, forged), Err(NO_HANDLE), "{forged:#x}");
    }
    assert!(owner.read(handle, 0, 2).is_ok());
    drop((admin, owner));
    bench.finish();
}

#[test]
fn any_cursor_is_answered() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let admin = bench.client();
    for _ in 0..20 {
        admin.open(&path).unwrap();
    }
    let last = admin.handles_from(0, 1 << 16).unwrap().0.len() as u64;
    for cursor in [1, last, last + 1, 1 << 26, u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let (page, next) = admin.handles_from(cursor, 1 << 16).unwrap();
        assert!(page.len() <= 20 && (next == 0 || next > cursor), "{cursor}: {} entries, {next}", page.len());
        let (page, next) = admin.sessions_from(cursor, 1 << 16).unwrap();
        assert!(page.len() <= 1 && next == 0, "{cursor}");
    }
    // One entry at a time from wherever a page ends, and no two twice.
    let mut seen = HashSet::new();
    for cursor in 0..40 {
        for entry in admin.handles_from(cursor, 400).unwrap().0 {
            seen.insert(entry.id);
        }
    }
    assert_eq!(seen.len(), 20);
    drop(admin);
    bench.finish();
}

#[test]
fn bytes_of_the_kernel_do_not_leave_in_padding() {
    let bench = Bench::start();
    // Names of odd lengths, so that entries end in padding.
    let path = bench.write_firmware("odd.rom", ROM);
    let longer = bench.write_firmware("longer.rom", ROM);
    let admin = bench.client();
    for path in [&path, &longer, &path] {
        admin.open(path).unwrap();
    }
    // What lay in the buffer before: something that is not zero.
    let _noise = admin.read(admin.open(&path).unwrap().handle, 0, 4096);
    for kind in [Kind::Handles, Kind::Sessions] {
        let body = if kind == Kind::Handles { RequestBody::Handles(0) } else { RequestBody::Sessions(0) };
        let bytes = admin.send(&encode(1, body), 8_192).unwrap();
        let mut at = 48;
        while at < bytes.len() {
            let field =
                |offset: usize| u32::from_le_bytes(bytes[at + offset..at + offset + 4].try_into().unwrap()) as usize;
            let used = match kind {
                Kind::Handles => 64 + field(56) + field(60),
                _ => 80 + field(72) + field(76),
            };
            assert!(bytes[at + used..at + field(0)].iter().all(|byte| *byte == 0));
            at += field(0);
        }
    }
    drop(admin);
    bench.finish();
}

#[test]
fn a_list_asked_for_in_a_loop_keeps_nobody_from_closing() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let admin = bench.client();
                while !done.load(Ordering::Relaxed) {
                    admin.handles().unwrap();
                    admin.sessions().unwrap();
                }
            });
        }
        let owner = bench.client();
        for _ in 0..300 {
            let handle = owner.open(&path).unwrap().handle;
            owner.close(handle).unwrap();
            assert!(owner.close(handle) == Err(INVALID));
        }
        drop(owner);
        done.store(true, Ordering::Relaxed);
    });
    assert!(bench.try_writer(&path).is_ok(), "every close came through");
    bench.finish();
}
