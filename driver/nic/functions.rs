//! The functions of the table. Each is a contract of `ndis_firmware::interface`, which says what may be passed and at
//! which IRQL; a driver that breaks it breaks the kernel, as with every function of the kernel's own.

use super::consumer::Consumer;
use super::image;
use crate::entry::{Entry, OpenImage};
use crate::state::{self, Call, Table};
use broker::{Error, Handle, Kind, Pinned, Shared};
use core::ffi::c_void;
use core::sync::atomic::Ordering;
use fltmgr::Passive;
use ndis_firmware::interface::{
    FWBROKER_IMAGE, FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1, FWBROKER_OPEN_PARAMETERS, MAX_IMAGE_NAME_BYTES,
};
use nt_types::{NtStatus, UNICODE_STRING};

/// A table for the consumer behind `context`.
pub(super) fn table(context: *mut c_void) -> FWBROKER_INTERFACE {
    FWBROKER_INTERFACE {
        Size: size_of::<FWBROKER_INTERFACE>() as u16,
        Version: FWBROKER_INTERFACE_VERSION_1,
        Context: context,
        InterfaceReference: Some(reference),
        InterfaceDereference: Some(dereference),
        Open: Some(open),
        Map: Some(map),
        Unmap: Some(unmap),
        Close: Some(close),
    }
}

/// Finds who makes a counted call.
fn caller(call: Option<Call>, context: *mut c_void) -> Option<(Call, Shared<Consumer>)> {
    let call = call?;
    let consumer = Consumer::of_context(&call, context)?;
    Some((call, consumer))
}

/// As [`caller`], for what is done with something that the caller has: let in while the driver is leaving, too. An
/// unload that is about to be refused must not lose anybody's close or dereference.
fn holder(context: *mut c_void) -> Option<(Call, Shared<Consumer>)> {
    caller(state::enter_to_leave(), context)
}

unsafe extern "efiapi" fn reference(context: *mut c_void) {
    if let Some((_call, consumer)) = holder(context) {
        consumer.reference();
    }
}

unsafe extern "efiapi" fn dereference(context: *mut c_void) {
    if let Some((call, consumer)) = holder(context) {
        consumer.dereference(&call);
    }
}

unsafe extern "efiapi" fn open(
    context: *mut c_void,
    name: *const UNICODE_STRING,
    highest_address: i64,
    parameters: *const FWBROKER_OPEN_PARAMETERS,
    opened: *mut FWBROKER_IMAGE,
) -> NtStatus {
    // Opening reads files and waits. A driver that forgot is told so, instead of hanging the machine.
    let Some(passive) = Passive::check() else { return NtStatus::INVALID_DEVICE_STATE };
    let Some((call, consumer)) = caller(state::enter(), context) else { return NtStatus::SHUTDOWN_IN_PROGRESS };
    // SAFETY: the caller's name is NULL or valid during the call (FWBROKER_OPEN).
    let name = match unsafe { image_name(name) } {
        Ok(name) => name,
        Err(status) => return status,
    };
    // SAFETY: the caller's parameters are NULL or valid during the call (FWBROKER_OPEN).
    let timeout_ms = match unsafe { timeout(parameters) } {
        Ok(timeout_ms) => timeout_ms,
        Err(status) => return status,
    };
    if opened.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let request = image::Request { name, highest_address: highest_address.cast_unsigned(), timeout_ms };
    match image::open(&call, &consumer, &request, passive) {
        Ok(image) => {
            // SAFETY: not NULL, and room for one by the caller's word.
            unsafe { opened.write(image) };
            NtStatus::SUCCESS
        }
        // A driver that looks for a file knows this status; the broker's word is for lists of images.
        Err(Error::ImageNotFound) => NtStatus::OBJECT_NAME_NOT_FOUND,
        Err(Error::SessionEnded) => NtStatus::SHUTDOWN_IN_PROGRESS,
        Err(error) => error.status(),
    }
}

