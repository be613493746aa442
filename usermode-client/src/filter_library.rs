//! What the client needs of the system: load, unload, connect, send.

use std::fmt;
use std::path::PathBuf;

/// The calls of `fltlib.dll` that a client of the driver makes, wherever they are served.
pub trait FilterLibrary {
    /// `FilterLoad`: starts the minifilter's service. Needs an administrator.
    fn load(&mut self, service: &str) -> Result<(), LibraryError>;

    /// `FilterUnload`: asks the minifilter to unload. Needs an administrator.
    fn unload(&mut self, service: &str) -> Result<(), LibraryError>;

    /// `FilterConnectCommunicationPort`, without a context.
    fn connect(&mut self, port_name: &str) -> Result<Box<dyn Port>, LibraryError>;

    /// The folder in which `NdisOpenFile` looks, as this program reaches it: `%SystemRoot%\System32\drivers`.
    fn drivers_folder(&mut self) -> Result<PathBuf, LibraryError>;
}

/// A connected communication port. Dropping it closes it, and with it the driver's session.
pub trait Port {
    /// `FilterSendMessage`: delivers `input` and returns what the driver wrote, at most `out_length` bytes.
    fn send_message(&mut self, input: &[u8], out_length: u32) -> Result<Vec<u8>, LibraryError>;
}

/// Why a call did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LibraryError {
    /// The call was made, and ended with this.
    Failed {
        /// Result of the call, a failure.
        hresult: HResult,
        /// What the system adds in words; may be empty.
        text: String,
    },
    /// There is nothing to call: no socket, no host behind it, or one of another version.
    Unreachable {
        /// What is not there, and why.
        message: String,
        /// What to do next.
        next: String,
    },
}

/// Result of an fltlib call; negative is failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HResult(pub i32);

impl HResult {
    /// The 32 bits, as headers print them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// The Win32 error inside, where it is one.
    #[must_use]
    pub const fn win32(self) -> Option<u16> {
        let bits = self.bits();
        if bits >> 16 == 0x8007 { Some(bits as u16) } else { None }
    }

    /// The header's name for it, for those that fltlib's pages list.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.bits() {
            0x8007_0002 => "ERROR_FILE_NOT_FOUND",
            0x8007_0005 => "ERROR_ACCESS_DENIED",
            0x8007_0006 => "ERROR_INVALID_HANDLE",
            0x8007_0057 => "ERROR_INVALID_PARAMETER",
            0x8007_007A => "ERROR_INSUFFICIENT_BUFFER",
            0x8007_00B7 => "ERROR_ALREADY_EXISTS",
            0x8007_00C1 => "ERROR_BAD_EXE_FORMAT",
            0x8007_00EA => "ERROR_MORE_DATA",
            0x8007_0241 => "ERROR_INVALID_IMAGE_HASH",
            0x8007_03E6 => "ERROR_NOACCESS",
            0x8007_0420 => "ERROR_SERVICE_ALREADY_RUNNING",
            0x8007_0424 => "ERROR_SERVICE_DOES_NOT_EXIST",
            0x8007_04D6 => "ERROR_CONNECTION_COUNT_LIMIT",
            0x8007_0522 => "ERROR_PRIVILEGE_NOT_HELD",
            0x8007_05AA => "ERROR_NO_SYSTEM_RESOURCES",
            0x8007_07D1 => "ERROR_BAD_DRIVER",
            0x801F_0008 => "ERROR_FLT_FILTER_NOT_READY",
            0x801F_000B => "ERROR_FLT_DELETING_OBJECT",
            0x801F_0010 => "ERROR_FLT_DO_NOT_DETACH",
            0x801F_0011 => "ERROR_FLT_INSTANCE_ALTITUDE_COLLISION",
            0x801F_0013 => "ERROR_FLT_FILTER_NOT_FOUND",
            _ => return None,
        })
    }
}

impl fmt::Display for HResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08X}", self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::HResult;

    #[test]
    fn win32_errors_are_told_from_the_filter_managers_own() {
        assert_eq!(HResult(0x8007_0420_u32.cast_signed()).win32(), Some(1056));
        let busy = HResult(0x801F_0010_u32.cast_signed());
        assert_eq!((busy.win32(), busy.name()), (None, Some("ERROR_FLT_DO_NOT_DETACH")));
        assert_eq!(busy.to_string(), "0x801F0010");
    }
}
