//! System tests: the release `fwbroker.sys` and `samplenic.sys`, unmodified, in kernel-host.
//!
//! Every test ends with [`fwbroker_tests::Bench::finish`]: both drivers are unloaded, and nothing of theirs may be left: no
//! handle, no pool byte, no reference, no mapping.

mod attack_clients;
mod attack_files;
mod attack_fuzz;
mod attack_load;
mod attack_nic;
mod attack_revocation;
mod attack_settings;
mod attack_stress;
mod churn;
mod cli;
mod disconnects;
mod faults;
mod files;
mod handles;
mod lifetime;
mod messages;
mod nic;
mod pass_through;
mod refusals;
mod revocation;
mod sessions;
mod staging;
mod users;
