//! FltGetXxxInformation and FltEnumerateXxxInformation: filters, instances and volumes as structures.

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fltmgr::raw as flt;
use fltmgr::raw::FLTFL_IS_MINIFILTER;
use nt_types::{NtStatus, UNICODE_STRING};

use super::filter::Filter;
use super::instance::{FSTYPE_NTFS, Instance, VolumeStack};
use super::object;
use super::volumes::find_volume;
use crate::ddi::{Call, exports};
use crate::fs::device::VolumeDevice;
use crate::machine::Inner;
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetFilterInformation(max 1) = flt_get_filter_information;
    FltGetInstanceInformation(max 1) = flt_get_instance_information;
    FltGetVolumeInformation(max 1) = flt_get_volume_information;
    FltEnumerateFilterInformation(max 1) = flt_enumerate_filter_information;
    FltEnumerateVolumeInformation(max 1) = flt_enumerate_volume_information;
    FltEnumerateInstanceInformationByFilter(max 1) = flt_enumerate_instance_information_by_filter;
    FltEnumerateInstanceInformationByVolume(max 1) = flt_enumerate_instance_information_by_volume;
    FltEnumerateInstanceInformationByVolumeName(max 1) = flt_enumerate_instance_information_by_volume_name;
    FltEnumerateInstanceInformationByDeviceObject(max 1) = flt_enumerate_instance_information_by_device_object;
}

/// A structure in the making: numbers at their places, strings behind them.
struct Record(Vec<u8>);

