//! What control codes ask of oplocks, what operations do to them, and how a request tells its owner of the break.

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FileSystemControlNeither, SetFileInformation};
use nt_types::{AccessMask, NtStatus};

use super::rules::{Caching, Grant, R, RH, RW, RWH, Trigger};
use super::state::{Acknowledging, Ended};
use super::{COMPLETE_IF_OPLOCKED, Then, complete, is_synchronous, known, packet, same, settle};
use crate::ddi::Call;
use crate::finding::Rule;
use crate::flt::flight::Flight;
use crate::flt::{major, operation};
use crate::fs::buffer::Buffer;
use crate::fs::options::{disposition, option};
use crate::fs::stream::Kind as StreamKind;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// Control codes, as `CTL_CODE` makes them.
mod code {
    pub(super) const REQUEST_OPLOCK_LEVEL_1: u32 = 0x0009_0000;
    pub(super) const REQUEST_OPLOCK_LEVEL_2: u32 = 0x0009_0004;
    pub(super) const REQUEST_BATCH_OPLOCK: u32 = 0x0009_0008;
    pub(super) const OPLOCK_BREAK_ACKNOWLEDGE: u32 = 0x0009_000C;
    pub(super) const OPBATCH_ACK_CLOSE_PENDING: u32 = 0x0009_0010;
    pub(super) const OPLOCK_BREAK_NOTIFY: u32 = 0x0009_0014;
    pub(super) const OPLOCK_BREAK_ACK_NO_2: u32 = 0x0009_0050;
    pub(super) const REQUEST_FILTER_OPLOCK: u32 = 0x0009_005C;
    pub(super) const SET_ZERO_DATA: u32 = 0x0009_80C8;
    pub(super) const REQUEST_OPLOCK: u32 = 0x0009_0240;
}

/// `FILE_OPLOCK_BROKEN_TO_LEVEL_2` and `FILE_OPLOCK_BROKEN_TO_NONE`.
const BROKEN_TO_LEVEL_2: usize = 7;
const BROKEN_TO_NONE: usize = 8;

/// Bytes of REQUEST_OPLOCK_INPUT_BUFFER and REQUEST_OPLOCK_OUTPUT_BUFFER.
const INPUT: usize = 12;
const OUTPUT: usize = 24;

/// `REQUEST_OPLOCK_INPUT_FLAG_REQUEST` and `REQUEST_OPLOCK_INPUT_FLAG_ACK`.
const FLAG_REQUEST: u32 = 1;
const FLAG_ACK: u32 = 2;

/// REQUEST_OPLOCK_INPUT_BUFFER of a request.
struct Input {
    level: u32,
    flags: u32,
}

/// The code of a file system control.
fn code_of(flight: &Flight) -> Option<u32> {
    let parameters: FileSystemControlNeither = operation::parameters(flight.block());
    (flight.major() == major::FILE_SYSTEM_CONTROL).then_some(parameters.FsControlCode)
}

