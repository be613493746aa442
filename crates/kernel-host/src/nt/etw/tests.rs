//! One test per documented rule of event tracing.

use std::cell::Cell;

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;

thread_local! {
    static ENABLED: Cell<(u32, usize)> = const { Cell::new((0, 0)) };
}

extern "efiapi" fn on_enable(_: usize, code: u32, _: u8, _: u64, _: u64, _: usize, context: usize) {
    ENABLED.set((code, context));
}

const ID: Guid = [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 8, 9, 10, 11, 12, 13, 14, 15];

fn register(callback: usize) -> u64 {
    let (mut id, mut handle) = (ID, 0);
    let out = Raw::of(&raw mut handle);
    assert_eq!(etw_register(Raw::of(&raw mut id), callback, 7, out), NtStatus::SUCCESS);
    out.read()
}

fn part(bytes: &[u8], kind: u8) -> DataDescriptor {
    let address = bytes.as_ptr().expose_provenance() as u64;
    DataDescriptor { address, size: bytes.len() as u32, kind, reserved: [0; 3] }
}

fn write_parts(handle: u64, parts: &mut [DataDescriptor]) -> NtStatus {
    let mut descriptor = Descriptor { id: 5, version: 0, channel: 11, level: 4, opcode: 0, task: 0, keyword: 0x10 };
    let count = parts.len() as u32;
    etw_write_transfer(handle, Raw::of(&raw mut descriptor), 0, 0, count, Raw::of(parts.as_mut_ptr()))
}

#[test]
fn a_provider_is_enabled_when_it_registers_and_leaks_when_it_does_not_unregister() {
    conforms!(
        "wdm/nf-wdm-etwregister.md",
        "For every call to EtwRegister there is one to EtwUnregister; the callback gets its context."
    );
    conforms!("wdm/nf-wdm-etwproviderenabled.md", "TRUE while the provider is enabled.");
    let bench = Bench::new();
    let handle = bench.run(|| register(on_enable as *const () as usize)).unwrap();
    assert_eq!(ENABLED.get(), (ENABLE_PROVIDER, 7));
    bench.run(|| assert_eq!(etw_provider_enabled(handle, 0, 0), 1)).unwrap();
    let leaks = bench.machine().inner().nt.etw().leaks(bench.driver());
    assert!(leaks[0].detail.contains("{00112233-4455-6677-0809-0a0b0c0d0e0f}"), "{}", leaks[0].detail);
    bench.run(|| assert_eq!(etw_unregister(handle), NtStatus::SUCCESS)).unwrap();
    assert!(bench.machine().inner().nt.etw().leaks(bench.driver()).is_empty());
    let twice = bench.run(|| etw_unregister(handle)).unwrap_err();
    assert_eq!(twice.0.rule, Rule::BadState);
}

#[test]
fn a_self_describing_event_is_decoded() {
    let traits = b"\x0A\0Sample\0".to_vec();
    let description = b"\0\0\0Opened\0Path\0\x16Count\0\x08Delta\0\x07Values\0\x44".to_vec();
    let mut payload = vec![4, 0, b'C', 0, b':', 0];
    payload.extend(9_u32.to_le_bytes());
    payload.extend((-3_i32).to_le_bytes());
    payload.extend([2, 0, 7, 8]);
    let bench = Bench::new();
    bench
        .run(|| {
            let handle = register(0);
            let mut parts = [part(&traits, 2), part(&description, 1), part(&payload, 0)];
            assert_eq!(write_parts(handle, &mut parts), NtStatus::SUCCESS);
            assert_eq!(etw_unregister(handle), NtStatus::SUCCESS);
        })
        .unwrap();
    let events = bench.machine().events();
    assert_eq!(
        events[0].to_string(),
        "test.sys: Sample Opened (level 4) Path=\"C:\" Count=9 Delta=-3 Values=[\"7\", \"8\"]"
    );
    assert_eq!(events[0].field("Count"), Some(&EventValue::Unsigned(9)));
}

