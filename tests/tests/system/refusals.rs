//! Files that are no firmware files, and names that lead elsewhere: each is refused with its own status.

use fwbroker_tests::{Bench, Refused};
use nt_types::NtStatus;
use protocol::Reason;

const ROM: &[u8] = b"\x55\xaa some firmware";

/// Opens `path` on a machine that has one good firmware file, and expects a refusal.
fn open_is_refused(path: &str, status: NtStatus, reason: Reason) {
    let bench = Bench::start();
    bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    assert_eq!(client.open(path).map(|open| open.size), Err(Refused::with(status, reason)), "{path}");
    let digest = fwbroker_tests::sha256(ROM);
    assert_eq!(
        client.stage(path, Some(digest)).map(|stage| stage.size),
        Err(Refused::with(status, reason)),
        "staging {path}"
    );
    drop(client);
    bench.finish();
}

#[test]
fn a_missing_file_is_refused() {
    open_is_refused(r"\??\C:\Windows\Firmware\none.rom", NtStatus::OBJECT_NAME_NOT_FOUND, Reason::FileNotFound);
}

#[test]
fn a_missing_folder_is_refused() {
    open_is_refused(r"\??\C:\Windows\Firmware\none\good.rom", NtStatus::OBJECT_PATH_NOT_FOUND, Reason::PathNotFound);
}

#[test]
fn a_directory_is_refused() {
    let bench = Bench::start();
    std::fs::create_dir(bench.firmware_dir().join("folder.rom")).unwrap();
    let client = bench.client();
    assert_eq!(
        client.open(r"\??\C:\Windows\Firmware\folder.rom"),
        Err(Refused::with(NtStatus::FILE_IS_A_DIRECTORY, Reason::FileIsDirectory))
    );
    drop(client);
    bench.finish();
}

#[test]
fn an_empty_file_is_refused() {
    let bench = Bench::start();
    let path = bench.write_firmware("empty.rom", b"");
    let client = bench.client();
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::FILE_INVALID, Reason::FileEmpty)));
    drop(client);
    bench.finish();
}

#[test]
fn a_file_above_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let bench = Bench::with_parameters(&[("MaxImageBytes", 4096)]);
    let at_limit = bench.write_firmware("at.rom", &[0x5a; 4096]);
    let above = bench.write_firmware("above.rom", &[0x5a; 4097]);
    let client = bench.client();
    assert_eq!(client.limits().max_image_bytes, 4096);
    assert_eq!(client.open(&above), Err(Refused::with(NtStatus::FILE_TOO_LARGE, Reason::FileTooLarge)));
    assert_eq!(client.open(&at_limit).map(|open| open.size), Ok(4096));
    drop(client);
    bench.finish();
}

#[test]
fn parent_components_are_refused_in_any_spelling() {
    for path in [
        r"\??\C:\Windows\Firmware\..\Firmware\good.rom",
        r"\??\C:\Windows\Firmware\.\good.rom",
        r"\??\C:\Windows\Firmware\..\..\..\etc\passwd",
        r"\??\C:\..\Windows\Firmware\good.rom",
        r"\??\C:\Windows\Firmware\x\..",
        r"\SystemRoot\..\Windows\Firmware\good.rom",
    ] {
        open_is_refused(path, NtStatus::OBJECT_PATH_INVALID, Reason::NameParentDirectory);
    }
    let bench = Bench::start();
    bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    for path in [
        r"\??\C:\Windows\Firmware\.. \good.rom",
        r"\??\C:\Windows\Firmware\..  .\good.rom",
        r"\??\C:\Windows\Firmware\...\good.rom",
        r"\??\C:\Windows\Firmware/../Firmware/good.rom",
        r"\??\C:\Windows\Firmware\good.rom.",
        r"\??\C:\Windows\Firmware\good.rom ",
        r"\??\C:\Windows\\Firmware\good.rom",
    ] {
        let refused = client.open(path).expect_err(path);
        assert!(!refused.status.is_success(), "{path}: {refused:?}");
    }
    drop(client);
    bench.finish();
}

#[test]
fn alternate_streams_are_refused() {
    for path in [
        r"\??\C:\Windows\Firmware\good.rom:stream",
        r"\??\C:\Windows\Firmware\good.rom::$DATA",
        r"\??\C:\Windows\Firmware:stream",
        r"\??\C:\Windows\Firmware\:$INDEX_ALLOCATION",
    ] {
        open_is_refused(path, NtStatus::OBJECT_NAME_INVALID, Reason::NameStream);
    }
}