impl Record {
    fn new(fixed: usize) -> Self {
        Self(vec![0; fixed])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Length and offset at `at`, the characters at the end.
    fn string(mut self, at: usize, text: &str) -> Self {
        let (bytes, place) = (unicode::bytes_of(text), self.0.len());
        for (field, value) in [(at, bytes.len()), (at + 2, place)] {
            self.0[field..field + 2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        self.0.extend(bytes);
        self
    }

    /// Length at `at`, the characters at the next two bytes, where the structure's own first character is.
    fn inline_string(mut self, at: usize, text: &str) -> Self {
        let bytes = unicode::bytes_of(text);
        self.0.truncate(at);
        self.0.extend((bytes.len() as u16).to_le_bytes());
        self.0.extend(bytes);
        self
    }
}

/// What a filter's structure of this class is; `INVALID_PARAMETER` for another class.
pub(super) fn of_filter(filter: &Filter, class: i32) -> Result<Vec<u8>, NtStatus> {
    let instances = filter.lock().instances.len() as u32;
    let altitude = filter.definitions.first().map_or("", |first| first.altitude.text());
    let record = match class {
        flt::FILTER_FULL_INFORMATION_CLASS => {
            use flt::FILTER_FULL_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .u32(offset_of!(Layout, NumberOfInstances), instances)
                .inline_string(offset_of!(Layout, FilterNameLength), &filter.name)
        }
        flt::FILTER_AGGREGATE_BASIC_INFORMATION_CLASS => {
            use flt::FILTER_AGGREGATE_BASIC_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .u32(offset_of!(Layout, Flags), FLTFL_IS_MINIFILTER)
                .u32(offset_of!(Layout, NumberOfInstances), instances)
                .string(offset_of!(Layout, FilterNameLength), &filter.name)
                .string(offset_of!(Layout, FilterAltitudeLength), altitude)
        }
        flt::FILTER_AGGREGATE_STANDARD_INFORMATION_CLASS => {
            use flt::FILTER_AGGREGATE_STANDARD_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .u32(offset_of!(Layout, Flags), FLTFL_IS_MINIFILTER)
                .u32(offset_of!(Layout, NumberOfInstances), instances)
                .string(offset_of!(Layout, FilterNameLength), &filter.name)
                .string(offset_of!(Layout, FilterAltitudeLength), altitude)
        }
        _ => return Err(NtStatus::INVALID_PARAMETER),
    };
    Ok(record.0)
}

/// What an instance's structure of this class is; `INVALID_PARAMETER` for another class.
pub(super) fn of_instance(machine: &Inner, instance: &Instance, class: i32) -> Result<Vec<u8>, NtStatus> {
    let (altitude, volume) = (instance.altitude.text(), instance.volume.volume.device_name());
    let record = match class {
        flt::INSTANCE_BASIC_INFORMATION_CLASS => {
            use flt::INSTANCE_BASIC_INFORMATION as Layout;
            Record::new(size_of::<Layout>()).string(offset_of!(Layout, InstanceNameLength), &instance.name)
        }
        flt::INSTANCE_PARTIAL_INFORMATION_CLASS => {
            use flt::INSTANCE_PARTIAL_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .string(offset_of!(Layout, InstanceNameLength), &instance.name)
                .string(offset_of!(Layout, AltitudeLength), altitude)
        }
        flt::INSTANCE_FULL_INFORMATION_CLASS => {
            use flt::INSTANCE_FULL_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .string(offset_of!(Layout, InstanceNameLength), &instance.name)
                .string(offset_of!(Layout, AltitudeLength), altitude)
                .string(offset_of!(Layout, VolumeNameLength), &volume)
                .string(offset_of!(Layout, FilterNameLength), &instance.filter.name)
        }
        flt::INSTANCE_AGGREGATE_STANDARD_INFORMATION_CLASS => {
            use flt::INSTANCE_AGGREGATE_STANDARD_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .u32(offset_of!(Layout, Flags), FLTFL_IS_MINIFILTER)
                .u32(offset_of!(Layout, VolumeFileSystemType), FSTYPE_NTFS.cast_unsigned())
                .u32(offset_of!(Layout, SupportedFeatures), supported_features(machine, &instance.filter))
                .string(offset_of!(Layout, InstanceNameLength), &instance.name)
                .string(offset_of!(Layout, AltitudeLength), altitude)
                .string(offset_of!(Layout, VolumeNameLength), &volume)
                .string(offset_of!(Layout, FilterNameLength), &instance.filter.name)
        }
        _ => return Err(NtStatus::INVALID_PARAMETER),
    };
    Ok(record.0)
}

/// `SupportedFeatures` of the service key; 0 when it is not there.
fn supported_features(machine: &Inner, filter: &Filter) -> u32 {
    let path = format!(r"\Registry\Machine\System\CurrentControlSet\Services\{}", filter.name);
    let value = machine.nt.hive().open(&path).and_then(|key| key.value("SupportedFeatures"));
    value.ok().and_then(|value| value.as_dword()).unwrap_or(0)
}

/// What a volume's structure of this class is; `INVALID_PARAMETER` for another class.
fn of_volume(volume: &VolumeStack, class: i32) -> Result<Vec<u8>, NtStatus> {
    let name = volume.volume.device_name();
    let record = match class {
        flt::FILTER_VOLUME_BASIC_INFORMATION_CLASS => Record::new(0).inline_string(0, &name),
        flt::FILTER_VOLUME_STANDARD_INFORMATION_CLASS => {
            use flt::FILTER_VOLUME_STANDARD_INFORMATION as Layout;
            Record::new(size_of::<Layout>())
                .u32(offset_of!(Layout, FileSystemType), FSTYPE_NTFS.cast_unsigned())
                .inline_string(offset_of!(Layout, FilterVolumeNameLength), &name)
        }
        _ => return Err(NtStatus::INVALID_PARAMETER),
    };
    Ok(record.0)
}

/// The caller's buffer, as all of these routines have it.
struct Buffer {
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
}

impl Buffer {
    /// All of the structure or nothing; the size that it needs in either case.
    fn fill(&self, record: Result<Vec<u8>, NtStatus>) -> NtStatus {
        let record = match record {
            Ok(record) => record,
            Err(status) => return status,
        };
        self.returned.write(record.len() as u32);
        if record.len() > self.size as usize {
            return NtStatus::BUFFER_TOO_SMALL;
        }
        self.bytes.write_bytes(&record);
        NtStatus::SUCCESS
    }
}

/// One of a list. The class is checked even where the list has ended.
fn pick<T>(list: &[T], index: u32) -> Result<&T, NtStatus> {
    list.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)
}

extern "efiapi" fn flt_get_filter_information(
    filter: usize,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let filter = object::filter(&call, filter);
    Buffer { bytes, size, returned }.fill(of_filter(&filter, class))
}

extern "efiapi" fn flt_get_instance_information(
    instance: usize,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    Buffer { bytes, size, returned }.fill(of_instance(call.machine(), &instance, class))
}

extern "efiapi" fn flt_get_volume_information(
    volume: usize,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    Buffer { bytes, size, returned }.fill(of_volume(&volume, class))
}

/// Filters that filter, the farthest from the file system first.
fn by_distance(machine: &Inner) -> Vec<Arc<Filter>> {
    let mut filters = machine.flt.filters().clone();
    filters.retain(|filter| filter.started.load(Ordering::Acquire));
    filters.sort_by(|one, other| {
        let altitude = |filter: &Filter| filter.definitions.first().map(|first| first.altitude.clone());
        altitude(other).cmp(&altitude(one))
    });
    filters
}

extern "efiapi" fn flt_enumerate_filter_information(
    index: u32,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let filters = by_distance(call.machine());
    let record = pick(&filters, index).and_then(|filter| {
        if filter.rundown.is_ending() { Err(NtStatus::FLT_DELETING_OBJECT) } else { of_filter(filter, class) }
    });
    Buffer { bytes, size, returned }.fill(record)
}

extern "efiapi" fn flt_enumerate_volume_information(
    filter: usize,
    index: u32,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let volumes = super::volume_stacks(call.machine());
    Buffer { bytes, size, returned }.fill(pick(&volumes, index).and_then(|volume| of_volume(volume, class)))
}

/// Instance `index` of a list, as a structure.
fn instance_at(call: &Call, instances: &[Arc<Instance>], index: u32, class: i32, buffer: &Buffer) -> NtStatus {
    buffer.fill(pick(instances, index).and_then(|instance| {
        let ending = instance.rundown.is_ending();
        if ending { Err(NtStatus::FLT_DELETING_OBJECT) } else { of_instance(call.machine(), instance, class) }
    }))
}

extern "efiapi" fn flt_enumerate_instance_information_by_filter(
    filter: usize,
    index: u32,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let filter = object::filter(&call, filter);
    let instances = filter.lock().instances.clone();
    instance_at(&call, &instances, index, class, &Buffer { bytes, size, returned })
}

extern "efiapi" fn flt_enumerate_instance_information_by_volume(
    volume: usize,
    index: u32,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    instance_at(&call, &volume.instances(), index, class, &Buffer { bytes, size, returned })
}

extern "efiapi" fn flt_enumerate_instance_information_by_volume_name(
    name: Raw<UNICODE_STRING>,
    index: u32,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let Ok(name) = unicode::name(name) else { return NtStatus::INVALID_PARAMETER };
    call.detail(&name);
    if name.is_empty() {
        return NtStatus::INVALID_PARAMETER;
    }
    let Some(volume) = find_volume(call.machine(), &name) else { return NtStatus::OBJECT_NAME_NOT_FOUND };
    let instances = volume.instances();
    if instances.is_empty() {
        return NtStatus::FLT_VOLUME_NOT_FOUND;
    }
    instance_at(&call, &instances, index, class, &Buffer { bytes, size, returned })
}

extern "efiapi" fn flt_enumerate_instance_information_by_device_object(
    device: usize,
    index: u32,
    class: i32,
    bytes: Raw<u8>,
    size: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let Some(device) = call.machine().nt.objects().payload::<VolumeDevice>(device) else {
        return NtStatus::FLT_INTERNAL_ERROR;
    };
    let Some(volume) = call.machine().flt.stack_of(&device.volume) else { return NtStatus::FLT_VOLUME_NOT_FOUND };
    let instances = volume.instances();
    if instances.is_empty() {
        return NtStatus::FLT_INTERNAL_ERROR;
    }
    instance_at(&call, &instances, index, class, &Buffer { bytes, size, returned })
}
