//! Finding one's way among filters, instances and volumes.

use std::mem::offset_of;

use fltmgr::raw::INSTANCE_AGGREGATE_STANDARD_INFORMATION as Aggregate;

use super::*;
use crate::conformance::conforms;

/// A filter with instances at these altitudes; their names are the altitudes.
fn tower(altitudes: &[&str]) -> (Setup, usize) {
    let setup = Setup::new();
    let key = setup.service_key();
    key.open(r"Instances\Test Instance").unwrap().set_value("Flags", Value::dword(1)).unwrap();
    for altitude in altitudes {
        let instance = key.create(&format!(r"Instances\{altitude}")).unwrap().0;
        instance.set_value("Altitude", Value::text(altitude)).unwrap();
    }
    let filter = setup.filter();
    (setup, filter)
}

/// What a routine gives when there is no neighbour.
const NONE: (NtStatus, usize) = (NtStatus::NO_MORE_ENTRIES, 0xBAD);

/// A call of one of the enumerations.
type Enumerate<'a> = Box<dyn Fn(usize, u32, usize) -> NtStatus + 'a>;

/// A call of one of the enumerations by index.
type EnumerateAt<'a> = Box<dyn Fn(u32, usize, u32, usize) -> NtStatus + 'a>;

/// The instances on C:, highest first.
fn instances(setup: &Setup) -> Vec<usize> {
    let stacks = super::super::volume_stacks(setup.bench.machine().inner());
    stacks[0].instances().iter().map(|instance| instance.address).collect()
}

/// Calls a routine that gives a neighbour, and releases it.
fn neighbour(setup: &Setup, find: extern "efiapi" fn(usize, usize) -> NtStatus, from: usize) -> (NtStatus, usize) {
    let (status, found) = with_out(|out| setup.run(|| find(from, out)).unwrap());
    if status.is_success() {
        setup.dereference(found).expect("it comes with a reference");
    }
    (status, found)
}

#[test]
fn instances_have_neighbours_by_altitude() {
    conforms!("fltkernel/nf-fltkernel-fltgettopinstance.md", "The highest instance on the volume, with a reference.");
    conforms!("fltkernel/nf-fltkernel-fltgetbottominstance.md", "The lowest instance on the volume, with a reference.");
    conforms!(
        "fltkernel/nf-fltkernel-fltgetupperinstance.md",
        "The next higher instance, with a reference; STATUS_NO_MORE_ENTRIES above the highest."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetlowerinstance.md",
        "The next lower instance, with a reference; STATUS_NO_MORE_ENTRIES below the lowest."
    );
    let (setup, filter) = tower(&["100.123456", "03333", "200"]);
    let [high, middle, low] = instances(&setup)[..] else { panic!("three instances") };
    let volume = setup.volume();
    let top = ddi!(FltGetTopInstance: fn(usize, usize) -> NtStatus);
    let bottom = ddi!(FltGetBottomInstance: fn(usize, usize) -> NtStatus);
    let upper = ddi!(FltGetUpperInstance: fn(usize, usize) -> NtStatus);
    let lower = ddi!(FltGetLowerInstance: fn(usize, usize) -> NtStatus);
    let found = |instance| (NtStatus::SUCCESS, instance);
    assert_eq!(neighbour(&setup, top, volume), found(high));
    assert_eq!(neighbour(&setup, bottom, volume), found(low));
    assert_eq!(neighbour(&setup, upper, low), found(middle));
    assert_eq!(neighbour(&setup, upper, high), NONE);
    assert_eq!(neighbour(&setup, lower, high), found(middle));
    assert_eq!(neighbour(&setup, lower, low), NONE);
    setup.unregister(filter).unwrap();
    assert_eq!(neighbour(&setup, top, volume), NONE);
    assert_eq!(neighbour(&setup, bottom, volume), NONE);
}

