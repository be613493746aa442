//! OID requests and `NdisMOidRequestComplete`.

use ndis::oid::OidRequest;

use super::*;

/// Handles the request as a miniport written with crates/ndis would.
fn with_request(request: usize, body: impl FnOnce(&mut OidRequest<'_>) -> NdisStatus) -> NdisStatus {
    // SAFETY: the machine passes a valid request, and nobody else has it.
    let mut request = unsafe { OidRequest::from_raw(Raw::at(request).pointer()) }.unwrap();
    body(&mut request)
}

fn complete(handle: usize, request: usize, status: NdisStatus) {
    call_ddi!("NdisMOidRequestComplete", fn(usize, usize, NdisStatus), handle, request, status);
}

#[test]
fn a_query_returns_what_the_miniport_wrote() {
    let nic = Nic::new();
    nic.on_oid(|request| with_request(request, |request| request.answer_u32(0x0403_0201)));
    let adapter = nic.add().unwrap();
    assert_eq!(adapter.oid_query(OID_GEN_VENDOR_ID, 16).unwrap(), [1, 2, 3, 4]);
}

#[test]
fn a_query_with_too_little_room_is_buffer_too_short() {
    conforms!(
        "ndis/nc-ndis-miniport_oid_request.md",
        "A buffer that is too small for the data is NDIS_STATUS_BUFFER_TOO_SHORT."
    );
    let nic = Nic::new();
    nic.on_oid(|request| with_request(request, |request| request.answer_u32(1)));
    let adapter = nic.add().unwrap();
    assert_eq!(status(adapter.oid_query(OID_GEN_VENDOR_ID, 3)), NdisStatus::BUFFER_TOO_SHORT);
}

#[test]
fn a_set_reaches_the_miniport() {
    conforms!(
        "ndis/nc-ndis-miniport_oid_request.md",
        "A length that is wrong for the OID is NDIS_STATUS_INVALID_LENGTH."
    );
    let nic = Nic::new();
    nic.on_oid(|request| {
        with_request(request, |request| match request.take_u32() {
            Ok(9) => NdisStatus::SUCCESS,
            Ok(_) => NdisStatus::INVALID_DATA,
            Err(status) => status,
        })
    });
    let adapter = nic.add().unwrap();
    adapter.oid_set(OID_GEN_CURRENT_PACKET_FILTER, &9_u32.to_le_bytes()).unwrap();
    assert_eq!(status(adapter.oid_set(OID_GEN_CURRENT_PACKET_FILTER, &[9])), NdisStatus::INVALID_LENGTH);
}

#[test]
fn success_looking_refusals_are_refusals() {
    conforms!(
        "ndis/nc-ndis-miniport_oid_request.md",
        "NDIS_STATUS_NOT_ACCEPTED refuses a request, although its severity is that of success."
    );
    let nic = Nic::new();
    nic.on_oid(|_| NdisStatus::NOT_ACCEPTED);
    let adapter = nic.add().unwrap();
    assert_eq!(status(adapter.oid_query(OID_GEN_VENDOR_ID, 4)), NdisStatus::NOT_ACCEPTED);
}

#[test]
fn a_pended_request_ends_with_its_completion_even_before_the_callback_returns() {
    conforms!(
        "ndis/nf-ndis-ndismoidrequestcomplete.md",
        "A request for which MiniportOidRequest returned NDIS_STATUS_PENDING ends with the call."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.on_oid(move |request| {
        assert_eq!(with_request(request, |request| request.answer_u32(5)), NdisStatus::SUCCESS);
        complete(script().adapter.get(), request, NdisStatus::SUCCESS);
        NdisStatus::PENDING
    });
    assert_eq!(adapter.oid_query(OID_GEN_VENDOR_ID, 4).unwrap(), [5, 0, 0, 0]);
}

#[test]
fn a_request_completed_twice_is_found() {
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.on_oid(move |request| {
        complete(script().adapter.get(), request, NdisStatus::SUCCESS);
        complete(script().adapter.get(), request, NdisStatus::SUCCESS);
        NdisStatus::PENDING
    });
    assert_eq!(rule(adapter.oid_query(OID_GEN_VENDOR_ID, 4)), Rule::BadState);
}

#[test]
fn a_completion_of_a_request_that_was_not_pended_is_found() {
    conforms!("ndis/nf-ndis-ndismoidrequestcomplete.md", "Only requests that were pended are completed with the call.");
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.on_oid(move |request| {
        complete(script().adapter.get(), request, NdisStatus::SUCCESS);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(adapter.oid_query(OID_GEN_VENDOR_ID, 4)), Rule::BadState);
}

#[test]
fn pending_is_no_final_status() {
    conforms!("ndis/nf-ndis-ndismoidrequestcomplete.md", "The final status is any but NDIS_STATUS_PENDING.");
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.on_oid(move |request| {
        complete(script().adapter.get(), request, NdisStatus::PENDING);
        NdisStatus::PENDING
    });
    assert_eq!(rule(adapter.oid_query(OID_GEN_VENDOR_ID, 4)), Rule::BadArgument);
}

#[test]
fn more_bytes_written_than_there_is_room_for_is_found() {
    conforms!(
        "oidrequest/ns-oidrequest-ndis_oid_request.md",
        "BytesWritten counts the bytes that were transferred into the buffer."
    );
    let nic = Nic::new();
    nic.on_oid(|request| {
        let transfer = crate::nt::raw::field!(Raw::<NDIS_OID_REQUEST>::at(request), NDIS_OID_REQUEST, DATA);
        let transfer = transfer.cast::<NDIS_OID_TRANSFER>();
        transfer.write(NDIS_OID_TRANSFER { BytesDone: 9, ..transfer.read() });
        NdisStatus::SUCCESS
    });
    let adapter = nic.add().unwrap();
    assert_eq!(rule(adapter.oid_query(OID_GEN_VENDOR_ID, 8)), Rule::BadArgument);
}
