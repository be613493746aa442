//! Whatever a client sends: no panic, and nothing that climbs is accepted.

use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::{BareName, DeviceName, NtPath, Root};

/// Units that are likely to matter to a path parser, and some that are not.
fn unit() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => prop::sample::select(r"\\\....  /:?*CcD{}-".encode_utf16().collect::<Vec<_>>()),
        1 => any::<u16>(),
    ]
}

/// A prefix that the parser knows, or nothing, and then anything.
fn name() -> impl Strategy<Value = Vec<u16>> {
    let prefixes =
        prop::sample::select(&[r"", r"\??\C:\", r"\??\", r"\SystemRoot\", r"\Device\V1\", r"\DosDevices\c:\a\"][..]);
    (prefixes, prop::collection::vec(unit(), 0..24))
        .prop_map(|(prefix, rest)| prefix.encode_utf16().chain(rest).collect())
}

/// An independent notion of climbing: after what Win32 does to a component, is it `.` or `..`?
fn climbs(name: &[u16]) -> bool {
    let text = String::from_utf16_lossy(name);
    text.split(['\\', '/'])
        .any(|component| matches!(component.trim(), "." | "..") || component.trim_end_matches(' ') == "..")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 4096 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_accepted_name_climbs(name in name()) {
        if let Ok(path) = NtPath::parse(&name) {
            prop_assert!(!climbs(&name));
            prop_assert!(path.components().all(|component| !component.is_empty()));
        }
        if BareName::parse(&name).is_ok() || DeviceName::from_normalized(&name).is_ok() {
            prop_assert!(!climbs(&name));
        }
    }

    #[test]
    fn a_bare_name_joined_to_a_root_lies_below_it(name in name()) {
        let root = Root::from_normalized(&r"\Device\V1\Firmware".encode_utf16().collect::<Vec<_>>()).unwrap();
        if let Ok(bare) = BareName::parse(&name) {
            let joined = root.join(bare).unwrap();
            let file = DeviceName::from_normalized(joined.units()).unwrap();
            prop_assert!(root.contains(file, |unit| unit));
        }
    }
}
