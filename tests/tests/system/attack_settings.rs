//! Settings that nobody should have written: none of them weakens what the driver checks, or keeps it from starting.

use fwbroker_tests::{Bench, Refused, sha256};
use kernel_host::registry::Value;
use nt_types::NtStatus;
use protocol::{Policy, Reason};

const ROM: &[u8] = b"\x55\xaa firmware";
const REG_SZ: u32 = 1;
const REG_BINARY: u32 = 3;
const REG_DWORD: u32 = 4;
const REG_MULTI_SZ: u32 = 7;
const REG_QWORD: u32 = 11;

fn value(kind: u32, data: &[u8]) -> Value {
    Value { kind, data: data.to_vec() }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_policy_that_is_none_is_the_strictest() {
    for policy in [
        Value::dword(3),
        Value::dword(u32::MAX),
        value(REG_QWORD, &(1_u64 << 32).to_le_bytes()),
        value(REG_DWORD, &[0, 0]),
        value(REG_DWORD, &[]),
        value(REG_SZ, &utf16("0\0")),
        value(REG_BINARY, &[0, 0, 0, 0]),
    ] {
        let bench = Bench::with_values(&[("Policy", policy.clone())]);
        let path = bench.write_firmware("nic.rom", ROM);
        let client = bench.client();
        assert_eq!(client.limits().policy, Policy::Signed.code(), "{policy:?}");
        assert!(client.stage(&path, Some(sha256(ROM))).is_err());
        drop(client);
        bench.finish();
    }
}

#[test]
fn limits_out_of_range_are_brought_into_range() {
    let bench = Bench::with_values(&[
        ("MaxImageBytes", value(REG_QWORD, &u64::MAX.to_le_bytes())),
        ("MaxReadBytes", Value::dword(u32::MAX)),
        ("MaxSessionHandles", Value::dword(0)),
        ("MaxStagedBytes", value(REG_QWORD, &[1, 2, 3])),
        ("MaxSessionJobs", value(REG_SZ, &utf16("many\0"))),
    ]);
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let limits = client.limits();
    assert_eq!((limits.max_image_bytes, limits.max_handles_per_session), (1 << 30, 1));
    assert_eq!((limits.max_read_bytes, limits.max_staged_bytes), (protocol::MAX_READ_BYTES, 512 << 20));
    client.open(&path).unwrap();
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::TOO_MANY_OPENED_FILES, Reason::TooManyHandles)));
    drop(client);
    bench.finish();
}

/// Whether a file below the default root, and one below `C:\Other`, can be opened with these roots.
fn opens(roots: Value) -> (bool, bool) {
    let bench = Bench::with_values(&[("FirmwareRoots", roots)]);
    let default = bench.write_firmware("nic.rom", ROM);
    bench.write_file("Other/nic.rom", ROM);
    let client = bench.client();
    let opened = (client.open(&default).is_ok(), client.open(r"\??\C:\Other\nic.rom").is_ok());
    drop(client);
    bench.finish();
    opened
}

#[test]
fn lists_of_roots_need_no_terminators() {
    for list in [r"\??\C:\Other", "\\??\\C:\\Other\0", "\\??\\C:\\Other\0\0", "\0\0\\??\\C:\\Other\0\0"] {
        assert_eq!(opens(value(REG_MULTI_SZ, &utf16(list))), (false, true), "{list:?}");
    }
    let mut odd = utf16("\\??\\C:\\Other\0\0");
    odd.push(0x5c);
    assert_eq!(opens(value(REG_MULTI_SZ, &odd)), (false, true));
}

#[test]
fn an_empty_list_of_roots_allows_nothing() {
    assert_eq!(opens(value(REG_MULTI_SZ, &[])), (false, false));
    assert_eq!(opens(value(REG_MULTI_SZ, &[0, 0])), (false, false));
}

#[test]
fn a_value_that_is_no_list_means_the_default_root() {
    assert_eq!(opens(value(REG_SZ, &utf16("\\??\\C:\\Other\0"))), (true, false));
    assert_eq!(opens(value(REG_MULTI_SZ, &vec![0x41; 100_000])), (true, false), "longer than any list");
}

#[test]
fn roots_that_lead_nowhere_harm_no_other() {
    let list = [
        r"\??\Q:\Missing",
        r"Relative",
        r"\Device\Null",
        r"\??\C:\Missing",
        r"\??\UNC\server\share",
        r"\??\C:\Other",
        r"\??\C:\Other\nic.rom",
        "\u{FFFF}\u{1}",
    ];
    assert_eq!(opens(Value::list(&list)), (false, true));
    let many: Vec<_> = (0..40).map(|number| format!(r"\??\C:\Missing{number}")).collect();
    assert_eq!(opens(Value::list(&many)), (false, false));
}
