//! `NdisOpenFile`, `NdisMapFile`, `NdisUnmapFile`, `NdisCloseFile`.

use super::*;

/// Status, handle and length.
fn open(name: &str, highest: i64) -> (NdisStatus, usize, u32) {
    let name = wide(name);
    let name = UNICODE_STRING::from_utf16(&name).unwrap();
    let (mut status, mut handle, mut length) = (NdisStatus::PENDING, 0, 0);
    call_ddi!(
        "NdisOpenFile",
        fn(&mut NdisStatus, &mut usize, &mut u32, &UNICODE_STRING, i64),
        &mut status,
        &mut handle,
        &mut length,
        &name,
        highest
    );
    (status, handle, length)
}

fn opened(name: &str) -> usize {
    let (status, handle, _) = open(name, -1);
    assert_eq!(status, NdisStatus::SUCCESS);
    handle
}

fn map(handle: usize) -> (NdisStatus, usize) {
    let (mut status, mut buffer) = (NdisStatus::PENDING, 0);
    call_ddi!("NdisMapFile", fn(&mut NdisStatus, &mut usize, usize), &mut status, &mut buffer, handle);
    (status, buffer)
}

fn unmap(handle: usize) {
    call_ddi!("NdisUnmapFile", fn(usize), handle);
}

fn close(handle: usize) {
    call_ddi!("NdisCloseFile", fn(usize), handle);
}

/// An adapter whose initialisation runs `body`, with the file `nic.bin` (three bytes) in place.
fn with_file(body: impl Fn() + Send + Sync + 'static) -> Result<Adapter, AdapterError> {
    let nic = Nic::new();
    nic.driver_file("nic.bin", &[1, 2, 3]);
    nic.driver_file("empty.bin", &[]);
    nic.on_initialize(move |_| {
        body();
        NdisStatus::SUCCESS
    });
    nic.add()
}

#[test]
fn an_open_file_has_its_length_and_mapping_exposes_its_bytes() {
    conforms!("ndis/nf-ndis-ndisopenfile.md", "Success hands out a handle and the length of the file in bytes.");
    conforms!(
        "ndis/nf-ndis-ndismapfile.md",
        "A mapped file's contents are at the returned address; it can be mapped again after an unmap."
    );
    let outcome = with_file(|| {
        let (status, handle, length) = open("nic.bin", -1);
        assert_eq!((status, length), (NdisStatus::SUCCESS, 3));
        let (status, buffer) = map(handle);
        assert_eq!(status, NdisStatus::SUCCESS);
        assert_eq!(Raw::<u8>::at(buffer).read_bytes(3), [1, 2, 3]);
        unmap(handle);
        assert_eq!(map(handle), (NdisStatus::SUCCESS, buffer), "map and unmap alternate freely");
        close(handle);
    });
    outcome.unwrap();
}

#[test]
fn a_missing_file_is_file_not_found() {
    conforms!("ndis/nf-ndis-ndisopenfile.md", "A file that does not exist is NDIS_STATUS_FILE_NOT_FOUND.");
    with_file(|| assert_eq!(open("missing.bin", -1).0, NdisStatus::FILE_NOT_FOUND)).unwrap();
}

#[test]
fn a_directory_is_file_not_found() {
    with_file(|| assert_eq!(open("", -1).0, NdisStatus::FILE_NOT_FOUND)).unwrap();
}

#[test]
fn an_empty_file_opens_with_length_zero() {
    let outcome = with_file(|| {
        let (status, handle, length) = open("empty.bin", -1);
        assert_eq!((status, length), (NdisStatus::SUCCESS, 0));
        assert_eq!(map(handle).0, NdisStatus::SUCCESS);
        close(handle);
    });
    outcome.unwrap();
}

#[test]
fn memory_above_the_highest_acceptable_address_is_not_used() {
    conforms!(
        "ndis/nf-ndis-ndisopenfile.md",
        "The file's memory lies below HighestAcceptableAddress; minus one accepts every address."
    );
    let outcome = with_file(|| {
        assert_eq!(open("nic.bin", 0).0, NdisStatus::RESOURCES);
        let (status, handle, _) = open("nic.bin", 0xFFFF_FFFF);
        assert_eq!(status, NdisStatus::SUCCESS);
        close(handle);
    });
    outcome.unwrap();
}

#[test]
fn a_second_mapping_is_already_mapped() {
    conforms!("ndis/nf-ndis-ndismapfile.md", "A file that is mapped already is NDIS_STATUS_ALREADY_MAPPED.");
    let outcome = with_file(|| {
        let handle = opened("nic.bin");
        assert_eq!(map(handle).0, NdisStatus::SUCCESS);
        assert_eq!(map(handle).0, NdisStatus::ALREADY_MAPPED);
        close(handle);
    });
    outcome.unwrap();
}

#[test]
fn two_opens_of_a_file_are_independent() {
    let outcome = with_file(|| {
        let (one, two) = (opened("nic.bin"), opened("nic.bin"));
        assert_ne!(map(one).1, map(two).1);
        close(one);
        unmap(two);
        close(two);
    });
    outcome.unwrap();
}

#[test]
fn a_file_left_open_by_initialisation_is_found() {
    conforms!("ndis/nf-ndis-ndisopenfile.md", "A file that was opened is closed before the initialisation returns.");
    assert_eq!(
        rule(with_file(|| {
            let _left_open = opened("nic.bin");
        })),
        Rule::HandleLeak
    );
}

#[test]
fn opening_a_file_outside_of_initialisation_is_found() {
    conforms!("ndis/nf-ndis-ndisopenfile.md", "Files are opened only while an adapter is initialised.");
    let nic = Nic::new();
    nic.driver_file("nic.bin", &[1]);
    let _adapter = nic.add().unwrap();
    let late = nic.bench.run(|| open("nic.bin", -1)).unwrap_err();
    assert_eq!(late.0.rule, Rule::BadState);
}

#[test]
fn unmapping_what_is_not_mapped_is_found() {
    conforms!("ndis/nf-ndis-ndisunmapfile.md", "An unmap releases a mapping of NdisMapFile.");
    assert_eq!(rule(with_file(|| unmap(opened("nic.bin")))), Rule::BadState);
}

#[test]
fn closing_twice_is_found() {
    conforms!("ndis/nf-ndis-ndisclosefile.md", "The handle and the file's memory end with NdisCloseFile.");
    let outcome = with_file(|| {
        let handle = opened("nic.bin");
        close(handle);
        close(handle);
    });
    assert_eq!(rule(outcome), Rule::InvalidHandle);
}

#[test]
fn a_file_is_opened_at_passive_level_only_but_mapped_up_to_dispatch_level() {
    let levels = ["NdisOpenFile", "NdisMapFile", "NdisUnmapFile", "NdisCloseFile"].map(|name| export(name).max_irql);
    assert_eq!(levels, [0, 2, 0, 0]);
}

#[test]
fn frames_of_a_closed_file_are_given_back() {
    let nic = Nic::new();
    nic.driver_file("nic.bin", &[1, 2, 3]);
    nic.on_initialize(|_| {
        let handle = opened("nic.bin");
        close(handle);
        NdisStatus::SUCCESS
    });
    nic.add().unwrap().remove().unwrap();
    let machine = nic.bench.machine().inner();
    assert!(machine.nt.physical().leaks(nic.bench.driver()).is_empty());
    assert_eq!(nic.leaks(), 1, "only the registration is left");
}
