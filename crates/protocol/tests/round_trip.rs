//! What is written is what is parsed, for every request and reply, and no bytes make a parser panic.

use proptest::prelude::*;
use protocol::{
    Detail, HandleEntry, HelloReply, HelloRequest, Kind, ListEntry, ListWriter, Name, OpenReply, OpenRequest,
    QueryReply, Quota, ReadReply, ReadRequest, Reason, Reply, ReplyBody, Request, RequestBody, RevokeReply,
    RevokeRequest, RevokeScope, SessionEntry, StageReply, StageRequest, Target, UnstageReply, write_close,
    write_failure,
};

fn units() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 1..300)
}

fn write(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = vec![0xa5; request.encoded_len()];
    assert_eq!(request.write(&mut bytes), Ok(bytes.len()));
    bytes
}

/// The request survives, no shorter buffer is written to, and no shorter or longer message is taken for it.
fn check_request(id: u64, body: RequestBody<'_>) {
    let request = Request { id, body };
    let bytes = write(&request);
    assert_eq!(Request::parse(&bytes), Ok(request));

    let mut small = vec![0; bytes.len() - 1];
    assert_eq!(request.write(&mut small).unwrap_err().needed, bytes.len());
    let short = Request::parse(&bytes[..bytes.len() - 1]).unwrap_err();
    assert_eq!((short.reason(), short.request_id()), (Reason::MessageSizeMismatch, id));
    let long = Request::parse(&[&bytes[..], &[0]].concat()).unwrap_err();
    assert_eq!(long.reason(), Reason::MessageSizeMismatch);
}

fn reply_of(write: impl Fn(&mut [u8]) -> Result<usize, protocol::BufferTooSmall>) -> Vec<u8> {
    let needed = write(&mut []).unwrap_err().needed;
    let mut bytes = vec![0xa5; needed + 3];
    let used = write(&mut bytes).unwrap();
    bytes.truncate(used);
    bytes
}

fn body_of(bytes: &[u8], kind: Kind, id: u64) -> ReplyBody<'_> {
    let other = if kind == Kind::Hello { Kind::Open } else { Kind::Hello };
    assert!(Reply::parse(bytes, other, id).is_err());
    assert!(Reply::parse(bytes, kind, id.wrapping_add(1)).is_err());
    Reply::parse(bytes, kind, id).unwrap().body
}

