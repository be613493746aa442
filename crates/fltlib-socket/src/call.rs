//! What a client can ask kernel-host for, and what comes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::status::{MachineStatus, Target, TraceEntry, UnloadReport};
use crate::{HResult, WireError};

/// One call. The first group is fltlib's, under its own names; the second controls the machine, and is what on
/// Windows the service manager, the device manager and a debugger are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// First call of a connection: makes the simulated process.
    Hello {
        /// Image name of the program, such as `fwbctl.exe`.
        image_name: String,
        /// Process id that the client has on its own system; for lists only.
        process_id: u32,
        /// Whether the process wants an administrator's token. `false` is how a test plays a plain user.
        administrator: bool,
    },

    /// `FilterLoad`: starts a minifilter's service.
    FilterLoad {
        /// Service name.
        service: String,
    },
    /// `FilterUnload`: asks a minifilter to unload.
    FilterUnload {
        /// Service name.
        service: String,
    },
    /// `FilterConnectCommunicationPort`. The frame's data is the context, at most 65,535 bytes.
    FilterConnectCommunicationPort {
        /// Name in the object namespace, such as `\FwBrokerPort`.
        port_name: String,
        /// `dwOptions`: 0, or 1 for `FLT_PORT_FLAG_SYNC_HANDLE`.
        options: u32,
    },
    /// `FilterSendMessage`. The frame's data is the input buffer.
    FilterSendMessage {
        /// Port from [`Answer::Port`].
        port: u64,
        /// Length in bytes of the output buffer that the driver gets.
        out_length: u32,
    },
    /// `CloseHandle` of a port.
    CloseHandle {
        /// Port from [`Answer::Port`].
        port: u64,
    },

    /// What there is in the machine.
    Status,
    /// Starts the service of a driver that is no minifilter.
    LoadDriver {
        /// Service name, or image file name.
        driver: String,
    },
    /// Stops the service of a driver that is no minifilter.
    UnloadDriver {
        /// Service name, or image file name.
        driver: String,
    },
    /// Plugs in a network adapter; NDIS initialises its miniport before the call returns.
    AddAdapter {
        /// Image file name of the miniport driver, such as `samplenic.sys`.
        driver: String,
        /// Name of the new adapter.
        name: String,
        /// Registry parameters that the miniport reads with `NdisReadConfiguration`.
        #[serde(default)]
        parameters: BTreeMap<String, Parameter>,
    },
    /// Unplugs a network adapter; its miniport is halted before the call returns.
    RemoveAdapter {
        /// Name of the adapter.
        name: String,
    },
    /// What drivers have left behind, one report for each unload so far, oldest first.
    UnloadReports,
    /// DDI calls made so far, from a sequence number on.
    Trace {
        /// First sequence number wanted; 0 for all that are kept.
        since: u64,
        /// Most entries wanted.
        limit: u32,
    },
    /// Which host folders the machine's volumes and system folders are.
    Target,
    /// Stops the machine: drivers are unloaded and the server ends.
    Shutdown,
}

/// Value of an adapter's registry parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// `REG_DWORD`.
    Dword(u32),
    /// `REG_SZ`.
    Text(String),
}

/// Result of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// As fltlib would return it.
    pub hresult: HResult,
    /// For people: why the host refused. Empty on success, and where the HRESULT says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What came back. [`Answer::Done`] on failure.
    pub answer: Answer,
}

/// What a successful call gives back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Nothing but success.
    Done,
    /// The simulated process.
    Process {
        /// Its process id in the machine.
        process_id: u32,
        /// Whether it has an administrator's token.
        administrator: bool,
    },
    /// An open port.
    Port {
        /// Its handle in the simulated process.
        port: u64,
    },
    /// A message was delivered. The frame's data is the output buffer's first `bytes_returned` bytes.
    Message {
        /// `lpBytesReturned`.
        bytes_returned: u32,
    },
    /// What there is in the machine.
    Status(MachineStatus),
    /// What drivers have left behind.
    UnloadReports {
        /// One report for each unload, oldest first.
        reports: Vec<UnloadReport>,
    },
    /// DDI calls.
    Trace {
        /// In the order in which they ended.
        entries: Vec<TraceEntry>,
        /// What to give as `since` next time.
        next: u64,
    },
    /// Host folders.
    Target(Target),
}

impl Reply {
    /// A success.
    #[must_use]
    pub const fn success(answer: Answer) -> Self {
        Self { hresult: HResult::S_OK, message: String::new(), answer }
    }

    /// A refusal.
    #[must_use]
    pub fn failure(hresult: HResult, message: impl Into<String>) -> Self {
        Self { hresult, message: message.into(), answer: Answer::Done }
    }

    /// Success with this very answer, or an error of the wire.
    pub(crate) fn expect<T>(
        self,
        pick: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<Result<T, (HResult, String)>, WireError> {
        if self.hresult.is_failure() {
            return Ok(Err((self.hresult, self.message)));
        }
        pick(self.answer).map(Ok).ok_or(WireError::OutOfTurn)
    }
}
