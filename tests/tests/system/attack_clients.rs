//! Clients that hurt each other, or try.

use std::time::{Duration, Instant};

use fwbroker_tests::client::encode;
use fwbroker_tests::consumer::{Consumer, PASSIVE};
use fwbroker_tests::{Bench, Client, Refused, sha256};
use protocol::{Name, Reason, ReplyBody, RequestBody, StageReply, StageRequest};

const ROM: &[u8] = b"\x55\xaa firmware";

fn stage(client: &Client, path: &str, digest: [u8; 32], deadline_ms: u32) -> Result<StageReply, Refused> {
    let path: Vec<u16> = path.encode_utf16().collect();
    let name = Name::from_units(&path);
    let body = StageRequest { name, sha256: Some(digest), highest_address: None, deadline_ms };
    client.request(RequestBody::Stage(body), 256, |reply| match reply {
        ReplyBody::Stage(stage) => stage,
        other => panic!("not a stage reply: {other:?}"),
    })
}

#[test]
fn extreme_deadlines_are_no_errors() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    for deadline_ms in [0, u32::MAX, 600_001] {
        let staged = stage(&client, &path, sha256(ROM), deadline_ms).unwrap();
        client.unstage(staged.image_id).unwrap();
    }
    drop(client);
    bench.finish();
}

#[test]
fn equal_files_share_memory_and_unstaging_one_leaves_the_other() {
    let bench = Bench::with_parameters(&[("MaxStagedBytes", 150)]);
    let content = [7; 60];
    let (one, two) = (bench.write_firmware("one.rom", &content), bench.write_firmware("two.rom", &content));
    let third = bench.write_firmware("three.rom", &[8; 80]);
    let (first, second) = (bench.client(), bench.client());
    let digest = sha256(&content);
    let a = stage(&first, &one, digest, 0).unwrap();
    let b = stage(&second, &two, digest, 0).unwrap();
    assert!(!a.shared && b.shared && a.image_id != b.image_id);
    stage(&second, &third, sha256(&[8; 80]), 0).expect("the two are paid for once");
    first.unstage(a.image_id).unwrap();
    let nic = Consumer::new(&bench, "nic");
    let image = nic.open("two.rom").unwrap();
    assert_eq!(nic.first_byte(image.Handle), Ok(7), "the memory is still there");
    nic.dereference(PASSIVE);
    drop((nic, first, second));
    bench.finish();
}

#[test]
fn quotas_come_back_after_every_kind_of_failure() {
    let bench = Bench::with_parameters(&[("MaxStagedBytes", 100), ("MaxImages", 1)]);
    let path = bench.write_firmware("nic.rom", &[1; 90]);
    let client = bench.client();
    for _ in 0..50 {
        assert_eq!(stage(&client, &path, [0; 32], 0).unwrap_err().reason, Some(Reason::DigestMismatch));
        assert!(client.open(r"\??\C:\Windows\Firmware\none").is_err());
        assert!(client.read(0, 0, 1 << 20).is_err());
    }
    let staged = stage(&client, &path, sha256(&[1; 90]), 0).expect("nothing was used up");
    client.unstage(staged.image_id).unwrap();
    drop(client);
    bench.finish();
}

#[test]
fn any_cursor_lists_what_lies_behind_it() {
    let bench = Bench::start();
    let client = bench.client();
    let ids: Vec<u64> = (0..5_u8)
        .map(|number| {
            let path = bench.write_firmware(&format!("{number}.rom"), &[number; 10]);
            stage(&client, &path, sha256(&[number; 10]), 0).unwrap().image_id
        })
        .collect();
    let list = |cursor: u64, room: usize| {
        client.request(RequestBody::List(cursor), room, |reply| match reply {
            ReplyBody::List(entries) => {
                (entries.iter().map(|entry| entry.image_id).collect::<Vec<_>>(), entries.next_cursor)
            }
            other => panic!("not a list reply: {other:?}"),
        })
    };
    assert_eq!(list(0, 1 << 16), Ok((ids.clone(), 0)));
    assert_eq!(list(ids[2], 1 << 16), Ok((ids[3..].to_vec(), 0)));
    for behind in [ids[4], ids[4] + 1, u64::MAX] {
        assert_eq!(list(behind, 1 << 16), Ok((Vec::new(), 0)));
    }
    // In pages of any size nothing is lost or doubled.
    let mut room = 64;
    while list(0, room).is_err() {
        room += 8;
    }
    let (mut seen, mut cursor) = (Vec::new(), 0);
    loop {
        let (page, next) = list(cursor, room).unwrap();
        seen.extend(page);
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen, ids);
    drop(client);
    bench.finish();
}

#[test]
fn any_request_number_comes_back() {
    let bench = Bench::start();
    let client = bench.client();
    for id in [0, 1, 1, u64::MAX] {
        let reply = client.send(&encode(id, RequestBody::List(0)), 256).unwrap();
        assert_eq!(reply[8..16], id.to_le_bytes());
    }
    drop(client);
    bench.finish();
}

#[test]
fn a_client_that_dies_while_others_wait_for_its_staging_takes_nobody_along() {
    let bench = Bench::start();
    let content = vec![0x42; 24 << 20];
    let path = bench.write_firmware("nic.rom", &content);
    let digest = sha256(&content);
    for pause in 0..4 {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let (dying, patient) = (bench.client(), bench.client());
            let process = dying.process().clone();
            let path = &path;
            scope.spawn(move || {
                // Whatever comes of it.
                let _ = stage(&dying, path, digest, 60_000);
            });
            let patient = scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(pause));
                stage(&patient, path, digest, 60_000)
                    .map(|staged| (patient.unstage(staged.image_id).is_ok(), staged.size))
            });
            std::thread::sleep(Duration::from_millis(2 * pause + 1));
            process.terminate();
            assert_eq!(patient.join().unwrap(), Ok((true, content.len() as u64)));
        });
        assert!(started.elapsed() < Duration::from_secs(20), "nobody waited for the dead");
    }
    bench.finish();
}

#[test]
fn an_unload_stops_staging_that_is_under_way() {
    let bench = Bench::start();
    let content = vec![0x42; 24 << 20];
    let path = bench.write_firmware("nic.rom", &content);
    let digest = sha256(&content);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let client = bench.client();
            let path = &path;
            scope.spawn(move || {
                let _ = stage(&client, path, digest, 60_000);
            });
        }
        std::thread::sleep(Duration::from_millis(5));
        bench.unload_mandatory();
    });
    bench.finish_unloaded();
}
