//! Memory that a request names: a program's, a driver's or the host's own, which may all be gone by the time it is used.

use fltmgr::raw::FLT_IO_PARAMETER_BLOCK;
use nt_types::{MDL, MdlFlags, NtStatus};

use crate::cpu::memory::try_copy;
use crate::nt::raw::{Raw, field};
use crate::process::HIGHEST_USER_ADDRESS;
use crate::process::memory::view::owner_of;

/// A range of memory that a request says is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub(crate) address: usize,
    pub(crate) length: usize,
}

impl Buffer {
    pub(crate) fn new(address: usize, length: u32) -> Self {
        Self { address, length: length as usize }
    }

    /// The buffer at `address`, or the one that the MDL describes: the pages of "File systems read, filters write: the MDL counts".
    pub(crate) fn described(address: usize, list: *mut MDL, length: u32) -> Self {
        let mapped = Raw::of(list).some().map(system_address).filter(|&address| address != 0);
        Self::new(mapped.unwrap_or(address), length)
    }

    /// Whether it is a program's, which the host touches as the program itself would: file systems guard such accesses.
    fn is_user(self) -> bool {
        self.length > 0 && self.address <= HIGHEST_USER_ADDRESS
    }

    /// All of it.
    ///
    /// # Errors
    /// `INVALID_USER_BUFFER`, when part of it cannot be read.
    pub(crate) fn read(self) -> Result<Vec<u8>, NtStatus> {
        let mut bytes = vec![0; self.length];
        if self.is_user() {
            let read = owner_of(self.address).is_some_and(|memory| memory.read(self.address, &mut bytes).is_ok());
            return if read { Ok(bytes) } else { Err(NtStatus::INVALID_USER_BUFFER) };
        }
        // SAFETY: only our own vector is written.
        let missing = unsafe { try_copy(bytes.as_mut_ptr(), Raw::<u8>::at(self.address).pointer(), self.length) };
        if missing == 0 { Ok(bytes) } else { Err(NtStatus::INVALID_USER_BUFFER) }
    }

    /// Has `source` write to it: gets an address that the host can use, and the length, and says how many bytes it wrote.
    ///
    /// # Errors
    /// `INVALID_USER_BUFFER` for memory of a program's that it could not write to itself, and those of `source`.
    pub(crate) fn fill(self, source: impl FnOnce(usize, usize) -> Result<usize, NtStatus>) -> Result<usize, NtStatus> {
        if !self.is_user() {
            return source(self.address, self.length);
        }
        let memory = owner_of(self.address).ok_or(NtStatus::INVALID_USER_BUFFER)?;
        memory.fill(self.address, self.length, source).unwrap_or(Err(NtStatus::INVALID_USER_BUFFER))
    }

    /// Copies `bytes` to its start; what does not fit is left out.
    ///
    /// # Errors
    /// `INVALID_USER_BUFFER`, when part of it cannot be written.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<usize, NtStatus> {
        let count = bytes.len().min(self.length);
        if let Some(bytes) = bytes.get(..count).filter(|_| self.is_user()) {
            let written = owner_of(self.address).is_some_and(|memory| memory.write(self.address, bytes).is_ok());
            return if written { Ok(count) } else { Err(NtStatus::INVALID_USER_BUFFER) };
        }
        // SAFETY: the range is the requester's, who said that the answer goes there; nothing of Rust's is there.
        let missing = unsafe { try_copy(Raw::<u8>::at(self.address).pointer(), bytes.as_ptr(), count) };
        if missing == 0 { Ok(count) } else { Err(NtStatus::INVALID_USER_BUFFER) }
    }
}

/// Where the host can touch what an MDL describes. 0 when its pages have no address yet.
fn system_address(list: Raw<MDL>) -> usize {
    let flags = MdlFlags::from_bits_retain(field!(list, MDL, MdlFlags).read());
    if flags.intersects(MdlFlags::MAPPED_TO_SYSTEM_VA | MdlFlags::SOURCE_IS_NONPAGED_POOL) {
        return field!(list, MDL, MappedSystemVa).read().addr();
    }
    let start = field!(list, MDL, StartVa).read().addr();
    if start == 0 { 0 } else { start + field!(list, MDL, ByteOffset).read() as usize }
}

/// Which of an operation's parameters are its buffer: offsets in FLT_PARAMETERS of the buffer's address, of its length and of the
/// MDL's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) buffer: usize,
    pub(crate) length: Option<usize>,
    pub(crate) list: Option<usize>,
    pub(crate) access: Access,
}

/// `LOCK_OPERATION`: what a filter may do with the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Access {
    /// `IoReadAccess`.
    Read = 0,
    /// `IoWriteAccess`.
    Write = 1,
    /// `IoModifyAccess`.
    Modify = 2,
}

impl Places {
    /// Those of an operation; `None` for one without a buffer.
    pub(crate) fn of(block: Raw<FLT_IO_PARAMETER_BLOCK>) -> Option<Self> {
        use crate::flt::major;
        let place = |buffer, length, list, access| Some(Self { buffer, length, list, access });
        let minor = field!(block, FLT_IO_PARAMETER_BLOCK, MinorFunction).read();
        match field!(block, FLT_IO_PARAMETER_BLOCK, MajorFunction).read() {
            major::CREATE => place(32, Some(24), None, Access::Read),
            major::READ => place(24, Some(0), Some(32), Access::Write),
            major::WRITE => place(24, Some(0), Some(32), Access::Read),
            major::QUERY_INFORMATION | major::QUERY_VOLUME_INFORMATION => place(16, Some(0), None, Access::Write),
            major::SET_INFORMATION => place(32, Some(0), None, Access::Read),
            major::SET_VOLUME_INFORMATION => place(16, Some(0), None, Access::Read),
            major::DIRECTORY_CONTROL if minor == 1 || minor == 2 => place(32, Some(0), Some(40), Access::Write),
            major::QUERY_EA => place(32, Some(0), Some(40), Access::Write),
            major::SET_EA => place(8, Some(0), Some(16), Access::Read),
            major::QUERY_SECURITY => place(16, Some(8), Some(24), Access::Write),
            major::SET_SECURITY => place(8, None, None, Access::Read),
            major::FILE_SYSTEM_CONTROL | major::DEVICE_CONTROL | major::INTERNAL_DEVICE_CONTROL => {
                // METHOD_BUFFERED has one buffer, METHOD_IN_DIRECT and METHOD_OUT_DIRECT an MDL behind the input,
                // METHOD_NEITHER two addresses. The output counts.
                match crate::flt::operation::parameters::<[u32; 5]>(block)[4] & 3 {
                    0 => place(24, Some(0), None, Access::Modify),
                    1 => place(32, Some(0), Some(40), Access::Read),
                    _ => place(32, Some(0), Some(40), Access::Write),
                }
            }
            _ => None,
        }
    }
}
