//! Devices beside adapters: `NdisRegisterDeviceEx`.

use super::*;

fn attributes(name: &UNICODE_STRING, routines: &[usize; 28]) -> NDIS_DEVICE_OBJECT_ATTRIBUTES {
    std::ptr::from_ref(name).expose_provenance();
    routines.as_ptr().expose_provenance();
    NDIS_DEVICE_OBJECT_ATTRIBUTES {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEVICE_OBJECT_ATTRIBUTES, 1, 56),
        DeviceName: std::ptr::from_ref(name).cast_mut(),
        SymbolicName: std::ptr::null_mut(),
        MajorFunctions: routines.as_ptr().cast_mut().cast(),
        ExtensionSize: 8,
        DefaultSDDLString: std::ptr::null(),
        DeviceClassGuid: std::ptr::null(),
    }
}

fn register_device(handle: usize, attributes: &NDIS_DEVICE_OBJECT_ATTRIBUTES) -> (NdisStatus, usize, usize) {
    let (mut object, mut device) = (1, 0);
    let status = call_ddi!(
        "NdisRegisterDeviceEx",
        fn(usize, &NDIS_DEVICE_OBJECT_ATTRIBUTES, &mut usize, &mut usize) -> NdisStatus,
        handle,
        attributes,
        &mut object,
        &mut device
    );
    (status, object, device)
}

#[test]
fn a_caller_that_is_no_ndis_driver_registers_no_device() {
    conforms!(
        "ndis/nf-ndis-ndisregisterdeviceex.md",
        "A caller that is no NDIS driver gets NDIS_STATUS_NOT_SUPPORTED, and the device object is NULL."
    );
    let nic = Nic::new();
    let wide = wide(r"\Device\TestNic");
    let name = UNICODE_STRING::from_utf16(&wide).unwrap();
    let routines = [0; 28];
    let (status, object, _) = nic.bench.run(|| register_device(0x1234, &attributes(&name, &routines))).unwrap();
    assert_eq!((status, object), (NdisStatus::NOT_SUPPORTED, 0));
}

#[test]
fn a_device_that_was_never_registered_is_not_deregistered() {
    conforms!(
        "ndis/nf-ndis-ndisderegisterdeviceex.md",
        "The handle is that of NdisRegisterDeviceEx; it ends with the call."
    );
    let nic = Nic::new();
    let stray = nic.bench.run(|| call_ddi!("NdisDeregisterDeviceEx", fn(usize), 0x1234));
    assert_eq!(stray.unwrap_err().0.rule, Rule::InvalidHandle);
}
