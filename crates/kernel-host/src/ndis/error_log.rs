//! `NdisWriteErrorLogEntry`.

use super::Ndis;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Machine;
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisWriteErrorLogEntry(max 2) = ndis_host_write_error_log_entry;
}

/// What fits into an error log record of the system: (`ERROR_LOG_MAXIMUM_SIZE` - the packet's own 48 bytes) / 4.
const MOST_VALUES: u32 = 48;

/// One entry of the system's error log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ErrorLogEntry {
    /// Name of the adapter.
    pub adapter: String,
    /// `NDIS_ERROR_CODE_*`.
    pub code: u32,
    /// What the driver added.
    pub values: Vec<u32>,
}

impl Machine {
    /// What miniports wrote with `NdisWriteErrorLogEntry`, oldest first.
    #[must_use]
    pub fn ndis_error_log(&self) -> Vec<ErrorLogEntry> {
        self.inner().ndis.error_log()
    }
}

impl Ndis {
    fn error_log(&self) -> Vec<ErrorLogEntry> {
        self.lock().error_log.clone()
    }
}

unsafe extern "efiapi" {
    fn ndis_host_write_error_log_entry();
}

// Variadic functions cannot be written in stable Rust. In the Microsoft convention the variadic arguments form an array as
// soon as the one in a register is stored where the caller has left room for it.
core::arch::global_asm!(
    r#"
    .text
    .globl ndis_host_write_error_log_entry
ndis_host_write_error_log_entry:
    mov [rsp + 32], r9
    lea r9, [rsp + 32]
    jmp {write}
"#,
    write = sym write,
);

extern "efiapi" fn write(handle: usize, code: u32, count: u32, values: Raw<u64>) {
    let call = Call::enter();
    let adapter = call.machine().ndis.port(&call, handle).name.clone();
    if count > MOST_VALUES {
        call.stop(Rule::BadArgument, format!("{count} values; an error log record holds {MOST_VALUES}"));
    }
    // Each slot is 64 bits wide; the values are ULONGs.
    let values = values.read_slice(count as usize).into_iter().map(|slot| slot as u32).collect();
    let entry = ErrorLogEntry { adapter, code, values };
    call.detail(format_args!("{code:#010x} {:x?}", entry.values));
    call.machine().ndis.lock().error_log.push(entry);
}
