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
    conforms!("ndis/ns-ndis-_ndis_configuration_parameter.md", "A string value comes back as a counted string.");
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
    conforms!(
        "ndis/ns-ndis-_ndis_configuration_parameter.md",
        "A number asked for as NdisParameterHexInteger comes back as NdisParameterInteger."
    );
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
    conforms!("ndis/nf-ndis-ndisreadconfiguration.md", "A value that cannot be found is NDIS_STATUS_FAILURE.");
    let outcome = with_configuration(|configuration| {
        assert_eq!(read(configuration, "Nothing", NdisParameterString).err(), Some(NdisStatus::FAILURE));
        assert_eq!(read(configuration, "FirmwareName", NdisParameterInteger).err(), Some(NdisStatus::FAILURE));
        close(configuration);
    });
    outcome.unwrap();
}

#[test]
fn the_version_of_ndis_can_be_read() {
    conforms!(
        "ndis/nf-ndis-ndisreadconfiguration.md",
        "The entry NdisVersion is predefined: major version high, minor version low."
    );
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
    conforms!("ndis/nf-ndis-ndisreadconfiguration.md", "The handle is that of an open configuration.");
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

fn write(configuration: usize, name: &str, kind: u32, value: u32) -> NdisStatus {
    let name = wide(name);
    let name = UNICODE_STRING::from_utf16(&name).unwrap();
    let parameter =
        NDIS_CONFIGURATION_PARAMETER { ParameterType: kind, ParameterData: NDIS_PARAMETER_DATA { IntegerData: value } };
    let mut status = NdisStatus::PENDING;
    call_ddi!(
        "NdisWriteConfiguration",
        fn(&mut NdisStatus, usize, &UNICODE_STRING, &NDIS_CONFIGURATION_PARAMETER),
        &mut status,
        configuration,
        &name,
        &parameter
    );
    status
}

#[test]
fn a_value_that_was_written_can_be_read() {
    conforms!(
        "ndis/nf-ndis-ndiswriteconfiguration.md",
        "The value is written to the registry, new or over an old one."
    );
    let outcome = with_configuration(|configuration| {
        assert_eq!(write(configuration, "Answer", NdisParameterInteger, 41), NdisStatus::SUCCESS);
        assert_eq!(write(configuration, "Answer", NdisParameterInteger, 42), NdisStatus::SUCCESS);
        let value = read(configuration, "Answer", NdisParameterInteger).unwrap();
        // SAFETY: an integer was asked for.
        assert_eq!(unsafe { value.ParameterData.IntegerData }, 42);
        close(configuration);
    });
    outcome.unwrap();
}

#[test]
fn a_type_that_does_not_exist_is_not_written() {
    conforms!("ndis/nf-ndis-ndiswriteconfiguration.md", "An invalid ParameterType is NDIS_STATUS_NOT_SUPPORTED.");
    let outcome = with_configuration(|configuration| {
        assert_eq!(write(configuration, "Answer", 99, 0), NdisStatus::NOT_SUPPORTED);
        close(configuration);
    });
    outcome.unwrap();
}

fn network_address(configuration: usize) -> (NdisStatus, Vec<u8>) {
    let (mut status, mut address, mut length) = (NdisStatus::PENDING, 0, 0);
    call_ddi!(
        "NdisReadNetworkAddress",
        fn(&mut NdisStatus, &mut usize, &mut u32, usize),
        &mut status,
        &mut address,
        &mut length,
        configuration
    );
    let read = if status == NdisStatus::SUCCESS { Raw::<u8>::at(address).read_bytes(length as usize) } else { vec![] };
    (status, read)
}

#[test]
fn a_network_address_is_read_as_bytes_of_hexadecimal_digits() {
    conforms!(
        "ndis/nf-ndis-ndisreadnetworkaddress.md",
        "Digits in pairs, with hyphens or without, come back as bytes."
    );
    conforms!("ndis/nf-ndis-ndisreadnetworkaddress.md", "Without a NetworkAddress the status is NDIS_STATUS_FAILURE.");
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        let configuration = open(handle);
        let (status, address) = network_address(configuration);
        close(configuration);
        assert!(address.is_empty() || address == [2, 0xAA, 3]);
        status
    });
    assert_eq!(status(nic.add()), NdisStatus::FAILURE);
    nic.bench.machine().add_adapter("testnic", "nic1", &[("NetworkAddress", "02-aa-03")]).unwrap();
}

#[test]
fn a_protocol_reads_the_configuration_of_its_binding() {
    conforms!(
        "ndis/nf-ndis-ndisopenconfigurationex.md",
        "The bind parameters, and later the binding handle, open the configuration of the binding."
    );
    let (nic, adapter, talk) = Nic::bound();
    let binding = talk.binding();
    nic.bench
        .run(|| {
            let configuration = open(binding);
            assert_eq!(write(configuration, "Depth", NdisParameterInteger, 3), NdisStatus::SUCCESS);
            close(configuration);
        })
        .unwrap();
    nic.bench.machine().unbind("testprot", adapter.name()).unwrap();
    talk.on_bind(|(context, parameters)| {
        let configuration = open(parameters);
        let depth = read(configuration, "Depth", NdisParameterInteger).unwrap();
        // SAFETY: an integer was asked for.
        assert_eq!(unsafe { depth.ParameterData.IntegerData }, 3);
        close(configuration);
        super::protocol::current().open(context, parameters)
    });
    nic.bench.machine().bind("testprot", adapter.name()).unwrap();
}
