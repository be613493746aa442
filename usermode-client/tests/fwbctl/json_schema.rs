//! JSON.md is what programs rely on: its examples have the fields that the commands print, in the same types.

use crate::fake::Fake;
use serde_json::Value;

const FILE: &str = r"C:\Firmware\nic.rom";

/// The example under the heading that starts with `heading`.
fn example(heading: &str) -> Value {
    let document = include_str!("../../JSON.md");
    let (_, rest) = document.split_once(heading).unwrap();
    let (_, rest) = rest.split_once("```json\n").unwrap();
    serde_json::from_str(rest.split_once("```").unwrap().0).unwrap()
}

/// Field names and types, values left out. Null fits any type.
fn check(path: &str, documented: &Value, printed: &Value) {
    match (documented, printed) {
        (Value::Object(documented), Value::Object(printed)) => {
            let names = |object: &serde_json::Map<String, Value>| {
                let mut names: Vec<String> = object.keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(names(documented), names(printed), "{path}");
            for (name, value) in documented {
                check(&format!("{path}.{name}"), value, &printed[name]);
            }
        }
        (Value::Array(documented), Value::Array(printed)) => {
            check(&format!("{path}[0]"), &documented[0], &printed[0]);
        }
        (Value::Null, _) | (_, Value::Null) => {}
        _ => assert_eq!(std::mem::discriminant(documented), std::mem::discriminant(printed), "{path}"),
    }
}

#[test]
fn every_command_prints_what_the_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let fake = Fake::with_file(r"\??\C:\Firmware\nic.rom", b"firmware");
    fake.0.borrow_mut().handles.insert(9, r"\??\C:\Firmware\nic.rom".into());
    let runs: [(&str, &[&str]); 13] = [
        ("`fwbctl load`", &["load"]),
        ("`fwbctl status`", &["status"]),
        ("`fwbctl open FILE`", &["open", FILE]),
        ("`fwbctl read FILE", &["read", FILE, "-o", out]),
        ("`fwbctl stage FILE", &["stage", FILE]),
        ("`fwbctl list`", &["list"]),
        ("`fwbctl unstage IMAGE`", &["unstage", FILE]),
        ("`fwbctl handles`", &["handles"]),
        ("`fwbctl handles --revoke", &["handles", "--revoke", "1009"]),
        ("`fwbctl sessions`", &["sessions"]),
        ("`fwbctl publish FILE`", &["publish", FILE, "--to", folder.path().to_str().unwrap()]),
        ("Any command that fails", &["open", r"C:\Firmware\none"]),
        ("`fwbctl unload`", &["unload"]),
    ];
    for (heading, args) in runs {
        check(heading, &example(heading), &fake.json(args).1);
    }
}
