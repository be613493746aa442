//! What can go wrong, and how it is told: what failed, why, what to do next.

use std::{fmt, io};

use nt_types::NtStatus;
use protocol::{Failure, Phase, ReplyError};
use serde::Serialize;

use crate::filter_library::{HResult, LibraryError};

/// Everything that can go wrong. Each has an exit code and a report.
#[derive(Debug)]
pub enum Error {
    /// The driver refused a request.
    Refused {
        /// What was to be done, such as `open C:\Firmware\nic.rom`.
        action: String,
        /// The driver's answer.
        failure: Failure,
    },
    /// A call of the system failed.
    Call {
        /// What was to be done.
        action: String,
        /// Which call.
        call: FltlibCall,
        /// How it failed.
        error: LibraryError,
    },
    /// The driver's answer does not follow the protocol.
    Protocol {
        /// What was to be done.
        action: String,
        /// What is wrong with the answer.
        error: ReplyError,
    },
    /// A file of the client's own side could not be read or written.
    Local {
        /// What was to be done.
        action: String,
        /// How it failed.
        error: io::Error,
    },
    /// The bytes read are not those that were verified.
    Changed {
        /// What was to be done.
        action: String,
        /// The digest that was verified.
        expected: String,
        /// The digest of the bytes read.
        actual: String,
    },
    /// The arguments make no sense, in a way that only shows while they are used.
    Usage {
        /// What is wrong.
        message: String,
        /// What to give instead.
        next: String,
    },
}

/// Which call of fltlib failed: the same HRESULT means different things to different calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FltlibCall {
    /// `FilterLoad`.
    Load,
    /// `FilterUnload`.
    Unload,
    /// `FilterConnectCommunicationPort`.
    Connect,
    /// `FilterSendMessage`.
    Send,
    /// Finding the machine's folders.
    Folders,
}

/// An error as JSON output has it. Fields that do not apply are null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// NTSTATUS of a refusal or HRESULT of a call, such as `0xC000000F`.
    pub status: Option<String>,
    /// Name of the status, such as `STATUS_NO_SUCH_FILE`.
    pub status_name: Option<String>,
    /// Name of the driver's reason, such as `FileNotFound`.
    pub reason: Option<String>,
    /// Phase of staging in which it failed, such as `reading`.
    pub phase: Option<String>,
    /// What failed, and why.
    pub message: String,
    /// What to do next.
    pub next: String,
}

impl Error {
    /// An error of this side's file system.
    pub fn local(action: impl Into<String>, error: io::Error) -> Self {
        Self::Local { action: action.into(), error }
    }

    /// 1 refused or failed, 2 usage, 3 the driver cannot be reached.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Call { error: LibraryError::Unreachable { .. }, .. }
            | Self::Call { call: FltlibCall::Connect | FltlibCall::Send, .. }
            | Self::Protocol { .. } => 3,
            _ => 1,
        }
    }

    /// What to print or to put into JSON.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        match self {
            Self::Refused { action, failure } => refusal(action, failure),
            Self::Call { action, call, error } => call_failure(action, *call, error),
            Self::Protocol { action, error } => ErrorReport::of(
                format!("cannot {action}: the driver's answer is malformed: {error}"),
                "use a fwbctl of the driver's release",
            ),
            Self::Local { action, error } => ErrorReport::of(format!("cannot {action}: {error}"), local_next(error)),
            Self::Changed { action, expected, actual } => ErrorReport::of(
                format!("cannot {action}: the bytes read have SHA-256 {actual}, verified was {expected}"),
                "something changed the file meanwhile; find out what, and try again",
            ),
            Self::Usage { message, next } => ErrorReport::of(message.clone(), next),
        }
    }
}

impl ErrorReport {
    fn of(message: String, next: &str) -> Self {
        Self { status: None, status_name: None, reason: None, phase: None, message, next: next.into() }
    }
}

