//! The file system's side of a request: what the volume does with an operation that has come through all filters.
//!
//! Everything is taken from the parameters as the filters left them; what the issuer meant does not count any more.

use std::sync::Arc;

use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, QueryFileInformation, SetFileInformation, Transfer};
use nt_types::{FILE_OBJECT, FileObjectFlags, IrpFlags, NtStatus};

use super::buffer::Buffer;
use super::io::Outcome;
use super::open::Open;
use super::{change, control, create_io, directory, ea, information, locks, security, volume_information};
use crate::flt::{self, Flight, Kind, major, operation};
use crate::machine::Inner;
use crate::nt::raw::{Raw, field};

/// What became of a request.
pub(crate) enum Served {
    Done(Outcome),
    /// The file system keeps it, and completes it later.
    Pending,
}

impl From<Outcome> for Served {
    fn from(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}

/// Does what the operation asks for.
pub(crate) fn serve(flight: &Arc<Flight>) -> Served {
    let served = arrive(flight);
    if let Some(volume) = flight.file_system() {
        volume.notices.deliver(flight.machine());
    }
    served
}

fn arrive(flight: &Arc<Flight>) -> Served {
    if flight.kind() == Kind::FsFilter {
        return Served::Done(super::section::serve(flight));
    }
    let major = flight.major_function();
    match major {
        major::CREATE => return create_io::serve(flight).into(),
        major::SHUTDOWN => return (NtStatus::SUCCESS, 0).into(),
        major::NETWORK_QUERY_OPEN => return super::query_open::serve(flight).into(),
        _ => {}
    }
    let Some(open) = flight.open() else { return (NtStatus::INVALID_DEVICE_REQUEST, 0).into() };
    if flight.is_cancelled() && flight.kind() == Kind::Irp && !major::must_succeed(major) {
        return (NtStatus::CANCELLED, 0).into();
    }
    if open.volume.is_dismounted() && !major::must_succeed(major) {
        return (NtStatus::VOLUME_DISMOUNTED, 0).into();
    }
    match major {
        major::CLEANUP => {
            directory::clean_up(flight, &open);
            locks::clean_up(flight, &open);
            open.clean_up();
            // The file system's to set: for filters on the way here the file is still open.
            let flags = field!(Raw::<FILE_OBJECT>::at(flight.target()), FILE_OBJECT, Flags);
            flags.write(flags.read() | FileObjectFlags::CLEANUP_COMPLETE.bits());
            (NtStatus::SUCCESS, 0).into()
        }
        major::CLOSE => {
            flt::contexts::closed(flight.machine(), flight.target(), &open);
            (NtStatus::SUCCESS, 0).into()
        }
        major::READ => read(flight, &open).into(),
        major::WRITE => write(flight, &open).into(),
        major::QUERY_INFORMATION => query_information(flight, &open).into(),
        major::SET_INFORMATION => set_information(flight, &open).into(),
        major::QUERY_EA => ea::query(flight, &open).into(),
        major::SET_EA => ea::set(flight, &open).into(),
        major::FLUSH_BUFFERS => open.flush().into(),
        major::QUERY_VOLUME_INFORMATION => volume_information::query(flight, &open).into(),
        major::SET_VOLUME_INFORMATION => volume_information::set(flight, &open).into(),
        major::DIRECTORY_CONTROL => directory::serve(flight, &open),
        major::FILE_SYSTEM_CONTROL => control::serve(flight, &open).into(),
        major::LOCK_CONTROL => locks::serve(flight, &open),
        major::QUERY_SECURITY => security::query(flight, &open).into(),
        major::SET_SECURITY => security::set(flight, &open).into(),
        major::FAST_IO_CHECK => locks::fast_io_check(flight, &open).into(),
        // The file system has no fast device controls: the packet comes next.
        major::DEVICE_CONTROL if flight.kind() == Kind::FastIo => (NtStatus::FLT_DISALLOW_FAST_IO, 0).into(),
        _ => (NtStatus::INVALID_DEVICE_REQUEST, 0).into(),
    }
}

/// Somebody wants an operation that the file system keeps to end. True when it was found and ended.
pub(crate) fn cancel(machine: &Arc<Inner>, flight: &Arc<Flight>) -> bool {
    directory::cancel(machine, flight) || locks::cancel(machine, flight)
}

fn flags_of(flight: &Flight) -> IrpFlags {
    IrpFlags::from_bits_retain(field!(flight.block(), FLT_IO_PARAMETER_BLOCK, IrpFlags).read())
}

/// Whether it is paging I/O.
pub(crate) fn is_paging(flight: &Flight) -> bool {
    flags_of(flight).contains(IrpFlags::PAGING_IO)
}

/// FltIsOperationSynchronous, as its page lists the conditions.
pub(crate) fn is_synchronous(flight: &Flight) -> bool {
    let flags = flags_of(flight);
    if flight.kind() != Kind::Irp {
        return true;
    }
    if flags.contains(IrpFlags::PAGING_IO) {
        return flags.contains(IrpFlags::SYNCHRONOUS_PAGING_IO);
    }
    let file = Raw::<FILE_OBJECT>::at(flight.target());
    let opened_so = file.some().is_some_and(|file| {
        let flags = field!(file, FILE_OBJECT, Flags).read();
        flags & FileObjectFlags::SYNCHRONOUS_IO.bits() != 0
    });
    let buffered_control = matches!(
        flight.major_function(),
        major::DEVICE_CONTROL | major::INTERNAL_DEVICE_CONTROL | major::FILE_SYSTEM_CONTROL
    ) && operation::parameters::<[u32; 5]>(flight.block())[4].trailing_zeros() >= 2;
    opened_so || flags.contains(IrpFlags::SYNCHRONOUS_API) || buffered_control
}

/// Whether completion of a transfer comes from the storage's DPC: asynchronous, and past the cache.
pub(crate) fn completes_at_dispatch(flight: &Flight) -> bool {
    major::is_transfer(flight.major_function())
        && flags_of(flight).contains(IrpFlags::NOCACHE)
        && !is_paging(flight)
        && !is_synchronous(flight)
}

/// Whether a call of the memory manager's must succeed: all but the making of a section, as its page says.
pub(crate) fn must_not_fail(flight: &Flight) -> bool {
    const SYNC_TYPE_CREATE_SECTION: u32 = 1;
    let first: u32 = operation::parameters(flight.block());
    match flight.major_function() {
        major::ACQUIRE_FOR_SECTION => first != SYNC_TYPE_CREATE_SECTION,
        major::RELEASE_FOR_SECTION | major::RELEASE_FOR_MOD_WRITE | major::RELEASE_FOR_CC_FLUSH => true,
        _ => false,
    }
}

fn read(flight: &Arc<Flight>, open: &Arc<Open>) -> Outcome {
    let parameters: Transfer = operation::parameters(flight.block());
    let buffer = Buffer::described(parameters.Buffer.addr(), parameters.MdlAddress, parameters.Length);
    let (start, length) = (offset(flight, open, parameters.ByteOffset), parameters.Length);
    if let Err(status) = locks::check(flight, open, (start, length, parameters.Key), false) {
        return (status, 0);
    }
    moved(flight, open, start, open.read_into(start, buffer))
}

fn write(flight: &Arc<Flight>, open: &Arc<Open>) -> Outcome {
    let parameters: Transfer = operation::parameters(flight.block());
    let buffer = Buffer::described(parameters.Buffer.addr(), parameters.MdlAddress, parameters.Length);
    let (start, length) = (offset(flight, open, parameters.ByteOffset), parameters.Length);
    if let Err(status) = locks::check(flight, open, (start, length, parameters.Key), true) {
        return (status, 0);
    }
    let paging = is_paging(flight);
    let outcome = moved(flight, open, start, open.write_from(start, buffer, paging));
    if outcome.0.is_success() && !paging {
        let file = Raw::<FILE_OBJECT>::at(flight.target());
        let flags = field!(file, FILE_OBJECT, Flags);
        flags.write(flags.read() | FileObjectFlags::FILE_MODIFIED.bits());
        open.changed(super::notify::Change::WRITTEN);
    }
    outcome
}

/// `FILE_WRITE_TO_END_OF_FILE` and `FILE_USE_FILE_POINTER_POSITION` are offsets, too.
fn offset(flight: &Flight, open: &Open, given: i64) -> i64 {
    const WRITE_TO_END_OF_FILE: i64 = -1;
    const USE_FILE_POINTER_POSITION: i64 = -2;
    let append_only = open.granted.contains(nt_types::AccessMask::FILE_APPEND_DATA)
        && !open.granted.contains(nt_types::AccessMask::FILE_WRITE_DATA);
    let appends = flight.major_function() == major::WRITE && (append_only || given == WRITE_TO_END_OF_FILE);
    if appends {
        return open.size().unwrap_or(0).cast_signed();
    }
    if given == USE_FILE_POINTER_POSITION && open.is_synchronous() { super::io::current_offset(open) } else { given }
}

/// The end of a transfer: the cache is there from now on, and the current offset has moved.
fn moved(flight: &Flight, open: &Open, start: i64, result: Result<usize, NtStatus>) -> Outcome {
    let flags = flags_of(flight);
    if !flags.intersects(IrpFlags::NOCACHE | IrpFlags::PAGING_IO) {
        open.set_up_cache(Raw::at(flight.target()));
    }
    match result {
        Ok(count) => {
            if open.is_synchronous() && !flags.contains(IrpFlags::PAGING_IO) {
                let end = start.saturating_add_unsigned(count as u64);
                let file = Raw::<FILE_OBJECT>::at(flight.target());
                field!(file, FILE_OBJECT, CurrentByteOffset).write(end);
                open.position.store(end, std::sync::atomic::Ordering::Relaxed);
            }
            (NtStatus::SUCCESS, count)
        }
        Err(status) => (status, 0),
    }
}

fn query_information(flight: &Arc<Flight>, open: &Arc<Open>) -> Outcome {
    let parameters: QueryFileInformation = operation::parameters(flight.block());
    let buffer = Buffer::new(parameters.InfoBuffer.addr(), parameters.Length);
    let (status, answer) = information::query(open, parameters.FileInformationClass.cast_unsigned(), buffer.length);
    answered(buffer, status, &answer)
}

/// Hands an answer over.
pub(super) fn answered(buffer: Buffer, status: NtStatus, answer: &[u8]) -> Outcome {
    if status.is_error() {
        return (status, 0);
    }
    match buffer.write(answer) {
        Ok(count) => (status, count),
        Err(status) => (status, 0),
    }
}

fn set_information(flight: &Arc<Flight>, open: &Arc<Open>) -> Outcome {
    let parameters: SetFileInformation = operation::parameters(flight.block());
    let buffer = Buffer::new(parameters.InfoBuffer.addr(), parameters.Length);
    let parent = crate::fs::io::open_at(flight.machine(), parameters.ParentOfTarget.addr());
    let done = buffer.read().and_then(|bytes| {
        change::set(open, parameters.FileInformationClass.cast_unsigned(), &bytes, parent.as_deref())
    });
    match done {
        Ok(()) => (NtStatus::SUCCESS, 0),
        Err(status) => (status, 0),
    }
}
