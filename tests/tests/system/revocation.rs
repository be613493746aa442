//! Taking handles away: what their owners are told, and what is left alone.

use std::sync::atomic::{AtomicBool, Ordering};

use fwbroker_tests::consumer::{Consumer, PASSIVE};
use fwbroker_tests::{Bench, Client, Refused, sha256};
use nt_types::NtStatus;
use protocol::{Reason, RevokeReply, RevokeScope};

const ROM: &[u8] = b"\x55\xaa firmware";
const INVALID: Refused = Refused::with(NtStatus::INVALID_HANDLE, Reason::HandleInvalid);
const REVOKED: Refused = Refused::with(NtStatus::FILE_FORCED_CLOSED, Reason::HandleRevoked);
const NO_HANDLE: Refused = Refused::with(NtStatus::NOT_FOUND, Reason::HandleNotFound);
const NO_SESSION: Refused = Refused::with(NtStatus::NOT_FOUND, Reason::SessionNotFound);

/// The number under which the only handle of `owner` is listed.
fn number_of(admin: &Client, owner: &Client) -> u64 {
    let listed = admin.handles().unwrap();
    let mut mine = listed.iter().filter(|entry| entry.session_id == owner.session_id());
    let number = mine.next().expect("it has a handle").id;
    assert_eq!(mine.next(), None, "it has one handle");
    number
}

fn counts(revoked: u32, kept: u32) -> RevokeReply {
    RevokeReply { revoked, kept }
}

#[test]
fn every_use_of_a_revoked_handle_says_so_until_its_owner_closes_it() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handle = owner.open(&path).unwrap().handle;
    let number = number_of(&admin, &owner);
    assert_eq!(admin.revoke(RevokeScope::Handle, number), Ok(counts(1, 0)));
    assert!(bench.try_writer(&path).is_ok(), "the file is closed");
    for _ in 0..2 {
        assert_eq!(owner.read(handle, 0, 4), Err(REVOKED));
        assert_eq!(owner.query(handle).map(drop), Err(REVOKED));
    }
    let session = admin.sessions().unwrap().into_iter().find(|session| session.session_id == owner.session_id());
    assert_eq!(session.map(|session| (session.handles.used, session.revoked)), Some((0, 1)));
    assert_eq!(owner.close(handle), Err(REVOKED));
    assert_eq!(owner.close(handle), Err(INVALID));
    assert_eq!(owner.read(handle, 0, 4), Err(INVALID));
    assert!(owner.open(&path).is_ok(), "the session goes on");
    drop((admin, owner));
    bench.finish();
}

#[test]
fn a_revoked_handle_tells_others_nothing() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handle = owner.open(&path).unwrap().handle;
    admin.revoke(RevokeScope::Session, owner.session_id()).unwrap();
    assert_eq!(admin.read(handle, 0, 4), Err(INVALID));
    assert_eq!(admin.close(handle), Err(INVALID));
    assert_eq!(owner.read(handle, 0, 4), Err(REVOKED), "and nobody else can close it");
    drop((admin, owner));
    bench.finish();
}

#[test]
fn revoking_again_or_what_is_closed_finds_nothing() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handle = owner.open(&path).unwrap().handle;
    let number = number_of(&admin, &owner);
    admin.revoke(RevokeScope::Handle, number).unwrap();
    assert_eq!(admin.revoke(RevokeScope::Handle, number), Err(NO_HANDLE));
    assert_eq!(owner.close(handle), Err(REVOKED));
    let handle = owner.open(&path).unwrap().handle;
    assert_eq!(admin.revoke(RevokeScope::Handle, number), Err(NO_HANDLE), "an old number never finds a new handle");
    let number = number_of(&admin, &owner);
    owner.close(handle).unwrap();
    assert_eq!(admin.revoke(RevokeScope::Handle, number), Err(NO_HANDLE));
    assert_eq!(owner.close(handle), Err(INVALID), "which was closed, not revoked");
    drop((admin, owner));
    bench.finish();
}

#[test]
fn sessions_and_processes_lose_what_they_have_and_nobody_else_does() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let admin = bench.client();
    let program = bench.administrator();
    let of_program = || {
        let client = Client::connect(program.clone()).unwrap();
        client.hello().unwrap();
        client
    };
    let (first, second, stranger) = (of_program(), of_program(), bench.client());
    let open = |client: &Client| [(); 3].map(|()| client.open(&path).unwrap().handle);
    let (of_first, of_second, of_stranger) = (open(&first), open(&second), open(&stranger));
    let session = admin.handles().unwrap().iter().find(|entry| entry.process_id == program.id()).unwrap().session_id;
    assert_eq!(admin.revoke(RevokeScope::Session, session), Ok(counts(3, 0)));
    let lost =
        |client: &Client, handles: &[u64; 3]| handles.iter().all(|handle| client.read(*handle, 0, 4) == Err(REVOKED));
    assert!(lost(&first, &of_first) != lost(&second, &of_second), "one of the two");
    assert_eq!(admin.revoke(RevokeScope::Process, program.id()), Ok(counts(3, 0)), "what is left of it");
    assert!(lost(&first, &of_first) && lost(&second, &of_second));
    assert_eq!(admin.revoke(RevokeScope::Process, program.id()), Ok(counts(0, 0)), "it is there, and has nothing");
    assert!(of_stranger.iter().all(|handle| stranger.read(*handle, 0, 2).is_ok()));
    for nobody in [1, 3, u64::MAX] {
        assert_eq!(admin.revoke(RevokeScope::Process, nobody), Err(NO_SESSION));
        assert_eq!(admin.revoke(RevokeScope::Session, nobody.wrapping_mul(1_000_003)), Err(NO_SESSION));
    }
    drop((first, second, stranger, admin));
    bench.finish();
}

