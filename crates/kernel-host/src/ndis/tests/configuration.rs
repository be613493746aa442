//! `NdisOpenConfigurationEx`, `NdisReadConfiguration`, `NdisCloseConfiguration`.

use super::*;

fn open(handle: usize) -> usize {
    let object = NDIS_CONFIGURATION_OBJECT {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT, 1, 20),
        NdisHandle: Raw::at(handle).pointer(),
        Flags: 0,
    };
    let mut configuration = 0;
    let status = call_ddi!(
        "NdisOpenConfigurationEx",
        fn(&NDIS_CONFIGURATION_OBJECT, &mut usize) -> NdisStatus,
        &object,
        &mut configuration
    );
    assert_eq!(status, NdisStatus::SUCCESS);
    configuration
}

fn read(configuration: usize, name: &str, kind: u32) -> Result<NDIS_CONFIGURATION_PARAMETER, NdisStatus> {
    let name = wide(name);
    let name = UNICODE_STRING::from_utf16(&name).unwrap();
    let (mut status, mut value) = (NdisStatus::PENDING, 0);
    call_ddi!(
        "NdisReadConfiguration",
        fn(&mut NdisStatus, &mut usize, usize, &UNICODE_STRING, u32),
        &mut status,
        &mut value,
        configuration,
        &name,
        kind
    );
    status.ok().map(|()| Raw::<NDIS_CONFIGURATION_PARAMETER>::at(value).read())
}

fn close(configuration: usize) {
    call_ddi!("NdisCloseConfiguration", fn(usize), configuration);
}

/// Runs `body` with the adapter's configuration open.
fn with_configuration(body: impl Fn(usize) + Send + Sync + 'static) -> Result<Adapter, AdapterError> {
    let nic = Nic::new();
    nic.on_initialize(move |handle| {
        body(open(handle));
        NdisStatus::SUCCESS
    });
    nic.add()
}

#[test]
fn a_string_comes_back_counted_and_found_without_case() {
    let outcome = with_configuration(|configuration| {
        let value = read(configuration, "firmwarename", NdisParameterString).unwrap();
        assert_eq!(value.ParameterType, NdisParameterString);
        // SAFETY: the type says that it is a string.
        let text = unsafe { value.ParameterData.StringData };
        let units = crate::nt::unicode::units(Raw::of((&raw const text).cast_mut()));
        assert_eq!(String::from_utf16(&units).unwrap(), "nic.bin");
        close(configuration);
    });
    outcome.unwrap();
}

#[test]
fn a_number_kept_as_text_comes_back_as_a_number_when_one_is_asked_for() {
    let outcome = with_configuration(|configuration| {
        let value = read(configuration, "*FlowControl", NdisParameterInteger).unwrap();
        // SAFETY: numbers are asked for and given.
        let number = unsafe { value.ParameterData.IntegerData };
        assert_eq!((value.ParameterType, number), (NdisParameterInteger, 3));
        close(configuration);
    });
    outcome.unwrap();
}

#[test]
fn what_is_not_there_or_no_number_is_failure() {
    let outcome = with_configuration(|configuration| {
        assert_eq!(read(configuration, "Nothing", NdisParameterString).err(), Some(NdisStatus::FAILURE));
        assert_eq!(read(configuration, "FirmwareName", NdisParameterInteger).err(), Some(NdisStatus::FAILURE));
        close(configuration);
    });
    outcome.unwrap();
}

#[test]
fn the_version_of_ndis_can_be_read() {
    let outcome = with_configuration(|configuration| {
        let value = read(configuration, "NdisVersion", NdisParameterInteger).unwrap();
        // SAFETY: it is a number.
        assert_eq!(unsafe { value.ParameterData.IntegerData }, 6 << 16 | 0x59);
        close(configuration);
    });
    outcome.unwrap();
}

#[test]
fn reading_through_a_closed_configuration_is_found() {
    let outcome = with_configuration(|configuration| {
        close(configuration);
        let _ = read(configuration, "FirmwareName", NdisParameterString);
    });
    assert_eq!(rule(outcome), Rule::InvalidHandle);
}

#[test]
fn a_configuration_left_open_by_the_halt_is_found() {
    conforms!(
        "ndis/nf-ndis-ndisopenconfigurationex.md",
        "An adapter's configuration is closed before MiniportHaltEx returns, and by NdisCloseConfiguration."
    );
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        open(handle);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(nic.add().unwrap().remove()), Rule::HandleLeak);
}
