//! Telling drivers that the system goes down.
//!
//! Pages: `wdm/nf-wdm-ioregistershutdownnotification`, `wdm/nf-wdm-ioregisterlastchanceshutdownnotification`.

use std::sync::Arc;

use nt_types::{DEVICE_OBJECT, DO_SHUTDOWN_REGISTERED, IO_STACK_LOCATION, IRP, IRP_MJ_SHUTDOWN, NtStatus};

use super::{irp, request};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::{Driver, Machine};
use crate::nt::raw::{Raw, field};
use crate::process::SYSTEM_PROCESS_ID;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoRegisterShutdownNotification(max 0, fails RESOURCES) = io_register_shutdown_notification;
    IoRegisterLastChanceShutdownNotification(max 0, fails RESOURCES) = io_register_last_chance_shutdown_notification;
    IoUnregisterShutdownNotification(max 0) = io_unregister_shutdown_notification;
}

/// A device whose driver gets `IRP_MJ_SHUTDOWN`.
#[derive(Debug)]
pub(crate) struct Registration {
    pub(super) device: usize,
    pub(super) driver: Arc<Driver>,
    /// After the file systems were flushed.
    last_chance: bool,
}

pub(super) extern "efiapi" fn io_register_shutdown_notification(device: Raw<DEVICE_OBJECT>) -> NtStatus {
    register(&Call::enter(), device, false)
}

extern "efiapi" fn io_register_last_chance_shutdown_notification(device: Raw<DEVICE_OBJECT>) -> NtStatus {
    register(&Call::enter(), device, true)
}

fn register(call: &Call, device: Raw<DEVICE_OBJECT>, last_chance: bool) -> NtStatus {
    if request::target(call.thread(), device).is_none() {
        call.stop(Rule::BadArgument, format!("{device:?} is no device object of a driver"));
    }
    let registration = Registration { device: device.address(), driver: Arc::clone(call.driver()), last_chance };
    call.machine().nt.io().lock().shutdown.push(registration);
    let flags = field!(device, DEVICE_OBJECT, Flags);
    flags.write(flags.read() | DO_SHUTDOWN_REGISTERED);
    NtStatus::SUCCESS
}

/// Takes all registrations of the device back. That there are none is no error.
pub(super) extern "efiapi" fn io_unregister_shutdown_notification(device: Raw<DEVICE_OBJECT>) {
    let call = Call::enter();
    call.machine().nt.io().lock().shutdown.retain(|registration| registration.device != device.address());
    let flags = field!(device, DEVICE_OBJECT, Flags);
    flags.write(flags.read() & !DO_SHUTDOWN_REGISTERED);
}

impl Machine {
    /// Shuts the system down as far as drivers see it: `IRP_MJ_SHUTDOWN` to each registered device, the last registered
    /// first, then to those that asked for the last chance. Drivers stay loaded, as on Windows.
    ///
    /// # Errors
    /// The finding, when a driver broke a rule.
    pub fn shut_down(&self) -> Result<(), Stopped> {
        let inner = self.inner();
        for last_chance in [false, true] {
            if last_chance {
                crate::fs::shutdown::shut_down(inner);
            }
            loop {
                let next = {
                    let mut state = inner.nt.io().lock();
                    let found = state.shutdown.iter().rposition(|entry| entry.last_chance == last_chance);
                    found.map(|index| state.shutdown.remove(index).device)
                };
                let Some(device) = next else { break };
                Thread::enter(inner, |thread| send(thread, Raw::at(device)));
            }
        }
        inner.stopped().map_or(Ok(()), Err)
    }
}

fn send(thread: &Thread, device: Raw<DEVICE_OBJECT>) {
    let top = super::attach::top_of(device);
    let stack_size = field!(top, DEVICE_OBJECT, StackSize).read();
    let Some((irp, _, waiter)) = irp::create_for_host(thread, stack_size, 0, SYSTEM_PROCESS_ID, None) else { return };
    field!(irp::next_location(irp), IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_SHUTDOWN);
    field!(irp, IRP, RequestorMode).write(nt_types::KERNEL_MODE);
    request::send(thread, top, irp, &waiter);
}