fn refusal(action: &str, failure: &Failure) -> ErrorReport {
    let status = NtStatus(failure.status);
    let phase = Phase::from_code(failure.detail.phase);
    let why = match failure.reason() {
        Some(reason) => reason.message().to_owned(),
        None if failure.reason == 0 => format!("the driver answered {status}"),
        None => format!("the driver answered {status}, reason {}", failure.reason),
    };
    let during = phase.map_or_else(String::new, |phase| format!(" (while {})", phase.name()));
    let behind = match failure.detail.system_status {
        0 => String::new(),
        status => format!("; the system said {}", NtStatus(status)),
    };
    let message = format!("cannot {action}: {why}{during}{behind}");
    ErrorReport {
        status: Some(format!("0x{:08X}", status.bits())),
        status_name: status.name().map(str::to_owned),
        reason: failure.reason().map(|reason| reason.name().to_owned()),
        phase: phase.map(|phase| phase.name().to_owned()),
        message,
        next: failure
            .reason()
            .map_or("look the status up; `fwbctl status` shows the driver's version", |reason| reason.next())
            .to_owned(),
    }
}

fn call_failure(action: &str, call: FltlibCall, error: &LibraryError) -> ErrorReport {
    let (hresult, text) = match error {
        LibraryError::Unreachable { message, next } => {
            return ErrorReport::of(format!("cannot {action}: {message}"), next);
        }
        LibraryError::Failed { hresult, text } => (*hresult, text),
    };
    let (why, next) = explain(call, hresult);
    let text = if text.is_empty() { String::new() } else { format!(" ({text})") };
    let message = format!("cannot {action}: {why}{text}");
    ErrorReport {
        status: Some(hresult.to_string()),
        status_name: hresult.name().map(str::to_owned),
        ..ErrorReport::of(message, next)
    }
}

/// Why, and what to do, for the results that these calls are known to have.
fn explain(call: FltlibCall, hresult: HResult) -> (String, &'static str) {
    let (why, next) = match (call, hresult.bits()) {
        (FltlibCall::Connect, 0x8007_0002) => ("the driver is not loaded", "run `fwbctl load`, as administrator"),
        (_, 0x8007_0005 | 0x8007_0522) => (
            "only administrators may do that",
            "run the command as administrator (on Linux: as the user who runs kernel-host)",
        ),
        (FltlibCall::Connect, 0x8007_04D6) => {
            ("the driver serves as many clients as it can", "end another client and try again")
        }
        (FltlibCall::Connect | FltlibCall::Send, 0x8007_0006 | 0x801F_000B) => {
            ("the driver is being unloaded", "run `fwbctl load` when that is done")
        }
        (FltlibCall::Load, 0x8007_0002 | 0x8007_0424) => {
            ("the service or its .sys file is not there", "install the driver with its .inf first")
        }
        (FltlibCall::Load, 0x8007_00B7 | 0x8007_0420) => {
            ("the driver is loaded already", "nothing to do; `fwbctl status` shows it")
        }
        (FltlibCall::Load, 0x8007_0241) => (
            "the driver's signature is not valid here",
            "install a signed build, or allow test signing with `bcdedit /set testsigning on`",
        ),
        (FltlibCall::Load, 0x8007_00C1 | 0x8007_07D1) => {
            ("the .sys file is no driver for this machine", "install the build for this processor")
        }
        (FltlibCall::Unload, 0x8007_0002 | 0x801F_0013) => ("the driver is not loaded", "nothing to do"),
        (FltlibCall::Unload, 0x801F_0010) => (
            "clients or NIC drivers still hold handles or images",
            "`fwbctl handles` shows who; close or revoke them, then unload",
        ),
        _ => {
            let name = hresult.name().map_or_else(String::new, |name| format!(" ({name})"));
            return (
                format!("the call ended with {hresult}{name}"),
                "look the result up in the documentation of the Filter Manager",
            );
        }
    };
    (why.to_owned(), next)
}

fn local_next(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "run the command as a user who may do that",
        io::ErrorKind::StorageFull => "free some space and try again",
        _ => "check the path and the volume, and try again",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        f.write_str(&report.message)?;
        if let Some(status) = &report.status {
            match &report.status_name {
                Some(name) => write!(f, " [{name} {status}]")?,
                None => write!(f, " [{status}]")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
