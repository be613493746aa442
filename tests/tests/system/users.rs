//! Clients that are no administrators: kept out unless a setting lets them in, and then told what they may not do.

use fwbroker_tests::{Bench, Client, Refused, sha256};
use kernel_host::process::Token;
use nt_types::NtStatus;
use protocol::{PORT_NAME, Reason, RevokeScope, USER_PORT_NAME, wire};

const ROM: &[u8] = b"\x55\xaa firmware";
const DENIED: Refused = Refused::with(NtStatus::ACCESS_DENIED, Reason::NotAdministrator);

/// A machine on which users may connect.
fn with_users() -> Bench {
    Bench::with_parameters(&[("AllowUsers", 1)])
}

/// A process of this token connects to this port.
fn connect(bench: &Bench, token: Token, port: &str) -> Result<Client, NtStatus> {
    let process = bench.machine().process("user.exe").token(token).start().unwrap();
    Client::connect_to(process, port)
}

/// A user that has said hello.
fn user(bench: &Bench) -> Client {
    let client = connect(bench, Token::User, USER_PORT_NAME).unwrap();
    client.hello().unwrap();
    client
}

#[test]
fn users_may_not_connect_unless_a_setting_says_so() {
    for bench in
        [Bench::start(), Bench::with_parameters(&[("AllowUsers", 0)]), Bench::with_parameters(&[("AllowUsers", 2)])]
    {
        assert_eq!(connect(&bench, Token::User, PORT_NAME).err(), Some(NtStatus::ACCESS_DENIED));
        assert_eq!(connect(&bench, Token::User, USER_PORT_NAME).err(), Some(NtStatus::OBJECT_NAME_NOT_FOUND));
        bench.finish();
    }
    let bench = with_users();
    assert_eq!(connect(&bench, Token::User, PORT_NAME).err(), Some(NtStatus::ACCESS_DENIED), "this port stays closed");
    assert!(connect(&bench, Token::User, USER_PORT_NAME).is_ok());
    bench.finish();
}

#[test]
fn a_user_may_read_files_and_nothing_else() {
    let bench = with_users();
    let path = bench.write_firmware("good.rom", ROM);
    let (admin, user) = (bench.client(), user(&bench));
    let handle = user.open(&path).unwrap().handle;
    assert_eq!(user.read(handle, 0, 64).unwrap(), ROM);
    assert_eq!(user.query(handle).map(|facts| facts.size), Ok(ROM.len() as u64));
    let other = admin.open(&path).unwrap().handle;
    let staged = admin.stage(&path, Some(sha256(ROM))).unwrap();
    for refused in [
        user.stage(&path, Some(sha256(ROM))).map(drop),
        user.unstage(staged.image_id).map(drop),
        user.list().map(drop),
        user.handles().map(drop),
        user.sessions().map(drop),
        user.revoke(RevokeScope::Handle, admin.handles().unwrap()[0].id).map(drop),
        user.revoke(RevokeScope::Session, admin.session_id()).map(drop),
        user.revoke(RevokeScope::Process, admin.process().id()).map(drop),
        // Not even what there is not: a refusal tells nothing.
        user.revoke(RevokeScope::Session, u64::MAX).map(drop),
        user.unstage(u64::MAX).map(drop),
    ] {
        assert_eq!(refused, Err(DENIED));
    }
    assert!(admin.read(other, 0, 2).is_ok() && admin.list().is_ok_and(|images| images.len() == 1));
    assert_eq!(user.close(handle), Ok(()));
    drop((admin, user));
    bench.finish();
}

#[test]
fn a_user_is_listed_as_such_has_small_quotas_and_loses_handles_like_anybody() {
    let bench = with_users();
    let path = bench.write_firmware("good.rom", ROM);
    let admin = bench.client();
    let process = bench.machine().process("user.exe").token(Token::User).start().unwrap();
    let user = Client::connect_to(process, USER_PORT_NAME).unwrap();
    let limits = user.hello().unwrap();
    let handles: Vec<_> = (0..limits.max_handles_per_session).map(|_| user.open(&path).unwrap().handle).collect();
    assert!(handles.len() < admin.limits().max_handles_per_session as usize);
    assert_eq!(user.open(&path).map(drop), Err(Refused::with(NtStatus::TOO_MANY_OPENED_FILES, Reason::TooManyHandles)));
    let listed = admin.sessions().unwrap().into_iter().find(|session| session.session_id == limits.session_id).unwrap();
    assert_eq!(
        (listed.flags, listed.handles.used, listed.handles.limit),
        (0, handles.len() as u32, handles.len() as u32)
    );
    assert!(listed.owner.ends_with(r"\user.exe"));
    let revoked = admin.revoke(RevokeScope::Process, user.process().id()).unwrap();
    assert_eq!(revoked.revoked as usize, handles.len());
    assert_eq!(user.read(handles[0], 0, 2), Err(Refused::with(NtStatus::FILE_FORCED_CLOSED, Reason::HandleRevoked)));
    drop((admin, user));
    bench.finish();
}

#[test]
fn an_administrator_on_the_port_for_users_is_a_user() {
    let bench = with_users();
    let client = connect(&bench, Token::Administrator, USER_PORT_NAME).unwrap();
    let session = client.hello().unwrap().session_id;
    assert_eq!(client.handles().map(drop), Err(DENIED));
    let admin = bench.client();
    let listed = admin.sessions().unwrap().into_iter().find(|listed| listed.session_id == session);
    assert_eq!(listed.map(|listed| listed.flags & wire::SESSION_ADMINISTRATOR), Some(0));
    drop((client, admin));
    bench.finish();
}

#[test]
fn users_do_not_take_up_the_connections_of_administrators() {
    let bench = with_users();
    let users: Vec<_> = (0..64).map(|_| user(&bench)).collect();
    assert_eq!(connect(&bench, Token::User, USER_PORT_NAME).err(), Some(NtStatus::CONNECTION_COUNT_LIMIT));
    let admins: Vec<_> = (0..64).map(|_| bench.client()).collect();
    assert_eq!(admins[0].sessions().unwrap().len(), 128);
    drop((users, admins));
    bench.finish();
}
