//! Attaching and detaching on request: FltAttachVolume, FltAttachVolumeAtAltitude, FltDetachVolume.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fltmgr::raw::FltInstanceSetupFlags;
use nt_types::{NtStatus, UNICODE_STRING};

use super::altitude::Altitude;
use super::filter::{Filter, InstanceDefinition, definitions};
use super::instance::{self, Instance, VolumeStack};
use super::object;
use super::volumes::give;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::Raw;
use crate::nt::unicode;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltAttachVolume(max 0, fails RESOURCES) = flt_attach_volume;
    FltAttachVolumeAtAltitude(max 0, fails RESOURCES) = flt_attach_volume_at_altitude;
    FltDetachVolume(max 1) = flt_detach_volume;
}

/// `INSTANCE_NAME_MAX_CHARS`.
const NAME_MAX_CHARS: usize = 255;

/// Attaches an instance as the registry defines it: `name`, or the default one.
///
/// # Errors
/// `FLT_FILTER_NOT_READY`, `FLT_DELETING_OBJECT`, `OBJECT_NAME_NOT_FOUND` when the registry does not know the name,
/// `FLT_INSTANCE_NAME_COLLISION`, `OBJECT_NAME_COLLISION` when the altitude is taken, or the setup callback's answer.
pub(super) fn attach_by_name(
    thread: &Thread,
    filter: &Arc<Filter>,
    volume: &Arc<VolumeStack>,
    name: Option<&str>,
) -> Result<Arc<Instance>, NtStatus> {
    /// Instance flag in the registry.
    const NOT_BY_HAND: u32 = 2;
    check_ready(filter, volume)?;
    // The registry counts at this moment, not at registration.
    let known = definitions(thread.machine(), &filter.name)?;
    let wanted = match name {
        Some(name) => known.iter().find(|definition| unicode::same_name(&definition.name, name)),
        None => known.first(),
    };
    let definition = wanted.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    if definition.flags & NOT_BY_HAND != 0 {
        return Err(NtStatus::FLT_DO_NOT_ATTACH);
    }
    let attached = instance::attach(thread, filter, volume, definition, FltInstanceSetupFlags::MANUAL_ATTACHMENT);
    attached.map_err(|status| match status {
        // This page has another word for it than the one of FltAttachVolumeAtAltitude.
        NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION => NtStatus::OBJECT_NAME_COLLISION,
        status => status,
    })
}

/// Attaches an instance at any altitude, for debugging.
///
/// # Errors
/// `INVALID_PARAMETER` for what is no altitude, `FLT_FILTER_NOT_READY`, `FLT_DELETING_OBJECT`,
/// `FLT_INSTANCE_NAME_COLLISION`, `FLT_INSTANCE_ALTITUDE_COLLISION`, or the setup callback's answer.
pub(super) fn attach_at_altitude(
    thread: &Thread,
    filter: &Arc<Filter>,
    volume: &Arc<VolumeStack>,
    altitude: &str,
    name: Option<&str>,
) -> Result<Arc<Instance>, NtStatus> {
    check_ready(filter, volume)?;
    let generated = || format!("{} {altitude}", filter.name).chars().take(NAME_MAX_CHARS).collect();
    let definition = InstanceDefinition {
        altitude: Altitude::parse(altitude).ok_or(NtStatus::INVALID_PARAMETER)?,
        name: name.map_or_else(generated, str::to_owned),
        flags: 0,
    };
    instance::attach(thread, filter, volume, &definition, FltInstanceSetupFlags::MANUAL_ATTACHMENT)
}

fn check_ready(filter: &Filter, volume: &VolumeStack) -> Result<(), NtStatus> {
    if filter.rundown.is_ending() || volume.rundown.is_ending() {
        return Err(NtStatus::FLT_DELETING_OBJECT);
    }
    if filter.started.load(Ordering::Acquire) { Ok(()) } else { Err(NtStatus::FLT_FILTER_NOT_READY) }
}

/// Detaches the filter's instance of that name, or its highest, when it agrees.
///
/// # Errors
/// `FLT_INSTANCE_NOT_FOUND`, and those of [`instance::detach_manually`].
pub(super) fn detach(
    thread: &Thread,
    filter: &Arc<Filter>,
    volume: &Arc<VolumeStack>,
    name: Option<&str>,
) -> Result<(), NtStatus> {
    let matching = volume.instances().into_iter().find(|instance| {
        Arc::ptr_eq(&instance.filter, filter) && name.is_none_or(|name| unicode::same_name(&instance.name, name))
    });
    instance::detach_manually(thread, &matching.ok_or(NtStatus::FLT_INSTANCE_NOT_FOUND)?)
}

/// An optional name.
fn optional(name: Raw<UNICODE_STRING>) -> Result<Option<String>, NtStatus> {
    name.some().map(unicode::name).transpose()
}

/// The driver's own filter; another one's instances are not its business.
fn own_filter(call: &Call, filter: usize) -> Arc<Filter> {
    let filter = object::filter(call, filter);
    if !Arc::ptr_eq(&filter.driver, call.driver()) {
        call.stop(Rule::BadArgument, format!("Filter is {}, not the caller's own", filter.name));
    }
    filter
}

/// The new instance's pointer, with a reference where the driver has room for it.
fn answer(call: &Call, attached: Result<Arc<Instance>, NtStatus>, out: Raw<usize>) -> NtStatus {
    match attached {
        Ok(instance) if out.is_null() => {
            call.detail(&instance.name);
            NtStatus::SUCCESS
        }
        Ok(instance) => give(call, &instance.rundown, instance.address, out),
        Err(status) => {
            call.detail(status);
            status
        }
    }
}

extern "efiapi" fn flt_attach_volume(
    filter: usize,
    volume: usize,
    name: Raw<UNICODE_STRING>,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let (filter, volume) = (own_filter(&call, filter), object::volume(&call, volume));
    let attached = optional(name).and_then(|name| attach_by_name(call.thread(), &filter, &volume, name.as_deref()));
    answer(&call, attached, out)
}

extern "efiapi" fn flt_attach_volume_at_altitude(
    filter: usize,
    volume: usize,
    altitude: Raw<UNICODE_STRING>,
    name: Raw<UNICODE_STRING>,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let (filter, volume) = (own_filter(&call, filter), object::volume(&call, volume));
    if altitude.is_null() {
        call.stop(Rule::BadArgument, "Altitude is required");
    }
    let attached = (|| {
        let (altitude, name) = (unicode::name(altitude)?, optional(name)?);
        attach_at_altitude(call.thread(), &filter, &volume, &altitude, name.as_deref())
    })();
    answer(&call, attached, out)
}

extern "efiapi" fn flt_detach_volume(filter: usize, volume: usize, name: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    let (filter, volume) = (own_filter(&call, filter), object::volume(&call, volume));
    let detached = optional(name).and_then(|name| detach(call.thread(), &filter, &volume, name.as_deref()));
    match detached {
        Ok(()) => NtStatus::SUCCESS,
        Err(status) => status,
    }
}
