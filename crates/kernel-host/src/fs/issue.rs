//! Requests that carry more than a class and a buffer.

use nt_types::{IrpFlags, NtStatus, UNICODE_STRING};

use super::buffer::Buffer;
use super::io::{Issue, Outcome};
use crate::flt::{Kind, Operation, major};

/// `SL_RESTART_SCAN`, `SL_RETURN_SINGLE_ENTRY`, `SL_INDEX_SPECIFIED`.
const RESTART_SCAN: u8 = 0x01;
const RETURN_SINGLE_ENTRY: u8 = 0x02;
const INDEX_SPECIFIED: u8 = 0x04;
/// `SL_WATCH_TREE`.
const WATCH_TREE: u8 = 0x01;

const IRP_MN_QUERY_DIRECTORY: u8 = 1;
const IRP_MN_NOTIFY_CHANGE_DIRECTORY: u8 = 2;
const IRP_MN_LOCK: u8 = 1;
const IRP_MN_UNLOCK_SINGLE: u8 = 2;

/// What a listing asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    pub(crate) class: u32,
    pub(crate) pattern: Option<&'a UNICODE_STRING>,
    pub(crate) restart: bool,
    pub(crate) single: bool,
}

impl Issue<'_> {
    /// IRP_MN_QUERY_DIRECTORY into a buffer.
    pub(crate) fn query_directory(&self, (address, length): (usize, u32), listing: Listing<'_>) -> Outcome {
        let pattern = listing.pattern.map_or(0, |pattern| std::ptr::from_ref(pattern).expose_provenance());
        let flags =
            if listing.restart { RESTART_SCAN } else { 0 } | if listing.single { RETURN_SINGLE_ENTRY } else { 0 };
        let irp = self.irp(major::DIRECTORY_CONTROL).minor(IRP_MN_QUERY_DIRECTORY).operation_flags(flags);
        self.run(&irp.set(0, length).set(8, pattern).set(16, listing.class).set(32, address))
    }

    /// IRP_MN_NOTIFY_CHANGE_DIRECTORY, ready to go.
    pub(crate) fn notify(&self, (address, length): (usize, u32), filter: u32, tree: bool) -> Operation {
        let flags = if tree { WATCH_TREE } else { 0 };
        let irp = self.irp(major::DIRECTORY_CONTROL).minor(IRP_MN_NOTIFY_CHANGE_DIRECTORY).operation_flags(flags);
        irp.set(0, length).set(8, filter).set(32, address)
    }

    /// IRP_MJ_QUERY_VOLUME_INFORMATION.
    pub(crate) fn query_volume(&self, class: u32, length: u32) -> (NtStatus, Vec<u8>) {
        let irp = self.synchronous_irp(major::QUERY_VOLUME_INFORMATION).irp_flags(IrpFlags::BUFFERED_IO);
        self.query(|address| irp.information(class, address, length), length, false)
    }

    /// IRP_MJ_SET_VOLUME_INFORMATION.
    pub(crate) fn set_volume(&self, class: u32, bytes: &[u8]) -> NtStatus {
        let irp = self.synchronous_irp(major::SET_VOLUME_INFORMATION).irp_flags(IrpFlags::BUFFERED_IO).system_buffer();
        self.run(&irp.information(class, bytes.as_ptr().expose_provenance(), bytes.len() as u32)).0
    }

    /// IRP_MJ_QUERY_EA. `list` is a FILE_GET_EA_INFORMATION list, or nothing.
    pub(crate) fn query_ea(
        &self,
        (address, length): (usize, u32),
        list: (usize, u32),
        index: Option<u32>,
        restart: bool,
        single: bool,
    ) -> Outcome {
        let mut flags = if restart { RESTART_SCAN } else { 0 } | if single { RETURN_SINGLE_ENTRY } else { 0 };
        if index.is_some() {
            flags |= INDEX_SPECIFIED;
        }
        let irp = self.synchronous_irp(major::QUERY_EA).operation_flags(flags);
        let irp = irp.set(0, length).set(8, list.0).set(16, list.1).set(24, index.unwrap_or(0)).set(32, address);
        self.run(&irp)
    }

    /// IRP_MJ_SET_EA.
    pub(crate) fn set_ea(&self, (address, length): (usize, u32)) -> Outcome {
        self.run(&self.synchronous_irp(major::SET_EA).set(0, length).set(8, address))
    }

    /// IRP_MJ_QUERY_SECURITY.
    pub(crate) fn query_security(&self, parts: u32, (address, length): (usize, u32)) -> Outcome {
        self.run(&self.synchronous_irp(major::QUERY_SECURITY).set(0, parts).set(8, length).set(16, address))
    }

    /// IRP_MJ_SET_SECURITY, with a descriptor that the I/O manager has captured.
    pub(crate) fn set_security(&self, parts: u32, descriptor: &[u8]) -> NtStatus {
        let address = descriptor.as_ptr().expose_provenance();
        self.run(&self.synchronous_irp(major::SET_SECURITY).set(0, parts).set(8, address)).0
    }

    /// IRP_MN_LOCK: fast I/O first.
    pub(crate) fn lock(&self, offset: i64, length: i64, exclusive: bool, key: u32, fail_immediately: bool) -> Outcome {
        let address = (&raw const length).expose_provenance();
        self.run_fast_first(self.lock_at(offset, address, exclusive, key, fail_immediately))
    }

    /// ... ready to go; the length is at an address.
    pub(crate) fn lock_at(
        &self,
        offset: i64,
        length_at: usize,
        exclusive: bool,
        key: u32,
        fail_immediately: bool,
    ) -> Operation {
        /// `SL_FAIL_IMMEDIATELY`, `SL_EXCLUSIVE_LOCK`.
        const FLAGS: (u8, u8) = (0x01, 0x02);
        let flags = if fail_immediately { FLAGS.0 } else { 0 } | if exclusive { FLAGS.1 } else { 0 };
        let irp = self.irp(major::LOCK_CONTROL).minor(IRP_MN_LOCK).operation_flags(flags);
        owned(irp.set(0, length_at).set(8, key).set(16, offset))
            .set(32, u8::from(fail_immediately))
            .set(33, u8::from(exclusive))
    }

    /// IRP_MN_UNLOCK_SINGLE: fast I/O first.
    pub(crate) fn unlock(&self, offset: i64, length: i64, key: u32) -> Outcome {
        let address = (&raw const length).expose_provenance();
        let irp = self.synchronous_irp(major::LOCK_CONTROL).minor(IRP_MN_UNLOCK_SINGLE);
        self.run_fast_first(owned(irp.set(0, address).set(8, key).set(16, offset)))
    }

    /// IRP_MJ_FILE_SYSTEM_CONTROL or IRP_MJ_DEVICE_CONTROL, with the buffers as the code's method wants them: METHOD_BUFFERED
    /// has one system buffer for both ways, the direct methods one for the input, METHOD_NEITHER the caller's addresses.
    pub(crate) fn run_control(&self, major: u8, code: u32, input: (usize, u32), output: (usize, u32)) -> Outcome {
        const METHOD_BUFFERED: u32 = 0;
        const METHOD_NEITHER: u32 = 3;
        let (input_buffer, output_buffer) = (Buffer::new(input.0, input.1), Buffer::new(output.0, output.1));
        if major == major::DEVICE_CONTROL && self.below.is_none() && self.open.is_synchronous() {
            // Fast I/O always has the caller's addresses, whatever the method.
            let mut fast = self.irp(major).control(code, input, output);
            fast.kind = Kind::FastIo;
            let outcome = self.run(&fast);
            if outcome.0 != NtStatus::FLT_DISALLOW_FAST_IO {
                return outcome;
            }
        }
        if code & 3 == METHOD_NEITHER {
            return self.run(&self.irp(major).control(code, input, output));
        }
        let mut system = match if input.0 == 0 { Ok(Vec::new()) } else { input_buffer.read() } {
            Ok(bytes) => bytes,
            Err(status) => return (status, 0),
        };
        if code & 3 == METHOD_BUFFERED {
            system.resize(system.len().max(output_buffer.length), 0);
        }
        let address = if system.is_empty() { 0 } else { system.as_mut_ptr().expose_provenance() };
        let irp = self.irp(major).irp_flags(IrpFlags::BUFFERED_IO).system_buffer();
        if code & 3 != METHOD_BUFFERED {
            return self.run(&irp.control(code, (address, input.1), output));
        }
        let (status, information) = self.run(&irp.control(code, (address, input.1), (0, output.1)));
        // The I/O manager copies the answer back unless the request failed; a warning is no failure.
        let answer = system.get(..information.min(output_buffer.length)).unwrap_or_default();
        if status.is_error() || answer.is_empty() {
            return (status, information);
        }
        match output_buffer.write(answer) {
            Ok(_) => (status, information),
            Err(status) => (status, 0),
        }
    }
}

/// Locks belong to the current process.
fn owned(irp: Operation) -> Operation {
    let process = crate::thread::Thread::current().process();
    irp.set(24, process.map_or(0, |process| process.object()))
}
