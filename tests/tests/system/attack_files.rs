//! Names that lead somewhere else, and files that change under the broker's feet.

use fwbroker_tests::{Bench, Refused, sha256};
use kernel_host::OpenOptions;
use kernel_host::registry::Value;
use nt_types::{AccessMask, NtStatus};
use protocol::{Policy, Reason};

const ROM: &[u8] = b"\x55\xaa firmware";
const OUTSIDE: Refused = Refused::with(NtStatus::ACCESS_DENIED, Reason::NameOutsideRoots);

fn link(bench: &Bench, from: &str, to: &str) {
    // Relative, so that it means the same on the host and in the machine.
    std::os::unix::fs::symlink(to, bench.firmware_dir().join(from)).unwrap();
}

#[test]
fn a_folder_that_leads_out_of_the_root_is_no_way_out() {
    let bench = Bench::start();
    bench.write_file("Secret/key.bin", ROM);
    link(&bench, "out", "../../Secret");
    let client = bench.client();
    assert_eq!(client.open(r"\??\C:\Windows\Firmware\out\key.bin"), Err(OUTSIDE));
    assert_eq!(client.open(r"\SystemRoot\Firmware\out\key.bin"), Err(OUTSIDE));
    drop(client);
    bench.finish();
}

#[test]
fn a_folder_that_leads_into_the_root_is_a_way_in() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    bench.write_file("Other/unused", b"x");
    link(&bench, "../../Other/in", "../Windows/Firmware");
    let client = bench.client();
    client.stage(&path, Some(sha256(ROM))).unwrap();
    let again = client.stage(r"\??\C:\Other\in\nic.rom", Some(sha256(ROM))).unwrap();
    assert!(again.shared, "what counts is where the name leads");
    drop(client);
    bench.finish();
}

#[test]
fn a_root_may_be_a_link_and_may_come_late() {
    let bench = Bench::with_values(&[("FirmwareRoots", Value::list(&[r"\??\C:\Late"]))]);
    bench.write_file("Real/nic.rom", ROM);
    let client = bench.client();
    assert_eq!(client.open(r"\??\C:\Real\nic.rom"), Err(OUTSIDE));
    link(&bench, "../../Late", "Real");
    assert!(client.open(r"\??\C:\Late\nic.rom").is_ok());
    assert!(client.open(r"\??\C:\Real\nic.rom").is_ok(), "the root is where the link leads");
    drop(client);
    bench.finish();
}

#[test]
fn case_makes_no_difference_and_images_are_the_same() {
    let bench = Bench::start();
    bench.write_firmware("Nic.rom", ROM);
    let client = bench.client();
    let paths =
        [r"\??\C:\Windows\Firmware\Nic.rom", r"\??\c:\WINDOWS\firmware\NIC.ROM", r"\systemroot\FIRMWARE\nic.Rom"];
    let ids = paths.map(|path| client.stage(path, Some(sha256(ROM))).unwrap().image_id);
    assert_eq!(ids, [ids[0]; 3]);
    drop(client);
    bench.finish();
}

#[test]
fn a_second_name_of_a_file_counts_for_what_it_is() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let inside = bench.firmware_dir().join("nic.rom");
    std::fs::hard_link(&inside, bench.firmware_dir().join("../outside.rom")).unwrap();
    let client = bench.client();
    assert_eq!(client.open(r"\??\C:\Windows\outside.rom"), Err(OUTSIDE), "the same file by a name outside");
    assert_eq!(client.open(&path).map(|open| open.size), Ok(ROM.len() as u64));
    drop(client);
    bench.finish();
}

#[test]
fn an_open_file_can_be_neither_renamed_nor_deleted_nor_cut() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    let program = bench.administrator();
    for access in [AccessMask::DELETE, AccessMask::FILE_WRITE_DATA] {
        let refused = program.create_file(&path, &OpenOptions::new().access(access)).err();
        assert_eq!(refused, Some(NtStatus::SHARING_VIOLATION), "{access:?}");
    }
    assert_eq!(client.read_all(handle, 5), ROM);
    drop((client, program));
    bench.finish();
}

#[test]
fn a_file_rewritten_at_once_is_read_again_for_its_new_digest() {
    let bench = Bench::start();
    let client = bench.client();
    for round in 0..20_u8 {
        // Same file, same length, and often the same time stamp.
        let content = [round; 64];
        let path = bench.write_firmware("nic.rom", &content);
        let staged = client.stage(&path, Some(sha256(&content))).unwrap();
        assert_eq!(staged.sha256, sha256(&content), "round {round}");
    }
    drop(client);
    bench.finish();
}

#[test]
fn a_mapped_view_that_outlives_its_handle_keeps_the_file_from_being_staged() {
    let bench = Bench::with_parameters(&[("Policy", Policy::Unsigned.code())]);
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let view = bench.map_writable(&path);
    let refused = client.stage(&path, None).map(|staged| staged.image_id);
    assert_eq!(refused, Err(Refused::with(NtStatus::SHARING_VIOLATION, Reason::FileWritablyMapped)));
    view.store(0, b"changed").unwrap();
    drop(view);
    assert_eq!(client.stage(&path, None).unwrap().sha256, sha256(b"changedware"));
    drop(client);
    bench.finish();
}
