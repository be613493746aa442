//! A miniport's view of one OID request.

use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use core::slice;

use crate::NdisStatus;
use crate::raw::{
    NDIS_OID_REQUEST, NDIS_OID_TRANSFER, NdisRequestQueryInformation, NdisRequestQueryStatistics,
    NdisRequestSetInformation,
};

/// An OID request while `MiniportOidRequest` has it.
///
/// NDIS does not check the contents of a request, so every length is looked at here, once. IRQL: that of the callback.
pub struct OidRequest<'a> {
    raw: NonNull<NDIS_OID_REQUEST>,
    lifetime: PhantomData<&'a mut NDIS_OID_REQUEST>,
}

/// What an OID request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OidKind {
    /// A value (`NdisRequestQueryInformation` and `NdisRequestQueryStatistics`).
    Query,
    /// To take over a value.
    Set,
    /// Anything else, by request type.
    Other(u32),
}

impl OidRequest<'_> {
    /// Wraps the pointer that `MiniportOidRequest` got; `None` for NULL.
    ///
    /// # Safety
    /// `raw` is NULL or a request that nobody else touches while the result lives, whose buffer has the length it says.
    #[must_use]
    pub unsafe fn from_raw(raw: *mut NDIS_OID_REQUEST) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, lifetime: PhantomData })
    }

    /// What is asked for.
    #[must_use]
    pub fn kind(&self) -> OidKind {
        // SAFETY: the request is valid and ours, by the contract of `from_raw`.
        match unsafe { (*self.raw.as_ptr()).RequestType } {
            #[expect(non_upper_case_globals, reason = "constants of ndis.h")]
            NdisRequestQueryInformation | NdisRequestQueryStatistics => OidKind::Query,
            #[expect(non_upper_case_globals, reason = "constants of ndis.h")]
            NdisRequestSetInformation => OidKind::Set,
            other => OidKind::Other(other),
        }
    }

    /// Which object.
    #[must_use]
    pub fn oid(&self) -> u32 {
        self.transfer().Oid
    }

    /// Answers a query with `value`: `NDIS_STATUS_SUCCESS`, or `NDIS_STATUS_BUFFER_TOO_SHORT` with the length needed.
    pub fn answer(&mut self, value: &[u8]) -> NdisStatus {
        let mut transfer = self.transfer();
        let Ok(length) = u32::try_from(value.len()) else {
            return NdisStatus::FAILURE;
        };
        if transfer.InformationBufferLength < length || (transfer.InformationBuffer.is_null() && length != 0) {
            transfer.BytesDone = 0;
            transfer.BytesNeeded = length;
            self.set_transfer(transfer);
            return NdisStatus::BUFFER_TOO_SHORT;
        }
        let buffer = transfer.InformationBuffer.cast();
        // SAFETY: the buffer holds at least `length` bytes (checked), and `value` is a borrow, so the two cannot overlap.
        unsafe { ptr::copy_nonoverlapping(value.as_ptr(), buffer, value.len()) };
        transfer.BytesDone = length;
        self.set_transfer(transfer);
        NdisStatus::SUCCESS
    }

    /// Answers a query with a number of 32 bits.
    pub fn answer_u32(&mut self, value: u32) -> NdisStatus {
        self.answer(&value.to_ne_bytes())
    }

    /// Answers a query for a counter: 64 bits, or the low 32 where the caller only has room for those.
    pub fn answer_counter(&mut self, value: u64) -> NdisStatus {
        if self.transfer().InformationBufferLength == 4 {
            self.answer_u32(value as u32)
        } else {
            self.answer(&value.to_ne_bytes())
        }
    }

    /// The data of a set request.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        let transfer = self.transfer();
        if transfer.InformationBuffer.is_null() {
            return &[];
        }
        // SAFETY: the requester keeps `InformationBufferLength` bytes valid until completion, by the contract of `from_raw`.
        unsafe { slice::from_raw_parts(transfer.InformationBuffer.cast(), transfer.InformationBufferLength as usize) }
    }

    /// Takes a set request whose data must be a number of 32 bits; `NDIS_STATUS_INVALID_LENGTH` with the length needed otherwise.
    ///
    /// # Errors
    /// `NDIS_STATUS_INVALID_LENGTH`.
    pub fn take_u32(&mut self) -> Result<u32, NdisStatus> {
        let mut transfer = self.transfer();
        let value = self.input().first_chunk::<4>().copied();
        (transfer.BytesDone, transfer.BytesNeeded) = if value.is_some() { (4, 0) } else { (0, 4) };
        self.set_transfer(transfer);
        value.map(u32::from_ne_bytes).ok_or(NdisStatus::INVALID_LENGTH)
    }

    /// Takes all data of a set request.
    pub fn take_all(&mut self) -> NdisStatus {
        let mut transfer = self.transfer();
        transfer.BytesDone = transfer.InformationBufferLength;
        self.set_transfer(transfer);
        NdisStatus::SUCCESS
    }

    /// Query and set parameters lie at the same offsets, and a method request has its OID there too.
    fn transfer(&self) -> NDIS_OID_TRANSFER {
        // SAFETY: the request is valid, by the contract of `from_raw`.
        let data = unsafe { &raw const (*self.raw.as_ptr()).DATA };
        // SAFETY: every member of the union starts with these fields, all of them plain data.
        unsafe { data.cast::<NDIS_OID_TRANSFER>().read() }
    }

    fn set_transfer(&mut self, transfer: NDIS_OID_TRANSFER) {
        // SAFETY: the request is valid and exclusively ours.
        let data = unsafe { &raw mut (*self.raw.as_ptr()).DATA };
        // SAFETY: as for reading them.
        unsafe { data.cast::<NDIS_OID_TRANSFER>().write(transfer) };
    }
}

