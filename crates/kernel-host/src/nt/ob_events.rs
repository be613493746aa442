//! Event objects: those with handles. Pages: `ntifs/nf-ntifs-zwcreateevent`, `wdm/nf-wdm-zwopenevent`,
//! `wdm/nf-wdm-iocreatenotificationevent`, `ntifs/nf-ntifs-zwwaitforsingleobject`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nt_types::{
    AccessMask, DISPATCHER_HEADER, FILE_OBJECT, HANDLE, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags,
    UNICODE_STRING,
};

use super::dispatcher::{Kind, initialise, state};
use super::ob::{ObjectBody, ObjectRef};
use super::ob_exports::{make_handle, open_entry};
use super::ob_named::{Permanence, flags_of, name_or_open, open_named, path_of};
use super::raw::Raw;
use super::unicode;
use super::wait::wait_for;
use crate::ddi::{Call, exports};
use crate::machine::Inner;
use crate::process::Process;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwCreateEvent(max 0, fails RESOURCES) = zw_create_event;
    ZwOpenEvent(max 0, fails RESOURCES) = zw_open_event;
    ZwSetEvent(max 0) = zw_set_event;
    ZwResetEvent(max 0) = zw_reset_event;
    ZwClearEvent(max 0) = zw_clear_event;
    ZwWaitForSingleObject(max 2, fails RESOURCES) = zw_wait_for_single_object;
    IoCreateNotificationEvent(max 0, fails NULL) = io_create_notification_event;
    IoCreateSynchronizationEvent(max 0, fails NULL) = io_create_synchronization_event;
}

/// Bytes of a `KEVENT`.
const EVENT_BYTES: usize = 24;
/// `EVENT_ALL_ACCESS`.
const EVENT_ALL_ACCESS: u32 = 0x001F_0003;

/// Payload of an event object.
#[derive(Debug)]
struct EventBody {
    permanence: Permanence,
}

impl ObjectBody for EventBody {
    fn type_name(&self) -> &'static str {
        "Event"
    }

    fn on_last_handle_close(&self, object: &ObjectRef, _process: &Arc<Process>) {
        self.permanence.last_handle_closed(object);
    }

    fn make_temporary(&self) {
        self.permanence.end();
    }
}

/// Makes an event, or opens the one of that name. Whether it was there already.
fn create(
    machine: &Inner,
    path: Option<&str>,
    flags: u32,
    kind: Kind,
    signalled: bool,
) -> Result<(ObjectRef, bool), NtStatus> {
    let body = EventBody { permanence: Permanence::of(flags) };
    let object = machine.nt.objects().create(EVENT_BYTES, Arc::new(body))?;
    initialise(Raw::at(object.body()), kind, EVENT_BYTES, signalled.into());
    name_or_open::<EventBody>(machine, object, path, flags)
}

fn kind_of(number: u32) -> Result<Kind, NtStatus> {
    match number {
        0 => Ok(Kind::NotificationEvent),
        1 => Ok(Kind::SynchronizationEvent),
        _ => Err(NtStatus::INVALID_PARAMETER),
    }
}

