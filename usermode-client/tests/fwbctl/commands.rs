//! What each command prints, and with which code it ends, for answers that a driver can give.

use std::fs;

use crate::fake::{Fake, State};
use fwbctl::{Error, Hasher};
use serde_json::{Value, json};

const FILE: &str = r"C:\Firmware\nic.rom";
const NT_FILE: &str = r"\??\C:\Firmware\nic.rom";

fn image() -> Vec<u8> {
    (0..3 * State::PIECE + 7).map(|at| at as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish().to_string()
}

fn fake() -> Fake {
    Fake::with_file(NT_FILE, &image())
}

#[test]
fn read_returns_the_bytes_in_pieces_and_closes_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let fake = fake();
    let (code, json) = fake.json(&["read", FILE, "-o", output.to_str().unwrap()]);
    assert_eq!((code, &json["bytes"]), (0, &json!(image().len())));
    assert_eq!(json["sha256"], sha256(&image()));
    assert_eq!(fs::read(output).unwrap(), image());
    assert!(fake.0.borrow().handles.is_empty());
}

#[test]
fn offset_and_length_cut_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let read = |offset: &str, length: &str| {
        let output = output.to_str().unwrap();
        let args = ["read", FILE, "--offset", offset, "--length", length, "-o", output];
        assert_eq!(fake().run(&args).0, 0);
        fs::read(output).unwrap()
    };
    assert_eq!(read("5", "1500"), image()[5..1505]);
    assert_eq!(read("3000", "99999"), image()[3000..]);
    assert_eq!(read("99999", "1"), b"");
}

#[test]
fn read_to_standard_output_prints_nothing_but_the_bytes() {
    let fake = Fake::with_file(NT_FILE, b"firmware");
    assert_eq!(fake.run(&["read", FILE]), (0, "firmware".into(), String::new()));
    assert_eq!(fake.json(&["read", FILE]).0, 2);
}

#[test]
fn a_refused_file_does_not_cost_an_output_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("precious");
    fs::write(&output, "old").unwrap();
    let args = ["read", r"C:\Firmware\none", "-o", output.to_str().unwrap()];
    assert_eq!(fake().run(&args).0, 1);
    assert_eq!(fs::read(&output).unwrap(), b"old");
}

#[test]
fn stage_computes_the_digest_unless_told_otherwise() {
    let fake = fake();
    // On Windows the digest comes from a local file, which there is none of here.
    if cfg!(unix) {
        let (code, json) = fake.json(&["stage", FILE]);
        assert_eq!((code, &json["images"][0]["digest"]), (0, &json!("computed")));
    }
    let (code, json) = fake.json(&["stage", FILE, "--sha256", &sha256(&image())]);
    assert_eq!((code, &json["images"][0]["digest"]), (0, &json!("given")));
    assert_eq!(json["images"][0]["shared"], json!(cfg!(unix)));

    let (code, json) = fake.json(&["stage", FILE, "--no-digest"]);
    assert_eq!((code, &json["error"]["reason"]), (1, &json!("DigestRequired")));
}

#[test]
fn a_wrong_digest_is_told_with_phase_reason_and_next_step() {
    let (code, json) = fake().json(&["stage", FILE, "--sha256", &"0".repeat(64)]);
    assert_eq!(code, 1);
    assert_eq!(json["error"]["status"], "0xC0000428");
    assert_eq!(json["error"]["status_name"], "STATUS_INVALID_IMAGE_HASH");
    assert_eq!(json["error"]["reason"], "DigestMismatch");
    assert_eq!(json["error"]["phase"], "verifying");
    assert_eq!(json["images"], json!([]));
}

#[cfg(unix)]
#[test]
fn the_first_refusal_ends_stage_and_what_was_done_is_shown() {
    let fake = fake();
    let (code, json) = fake.json(&["stage", FILE, r"C:\Firmware\none", FILE]);
    assert_eq!((code, json["images"].as_array().unwrap().len()), (1, 1));
    assert_eq!(json["error"]["reason"], "FileNotFound");
    let (code, out, err) = fake.run(&["stage", FILE, r"C:\Firmware\none"]);
    assert_eq!(code, 1);
    assert!(out.contains("was there already") && err.contains("  next:   check the path"), "{err}");
}

#[test]
fn one_digest_cannot_be_that_of_two_files() {
    let (code, _, err) = fake().run(&["stage", FILE, FILE, "--sha256", &"0".repeat(64)]);
    assert_eq!(code, 2);
    assert!(err.contains("one by one"), "{err}");
}

