//! Descriptors of objects. Pages: `ntifs/nf-ntifs-zwsetsecurityobject`, `ntifs/nf-ntifs-zwquerysecurityobject`,
//! `wdm/nf-wdm-obgetobjectsecurity`, `wdm/nf-wdm-obreleaseobjectsecurity`.
//!
//! Devices have one each; files have the file system's own rules, and other objects are the kernel's alone here.

use nt_types::{HANDLE, KERNEL_MODE, NtStatus};

use super::descriptor::Descriptor;
use crate::ddi::{Call, exports};
use crate::fs::io::{self, Issue};
use crate::nt::io::device::DeviceBody;
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::open_entry;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use std::sync::Arc;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwSetSecurityObject(max 0, fails RESOURCES) = zw_set_security_object;
    ZwQuerySecurityObject(max 0, fails RESOURCES) = zw_query_security_object;
    NtSetSecurityObject(max 0, fails RESOURCES) = zw_set_security_object;
    NtQuerySecurityObject(max 0, fails RESOURCES) = zw_query_security_object;
    ObGetObjectSecurity(max 0, fails RESOURCES) = ob_get_object_security;
    ObReleaseObjectSecurity(max 1) = ob_release_object_security;
}

/// `OWNER_SECURITY_INFORMATION`, `GROUP_SECURITY_INFORMATION`, `DACL_SECURITY_INFORMATION`.
pub(super) const OWNER: u32 = 1;
pub(super) const GROUP: u32 = 2;
pub(super) const DACL: u32 = 4;

/// The device behind a handle.
fn device_of(call: &Call, handle: HANDLE) -> Result<Arc<DeviceBody>, NtStatus> {
    let entry = open_entry(call, handle.addr(), 0, None, KERNEL_MODE)?;
    let device = entry.object.payload::<DeviceBody>();
    device.or_else(|| crate::nt::io::file::device_of(&entry.object)).ok_or(NtStatus::NO_SECURITY_ON_OBJECT)
}

/// The file of a volume behind a handle: its file system, and the filters above it, answer for its descriptor.
fn file_of(call: &Call, handle: HANDLE) -> Option<ObjectRef> {
    let object = open_entry(call, handle.addr(), 0, Some("File"), KERNEL_MODE).ok()?.object;
    io::opened(&object).is_ok().then_some(object)
}

fn issue(call: &Call, file: &ObjectRef, request: impl FnOnce(&Issue<'_>) -> NtStatus) -> NtStatus {
    Issue::on(call.machine(), file, None, KERNEL_MODE).map_or_else(|status| status, |issue| request(&issue))
}

pub(super) extern "efiapi" fn zw_set_security_object(
    handle: HANDLE,
    information: u32,
    descriptor: Raw<u8>,
) -> NtStatus {
    let call = Call::enter();
    if let Some(file) = file_of(&call, handle) {
        let status = match Descriptor::read(descriptor) {
            Ok(new) => issue(&call, &file, |issue| issue.set_security(information, &new.bytes())),
            Err(status) => status,
        };
        call.thread().leave_if_stopped();
        return status;
    }
    let changed = device_of(&call, handle).and_then(|device| {
        let mut current = device.descriptor();
        change(&mut current, Descriptor::read(descriptor)?, information);
        device.set_descriptor(current);
        Ok(())
    });
    changed.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

/// Replaces the parts that are named.
pub(super) fn change(current: &mut Descriptor, new: Descriptor, information: u32) {
    if information & OWNER != 0 {
        current.owner = new.owner;
    }
    if information & GROUP != 0 {
        current.group = new.group;
    }
    if information & DACL != 0 {
        current.dacl = new.dacl;
    }
}

/// The parts of a descriptor that are asked for, self-relative.
pub(super) fn parts(descriptor: Descriptor, information: u32) -> Vec<u8> {
    let keep = |bit| information & bit != 0;
    Descriptor {
        owner: descriptor.owner.filter(|_| keep(OWNER)),
        group: descriptor.group.filter(|_| keep(GROUP)),
        dacl: descriptor.dacl.filter(|_| keep(DACL)),
    }
    .bytes()
}

pub(super) extern "efiapi" fn zw_query_security_object(
    handle: HANDLE,
    information: u32,
    buffer: Raw<u8>,
    length: u32,
    needed: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    if let Some(file) = file_of(&call, handle) {
        let status = issue(&call, &file, |issue| {
            let (status, answered) = issue.query_security(information, (buffer.address(), length));
            needed.write(answered as u32);
            // What file systems call an overflow, the I/O manager calls too small.
            if status == NtStatus::BUFFER_OVERFLOW { NtStatus::BUFFER_TOO_SMALL } else { status }
        });
        call.thread().leave_if_stopped();
        return status;
    }
    match device_of(&call, handle) {
        Ok(device) => {
            let bytes = parts(device.descriptor(), information);
            needed.write(bytes.len() as u32);
            if bytes.len() > length as usize {
                return NtStatus::BUFFER_TOO_SMALL;
            }
            buffer.write_bytes(&bytes);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn ob_get_object_security(object: usize, descriptor: Raw<usize>, allocated: Raw<u8>) -> NtStatus {
    let call = Call::enter();
    let Some(device) = call.machine().nt.objects().payload::<DeviceBody>(object) else {
        // An object without a descriptor: NULL, and success.
        descriptor.write(0);
        allocated.write(0);
        return NtStatus::SUCCESS;
    };
    let bytes = device.descriptor().bytes();
    let request = Request {
        kind: PoolKind::Paged,
        length: bytes.len(),
        tag: u32::from_le_bytes(*b"SeSd"),
        zeroed: false,
        cache_aligned: false,
    };
    let block = call.machine().nt.pool().allocate(&call, request);
    if block == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    Raw::<u8>::at(block).write_bytes(&bytes);
    descriptor.write(block);
    allocated.write(1);
    NtStatus::SUCCESS
}

extern "efiapi" fn ob_release_object_security(descriptor: usize, allocated: u8) {
    let call = Call::enter();
    if allocated != 0 && descriptor != 0 {
        call.machine().nt.pool().free(&call, descriptor, 0);
    }
}
