//! The system's error log, as drivers that are no miniports write it.
//!
//! Pages: `wdm/nf-wdm-ioallocateerrorlogentry`, `ntifs/nf-ntifs-iowriteerrorlogentry`, `wdm/nf-wdm-iofreeerrorlogentry`.

use std::sync::Arc;

use super::device::DeviceBody;
use super::driver_object::DriverBody;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Machine};
use crate::nt::arena::{Access, PAGE};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoAllocateErrorLogEntry(max 2, fails NULL) = io_allocate_error_log_entry;
    IoWriteErrorLogEntry(max 2) = io_write_error_log_entry;
    IoFreeErrorLogEntry(max 2) = io_free_error_log_entry;
}

/// Bytes of an `IO_ERROR_LOG_PACKET` without dump data, and `ERROR_LOG_MAXIMUM_SIZE`.
const PACKET_LENGTH: u8 = 48;
const MAXIMUM_LENGTH: u8 = 240;

/// Fields of `IO_ERROR_LOG_PACKET`.
mod packet {
    pub(super) const DUMP_DATA_SIZE: usize = 2;
    pub(super) const NUMBER_OF_STRINGS: usize = 4;
    pub(super) const STRING_OFFSET: usize = 6;
    pub(super) const ERROR_CODE: usize = 12;
    pub(super) const UNIQUE_ERROR_VALUE: usize = 16;
    pub(super) const FINAL_STATUS: usize = 20;
    pub(super) const DUMP_DATA: usize = 40;
}

/// One entry of the system's error log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SystemLogEntry {
    /// File name of the driver that wrote it.
    pub driver: String,
    /// `ErrorCode`: which message the event viewer shows.
    pub error_code: u32,
    /// `UniqueErrorValue`: where in the driver it was.
    pub unique_error_value: u32,
    /// `FinalStatus`, an NTSTATUS.
    pub final_status: u32,
    /// `DumpData`.
    pub dump_data: Vec<u8>,
    /// The strings that are put into the message.
    pub strings: Vec<String>,
}

/// An entry that a driver fills.
#[derive(Debug)]
pub(crate) struct Packet {
    address: usize,
    length: u8,
    run: usize,
    driver: Arc<Driver>,
}

impl Packet {
    /// What it is that the driver has not given back.
    pub(super) fn leak(&self, driver: &Driver) -> Option<Leak> {
        let detail =
            format!("error log entry {:#x} (IoAllocateErrorLogEntry without IoWriteErrorLogEntry)", self.address);
        let is_mine = std::ptr::eq(Arc::as_ptr(&self.driver), driver);
        is_mine.then(|| Leak { kind: LeakKind::Pool, count: 1, bytes: self.length.into(), detail })
    }
}

impl Machine {
    /// What drivers wrote into the system's error log with `IoWriteErrorLogEntry`, oldest first.
    #[must_use]
    pub fn system_log(&self) -> Vec<SystemLogEntry> {
        self.inner().nt.io().lock().system_log.clone()
    }
}

extern "efiapi" fn io_allocate_error_log_entry(object: usize, length: u8) -> usize {
    let call = Call::enter();
    let objects = call.machine().nt.objects();
    if objects.payload::<DeviceBody>(object).is_none() && objects.payload::<DriverBody>(object).is_none() {
        call.stop(Rule::BadArgument, format!("{object:#x} is no device object and no driver object"));
    }
    if !(PACKET_LENGTH..=MAXIMUM_LENGTH).contains(&length) {
        return 0;
    }
    // It ends where its page ends, so that an access behind it faults.
    let Some(run) = call.machine().nt.arena().allocate(1, Access::ReadWrite) else { return 0 };
    let address = run + PAGE - usize::from(length).next_multiple_of(8);
    let packet = Packet { address, length, run, driver: Arc::clone(call.driver()) };
    call.machine().nt.io().lock().error_packets.push(packet);
    address
}

/// Takes an entry out of those that are being filled.
fn take(call: &Call, address: usize) -> Packet {
    let found = {
        let mut state = call.machine().nt.io().lock();
        let index = state.error_packets.iter().position(|packet| packet.address == address);
        index.map(|index| state.error_packets.swap_remove(index))
    };
    found.unwrap_or_else(|| {
        call.stop(
            Rule::BadState,
            format!("{address:#x} is no error log entry, or one that was written or freed before: both free it"),
        )
    })
}

