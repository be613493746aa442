//! A protocol written in C (`tests/drivers/ndis-protocol/oidprot.c`) on the sample NIC: bind, OID requests, unbind.

use std::time::Duration;

use fwbroker_tests::drivers::c_driver_dir;
use fwbroker_tests::{Bench, BootReport, Source};
use kernel_host::{Adapter, AdapterState, BindingState, Machine};
use nt_types::{AccessMask, NtStatus};

/// `IOCTL_OIDPROT_QUERY` and `IOCTL_OIDPROT_SET`.
const QUERY: u32 = 0x0012_6000;
const SET: u32 = 0x0012_A004;

/// OIDs of samplenic.sys.
const BOOT_REPORT: u32 = 0xFF46_5701;
const PACKET_FILTER: u32 = 0x0001_010E;
const CURRENT_LOOKAHEAD: u32 = 0x0001_010F;
const MULTICAST_LIST: u32 = 0x0101_0103;
const VENDOR_DESCRIPTION: u32 = 0x0001_010D;

/// What oidprot.sys sets: directed and broadcast frames.
const FILTER: u32 = 9;

/// An option ROM that samplenic.sys accepts.
fn rom() -> Vec<u8> {
    let mut rom = vec![0x5a; 4 * 512];
    rom[..3].copy_from_slice(&[0x55, 0xaa, 4]);
    rom[0x18..0x1a].copy_from_slice(&[0x20, 0]);
    rom[0x20..0x24].copy_from_slice(b"PCIR");
    rom
}

/// A machine with samplenic.sys loaded and oidprot.sys installed.
struct Network {
    bench: Bench,
}

impl Network {
    fn new() -> Self {
        let bench = Bench::without_broker();
        bench.write_file("Windows/System32/drivers/nic.rom", &rom());
        bench.load_nic_driver();
        let sys = c_driver_dir().expect("the C drivers are built").join("oidprot.sys");
        bench.machine().install_service(&sys, None).expect("the package installs");
        Self { bench }
    }

    /// With an adapter, and the protocol bound to it.
    fn bound() -> (Self, Adapter) {
        let network = Self::new();
        let adapter = network.plug_in("nic0");
        network.load();
        assert_eq!(adapter.bindings().len(), 1);
        (network, adapter)
    }

    fn machine(&self) -> &Machine {
        self.bench.machine()
    }

    fn plug_in(&self, name: &str) -> Adapter {
        self.machine().add_adapter("samplenic", name, &[("FirmwareName", "nic.rom")]).expect("the NIC starts")
    }

    fn load(&self) {
        self.machine().load_driver("OidProt").expect("oidprot.sys loads");
    }

    /// Has the protocol make a request; what it answers.
    fn control(&self, code: u32, oid: u32, value: &[u8], room: usize) -> Result<Vec<u8>, NtStatus> {
        let access = AccessMask::FILE_READ_DATA | AccessMask::FILE_WRITE_DATA;
        let device = self.bench.administrator().open_device_with(r"\Device\OidProt", access)?;
        let input = [&oid.to_le_bytes(), value].concat();
        device.control(code, &input, room)
    }

    fn query(&self, oid: u32, room: usize) -> Result<Vec<u8>, NtStatus> {
        self.control(QUERY, oid, &[], room)
    }

    /// Unloads everything and checks that nothing is left.
    fn finish(self) {
        let report = self.machine().unload_driver("OidProt", false).expect("oidprot.sys unloads");
        assert!(report.is_clean(), "{report}");
        self.bench.finish_unloaded();
    }
}

#[test]
fn a_protocol_in_c_binds_asks_and_unbinds() {
    let (network, adapter) = Network::bound();
    let binding = &adapter.bindings()[0];
    assert_eq!((binding.protocol.as_str(), binding.adapter.as_str()), ("OidProt", "nic0"));
    assert_eq!((binding.state, binding.packet_filter, binding.requests), (BindingState::Running, FILTER, 0));
    assert!(network.bench.log().contains("oidprot: bound to 02-46-57-00-00-01, frames of 1500 bytes"));
    adapter.remove().unwrap();
    assert!(network.bench.log().ends_with("oidprot: unbound"), "{}", network.bench.log());
    network.finish();
}

#[test]
fn a_private_oid_reaches_the_miniport_and_its_answer_comes_back() {
    let (network, adapter) = Network::bound();
    let answer = network.query(BOOT_REPORT, 64).unwrap();
    assert_eq!(answer, adapter.oid_query(BOOT_REPORT, 64).unwrap());
    assert_eq!(answer[24..56], BootReport::of(&rom(), Source::NdisOpenFile).sha256);
    network.finish();
}