pub(super) extern "efiapi" fn zw_create_event(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    kind: u32,
    signalled: u8,
) -> NtStatus {
    let call = Call::enter();
    let flags = flags_of(attributes);
    let made = path_of(&call, attributes)
        .and_then(|path| create(call.machine(), path.as_deref(), flags, kind_of(kind)?, signalled != 0));
    match made {
        Ok((object, existed)) => {
            handle.write(make_handle(&call, &object, access, flags));
            if existed { NtStatus::OBJECT_NAME_EXISTS } else { NtStatus::SUCCESS }
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn zw_open_event(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
) -> NtStatus {
    open_named::<EventBody>(&Call::enter(), handle, access, attributes)
}

/// Changes the state of the event behind a handle; the state before goes to the caller.
fn change(call: &Call, handle: HANDLE, new: i32, before: Raw<i32>) -> NtStatus {
    match open_entry(call, handle.addr(), 0, Some("Event"), KERNEL_MODE) {
        Ok(entry) => {
            before.write_if_some(state(Raw::at(entry.object.body())).swap(new, Ordering::AcqRel));
            call.machine().nt.dispatcher().wake();
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn zw_set_event(handle: HANDLE, before: Raw<i32>) -> NtStatus {
    change(&Call::enter(), handle, 1, before)
}

extern "efiapi" fn zw_reset_event(handle: HANDLE, before: Raw<i32>) -> NtStatus {
    change(&Call::enter(), handle, 0, before)
}

extern "efiapi" fn zw_clear_event(handle: HANDLE) -> NtStatus {
    change(&Call::enter(), handle, 0, Raw::NULL)
}

pub(super) extern "efiapi" fn zw_wait_for_single_object(handle: HANDLE, _alertable: u8, timeout: Raw<i64>) -> NtStatus {
    let call = Call::enter();
    match open_entry(&call, handle.addr(), 0, None, KERNEL_MODE) {
        Ok(entry) => {
            let body = entry.object.body();
            // A file is waited for through the event in its object.
            let event = std::mem::offset_of!(FILE_OBJECT, Event);
            let object = if entry.object.type_name() == "File" { body + event } else { body };
            wait_for(&call, Raw::<DISPATCHER_HEADER>::at(object), timeout)
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn io_create_notification_event(name: Raw<UNICODE_STRING>, handle: Raw<usize>) -> usize {
    named(&Call::enter(), name, Kind::NotificationEvent, handle)
}

extern "efiapi" fn io_create_synchronization_event(name: Raw<UNICODE_STRING>, handle: Raw<usize>) -> usize {
    named(&Call::enter(), name, Kind::SynchronizationEvent, handle)
}

/// The event of a name, made signalled when there is none. The result is valid as long as the handle is open.
fn named(call: &Call, name: Raw<UNICODE_STRING>, kind: Kind, handle: Raw<usize>) -> usize {
    let flags = (ObjectFlags::OPENIF | ObjectFlags::KERNEL_HANDLE).bits();
    let made = unicode::name(name).and_then(|path| create(call.machine(), Some(&path), flags, kind, true));
    let Ok((object, _)) = made else { return 0 };
    handle.write(make_handle(call, &object, EVENT_ALL_ACCESS, flags));
    object.body()
}

/// An event that a program has open, to give its handle to a driver. Dropping it closes the handle.
#[derive(Debug)]
pub struct ProgramEvent {
    process: Arc<Process>,
    handle: usize,
    object: ObjectRef,
}

impl Process {
    /// Makes an event as `CreateEvent` does, or opens the one that has the name. `name` is an NT path, such as
    /// `\BaseNamedObjects\Ready`. A manual-reset event stays signalled.
    ///
    /// # Errors
    /// The object manager's.
    pub fn create_event(self: &Arc<Self>, name: Option<&str>, manual_reset: bool) -> Result<ProgramEvent, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        let kind = if manual_reset { Kind::NotificationEvent } else { Kind::SynchronizationEvent };
        let (object, _) = create(&machine, name, ObjectFlags::OPENIF.bits(), kind, false)?;
        let handle = self.handles().insert(&object, AccessMask::from_bits_retain(EVENT_ALL_ACCESS).bits(), None);
        Ok(ProgramEvent { process: Arc::clone(self), handle, object })
    }
}

impl ProgramEvent {
    /// The handle's value in the process.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.handle
    }

    /// Whether it is signalled.
    #[must_use]
    pub fn is_signalled(&self) -> bool {
        state(Raw::at(self.object.body())).load(Ordering::Acquire) > 0
    }

    /// `SetEvent`.
    pub fn set(&self) {
        state(Raw::at(self.object.body())).store(1, Ordering::Release);
        if let Some(machine) = self.process.machine() {
            machine.nt.dispatcher().wake();
        }
    }

    /// Waits until it is signalled; false when that takes longer than `time`.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while !self.is_signalled() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

impl Drop for ProgramEvent {
    fn drop(&mut self) {
        // Fails only when the process exited meanwhile, which closed the handle.
        let _ = self.process.close_handle(self.handle);
    }
}
