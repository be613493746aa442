//! FltGetContexts and FltReleaseContexts, and whether a file can have contexts at all.

use fltmgr::raw::{FLT_ALL_CONTEXTS, FLT_RELATED_CONTEXTS, FLT_RELATED_CONTEXTS_EX, FLT_RELATED_OBJECTS};
use nt_types::{FILE_OBJECT, NtStatus};

use super::allocate::release;
use super::attach::{Target, get, open_of};
use super::definition::Kind;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::object;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetContexts(max 1) = flt_get_contexts;
    FltGetContextsEx(max 1) = flt_get_contexts_ex;
    FltReleaseContexts(max 2) = flt_release_contexts;
    FltReleaseContextsEx(max 2) = flt_release_contexts_ex;
    FltSupportsFileContexts(max 1) = flt_supports_file_contexts;
    FltSupportsFileContextsEx(max 1) = flt_supports_file_contexts_ex;
    FltSupportsStreamContexts(max 1) = flt_supports_stream_contexts;
    FltSupportsStreamHandleContexts(max 1) = flt_supports_stream_handle_contexts;
}

/// Members of `FLT_RELATED_CONTEXTS`, which lacks the section's.
const MEMBERS: usize = size_of::<FLT_RELATED_CONTEXTS>() / size_of::<usize>();
/// Members of `FLT_RELATED_CONTEXTS_EX`.
const MEMBERS_EX: usize = size_of::<FLT_RELATED_CONTEXTS_EX>() / size_of::<usize>();

/// Both structures are arrays of pointers in the order of [`Kind::ALL`].
fn get_all(call: &Call, related: Raw<FLT_RELATED_OBJECTS>, desired: u16, out: Raw<usize>, members: usize) {
    let related = related.read();
    let instance = |address: usize| (address != 0).then(|| object::instance(call, address));
    for (index, kind) in Kind::ALL.into_iter().take(members).enumerate() {
        let wanted = desired & kind.bits() != 0;
        let target = match kind {
            _ if !wanted => None,
            Kind::Volume if !related.Volume.is_null() => {
                let filter = object::filter(call, Raw::of(related.Filter).address());
                let volume = object::volume(call, Raw::of(related.Volume).address());
                Some(Target::volume(&filter, &volume))
            }
            Kind::Instance => instance(Raw::of(related.Instance).address()).map(|instance| Target::instance(&instance)),
            Kind::File | Kind::Stream | Kind::StreamHandle | Kind::Section => {
                instance(Raw::of(related.Instance).address())
                    .and_then(|instance| Target::file(call, kind, &instance, Raw::of(related.FileObject)).ok())
            }
            // There are no transactions here.
            Kind::Volume | Kind::Transaction => None,
        };
        out.index(index).write(target.map_or(0, |target| get(call, &target)));
    }
}

extern "efiapi" fn flt_get_contexts(related: Raw<FLT_RELATED_OBJECTS>, desired: u16, out: Raw<usize>) {
    let call = Call::enter();
    get_all(&call, related, desired, out, MEMBERS);
}

extern "efiapi" fn flt_get_contexts_ex(
    related: Raw<FLT_RELATED_OBJECTS>,
    desired: u16,
    size: usize,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    check_size(&call, size);
    if desired & !FLT_ALL_CONTEXTS != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    get_all(&call, related, desired, out, MEMBERS_EX);
    NtStatus::SUCCESS
}

fn check_size(call: &Call, size: usize) {
    if size != size_of::<FLT_RELATED_CONTEXTS_EX>() {
        call.stop(Rule::BadArgument, format!("ContextsSize is {size}, not sizeof(FLT_RELATED_CONTEXTS_EX)"));
    }
}

fn release_all(call: &Call, contexts: Raw<usize>, members: usize) {
    for member in (0..members).map(|index| contexts.index(index)) {
        let address = member.read();
        member.write(0);
        if address != 0 {
            release(call, address);
        }
    }
}

extern "efiapi" fn flt_release_contexts(contexts: Raw<usize>) {
    let call = Call::enter();
    release_all(&call, contexts, MEMBERS);
}

extern "efiapi" fn flt_release_contexts_ex(size: usize, contexts: Raw<usize>) {
    let call = Call::enter();
    check_size(&call, size);
    release_all(&call, contexts, MEMBERS_EX);
}

/// All files of the volumes here support all contexts once they are open; there are no paging files.
fn supported(call: &Call, file: Raw<FILE_OBJECT>) -> bool {
    open_of(call, file).is_some()
}

extern "efiapi" fn flt_supports_file_contexts(file: Raw<FILE_OBJECT>) -> u8 {
    let call = Call::enter();
    supported(&call, file).into()
}

extern "efiapi" fn flt_supports_file_contexts_ex(file: Raw<FILE_OBJECT>, instance: usize) -> u8 {
    let call = Call::enter();
    if instance != 0 {
        let _checked = object::instance(&call, instance);
    }
    // The file system supports them by itself, so that the instance makes no difference.
    supported(&call, file).into()
}

extern "efiapi" fn flt_supports_stream_contexts(file: Raw<FILE_OBJECT>) -> u8 {
    let call = Call::enter();
    supported(&call, file).into()
}

extern "efiapi" fn flt_supports_stream_handle_contexts(file: Raw<FILE_OBJECT>) -> u8 {
    let call = Call::enter();
    supported(&call, file).into()
}
