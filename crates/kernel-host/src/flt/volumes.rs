//! Finding volumes and instances, and the references that the finders hand out.

use std::sync::Arc;

use nt_types::{FILE_OBJECT, NtStatus, UNICODE_STRING};

use super::create::file_object;
use super::instance::{Instance, VolumeStack};
use super::object::{self, Rundown};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::device::VolumeDevice;
use crate::machine::Inner;
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetVolumeFromName(max 0, fails RESOURCES) = flt_get_volume_from_name;
    FltGetVolumeFromFileObject(max 1, fails BUSY) = flt_get_volume_from_file_object;
    FltGetVolumeFromInstance(max 1) = flt_get_volume_from_instance;
    FltGetVolumeName(max 1) = flt_get_volume_name;
    FltGetVolumeGuidName(max 0, fails RESOURCES) = flt_get_volume_guid_name;
    FltEnumerateVolumes(max 1) = flt_enumerate_volumes;
    FltEnumerateInstances(max 1) = flt_enumerate_instances;
    FltGetVolumeInstanceFromName(max 1) = flt_get_volume_instance_from_name;
    FltGetFilterFromInstance(max 1, fails BUSY) = flt_get_filter_from_instance;
    FltObjectReference(max 2, fails BUSY) = flt_object_reference;
    FltObjectDereference(max 2) = flt_object_dereference;
}

