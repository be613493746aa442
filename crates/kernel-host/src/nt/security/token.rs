//! Access tokens as objects: who a process is, in full.
//!
//! Pages: `ntifs/nf-ntifs-psreferenceprimarytoken`, `ntifs/nf-ntifs-setokenisadmin` and their neighbours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::sid::Sid;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::processes::process_at;
use crate::nt::raw::Raw;
use crate::process::{Process, Token};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsReferencePrimaryToken(max 0) = ps_reference_primary_token;
    PsDereferencePrimaryToken(max 1) = ps_dereference_token;
    PsDereferenceImpersonationToken(max 1) = ps_dereference_token;
    SeTokenIsAdmin(max 0) = se_token_is_admin;
    SeTokenIsRestricted(max 0) = se_token_is_restricted;
    SeTokenType(max 2) = se_token_type;
    SeTokenImpersonationLevel(max 2) = se_token_impersonation_level;
    SeQueryAuthenticationIdToken(max 0) = se_query_authentication_id_token;
    SeQuerySessionIdToken(max 1) = se_query_session_id_token;
}

/// Bytes of a token object's body, which is opaque to drivers.
const TOKEN_BYTES: usize = 0x40;

/// `TokenPrimary`, `TokenImpersonation`.
pub(super) const PRIMARY: u32 = 1;
pub(super) const IMPERSONATION: u32 = 2;

/// Privileges by number: the low part of their LUIDs.
pub(crate) mod privilege {
    pub(crate) const TCB: u32 = 7;
    pub(crate) const SECURITY: u32 = 8;
    pub(crate) const TAKE_OWNERSHIP: u32 = 9;
    pub(crate) const LOAD_DRIVER: u32 = 10;
    pub(crate) const BACKUP: u32 = 17;
    pub(crate) const RESTORE: u32 = 18;
    pub(crate) const SHUTDOWN: u32 = 19;
    pub(crate) const DEBUG: u32 = 20;
    pub(crate) const CHANGE_NOTIFY: u32 = 23;
    pub(crate) const MANAGE_VOLUME: u32 = 28;
    pub(crate) const IMPERSONATE: u32 = 29;
    pub(crate) const CREATE_GLOBAL: u32 = 30;
}

/// `SE_GROUP_MANDATORY | SE_GROUP_ENABLED_BY_DEFAULT | SE_GROUP_ENABLED`.
pub(super) const GROUP_ENABLED: u32 = 7;

/// Numbers tokens within the process of the host: all that is asked of them is to differ.
static NEXT_ID: AtomicU64 = AtomicU64::new(0x1_0000);

/// Payload of a token object.
#[derive(Debug)]
pub(crate) struct TokenBody {
    kind: Token,
    /// `None` for a primary token.
    level: Option<u32>,
    id: u64,
    user: Sid,
    groups: Vec<Sid>,
    /// Number, and whether it is enabled.
    privileges: Mutex<Vec<(u32, bool)>>,
}

impl ObjectBody for TokenBody {
    fn type_name(&self) -> &'static str {
        "Token"
    }
}

impl TokenBody {
    fn of(kind: Token, level: Option<u32>) -> Self {
        use privilege::{
            BACKUP, CHANGE_NOTIFY, CREATE_GLOBAL, DEBUG, IMPERSONATE, LOAD_DRIVER, MANAGE_VOLUME, RESTORE, SECURITY,
            SHUTDOWN, TAKE_OWNERSHIP, TCB,
        };
        let everybody = [Sid::world(), Sid::authenticated_users()];
        let (user, own, enabled, disabled): (_, _, &[u32], &[u32]) = match kind {
            Token::System => (
                Sid::local_system(),
                vec![Sid::administrators()],
                &[TCB, SECURITY, DEBUG, CHANGE_NOTIFY, IMPERSONATE, CREATE_GLOBAL, MANAGE_VOLUME],
                &[TAKE_OWNERSHIP, LOAD_DRIVER, BACKUP, RESTORE, SHUTDOWN],
            ),
            // As UAC makes an elevated one: strong privileges are there, and off.
            Token::Administrator => (
                Sid::account(500),
                vec![Sid::administrators(), Sid::users()],
                &[CHANGE_NOTIFY, IMPERSONATE, CREATE_GLOBAL],
                &[SECURITY, TAKE_OWNERSHIP, LOAD_DRIVER, BACKUP, RESTORE, SHUTDOWN, DEBUG, MANAGE_VOLUME],
            ),
            Token::User => (Sid::account(1001), vec![Sid::users()], &[CHANGE_NOTIFY], &[SHUTDOWN]),
        };
        let on = enabled.iter().map(|number| (*number, true));
        let mut privileges: Vec<(u32, bool)> = on.chain(disabled.iter().map(|number| (*number, false))).collect();
        privileges.sort_unstable();
        Self {
            kind,
            level,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            user,
            groups: everybody.into_iter().chain(own).collect(),
            privileges: Mutex::new(privileges),
        }
    }

    /// A copy for impersonation at `level`.
    pub(super) fn impersonation(&self, level: u32) -> Self {
        self.duplicate(Some(level), false)
    }

