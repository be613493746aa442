//! Mutants: small drivers with one mistake each, and proof that kernel-host names it.
//!
//! Each source in `tests/drivers/mutants` is a correct driver, and a mutant for every `MUTANT_` name in it. A family's module
//! says how all of them are driven, and for each mutant what has to be found: the rule, the call, and the function of the
//! driver. The correct driver goes through the very same and must come out clean; without that, a rule that fires always
//! would pass for a good one.

mod catalogue;
mod crash;
mod exceptions;
mod execution;
mod family;
mod flt_buffers;
mod flt_contexts;
mod flt_io;
mod flt_names;
mod flt_ports;
mod flt_registration;
mod hangs;
mod irps;
mod irql;
mod leftovers;
mod locks;
mod ndis_filter;
mod ndis_miniport;
mod ndis_protocol;
mod objects;
mod paging;
mod pool;
mod resources;
mod rig;
mod stacks;
mod user_memory;
