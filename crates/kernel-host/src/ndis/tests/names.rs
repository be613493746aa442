//! Names and interfaces, generic objects, the event log, processors, old locks, synchronous OID requests.

use super::buffers::{broken, free_memory};
use super::protocol_oid::{Ask, transfer};
use super::*;
use crate::thread::Thread;

/// Takes a string that NDIS allocated and frees it.
fn taken(string: UNICODE_STRING) -> String {
    let units = Raw::<u16>::of(string.Buffer).read_slice(usize::from(string.Length / 2));
    free_memory(string.Buffer.addr());
    String::from_utf16(&units).unwrap()
}

const EMPTY: UNICODE_STRING = UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: std::ptr::null_mut() };

#[test]
fn a_binding_and_a_bind_context_lead_to_the_name_of_the_adapter() {
    conforms!(
        "ndis/nf-ndis-ndisqueryadapterinstancename.md",
        "The friendly name comes in memory that the caller frees with NdisFreeMemory."
    );
    conforms!(
        "ndis/nf-ndis-ndisquerybindinstancename.md",
        "The name is known before the adapter is open, by the BindContext."
    );
    let nic = Nic::new();
    let talk = nic.talk();
    talk.on_bind(|(context, parameters)| {
        let mut name = EMPTY;
        let status =
            call_ddi!("NdisQueryBindInstanceName", fn(&mut UNICODE_STRING, usize) -> NdisStatus, &mut name, context);
        assert_eq!((status, taken(name)), (NdisStatus::SUCCESS, "Ethernet".to_owned()));
        protocol::current().open(context, parameters)
    });
    assert_eq!(nic.register_protocol().unwrap(), NdisStatus::SUCCESS);
    let _adapter = nic.add().unwrap();
    nic.bench
        .run(|| {
            let mut name = EMPTY;
            let query = |handle: usize, name: &mut UNICODE_STRING| {
                call_ddi!("NdisQueryAdapterInstanceName", fn(&mut UNICODE_STRING, usize) -> NdisStatus, name, handle)
            };
            assert_eq!(query(talk.binding(), &mut name), NdisStatus::SUCCESS);
            assert_eq!(taken(name), "Ethernet");
            let own = script().adapter.get();
            let mut name = EMPTY;
            call_ddi!("NdisMQueryAdapterInstanceName", fn(&mut UNICODE_STRING, usize) -> NdisStatus, &mut name, own)
                .ok()
                .unwrap();
            assert_eq!(taken(name), "Ethernet");
        })
        .unwrap();
}

#[test]
fn a_string_is_made_of_characters() {
    conforms!(
        "ndis/nf-ndis-ndisinitializestring.md",
        "NdisInitializeString allocates the string and converts the source to Unicode."
    );
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let mut made = EMPTY;
            let source = c"NIC".as_ptr().expose_provenance();
            call_ddi!("NdisInitializeString", fn(&mut UNICODE_STRING, usize), &mut made, source);
            assert_eq!((made.Length, made.MaximumLength), (6, 8));
            assert_eq!(taken(made), "NIC");
        })
        .unwrap();
}

#[test]
fn indexes_and_luids_lead_to_each_other() {
    conforms!(
        "ndis/nf-ndis-ndisifgetnetluidfrominterfaceindex.md",
        "The LUID of an interface is found by its index; an unknown one gives NDIS_STATUS_INTERFACE_NOT_FOUND."
    );
    conforms!("ndis/nf-ndis-ndisifgetinterfaceindexfromnetluid.md", "The index of an interface is found by its LUID.");
    conforms!(
        "ndis/nf-ndis-ndisifquerybindingifindex.md",
        "A binding knows the indexes and LUIDs of its highest and its lowest interface."
    );
    let (nic, adapter, talk) = Nic::bound();
    let expected = (adapter.port().index, adapter.port().luid());
    nic.bench
        .run(|| {
            let (mut index, mut luid, mut lowest) = (0_u32, 0_u64, 0_u64);
            let status = call_ddi!(
                "NdisIfQueryBindingIfIndex",
                fn(usize, &mut u32, &mut u64, usize, &mut u64) -> NdisStatus,
                talk.binding(),
                &mut index,
                &mut luid,
                0,
                &mut lowest
            );
            assert_eq!((status, index, luid, lowest), (NdisStatus::SUCCESS, expected.0, expected.1, expected.1));
            let by_luid = |luid: u64, index: &mut u32| {
                call_ddi!("NdisIfGetInterfaceIndexFromNetLuid", fn(u64, &mut u32) -> NdisStatus, luid, index)
            };
            let by_index = |index: u32, luid: &mut u64| {
                call_ddi!("NdisIfGetNetLuidFromInterfaceIndex", fn(u32, &mut u64) -> NdisStatus, index, luid)
            };
            index = 0;
            assert_eq!((by_luid(luid, &mut index), index), (NdisStatus::SUCCESS, expected.0));
            assert_eq!((by_index(index, &mut luid), luid), (NdisStatus::SUCCESS, expected.1));
            assert_eq!(by_index(999, &mut luid), NdisStatus::INTERFACE_NOT_FOUND);
            assert_eq!(by_luid(1, &mut index), NdisStatus::INTERFACE_NOT_FOUND);
        })
        .unwrap();
}

