//! Runs unmodified Windows kernel drivers (`.sys`, x64) inside a Linux process.
//!
//! A [`Machine`] is one simulated computer: volumes on host folders, a registry, processes with their
//! own user memory, and loaded drivers. Driver code is the driver's own machine code, mapped, relocated and
//! called at native speed; every import is bound to a function of this crate that does what the DDI's page
//! documents, and checks what Driver Verifier would check.
//!
//! How a call flows:
//!
//! 1. A test (or the `kernel-host` command) asks the machine for something: load a driver, connect to a port.
//! 2. The machine enters driver code on the current thread through [`thread::Thread::call_driver`], with the IRQL and
//!    process context that the callback's page documents.
//! 3. The driver calls an import. Its thunk (one per driver and import) notes who called from where, then jumps to the
//!    export's function, which opens a [`ddi::Call`]: the one gate where IRQL is checked, the call is traced and findings
//!    are attributed to the calling driver.
//! 4. A broken rule is a [`finding::Finding`]: the machine stops, and whoever entered driver code gets the report.
//!
//! Many machines can live in one process, so that tests run in parallel: nothing here is global but what describes
//! the host process itself (loaded images by address, simulated user address space).
#![expect(unsafe_code, reason = "maps images, enters driver code and serves its imports, all through raw pointers")]

pub mod ddi;
pub mod fault;
pub mod finding;
pub mod leak;
pub mod machine;
pub mod process;
pub mod thread;
pub mod trace;

#[cfg(test)]
mod conformance;
mod cpu;
mod flt;
mod fs;
pub mod image;
pub mod inf;
mod ndis;
mod nt;
pub mod origin;
mod random;
mod schedule;
pub mod server;
mod watchdog;

pub use fault::{Sweep, SweepReport, Trial};
pub use finding::{Finding, Rule};
pub use flt::manager::InstanceSummary;
pub use flt::message::Message;
pub use flt::program::{FilterSummary, PortConnection, PortSummary};
pub use fs::access::Audience;
pub use fs::program::OpenOptions;
pub use fs::program_file::{NewName, ProgramFile};
pub use fs::program_overlapped::Overlapped;
pub use fs::program_view::MappedView;
pub use image::LoadError;
pub use leak::{Leak, LeakKind, LeakReport};
pub use machine::{Driver, DriverError, Machine, MachineBuilder, PlugInError};
pub use ndis::adapter::{Adapter, AdapterError, AdapterState};
pub use ndis::filter::program::{FilterDriverSummary, FilterModuleSummary};
pub use ndis::filter::{FilterClass, FilterState};
pub use ndis::protocol::BindingState;
pub use ndis::protocol::program::{BindingSummary, ProtocolSummary};
pub use ndis::status::StatusIndication;
pub use ndis::{ErrorLogEntry, EventLogEntry};
pub use nt::etw::{Event, EventField, EventValue};
pub use nt::hive as registry;
pub use nt::hive_file::RegistryFileError;
pub use nt::io::error_log::SystemLogEntry;
pub use nt::io::kernel_client::{KernelDevice, KernelRequest};
pub use nt::io::program::{PendingRequest, ProgramDevice, RequestOutcome};
pub use nt::ob_events::ProgramEvent;
pub use nt::registry::program::ProgramKey;
pub use process::UserMemoryChecks;