#[cfg(test)]
mod tests {
    use super::{OidKind, OidRequest};
    use crate::NdisStatus;
    use crate::raw::{NDIS_OID_REQUEST, NDIS_OID_TRANSFER, OID_GEN_VENDOR_ID};

    fn request(kind: u32, buffer: &mut [u8]) -> NDIS_OID_REQUEST {
        // SAFETY: all-zero bytes are a valid request.
        let mut raw: NDIS_OID_REQUEST = unsafe { core::mem::zeroed() };
        raw.RequestType = kind;
        raw.DATA.QUERY_INFORMATION = NDIS_OID_TRANSFER {
            Oid: OID_GEN_VENDOR_ID,
            InformationBuffer: buffer.as_mut_ptr().cast(),
            InformationBufferLength: buffer.len() as u32,
            BytesDone: 0,
            BytesNeeded: 0,
        };
        raw
    }

    fn transfer(raw: &NDIS_OID_REQUEST) -> NDIS_OID_TRANSFER {
        // SAFETY: every member of the union starts with these fields.
        unsafe { raw.DATA.QUERY_INFORMATION }
    }

    #[test]
    fn an_answer_that_fits_is_copied_and_counted() {
        let mut buffer = [0; 8];
        let mut raw = request(0, &mut buffer);
        // SAFETY: `raw` outlives the view.
        let mut view = unsafe { OidRequest::from_raw(&raw mut raw) }.unwrap();
        assert_eq!((view.kind(), view.oid()), (OidKind::Query, OID_GEN_VENDOR_ID));
        assert_eq!(view.answer_u32(0x1122_3344), NdisStatus::SUCCESS);
        assert_eq!(transfer(&raw).BytesDone, 4);
        assert_eq!(buffer, [0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0]);
    }

    #[test]
    fn an_answer_that_does_not_fit_says_what_would_and_writes_nothing() {
        let mut buffer = [0xAA; 3];
        let mut raw = request(0, &mut buffer);
        // SAFETY: `raw` outlives the view.
        let mut view = unsafe { OidRequest::from_raw(&raw mut raw) }.unwrap();
        assert_eq!(view.answer_u32(1), NdisStatus::BUFFER_TOO_SHORT);
        assert_eq!((transfer(&raw).BytesDone, transfer(&raw).BytesNeeded), (0, 4));
        assert_eq!(buffer, [0xAA; 3]);
    }

    #[test]
    fn a_counter_shrinks_to_32_bits_for_callers_with_room_for_those() {
        let mut buffer = [0; 4];
        let mut raw = request(2, &mut buffer);
        // SAFETY: `raw` outlives the view.
        let mut view = unsafe { OidRequest::from_raw(&raw mut raw) }.unwrap();
        assert_eq!(view.answer_counter(0x1_0000_0002), NdisStatus::SUCCESS);
        assert_eq!(buffer, [2, 0, 0, 0]);
    }

    #[test]
    fn a_set_that_is_too_short_is_refused_with_the_length_needed() {
        let mut buffer = [1, 2];
        let mut raw = request(1, &mut buffer);
        // SAFETY: `raw` outlives the view.
        let mut view = unsafe { OidRequest::from_raw(&raw mut raw) }.unwrap();
        assert_eq!(view.kind(), OidKind::Set);
        assert_eq!(view.take_u32(), Err(NdisStatus::INVALID_LENGTH));
        assert_eq!(transfer(&raw).BytesNeeded, 4);
    }
}
