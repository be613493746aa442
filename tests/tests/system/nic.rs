//! Firmware reaches a NIC driver: the main job, both ways.

use fwbroker_tests::{Bench, BootReport, Nic, Source, sha256};
use nt_types::{AccessMask, NtStatus};

/// What samplenic.sys prints when there is no image: `NDIS_STATUS_FILE_NOT_FOUND`, whichever way it asked.
const NOT_FOUND: &str = "the firmware cannot be opened (0xC001001B)";

/// An option ROM: signature, length in 512-byte blocks, a PCI data structure, and bytes.
fn rom(blocks: u8) -> Vec<u8> {
    let mut rom = vec![0x5a; usize::from(blocks) * 512];
    rom[..3].copy_from_slice(&[0x55, 0xaa, blocks]);
    rom[0x18..0x1a].copy_from_slice(&[0x20, 0]);
    rom[0x20..0x24].copy_from_slice(b"PCIR");
    rom
}

/// Plugs in a NIC that must not start, for the reason that its driver prints.
fn does_not_start(bench: &Bench, firmware: &str, reason: &str) {
    let refused = Nic::add(bench, firmware).expect_err("the NIC must not start");
    assert!(refused.status().is_some(), "no finding: {refused}");
    assert!(bench.log().contains(reason), "the driver said: {}", bench.log());
}

#[test]
fn a_staged_image_boots_the_nic() {
    let bench = Bench::start();
    let content = rom(16);
    let path = bench.write_firmware("8086100e.rom", &content);
    let client = bench.client();
    client.stage(&path, Some(sha256(&content))).unwrap();
    let nic = Nic::add(&bench, "8086100e.rom").expect("the NIC starts");
    assert_eq!(nic.boot_report(), BootReport::of(&content, Source::Broker));
    assert!(bench.traced("IofCallDriver"), "through the broker's device");
    assert!(!bench.traced("NdisOpenFile"), "and not the old way");
    let listed = &client.list().unwrap()[0];
    assert!(listed.handed_to.contains("samplenic"), "{listed:?}");
    nic.remove();
    drop(client);
    bench.finish();
}

#[test]
fn without_the_broker_the_nic_takes_the_documented_old_way() {
    let bench = Bench::without_broker();
    let content = rom(8);
    bench.write_file("Windows/System32/drivers/8086100e.rom", &content);
    let nic = Nic::add(&bench, "8086100e.rom").expect("the NIC starts");
    assert_eq!(nic.boot_report(), BootReport::of(&content, Source::NdisOpenFile));
    for ddi in ["NdisOpenFile", "NdisMapFile", "NdisUnmapFile", "NdisCloseFile"] {
        assert!(bench.traced(ddi), "{ddi}");
    }
    nic.remove();
    bench.finish_unloaded();
}

#[test]
fn a_nic_without_its_image_fails_to_initialise_and_leaves_nothing() {
    let bench = Bench::start();
    does_not_start(&bench, "none.rom", NOT_FOUND);
    assert!(!bench.traced("NdisOpenFile"), "the broker has spoken");
    bench.finish();
}

#[test]
fn a_nic_without_broker_and_file_fails_to_initialise_and_leaves_nothing() {
    let bench = Bench::without_broker();
    does_not_start(&bench, "none.rom", NOT_FOUND);
    bench.finish_unloaded();
}

#[test]
fn the_digest_policy_hands_out_no_image_that_nobody_staged() {
    let bench = Bench::start();
    bench.write_firmware("8086100e.rom", &rom(4));
    does_not_start(&bench, "8086100e.rom", NOT_FOUND);
    bench.finish();
}

#[test]
fn the_unsigned_policy_finds_an_image_on_demand() {
    let bench = Bench::with_parameters(&[("Policy", protocol::Policy::Unsigned.code())]);
    let content = rom(4);
    bench.write_firmware("8086100e.rom", &content);
    let nic = Nic::add(&bench, "8086100e.rom").expect("found under the root");
    assert_eq!(nic.boot_report(), BootReport::of(&content, Source::Broker));
    nic.remove();
    bench.finish();
}

#[test]
fn a_file_that_is_no_option_rom_or_blob_of_the_nic_is_not_booted() {
    let bench = Bench::start();
    let mut content = rom(4);
    content[2] = 9; // the header promises more blocks than there are
    let path = bench.write_firmware("8086100e.rom", &content);
    let client = bench.client();
    client.stage(&path, Some(sha256(&content))).unwrap();
    does_not_start(&bench, "8086100e.rom", "malformed");
    drop(client);
    bench.finish();
}

#[test]
fn user_programs_cannot_open_the_brokers_device() {
    let bench = Bench::start();
    let read = AccessMask::FILE_READ_DATA.bits();
    assert_eq!(bench.administrator().open(r"\Device\FwBroker", read).err(), Some(NtStatus::ACCESS_DENIED));
    bench.finish();
}