/// Hands a referenced pointer to the driver.
pub(super) fn give(call: &Call, rundown: &Rundown, address: usize, out: Raw<usize>) -> NtStatus {
    match rundown.hold(call.site()) {
        Ok(()) => {
            out.write(address);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn flt_get_volume_from_name(filter: usize, name: Raw<UNICODE_STRING>, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let Ok(name) = unicode::name(name) else { return NtStatus::INVALID_PARAMETER };
    call.detail(&name);
    if name.is_empty() {
        return NtStatus::INVALID_PARAMETER;
    }
    match find_volume(call.machine(), &name) {
        Some(volume) => give(&call, &volume.rundown, volume.address, out),
        None => NtStatus::FLT_VOLUME_NOT_FOUND,
    }
}

/// `\Device\HarddiskVolume1`, `\??\C:`, `\DosDevices\C:`, `\??\Volume{...}`, or `C:`; a backslash at the end is allowed.
pub(super) fn find_volume(machine: &Inner, name: &str) -> Option<Arc<VolumeStack>> {
    let name = name.strip_suffix('\\').unwrap_or(name);
    let path = if name.starts_with('\\') { name.to_owned() } else { format!(r"\??\{name}") };
    let found = machine.nt.objects().namespace().lookup(&path).ok()?;
    let device = found.object.payload::<VolumeDevice>().filter(|_| found.rest.is_empty())?;
    machine.flt.stack_of(&device.volume)
}

extern "efiapi" fn flt_get_volume_from_file_object(filter: usize, file: Raw<FILE_OBJECT>, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let (_object, file) = file_object(&call, file);
    let stack = file.volume().and_then(|volume| call.machine().flt.stack_of(&volume));
    match stack {
        Some(stack) => give(&call, &stack.rundown, stack.address, out),
        None => NtStatus::INVALID_PARAMETER,
    }
}

extern "efiapi" fn flt_get_volume_from_instance(instance: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    give(&call, &instance.volume.rundown, instance.volume.address, out)
}

extern "efiapi" fn flt_get_volume_name(volume: usize, name: Raw<UNICODE_STRING>, needed: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    give_name(&call, &volume.volume.device_name(), name, needed)
}

extern "efiapi" fn flt_get_volume_guid_name(volume: usize, name: Raw<UNICODE_STRING>, needed: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    give_name(&call, &volume.volume.guid_name(), name, needed)
}

fn give_name(call: &Call, text: &str, name: Raw<UNICODE_STRING>, needed: Raw<u32>) -> NtStatus {
    let bytes = unicode::bytes_of(text);
    call.detail(text);
    needed.write_if_some(bytes.len() as u32);
    let Some(name) = name.some() else {
        return if needed.is_null() { NtStatus::INVALID_PARAMETER } else { NtStatus::BUFFER_TOO_SMALL };
    };
    let string = name.read();
    if usize::from(string.MaximumLength) < bytes.len() {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    Raw::of(string.Buffer).cast::<u8>().write_bytes(&bytes);
    field!(name, UNICODE_STRING, Length).write(bytes.len() as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_enumerate_volumes(filter: usize, list: Raw<usize>, size: u32, returned: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let volumes = super::volume_stacks(call.machine());
    let found = volumes.iter().map(|volume| (&volume.rundown, volume.address));
    give_list(&call, &found.collect::<Vec<_>>(), list, size, returned)
}

extern "efiapi" fn flt_enumerate_instances(
    volume: usize,
    filter: usize,
    list: Raw<usize>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    if volume == 0 && filter == 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let filter = (filter != 0).then(|| object::filter(&call, filter));
    let stacks = if volume == 0 { super::volume_stacks(call.machine()) } else { vec![object::volume(&call, volume)] };
    let instances: Vec<Arc<Instance>> = stacks.iter().flat_map(|stack| stack.instances()).collect();
    let wanted =
        instances.iter().filter(|instance| filter.as_ref().is_none_or(|filter| Arc::ptr_eq(filter, &instance.filter)));
    let found: Vec<_> = wanted.map(|instance| (&instance.rundown, instance.address)).collect();
    give_list(&call, &found, list, size, returned)
}

/// All or nothing: a list that does not fit gets no references.
pub(super) fn give_list(
    call: &Call,
    found: &[(&Rundown, usize)],
    list: Raw<usize>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    returned.write(found.len() as u32);
    if found.len() > size as usize || (list.is_null() && !found.is_empty()) {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    let mut count = 0;
    for (rundown, address) in found {
        // One that goes away meanwhile is not listed.
        if rundown.hold(call.site()).is_ok() {
            list.index(count).write(*address);
            count += 1;
        }
    }
    returned.write(count as u32);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_get_volume_instance_from_name(
    filter: usize,
    volume: usize,
    name: Raw<UNICODE_STRING>,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let filter = (filter != 0).then(|| object::filter(&call, filter));
    let volume = object::volume(&call, volume);
    let name = name.some().map(|name| String::from_utf16_lossy(&unicode::units(name)));
    let matching = volume.instances().into_iter().find(|instance| {
        filter.as_ref().is_none_or(|filter| Arc::ptr_eq(filter, &instance.filter))
            && name.as_ref().is_none_or(|name| unicode::same_name(name, &instance.name))
    });
    match matching {
        Some(instance) => give(&call, &instance.rundown, instance.address, out),
        None => NtStatus::FLT_INSTANCE_NOT_FOUND,
    }
}

extern "efiapi" fn flt_get_filter_from_instance(instance: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    give(&call, &instance.filter.rundown, instance.filter.address, out)
}

extern "efiapi" fn flt_object_reference(object: usize) -> NtStatus {
    let call = Call::enter();
    with_rundown(&call, object, |rundown| match rundown.hold(call.site()) {
        Ok(()) => NtStatus::SUCCESS,
        Err(status) => status,
    })
}

extern "efiapi" fn flt_object_dereference(object: usize) {
    let call = Call::enter();
    match with_rundown(&call, object, |rundown| rundown.release(call.driver())) {
        Some(false) => {}
        Some(true) => {
            call.machine().flt.objects.remove(call.machine(), object);
        }
        None => call.stop(
            Rule::ReferenceUnderflow,
            format!("{} holds no rundown reference to {object:#x}", call.driver().name),
        ),
    }
}

fn with_rundown<R>(call: &Call, address: usize, body: impl FnOnce(&Rundown) -> R) -> R {
    let found = call.machine().flt.objects.get(address);
    match found.as_ref().and_then(|object| object.rundown()) {
        Some(rundown) => body(rundown),
        None => object::wrong(call, address, "PFLT_FILTER, PFLT_INSTANCE or PFLT_VOLUME", found.as_ref()),
    }
}
