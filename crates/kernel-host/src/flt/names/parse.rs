//! Cutting names into their parts: FltParseFileNameInformation and FltParseFileName.

use fltmgr::raw::FLT_FILE_NAME_INFORMATION;
use nt_types::{NtStatus, UNICODE_STRING};

use super::{slice, unknown};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::arena::Access;
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltParseFileNameInformation(max 1) = flt_parse_file_name_information;
    FltParseFileName(max 1) = flt_parse_file_name;
}

extern "efiapi" fn flt_parse_file_name_information(information: Raw<FLT_FILE_NAME_INFORMATION>) -> NtStatus {
    /// `FLTFL_FILE_NAME_PARSED_*`: final component 1, extension 2, stream 4, parent directory 8.
    const ALL_PARSED: u16 = 0xF;
    let call = Call::enter();
    let known = call
        .machine()
        .flt
        .names
        .lock()
        .held
        .get(&information.address())
        .map(|name| (name.text.clone(), name.volume, name.pages));
    let Some((text, volume, pages)) = known else { unknown(&call, information) };
    let parts = Parts::of(&text, volume);
    let arena = call.machine().nt.arena();
    arena.protect(information.address(), pages, Access::ReadWrite);
    let buffer = information.address() + size_of::<FLT_FILE_NAME_INFORMATION>();
    let part = |(start, end): (usize, usize)| slice(buffer, start, end);
    field!(information, FLT_FILE_NAME_INFORMATION, FinalComponent).write(part(parts.final_component));
    field!(information, FLT_FILE_NAME_INFORMATION, Extension).write(part(parts.extension));
    field!(information, FLT_FILE_NAME_INFORMATION, Stream).write(part(parts.stream));
    field!(information, FLT_FILE_NAME_INFORMATION, ParentDir).write(part(parts.parent));
    field!(information, FLT_FILE_NAME_INFORMATION, NamesParsed).write(ALL_PARSED);
    arena.protect(information.address(), pages, Access::Read);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_parse_file_name(
    name: Raw<UNICODE_STRING>,
    extension: Raw<UNICODE_STRING>,
    stream: Raw<UNICODE_STRING>,
    final_component: Raw<UNICODE_STRING>,
) -> NtStatus {
    let call = Call::enter();
    let Some(name) = name.some() else { call.stop(Rule::BadArgument, "FileName is NULL") };
    let name = name.read();
    let buffer = Raw::of(name.Buffer);
    let text = buffer.read_slice(usize::from(name.Length / 2));
    call.detail_of(|| String::from_utf16_lossy(&text));
    let parts = Parts::of(&text, 0);
    for (out, (start, end)) in
        [(extension, parts.extension), (stream, parts.stream), (final_component, parts.final_component)]
    {
        out.write_if_some(slice(buffer.address(), start, end));
    }
    NtStatus::SUCCESS
}

/// Start and end of each part, in characters.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    parent: (usize, usize),
    final_component: (usize, usize),
    extension: (usize, usize),
    stream: (usize, usize),
}

impl Parts {
    fn of(text: &[u16], volume: usize) -> Self {
        let end = text.len();
        let last = text[volume..].iter().rposition(|&unit| unit == u16::from(b'\\'));
        let start = last.map_or(volume, |at| volume + at + 1);
        let colon = text[start..].iter().position(|&unit| unit == u16::from(b':')).map_or(end, |at| start + at);
        let dot = text[start..colon].iter().rposition(|&unit| unit == u16::from(b'.'));
        Self {
            parent: (volume, start),
            final_component: (start, end),
            extension: dot.map_or((colon, colon), |at| (start + at + 1, colon)),
            stream: (colon, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::path::wide;

    #[test]
    fn a_name_is_parsed_as_the_page_shows() {
        let text = wide(r"\Device\HarddiskVolume1\Docume~1\MyUser\My Documents\TestRe~1.txt:stream1:$DATA");
        let parts = Parts::of(&text, r"\Device\HarddiskVolume1".len());
        let get = |(start, end): (usize, usize)| String::from_utf16_lossy(&text[start..end]);
        assert_eq!(get(parts.extension), "txt");
        assert_eq!(get(parts.stream), ":stream1:$DATA");
        assert_eq!(get(parts.final_component), "TestRe~1.txt:stream1:$DATA");
        assert_eq!(get(parts.parent), r"\Docume~1\MyUser\My Documents\");
    }

    #[test]
    fn a_dot_in_the_stream_is_no_extension() {
        let text = wide(r"\v\a:b.c");
        let parts = Parts::of(&text, 2);
        assert_eq!(parts.extension, (4, 4));
    }
}
