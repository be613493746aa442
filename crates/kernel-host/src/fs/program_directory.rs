//! What programs do with folders, locks and control codes.

use nt_types::{AccessMask, NtStatus, UNICODE_STRING};

use super::issue::Listing;
use super::path::wide;
use super::program_file::ProgramFile;
use crate::flt::major;

/// Bytes of a listing's buffer: what `FindFirstFile` uses is of that order.
const LISTING_BYTES: u32 = 4096;

/// `FileNamesInformation`.
const NAMES: u32 = 12;

impl ProgramFile {
    /// All names in the folder that match `pattern` (`*` for all), in the volume's order, with `.` and `..`.
    ///
    /// # Errors
    /// `NO_SUCH_FILE` when nothing matches, `INVALID_PARAMETER` for what is no folder, `ACCESS_DENIED` without the right.
    pub fn list(&self, pattern: &str) -> Result<Vec<String>, NtStatus> {
        let mut names = Vec::new();
        let mut restart = true;
        loop {
            match self.query_directory(NAMES, LISTING_BYTES, Some(pattern), restart, false) {
                Ok(bytes) => names.extend(entries(&bytes)),
                Err(NtStatus::NO_MORE_FILES) => return Ok(names),
                Err(status) => return Err(status),
            }
            restart = false;
        }
    }

    /// NtQueryDirectoryFile: one buffer of raw entries.
    ///
    /// # Errors
    /// `NO_SUCH_FILE` in the first call, `NO_MORE_FILES` at the end, `INFO_LENGTH_MISMATCH`, `BUFFER_OVERFLOW`.
    pub fn query_directory(
        &self,
        class: u32,
        length: u32,
        pattern: Option<&str>,
        restart: bool,
        single: bool,
    ) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::FILE_READ_DATA)?;
        let buffer = self.buffer(length)?;
        let text = pattern.map(wide).unwrap_or_default();
        let pattern = pattern.and_then(|_| UNICODE_STRING::from_utf16(&text));
        let (status, count) = self.issue(&object, |issue| {
            let listing = Listing { class, pattern: pattern.as_ref(), restart, single };
            issue.query_directory((buffer.address(), length), listing)
        })?;
        status.ok()?;
        self.process.memory().read_vec(buffer.address(), count.min(length as usize))
    }

    /// NtFsControlFile that waits for its end.
    ///
    /// # Errors
    /// What the filters or the file system answer; `INVALID_DEVICE_REQUEST` for a code that neither knows.
    pub fn fs_control(&self, code: u32, input: &[u8], output_length: u32) -> Result<Vec<u8>, NtStatus> {
        self.control(major::FILE_SYSTEM_CONTROL, code, input, output_length)
    }

    /// NtDeviceIoControlFile that waits for its end.
    ///
    /// # Errors
    /// As [`fs_control`](Self::fs_control).
    pub fn device_control(&self, code: u32, input: &[u8], output_length: u32) -> Result<Vec<u8>, NtStatus> {
        self.control(major::DEVICE_CONTROL, code, input, output_length)
    }

    fn control(&self, major: u8, code: u32, input: &[u8], output_length: u32) -> Result<Vec<u8>, NtStatus> {
        /// Access bits of a control code, and the rights that they ask for.
        const RIGHTS: [(u32, AccessMask); 2] = [(1, AccessMask::FILE_READ_DATA), (2, AccessMask::FILE_WRITE_DATA)];
        let needed = RIGHTS.iter().filter(|(bit, _)| code >> 14 & bit != 0);
        let needed = needed.fold(AccessMask::empty(), |all, (_, right)| all | *right);
        let object = self.object(needed)?;
        let (given, taken) = (self.process.buffer(input)?, self.buffer(output_length)?);
        let input_range = if input.is_empty() { (0, 0) } else { (given.address(), input.len() as u32) };
        let output_range = if output_length == 0 { (0, 0) } else { (taken.address(), output_length) };
        let (status, count) = self.issue(&object, |issue| issue.run_control(major, code, input_range, output_range))?;
        status.ok()?;
        self.process.memory().read_vec(taken.address(), count.min(output_length as usize))
    }

    /// NtLockFile without waiting: `length` bytes from `offset` on, shared or exclusive, for `key`.
    ///
    /// # Errors
    /// `LOCK_NOT_GRANTED`, `INVALID_LOCK_RANGE`, `ACCESS_DENIED`.
    pub fn lock(&self, offset: i64, length: i64, exclusive: bool, key: u32) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::FILE_READ_DATA).or_else(|_| self.writable_object())?;
        self.issue(&object, |issue| issue.lock(offset, length, exclusive, key, true))?.0.ok()
    }

    /// NtUnlockFile: a range that was locked exactly so.
    ///
    /// # Errors
    /// `RANGE_NOT_LOCKED`.
    pub fn unlock(&self, offset: i64, length: i64, key: u32) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::empty())?;
        self.issue(&object, |issue| issue.unlock(offset, length, key))?.0.ok()
    }
}

/// Names of FILE_NAMES_INFORMATION entries.
fn entries(bytes: &[u8]) -> Vec<String> {
    let number =
        |at: usize| bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes);
    let mut names = Vec::new();
    let mut at = 0;
    loop {
        let length = number(at + 8) as usize;
        let name = bytes.get(at + 12..at + 12 + length).unwrap_or_default();
        let units: Vec<u16> = name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        names.push(String::from_utf16_lossy(&units));
        match number(at) as usize {
            0 => return names,
            next => at += next,
        }
    }
}