#[test]
fn list_follows_the_cursor_and_unstage_takes_numbers_and_names() {
    let fake = fake();
    let names = [r"\??\C:\Firmware\a", r"\??\C:\Firmware\b", r"\??\C:\Firmware\c"];
    let images = names.iter().zip(1..).map(|(name, id)| (id, (*name).into(), vec![0; 5]));
    fake.0.borrow_mut().images = images.collect();
    let (_, json) = fake.json(&["list"]);
    assert_eq!(json["images"].as_array().unwrap().len(), 3);
    assert_eq!(json["images"][2]["name"], r"C:\Firmware\c");
    assert_eq!(fake.json(&["unstage", "2"]).1["image"], json!({"image_id": 2, "size": 5}));
    assert_eq!(fake.json(&["unstage", r"C:\Firmware\c"]).1["image"]["image_id"], 3);
    assert_eq!(fake.json(&["unstage", "2"]).1["error"]["reason"], "ImageNotFound");
    assert_eq!(fake.json(&["unstage", "0"]).0, 2);
    let (_, table, _) = fake.run(&["list"]);
    assert_eq!(table.lines().count(), 2, "{table}");
}

/// A driver with handles 1 to 3 open, which it lists as 1001 to 1003.
fn fake_with_handles() -> Fake {
    let fake = fake();
    fake.0.borrow_mut().handles = (1..=3).map(|handle| (handle, NT_FILE.to_owned())).collect();
    fake
}

#[test]
fn handles_follow_the_cursor_over_empty_pages_and_can_be_filtered() {
    let fake = fake_with_handles();
    let (code, json) = fake.json(&["handles"]);
    let numbers: Vec<_> =
        json["handles"].as_array().unwrap().iter().map(|handle| handle["handle"].as_str().unwrap()).collect();
    assert_eq!((code, numbers), (0, vec!["0x00000000000003e9", "0x00000000000003ea", "0x00000000000003eb"]));
    assert_eq!(json["handles"][0]["name"], FILE);
    assert_eq!(json["handles"][0]["phase"], "in-use");
    for (filter, count) in [("--owner=4711", 3), ("--owner=5", 0), ("--session=7", 3), ("--session=8", 0)] {
        assert_eq!(fake.json(&["handles", filter]).1["handles"].as_array().unwrap().len(), count, "{filter}");
    }
    let (_, table, _) = fake.run(&["handles"]);
    assert!(table.lines().count() == 4 && table.contains("agent.exe"), "{table}");
    assert_eq!(fake.run(&["handles", "--owner", "5"]).1, "no handle is open\n");
}

#[test]
fn revoke_takes_numbers_as_they_are_listed_and_the_first_refusal_ends_it() {
    let fake = fake_with_handles();
    let (code, json) = fake.json(&["handles", "--revoke", "0x3e9", "1003"]);
    assert_eq!((code, &json["revoked"]), (0, &json!({"handles": 2, "kept": 1})));
    let (code, json) = fake.json(&["handles", "--revoke", "1002", "1001", "1003"]);
    assert_eq!((code, &json["revoked"]["handles"]), (1, &json!(1)));
    assert_eq!(json["error"]["reason"], "HandleNotFound");
    assert!(json["error"]["message"].as_str().unwrap().contains("0x3e9"), "{json}");
}

#[test]
fn sessions_and_processes_lose_all_their_handles() {
    for option in ["--revoke-session=7", "--revoke-owner=4711"] {
        let fake = fake_with_handles();
        let (code, out, err) = fake.run(&["handles", option]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("revoked  3 handles\n1 handles of NIC drivers are left"), "{out}");
        assert!(fake.0.borrow().handles.is_empty());
    }
    let (code, json) = fake_with_handles().json(&["handles", "--revoke-session=8"]);
    assert_eq!((code, &json["error"]["reason"]), (1, &json!("SessionNotFound")));
}

#[test]
fn who_is_no_administrator_uses_the_port_for_users_and_is_told_what_it_lacks() {
    let fake = fake();
    fake.0.borrow_mut().only_users = true;
    assert_eq!(fake.json(&["open", FILE]).0, 0);
    let (code, json) = fake.json(&["handles"]);
    assert_eq!((code, &json["error"]["reason"]), (1, &json!("NotAdministrator")));
    assert_eq!(json["error"]["status_name"], "STATUS_ACCESS_DENIED");
}

