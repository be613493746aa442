//! What an administrator sees: handles with their owners, sessions with their quotas.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use fwbroker_tests::consumer::{Consumer, PASSIVE};
use fwbroker_tests::{Bench, Refused, sha256};
use nt_types::NtStatus;
use protocol::{HandlePhase, ObjectKind, Policy, Reason, wire};

const ROM: &[u8] = b"\x55\xaa firmware";

#[test]
fn a_handle_is_listed_with_what_it_is_and_whose() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    assert_eq!(admin.handles(), Ok(Vec::new()));
    let handle = owner.open(&path).unwrap().handle;
    let listed = admin.handles().unwrap();
    let [entry] = &listed[..] else { panic!("one handle is open: {listed:?}") };
    assert_eq!((entry.kind, entry.phase, entry.pins), (Some(ObjectKind::File), Some(HandlePhase::Idle), 0));
    assert_eq!((entry.session_id, entry.process_id), (owner.session_id(), owner.process().id()));
    assert!(entry.owner.ends_with(r"\client.exe"), "{entry:?}");
    assert_eq!(
        (entry.size, entry.name.as_str()),
        (ROM.len() as u64, r"\Device\HarddiskVolume1\Windows\Firmware\good.rom")
    );
    assert_ne!(entry.id, handle, "the handle itself is its owner's alone");
    let session = admin.sessions().unwrap().into_iter().find(|session| session.session_id == entry.session_id).unwrap();
    assert!(session.connected_at > 133_000_000_000_000_000 && entry.opened_at >= session.connected_at);
    owner.close(handle).unwrap();
    assert_eq!(admin.handles(), Ok(Vec::new()));
    drop((admin, owner));
    bench.finish();
}

#[test]
fn an_image_of_a_nic_driver_is_listed_with_the_driver_and_whether_it_is_mapped() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let admin = bench.client();
    admin.stage(&path, Some(sha256(ROM))).unwrap();
    let nic = Consumer::new(&bench, "nicdriver");
    let image = nic.open("nic.rom").unwrap();
    let phase = || {
        let listed = admin.handles().unwrap();
        assert_eq!((listed.len(), listed[0].kind), (1, Some(ObjectKind::Image)));
        assert_eq!((listed[0].owner.as_str(), listed[0].process_id), ("nicdriver", 4));
        listed[0].phase
    };
    assert_eq!(phase(), Some(HandlePhase::Idle));
    nic.map(image.Handle, PASSIVE).unwrap();
    assert_eq!(phase(), Some(HandlePhase::Mapped));
    let sessions = admin.sessions().unwrap();
    let driver = sessions.iter().find(|session| session.flags == wire::SESSION_DRIVER).unwrap();
    assert_eq!((driver.owner.as_str(), driver.handles.used), ("nicdriver", 1));
    nic.dereference(PASSIVE);
    drop((nic, admin));
    bench.finish();
}

#[test]
fn sessions_show_quotas_and_what_is_used_of_them() {
    let bench =
        Bench::with_parameters(&[("MaxSessionHandles", 5), ("MaxSessionJobs", 3), ("MaxSessionBytes", 200_000)]);
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, owner) = (bench.client(), bench.client());
    let handles: Vec<_> = (0..3).map(|_| owner.open(&path).unwrap().handle).collect();
    let sessions = admin.sessions().unwrap();
    assert_eq!(sessions.len(), 2);
    assert!(sessions.windows(2).all(|two| two[0].session_id < two[1].session_id), "in the order of their numbers");
    let of = |id: u64| sessions.iter().find(|session| session.session_id == id).unwrap();
    let (mine, theirs) = (of(admin.session_id()), of(owner.session_id()));
    assert_eq!((theirs.handles.used, theirs.handles.limit), (3, 5));
    assert_eq!((theirs.bytes.used, theirs.bytes.limit), (0, 200_000));
    assert_eq!((theirs.jobs.used, theirs.jobs.limit, theirs.requests), (0, 3, 0));
    assert_eq!(theirs.flags, wire::SESSION_ADMINISTRATOR);
    assert_eq!((mine.requests, mine.handles.used), (1, 0), "the request that asks is one");
    assert!(mine.bytes.used > 0, "and its reply takes memory");
    owner.close(handles[0]).unwrap();
    drop(owner);
    assert_eq!(admin.sessions().unwrap().len(), 1);
    drop(admin);
    bench.finish();
}