/// Reads what the driver put in; nothing beyond the entry's own bytes.
fn read(packet: &Packet) -> SystemLogEntry {
    let bytes = Raw::<u8>::at(packet.address).read_bytes(packet.length.into());
    let half = |at: usize| bytes.get(at..at + 2).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])));
    let word = |at: usize| (half(at) | half(at + 2) << 16) as u32;
    let dump = packet::DUMP_DATA..packet::DUMP_DATA + half(packet::DUMP_DATA_SIZE);
    let text: Vec<u16> = bytes
        .get(half(packet::STRING_OFFSET)..)
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|two| u16::from_le_bytes([two[0], two[1]]))
        .collect();
    let strings = text.split(|unit| *unit == 0).take(half(packet::NUMBER_OF_STRINGS)).map(String::from_utf16_lossy);
    SystemLogEntry {
        driver: packet.driver.name.clone(),
        error_code: word(packet::ERROR_CODE),
        unique_error_value: word(packet::UNIQUE_ERROR_VALUE),
        final_status: word(packet::FINAL_STATUS),
        dump_data: bytes.get(dump).unwrap_or_default().to_vec(),
        strings: strings.collect(),
    }
}

extern "efiapi" fn io_write_error_log_entry(entry: usize) {
    let call = Call::enter();
    let packet = take(&call, entry);
    let written = read(&packet);
    call.machine().nt.arena().release(packet.run, 1);
    call.detail(format_args!("{:#010x} {:?}", written.error_code, written.strings));
    call.machine().nt.io().lock().system_log.push(written);
}

extern "efiapi" fn io_free_error_log_entry(entry: usize) {
    let call = Call::enter();
    let packet = take(&call, entry);
    call.machine().nt.arena().release(packet.run, 1);
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;
    use crate::conformance::conforms;

    fn allocate(world: &World, length: u8) -> usize {
        world.run(|| io_allocate_error_log_entry(world.device, length))
    }

    #[test]
    fn an_entry_is_filled_written_and_gone() {
        conforms!("wdm/nf-wdm-ioallocateerrorlogentry.md", "An entry of the size is returned, to be filled.");
        conforms!("ntifs/nf-ntifs-iowriteerrorlogentry.md", "The entry goes to the error log and is freed.");
        let world = World::new();
        let entry = Raw::<u8>::at(allocate(&world, 64));
        assert_eq!(world.leaks().iter().filter(|leak| leak.contains("error log")).count(), 1);
        world.run(|| {
            entry.field::<[u16; 3]>(2).write([4, 2, 48]);
            entry.field::<[u32; 3]>(12).write([0xC004_0001, 7, 0xC000_0001]);
            entry.field::<u32>(40).write(0x0403_0201);
            for (at, unit) in "ab\0c\0".encode_utf16().enumerate() {
                entry.field::<u16>(48 + 2 * at).write(unit);
            }
            io_write_error_log_entry(entry.address());
        });
        let expected = SystemLogEntry {
            driver: "test.sys".into(),
            error_code: 0xC004_0001,
            unique_error_value: 7,
            final_status: 0xC000_0001,
            dump_data: vec![1, 2, 3, 4],
            strings: vec!["ab".into(), "c".into()],
        };
        assert_eq!(world.bench.machine().system_log(), [expected]);
        assert!(!world.leaks().iter().any(|leak| leak.contains("error log")));
    }

    #[test]
    fn an_entry_is_written_or_freed_but_not_both() {
        conforms!("wdm/nf-wdm-iofreeerrorlogentry.md", "An unused entry is freed; a written one must not be.");
        let world = World::new();
        let entry = allocate(&world, 48);
        world.run(|| io_free_error_log_entry(entry));
        assert!(world.bench.machine().system_log().is_empty());
        let entry = allocate(&world, 48);
        let both = || {
            io_write_error_log_entry(entry);
            io_free_error_log_entry(entry);
        };
        assert_eq!(world.broken(both), Rule::BadState);
    }

    #[test]
    fn an_entry_of_a_size_that_cannot_be_is_not_allocated() {
        conforms!("wdm/nf-wdm-ioallocateerrorlogentry.md", "The size cannot exceed ERROR_LOG_MAXIMUM_SIZE.");
        let world = World::new();
        assert_eq!([allocate(&world, 241), allocate(&world, 47)], [0, 0]);
    }
}