#[test]
fn altitudes_are_compared_as_numbers() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompareinstancealtitudes.md",
        "Negative, zero or positive as the first instance is lower, at the same altitude or higher."
    );
    let (setup, _) = tower(&["100.123456", "03333"]);
    let [high, low] = instances(&setup)[..] else { panic!("two instances") };
    let compare = ddi!(FltCompareInstanceAltitudes: fn(usize, usize) -> i32);
    let compare = |one, other| {
        setup.call("FltCompareInstanceAltitudes", || {
            Thread::current().set_irql(2);
            let order = compare(one, other);
            Thread::current().set_irql(0);
            order
        })
    };
    assert!(compare(high, low).unwrap() > 0);
    assert!(compare(low, high).unwrap() < 0);
    assert_eq!(compare(low, low), Ok(0));
}

#[test]
fn the_highest_matching_instance_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumeinstancefromname.md",
        "Without an instance name the highest instance that matches is returned, with a reference."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumeinstancefromname.md",
        "STATUS_FLT_INSTANCE_NOT_FOUND when no instance matches."
    );
    let (setup, filter) = tower(&["5", "50"]);
    let [high, low] = instances(&setup)[..] else { panic!("two instances") };
    let get = ddi!(FltGetVolumeInstanceFromName: fn(usize, usize, usize, usize) -> NtStatus);
    let volume = setup.volume();
    let found = with_out(|out| setup.run(|| get(0, volume, 0, out)).unwrap());
    assert_eq!(found, (NtStatus::SUCCESS, high));
    setup.dereference(high).unwrap();
    with_name("5", |name| {
        assert_eq!(with_out(|out| setup.run(|| get(filter, volume, name, out)).unwrap()), (NtStatus::SUCCESS, low));
    });
    setup.dereference(low).unwrap();
    with_name("6", |name| {
        let status = with_out(|out| setup.run(|| get(filter, volume, name, out)).unwrap()).0;
        assert_eq!(status, NtStatus::FLT_INSTANCE_NOT_FOUND);
    });
    setup.unregister(filter).unwrap();
}

/// Calls an enumeration with room for `size` pointers: status, count and pointers.
fn enumerate(size: usize, body: impl FnOnce(usize, u32, usize) -> NtStatus) -> (NtStatus, u32, Vec<usize>) {
    let mut list = vec![0usize; size];
    let mut count = 0xBAD_u32;
    let (list_at, count_at) = (list.as_mut_ptr().expose_provenance(), (&raw mut count).expose_provenance());
    let status = body(if size == 0 { 0 } else { list_at }, size as u32, count_at);
    (status, Raw::<u32>::at(count_at).read(), Raw::<usize>::at(list_at).read_slice(size))
}