proptest! {
    #[test]
    fn requests_with_names_survive(
        id: u64, units in units(), sha256 in prop::option::of(any::<[u8; 32]>()),
        highest in prop::option::of(0..u64::MAX), deadline_ms: u32,
    ) {
        let name = Name::from_units(&units);
        check_request(id, RequestBody::Open(OpenRequest { name }));
        check_request(id, RequestBody::Unstage(Target::Name(name)));
        check_request(id, RequestBody::Stage(StageRequest {
            name, sha256, highest_address: highest, deadline_ms,
        }));
    }

    #[test]
    fn fixed_requests_survive(
        id: u64, handle: u64, offset in 0..1_u64 << 62, length in 1..=protocol::MAX_READ_BYTES,
        min in 1_u16.., more in 0_u16..9, image in 1_u64..,
    ) {
        let max_version = min.saturating_add(more);
        check_request(id, RequestBody::Hello(HelloRequest { min_version: min, max_version }));
        check_request(id, RequestBody::Query(handle));
        check_request(id, RequestBody::Close(handle));
        check_request(id, RequestBody::List(handle));
        check_request(id, RequestBody::Handles(handle));
        check_request(id, RequestBody::Sessions(handle));
        for scope in RevokeScope::ALL {
            check_request(id, RequestBody::Revoke(RevokeRequest { scope: *scope, id: image }));
        }
        check_request(id, RequestBody::Read(ReadRequest { handle, offset, length }));
        check_request(id, RequestBody::Unstage(Target::Image(image)));
    }

    #[test]
    fn fixed_replies_survive(id: u64, a: u64, b: u64, c: u32, d: u16, digest: [u8; 32], shared: bool) {
        let hello = HelloReply {
            version: d, driver: [d, 2, 3], policy: c, max_request_bytes: c, max_read_bytes: !c,
            max_image_bytes: a, max_name_bytes: c, max_handles_per_session: c, max_staged_bytes: b,
            session_id: a,
        };
        let bytes = reply_of(|out| hello.write(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Hello, id), ReplyBody::Hello(hello));

        let open = OpenReply { handle: a, size: b };
        let bytes = reply_of(|out| open.write(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Open, id), ReplyBody::Open(open));

        let query = QueryReply {
            size: a, allocation_size: b, change_time: a.cast_signed(), volume_serial: b,
            file_id: a.wrapping_mul(7).to_le_bytes().repeat(2).try_into().unwrap(),
            attributes: c, number_of_links: c, kind: 1,
        };
        let bytes = reply_of(|out| query.write(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Query, id), ReplyBody::Query(query));

        let stage = StageReply { image_id: a, size: b, sha256: digest, shared };
        let bytes = reply_of(|out| stage.write(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Stage, id), ReplyBody::Stage(stage));

        let unstage = UnstageReply { image_id: a, size: b };
        let bytes = reply_of(|out| unstage.write(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Unstage, id), ReplyBody::Unstage(unstage));

        let revoke = RevokeReply { revoked: c, kept: !c };
        let bytes = reply_of(|out| revoke.write(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Revoke, id), ReplyBody::Revoke(revoke));

        let bytes = reply_of(|out| write_close(out, id));
        prop_assert_eq!(body_of(&bytes, Kind::Close, id), ReplyBody::Close);
    }

    #[test]
    fn failures_keep_status_reason_and_detail(id: u64, phase in 0_u32..7, status: i32, low in 0..i32::MAX) {
        let detail = Detail { phase, system_status: status };
        let refused = i32::MIN + low;
        let bytes = reply_of(|out| {
            write_failure(out, 6, id, refused, Some(Reason::DigestMismatch), detail)
        });
        let ReplyBody::Failed(failure) = body_of(&bytes, Kind::Stage, id) else { panic!() };
        prop_assert_eq!((failure.status, failure.detail), (refused, detail));
        prop_assert_eq!(failure.reason(), Some(Reason::DigestMismatch));
    }

    #[test]
    fn read_data_survives(id: u64, data in prop::collection::vec(any::<u8>(), 0..5000)) {
        let mut out = vec![0; ReadReply::encoded_len(data.len() as u32)];
        ReadReply::data_mut(&mut out).unwrap().copy_from_slice(&data);
        prop_assert_eq!(ReadReply::finish(&mut out, id, data.len() as u32), Ok(out.len()));
        prop_assert_eq!(body_of(&out, Kind::Read, id), ReplyBody::Read(&data));
        prop_assert!(ReadReply::finish(&mut out, id, data.len() as u32 + 1).is_err());
    }

    #[test]
    fn lists_survive_and_never_overrun(id: u64, names in prop::collection::vec((units(), units()), 0..6), room in 48_usize..4000) {
        let entries: Vec<_> = names.iter().zip(1..).map(|((name, to), image_id)| ListEntry {
            image_id, phase: 5, size: image_id * 3, bytes_done: image_id, sha256: [7; 32],
            open_count: 2, name: Name::from_units(name), handed_to: Name::from_units(to),
        }).collect();
        let mut out = vec![0xa5; room];
        let mut writer = ListWriter::new(Kind::List, &mut out).unwrap();
        let fitted = entries.iter().take_while(|entry| writer.push(*entry).is_ok()).count();
        let used = writer.finish(id, 77, 9).unwrap();
        let ReplyBody::List(list) = body_of(&out[..used], Kind::List, id) else { panic!() };
        prop_assert_eq!((list.next_cursor, list.total, list.count() as usize), (77, 9, fitted));
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), &entries[..fitted]);
    }

    #[test]
    fn handles_and_sessions_survive(
        id: u64, names in prop::collection::vec((units(), units()), 0..6), a: u64, b: u32, at: i64, room in 48_usize..4000,
    ) {
        let handles: Vec<_> = names.iter().zip(1..).map(|((owner, name), number)| HandleEntry {
            id: number, kind: 2, phase: 3, session_id: a, process_id: !a, opened_at: at, size: a / 3, pins: b,
            owner: Name::from_units(owner), name: Name::from_units(name),
        }).collect();
        let sessions: Vec<_> = names.iter().zip(1..).map(|((owner, _), number)| SessionEntry {
            session_id: number, process_id: a, connected_at: at, flags: b, handles: Quota { used: b, limit: !b },
            bytes: Quota { used: a, limit: !a }, jobs: Quota { used: b / 2, limit: b }, requests: b, revoked: !b,
            owner: Name::from_units(owner),
        }).collect();
        let mut out = vec![0xa5; room];
        let mut writer = ListWriter::new(Kind::Handles, &mut out).unwrap();
        let fitted = handles.iter().take_while(|entry| writer.push(*entry).is_ok()).count();
        let used = writer.finish(id, 77, 9).unwrap();
        let ReplyBody::Handles(list) = body_of(&out[..used], Kind::Handles, id) else { panic!() };
        prop_assert_eq!((list.next_cursor, list.total, list.count() as usize), (77, 9, fitted));
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), &handles[..fitted]);

        out.fill(0xa5);
        let mut writer = ListWriter::new(Kind::Sessions, &mut out).unwrap();
        let fitted = sessions.iter().take_while(|entry| writer.push(*entry).is_ok()).count();
        let used = writer.finish(id, 0, 9).unwrap();
        let ReplyBody::Sessions(list) = body_of(&out[..used], Kind::Sessions, id) else { panic!() };
        prop_assert_eq!(list.iter().collect::<Vec<_>>(), &sessions[..fitted]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0_u16..13, id: u64) {
        let _ = Request::parse(&bytes);
        // With a plausible header the body parsers get their turn.
        if bytes.len() >= 24 {
            let size = bytes.len() as u32;
            bytes[..4].copy_from_slice(&size.to_le_bytes());
            bytes[4..6].copy_from_slice(&1_u16.to_le_bytes());
            bytes[6..8].copy_from_slice(&kind.to_le_bytes());
            bytes[8..16].copy_from_slice(&id.to_le_bytes());
            bytes[16..24].fill(0);
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(write(&request), bytes.clone());
            }
            for kind in Kind::ALL {
                let _ = Reply::parse(&bytes, *kind, id);
            }
        }
    }
}