#[test]
fn an_event_of_a_manifest_keeps_its_bytes() {
    conforms!("wdm/nf-wdm-etwwrite.md", "The event is published with the data of all descriptors.");
    let bench = Bench::new();
    bench
        .run(|| {
            let handle = register(0);
            assert_eq!(write_parts(handle, &mut [part(b"ab", 0), part(b"c", 0)]), NtStatus::SUCCESS);
            assert_eq!(etw_unregister(handle), NtStatus::SUCCESS);
        })
        .unwrap();
    let event = bench.machine().events().pop().unwrap();
    assert_eq!((event.name.as_str(), event.payload.as_slice(), event.keyword), ("event 5", b"abc".as_slice(), 0x10));
}

#[test]
fn bad_handles_and_too_many_descriptors_are_refused() {
    conforms!("wdm/nf-wdm-etwwrite.md", "A handle that is no provider's is STATUS_INVALID_HANDLE.");
    conforms!("wdm/nf-wdm-etwwrite.md", "More than 128 data descriptors are STATUS_INVALID_PARAMETER.");
    Bench::new()
        .run(|| {
            assert_eq!(write_parts(0, &mut []), NtStatus::INVALID_HANDLE);
            let handle = register(0);
            assert_eq!(write_parts(handle, &mut [part(b"", 0); 129]), NtStatus::INVALID_PARAMETER);
            assert_eq!(etw_unregister(handle), NtStatus::SUCCESS);
        })
        .unwrap();
}

#[test]
fn event_data_in_user_memory_are_found() {
    conforms!("wdm/nf-wdm-etwwrite.md", "Event data are in system-space memory.");
    let bench = Bench::new();
    let program = bench.machine().process("p.exe").start().expect("room");
    let buffer = program.buffer(b"user").unwrap();
    let rule = bench.run(|| {
        let handle = register(0);
        let data = DataDescriptor { address: buffer.address() as u64, size: 4, kind: 0, reserved: [0; 3] };
        let _ = write_parts(handle, &mut [data]);
    });
    assert_eq!(rule.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_thread_has_an_activity() {
    conforms!(
        "wdm/nf-wdm-etwactivityidcontrol.md",
        "EVENT_ACTIVITY_CTRL_CREATE_SET_ID sets a new identifier and returns the one before."
    );
    Bench::new()
        .run(|| {
            let mut id = ID;
            let out = Raw::of(&raw mut id);
            assert_eq!(etw_activity_id_control(2, out), NtStatus::SUCCESS);
            assert_eq!(etw_activity_id_control(5, out), NtStatus::SUCCESS);
            assert_eq!(out.read(), ID);
            assert_eq!(etw_activity_id_control(1, out), NtStatus::SUCCESS);
            assert_ne!(out.read(), ID);
            assert_eq!(etw_activity_id_control(9, out), NtStatus::INVALID_PARAMETER);
        })
        .unwrap();
}

#[test]
fn what_a_provider_is_called_can_be_told_at_once() {
    conforms!("wdm/nf-wdm-etwsetinformation.md", "A handle that is no provider's is STATUS_INVALID_HANDLE.");
    let bench = Bench::new();
    bench
        .run(|| {
            let mut traits = *b"\x08\0Name\0\0";
            let information = Raw::of(traits.as_mut_ptr());
            assert_eq!(etw_set_information(1, 2, information, 8), NtStatus::INVALID_HANDLE);
            let handle = register(0);
            assert_eq!(etw_set_information(handle, 99, information, 8), NtStatus::INVALID_DEVICE_REQUEST);
            assert_eq!(etw_set_information(handle, 2, information, 8), NtStatus::SUCCESS);
            let mut text: Vec<u16> = "hello\0".encode_utf16().collect();
            assert_eq!(etw_write_string(handle, 4, 0, 0, Raw::of(text.as_mut_ptr())), NtStatus::SUCCESS);
            assert_eq!(etw_unregister(handle), NtStatus::SUCCESS);
        })
        .unwrap();
    let event = bench.machine().events().pop().unwrap();
    assert_eq!((event.provider.as_str(), event.name.as_str()), ("Name", "hello"));
}
