//! `RtlCompressBuffer` and its like, for LZNT1: chunks of up to 4096 bytes, each compressed for itself (MS-XCA).
//!
//! XPRESS formats are answered as ones that the system does not support: drivers have to be ready for that. The
//! maximum engine only tries harder; what it makes is of the same format.

use nt_types::NtStatus;

use super::raw::Raw;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlGetCompressionWorkSpaceSize(max 1) = get_work_space_size;
    RtlCompressBuffer(max 1) = compress_buffer;
    RtlDecompressBuffer(max 1) = decompress_buffer;
    RtlDecompressBufferEx(max 1) = decompress_buffer_ex;
    RtlDecompressFragment(max 1) = decompress_fragment;
}

/// `COMPRESSION_FORMAT_NONE`, `_DEFAULT` and `_LZNT1`, in the low byte; the engine is above it.
const FORMAT_MASK: u16 = 0xFF;
const FORMAT_NONE: u16 = 0;
const FORMAT_DEFAULT: u16 = 1;
const FORMAT_LZNT1: u16 = 2;
/// `COMPRESSION_ENGINE_MAXIMUM`; standard is 0.
const ENGINE_MAXIMUM: u16 = 0x100;

/// Most bytes of a chunk before its compression.
const CHUNK: usize = 4096;
/// Chunk sizes that the page allows.
const CHUNK_SIZES: [u32; 4] = [512, 1024, 2048, 4096];
/// Work space of Windows' own implementation, for the buffer and for a fragment. None is used here.
const WORK_SPACE: u32 = 0x8010;
const FRAGMENT_WORK_SPACE: u32 = 0x1000;

fn check_format(format: u16) -> Result<(), NtStatus> {
    match format & FORMAT_MASK {
        FORMAT_NONE | FORMAT_DEFAULT => Err(NtStatus::INVALID_PARAMETER),
        FORMAT_LZNT1 => Ok(()),
        _ => Err(NtStatus::UNSUPPORTED_COMPRESSION),
    }
}

fn check_engine(format: u16) -> Result<(), NtStatus> {
    check_format(format)?;
    if matches!(format & !FORMAT_MASK, 0 | ENGINE_MAXIMUM) { Ok(()) } else { Err(NtStatus::NOT_SUPPORTED) }
}

fn status_of(result: Result<NtStatus, NtStatus>) -> NtStatus {
    result.unwrap_or_else(|status| status)
}

extern "efiapi" fn get_work_space_size(format: u16, buffer: Raw<u32>, fragment: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    if let Err(status) = check_engine(format) {
        return status;
    }
    buffer.write(WORK_SPACE);
    fragment.write(FRAGMENT_WORK_SPACE);
    NtStatus::SUCCESS
}

extern "efiapi" fn compress_buffer(
    format: u16,
    source: Raw<u8>,
    source_length: u32,
    target: Raw<u8>,
    target_length: u32,
    chunk: u32,
    final_length: Raw<u32>,
    _work_space: usize,
) -> NtStatus {
    let _call = Call::enter();
    let compress = || {
        check_engine(format)?;
        if !CHUNK_SIZES.contains(&chunk) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let source = source.read_bytes(source_length as usize);
        let mut compressed = Vec::new();
        source.chunks(chunk as usize).for_each(|chunk| lznt1::compress(chunk, &mut compressed));
        if compressed.len() > target_length as usize {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        target.write_bytes(&compressed);
        final_length.write(compressed.len() as u32);
        let only_zeros = source.iter().all(|byte| *byte == 0);
        Ok(if only_zeros { NtStatus::BUFFER_ALL_ZEROS } else { NtStatus::SUCCESS })
    };
    status_of(compress())
}

/// A chunk with its header, and what comes behind it.
type Split<'a> = (&'a [u8], &'a [u8]);

/// The chunk at the start of compressed data; nothing at the end.
fn split_chunk(data: &[u8]) -> Result<Option<Split<'_>>, NtStatus> {
    let Some((header, _)) = data.split_first_chunk::<2>() else {
        // One byte is no header; it may be padding.
        return Ok(None);
    };
    let header = u16::from_le_bytes(*header);
    if header == 0 {
        return Ok(None);
    }
    let length = 2 + usize::from(header & 0xFFF) + 1;
    data.split_at_checked(length).map(Some).ok_or(NtStatus::BAD_COMPRESSION_BUFFER)
}