#[test]
fn quotas_are_refused_by_name() {
    let bench = Bench::with_parameters(&[("MaxSessionHandles", 2), ("MaxHandles", 3), ("MaxSessionBytes", 3_000)]);
    let path = bench.write_firmware("good.rom", &[7; 10_000]);
    let (one, two) = (bench.client(), bench.client());
    let handles: Vec<_> = (0..2).map(|_| one.open(&path).unwrap().handle).collect();
    let refused = |reason| Err(Refused::with(NtStatus::TOO_MANY_OPENED_FILES, reason));
    assert_eq!(one.open(&path).map(drop), refused(Reason::TooManyHandles), "the session's own limit");
    two.open(&path).unwrap();
    assert_eq!(two.open(&path).map(drop), refused(Reason::TableFull), "everybody's");
    assert_eq!(
        one.read(handles[0], 0, 4_000).map(drop),
        Err(Refused::with(NtStatus::QUOTA_EXCEEDED, Reason::SessionBytesExceeded))
    );
    assert_eq!(one.read(handles[0], 0, 2_000).unwrap(), [7; 2_000]);
    drop((one, two));
    bench.finish();
}

#[test]
fn pages_of_any_size_together_list_everything_once() {
    let bench = Bench::start();
    let paths: Vec<_> =
        (0..3).map(|number| bench.write_firmware(&format!("{}.rom", "x".repeat(1 + 30 * number)), ROM)).collect();
    let (admin, owner) = (bench.client(), bench.client());
    let count = 150;
    for number in 0..count {
        owner.open(&paths[number % paths.len()]).unwrap();
    }
    let all = admin.handles().unwrap();
    assert_eq!(all.len(), count);
    let ids: HashSet<_> = all.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), count);
    let too_small = Err(Refused::with(NtStatus::BUFFER_TOO_SMALL, Reason::OutputBufferTooSmall));
    assert_eq!(admin.handles_from(0, 100).map(drop), too_small, "not even one entry fits");
    for room in [500, 1_000, 8_000] {
        let (mut paged, mut cursor) = (Vec::new(), 0);
        loop {
            let (page, next) = admin.handles_from(cursor, room).unwrap();
            paged.extend(page);
            if next == 0 {
                break;
            }
            assert!(next > cursor);
            cursor = next;
        }
        assert_eq!(paged, all, "{room} bytes a page");
    }
    let (first, next) = admin.sessions_from(0, 300).unwrap();
    assert_eq!((first.len(), next), (1, first[0].session_id));
    assert_eq!(admin.sessions_from(next, 300).map(|(rest, _)| rest[0].session_id), Ok(owner.session_id()));
    drop((admin, owner));
    bench.finish();
}

#[test]
fn what_stays_open_is_listed_once_while_others_come_and_go() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, steady) = (bench.client(), bench.client());
    for _ in 0..40 {
        steady.open(&path).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let client = bench.client();
                while !done.load(Ordering::Relaxed) {
                    let handles: Vec<_> = (0..7).map(|_| client.open(&path).unwrap().handle).collect();
                    for handle in handles {
                        client.close(handle).unwrap();
                    }
                }
            });
        }
        for _ in 0..60 {
            let listed = admin.handles().unwrap();
            let mine: HashSet<_> =
                listed.iter().filter(|entry| entry.session_id == steady.session_id()).map(|entry| entry.id).collect();
            assert_eq!(mine.len(), 40);
            for entry in &listed {
                assert!(entry.owner.ends_with("client.exe") && entry.name.ends_with("good.rom"), "{entry:?}");
                assert_eq!(entry.size, ROM.len() as u64);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    drop((admin, steady));
    bench.finish();
}

#[test]
fn the_log_names_who_has_what_open_when_the_driver_is_to_leave() {
    let bench = Bench::with_parameters(&[("Policy", Policy::Unsigned.code())]);
    let path = bench.write_firmware("good.rom", ROM);
    let owner = bench.client();
    owner.open(&path).unwrap();
    let nic = Consumer::new(&bench, "nicdriver");
    nic.open("good.rom").unwrap();
    assert_eq!(bench.unload(), Err(NtStatus::FLT_DO_NOT_DETACH));
    let refused = bench.log();
    nic.dereference(PASSIVE);
    drop(nic);
    bench.unload_mandatory();
    let log = bench.log();
    let image = r"image \Device\HarddiskVolume1\Windows\Firmware\good.rom, 11 bytes, by NIC driver 4 nicdriver";
    assert!(refused.contains(image), "{refused}");
    let (process, session) = (owner.process().id(), owner.session_id());
    for text in [
        format!(r"file \Device\HarddiskVolume1\Windows\Firmware\good.rom, 11 bytes, by process {process} "),
        format!(r"\client.exe, session {session}, for 0 s, used by 0 requests"),
    ] {
        assert!(refused.contains(&text), "{text:?} is not in {refused}");
        assert!(log[refused.len()..].contains(&text), "{text:?} is not in {log}");
    }
    drop(owner);
    bench.finish_unloaded();
}
