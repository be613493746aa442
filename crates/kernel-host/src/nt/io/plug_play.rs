//! Plug and Play, on a computer whose only devices are network adapters, which NDIS looks after.
//!
//! There is no physical device object that a driver could register an interface for, and no interface that comes or goes. What
//! a driver asks of all this is answered as the pages say for such a computer; registrations have to be taken back.

use nt_types::NtStatus;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::nt::registered::Kind;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoRegisterPlugPlayNotification(max 0, fails RESOURCES) = io_register_plug_play_notification;
    IoUnregisterPlugPlayNotification(max 0) = io_unregister_plug_play_notification;
    IoUnregisterPlugPlayNotificationEx(max 0) = io_unregister_plug_play_notification;
    IoRegisterDeviceInterface(max 0) = io_register_device_interface;
    IoSetDeviceInterfaceState(max 0) = io_set_device_interface_state;
    IoGetDeviceInterfaces(max 0, fails RESOURCES) = io_get_device_interfaces;
}

/// `IO_NOTIFICATION_EVENT_CATEGORY`.
const HARDWARE_PROFILE_CHANGE: i32 = 1;
const DEVICE_INTERFACE_CHANGE: i32 = 2;
const TARGET_DEVICE_CHANGE: i32 = 3;

/// Tag of lists of interfaces, which their receivers free.
const TAG: u32 = u32::from_le_bytes(*b"Pnp ");

extern "efiapi" fn io_register_plug_play_notification(
    category: i32,
    _flags: u32,
    data: usize,
    driver: usize,
    routine: usize,
    context: usize,
    entry: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let has_data = match category {
        HARDWARE_PROFILE_CHANGE => data == 0,
        DEVICE_INTERFACE_CHANGE | TARGET_DEVICE_CHANGE => data != 0,
        other => call.stop(Rule::BadArgument, format!("{other} is no IO_NOTIFICATION_EVENT_CATEGORY")),
    };
    if !has_data {
        call.stop(Rule::BadArgument, format!("EventCategoryData {data:#x} is not what category {category} goes with"));
    }
    if routine == 0 || driver == 0 {
        call.stop(Rule::BadArgument, "a notification needs a routine, and the driver object that it belongs to");
    }
    let Some(handle) = call.machine().nt.arena().take(1) else { return NtStatus::INSUFFICIENT_RESOURCES };
    call.machine().nt.registered().add(&call, Kind::PlugPlay, handle, routine, context);
    entry.write(handle);
    NtStatus::SUCCESS
}

extern "efiapi" fn io_unregister_plug_play_notification(entry: usize) -> NtStatus {
    let call = Call::enter();
    if call.machine().nt.registered().remove(Kind::PlugPlay, entry).is_none() {
        call.stop(Rule::BadState, format!("{entry:#x} is no registration: unregistered already, or never made"));
    }
    call.machine().nt.arena().release(entry, 1);
    NtStatus::SUCCESS
}

/// No device object is a physical one that the `PnP` manager knows.
extern "efiapi" fn io_register_device_interface(
    _device: usize,
    _class: usize,
    _reference: usize,
    _name: usize,
) -> NtStatus {
    let _call = Call::enter();
    NtStatus::INVALID_DEVICE_REQUEST
}

/// None is registered, hence none has the name.
extern "efiapi" fn io_set_device_interface_state(_name: usize, _enable: u8) -> NtStatus {
    let _call = Call::enter();
    NtStatus::OBJECT_NAME_NOT_FOUND
}

extern "efiapi" fn io_get_device_interfaces(_class: usize, device: usize, _flags: u32, list: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    if device != 0 {
        return NtStatus::INVALID_DEVICE_REQUEST;
    }
    // The page: a list without names is a single NUL.
    let request = Request { kind: PoolKind::Paged, length: 2, tag: TAG, zeroed: true, cache_aligned: false };
    let empty = call.machine().nt.pool().allocate(&call, request);
    if empty == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    list.write(empty);
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::leak::LeakKind;

    fn register(category: i32, data: usize) -> usize {
        let mut entry = 0;
        let out = Raw::of(&raw mut entry);
        let status = io_register_plug_play_notification(category, 0, data, 0x1000, 0x2000, 0, out);
        assert_eq!(status, NtStatus::SUCCESS);
        out.read()
    }

    #[test]
    fn a_notification_is_taken_back_once_and_before_the_driver_goes() {
        conforms!(
            "wdm/nf-wdm-iounregisterplugplaynotificationex.md",
            "A driver cannot be unloaded before it has removed all its registrations."
        );
        let bench = Bench::new();
        let entry = bench.run(|| register(DEVICE_INTERFACE_CHANGE, 0x3000)).unwrap();
        assert_eq!(bench.machine().held_by(bench.driver()).count(LeakKind::Registration), 1);
        let twice = bench.run(|| [(); 2].map(|()| io_unregister_plug_play_notification(entry)));
        assert_eq!(twice.unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn each_category_has_its_data() {
        conforms!(
            "wdm/nf-wdm-ioregisterplugplaynotification.md",
            "EventCategoryData is NULL for a change of the hardware profile, and not NULL for the others."
        );
        for (category, data) in [(HARDWARE_PROFILE_CHANGE, 1), (DEVICE_INTERFACE_CHANGE, 0), (TARGET_DEVICE_CHANGE, 0)]
        {
            assert_eq!(Bench::new().run(|| register(category, data)).unwrap_err().0.rule, Rule::BadArgument);
        }
    }

    #[test]
    fn without_devices_there_are_no_interfaces() {
        conforms!(
            "wdm/nf-wdm-iogetdeviceinterfaces.md",
            "When nothing matches STATUS_SUCCESS is returned, and a list of a single NUL that the caller frees."
        );
        conforms!(
            "wdm/nf-wdm-ioregisterdeviceinterface.md",
            "STATUS_INVALID_DEVICE_REQUEST is returned for a device that is no physical device object."
        );
        conforms!(
            "wdm/nf-wdm-iosetdeviceinterfacestate.md",
            "STATUS_OBJECT_NAME_NOT_FOUND is returned when an interface that is not enabled is disabled."
        );
        let bench = Bench::new();
        bench
            .run(|| {
                let mut list = 0;
                let out = Raw::of(&raw mut list);
                assert_eq!(io_get_device_interfaces(0x1000, 0, 0, out), NtStatus::SUCCESS);
                assert_eq!(Raw::<u16>::at(out.read()).read(), 0);
                let call = Call::enter();
                call.machine().nt.pool().free(&call, out.read(), 0);
                drop(call);
                assert_eq!(io_register_device_interface(0x1000, 0, 0, 0), NtStatus::INVALID_DEVICE_REQUEST);
                assert_eq!(io_set_device_interface_state(0, 0), NtStatus::OBJECT_NAME_NOT_FOUND);
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }
}