#[test]
fn device_paths_are_refused() {
    for path in [
        r"\Device\HarddiskVolume1\Windows\Firmware\good.rom",
        r"\Device\Harddisk0\DR0",
        r"\Device\FwBroker",
        r"\??\GLOBALROOT\Device\HarddiskVolume1\Windows\Firmware\good.rom",
        r"\??\PhysicalDrive0",
        r"\??\pipe\x",
        r"\\.\PhysicalDrive0",
    ] {
        open_is_refused(path, NtStatus::OBJECT_PATH_INVALID, Reason::NameDevice);
    }
}

#[test]
fn network_paths_are_refused() {
    for path in [
        r"\\server\share\good.rom",
        r"\??\UNC\server\share\good.rom",
        r"\Device\Mup\server\share\good.rom",
        r"\DosDevices\UNC\server\share\good.rom",
    ] {
        open_is_refused(path, NtStatus::OBJECT_PATH_INVALID, Reason::NameNetwork);
    }
}

#[test]
fn a_path_outside_the_allowed_roots_is_refused() {
    let bench = Bench::start();
    bench.write_file("Windows/win.ini", b"[fonts]");
    bench.write_file("Windows/FirmwareOther/good.rom", ROM);
    let client = bench.client();
    for path in [r"\??\C:\Windows\win.ini", r"\??\C:\Windows\FirmwareOther\good.rom", r"\SystemRoot\win.ini"] {
        assert_eq!(client.open(path), Err(Refused::with(NtStatus::ACCESS_DENIED, Reason::NameOutsideRoots)), "{path}");
    }
    drop(client);
    bench.finish();
}

#[test]
fn the_name_of_a_volume_or_folder_alone_is_refused() {
    for path in [r"\??\C:", r"\??\C:\", r"\??\C:\Windows\Firmware\"] {
        open_is_refused(path, NtStatus::OBJECT_NAME_INVALID, Reason::NameNoFile);
    }
}

#[test]
fn an_empty_name_is_refused() {
    open_is_refused("", NtStatus::OBJECT_NAME_INVALID, Reason::NameEmpty);
}

#[test]
fn a_relative_name_is_refused() {
    open_is_refused(r"Firmware\good.rom", NtStatus::OBJECT_PATH_SYNTAX_BAD, Reason::NameNotAbsolute);
}

#[test]
fn a_name_above_32767_characters_is_refused() {
    let bench = Bench::start();
    let client = bench.client();
    let path = format!(r"\??\C:\Windows\Firmware\{}", "a".repeat(32_767));
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::NAME_TOO_LONG, Reason::NameTooLong)));
    drop(client);
    bench.finish();
}

#[test]
fn wildcards_and_control_characters_are_refused() {
    for path in
        [r"\??\C:\Windows\Firmware\*.rom", r"\??\C:\Windows\Firmware\goo?.rom", r#"\??\C:\Windows\Firmware\good".rom"#]
    {
        open_is_refused(path, NtStatus::OBJECT_NAME_INVALID, Reason::NameWildcard);
    }
    for path in ["\\??\\C:\\Windows\\Firmware\\good.rom\0", "\\??\\C:\\Windows\\Firmware\\go\x01od.rom"] {
        open_is_refused(path, NtStatus::OBJECT_NAME_INVALID, Reason::NameBadCharacter);
    }
}

#[test]
fn a_link_is_refused_even_when_it_leads_to_a_good_file() {
    let bench = Bench::start();
    bench.write_firmware("good.rom", ROM);
    std::os::unix::fs::symlink("good.rom", bench.firmware_dir().join("link.rom")).unwrap();
    let client = bench.client();
    assert_eq!(
        client.open(r"\??\C:\Windows\Firmware\link.rom"),
        Err(Refused::with(NtStatus::STOPPED_ON_SYMLINK, Reason::FileReparsePoint))
    );
    drop(client);
    bench.finish();
}

#[test]
fn a_file_that_somebody_is_writing_is_refused() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let writer = bench.writer(&path);
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::SHARING_VIOLATION, Reason::FileSharingViolation)));
    drop(writer);
    assert!(client.open(&path).is_ok());
    drop(client);
    bench.finish();
}

#[test]
fn while_the_broker_has_a_file_open_nobody_can_write_it() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let open = client.open(&path).unwrap();
    assert_eq!(bench.try_writer(&path).err(), Some(NtStatus::SHARING_VIOLATION));
    client.close(open.handle).unwrap();
    assert!(bench.try_writer(&path).is_ok());
    drop(client);
    bench.finish();
}

#[test]
fn a_file_that_is_mapped_for_writing_is_refused() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let view = bench.map_writable(&path);
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::SHARING_VIOLATION, Reason::FileWritablyMapped)));
    drop(view);
    drop(client);
    bench.finish();
}
