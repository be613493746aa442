//! Threads that act for somebody else. Pages: `ntifs/nf-ntifs-psimpersonateclient`,
//! `ntifs/nf-ntifs-psreferenceimpersonationtoken`, `ntifs/nf-ntifs-psreverttoself`.

use std::sync::Arc;

use nt_types::NtStatus;

use super::token::{TokenBody, create, primary, privilege, token_at};
use crate::ddi::{Call, exports};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::Raw;
use crate::nt::threads::thread_at;
use crate::process::{Process, Token};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsImpersonateClient(max 0, fails RESOURCES) = ps_impersonate_client;
    PsReferenceImpersonationToken(max 0) = ps_reference_impersonation_token;
    PsIsThreadImpersonating(max 2) = ps_is_thread_impersonating;
    PsRevertToSelf(max 0) = ps_revert_to_self;
    PsRevertThreadToSelf(max 0) = ps_revert_thread_to_self;
    PsDisableImpersonation(max 0) = ps_disable_impersonation;
    PsRestoreImpersonation(max 0) = ps_restore_impersonation;
}

/// `SecurityIdentification`: enough to look, not to open.
pub(super) const IDENTIFICATION: u32 = 1;
/// `SecurityImpersonation`, `SecurityDelegation`.
pub(super) const IMPERSONATION: u32 = 2;
pub(super) const DELEGATION: u32 = 3;

/// Bytes of `SE_IMPERSONATION_STATE`: the token, two flags, the level.
const STATE_BYTES: usize = 16;

/// For whom a thread acts.
#[derive(Clone, Debug)]
pub(crate) struct Impersonation {
    pub(super) token: ObjectRef,
    pub(super) copy_on_open: bool,
    pub(super) effective_only: bool,
    pub(super) level: u32,
}

impl Impersonation {
    /// Which token it is, for comparison.
    pub(crate) fn token_body(&self) -> usize {
        self.token.body()
    }
}

/// Whose rights count for what `process` does on the current thread: those of the client that the thread impersonates, if any.
///
/// Below `SecurityImpersonation` a token opens nothing, which a plain user's rights come closest to.
pub(crate) fn effective_kind(process: &Process) -> Token {
    let client = Thread::try_current().and_then(|thread| thread.impersonation());
    match client {
        Some(client) if client.level >= IMPERSONATION => {
            client.token.payload::<TokenBody>().map_or(Token::User, |token| token.kind())
        }
        Some(_) => Token::User,
        None => process.token(),
    }
}

/// The token that counts for what `process` does on the current thread.
///
/// # Errors
/// `STATUS_BAD_IMPERSONATION_LEVEL` when the thread may only identify its client, `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn effective_token(machine: &Inner, process: &Process) -> Result<Arc<TokenBody>, NtStatus> {
    let client = Thread::try_current().and_then(|thread| thread.impersonation());
    let token = match client {
        Some(client) if client.level < IMPERSONATION => return Err(NtStatus::BAD_IMPERSONATION_LEVEL),
        Some(client) => client.token,
        None => primary(machine, process)?,
    };
    token.payload().ok_or(NtStatus::BAD_TOKEN_TYPE)
}

/// Makes a thread act for the holder of a token.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(super) fn impersonate(
    machine: &Inner,
    thread: &Thread,
    token: &ObjectRef,
    (copy_on_open, effective_only): (bool, bool),
    level: u32,
) -> Result<(), NtStatus> {
    let mut token = token.clone();
    let mut level = level;
    if level > IDENTIFICATION && !may_impersonate(machine, thread, &token)? {
        // The page: the thread gets a copy with which it can only look.
        level = IDENTIFICATION;
        if let Some(body) = token.payload::<TokenBody>() {
            token = create(machine, body.impersonation(level))?;
        }
    }
    // What it acted for before is dropped here.
    drop(thread.set_impersonation(Some(Impersonation { token, copy_on_open, effective_only, level })));
    Ok(())
}

/// Whether a thread's process may act for others: with the privilege, or for its own user.
fn may_impersonate(machine: &Inner, thread: &Thread, token: &ObjectRef) -> Result<bool, NtStatus> {
    let server = primary(machine, &machine.nt.owner_of(thread))?;
    let (Some(server), Some(client)) = (server.payload::<TokenBody>(), token.payload::<TokenBody>()) else {
        return Ok(false);
    };
    Ok(server.is_enabled(privilege::IMPERSONATE) || server.user() == client.user())
}

/// A driver's `PETHREAD` as a thread.
fn target(call: &Call, thread: usize) -> Arc<Thread> {
    if thread == call.thread().object().addr() { call.thread().clone() } else { thread_at(call, thread) }
}

pub(super) extern "efiapi" fn ps_impersonate_client(
    thread: usize,
    token: usize,
    copy_on_open: u8,
    effective_only: u8,
    level: u32,
) -> NtStatus {
    let call = Call::enter();
    let thread = target(&call, thread);
    if token == 0 {
        drop(thread.set_impersonation(None));
        return NtStatus::SUCCESS;
    }
    token_at(&call, token);
    let Some(object) = call.machine().nt.objects().lookup(token) else { return NtStatus::BAD_TOKEN_TYPE };
    let flags = (copy_on_open != 0, effective_only != 0);
    impersonate(call.machine(), &thread, &object, flags, level).map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

pub(super) extern "efiapi" fn ps_reference_impersonation_token(
    thread: usize,
    copy_on_open: Raw<u8>,
    effective_only: Raw<u8>,
    level: Raw<u32>,
) -> usize {
    let call = Call::enter();
    let Some(client) = target(&call, thread).impersonation() else { return 0 };
    copy_on_open.write(client.copy_on_open.into());
    effective_only.write(client.effective_only.into());
    level.write(client.level);
    call.machine().nt.objects().give(&client.token, &call)
}

pub(super) extern "efiapi" fn ps_is_thread_impersonating(thread: usize) -> u8 {
    let call = Call::enter();
    u8::from(target(&call, thread).impersonation().is_some())
}

pub(super) extern "efiapi" fn ps_revert_to_self() {
    let call = Call::enter();
    drop(call.thread().set_impersonation(None));
}

extern "efiapi" fn ps_revert_thread_to_self(thread: usize) {
    let call = Call::enter();
    drop(target(&call, thread).set_impersonation(None));
}

/// Stops impersonating for a while; the state holds the token's reference. TRUE when there was something to stop.
pub(super) extern "efiapi" fn ps_disable_impersonation(thread: usize, state: Raw<u8>) -> u8 {
    let call = Call::enter();
    let before = target(&call, thread).set_impersonation(None);
    state.fill(0, STATE_BYTES);
    let Some(client) = before else { return 0 };
    let token = call.machine().nt.objects().give(&client.token, &call);
    state.field::<usize>(0).write(token);
    state.field::<u8>(8).write_bytes(&[client.copy_on_open.into(), client.effective_only.into()]);
    state.field::<u32>(12).write(client.level);
    1
}

pub(super) extern "efiapi" fn ps_restore_impersonation(thread: usize, state: Raw<u8>) {
    let call = Call::enter();
    let token = state.field::<usize>(0).read();
    token_at(&call, token);
    if let Some(object) = call.machine().nt.objects().lookup(token) {
        let client = Impersonation {
            token: object,
            copy_on_open: state.field::<u8>(8).read() != 0,
            effective_only: state.field::<u8>(9).read() != 0,
            level: state.field::<u32>(12).read(),
        };
        drop(target(&call, thread).set_impersonation(Some(client)));
    }
    call.machine().nt.objects().dereference(&call, token);
}