/// Decompresses `room` bytes from `offset` of the uncompressed data on.
///
/// Each chunk by itself: it cannot refer to bytes of another one.
fn decompress(mut data: &[u8], offset: usize, room: usize) -> Result<Vec<u8>, NtStatus> {
    let mut all: Vec<u8> = Vec::new();
    let wanted = offset.saturating_add(room);
    while all.len() < wanted
        && let Some((chunk, rest)) = split_chunk(data)?
    {
        let mut bytes = Vec::new();
        lznt1::decompress(chunk, &mut bytes).map_err(|_| NtStatus::BAD_COMPRESSION_BUFFER)?;
        if bytes.len() > CHUNK {
            return Err(NtStatus::BAD_COMPRESSION_BUFFER);
        }
        // A chunk that is not the last one stands for all of its bytes.
        let is_last = split_chunk(rest)?.is_none();
        if !is_last {
            bytes.resize(CHUNK, 0);
        }
        all.extend(bytes);
        data = rest;
    }
    all.truncate(wanted);
    Ok(all.split_off(offset.min(all.len())))
}

/// The source of a decompression, and where its result goes.
struct Buffers {
    source: Raw<u8>,
    source_length: u32,
    target: Raw<u8>,
    target_length: u32,
    final_length: Raw<u32>,
}

impl Buffers {
    fn decompress(&self, format: u16, offset: usize) -> NtStatus {
        let decompress = || {
            check_format(format)?;
            let source = self.source.read_bytes(self.source_length as usize);
            let bytes = decompress(&source, offset, self.target_length as usize)?;
            self.target.write_bytes(&bytes);
            self.final_length.write(bytes.len() as u32);
            Ok(NtStatus::SUCCESS)
        };
        status_of(decompress())
    }
}

extern "efiapi" fn decompress_buffer(
    format: u16,
    target: Raw<u8>,
    target_length: u32,
    source: Raw<u8>,
    source_length: u32,
    final_length: Raw<u32>,
) -> NtStatus {
    let _call = Call::enter();
    Buffers { source, source_length, target, target_length, final_length }.decompress(format, 0)
}

extern "efiapi" fn decompress_buffer_ex(
    format: u16,
    target: Raw<u8>,
    target_length: u32,
    source: Raw<u8>,
    source_length: u32,
    final_length: Raw<u32>,
    _work_space: usize,
) -> NtStatus {
    let _call = Call::enter();
    Buffers { source, source_length, target, target_length, final_length }.decompress(format, 0)
}

