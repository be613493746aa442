//! The programs as an operator runs them: `kernel-host run` in one process, `fwbctl` in others, a socket between them.

use fwbroker_tests::programs::{Fwbctl, Host};
use serde_json::json;

#[test]
fn an_operator_loads_stages_lists_reads_publishes_and_unloads() {
    let host = Host::start();
    let content: Vec<u8> = (0..70_000u32).map(|at| (at * 13) as u8).collect();
    host.write_file("Windows/Firmware/nic.rom", &content);
    let fwbctl = Fwbctl::new(&host);

    let status = fwbctl.ok(&["status"]);
    assert_eq!(status["driver"]["policy"], "digest");

    let staged = fwbctl.ok(&["stage", r"C:\Windows\Firmware\nic.rom"]);
    let digest = fwbroker_tests::hex(&fwbroker_tests::sha256(&content));
    assert_eq!(staged["images"][0]["sha256"], json!(digest));

    let list = fwbctl.ok(&["list"]);
    assert_eq!(list["images"].as_array().map(Vec::len), Some(1));

    let copy = host.folder().join("copy.rom");
    fwbctl.ok(&["read", r"C:\Windows\Firmware\nic.rom", "-o", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(&copy).unwrap(), content);

    fwbctl.ok(&["publish", r"C:\Windows\Firmware\nic.rom"]);
    let published = host.folder().join("Windows/System32/drivers/nic.rom");
    assert_eq!(std::fs::read(published).unwrap(), content);

    fwbctl.ok(&["unstage", r"C:\Windows\Firmware\nic.rom"]);
    fwbctl.ok(&["unload"]);
    assert_eq!(fwbctl.exit_code(&["list"]), 3, "there is nobody to ask");
    fwbctl.ok(&["load"]);
    assert_eq!(fwbctl.ok(&["list"])["images"], json!([]));
    fwbctl.ok(&["unload"]);
    host.stop_clean();
}

#[test]
fn a_part_of_a_file_can_be_read() {
    let host = Host::start();
    host.write_file("Windows/Firmware/nic.rom", b"0123456789");
    let fwbctl = Fwbctl::new(&host);
    let part = host.folder().join("part");
    let path = r"C:\Windows\Firmware\nic.rom";
    fwbctl.ok(&["read", path, "--offset", "3", "--length", "4", "-o", part.to_str().unwrap()]);
    assert_eq!(std::fs::read(part).unwrap(), b"3456");
    fwbctl.ok(&["unload"]);
    host.stop_clean();
}

#[test]
fn a_refusal_says_what_failed_why_and_what_next_and_exits_with_1() {
    let host = Host::start();
    let fwbctl = Fwbctl::new(&host);
    let error = fwbctl.refused(&["read", r"C:\Windows\Firmware\none.rom", "-o", "/dev/null"]);
    assert_eq!(error["reason"], "FileNotFound");
    assert_eq!(error["status_name"], "STATUS_OBJECT_NAME_NOT_FOUND");
    assert!(error["message"].as_str().unwrap().contains("none.rom"));
    assert!(!error["next"].as_str().unwrap().is_empty());
    fwbctl.ok(&["unload"]);
    host.stop_clean();
}

#[test]
fn an_operator_sees_who_holds_a_file_and_takes_it_away() {
    let host = Host::start();
    host.write_file("Windows/Firmware/nic.rom", &vec![7; 3 << 20]);
    let fwbctl = Fwbctl::new(&host);
    assert_eq!(fwbctl.ok(&["handles"])["handles"], json!([]));
    // Whoever writes to a pipe that nobody reads waits, with the file open in the driver.
    let pipe = host.folder().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let mut holder = fwbctl.spawn(&["read", r"C:\Windows\Firmware\nic.rom", "-o", pipe.to_str().unwrap()]);
    let held = loop {
        let list = fwbctl.ok(&["handles"]);
        if let Some(held) = list["handles"].get(0) {
            break held.clone();
        }
        assert_eq!(holder.try_wait().unwrap(), None, "it waits for the pipe");
    };
    assert_eq!((&held["kind"], &held["bytes"]), (&json!("file"), &json!(3 << 20)));
    assert!(held["name"].as_str().unwrap().ends_with(r"\Windows\Firmware\nic.rom"), "{held}");
    assert!(held["owner"].as_str().unwrap().contains("fwbctl"), "{held}");
    let sessions = fwbctl.ok(&["sessions"]);
    let owner = sessions["sessions"].as_array().unwrap().iter().find(|session| session["session"] == held["session"]);
    assert_eq!(owner.map(|session| &session["handles"]["used"]), Some(&json!(1)), "{sessions}");
    assert_eq!(fwbctl.refused(&["unload"])["status"], "0x801F0010", "{sessions}");
    let number = held["handle"].as_str().unwrap();
    assert_eq!(fwbctl.ok(&["handles", "--revoke", number])["revoked"], json!({"handles": 1, "kept": 0}));
    assert_eq!(fwbctl.refused(&["handles", "--revoke", number])["reason"], "HandleNotFound");
    assert_eq!(fwbctl.refused(&["handles", "--revoke-owner", "99999999"])["reason"], "SessionNotFound");
    // Now it may write, but there is nothing left that it could read.
    drop(std::fs::File::open(&pipe).unwrap());
    assert_eq!(holder.wait().unwrap().code(), Some(1));
    fwbctl.unload_when_free();
    host.stop_clean();
}

#[test]
fn loading_twice_is_refused() {
    let host = Host::start();
    let fwbctl = Fwbctl::new(&host);
    fwbctl.refused(&["load"]);
    fwbctl.ok(&["unload"]);
    host.stop_clean();
}

#[test]
fn a_client_that_is_killed_leaves_nothing_behind() {
    let host = Host::start();
    host.write_file("Windows/Firmware/big.rom", &vec![1; 8 << 20]);
    let fwbctl = Fwbctl::new(&host);
    for _ in 0..5 {
        let mut reader = fwbctl.spawn(&["read", r"C:\Windows\Firmware\big.rom", "-o", "/dev/null"]);
        std::thread::sleep(std::time::Duration::from_millis(5));
        // It may have finished by itself: then there is nothing to kill.
        let _ = reader.kill();
        reader.wait().unwrap();
    }
    fwbctl.unload_when_free();
    host.stop_clean();
}
