//! Client security contexts: what a server keeps of its client, to act for it later.
//!
//! Pages: `ntifs/nf-ntifs-secreateclientsecurity`, `ntifs/nf-ntifs-seimpersonateclientex`.

use nt_types::NtStatus;

use super::impersonation::{DELEGATION, IMPERSONATION, impersonate};
use super::subject::SubjectContext;
use super::token::{TokenBody, create, primary, token_at};
use crate::ddi::{Call, exports};
use crate::nt::ob::ObjectRef;
use crate::nt::raw::Raw;
use crate::nt::threads::thread_at;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    SeCreateClientSecurity(max 0, fails RESOURCES) = se_create_client_security;
    SeCreateClientSecurityFromSubjectContext(max 0, fails RESOURCES) = se_create_client_security_from_subject_context;
    SeImpersonateClientEx(max 0, fails RESOURCES) = se_impersonate_client_ex;
    SeImpersonateClient(max 0) = se_impersonate_client;
}

/// `SECURITY_QUALITY_OF_SERVICE`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Quality {
    pub(super) length: u32,
    pub(super) level: u32,
    /// `SECURITY_DYNAMIC_TRACKING` (1) or static (0).
    pub(super) dynamic: u8,
    pub(super) effective_only: u8,
}

const _: () = assert!(size_of::<Quality>() == 12);

/// Fields of a `SECURITY_CLIENT_CONTEXT`: the quality of service, the token, three flags, and the token's numbers.
const TOKEN: usize = 16;
const DIRECT: usize = 24;
const DIRECT_EFFECTIVE_ONLY: usize = 25;
const REMOTE: usize = 26;
const TOKEN_CONTROL: usize = 28;
const CONTEXT_BYTES: usize = 72;

pub(super) extern "efiapi" fn se_create_client_security(
    thread: usize,
    quality: Raw<Quality>,
    remote: u8,
    context: Raw<u8>,
) -> NtStatus {
    let call = Call::enter();
    let thread = thread_at(&call, thread);
    let client = thread.impersonation().map(|client| (client.token.clone(), client.level));
    let effective = match client {
        Some((token, level)) => Ok((token, Some(level))),
        None => primary(call.machine(), &call.machine().nt.owner_of(&thread)).map(|token| (token, None)),
    };
    let made = effective.and_then(|token| fill(&call, token, quality.read(), remote, context));
    made.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

extern "efiapi" fn se_create_client_security_from_subject_context(
    subject: Raw<SubjectContext>,
    quality: Raw<Quality>,
    remote: u8,
    context: Raw<u8>,
) -> NtStatus {
    let call = Call::enter();
    let subject = subject.read();
    subject.effective(&call);
    let (body, level) = if subject.client_token == 0 {
        (subject.primary_token, None)
    } else {
        (subject.client_token, Some(subject.level))
    };
    let token = call.machine().nt.objects().lookup(body).ok_or(NtStatus::BAD_TOKEN_TYPE);
    let made = token.and_then(|token| fill(&call, (token, level), quality.read(), remote, context));
    made.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

/// Fills a context with the client's token: itself when it may change later, else a copy.
fn fill(
    call: &Call,
    (token, level): (ObjectRef, Option<u32>),
    quality: Quality,
    remote: u8,
    context: Raw<u8>,
) -> Result<(), NtStatus> {
    // A client that acts for somebody of its own passes on only what it was given itself.
    if level.is_some_and(|level| level < IMPERSONATION || (remote != 0 && level != DELEGATION)) {
        return Err(NtStatus::BAD_IMPERSONATION_LEVEL);
    }
    let body = token_at(call, token.body());
    let direct = quality.dynamic != 0 && remote == 0;
    let kept = if direct { token } else { create(call.machine(), body.impersonation(quality.level))? };
    context.fill(0, CONTEXT_BYTES);
    context.cast().write(quality);
    context.field::<usize>(TOKEN).write(call.machine().nt.objects().give(&kept, call));
    context.field::<u8>(DIRECT).write(direct.into());
    context.field::<u8>(DIRECT_EFFECTIVE_ONLY).write(quality.effective_only);
    context.field::<u8>(REMOTE).write(remote);
    // TOKEN_CONTROL is aligned to four bytes: TokenId, AuthenticationId.
    context.field::<u64>(TOKEN_CONTROL).write(body.id());
    context.field::<u64>(TOKEN_CONTROL + 8).write(body.logon());
    Ok(())
}

pub(super) extern "efiapi" fn se_impersonate_client_ex(context: Raw<u8>, thread: usize) -> NtStatus {
    let call = Call::enter();
    act(&call, context, thread)
}

extern "efiapi" fn se_impersonate_client(context: Raw<u8>, thread: usize) {
    let call = Call::enter();
    // The old form has nobody to tell.
    let _ = act(&call, context, thread);
}

fn act(call: &Call, context: Raw<u8>, thread: usize) -> NtStatus {
    let quality = context.cast::<Quality>().read();
    let token = context.field::<usize>(TOKEN).read();
    let body = token_at(call, token);
    let Some(object) = call.machine().nt.objects().lookup(token) else { return NtStatus::BAD_TOKEN_TYPE };
    let thread = if thread == 0 { call.thread().clone() } else { thread_at(call, thread) };
    let level = TokenBody::level(&body).unwrap_or(quality.level);
    let flags = (context.field::<u8>(DIRECT).read() == 0, quality.effective_only != 0);
    impersonate(call.machine(), &thread, &object, flags, level).map_or_else(|status| status, |()| NtStatus::SUCCESS)
}
