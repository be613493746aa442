//! Captured security contexts: on whose behalf something is checked.
//!
//! Pages: `ntifs/nf-ntifs-secapturesubjectcontext`, `ntifs/nf-ntifs-selocksubjectcontext`,
//! `ntifs/nf-ntifs-sereleasesubjectcontext`.

use std::sync::Arc;

use super::impersonation::IMPERSONATION;
use super::token::{TokenBody, primary};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::processes::process_at;
use crate::nt::raw::{Raw, field};
use crate::nt::threads::thread_at;
use crate::process::Process;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    SeCaptureSubjectContext(max 0) = se_capture_subject_context;
    SeCaptureSubjectContextEx(max 0) = se_capture_subject_context_ex;
    SeLockSubjectContext(max 0) = se_lock_subject_context;
    SeUnlockSubjectContext(max 0) = se_unlock_subject_context;
    SeReleaseSubjectContext(max 0) = se_release_subject_context;
}

/// `SECURITY_SUBJECT_CONTEXT`. Opaque by its page; its layout is in the headers, and macros look into it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SubjectContext {
    pub(super) client_token: usize,
    pub(super) level: u32,
    /// Padding on Windows; here, how often the context is locked.
    locks: u32,
    pub(super) primary_token: usize,
    pub(super) process_audit_id: usize,
}

const _: () = assert!(size_of::<SubjectContext>() == 32);

impl SubjectContext {
    /// The token that counts: the client's, if there is one.
    pub(super) fn effective(&self, call: &Call) -> Arc<TokenBody> {
        let token = if self.client_token == 0 { self.primary_token } else { self.client_token };
        call.machine().nt.objects().payload::<TokenBody>(token).unwrap_or_else(|| {
            call.stop(Rule::BadState, "the subject context is released already, or was never captured")
        })
    }

    /// Whether it may be used for decisions: a client that can only be identified is not acted for.
    pub(super) fn can_act(&self) -> bool {
        self.client_token == 0 || self.level >= IMPERSONATION
    }

    /// Stops unless `locked` is what the context says.
    pub(super) fn check_lock(&self, call: &Call, locked: u8) {
        if locked != 0 && self.locks == 0 {
            call.stop(Rule::BadState, "SubjectContextLocked is TRUE, but SeLockSubjectContext was not called");
        }
    }
}

/// Captures the context of a thread (with its client) and a process.
pub(super) fn capture(call: &Call, thread: Option<&Thread>, process: &Process, out: Raw<SubjectContext>) {
    let objects = call.machine().nt.objects();
    let primary_token = match primary(call.machine(), process) {
        Ok(token) => objects.give(&token, call),
        Err(status) => call.stop(Rule::BadState, format!("no memory for a token: {status}")),
    };
    let client = thread.and_then(Thread::impersonation);
    out.write(SubjectContext {
        client_token: client.as_ref().map_or(0, |client| objects.give(&client.token, call)),
        level: client.as_ref().map_or(0, |client| client.level),
        locks: 0,
        primary_token,
        process_audit_id: process.id() as usize,
    });
}

pub(super) extern "efiapi" fn se_capture_subject_context(context: Raw<SubjectContext>) {
    let call = Call::enter();
    let process = call.machine().nt.owner_of(call.thread());
    capture(&call, Some(call.thread()), &process, context);
}

pub(super) extern "efiapi" fn se_capture_subject_context_ex(
    thread: usize,
    process: usize,
    context: Raw<SubjectContext>,
) {
    let call = Call::enter();
    let process = process_at(&call, process);
    let thread = (thread != 0).then(|| thread_at(&call, thread));
    capture(&call, thread.as_deref(), &process, context);
}

pub(super) extern "efiapi" fn se_lock_subject_context(context: Raw<SubjectContext>) {
    let call = Call::enter();
    context.read().effective(&call);
    let locks = field!(context, SubjectContext, locks);
    locks.write(locks.read() + 1);
}

pub(super) extern "efiapi" fn se_unlock_subject_context(context: Raw<SubjectContext>) {
    let call = Call::enter();
    let locks = field!(context, SubjectContext, locks);
    let Some(left) = locks.read().checked_sub(1) else {
        call.stop(Rule::BadState, "SeUnlockSubjectContext without SeLockSubjectContext");
    };
    locks.write(left);
}

pub(super) extern "efiapi" fn se_release_subject_context(context: Raw<SubjectContext>) {
    let call = Call::enter();
    let captured = context.read();
    captured.effective(&call);
    if captured.locks != 0 {
        call.stop(Rule::BadState, "the subject context is released while it is locked");
    }
    let objects = call.machine().nt.objects();
    for token in [captured.client_token, captured.primary_token] {
        if token != 0 {
            objects.dereference(&call, token);
        }
    }
    context.write(SubjectContext::default());
}