extern "efiapi" fn decompress_fragment(
    format: u16,
    target: Raw<u8>,
    target_length: u32,
    source: Raw<u8>,
    source_length: u32,
    offset: u32,
    final_length: Raw<u32>,
    _work_space: usize,
) -> NtStatus {
    let _call = Call::enter();
    Buffers { source, source_length, target, target_length, final_length }.decompress(format, offset as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    const STANDARD: u16 = FORMAT_LZNT1;

    fn compressed(format: u16, data: &[u8], room: usize, chunk: u32) -> Result<(NtStatus, Vec<u8>), NtStatus> {
        let (mut source, mut target, mut length) = (data.to_vec(), vec![0_u8; room], 0);
        let (from, to) = (Raw::of(source.as_mut_ptr()), Raw::of(target.as_mut_ptr()));
        let out = Raw::of(&raw mut length);
        let run = Bench::new()
            .run(|| compress_buffer(format, from, data.len() as u32, to, room as u32, chunk, out, 0))
            .unwrap();
        run.ok().map(|()| (run, to.read_bytes(out.read() as usize)))
    }

    fn fragment(data: &[u8], offset: u32, room: usize) -> Result<Vec<u8>, NtStatus> {
        let (mut source, mut target, mut length) = (data.to_vec(), vec![0_u8; room.max(1)], 0);
        let (from, to) = (Raw::of(source.as_mut_ptr()), Raw::of(target.as_mut_ptr()));
        let out = Raw::of(&raw mut length);
        let call = || decompress_fragment(STANDARD, to, room as u32, from, data.len() as u32, offset, out, 0);
        Bench::new().run(call).unwrap().ok().map(|()| to.read_bytes(out.read() as usize))
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| b"the quick brown fox "[(at * at / 7) % 20]).collect()
    }

    #[test]
    fn what_was_compressed_comes_back() {
        conforms!(
            "ntifs/nf-ntifs-rtlcompressbuffer.md",
            "The buffer is compressed in chunks of the size that is given."
        );
        conforms!("ntifs/nf-ntifs-rtldecompressbuffer.md", "The whole buffer is decompressed, and its length stored.");
        for bytes in [1, 100, 4096, 4097, 20_000] {
            let data = text(bytes);
            let (_, packed) = compressed(STANDARD, &data, 2 * bytes + 64, 4096).unwrap();
            assert_eq!(fragment(&packed, 0, bytes), Ok(data.clone()), "{bytes}");
            assert_eq!(fragment(&packed, 0, bytes + 10), Ok(data), "{bytes}");
        }
        assert!(compressed(STANDARD, &[7; 8000], 400, 4096).is_ok(), "what repeats becomes small");
    }

    #[test]
    fn a_fragment_begins_where_it_is_asked_to() {
        conforms!(
            "ntifs/nf-ntifs-rtldecompressfragment.md",
            "FragmentOffset is a position in the uncompressed data, from which on the fragment is taken."
        );
        let data = text(10_000);
        let (_, packed) = compressed(STANDARD | ENGINE_MAXIMUM, &data, 20_000, 4096).unwrap();
        for (offset, length) in [(0, 10), (4090, 20), (8192, 1808), (9990, 100), (10_000, 5)] {
            let end = (offset + length).min(data.len());
            assert_eq!(fragment(&packed, offset as u32, length), Ok(data[offset..end].to_vec()));
        }
    }

    #[test]
    fn the_example_of_the_specification_is_decompressed() {
        // MS-XCA, section 3.3.
        let packed = [
            0x38, 0xB0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xA2, 0x47, 0x01, 0xA0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xC0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xB4,
            0x02, 0x4A, 0x44, 0xEF, 0x03, 0x58, 0x02, 0x8C, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xBE, 0x00, 0x9E, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let text = "F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# \
                    E D E A F# F# G A A G F# E D D E F# E D D\0";
        assert_eq!(fragment(&packed, 0, 4096).map(|bytes| String::from_utf8(bytes).unwrap()), Ok(text.to_owned()));
    }

    #[test]
    fn a_buffer_of_zeros_says_so_and_one_that_is_too_small_too() {
        conforms!("ntifs/nf-ntifs-rtlcompressbuffer.md", "STATUS_BUFFER_ALL_ZEROS is returned for a buffer of zeros.");
        conforms!(
            "ntifs/nf-ntifs-rtlcompressbuffer.md",
            "STATUS_BUFFER_TOO_SMALL is returned when the compressed data does not fit."
        );
        assert_eq!(compressed(STANDARD, &[0; 100], 100, 4096).unwrap().0, NtStatus::BUFFER_ALL_ZEROS);
        assert_eq!(compressed(STANDARD, &text(100), 4, 4096), Err(NtStatus::BUFFER_TOO_SMALL));
    }

    #[test]
    fn formats_and_engines_that_are_not_there_are_refused() {
        conforms!(
            "ntifs/nf-ntifs-rtlcompressbuffer.md",
            "STATUS_INVALID_PARAMETER is returned for COMPRESSION_FORMAT_NONE and _DEFAULT."
        );
        conforms!(
            "ntifs/nf-ntifs-rtlgetcompressionworkspacesize.md",
            "STATUS_UNSUPPORTED_COMPRESSION is returned for an unknown format, STATUS_NOT_SUPPORTED for an unknown engine."
        );
        let format = |format| compressed(format, b"abc", 100, 4096).map(|_| ());
        assert_eq!([format(0), format(1)], [Err(NtStatus::INVALID_PARAMETER); 2]);
        assert_eq!(format(9), Err(NtStatus::UNSUPPORTED_COMPRESSION));
        let sizes = |format| {
            let mut sizes = [0_u32; 2];
            let at = Raw::<u32>::of((&raw mut sizes).cast());
            (Bench::new().run(|| get_work_space_size(format, at, at.index(1))).unwrap(), at.read())
        };
        assert_eq!([sizes(9).0, sizes(0x202).0], [NtStatus::UNSUPPORTED_COMPRESSION, NtStatus::NOT_SUPPORTED]);
        assert_eq!(sizes(STANDARD | ENGINE_MAXIMUM), (NtStatus::SUCCESS, WORK_SPACE));
    }

    #[test]
    fn malformed_data_is_refused() {
        conforms!(
            "ntifs/nf-ntifs-rtldecompressbuffer.md",
            "STATUS_BAD_COMPRESSION_BUFFER is returned for data that cannot be decompressed."
        );
        for packed in [&[0x38, 0xB0, 0x00][..], &[0x03, 0xB0, 0x01, 0xFF, 0xFF, 0x00], &[0xFF, 0xBF]] {
            assert_eq!(fragment(packed, 0, 100), Err(NtStatus::BAD_COMPRESSION_BUFFER), "{packed:x?}");
        }
    }
}
