//! Drivers that use the broker's device and function table in every wrong way.

use fwbroker_tests::consumer::{Consumer, DISPATCH, PASSIVE, good_query, query_request};
use fwbroker_tests::{Bench, sha256};
use kernel_host::KernelRequest;
use ndis_firmware::interface::{
    ANY_ADDRESS, DEVICE_NAME, FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1, FWBROKER_OPEN_PARAMETERS,
};
use nt_types::{AccessMask, NtStatus, UNICODE_STRING, USER_MODE};
use protocol::Policy;

const ROM: &[u8] = b"\x55\xaa firmware";

/// A machine on which `nic.rom` is staged.
fn staged() -> Bench {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    bench.client().stage(&path, Some(sha256(ROM))).unwrap();
    bench
}

#[test]
fn the_device_is_for_drivers_under_any_name() {
    let bench = Bench::start();
    let read = AccessMask::FILE_READ_DATA.bits();
    for path in [r"\Device\FwBroker", r"\Device\FwBroker\", r"\Device\FwBroker\x", r"\device\fwbroker\a\b"] {
        assert_eq!(bench.administrator().open(path, read).err(), Some(NtStatus::ACCESS_DENIED), "{path}");
    }
    drop(bench.machine().open_device(DEVICE_NAME).expect("a driver may"));
    bench.finish();
}

#[test]
fn other_requests_to_the_device_are_refused() {
    let bench = Bench::start();
    let device = bench.machine().open_device(DEVICE_NAME).unwrap();
    let units: Vec<u16> = "nic".encode_utf16().collect();
    let name = UNICODE_STRING::from_utf16(&units).unwrap();
    let query = good_query(&name);
    let mut table = FWBROKER_INTERFACE::EMPTY;
    let good = query_request(&query, &mut table);
    let others = (0..28).filter(|major| ![0, 2, 15, 18].contains(major));
    let others = others.map(|major| KernelRequest { major, ..good });
    let wrong = [KernelRequest { code: good.code + 4, ..good }, KernelRequest { mode: USER_MODE, ..good }];
    for request in others.chain(wrong) {
        let outcome = device.send(&request).unwrap();
        assert_eq!((outcome.Status, outcome.Information), (NtStatus::INVALID_DEVICE_REQUEST, 0), "{request:?}");
    }
    drop(device);
    bench.finish();
}

#[test]
fn a_request_for_the_table_with_wrong_sizes_is_refused() {
    let bench = Bench::start();
    let device = bench.machine().open_device(DEVICE_NAME).unwrap();
    let units: Vec<u16> = "nic".encode_utf16().collect();
    let name = UNICODE_STRING::from_utf16(&units).unwrap();
    let mut table = FWBROKER_INTERFACE::EMPTY;
    let good = good_query(&name);
    let mut refused = |query: &_, change: &dyn Fn(KernelRequest) -> KernelRequest, status| {
        let outcome = device.send(&change(query_request(query, &mut table))).unwrap();
        assert_eq!((outcome.Status, outcome.Information), (status, 0));
        assert!(table.Open.is_none(), "nothing is written");
    };
    for input_length in [0, 1, 3, 4, 23] {
        refused(&good, &|request| KernelRequest { input_length, ..request }, NtStatus::INVALID_PARAMETER);
    }
    for output_length in [0, 1, 63] {
        refused(&good, &|request| KernelRequest { output_length, ..request }, NtStatus::BUFFER_TOO_SMALL);
    }
    refused(&good, &|request| KernelRequest { input: 0, ..request }, NtStatus::INVALID_PARAMETER);
    refused(&good, &|request| KernelRequest { output: 0, ..request }, NtStatus::INVALID_PARAMETER);
    let same = |request| request;
    for version in [0, 2, u16::MAX] {
        let mut query = good;
        query.Version = version;
        refused(&query, &same, NtStatus::REVISION_MISMATCH);
    }
    for size in [0, 23, 25, u16::MAX] {
        let mut query = good;
        query.Size = size;
        refused(&query, &same, NtStatus::INVALID_PARAMETER);
    }
    let strings = [
        UNICODE_STRING { Length: 0, ..name },
        UNICODE_STRING { Length: 5, ..name },
        UNICODE_STRING { Length: 258, MaximumLength: 258, ..name },
        UNICODE_STRING { Length: 6, MaximumLength: 4, ..name },
        UNICODE_STRING { Buffer: std::ptr::null_mut(), ..name },
        UNICODE_STRING { Buffer: name.Buffer.wrapping_byte_add(1), ..name },
    ];
    for string in strings {
        refused(&good_query(&string), &same, NtStatus::INVALID_PARAMETER);
    }
    drop(device);
    bench.finish();
}