/// The input of FSCTL_REQUEST_OPLOCK, whose buffer has to hold the output, too.
///
/// # Errors
/// `BUFFER_TOO_SMALL`, `INVALID_PARAMETER`, `INVALID_USER_BUFFER`.
fn input(flight: &Flight) -> Result<Input, NtStatus> {
    let parameters: FileSystemControlNeither = operation::parameters(flight.block());
    let lengths = (parameters.InputBufferLength as usize, parameters.OutputBufferLength as usize);
    if lengths.0 < INPUT || lengths.1 < OUTPUT {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    let bytes = Buffer::new(parameters.InputBuffer.addr(), INPUT as u32).read()?;
    let word =
        |at: usize| bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    // StructureVersion 1 and StructureLength.
    if word(0) != 1 | (INPUT as u32) << 16 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(Input { level: word(4), flags: word(8) })
}

/// The oplock that a level of FSCTL_REQUEST_OPLOCK stands for; `None` for none.
fn of_level(level: u32) -> Result<Option<Grant>, NtStatus> {
    match Caching::from_bits(level) {
        Some(Caching::READ | RH | RW | RWH) => Ok(Caching::from_bits(level).map(Grant::Cache)),
        Some(none) if none.is_empty() => Ok(None),
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

/// The oplock that an operation asks for, if it asks for one; `INVALID_PARAMETER` for a level that there is not.
pub(super) fn wanted(flight: &Flight) -> Option<Result<Grant, NtStatus>> {
    match code_of(flight)? {
        code::REQUEST_OPLOCK_LEVEL_1 => Some(Ok(Grant::Level1)),
        code::REQUEST_OPLOCK_LEVEL_2 => Some(Ok(Grant::Level2)),
        code::REQUEST_BATCH_OPLOCK => Some(Ok(Grant::Batch)),
        code::REQUEST_FILTER_OPLOCK => Some(Ok(Grant::Filter)),
        code::REQUEST_OPLOCK => {
            let input = input(flight).ok().filter(|input| input.flags & FLAG_REQUEST != 0)?;
            Some(of_level(input.level).and_then(|grant| grant.ok_or(NtStatus::INVALID_PARAMETER)))
        }
        _ => None,
    }
}

/// FltOplockFsctrlEx.
pub(super) fn control(
    call: &Call,
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    open_count: u32,
    all_keys_match: bool,
) -> i32 {
    let known = known(call, oplock);
    let flight = packet(call, data);
    let Some(code) = code_of(&flight) else {
        if flight.major() != major::CREATE {
            let name = major::name(flight.major());
            call.stop(Rule::BadArgument, format!("{name} is neither IRP_MJ_FILE_SYSTEM_CONTROL nor IRP_MJ_CREATE"));
        }
        flight.set_outcome((reserve(&flight, open_count), 0));
        return flt::FLT_PREOP_COMPLETE;
    };
    let acknowledging = match code {
        code::OPLOCK_BREAK_ACKNOWLEDGE => Ok(Acknowledging::Accept),
        code::OPLOCK_BREAK_ACK_NO_2 => Ok(Acknowledging::Relinquish),
        code::OPBATCH_ACK_CLOSE_PENDING => Ok(Acknowledging::ClosePending),
        code::REQUEST_OPLOCK => match input(&flight) {
            Ok(input) if input.flags & FLAG_ACK != 0 => of_level(input.level).map(Acknowledging::Keep),
            Ok(_) => Err(NtStatus::PENDING),
            Err(status) => Err(status),
        },
        code::OPLOCK_BREAK_NOTIFY => {
            if known.state().holds_up() {
                known.state().wait(&flight, Then::Complete);
                settle(call, &known, Vec::new());
                return flt::FLT_PREOP_PENDING;
            }
            flight.set_outcome((NtStatus::SUCCESS, 0));
            return flt::FLT_PREOP_COMPLETE;
        }
        _ => Err(NtStatus::PENDING),
    };
    let outcome = match acknowledging {
        Ok(how) => known.state().acknowledge(how, &flight).map(|kept| (kept, Vec::new())),
        // It is a request.
        Err(NtStatus::PENDING) => wanted(&flight).ok_or(NtStatus::INVALID_DEVICE_REQUEST).and_then(|wanted| {
            let wanted = wanted?;
            conditions(&flight, wanted, open_count, all_keys_match)?;
            known.state().grant(wanted, &flight, same).map(|ended| (Some(wanted), ended))
        }),
        Err(status) => Err(status),
    };
    match outcome {
        Ok((kept, ended)) => {
            if kept.is_none() {
                flight.set_outcome((NtStatus::SUCCESS, 0));
            } else {
                // Drivers see by that that there is something behind the variable.
                oplock.write(oplock.address());
            }
            settle(call, &known, ended);
            if kept.is_some() { flt::FLT_PREOP_PENDING } else { flt::FLT_PREOP_COMPLETE }
        }
        Err(status) => {
            flight.set_outcome((status, 0));
            flt::FLT_PREOP_COMPLETE
        }
    }
}

/// The conditions of `ifs/granting-oplocks` that are not about other oplocks.
fn conditions(flight: &Flight, wanted: Grant, open_count: u32, all_keys_match: bool) -> Result<(), NtStatus> {
    let open = flight.open().ok_or(NtStatus::INVALID_PARAMETER)?;
    let of_folders = matches!(wanted, Grant::Cache(R | RH));
    if open.stream.kind != StreamKind::File && !of_folders {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if is_synchronous(flight.target()) {
        return Err(NtStatus::OPLOCK_NOT_GRANTED);
    }
    // Of a shared oplock the count says whether there are byte-range locks; else it is the number of open handles.
    let most = u32::from(!wanted.is_shared());
    let keys = all_keys_match && matches!(wanted, Grant::Cache(_));
    if open_count > most && !keys {
        return Err(NtStatus::OPLOCK_NOT_GRANTED);
    }
    if matches!(wanted, Grant::Cache(_)) && open.stream.has_user_writable_references() {
        return Err(NtStatus::CANNOT_GRANT_REQUESTED_OPLOCK);
    }
    Ok(())
}

/// FILE_RESERVE_OPFILTER in a create: whether a Filter oplock could be requested on the new handle.
fn reserve(flight: &Flight, open_count: u32) -> NtStatus {
    const SHARE_ALL: u32 = 7;
    let fits = flight.create.as_ref().is_some_and(|create| {
        create.access & !AccessMask::SYNCHRONIZE.bits() == AccessMask::FILE_READ_ATTRIBUTES.bits()
            && create.share == SHARE_ALL
    });
    if fits && open_count == 1 { NtStatus::SUCCESS } else { NtStatus::OPLOCK_NOT_GRANTED }
}

/// FILE_COMPLETE_IF_OPLOCKED of a create, as a flag of the calls that check.
pub(super) fn flags_of_create(flight: &Flight) -> u32 {
    let asked = flight.major() == major::CREATE && options_of(flight) & option::COMPLETE_IF_OPLOCKED != 0;
    if asked { COMPLETE_IF_OPLOCKED } else { 0 }
}

fn options_of(flight: &Flight) -> u32 {
    let create: flt::Create = operation::parameters(flight.block());
    create.Options
}

/// What an operation does to those who cache the stream; `None`: nothing.
pub(super) fn trigger(flight: &Flight) -> Option<Trigger> {
    match flight.major() {
        major::CREATE => of_create(flight),
        major::READ => Some(Trigger::Read),
        major::WRITE if crate::fs::serve::is_paging(flight) => None,
        major::WRITE => Some(Trigger::Write),
        major::LOCK_CONTROL => Some(Trigger::Lock),
        major::SET_INFORMATION => of_information(flight),
        major::FILE_SYSTEM_CONTROL if code_of(flight) == Some(code::SET_ZERO_DATA) => Some(Trigger::Write),
        _ => None,
    }
}

fn of_create(flight: &Flight) -> Option<Trigger> {
    let create = flight.create.as_ref()?;
    let access = crate::fs::access::map_generic(AccessMask::from_bits_retain(create.access));
    let attributes = AccessMask::FILE_READ_ATTRIBUTES | AccessMask::FILE_WRITE_ATTRIBUTES | AccessMask::SYNCHRONIZE;
    let reads = attributes
        | AccessMask::FILE_READ_DATA
        | AccessMask::FILE_READ_EA
        | AccessMask::FILE_EXECUTE
        | AccessMask::READ_CONTROL;
    let options = options_of(flight);
    let reserves = options & option::RESERVE_OPFILTER != 0;
    if attributes.contains(access) && !reserves {
        return None;
    }
    let overwrites =
        matches!(options >> 24, disposition::SUPERSEDE | disposition::OVERWRITE | disposition::OVERWRITE_IF);
    let parameters: flt::Create = operation::parameters(flight.block());
    let shares_reads = parameters.ShareAccess & 1 != 0;
    let writes_alone = !reads.contains(access) && !shares_reads;
    Some(Trigger::Create { takes_all: overwrites || reserves, writes_alone })
}

fn of_information(flight: &Flight) -> Option<Trigger> {
    let parameters: SetFileInformation = operation::parameters(flight.block());
    let first = || Buffer::new(parameters.InfoBuffer.addr(), parameters.Length.min(1)).read().ok()?.first().copied();
    match parameters.FileInformationClass {
        // FileAllocationInformation, FileEndOfFileInformation, FileValidDataLengthInformation.
        19 | 20 | 39 => Some(Trigger::Write),
        // FileRenameInformation, FileLinkInformation, FileShortNameInformation, and the first two with Ex.
        10 | 11 | 40 | 65 | 72 => Some(Trigger::Rename),
        // FileDispositionInformation and Ex: DeleteFile, or FILE_DISPOSITION_DELETE.
        13 | 64 => first().is_some_and(|delete| delete & 1 != 0).then_some(Trigger::Delete),
        _ => None,
    }
}

/// Tells the owner of an oplock what has become of it: the end of its request.
pub(super) fn end(thread: &Thread, ended: Ended) {
    let Ended { request, status, from, to, acknowledge } = ended;
    let Grant::Cache(from) = from else {
        let left = if to.is_some() { BROKEN_TO_LEVEL_2 } else { BROKEN_TO_NONE };
        return complete(thread, &request, (status, left));
    };
    let left = to.map_or_else(Caching::empty, Grant::caching);
    // StructureVersion and StructureLength, original and new level, REQUEST_OPLOCK_OUTPUT_FLAG_ACK_REQUIRED, no modes.
    let words = [1 | (OUTPUT as u32) << 16, from.bits(), left.bits(), u32::from(acknowledge), 0, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let address = field!(request.block(), FLT_IO_PARAMETER_BLOCK, Parameters);
    let parameters: FileSystemControlNeither = address.cast::<FileSystemControlNeither>().read();
    // METHOD_BUFFERED: one buffer for both ways, which was long enough when the request came.
    let written = Buffer::new(parameters.InputBuffer.addr(), OUTPUT as u32).write(&bytes);
    complete(thread, &request, (status, written.unwrap_or(0)));
}
