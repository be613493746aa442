//! What drivers learn of any object: `ZwQueryObject`, and objects by their names.
//!
//! Pages: `ntifs/nf-ntifs-zwqueryobject`, `ntifs/ns-ntifs-_public_object_basic_information`. `ObReferenceObjectByName` has no page,
//! and is in every other driver that looks for another one.

use nt_types::{HANDLE, KERNEL_MODE, KPROCESSOR_MODE, NtStatus, UNICODE_STRING};

use super::ob_exports::{open_entry, type_of};
use super::ob_named::{name_of, put_name};
use super::raw::{Raw, field};
use super::unicode;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwQueryObject(max 0) = zw_query_object;
    NtQueryObject(max 0) = zw_query_object;
    ObReferenceObjectByName(max 0, fails RESOURCES) = ob_reference_object_by_name;
}

/// `ObjectBasicInformation`, `ObjectNameInformation`, `ObjectTypeInformation`.
const BASIC: i32 = 0;
const NAME: i32 = 1;
const TYPE: i32 = 2;

/// Bytes of `PUBLIC_OBJECT_BASIC_INFORMATION` and `PUBLIC_OBJECT_TYPE_INFORMATION`, reserved members included.
const BASIC_BYTES: usize = 56;
const TYPE_BYTES: usize = 104;

pub(super) extern "efiapi" fn zw_query_object(
    handle: HANDLE,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let entry = match open_entry(&call, handle.addr(), 0, None, KERNEL_MODE) {
        Ok(entry) => entry,
        Err(status) => return status,
    };
    match class {
        BASIC => {
            returned.write_if_some(BASIC_BYTES as u32);
            if length as usize != BASIC_BYTES {
                return NtStatus::INFO_LENGTH_MISMATCH;
            }
            buffer.fill(0, BASIC_BYTES);
            // Attributes, GrantedAccess, HandleCount, PointerCount (without the reference that this call took).
            let object = &entry.object;
            let counts = [
                0,
                entry.access,
                object.handles().unsigned_abs() as u32,
                (object.references() - 1).unsigned_abs() as u32,
            ];
            for (index, number) in counts.into_iter().enumerate() {
                buffer.cast::<u32>().index(index).write(number);
            }
            NtStatus::SUCCESS
        }
        NAME => put_name(&name_of(&call, &entry.object).unwrap_or_default(), buffer.cast(), length, returned),
        TYPE => {
            let name = unicode::bytes_of(entry.object.type_name());
            let needed = TYPE_BYTES + name.len() + 2;
            returned.write_if_some(needed as u32);
            if (length as usize) < needed {
                return NtStatus::INFO_LENGTH_MISMATCH;
            }
            buffer.fill(0, needed);
            let characters = buffer.field::<u8>(TYPE_BYTES);
            characters.write_bytes(&name);
            let string = buffer.cast::<UNICODE_STRING>();
            field!(string, UNICODE_STRING, Length).write(name.len() as u16);
            field!(string, UNICODE_STRING, MaximumLength).write(name.len() as u16 + 2);
            field!(string, UNICODE_STRING, Buffer).write(characters.cast().pointer());
            NtStatus::SUCCESS
        }
        _ => NtStatus::INVALID_INFO_CLASS,
    }
}

pub(super) extern "efiapi" fn ob_reference_object_by_name(
    name: Raw<UNICODE_STRING>,
    _attributes: u32,
    _access_state: usize,
    _access: u32,
    object_type: usize,
    _mode: KPROCESSOR_MODE,
    _parse_context: usize,
    object: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let wanted = type_of(&call, object_type);
    let found = unicode::name(name).and_then(|path| {
        call.detail(path.as_str());
        let found = call.machine().nt.objects().namespace().lookup(&path)?;
        // Files and keys are behind their objects' names; those have handles.
        if !found.rest.is_empty() || wanted.is_some_and(|wanted| wanted != found.object.type_name()) {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        Ok(found.object)
    });
    match found {
        Ok(found) => {
            object.write(call.machine().nt.objects().give(&found, &call));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::ob_exports::{make_handle, ob_make_temporary_object, obf_dereference_object};
    use nt_types::ObjectFlags;

    #[test]
    fn a_handle_tells_its_rights_its_object_s_counts_type_and_name() {
        conforms!(
            "ntifs/nf-ntifs-zwqueryobject.md",
            "A buffer that does not fit is STATUS_INFO_LENGTH_MISMATCH; the length needed is returned."
        );
        conforms!("ntifs/ns-ntifs-__public_object_type_information.md", "The type's name is in TypeName.");
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().unwrap();
        bench
            .run(|| {
                let call = Call::enter();
                let object = call.machine().nt.objects().lookup(program.object()).unwrap();
                let handle = make_handle(&call, &object, 0x1234, ObjectFlags::KERNEL_HANDLE.bits());
                let handle = std::ptr::without_provenance_mut(handle);
                let (mut bytes, mut length) = ([0_u64; 32], 0_u32);
                let (buffer, returned) = (Raw::of(bytes.as_mut_ptr().cast::<u8>()), Raw::of(&raw mut length));
                assert_eq!(zw_query_object(handle, BASIC, buffer, 55, returned), NtStatus::INFO_LENGTH_MISMATCH);
                assert!(zw_query_object(handle, BASIC, buffer, returned.read(), returned).is_success());
                let numbers = buffer.cast::<u32>().read_slice(4);
                assert_eq!(
                    (numbers[1], numbers[2], numbers[3]),
                    (0x1234, 1, object.references().unsigned_abs() as u32)
                );
                assert_eq!(zw_query_object(handle, TYPE, buffer, 100, returned), NtStatus::INFO_LENGTH_MISMATCH);
                assert!(zw_query_object(handle, TYPE, buffer, 256, returned).is_success());
                assert_eq!(unicode::name(buffer.cast()), Ok("Process".to_owned()));
                assert!(zw_query_object(handle, NAME, buffer, 256, returned).is_success());
                assert_eq!((unicode::name(buffer.cast()), returned.read()), (Ok(String::new()), 16));
                assert_eq!(zw_query_object(handle, 9, buffer, 256, returned), NtStatus::INVALID_INFO_CLASS);
                crate::nt::ob_exports::close(&call, handle.addr(), KERNEL_MODE)
            })
            .unwrap()
            .ok()
            .unwrap();
    }

    #[test]
    fn an_object_is_referenced_by_its_name_until_it_loses_it() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::with(crate::machine::Machine::builder().volume("C:", folder.path()));
        let units: Vec<u16> = r"\??\C:".encode_utf16().collect();
        let mut name = UNICODE_STRING::from_utf16(&units).unwrap();
        let name = Raw::of(&raw mut name);
        let mut found = 0_usize;
        let out = Raw::of(&raw mut found);
        let device = crate::nt::ob_exports::type_address("Device");
        let driver = crate::nt::ob_exports::type_address("Driver");
        bench
            .run(|| {
                let by_name = |wanted| ob_reference_object_by_name(name, 0, 0, 0, wanted, KERNEL_MODE, 0, out);
                assert_eq!(by_name(driver), NtStatus::OBJECT_TYPE_MISMATCH);
                assert!(by_name(device).is_success());
                // A device's name is its driver's to take: this does nothing to it.
                ob_make_temporary_object(out.read());
                assert!(by_name(0).is_success());
                obf_dereference_object(out.read());
                obf_dereference_object(out.read());
            })
            .unwrap();
    }
}