#[test]
fn an_administrator_can_revoke_its_own() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let admin = bench.client();
    let handle = admin.open(&path).unwrap().handle;
    let number = number_of(&admin, &admin);
    assert_eq!(admin.revoke(RevokeScope::Handle, number), Ok(counts(1, 0)));
    assert_eq!(admin.read(handle, 0, 4), Err(REVOKED));
    let handle = admin.open(&path).unwrap().handle;
    assert_eq!(admin.revoke(RevokeScope::Session, admin.session_id()), Ok(counts(1, 0)));
    assert_eq!(admin.close(handle), Err(REVOKED));
    drop(admin);
    bench.finish();
}

#[test]
fn images_of_nic_drivers_stay_theirs() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    admin.stage(&path, Some(sha256(ROM))).unwrap();
    let nic = Consumer::new(&bench, "nicdriver");
    let image = nic.open("nic.rom").unwrap();
    let listed = admin.handles().unwrap();
    owner.open(&path).unwrap();
    let of_driver = Err(Refused::with(NtStatus::DEVICE_BUSY, Reason::HandleOfDriver));
    assert_eq!(admin.revoke(RevokeScope::Handle, listed[0].id), of_driver);
    nic.map(image.Handle, PASSIVE).unwrap();
    assert_eq!(admin.revoke(RevokeScope::Handle, listed[0].id), of_driver);
    assert_eq!(admin.revoke(RevokeScope::Session, listed[0].session_id), Ok(counts(0, 1)));
    assert_eq!(admin.revoke(RevokeScope::Process, 4), Ok(counts(0, 1)));
    assert_eq!(nic.first_byte(image.Handle), Ok(0x55), "it can go on");
    nic.dereference(PASSIVE);
    assert_eq!(admin.revoke(RevokeScope::Handle, listed[0].id), Err(NO_HANDLE));
    drop((nic, owner, admin));
    bench.finish();
}

#[test]
fn a_reply_buffer_that_is_too_small_costs_nobody_a_handle() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handle = owner.open(&path).unwrap().handle;
    let body =
        protocol::RequestBody::Revoke(protocol::RevokeRequest { scope: RevokeScope::Session, id: owner.session_id() });
    let refused = admin.request(body, 39, |reply| panic!("there was no room for {reply:?}"));
    assert_eq!(refused, Err(Refused::with(NtStatus::BUFFER_TOO_SMALL, Reason::OutputBufferTooSmall)));
    assert_eq!(owner.read(handle, 0, 2).unwrap(), ROM[..2]);
    drop((admin, owner));
    bench.finish();
}

#[test]
fn requests_under_way_finish_and_the_next_is_told() {
    let bench = Bench::start();
    let content = vec![7; 1 << 20];
    let path = bench.write_firmware("large.rom", &content);
    let (admin, owner) = (bench.client(), bench.client());
    for _ in 0..30 {
        let handle = owner.open(&path).unwrap().handle;
        let number = number_of(&admin, &owner);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                for round in 0.. {
                    match owner.read(handle, 0, 1 << 20) {
                        Ok(data) => assert!(data == content, "a read that succeeds is whole"),
                        Err(refused) => {
                            assert_eq!(refused, REVOKED);
                            return round;
                        }
                    }
                }
                unreachable!("the administrator comes");
            });
            assert_eq!(admin.revoke(RevokeScope::Handle, number), Ok(counts(1, 0)));
            reader.join().unwrap()
        });
        assert_eq!(owner.close(handle), Err(REVOKED));
        assert!(bench.try_writer(&path).is_ok(), "the file is closed with its last reader");
    }
    drop((admin, owner));
    bench.finish();
}

#[test]
fn revocations_race_with_reads_closes_and_disconnects() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let admin = bench.client();
                while !done.load(Ordering::Relaxed) {
                    for entry in admin.handles().unwrap() {
                        for (scope, id) in [(RevokeScope::Handle, entry.id), (RevokeScope::Session, entry.session_id)] {
                            match admin.revoke(scope, id) {
                                Ok(reply) => assert_eq!(reply.kept, 0),
                                Err(refused) => assert_eq!(refused.status, NtStatus::NOT_FOUND),
                            }
                        }
                    }
                }
            });
        }
        let owners: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for life in 0..40 {
                        let client = bench.client();
                        let handles: Vec<_> = (0..8).map(|_| client.open(&path).unwrap().handle).collect();
                        for handle in &handles {
                            match client.read(*handle, 0, 2) {
                                Ok(data) => assert_eq!(data, ROM[..2]),
                                Err(refused) => assert_eq!(refused, REVOKED),
                            }
                        }
                        for handle in &handles[..life % 8] {
                            assert!(matches!(client.close(*handle), Ok(()) | Err(REVOKED)));
                            assert_eq!(client.close(*handle), Err(INVALID));
                        }
                        if life % 2 == 0 {
                            client.die();
                        }
                    }
                })
            })
            .collect();
        for owner in owners {
            owner.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(bench.try_writer(&path).is_ok(), "all are closed");
    bench.finish();
}