#[test]
fn a_table_without_a_handle_keeps_the_driver_loaded() {
    let bench = Bench::start();
    let nic = Consumer::new(&bench, "nic");
    nic.reference(DISPATCH);
    nic.dereference(DISPATCH);
    assert_eq!(bench.unload(), Err(NtStatus::FLT_DO_NOT_DETACH));
    nic.dereference(DISPATCH);
    drop(nic);
    bench.finish();
}

#[test]
fn after_the_last_dereference_the_table_is_dead() {
    let bench = staged();
    let nic = Consumer::new(&bench, "nic");
    let image = nic.open("NIC.ROM").unwrap();
    nic.dereference(PASSIVE);
    assert_eq!(nic.map(image.Handle, PASSIVE), Err(NtStatus::INVALID_HANDLE));
    assert_eq!(nic.unmap(image.Handle, PASSIVE), NtStatus::INVALID_HANDLE);
    assert_eq!(nic.close(image.Handle, DISPATCH), NtStatus::INVALID_HANDLE);
    assert!(nic.open("nic.rom").is_err());
    nic.dereference(PASSIVE);
    nic.reference(PASSIVE);
    drop(nic);
    bench.finish();
}

#[test]
fn mappings_are_counted_and_end_with_the_handle() {
    let bench = staged();
    let nic = Consumer::new(&bench, "nic");
    let image = nic.open("nic.rom").unwrap();
    assert_eq!((image.Length, image.Sha256), (ROM.len() as u64, sha256(ROM)));
    assert_eq!(nic.unmap(image.Handle, PASSIVE), NtStatus::INVALID_DEVICE_STATE);
    let address = nic.map(image.Handle, DISPATCH).unwrap();
    assert_eq!(nic.map(image.Handle, PASSIVE), Ok(address), "every mapping is the same");
    assert_eq!(nic.first_byte(image.Handle), Ok(ROM[0]));
    assert_eq!(nic.unmap(image.Handle, DISPATCH), NtStatus::SUCCESS);
    assert_eq!(nic.unmap(image.Handle, DISPATCH), NtStatus::SUCCESS);
    assert_eq!(nic.unmap(image.Handle, DISPATCH), NtStatus::INVALID_DEVICE_STATE, "never below zero");
    nic.map(image.Handle, DISPATCH).unwrap();
    assert_eq!(nic.close(image.Handle, DISPATCH), NtStatus::SUCCESS, "mapped or not");
    assert_eq!(nic.close(image.Handle, DISPATCH), NtStatus::INVALID_HANDLE);
    nic.dereference(DISPATCH);
    drop(nic);
    bench.finish();
}

#[test]
fn a_handle_is_no_use_to_another_consumer_or_client() {
    let bench = staged();
    let (owner, thief) = (Consumer::new(&bench, "owner"), Consumer::new(&bench, "owner"));
    let client = bench.client();
    let handle = owner.open("nic.rom").unwrap().Handle;
    assert_eq!(thief.map(handle, PASSIVE), Err(NtStatus::INVALID_HANDLE));
    assert_eq!(thief.unmap(handle, PASSIVE), NtStatus::INVALID_HANDLE);
    assert_eq!(thief.close(handle, PASSIVE), NtStatus::INVALID_HANDLE);
    assert_eq!(client.close(handle).unwrap_err().status, NtStatus::INVALID_HANDLE);
    thief.dereference(PASSIVE);
    assert!(owner.map(handle, PASSIVE).is_ok(), "the end of another is no end of this one");
    owner.dereference(PASSIVE);
    drop((owner, thief, client));
    bench.finish();
}

#[test]
fn a_held_image_cannot_be_unstaged_and_a_new_version_leaves_it_alone() {
    let bench = staged();
    let client = bench.client();
    let nic = Consumer::new(&bench, "nic");
    let old = nic.open("nic.rom").unwrap();
    nic.map(old.Handle, PASSIVE).unwrap();
    let id = client.list().unwrap()[0].image_id;
    assert_eq!(client.unstage(id).unwrap_err().status, NtStatus::DEVICE_BUSY);
    let next: &[u8] = b"version two";
    let path = bench.write_firmware("nic.rom", next);
    client.stage(&path, Some(sha256(next))).unwrap();
    assert_eq!(nic.first_byte(old.Handle), Ok(ROM[0]), "who has the old one keeps it");
    assert_eq!(nic.open("nic.rom").unwrap().Sha256, sha256(next));
    nic.dereference(PASSIVE);
    drop((nic, client));
    bench.finish();
}

