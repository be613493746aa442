//! Device stacks: attaching above other drivers' devices, and finding the top.
//!
//! Pages: `wdm/nf-wdm-ioattachdevicetodevicestack`, `wdm/nf-wdm-iodetachdevice`,
//! `wdm/nf-wdm-iogetrelateddeviceobject` and their neighbours.

use nt_types::{DEVICE_OBJECT, DO_DEVICE_INITIALIZING, FILE_OBJECT, NtStatus, UNICODE_STRING};

use super::device::DeviceBody;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoAttachDevice(max 0, fails RESOURCES) = io_attach_device;
    IoAttachDeviceToDeviceStack(max 2, fails NULL) = io_attach_device_to_device_stack;
    IoAttachDeviceToDeviceStackSafe(max 2) = io_attach_device_to_device_stack_safe;
    IoDetachDevice(max 0) = io_detach_device;
    IoGetAttachedDevice(max 2) = io_get_attached_device;
    IoGetAttachedDeviceReference(max 2) = io_get_attached_device_reference;
    IoGetRelatedDeviceObject(max 2) = io_get_related_device_object;
    IoGetLowerDeviceObject(max 2) = io_get_lower_device_object;
}

/// The highest device of the stack that `device` is in.
pub(crate) fn top_of(device: Raw<DEVICE_OBJECT>) -> Raw<DEVICE_OBJECT> {
    let mut top = device;
    while let Some(above) = Raw::of(field!(top, DEVICE_OBJECT, AttachedDevice).read()).some() {
        top = above;
    }
    top
}

/// The device right below an attached one.
fn below(machine: &Inner, device: Raw<DEVICE_OBJECT>) -> Option<Raw<DEVICE_OBJECT>> {
    let devices: Vec<usize> = machine.nt.io().lock().devices.keys().copied().collect();
    let is_below =
        |lower: &Raw<DEVICE_OBJECT>| field!(*lower, DEVICE_OBJECT, AttachedDevice).read().addr() == device.address();
    devices.into_iter().map(Raw::at).find(is_below)
}

/// Puts `source` on top of the stack of `target`; what was the top before. `None` when the stack does not take it.
fn attach(call: &Call, source: Raw<DEVICE_OBJECT>, target: Raw<DEVICE_OBJECT>) -> Option<Raw<DEVICE_OBJECT>> {
    for device in [source, target] {
        if call.machine().nt.objects().payload::<DeviceBody>(device.address()).is_none() {
            call.stop(Rule::BadArgument, format!("{device:?} is no device object of a driver"));
        }
    }
    if below(call.machine(), source).is_some() {
        call.stop(Rule::BadState, format!("the device {source:?} is attached already: IoDetachDevice comes first"));
    }
    let top = top_of(target);
    if top == source || field!(top, DEVICE_OBJECT, Flags).read() & DO_DEVICE_INITIALIZING != 0 {
        return None;
    }
    let deeper = field!(top, DEVICE_OBJECT, StackSize).read().checked_add(1)?;
    field!(source, DEVICE_OBJECT, StackSize).write(deeper);
    field!(source, DEVICE_OBJECT, AlignmentRequirement).write(field!(top, DEVICE_OBJECT, AlignmentRequirement).read());
    field!(source, DEVICE_OBJECT, SectorSize).write(field!(top, DEVICE_OBJECT, SectorSize).read());
    field!(top, DEVICE_OBJECT, AttachedDevice).write(source.pointer());
    Some(top)
}

extern "efiapi" fn io_attach_device(
    source: Raw<DEVICE_OBJECT>,
    target: Raw<UNICODE_STRING>,
    attached: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    attached.write(0);
    let found = unicode::name(target).and_then(|path| {
        call.detail(path.as_str());
        call.machine().nt.objects().namespace().lookup(&path)
    });
    match found {
        Ok(found) if found.object.payload::<DeviceBody>().is_none() => NtStatus::OBJECT_TYPE_MISMATCH,
        Ok(found) => match attach(&call, source, Raw::at(found.object.body())) {
            Some(top) => {
                attached.write(top.address());
                NtStatus::SUCCESS
            }
            None => NtStatus::NO_SUCH_DEVICE,
        },
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn io_attach_device_to_device_stack(
    source: Raw<DEVICE_OBJECT>,
    target: Raw<DEVICE_OBJECT>,
) -> usize {
    let call = Call::enter();
    attach(&call, source, target).map_or(0, Raw::address)
}

/// The safe form stores the result while the stack cannot change, so that a request that comes at once finds it.
extern "efiapi" fn io_attach_device_to_device_stack_safe(
    source: Raw<DEVICE_OBJECT>,
    target: Raw<DEVICE_OBJECT>,
    attached: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    if attached.read() != 0 {
        call.stop(Rule::BadArgument, "*AttachedToDeviceObject has to be NULL before the call");
    }
    match attach(&call, source, target) {
        Some(top) => {
            attached.write(top.address());
            NtStatus::SUCCESS
        }
        None => NtStatus::NO_SUCH_DEVICE,
    }
}

pub(super) extern "efiapi" fn io_detach_device(target: Raw<DEVICE_OBJECT>) {
    let call = Call::enter();
    let attached = field!(target, DEVICE_OBJECT, AttachedDevice);
    if attached.read().is_null() {
        call.stop(Rule::BadState, format!("nothing is attached to the device {target:?}"));
    }
    attached.write(std::ptr::null_mut());
    // The lower driver's unload may have waited for this.
    if let Some(body) = call.machine().nt.objects().payload::<DeviceBody>(target.address()) {
        crate::machine::go_on_unloading(call.machine(), body.driver());
    }
}

extern "efiapi" fn io_get_attached_device(device: Raw<DEVICE_OBJECT>) -> usize {
    let _call = Call::enter();
    top_of(device).address()
}

pub(super) extern "efiapi" fn io_get_attached_device_reference(device: Raw<DEVICE_OBJECT>) -> usize {
    let call = Call::enter();
    let top = top_of(device);
    call.machine().nt.objects().reference(&call, top.address());
    top.address()
}

extern "efiapi" fn io_get_related_device_object(file: Raw<FILE_OBJECT>) -> usize {
    let _call = Call::enter();
    top_of(Raw::of(field!(file, FILE_OBJECT, DeviceObject).read())).address()
}

extern "efiapi" fn io_get_lower_device_object(device: Raw<DEVICE_OBJECT>) -> usize {
    let call = Call::enter();
    let lower = below(call.machine(), device);
    lower.map_or(0, |lower| {
        call.machine().nt.objects().reference(&call, lower.address());
        lower.address()
    })
}