#[test]
fn a_luid_index_is_given_once_until_it_is_freed() {
    conforms!(
        "ndis/nf-ndis-ndisifallocatenetluidindex.md",
        "An index of an interface type is given to nobody else before NdisIfFreeNetLuidIndex."
    );
    let nic = Nic::new();
    let freed_twice = nic.bench.run(|| {
        let allocate = || {
            let mut index = 0_u32;
            let status = call_ddi!("NdisIfAllocateNetLuidIndex", fn(u16, &mut u32) -> NdisStatus, 6, &mut index);
            assert_eq!(status, NdisStatus::SUCCESS);
            index
        };
        let free = |index| call_ddi!("NdisIfFreeNetLuidIndex", fn(u16, u32) -> NdisStatus, 6, index);
        let (one, two) = (allocate(), allocate());
        assert_ne!(one, two);
        assert_eq!(free(one), NdisStatus::SUCCESS);
        assert_eq!(allocate(), one);
        assert_eq!(free(two), NdisStatus::SUCCESS);
        let _ = free(two);
    });
    assert_eq!(freed_twice.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn the_configuration_of_a_protocol_is_found_by_its_section() {
    conforms!(
        "ndis/nf-ndis-ndisopenprotocolconfiguration.md",
        "The section names the protocol's parameters for an adapter; NdisCloseConfiguration ends the handle."
    );
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let section = wide(r"testprot\Parameters\Adapters\X");
            let section = UNICODE_STRING::from_utf16(&section).unwrap();
            let (mut status, mut handle) = (NdisStatus::FAILURE, 0_usize);
            call_ddi!(
                "NdisOpenProtocolConfiguration",
                fn(&mut NdisStatus, &mut usize, &UNICODE_STRING),
                &mut status,
                &mut handle,
                &section
            );
            assert_eq!(status, NdisStatus::SUCCESS);
            call_ddi!("NdisCloseConfiguration", fn(usize), handle);
        })
        .unwrap();
    assert_eq!(nic.leaks(), 1);
}

fn generic_object(size: u16) -> usize {
    call_ddi!("NdisAllocateGenericObject", fn(usize, u32, u16) -> usize, 0, 0x3131, size)
}

fn free_generic_object(object: usize) {
    call_ddi!("NdisFreeGenericObject", fn(usize), object);
}

#[test]
fn a_generic_object_is_an_ndis_handle() {
    conforms!(
        "ndis/nf-ndis-ndisallocategenericobject.md",
        "The object serves as an NDIS handle, and has room for the caller behind it."
    );
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let object = generic_object(16);
            Raw::<u8>::at(object + size_of::<NDIS_GENERIC_OBJECT>()).fill(1, 16);
            let memory =
                call_ddi!("NdisAllocateMemoryWithTagPriority", fn(usize, u32, u32, u32) -> usize, object, 8, 0x31, 0);
            free_memory(memory);
            free_generic_object(object);
        })
        .unwrap();
}

#[test]
fn a_generic_object_is_freed_once() {
    conforms!("ndis/nf-ndis-ndisfreegenericobject.md", "What is freed came from NdisAllocateGenericObject.");
    let rule = broken(|| {
        let object = generic_object(0);
        free_generic_object(object);
        free_generic_object(object);
    });
    assert_eq!(rule, Rule::BadPoolFree);
}

fn write_event(strings: &[usize], data: &[u8]) -> NdisStatus {
    call_ddi!(
        "NdisWriteEventLogEntry",
        fn(usize, u32, u32, u16, usize, u32, usize) -> NdisStatus,
        driver_object(),
        0xC000_1389,
        7,
        strings.len() as u16,
        strings.as_ptr().expose_provenance(),
        data.len() as u32,
        data.as_ptr().expose_provenance()
    )
}

#[test]
fn events_are_logged_with_their_texts_and_data() {
    conforms!(
        "ndis/nf-ndis-ndiswriteeventlogentry.md",
        "An entry has terminated strings and binary data; too many of them give NDIS_STATUS_BUFFER_TOO_SHORT."
    );
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let text: Vec<u16> = wide("lwf\0");
            let strings = [text.as_ptr().expose_provenance()];
            assert_eq!(write_event(&strings, &[1, 2]), NdisStatus::SUCCESS);
            assert_eq!(write_event(&strings, &[0; 100]), NdisStatus::BUFFER_TOO_SHORT);
        })
        .unwrap();
    let log = nic.bench.machine().ndis_event_log();
    assert_eq!(log.len(), 1);
    assert_eq!((log[0].strings[0].as_str(), &log[0].data[..], log[0].unique), ("lwf", &[1, 2][..], 7));
}