unsafe extern "efiapi" fn map(context: *mut c_void, handle: u64, buffer: *mut *const c_void) -> NtStatus {
    if buffer.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    // SAFETY: not NULL, and a cell by the caller's word.
    let buffer = unsafe { &mut *buffer };
    *buffer = core::ptr::null();
    with_image(context, handle, |image| {
        // Never down to zero again by overflow: nobody maps four billion times.
        let counted = image.mappings.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_add(1));
        if counted.is_err() {
            return NtStatus::INSUFFICIENT_RESOURCES;
        }
        *buffer = image.image.bytes().as_ptr().cast();
        NtStatus::SUCCESS
    })
}

unsafe extern "efiapi" fn unmap(context: *mut c_void, handle: u64) -> NtStatus {
    with_image(context, handle, |image| {
        match image.mappings.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1)) {
            Ok(_) => NtStatus::SUCCESS,
            Err(_) => NtStatus::INVALID_DEVICE_STATE,
        }
    })
}

unsafe extern "efiapi" fn close(context: *mut c_void, handle: u64) -> NtStatus {
    let Some((call, consumer)) = holder(context) else { return NtStatus::INVALID_HANDLE };
    let closed = find(&call.table, &consumer, handle).and_then(Pinned::close);
    closed.map_or_else(Error::status, |()| NtStatus::SUCCESS)
}

/// Runs `action` on the image behind a handle of the caller's. IRQL <= DISPATCH_LEVEL.
fn with_image(context: *mut c_void, handle: u64, action: impl FnOnce(&OpenImage) -> NtStatus) -> NtStatus {
    let Some((call, consumer)) = holder(context) else { return NtStatus::INVALID_HANDLE };
    match find(&call.table, &consumer, handle) {
        Ok(pinned) => match &*pinned {
            Entry::Image(image) => action(image),
            Entry::File(_) => NtStatus::INVALID_HANDLE,
        },
        Err(error) => error.status(),
    }
}

type PinnedEntry<'a> = Pinned<'a, Entry, crate::entry::Reaper, crate::kernel::irql::RaiseToDispatch>;

fn find<'a>(table: &'a Table, consumer: &Consumer, handle: u64) -> Result<PinnedEntry<'a>, Error> {
    table.get_kind(consumer.session(), Handle::from_raw(handle)?, Kind::Image)
}

/// The characters of an image's name.
///
/// # Safety
/// `name` is NULL, or a string that is valid for `'a`.
unsafe fn image_name<'a>(name: *const UNICODE_STRING) -> Result<&'a [u16], NtStatus> {
    // SAFETY: NULL or valid by the caller's word.
    let name = unsafe { name.as_ref() }.ok_or(NtStatus::INVALID_PARAMETER)?;
    let well_formed = !name.Buffer.is_null()
        && name.Buffer.is_aligned()
        && (2..=MAX_IMAGE_NAME_BYTES).contains(&name.Length)
        && name.Length.is_multiple_of(2);
    if !well_formed {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    // SAFETY: not NULL, aligned, and of this length by the caller's word.
    Ok(unsafe { core::slice::from_raw_parts(name.Buffer, name.chars()) })
}

/// How long an open may wait, in milliseconds.
///
/// # Safety
/// `parameters` is NULL or valid.
unsafe fn timeout(parameters: *const FWBROKER_OPEN_PARAMETERS) -> Result<u64, NtStatus> {
    const DEFAULT_MS: u64 = 10_000;
    // SAFETY: NULL or valid by the caller's word.
    let Some(parameters) = (unsafe { parameters.as_ref() }) else { return Ok(DEFAULT_MS) };
    if usize::from(parameters.Size) != size_of::<FWBROKER_OPEN_PARAMETERS>()
        || parameters.Version != FWBROKER_INTERFACE_VERSION_1
        || parameters.Flags != 0
        || parameters.Reserved != 0
    {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(match parameters.TimeoutMilliseconds {
        0 => DEFAULT_MS,
        milliseconds => u64::from(milliseconds),
    })
}