#[test]
fn an_open_with_wrong_arguments_is_refused() {
    let bench = staged();
    let nic = Consumer::new(&bench, "nic");
    let any = ANY_ADDRESS;
    assert_eq!(nic.open_raw(None, any, None, PASSIVE).err(), Some(NtStatus::INVALID_PARAMETER));
    let units: Vec<u16> = "nic.rom".encode_utf16().collect();
    let name = UNICODE_STRING::from_utf16(&units).unwrap();
    for string in [
        UNICODE_STRING { Length: 0, ..name },
        UNICODE_STRING { Length: 3, ..name },
        UNICODE_STRING { Length: 514, ..name },
        UNICODE_STRING { Buffer: std::ptr::null_mut(), ..name },
    ] {
        let refused = nic.open_raw(Some(&string), any, None, PASSIVE).err();
        assert_eq!(refused, Some(NtStatus::OBJECT_NAME_INVALID));
    }
    let refused = nic.open_raw(Some(&name), any, None, DISPATCH).err();
    assert_eq!(refused, Some(NtStatus::INVALID_DEVICE_STATE), "it would have to wait");
    let good = parameters(0);
    for wrong in [
        FWBROKER_OPEN_PARAMETERS { Size: 15, ..good },
        FWBROKER_OPEN_PARAMETERS { Version: 2, ..good },
        FWBROKER_OPEN_PARAMETERS { Flags: 1, ..good },
        FWBROKER_OPEN_PARAMETERS { Reserved: 1, ..good },
    ] {
        assert_eq!(nic.open_with("nic.rom", any, Some(&wrong)).err(), Some(NtStatus::INVALID_PARAMETER));
    }
    for outside in [r"..\nic.rom", r"\nic.rom", r"C:\nic.rom", "nic.rom:x", "*", "nic.rom "] {
        assert!(nic.open(outside).is_err(), "{outside}");
    }
    assert!(nic.open_with("nic.rom", any, Some(&parameters(u32::MAX))).is_ok());
    nic.dereference(PASSIVE);
    drop(nic);
    bench.finish();
}

fn parameters(milliseconds: u32) -> FWBROKER_OPEN_PARAMETERS {
    FWBROKER_OPEN_PARAMETERS {
        Size: 16,
        Version: FWBROKER_INTERFACE_VERSION_1,
        Flags: 0,
        TimeoutMilliseconds: milliseconds,
        Reserved: 0,
    }
}

#[test]
fn a_device_that_reaches_less_memory_gets_its_own_copy() {
    let bench = staged();
    let nic = Consumer::new(&bench, "nic");
    let low = nic.open_with("nic.rom", 0xFFFF_FFFF, None).unwrap();
    let any = nic.open("nic.rom").unwrap();
    assert_eq!((low.Sha256, any.Sha256), (sha256(ROM), sha256(ROM)));
    let nowhere = nic.open_with("nic.rom", 0, None).err();
    assert_eq!(nowhere, Some(NtStatus::INSUFFICIENT_RESOURCES), "no page lies below its own size");
    assert!(nic.open("nic.rom").is_ok(), "that failure was one consumer's alone");
    nic.dereference(PASSIVE);
    drop(nic);
    bench.finish();
}

#[test]
fn tables_are_limited_and_given_back() {
    let bench = Bench::start();
    let nics: Vec<_> = (0..128).map(|number| Consumer::new(&bench, &format!("nic{number}"))).collect();
    assert_eq!(Consumer::try_new(&bench, "more").err(), Some(NtStatus::INSUFFICIENT_RESOURCES));
    nics[0].dereference(PASSIVE);
    let next = Consumer::new(&bench, &"x".repeat(128));
    next.dereference(PASSIVE);
    for nic in &nics[1..] {
        nic.dereference(PASSIVE);
    }
    drop((next, nics));
    bench.finish();
}

#[test]
fn an_unload_that_is_refused_loses_nobodys_dereference() {
    let bench = Bench::with_parameters(&[("Policy", Policy::Unsigned.code())]);
    bench.write_firmware("nic.rom", ROM);
    // Keeps the driver loaded, whatever the others do.
    let anchor = Consumer::new(&bench, "anchor");
    std::thread::scope(|scope| {
        let busy: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..300 {
                        // The door may be shut for the moment that an unload looks twice.
                        let Ok(nic) = Consumer::try_new(&bench, "nic") else { continue };
                        if let Ok(image) = nic.open("nic.rom") {
                            nic.map(image.Handle, DISPATCH).expect("an open handle");
                            assert_eq!(nic.unmap(image.Handle, DISPATCH), NtStatus::SUCCESS);
                            assert_eq!(nic.close(image.Handle, DISPATCH), NtStatus::SUCCESS);
                        }
                        nic.dereference(DISPATCH);
                    }
                })
            })
            .collect();
        while busy.iter().any(|thread| !thread.is_finished()) {
            assert_eq!(bench.unload(), Err(NtStatus::FLT_DO_NOT_DETACH));
        }
    });
    anchor.dereference(PASSIVE);
    drop(anchor);
    bench.finish();
}
