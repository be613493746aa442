//! fltlib's calls on Windows.
#![expect(unsafe_code, reason = "calls fltlib.dll and adjusts the process token")]

use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::PathBuf;
use std::ptr::{null, null_mut};

use windows_sys::Win32::Foundation::{ERROR_SUCCESS, GetLastError, HANDLE, LUID};
use windows_sys::Win32::Security::{
    AdjustTokenPrivileges, LUID_AND_ATTRIBUTES, LookupPrivilegeValueW, SE_LOAD_DRIVER_NAME, SE_PRIVILEGE_ENABLED,
    TOKEN_ADJUST_PRIVILEGES, TOKEN_PRIVILEGES,
};
use windows_sys::Win32::Storage::InstallableFileSystems::{
    FilterConnectCommunicationPort, FilterLoad, FilterSendMessage, FilterUnload,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use crate::{FilterLibrary, HResult, LibraryError, Port};

/// The calls of `fltlib.dll`, in the name of this process.
pub(crate) struct Fltlib;

struct FltlibPort(OwnedHandle);

impl FilterLibrary for Fltlib {
    fn load(&mut self, service: &str) -> Result<(), LibraryError> {
        enable_load_driver_privilege()?;
        let service = wide(service);
        // SAFETY: `service` is a terminated UTF-16 string that outlives the call.
        check(unsafe { FilterLoad(service.as_ptr()) })
    }

    fn unload(&mut self, service: &str) -> Result<(), LibraryError> {
        enable_load_driver_privilege()?;
        let service = wide(service);
        // SAFETY: `service` is a terminated UTF-16 string that outlives the call.
        check(unsafe { FilterUnload(service.as_ptr()) })
    }

    fn connect(&mut self, port_name: &str) -> Result<Box<dyn Port>, LibraryError> {
        let port_name = wide(port_name);
        let mut handle: HANDLE = null_mut();
        // SAFETY: the name is terminated; a null context goes with size 0 as the page demands; null
        // attributes are allowed; `handle` is writable. All outlive the call.
        check(unsafe { FilterConnectCommunicationPort(port_name.as_ptr(), 0, null(), 0, null(), &raw mut handle) })?;
        // SAFETY: on success the call has stored a handle that nobody else owns and `CloseHandle` closes.
        Ok(Box::new(FltlibPort(unsafe { OwnedHandle::from_raw_handle(handle) })))
    }

    fn drivers_folder(&mut self) -> Result<PathBuf, LibraryError> {
        let root = std::env::var_os("SystemRoot").ok_or_else(|| LibraryError::Unreachable {
            message: "the environment variable SystemRoot is not set".into(),
            next: "give the folder with --to".into(),
        })?;
        Ok(PathBuf::from(root).join("System32").join("drivers"))
    }
}

impl Port for FltlibPort {
    fn send_message(&mut self, input: &[u8], out_length: u32) -> Result<Vec<u8>, LibraryError> {
        let too_long = || LibraryError::Failed {
            hresult: HResult(0x8007_0057_u32.cast_signed()),
            text: "a message of 4 GiB or more".into(),
        };
        let in_length = u32::try_from(input.len()).map_err(|_| too_long())?;
        let mut output = vec![0_u8; out_length as usize];
        let mut returned = 0;
        // SAFETY: the handle is an open port; both buffers have the lengths given and outlive the call, which
        // is synchronous; `returned` is writable.
        check(unsafe {
            FilterSendMessage(
                self.0.as_raw_handle(),
                input.as_ptr().cast(),
                in_length,
                output.as_mut_ptr().cast(),
                out_length,
                &raw mut returned,
            )
        })?;
        output.truncate(returned as usize);
        Ok(output)
    }
}

/// `FilterLoad` and `FilterUnload` want `SeLoadDriverPrivilege`, which administrators have but not enabled.
fn enable_load_driver_privilege() -> Result<(), LibraryError> {
    let mut token: HANDLE = null_mut();
    // SAFETY: takes nothing and returns a pseudo handle that needs no closing.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: `process` is this process's pseudo handle and `token` is writable.
    let opened = unsafe { OpenProcessToken(process, TOKEN_ADJUST_PRIVILEGES, &raw mut token) };
    if opened == 0 {
        return Err(last_error());
    }
    // SAFETY: the call above has stored a handle that nobody else owns.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };

    let mut luid = LUID::default();
    // SAFETY: a null system name means this one; the privilege's name is terminated; `luid` is writable.
    let found = unsafe { LookupPrivilegeValueW(null(), SE_LOAD_DRIVER_NAME, &raw mut luid) };
    if found == 0 {
        return Err(last_error());
    }
    let privileges = TOKEN_PRIVILEGES {
        PrivilegeCount: 1,
        Privileges: [LUID_AND_ATTRIBUTES { Luid: luid, Attributes: SE_PRIVILEGE_ENABLED }],
    };
    // SAFETY: the token was opened for this; `privileges` holds the one entry it counts; no old state is asked for.
    let adjusted =
        unsafe { AdjustTokenPrivileges(token.as_raw_handle(), 0, &raw const privileges, 0, null_mut(), null_mut()) };
    // The call succeeds also where the token lacks the privilege; only the last error tells.
    // SAFETY: reads a value of this thread.
    let error = unsafe { GetLastError() };
    if adjusted == 0 || error != ERROR_SUCCESS { Err(last_error()) } else { Ok(()) }
}

/// The last error of the thread as an HRESULT. `ERROR_NOT_ALL_ASSIGNED` means that the account lacks the
/// privilege, which `FilterLoad` itself would call `ERROR_PRIVILEGE_NOT_HELD`.
fn last_error() -> LibraryError {
    const ERROR_NOT_ALL_ASSIGNED: u32 = 1300;
    const ERROR_PRIVILEGE_NOT_HELD: u32 = 1314;
    // SAFETY: reads a value of this thread.
    let code = match unsafe { GetLastError() } {
        ERROR_NOT_ALL_ASSIGNED => ERROR_PRIVILEGE_NOT_HELD,
        code => code,
    };
    LibraryError::Failed { hresult: HResult((0x8007_0000 | code & 0xFFFF).cast_signed()), text: String::new() }
}

fn check(hresult: i32) -> Result<(), LibraryError> {
    if hresult < 0 {
        return Err(LibraryError::Failed { hresult: HResult(hresult), text: String::new() });
    }
    Ok(())
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}