#[test]
fn the_rss_processors_are_the_one_there_is() {
    conforms!(
        "ndis/nf-ndis-ndisgetrssprocessorinformation.md",
        "A buffer that is too short gives NDIS_STATUS_BUFFER_TOO_SHORT and the size that is needed."
    );
    let (nic, _adapter, talk) = Nic::bound();
    nic.bench
        .run(|| {
            let memory = [0_u64; 8];
            let ask = |size: &mut usize| {
                call_ddi!(
                    "NdisGetRssProcessorInformation",
                    fn(usize, usize, &mut usize) -> NdisStatus,
                    talk.binding(),
                    memory.as_ptr().expose_provenance(),
                    size
                )
            };
            let mut size = 8;
            assert_eq!((ask(&mut size), size), (NdisStatus::BUFFER_TOO_SHORT, 40));
            assert_eq!(ask(&mut size), NdisStatus::SUCCESS);
            let info = Raw::<NDIS_RSS_PROCESSOR_INFO>::at(memory.as_ptr().expose_provenance()).read();
            assert_eq!((info.RssProcessorCount, info.RssProcessorArrayOffset), (1, 32));
        })
        .unwrap();
}

fn old_lock(name: &'static str, lock: usize, for_write: Option<u8>, state: &mut LOCK_STATE) {
    if let Some(for_write) = for_write {
        // SAFETY: the signature is that of the acquisitions.
        let acquire: extern "efiapi" fn(usize, u8, &mut LOCK_STATE) = unsafe { std::mem::transmute(ddi(name)) };
        acquire(lock, for_write, state);
    } else {
        // SAFETY: the signature is that of the releases.
        let release: extern "efiapi" fn(usize, &mut LOCK_STATE) = unsafe { std::mem::transmute(ddi(name)) };
        release(lock, state);
    }
}

#[test]
fn an_old_lock_lies_in_the_drivers_memory() {
    conforms!(
        "ndis/nf-ndis-ndisacquirereadwritelock.md",
        "An acquisition raises the IRQL to DISPATCH_LEVEL, the release restores it."
    );
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let memory = [0_u64; 16];
            let lock = memory.as_ptr().expose_provenance();
            call_ddi!("NdisInitializeReadWriteLock", fn(usize), lock);
            let mut state = LOCK_STATE { LockState: 0, OldIrql: 9 };
            for for_write in [0, 1] {
                old_lock("NdisAcquireReadWriteLock", lock, Some(for_write), &mut state);
                assert_eq!(Thread::current().irql(), 2);
                old_lock("NdisReleaseReadWriteLock", lock, None, &mut state);
                assert_eq!(Thread::current().irql(), 0);
            }
        })
        .unwrap();
    assert_eq!(nic.leaks(), 1, "it is freed with its memory");
}

unsafe extern "efiapi" fn answer_synchronously(_: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST) -> NdisStatus {
    let data = transfer(request.expose_provenance());
    Raw::<u32>::of(data.read().InformationBuffer.cast()).write(6);
    NdisStatus::SUCCESS
}

#[test]
fn a_synchronous_request_is_answered_at_once() {
    conforms!(
        "ndis/nf-ndis-ndissynchronousoidrequest.md",
        "A synchronous OID request always completes synchronously, with the miniport's status."
    );
    let nic = Nic::with(|c| {
        c.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS, 3, 160);
        c.MinorNdisVersion = 81;
        c.SynchronousOidRequestHandler = Some(answer_synchronously);
    });
    let (_adapter, talk) = nic.bind();
    let ask = Ask::query(0xFF46_5702, 4);
    let status = nic
        .bench
        .run(|| call_ddi!("NdisSynchronousOidRequest", fn(usize, usize) -> NdisStatus, talk.binding(), ask.request));
    assert_eq!(status.unwrap(), NdisStatus::SUCCESS);
    assert_eq!(Raw::<u32>::of(transfer(ask.request).read().InformationBuffer.cast()).read(), 6);
}

#[test]
fn a_miniport_without_synchronous_requests_supports_none() {
    let (nic, _adapter, talk) = Nic::bound();
    let ask = Ask::query(0xFF46_5702, 4);
    let status = nic
        .bench
        .run(|| call_ddi!("NdisSynchronousOidRequest", fn(usize, usize) -> NdisStatus, talk.binding(), ask.request));
    assert_eq!(status.unwrap(), NdisStatus::NOT_SUPPORTED);
}
