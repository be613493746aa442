//! Sections for data scans: a filter maps what it looks through, and marks the stream with a section context meanwhile.
//!
//! Pages: `fltkernel/nf-fltkernel-fltregisterfordatascan`, `fltkernel/nf-fltkernel-fltcreatesectionfordatascan`,
//! `fltkernel/nf-fltkernel-fltclosesectionfordatascan`. No I/O conflicts with a section here, since nothing purges a cache: conflict
//! notifications do not come.

use fltmgr::raw::FLT_SET_CONTEXT_KEEP_IF_EXISTS;
use nt_types::{FILE_OBJECT, NtStatus, OBJECT_ATTRIBUTES};

use super::attach::{Setting, Target, get_into, open_of};
use super::definition::Kind;
use super::{allocate, with_context};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::create::file_object;
use crate::flt::object;
use crate::fs::stream;
use crate::nt::raw::Raw;
use crate::nt::sections;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltRegisterForDataScan(max 1, fails RESOURCES) = flt_register_for_data_scan;
    FltCreateSectionForDataScan(max 1, fails RESOURCES) = flt_create_section_for_data_scan;
    FltCloseSectionForDataScan(max 1) = flt_close_section_for_data_scan;
    FltGetSectionContext(max 1) = flt_get_section_context;
}

/// `SEC_FILE`, and `SEC_COMMIT`, without which there is no section.
const SEC_FILE: u32 = 0x0080_0000;
const SEC_COMMIT: u32 = 0x0800_0000;

extern "efiapi" fn flt_register_for_data_scan(instance: usize) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    call.machine().flt.contexts.lock().scanning.insert(instance.address);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_create_section_for_data_scan(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    context: usize,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    _maximum: usize,
    protection: u32,
    allocation: u32,
    _flags: u32,
    handle: Raw<usize>,
    section: Raw<usize>,
    size: Raw<i64>,
) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    if file.is_null() || handle.is_null() || section.is_null() {
        call.stop(Rule::BadArgument, "FileObject, SectionHandle and SectionObject are required");
    }
    let is_scanning = call.machine().flt.contexts.lock().scanning.contains(&instance.address);
    if !is_scanning {
        return NtStatus::INVALID_PARAMETER;
    }
    if !matches!(protection, nt_types::PAGE_READONLY | nt_types::PAGE_READWRITE) {
        return NtStatus::INVALID_PARAMETER_8;
    }
    if allocation & SEC_COMMIT == 0 || allocation & !(SEC_COMMIT | SEC_FILE) != 0 {
        return NtStatus::INVALID_PARAMETER_9;
    }
    let open = match open_of(&call, file) {
        None => return NtStatus::INVALID_FILE_FOR_SECTION,
        Some(open) if open.stream.kind == stream::Kind::Directory => return NtStatus::FILE_IS_A_DIRECTORY,
        Some(open) => open,
    };
    let target = match Target::file(&call, Kind::Section, &instance, file) {
        Ok(target) => target,
        Err(status) => return status,
    };
    // The context first: it keeps a second section of the stream away.
    let setting = Setting { operation: FLT_SET_CONTEXT_KEEP_IF_EXISTS, new: context, old: Raw::NULL };
    let status = setting.carry_out(&call, &target);
    if status != NtStatus::SUCCESS {
        return status;
    }
    let (object, _) = file_object(&call, file);
    let made = sections::of_open_file(&call, &object, protection);
    let made =
        made.map_err(|status| if status == NtStatus::MAPPED_FILE_SIZE_ZERO { NtStatus::END_OF_FILE } else { status });
    drop(object);
    match made {
        Ok(made) => {
            handle.write(sections::handle_to(&call, &made, access, attributes));
            section.write(call.machine().nt.objects().give(&made, &call));
            size.write_if_some(open.size().unwrap_or(0).cast_signed());
            NtStatus::SUCCESS
        }
        Err(status) => {
            let unused = call.machine().flt.contexts.lock().unset(target.place());
            allocate::free_all(call.thread(), unused.into_iter().collect());
            call.thread().leave_if_stopped();
            status
        }
    }
}

extern "efiapi" fn flt_close_section_for_data_scan(context: usize) -> NtStatus {
    let call = Call::enter();
    let closed = with_context(&call, context, |state| {
        let found = state.contexts.get(&context).filter(|found| found.kind() == Kind::Section && found.was_set);
        let place = found.ok_or(NtStatus::INVALID_PARAMETER)?.place.ok_or(NtStatus::NOT_FOUND)?;
        Ok(state.unset(place))
    });
    match closed {
        Ok(unused) => {
            allocate::free_all(call.thread(), unused.into_iter().collect());
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn flt_get_section_context(instance: usize, file: Raw<FILE_OBJECT>, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let is_scanning = call.machine().flt.contexts.lock().scanning.contains(&instance.address);
    if !is_scanning {
        let _open = open_of(&call, file);
        out.write(0);
        return NtStatus::NOT_SUPPORTED;
    }
    get_into(&call, Target::file(&call, Kind::Section, &instance, file), out)
}