#[test]
fn sessions_show_quotas_and_use() {
    let (code, json) = fake_with_handles().json(&["sessions"]);
    assert_eq!((code, &json["sessions"][0]["handles"]), (0, &json!({"used": 3, "limit": 16})));
    assert_eq!(json["sessions"][0]["role"], "administrator");
    let (_, table, _) = fake_with_handles().run(&["sessions"]);
    assert!(table.contains("3/16") && table.contains("100/1000"), "{table}");
}

#[cfg(unix)]
#[test]
fn publish_puts_the_verified_bytes_in_place_and_leaves_nothing_staged() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake();
    fake.0.borrow_mut().drivers_folder = folder.path().into();
    let (code, json) = fake.json(&["publish", FILE]);
    assert_eq!((code, &json["published"]["sha256"]), (0, &json!(sha256(&image()))));
    assert_eq!(fs::read(folder.path().join("nic.rom")).unwrap(), image());
    let state = fake.0.borrow();
    assert!(state.images.is_empty() && state.handles.is_empty());
}

#[test]
fn publish_leaves_an_image_staged_that_others_staged() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake();
    let digest = sha256(&image());
    fake.run(&["stage", FILE, "--sha256", &digest]);
    let to = folder.path().to_str().unwrap();
    let args = ["publish", FILE, "--to", to, "--name", "x.bin", "--sha256", &digest];
    assert_eq!(fake.run(&args).0, 0);
    assert_eq!(fake.0.borrow().images.len(), 1);
    assert_eq!(fs::read(folder.path().join("x.bin")).unwrap(), image());
}

#[cfg(unix)]
#[test]
fn bytes_that_change_after_verification_are_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let fake = fake();
    fake.0.borrow_mut().tamper = true;
    let to = folder.path().to_str().unwrap();
    let (code, json) = fake.json(&["publish", FILE, "--to", to]);
    assert_eq!(code, 1);
    assert!(json["error"]["message"].as_str().unwrap().contains("verified was"), "{json}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(fake.0.borrow().images.is_empty());
}

#[test]
fn publish_takes_no_name_that_leads_out_of_the_folder() {
    for name in [r"..\evil.sys", "../evil.sys", "a:b", ""] {
        let fake = fake();
        assert_eq!(fake.run(&["publish", FILE, "--to", "/", "--name", name]).0, 2, "{name}");
        assert!(fake.0.borrow().seen.is_empty());
    }
}

#[test]
fn results_of_the_calls_decide_exit_code_and_advice() {
    let cases = [
        ("status", 0x8007_0002, 3, "run `fwbctl load`"),
        ("status", 0x8007_0005, 3, "as administrator"),
        ("load", 0x8007_0420, 1, "nothing to do"),
        ("load", 0x8007_0522, 1, "as administrator"),
        ("load", 0x8007_0241, 1, "signed build"),
        ("unload", 0x801F_0010, 1, "fwbctl handles"),
        ("unload", 0x801F_0013, 1, "nothing to do"),
        ("list", 0xD000_0804, 3, "look the result up"),
    ];
    for (command, hresult, expected, next) in cases {
        let fake = fake();
        fake.0.borrow_mut().fail_calls = Some(hresult);
        let (code, json) = fake.json(&[command]);
        assert_eq!(code, expected, "{command} {hresult:#x}");
        assert_eq!(json["error"]["status"], format!("0x{hresult:08X}"));
        assert!(json["error"]["next"].as_str().unwrap().contains(next), "{json}");
    }
}

#[test]
fn a_driver_that_talks_nonsense_counts_as_not_reached() {
    for garbage in [vec![], vec![0; 31], vec![0; 32], vec![0xff; 88]] {
        let fake = fake();
        fake.0.borrow_mut().garbage = Some(garbage);
        let (code, json) = fake.json(&["status"]);
        assert_eq!(code, 3);
        assert!(json["error"]["message"].as_str().unwrap().contains("malformed"), "{json}");
    }
}

#[test]
fn without_a_library_the_error_is_shown_all_the_same() {
    use clap::Parser as _;
    let cli = fwbctl::cli::Cli::parse_from(["fwbctl", "status", "--json"]);
    let mut none = || Err(Error::Usage { message: "no socket".into(), next: "give --socket PATH".into() });
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(fwbctl::cli::run(&cli, &mut none, &mut out, &mut err), 2);
    let json: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(json["error"]["next"], "give --socket PATH");
}
