//! Loading, unloading, and clients that go away: nothing stays behind, and nothing is pulled from under anyone.

use std::sync::atomic::{AtomicBool, Ordering};

use fwbroker_tests::{Bench, sha256};
use nt_types::NtStatus;

const ROM: &[u8] = b"\x55\xaa firmware";

#[test]
fn the_driver_loads_and_unloads_without_leaving_anything() {
    Bench::start().finish();
}

#[test]
fn a_second_load_is_refused() {
    let bench = Bench::start();
    assert_eq!(bench.load_again(), Err(NtStatus::IMAGE_ALREADY_LOADED));
    let client = bench.client();
    drop(client);
    bench.finish();
}

#[test]
fn the_driver_can_be_loaded_again_after_it_was_unloaded() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    bench.unload().expect("nobody uses it");
    bench.load();
    let client = bench.client();
    assert!(client.open(&path).is_ok());
    drop(client);
    bench.finish();
}

#[test]
fn unload_is_refused_while_a_client_holds_a_handle() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    assert_eq!(bench.unload(), Err(NtStatus::FLT_DO_NOT_DETACH));
    assert!(bench.log().contains("handle"), "the log says why: {}", bench.log());
    assert_eq!(client.read(handle, 0, 2).unwrap(), ROM[..2], "all goes on");
    client.close(handle).unwrap();
    drop(client);
    bench.finish();
}

#[test]
fn a_client_that_is_only_connected_does_not_hold_up_unload() {
    let bench = Bench::start();
    let client = bench.client();
    bench.unload().expect("a connection alone is no use");
    let gone = client.hello().unwrap_err();
    assert_eq!(gone.status, NtStatus::PORT_DISCONNECTED);
    drop(client);
    bench.finish_unloaded();
}

#[test]
fn a_mandatory_unload_closes_what_clients_hold() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    client.open(&path).unwrap();
    client.stage(&path, Some(sha256(ROM))).unwrap();
    bench.unload_mandatory();
    drop(client);
    bench.finish_unloaded();
}

#[test]
fn staged_images_that_nobody_holds_do_not_hold_up_unload() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    client.stage(&path, Some(sha256(ROM))).unwrap();
    drop(client);
    bench.finish();
}

#[test]
fn the_files_of_a_client_that_dies_are_closed() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    for _ in 0..10 {
        client.open(&path).unwrap();
    }
    client.die();
    assert!(bench.try_writer(&path).is_ok(), "the file is free again");
    bench.finish();
}

#[test]
fn a_client_may_die_while_its_requests_run() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", &vec![7; 400_000]);
    for _ in 0..10 {
        let client = bench.client();
        let handle = client.open(&path).unwrap().handle;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        if client.read(handle, 0, 400_000).is_err() {
                            break;
                        }
                        let _ = client.open(&path);
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(3));
            client.process().terminate();
            stop.store(true, Ordering::Relaxed);
        });
    }
    assert!(bench.try_writer(&path).is_ok(), "the file is free again");
    bench.finish();
}

#[test]
fn unloading_races_with_clients_without_harm() {
    for _ in 0..5 {
        let bench = Bench::start();
        let path = bench.write_firmware("nic.rom", ROM);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let Ok(client) = bench.try_client() else { return };
                        if let Ok(open) = client.open(&path) {
                            let _ = client.read(open.handle, 0, 10);
                            let _ = client.close(open.handle);
                        }
                    }
                });
            }
            bench.unload_mandatory();
        });
        bench.finish_unloaded();
    }
}

#[test]
fn loading_fails_cleanly_when_the_instances_key_is_missing() {
    let bench = Bench::without_instances();
    assert_eq!(bench.load_again(), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    bench.finish_unloaded();
}