#[test]
fn refusals_come_back_as_they_are() {
    let (network, _adapter) = Network::bound();
    let buffer_too_short = NtStatus(0xC001_0016_u32.cast_signed());
    let invalid_length = NtStatus(0xC001_0014_u32.cast_signed());
    assert_eq!(network.query(BOOT_REPORT, 8), Err(buffer_too_short));
    assert_eq!(network.query(0xFF00_0000, 8), Err(NtStatus::NOT_SUPPORTED));
    assert_eq!(network.control(SET, CURRENT_LOOKAHEAD, &[1], 0), Err(invalid_length));
    network.finish();
}

#[test]
fn a_set_changes_the_miniport_and_what_ndis_keeps() {
    let (network, adapter) = Network::bound();
    network.control(SET, PACKET_FILTER, &1_u32.to_le_bytes(), 0).unwrap();
    assert_eq!(network.query(PACKET_FILTER, 4).unwrap(), 1_u32.to_le_bytes());
    assert_eq!(adapter.oid_query(PACKET_FILTER, 4).unwrap(), 1_u32.to_le_bytes());
    let list = [1, 0, 0x5E, 0, 0, 1];
    network.control(SET, MULTICAST_LIST, &list, 0).unwrap();
    assert_eq!(network.query(MULTICAST_LIST, 64).unwrap(), list);
    network.machine().unbind("OidProt", "nic0").unwrap();
    assert_eq!(adapter.oid_query(PACKET_FILTER, 4).unwrap(), [0; 4], "unbound: nobody wants frames");
    network.finish();
}

#[test]
fn opens_and_closes_that_pend_make_no_difference() {
    let network = Network::new();
    network.machine().pend_opens(true);
    network.machine().pend_closes(true);
    let adapter = network.plug_in("nic0");
    network.load();
    assert_eq!(adapter.bindings()[0].state, BindingState::Running);
    assert_eq!(network.query(VENDOR_DESCRIPTION, 64).unwrap(), b"fwbroker sample NIC\0");
    network.machine().unbind("OidProt", "nic0").unwrap();
    assert_eq!(network.query(VENDOR_DESCRIPTION, 64), Err(NtStatus::NO_SUCH_DEVICE));
    network.machine().bind("OidProt", "nic0").unwrap();
    assert_eq!(network.query(VENDOR_DESCRIPTION, 64).unwrap(), b"fwbroker sample NIC\0");
    assert_eq!(adapter.state(), AdapterState::Running);
    network.finish();
}

#[test]
fn adapters_come_and_go_while_the_protocol_is_loaded() {
    let network = Network::new();
    network.load();
    let (one, two) = (network.plug_in("nic0"), network.plug_in("nic1"));
    let bound = |network: &Network| network.machine().protocols()[0].bindings.len();
    assert_eq!(bound(&network), 2);
    one.remove().unwrap();
    assert_eq!(bound(&network), 1);
    assert_eq!(two.bindings()[0].state, BindingState::Running);
    two.surprise_remove().unwrap();
    assert_eq!(bound(&network), 0);
    network.finish();
}

#[test]
fn a_sleeping_adapter_is_not_asked() {
    let (network, adapter) = Network::bound();
    adapter.sleep().unwrap();
    assert_eq!(adapter.bindings()[0].state, BindingState::Paused);
    let low_power = NtStatus(0xC023_002F_u32.cast_signed());
    assert_eq!(network.query(BOOT_REPORT, 64), Err(low_power));
    adapter.wake().unwrap();
    assert_eq!(adapter.bindings()[0].state, BindingState::Running);
    assert_eq!(network.query(BOOT_REPORT, 64).unwrap().len(), 56);
    network.finish();
}

#[test]
fn requests_from_many_threads_are_served_one_after_the_other() {
    let (network, adapter) = Network::bound();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(network.query(BOOT_REPORT, 64).unwrap().len(), 56);
                    assert_eq!(adapter.oid_query(BOOT_REPORT, 64).unwrap().len(), 56);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(5));
        adapter.pause().unwrap();
        adapter.restart().unwrap();
    });
    assert_eq!(adapter.outstanding_requests(), 0);
    network.finish();
}

#[test]
fn the_protocol_survives_every_call_that_can_fail() {
    let report = Machine::sweep(|trial| {
        let network = Network::new();
        let adapter = network.plug_in("nic0");
        trial.begin(network.machine());
        let loaded = trial.attempt(network.machine().load_driver("OidProt"));
        if loaded.is_some() {
            let _ = trial.attempt(network.query(BOOT_REPORT, 64));
        }
        trial.end();
        if loaded.is_some() {
            network.machine().unload_driver("OidProt", false).expect("the driver unloads");
        }
        adapter.remove().expect("the NIC halts");
        network.bench.finish_unloaded();
    });
    assert!(report.is_clean(), "{report}");
}