    /// A copy at `level`, or a primary one; with its enabled privileges only, where nothing else is wanted.
    pub(super) fn duplicate(&self, level: Option<u32>, effective_only: bool) -> Self {
        let copy = Self::of(self.kind, level);
        copy.privileges().clone_from(&self.privileges());
        if effective_only {
            copy.privileges().retain(|(_, is_enabled)| *is_enabled);
        }
        copy
    }

    /// Whose rights it stands for.
    pub(crate) fn kind(&self) -> Token {
        self.kind
    }

    /// The account.
    pub(crate) fn user(&self) -> &Sid {
        &self.user
    }

    /// The groups, all of them enabled.
    pub(crate) fn groups(&self) -> &[Sid] {
        &self.groups
    }

    /// `TOKEN_TYPE`.
    pub(super) fn token_type(&self) -> u32 {
        if self.level.is_some() { IMPERSONATION } else { PRIMARY }
    }

    /// `SECURITY_IMPERSONATION_LEVEL`; `None` for a primary token.
    pub(super) fn level(&self) -> Option<u32> {
        self.level
    }

    /// `TokenId`.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// `AuthenticationId`: the logon session.
    pub(super) fn logon(&self) -> u64 {
        match self.kind {
            Token::System => 0x3E7,
            Token::Administrator => 0x4_0001,
            Token::User => 0x4_0002,
        }
    }

    /// Terminal services session: services run in 0.
    pub(super) fn session(&self) -> u32 {
        u32::from(self.kind != Token::System)
    }

    /// Integrity level, the last part of its identifier.
    pub(super) fn integrity(&self) -> u32 {
        match self.kind {
            Token::System => 0x4000,
            Token::Administrator => 0x3000,
            Token::User => 0x2000,
        }
    }

    /// Whether the identifier is the user's or one of the groups'.
    pub(crate) fn has(&self, sid: &Sid) -> bool {
        self.user == *sid || self.groups.contains(sid)
    }

    /// The privileges: number, and whether it is enabled.
    pub(super) fn privileges(&self) -> MutexGuard<'_, Vec<(u32, bool)>> {
        self.privileges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a privilege is there and enabled.
    pub(crate) fn is_enabled(&self, number: u32) -> bool {
        self.privileges().contains(&(number, true))
    }
}

/// Makes a token object.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(super) fn create(machine: &Inner, token: TokenBody) -> Result<ObjectRef, NtStatus> {
    machine.nt.objects().create(TOKEN_BYTES, Arc::new(token))
}

/// The primary token of a process.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn primary(machine: &Inner, process: &Process) -> Result<ObjectRef, NtStatus> {
    process.primary_token(|| create(machine, TokenBody::of(process.token(), None)))
}

/// The token behind a `PACCESS_TOKEN`; stops when there is none.
pub(super) fn token_at(call: &Call, token: usize) -> Arc<TokenBody> {
    call.machine().nt.objects().payload::<TokenBody>(token).unwrap_or_else(|| {
        call.stop(Rule::BadArgument, format!("{token:#x} is no token, or one whose references are all dropped"))
    })
}

impl Process {
    /// Enables a privilege of the process's token by its number (`SE_DEBUG_PRIVILEGE` is 20), as `AdjustTokenPrivileges` does; false
    /// when the token does not have it.
    pub fn enable_privilege(&self, number: u32) -> bool {
        let Some(machine) = self.machine() else { return false };
        let token = primary(&machine, self).ok().and_then(|token| token.payload::<TokenBody>());
        let Some(token) = token else { return false };
        let mut privileges = token.privileges();
        let found = privileges.iter_mut().find(|(other, _)| *other == number);
        found.map(|entry| entry.1 = true).is_some()
    }
}

pub(super) extern "efiapi" fn ps_reference_primary_token(process: usize) -> usize {
    let call = Call::enter();
    let process = process_at(&call, process);
    match primary(call.machine(), &process) {
        Ok(token) => call.machine().nt.objects().give(&token, &call),
        Err(status) => call.stop(Rule::BadState, format!("no memory for a token: {status}")),
    }
}

pub(super) extern "efiapi" fn ps_dereference_token(token: usize) {
    let call = Call::enter();
    token_at(&call, token);
    call.machine().nt.objects().dereference(&call, token);
}

pub(super) extern "efiapi" fn se_token_is_admin(token: usize) -> u8 {
    let call = Call::enter();
    u8::from(token_at(&call, token).has(&Sid::administrators()))
}

/// No simulated token has a list of restricting identifiers.
extern "efiapi" fn se_token_is_restricted(token: usize) -> u8 {
    let call = Call::enter();
    token_at(&call, token);
    0
}

pub(super) extern "efiapi" fn se_token_type(token: usize) -> u32 {
    let call = Call::enter();
    token_at(&call, token).token_type()
}

extern "efiapi" fn se_token_impersonation_level(token: usize) -> u32 {
    let call = Call::enter();
    token_at(&call, token).level().unwrap_or_default()
}

pub(super) extern "efiapi" fn se_query_authentication_id_token(token: usize, id: Raw<u64>) -> NtStatus {
    let call = Call::enter();
    id.write(token_at(&call, token).logon());
    NtStatus::SUCCESS
}

extern "efiapi" fn se_query_session_id_token(token: usize, session: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    session.write(token_at(&call, token).session());
    NtStatus::SUCCESS
}