#[test]
fn lists_come_whole_with_references_or_not_at_all() {
    conforms!(
        "fltkernel/nf-fltkernel-fltenumeratefilters.md",
        "Each filter comes with a reference; STATUS_BUFFER_TOO_SMALL and the number found when the list is too short."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumeratevolumes.md",
        "Each volume comes with a reference; STATUS_BUFFER_TOO_SMALL and the number found when the list is too short."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstances.md",
        "Each instance comes with a reference; STATUS_BUFFER_TOO_SMALL and the number found when the list is too short."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstances.md",
        "Volume and Filter both NULL is STATUS_INVALID_PARAMETER."
    );
    let (setup, filter) = tower(&["5", "50"]);
    let filters = ddi!(FltEnumerateFilters: fn(usize, u32, usize) -> NtStatus);
    let volumes = ddi!(FltEnumerateVolumes: fn(usize, usize, u32, usize) -> NtStatus);
    let instances_of = ddi!(FltEnumerateInstances: fn(usize, usize, usize, u32, usize) -> NtStatus);
    let volume = setup.volume();
    let cases: [(Enumerate<'_>, Vec<usize>); 4] = [
        (Box::new(|list, size, count| filters(list, size, count)), vec![filter]),
        (Box::new(|list, size, count| volumes(filter, list, size, count)), vec![volume]),
        (Box::new(|list, size, count| instances_of(volume, 0, list, size, count)), instances(&setup)),
        (Box::new(|list, size, count| instances_of(0, filter, list, size, count)), instances(&setup)),
    ];
    for (call, expected) in cases {
        let count = expected.len() as u32;
        let short = setup.run(|| enumerate(expected.len() - 1, &call)).unwrap();
        assert_eq!((short.0, short.1), (NtStatus::BUFFER_TOO_SMALL, count));
        let whole = setup.run(|| enumerate(expected.len(), &call)).unwrap();
        assert_eq!(whole, (NtStatus::SUCCESS, count, expected.clone()));
        for object in expected {
            setup.dereference(object).unwrap();
            assert_eq!(setup.run(|| ddi!(FltObjectReference: fn(usize) -> NtStatus)(object)), Ok(NtStatus::SUCCESS));
            setup.dereference(object).unwrap();
        }
    }
    let nothing = setup.run(|| enumerate(1, |list, size, count| instances_of(0, 0, list, size, count))).unwrap();
    assert_eq!(nothing.0, NtStatus::INVALID_PARAMETER);
    setup.unregister(filter).unwrap();
}

#[test]
fn an_instance_knows_its_filter_and_its_volume() {
    conforms!("fltkernel/nf-fltkernel-fltgetfilterfrominstance.md", "The instance's filter, with a reference.");
    conforms!("fltkernel/nf-fltkernel-fltgetvolumefrominstance.md", "The instance's volume, with a reference.");
    let setup = Setup::new();
    let filter = setup.filter();
    let filter_of = ddi!(FltGetFilterFromInstance: fn(usize, usize) -> NtStatus);
    let volume_of = ddi!(FltGetVolumeFromInstance: fn(usize, usize) -> NtStatus);
    assert_eq!(neighbour(&setup, filter_of, setup.instance()), (NtStatus::SUCCESS, filter));
    assert_eq!(neighbour(&setup, volume_of, setup.instance()), (NtStatus::SUCCESS, setup.volume()));
    setup.unregister(filter).unwrap();
}

/// Calls an information routine with a buffer of `size` bytes: status, size returned, bytes.
fn ask(setup: &Setup, size: u32, body: impl FnOnce(usize, u32, usize) -> NtStatus) -> (NtStatus, u32, Vec<u8>) {
    let mut bytes = vec![0xEE_u8; size as usize + 8];
    let mut returned = 0xBAD_u32;
    let (at, returned_at) = (bytes.as_mut_ptr().expose_provenance(), (&raw mut returned).expose_provenance());
    let status = setup.run(|| body(at, size, returned_at)).unwrap();
    let bytes = Raw::<u8>::at(at).read_bytes(size as usize + 8);
    assert_eq!(bytes[size as usize..], [0xEE; 8], "nothing is written behind the buffer");
    (status, Raw::<u32>::at(returned_at).read(), bytes[..size as usize].to_vec())
}

/// A name in a structure: its length and offset are at `at`.
fn text(bytes: &[u8], at: usize) -> String {
    let number = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    wide_text(&bytes[number(at + 2)..number(at + 2) + number(at)])
}

fn wide_text(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).unwrap()
}

