//! Every way in which a request can break the format is told apart.

use protocol::{
    FrameError, MAX_NAME_BYTES, MAX_READ_BYTES, MAX_REQUEST_BYTES, Name, OpenRequest, Reason, Request, RequestBody,
    StageRequest, Target,
};

const ID: u64 = 0x1122_3344_5566_7788;

fn bytes_of(body: RequestBody<'_>) -> Vec<u8> {
    let request = Request { id: ID, body };
    let mut bytes = vec![0; request.encoded_len()];
    request.write(&mut bytes).unwrap();
    bytes
}

fn open() -> Vec<u8> {
    let units: Vec<u16> = r"\??\C:\Firmware\nic.rom".encode_utf16().collect();
    bytes_of(RequestBody::Open(OpenRequest { name: Name::from_units(&units) }))
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let size = 24 + body.len() as u32;
    [&size.to_le_bytes()[..], &1_u16.to_le_bytes(), &kind.to_le_bytes(), &ID.to_le_bytes(), &[0; 8], body].concat()
}

fn refusal(bytes: &[u8]) -> FrameError {
    Request::parse(bytes).unwrap_err()
}

fn reason(bytes: &[u8]) -> Reason {
    refusal(bytes).reason()
}

/// `bytes` with `with` written over it at `at`.
fn patched(mut bytes: Vec<u8>, at: usize, with: &[u8]) -> Vec<u8> {
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn a_message_shorter_than_its_header_has_no_number() {
    for length in 0..24 {
        let error = refusal(&open()[..length]);
        assert_eq!(error.reason(), Reason::MessageTooShort);
        assert_eq!((error.kind(), error.request_id()), (0, 0));
    }
}

#[test]
fn header_fields_are_checked_one_by_one() {
    assert_eq!(reason(&patched(open(), 0, &[0])), Reason::MessageSizeMismatch);
    assert_eq!(reason(&patched(open(), 4, &[2])), Reason::UnsupportedVersion);
    assert_eq!(reason(&patched(open(), 4, &[0])), Reason::UnsupportedVersion);
    assert_eq!(reason(&patched(open(), 6, &[12])), Reason::UnknownKind);
    assert_eq!(reason(&patched(open(), 6, &[0])), Reason::UnknownKind);
    assert_eq!(reason(&patched(open(), 19, &[1])), Reason::UnknownFlags);
    assert_eq!(reason(&patched(open(), 23, &[1])), Reason::ReservedNotZero);
}

#[test]
fn a_refusal_names_the_request_it_refuses() {
    let error = refusal(&patched(open(), 6, &[99]));
    assert_eq!((error.kind(), error.request_id()), (99, ID));
    let mut reply = [0; 32];
    assert_eq!(error.write(&mut reply), Ok(32));
    assert_eq!(reply[6..16], [&[99, 0][..], &ID.to_le_bytes()].concat());
    assert_eq!(reply[16..20], 0xC000_0010_u32.to_le_bytes());
}

#[test]
fn name_lengths_must_fit_the_message() {
    let length = (open().len() - 32) as u32;
    let claim = |claimed: u32| reason(&patched(open(), 28, &claimed.to_le_bytes()));
    assert_eq!(claim(length + 2), Reason::BodyTooShort);
    assert_eq!(claim(length - 2), Reason::BodyTooLong);
    assert_eq!(claim(MAX_NAME_BYTES + 2), Reason::NameTooLong);
    assert_eq!(claim(u32::MAX), Reason::LengthOverflow);
    assert_eq!(claim(0x8000_0000), Reason::LengthOverflow);
    assert_eq!(reason(&message(2, &[0, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3])), Reason::NameLengthOdd);
    assert_eq!(reason(&message(2, &[0; 8])), Reason::NameEmpty);
    assert_eq!(reason(&message(2, &[0; 7])), Reason::BodyTooShort);
}

#[test]
fn the_longest_name_is_told_apart_from_one_too_long_and_a_message_too_long() {
    let units = vec![u16::from(b'x'); MAX_NAME_BYTES as usize / 2 + 1];
    let of = |units: &[u16]| bytes_of(RequestBody::Open(OpenRequest { name: Name::from_units(units) }));
    assert!(Request::parse(&of(&units[1..])).is_ok());
    assert_eq!(reason(&of(&units)), Reason::NameTooLong);
    assert_eq!(refusal(&of(&units)).status().cast_unsigned(), 0xC000_0106);
    let huge = vec![0; MAX_REQUEST_BYTES as usize + 1];
    assert_eq!(reason(&huge), Reason::MessageTooLarge);
}

#[test]
fn fixed_bodies_must_be_exact_and_their_reserved_fields_zero() {
    for (kind, length) in [(1, 8), (3, 8), (4, 24), (5, 8), (8, 16), (9, 16), (10, 16), (11, 16)] {
        let body = vec![0; length + 1];
        assert_eq!(reason(&message(kind, &body[..length - 1])), Reason::BodyTooShort, "{kind}");
        assert_eq!(reason(&message(kind, &body)), Reason::BodyTooLong, "{kind}");
    }
    let reserved_at = [
        (1, 8, 7),
        (2, 8, 3),
        (4, 24, 23),
        (6, 56, 55),
        (7, 16, 15),
        (8, 16, 15),
        (9, 16, 15),
        (10, 16, 8),
        (11, 16, 4),
    ];
    for (kind, length, at) in reserved_at {
        let body = patched(vec![0; length], at, &[1]);
        assert_eq!(reason(&message(kind, &body)), Reason::ReservedNotZero, "{kind}");
    }
}

#[test]
fn reads_that_cannot_be_are_refused() {
    let read = |offset: u64, length: u32| {
        let body = [&[7; 8][..], &offset.to_le_bytes(), &length.to_le_bytes(), &[0; 4]].concat();
        Request::parse(&message(4, &body)).map(drop).map_err(FrameError::reason)
    };
    assert_eq!(read(0, 0), Err(Reason::ReadEmpty));
    assert_eq!(read(0, MAX_READ_BYTES + 1), Err(Reason::ReadTooLong));
    assert_eq!(read(u64::MAX, 1), Err(Reason::OffsetOverflow));
    assert_eq!(read(i64::MAX as u64, 1), Err(Reason::OffsetOverflow));
    assert!(read(i64::MAX as u64 - 1, 1).is_ok());
}

#[test]
fn contradictions_are_refused() {
    let hello = |min: u8, max: u8| reason(&message(1, &[min, 0, max, 0, 0, 0, 0, 0]));
    assert_eq!(hello(0, 1), Reason::ContradictoryFields);
    assert_eq!(hello(2, 1), Reason::ContradictoryFields);

    let name = Name::from_units(&[0x61]);
    let by_name = bytes_of(RequestBody::Unstage(Target::Name(name)));
    assert_eq!(reason(&patched(by_name, 24, &[1])), Reason::ContradictoryFields);
    assert_eq!(reason(&message(7, &[0; 16])), Reason::NameEmpty);

    let stage = bytes_of(RequestBody::Stage(StageRequest {
        name,
        sha256: Some([9; 32]),
        highest_address: None,
        deadline_ms: 0,
    }));
    assert_eq!(reason(&patched(stage.clone(), 24, &[0])), Reason::ContradictoryFields);
    assert_eq!(reason(&patched(stage, 24, &[3])), Reason::UnknownFlags);
}

#[test]
fn revocations_of_nothing_or_of_an_unknown_scope_are_refused() {
    let revoke = |scope: u32, id: u64| {
        let body = [&scope.to_le_bytes()[..], &[0; 4], &id.to_le_bytes()].concat();
        Request::parse(&message(11, &body)).map(drop).map_err(FrameError::reason)
    };
    for scope in [0, 4, u32::MAX] {
        assert_eq!(revoke(scope, 1), Err(Reason::UnknownFlags));
    }
    assert_eq!(revoke(1, 0), Err(Reason::ContradictoryFields));
    assert_eq!(revoke(3, u64::MAX), Ok(()));
}
