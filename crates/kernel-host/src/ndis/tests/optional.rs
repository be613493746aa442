//! `NdisSetOptionalHandlers`, and what a miniport does when a device comes and goes.

use super::*;

/// What the test's miniport sets as the context of the added device.
const DEVICE_CONTEXT: usize = 0x0DE5_1CE0;

unsafe extern "efiapi" fn add_device(handle: NDIS_HANDLE, context: NDIS_HANDLE) -> NdisStatus {
    let script = Script::at(context);
    script.saw("add device");
    let attributes = NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES, 1, 20),
        MiniportAddDeviceContext: Raw::at(DEVICE_CONTEXT).pointer(),
        Flags: 0,
    };
    let set = set_attributes(handle.addr(), (&raw const attributes).cast());
    if script.hangs.get() { NdisStatus::RESOURCES } else { set }
}

unsafe extern "efiapi" fn remove_device(context: NDIS_HANDLE) {
    assert_eq!(context.addr(), DEVICE_CONTEXT);
    script().saw("remove device");
}

fn set_handlers(handle: usize, kind: u8, size: u16) -> NdisStatus {
    let handlers = NDIS_MINIPORT_PNP_CHARACTERISTICS {
        Header: NDIS_OBJECT_HEADER::new(kind, 1, size),
        MiniportAddDeviceHandler: Some(add_device),
        MiniportRemoveDeviceHandler: Some(remove_device),
        MiniportFilterResourceRequirementsHandler: 1,
        MiniportStartDeviceHandler: 0,
        Flags: 0,
    };
    call_ddi!("NdisSetOptionalHandlers", fn(usize, &NDIS_MINIPORT_PNP_CHARACTERISTICS) -> NdisStatus, handle, &handlers)
}

unsafe extern "efiapi" fn set_options(handle: NDIS_HANDLE, _: NDIS_HANDLE) -> NdisStatus {
    assert_eq!(set_handlers(handle.addr(), 0x91, 40), NdisStatus::NOT_SUPPORTED);
    assert_eq!(set_handlers(handle.addr(), NDIS_OBJECT_TYPE_MINIPORT_PNP_CHARACTERISTICS, 32), NdisStatus::FAILURE);
    set_handlers(handle.addr(), NDIS_OBJECT_TYPE_MINIPORT_PNP_CHARACTERISTICS, 40)
}

fn nic() -> Nic {
    Nic::with(|c| c.SetOptionsHandler = Some(set_options))
}

#[test]
fn a_device_is_added_before_and_removed_after_everything_else() {
    conforms!("ndis/nf-ndis-ndissetoptionalhandlers.md", "Miniports set optional handlers in MiniportSetOptions.");
    conforms!("ndis/nc-ndis-miniport_add_device.md", "MiniportAddDevice comes before MiniportInitializeEx.");
    conforms!(
        "ndis/ns-ndis-_ndis_miniport_add_device_registration_attributes.md",
        "The context set in MiniportAddDevice is passed to MiniportRemoveDevice."
    );
    let nic = nic();
    let adapter = nic.add().unwrap();
    adapter.remove().unwrap();
    let expected = ["add device", "initialize", "power profile", "restart", "pause", "halt", "remove device"];
    assert_eq!(callbacks(), expected);
}

#[test]
fn a_device_that_cannot_be_added_is_not_initialised() {
    conforms!("ndis/nc-ndis-miniport_add_device.md", "When MiniportAddDevice fails, the adapter is not initialised.");
    let nic = nic();
    script().hangs.set(true);
    assert_eq!(status(nic.add()), NdisStatus::RESOURCES);
    assert_eq!(callbacks(), ["add device"]);
}

#[test]
fn a_device_whose_start_fails_is_removed() {
    conforms!("ndis/nc-ndis-miniport_remove_device.md", "MiniportRemoveDevice undoes what MiniportAddDevice did.");
    let nic = nic();
    nic.on_initialize(|_| NdisStatus::FAILURE);
    assert_eq!(status(nic.add()), NdisStatus::FAILURE);
    assert_eq!(callbacks(), ["add device", "initialize", "remove device"]);
}

#[test]
fn optional_handlers_outside_of_set_options_are_found() {
    conforms!("ndis/nc-ndis-set_options.md", "A miniport sets optional handlers within its registration.");
    let nic = Nic::new();
    let late = nic.bench.run(|| set_handlers(REGISTERED.get(), NDIS_OBJECT_TYPE_MINIPORT_PNP_CHARACTERISTICS, 40));
    assert_eq!(late.unwrap_err().0.rule, Rule::BadState);
}
