//! Finding one's way among the instances on a volume, by altitude.

use std::cmp::Ordering;
use std::sync::Arc;

use nt_types::NtStatus;

use super::Instance;
use super::object;
use super::volumes::give;
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCompareInstanceAltitudes(max 2) = flt_compare_instance_altitudes;
    FltGetTopInstance(max 1) = flt_get_top_instance;
    FltGetBottomInstance(max 1) = flt_get_bottom_instance;
    FltGetUpperInstance(max 1) = flt_get_upper_instance;
    FltGetLowerInstance(max 1) = flt_get_lower_instance;
}

extern "efiapi" fn flt_compare_instance_altitudes(one: usize, other: usize) -> i32 {
    let call = Call::enter();
    let (one, other) = (object::instance(&call, one), object::instance(&call, other));
    match one.altitude.cmp(&other.altitude) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }
}

/// Hands out the first of `candidates` that is not on its way out.
fn give_first(call: &Call, candidates: impl Iterator<Item = Arc<Instance>>, out: Raw<usize>) -> NtStatus {
    for instance in candidates {
        if give(call, &instance.rundown, instance.address, out).is_success() {
            call.detail(&instance.name);
            return NtStatus::SUCCESS;
        }
    }
    NtStatus::NO_MORE_ENTRIES
}

extern "efiapi" fn flt_get_top_instance(volume: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    give_first(&call, volume.instances().into_iter(), out)
}

extern "efiapi" fn flt_get_bottom_instance(volume: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    give_first(&call, volume.instances().into_iter().rev(), out)
}

extern "efiapi" fn flt_get_upper_instance(instance: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let above = instance.volume.instances().into_iter().rev();
    give_first(&call, above.filter(|other| other.altitude > instance.altitude), out)
}

extern "efiapi" fn flt_get_lower_instance(instance: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let below = instance.volume.instances().into_iter();
    give_first(&call, below.filter(|other| other.altitude < instance.altitude), out)
}
