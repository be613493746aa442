//! Security identifiers. Pages: `ntifs/nf-ntifs-rtllengthsid` and its neighbours, `ntifs/ns-ntifs-_sid`.

use std::fmt;

use nt_types::{NtStatus, UNICODE_STRING};

use crate::ddi::{Call, exports};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlLengthSid(max 1) = rtl_length_sid;
    RtlLengthRequiredSid(max 1) = rtl_length_required_sid;
    RtlValidSid(max 1) = rtl_valid_sid;
    RtlEqualSid(max 31) = rtl_equal_sid;
    RtlCopySid(max 1) = rtl_copy_sid;
    RtlInitializeSid(max 1) = rtl_initialize_sid;
    RtlSubAuthoritySid(max 1) = rtl_sub_authority_sid;
    RtlSubAuthorityCountSid(max 1) = rtl_sub_authority_count_sid;
    RtlConvertSidToUnicodeString(max 1, fails RESOURCES) = rtl_convert_sid_to_unicode_string;
}

/// `SID_REVISION`.
const REVISION: u8 = 1;
/// `SID_MAX_SUB_AUTHORITIES`.
const MAX_SUB_AUTHORITIES: u8 = 15;
/// Bytes in front of the sub-authorities.
const HEADER: usize = 8;

/// A security identifier in its binary form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sid(Vec<u8>);

impl Sid {
    /// `S-1-authority-parts...`
    pub(crate) fn new(authority: u8, parts: &[u32]) -> Self {
        let mut bytes = vec![REVISION, parts.len() as u8, 0, 0, 0, 0, 0, authority];
        bytes.extend(parts.iter().flat_map(|part| part.to_le_bytes()));
        Self(bytes)
    }

    /// Everyone.
    pub(crate) fn world() -> Self {
        Self::new(1, &[0])
    }

    /// The system's own account.
    pub(crate) fn local_system() -> Self {
        Self::new(5, &[18])
    }

    /// The group Administrators.
    pub(crate) fn administrators() -> Self {
        Self::new(5, &[32, 544])
    }

    /// The group Users.
    pub(crate) fn users() -> Self {
        Self::new(5, &[32, 545])
    }

    /// Everybody who logged on.
    pub(crate) fn authenticated_users() -> Self {
        Self::new(5, &[11])
    }

    /// An account of the simulated computer.
    pub(crate) fn account(number: u32) -> Self {
        Self::new(5, &[21, 1_000_001, 1_000_002, 1_000_003, number])
    }

    /// Copies the identifier at an address.
    ///
    /// # Errors
    /// `STATUS_INVALID_SID`.
    pub(crate) fn read(sid: Raw<u8>) -> Result<Self, NtStatus> {
        if sid.is_null() || sid.read() != REVISION || sid.field::<u8>(1).read() > MAX_SUB_AUTHORITIES {
            return Err(NtStatus::INVALID_SID);
        }
        Ok(Self(sid.read_bytes(length_at(sid))))
    }

    /// The identifier that `bytes` begin with, in memory of the host's own.
    ///
    /// # Errors
    /// `STATUS_INVALID_SID`, also when they end before it does.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, NtStatus> {
        match bytes {
            [REVISION, count @ ..=MAX_SUB_AUTHORITIES, ..] => {
                bytes.get(..HEADER + usize::from(*count) * 4).map(|sid| Self(sid.to_vec())).ok_or(NtStatus::INVALID_SID)
            }
            _ => Err(NtStatus::INVALID_SID),
        }
    }

    /// The binary form.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.iter().skip(2).take(6).fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        if authority <= 1 << 32 {
            write!(f, "S-1-{authority}")?;
        } else {
            write!(f, "S-1-0x{authority:X}")?;
        }
        let (parts, _) = self.0.get(HEADER..).unwrap_or_default().as_chunks::<4>();
        parts.iter().try_for_each(|part| write!(f, "-{}", u32::from_le_bytes(*part)))
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes of the identifier at an address, as its own count says.
fn length_at(sid: Raw<u8>) -> usize {
    HEADER + usize::from(sid.field::<u8>(1).read()) * 4
}

pub(super) extern "efiapi" fn rtl_length_sid(sid: Raw<u8>) -> u32 {
    let _call = Call::enter();
    length_at(sid) as u32
}

pub(super) extern "efiapi" fn rtl_length_required_sid(sub_authorities: u32) -> u32 {
    let _call = Call::enter();
    (HEADER as u32).saturating_add(sub_authorities.saturating_mul(4))
}

pub(super) extern "efiapi" fn rtl_valid_sid(sid: Raw<u8>) -> u8 {
    let _call = Call::enter();
    u8::from(Sid::read(sid).is_ok())
}

pub(super) extern "efiapi" fn rtl_equal_sid(one: Raw<u8>, two: Raw<u8>) -> u8 {
    let _call = Call::enter();
    u8::from(one.read_bytes(length_at(one)) == two.read_bytes(length_at(two)))
}

pub(super) extern "efiapi" fn rtl_copy_sid(room: u32, target: Raw<u8>, source: Raw<u8>) -> NtStatus {
    let _call = Call::enter();
    let length = length_at(source);
    if length > room as usize {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    target.write_bytes(&source.read_bytes(length));
    NtStatus::SUCCESS
}

/// Fills all but the sub-authorities, which the caller sets through `RtlSubAuthoritySid`.
pub(super) extern "efiapi" fn rtl_initialize_sid(sid: Raw<u8>, authority: Raw<u8>, sub_authorities: u8) -> NtStatus {
    let _call = Call::enter();
    if sub_authorities > MAX_SUB_AUTHORITIES {
        return NtStatus::INVALID_PARAMETER;
    }
    sid.write_bytes(&[REVISION, sub_authorities]);
    sid.field::<u8>(2).write_bytes(&authority.read_bytes(6));
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn rtl_sub_authority_sid(sid: Raw<u8>, index: u32) -> usize {
    let _call = Call::enter();
    sid.field::<u32>(HEADER).index(index as usize).address()
}

extern "efiapi" fn rtl_sub_authority_count_sid(sid: Raw<u8>) -> usize {
    let _call = Call::enter();
    sid.address() + 1
}

pub(super) extern "efiapi" fn rtl_convert_sid_to_unicode_string(
    string: Raw<UNICODE_STRING>,
    sid: Raw<u8>,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let sid = match Sid::read(sid) {
        Ok(sid) => sid,
        Err(status) => return status,
    };
    let text = unicode::bytes_of(&sid.to_string());
    let length = text.len() as u16;
    let mut buffer = field!(string, UNICODE_STRING, Buffer).read().addr();
    if allocate != 0 {
        let request = Request {
            kind: PoolKind::Paged,
            length: text.len() + 2,
            // RtlFreeUnicodeString frees it without looking at the tag.
            tag: u32::from_le_bytes(*b"Strg"),
            zeroed: true,
            cache_aligned: false,
        };
        buffer = call.machine().nt.pool().allocate(&call, request);
        if buffer == 0 {
            return NtStatus::NO_MEMORY;
        }
        field!(string, UNICODE_STRING, MaximumLength).write(length + 2);
        field!(string, UNICODE_STRING, Buffer).write(Raw::at(buffer).pointer());
    } else if field!(string, UNICODE_STRING, MaximumLength).read() < length {
        return NtStatus::BUFFER_OVERFLOW;
    }
    Raw::<u8>::at(buffer).write_bytes(&text);
    field!(string, UNICODE_STRING, Length).write(length);
    NtStatus::SUCCESS
}