#[test]
fn a_filter_is_described_in_every_class() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilterinformation.md",
        "Another InformationClass is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilterinformation.md",
        "STATUS_BUFFER_TOO_SMALL, and the size that is needed, for a buffer that is too small."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_full_information.md",
        "Number of instances, and the name in the structure's last member and behind it."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_aggregate_basic_information.md",
        "A minifilter's flag, name and altitude, at offsets from the structure's start."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_aggregate_standard_information.md",
        "A minifilter's flag, name and altitude, at offsets from the structure's start."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let get = ddi!(FltGetFilterInformation: fn(usize, i32, usize, u32, usize) -> NtStatus);
    let get = |class, size| ask(&setup, size, |at, size, returned| get(filter, class, at, size, returned));
    assert_eq!(get(3, 200).0, NtStatus::INVALID_PARAMETER);
    for class in 0..3 {
        let (status, needed, _) = get(class, 8);
        assert_eq!(status, NtStatus::BUFFER_TOO_SMALL);
        let (status, returned, bytes) = get(class, needed);
        assert_eq!((status, returned), (NtStatus::SUCCESS, needed));
        if class == 0 {
            assert_eq!(bytes[offset_of!(flt::FILTER_FULL_INFORMATION, NumberOfInstances)], 1);
            assert_eq!(wide_text(&bytes[offset_of!(flt::FILTER_FULL_INFORMATION, FilterNameBuffer)..]), "TestFilter");
        } else {
            use flt::{FILTER_AGGREGATE_BASIC_INFORMATION as Basic, FILTER_AGGREGATE_STANDARD_INFORMATION as Standard};
            let (name, altitude) = match class {
                1 => (offset_of!(Basic, FilterNameLength), offset_of!(Basic, FilterAltitudeLength)),
                _ => (offset_of!(Standard, FilterNameLength), offset_of!(Standard, FilterAltitudeLength)),
            };
            assert_eq!(bytes[4], 1, "FLTFL_ASI_IS_MINIFILTER");
            assert_eq!((text(&bytes, name), text(&bytes, altitude)), ("TestFilter".to_owned(), "370030".to_owned()));
        }
    }
    setup.unregister(filter).unwrap();
}

#[test]
fn an_instance_is_described_in_every_class() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetinstanceinformation.md",
        "Another InformationClass is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetinstanceinformation.md",
        "STATUS_BUFFER_TOO_SMALL, and the size that is needed, for a buffer that is too small."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_instance_full_information.md",
        "Instance name, altitude, volume name and filter name, at offsets from the structure's start."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_instance_aggregate_standard_information.md",
        "The instance's names, its file system and the features that the filter supports."
    );
    let setup = Setup::new();
    setup.service_key().set_value("SupportedFeatures", Value::dword(3)).unwrap();
    let filter = setup.filter();
    let instance = setup.instance();
    let get = ddi!(FltGetInstanceInformation: fn(usize, i32, usize, u32, usize) -> NtStatus);
    let get = |class, size| ask(&setup, size, |at, size, returned| get(instance, class, at, size, returned));
    assert_eq!(get(4, 200).0, NtStatus::INVALID_PARAMETER);
    let bytes = |class| {
        let (status, needed, _) = get(class, 4);
        assert_eq!(status, NtStatus::BUFFER_TOO_SMALL);
        let (status, returned, bytes) = get(class, needed);
        assert_eq!((status, returned), (NtStatus::SUCCESS, needed));
        bytes
    };
    for class in 0..3 {
        assert_eq!(text(&bytes(class), 4), "Test Instance");
    }
    assert_eq!(text(&bytes(1), 8), "370030");
    let full = bytes(2);
    assert_eq!((text(&full, 12), text(&full, 16)), (r"\Device\HarddiskVolume1".to_owned(), "TestFilter".to_owned()));
    let aggregate = bytes(3);
    assert_eq!(aggregate[offset_of!(Aggregate, SupportedFeatures)], 3);
    assert_eq!(aggregate[offset_of!(Aggregate, VolumeFileSystemType)], 2, "FLT_FSTYPE_NTFS");
    assert_eq!(text(&aggregate, offset_of!(Aggregate, FilterNameLength)), "TestFilter");
    setup.unregister(filter).unwrap();
}

#[test]
fn a_volume_is_described_in_every_class() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumeinformation.md",
        "STATUS_INVALID_PARAMETER for another class, STATUS_BUFFER_TOO_SMALL and the size for a buffer that is too small."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_volume_basic_information.md",
        "The name's length, and the name behind it."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_volume_standard_information.md",
        "File system type, and the name in the structure's last member and behind it."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let volume = setup.volume();
    let get = ddi!(FltGetVolumeInformation: fn(usize, i32, usize, u32, usize) -> NtStatus);
    let get = |class, size| ask(&setup, size, |at, size, returned| get(volume, class, at, size, returned));
    assert_eq!(get(2, 200).0, NtStatus::INVALID_PARAMETER);
    for (class, name_at) in [(0, 2), (1, 18)] {
        let (status, needed, _) = get(class, 1);
        assert_eq!(status, NtStatus::BUFFER_TOO_SMALL);
        let (status, returned, bytes) = get(class, needed);
        assert_eq!((status, returned), (NtStatus::SUCCESS, needed));
        assert_eq!(wide_text(&bytes[name_at..]), r"\Device\HarddiskVolume1");
    }
    setup.unregister(filter).unwrap();
}

