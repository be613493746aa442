//! Lookaside lists for ECP contexts. What they save on Windows is not worth saving here: each context is a block of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::{Cleanup, Guid, NONPAGED_POOL, New, allocate};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::object;
use crate::machine::Driver;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltInitExtraCreateParameterLookasideList(max 1) = flt_init_extra_create_parameter_lookaside_list;
    FltDeleteExtraCreateParameterLookasideList(max 1) = flt_delete_extra_create_parameter_lookaside_list;
    FltAllocateExtraCreateParameterFromLookasideList(max 1, fails RESOURCES)
        = flt_allocate_extra_create_parameter_from_lookaside_list;
}

/// Initialised lists by address.
#[derive(Default)]
pub(super) struct Lists(Mutex<HashMap<usize, List>>);

struct List {
    driver: Arc<Driver>,
    /// Bytes of its entries.
    size: usize,
    nonpaged: bool,
    tag: u32,
}

impl Lists {
    /// How many `driver` has not deleted.
    pub(super) fn of(&self, driver: &Driver) -> usize {
        self.lock().values().filter(|list| std::ptr::eq(Arc::as_ptr(&list.driver), driver)).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, List>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

extern "efiapi" fn flt_init_extra_create_parameter_lookaside_list(
    filter: usize,
    lookaside: usize,
    flags: u32,
    size: usize,
    tag: u32,
) {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let list = List { driver: Arc::clone(call.driver()), size, nonpaged: flags & NONPAGED_POOL != 0, tag };
    call.machine().flt.ecps.lookaside.lock().insert(lookaside, list);
}

extern "efiapi" fn flt_delete_extra_create_parameter_lookaside_list(filter: usize, lookaside: usize, flags: u32) {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let removed = call.machine().flt.ecps.lookaside.lock().remove(&lookaside);
    match removed {
        None => call.stop(Rule::BadArgument, format!("{lookaside:#x} is no lookaside list for ECPs (any more)")),
        Some(list) if list.nonpaged != (flags & NONPAGED_POOL != 0) => {
            call.stop(Rule::BadArgument, "the flags are not those of FltInitExtraCreateParameterLookasideList");
        }
        Some(_) => {}
    }
}

extern "efiapi" fn flt_allocate_extra_create_parameter_from_lookaside_list(
    filter: usize,
    kind: Raw<Guid>,
    size: u32,
    _flags: u32,
    cleanup: Option<Cleanup>,
    lookaside: usize,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let found =
        call.machine().flt.ecps.lookaside.lock().get(&lookaside).map(|list| (list.size, list.nonpaged, list.tag));
    let Some((fits, nonpaged, tag)) = found else {
        call.stop(Rule::BadArgument, format!("{lookaside:#x} is no lookaside list for ECPs (any more)"));
    };
    if size as usize > fits {
        call.detail(format_args!("{size} bytes from pool: the list's entries have {fits}"));
    }
    allocate(&call, &New { kind, size, nonpaged, cleanup, tag, out })
}