#[test]
fn structures_are_enumerated_by_index() {
    conforms!(
        "fltkernel/nf-fltkernel-fltenumeratefilterinformation.md",
        "An Index behind the last filter is STATUS_NO_MORE_ENTRIES."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumeratevolumeinformation.md",
        "An Index behind the last volume is STATUS_NO_MORE_ENTRIES."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbyfilter.md",
        "An Index behind the filter's last instance is STATUS_NO_MORE_ENTRIES."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbyvolume.md",
        "An Index behind the volume's last instance is STATUS_NO_MORE_ENTRIES."
    );
    let (setup, filter) = tower(&["5", "50"]);
    let volume = setup.volume();
    let filters = ddi!(FltEnumerateFilterInformation: fn(u32, i32, usize, u32, usize) -> NtStatus);
    let volumes = ddi!(FltEnumerateVolumeInformation: fn(usize, u32, i32, usize, u32, usize) -> NtStatus);
    let by_filter = ddi!(FltEnumerateInstanceInformationByFilter: fn(usize, u32, i32, usize, u32, usize) -> NtStatus);
    let by_volume = ddi!(FltEnumerateInstanceInformationByVolume: fn(usize, u32, i32, usize, u32, usize) -> NtStatus);
    let cases: [(EnumerateAt<'_>, u32); 4] = [
        (Box::new(|index, at, size, returned| filters(index, 2, at, size, returned)), 1),
        (Box::new(|index, at, size, returned| volumes(filter, index, 1, at, size, returned)), 1),
        (Box::new(|index, at, size, returned| by_filter(filter, index, 2, at, size, returned)), 2),
        (Box::new(|index, at, size, returned| by_volume(volume, index, 2, at, size, returned)), 2),
    ];
    for (call, count) in cases {
        for index in 0..count {
            let (status, ..) = ask(&setup, 256, |at, size, returned| call(index, at, size, returned));
            assert_eq!(status, NtStatus::SUCCESS);
        }
        let (status, ..) = ask(&setup, 256, |at, size, returned| call(count, at, size, returned));
        assert_eq!(status, NtStatus::NO_MORE_ENTRIES);
    }
    setup.unregister(filter).unwrap();
}

#[test]
fn instances_are_enumerated_by_the_name_of_their_volume() {
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbyvolumename.md",
        "STATUS_OBJECT_NAME_NOT_FOUND without the volume, STATUS_FLT_VOLUME_NOT_FOUND without an instance on it."
    );
    let (setup, filter) = tower(&["5"]);
    let get = ddi!(FltEnumerateInstanceInformationByVolumeName: fn(usize, u32, i32, usize, u32, usize) -> NtStatus);
    let get = |name: &str, index| {
        with_name(name, |name| ask(&setup, 256, |at, size, returned| get(name, index, 0, at, size, returned)))
    };
    let (status, _, bytes) = get(r"\??\C:", 0);
    assert_eq!((status, text(&bytes, 4)), (NtStatus::SUCCESS, "5".to_owned()));
    assert_eq!(get(r"\??\C:", 1).0, NtStatus::NO_MORE_ENTRIES);
    assert_eq!(get(r"\??\Q:", 0).0, NtStatus::OBJECT_NAME_NOT_FOUND);
    setup.unregister(filter).unwrap();
    assert_eq!(get(r"\??\C:", 0).0, NtStatus::FLT_VOLUME_NOT_FOUND);
}
