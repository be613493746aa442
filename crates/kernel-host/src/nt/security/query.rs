//! Asking tokens. Pages: `ntifs/nf-ntifs-sequeryinformationtoken`, `ntifs/nf-ntifs-zwqueryinformationtoken`,
//! `ntifs/nf-ntifs-zwopenprocesstokenex`, `ntifs/nf-ntifs-zwopenthreadtokenex`.

use nt_types::{HANDLE, KERNEL_MODE, NtStatus};

use super::acl::{Ace, Acl};
use super::sid::Sid;
use super::token::{GROUP_ENABLED, TokenBody, primary, token_at};
use crate::ddi::{Call, exports};
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::{make_handle, open_entry};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::nt::threads::thread_at;
use crate::process::ProcessBody;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    SeQueryInformationToken(max 0, fails RESOURCES) = se_query_information_token;
    ZwQueryInformationToken(max 0) = zw_query_information_token;
    NtQueryInformationToken(max 0) = zw_query_information_token;
    ZwOpenProcessToken(max 0, fails RESOURCES) = zw_open_process_token;
    ZwOpenProcessTokenEx(max 0, fails RESOURCES) = zw_open_process_token_ex;
    NtOpenProcessToken(max 0, fails RESOURCES) = zw_open_process_token;
    NtOpenProcessTokenEx(max 0, fails RESOURCES) = zw_open_process_token_ex;
    ZwOpenThreadToken(max 0, fails RESOURCES) = zw_open_thread_token;
    ZwOpenThreadTokenEx(max 0, fails RESOURCES) = zw_open_thread_token_ex;
    NtOpenThreadToken(max 0, fails RESOURCES) = zw_open_thread_token;
    NtOpenThreadTokenEx(max 0, fails RESOURCES) = zw_open_thread_token_ex;
}

/// Members of `TOKEN_INFORMATION_CLASS`.
mod class {
    pub(super) const USER: u32 = 1;
    pub(super) const GROUPS: u32 = 2;
    pub(super) const PRIVILEGES: u32 = 3;
    pub(super) const OWNER: u32 = 4;
    pub(super) const PRIMARY_GROUP: u32 = 5;
    pub(super) const DEFAULT_DACL: u32 = 6;
    pub(super) const SOURCE: u32 = 7;
    pub(super) const TYPE: u32 = 8;
    pub(super) const IMPERSONATION_LEVEL: u32 = 9;
    pub(super) const STATISTICS: u32 = 10;
    pub(super) const SESSION_ID: u32 = 12;
    pub(super) const ELEVATION_TYPE: u32 = 18;
    pub(super) const ELEVATION: u32 = 20;
    pub(super) const INTEGRITY_LEVEL: u32 = 25;
}

/// `SE_GROUP_INTEGRITY | SE_GROUP_INTEGRITY_ENABLED`.
const GROUP_INTEGRITY: u32 = 0x60;
/// `SE_PRIVILEGE_ENABLED_BY_DEFAULT | SE_PRIVILEGE_ENABLED`.
const PRIVILEGE_ENABLED: u32 = 3;

/// An answer as it will lie in memory: words, some of which are to become addresses of what lies behind them.
#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Offsets of words that hold an offset into `bytes`, to which the answer's address is added.
    pointers: Vec<usize>,
}

impl Answer {
    fn numbers(words: &[u32]) -> Self {
        Self { bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect(), pointers: Vec::new() }
    }

    /// `SID_AND_ATTRIBUTES` entries behind `head` bytes (0, or 8 with their count), the identifiers behind all.
    fn groups(counted: bool, groups: &[(Sid, u32)]) -> Self {
        let mut answer = Self::default();
        if counted {
            answer.bytes.extend((groups.len() as u64).to_le_bytes());
        }
        let mut behind = answer.bytes.len() + groups.len() * 16;
        for (sid, attributes) in groups {
            answer.pointers.push(answer.bytes.len());
            answer.bytes.extend((behind as u64).to_le_bytes());
            answer.bytes.extend(u64::from(*attributes).to_le_bytes());
            behind += sid.bytes().len();
        }
        for (sid, _) in groups {
            answer.bytes.extend(sid.bytes());
        }
        answer
    }

    /// One pointer to what lies behind it.
    fn pointer_to(bytes: &[u8]) -> Self {
        Self { bytes: 8_u64.to_le_bytes().iter().chain(bytes).copied().collect(), pointers: vec![0] }
    }

    /// Writes the answer at an address with room for it.
    fn place(mut self, address: usize) {
        for at in self.pointers {
            if let Some(word) = self.bytes.get_mut(at..at + 8) {
                let offset =
                    usize::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
                word.copy_from_slice(&(address + offset).to_le_bytes());
            }
        }
        Raw::<u8>::at(address).write_bytes(&self.bytes);
    }
}

/// What a token says of itself.
fn answer(token: &TokenBody, wanted: u32) -> Result<Answer, NtStatus> {
    let low = |number: u64| number as u32;
    Ok(match wanted {
        class::USER => Answer::groups(false, &[(token.user().clone(), 0)]),
        class::GROUPS => {
            let groups: Vec<_> = token.groups().iter().map(|sid| (sid.clone(), GROUP_ENABLED)).collect();
            Answer::groups(true, &groups)
        }
        class::PRIVILEGES => {
            let privileges = token.privileges();
            let entries = privileges
                .iter()
                .flat_map(|(number, enabled)| [*number, 0, if *enabled { PRIVILEGE_ENABLED } else { 0 }]);
            Answer::numbers(&std::iter::once(privileges.len() as u32).chain(entries).collect::<Vec<_>>())
        }
        class::OWNER | class::PRIMARY_GROUP => Answer::pointer_to(token.user().bytes()),
        class::DEFAULT_DACL => {
            let all = nt_types::AccessMask::GENERIC_ALL.bits();
            let allow = |sid| Ace { allow: true, mask: all, sid };
            Answer::pointer_to(&Acl(vec![allow(token.user().clone()), allow(Sid::local_system())]).bytes())
        }
        class::SOURCE => Answer { bytes: b"User32 \0\0\0\0\0\0\0\0\0".to_vec(), pointers: Vec::new() },
        class::TYPE => Answer::numbers(&[token.token_type()]),
        class::IMPERSONATION_LEVEL => Answer::numbers(&[token.level().ok_or(NtStatus::INVALID_INFO_CLASS)?]),
        class::STATISTICS => {
            let (id, logon) = (token.id(), token.logon());
            let counts = [token.groups().len() as u32, token.privileges().len() as u32];
            // TokenId, AuthenticationId, ExpirationTime, type, level, quota charged and available, counts, ModifiedId.
            let level = token.level().unwrap_or_default();
            let head = [low(id), low(id >> 32), low(logon), 0, u32::MAX, 0x7FFF_FFFF, token.token_type(), level];
            let tail = [0, 0, counts[0], counts[1], low(id), low(id >> 32)];
            Answer::numbers(&[head.as_slice(), &tail].concat())
        }
        class::SESSION_ID => Answer::numbers(&[token.session()]),
        // TokenElevationTypeFull for administrators, limited for users with an elevated twin; here there is none: default.
        class::ELEVATION_TYPE => {
            Answer::numbers(&[if token.kind() == crate::process::Token::Administrator { 2 } else { 1 }])
        }
        class::ELEVATION => Answer::numbers(&[u32::from(token.kind().is_administrator())]),
        class::INTEGRITY_LEVEL => Answer::groups(false, &[(Sid::new(16, &[token.integrity()]), GROUP_INTEGRITY)]),
        _ => return Err(NtStatus::INVALID_INFO_CLASS),
    })
}

pub(super) extern "efiapi" fn se_query_information_token(token: usize, wanted: u32, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let token = token_at(&call, token);
    // The page: these two come as numbers, not as addresses of them.
    if wanted == class::SESSION_ID || wanted == class::INTEGRITY_LEVEL {
        let number = if wanted == class::SESSION_ID { token.session() } else { token.integrity() };
        out.cast::<u32>().write(number);
        return NtStatus::SUCCESS;
    }
    let answer = match answer(&token, wanted) {
        Ok(answer) => answer,
        Err(status) => return status,
    };
    let request = Request {
        kind: PoolKind::Paged,
        length: answer.bytes.len(),
        tag: u32::from_le_bytes(*b"SeTk"),
        zeroed: true,
        cache_aligned: false,
    };
    let block = call.machine().nt.pool().allocate(&call, request);
    if block == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    answer.place(block);
    out.write(block);
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn zw_query_information_token(
    handle: HANDLE,
    wanted: u32,
    buffer: usize,
    length: u32,
    needed: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let token = match open_entry(&call, handle.addr(), 0, Some("Token"), KERNEL_MODE) {
        Ok(entry) => token_at(&call, entry.object.body()),
        Err(status) => return status,
    };
    match answer(&token, wanted) {
        Ok(answer) => {
            needed.write_if_some(answer.bytes.len() as u32);
            if (length as usize) < answer.bytes.len() {
                return NtStatus::BUFFER_TOO_SMALL;
            }
            answer.place(buffer);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn zw_open_process_token(process: HANDLE, access: u32, out: Raw<usize>) -> NtStatus {
    open_process_token(&Call::enter(), process, access, 0, out)
}

pub(super) extern "efiapi" fn zw_open_process_token_ex(
    process: HANDLE,
    access: u32,
    attributes: u32,
    out: Raw<usize>,
) -> NtStatus {
    open_process_token(&Call::enter(), process, access, attributes, out)
}

fn open_process_token(call: &Call, process: HANDLE, access: u32, attributes: u32, out: Raw<usize>) -> NtStatus {
    let found = open_entry(call, process.addr(), 0, Some("Process"), KERNEL_MODE).and_then(|entry| {
        let process = entry.object.payload::<ProcessBody>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?.process();
        primary(call.machine(), &process)
    });
    give(call, found, access, attributes, out)
}

extern "efiapi" fn zw_open_thread_token(thread: HANDLE, access: u32, _as_self: u8, out: Raw<usize>) -> NtStatus {
    open_thread_token(&Call::enter(), thread, access, 0, out)
}

pub(super) extern "efiapi" fn zw_open_thread_token_ex(
    thread: HANDLE,
    access: u32,
    _as_self: u8,
    attributes: u32,
    out: Raw<usize>,
) -> NtStatus {
    open_thread_token(&Call::enter(), thread, access, attributes, out)
}

fn open_thread_token(call: &Call, thread: HANDLE, access: u32, attributes: u32, out: Raw<usize>) -> NtStatus {
    let found = open_entry(call, thread.addr(), 0, Some("Thread"), KERNEL_MODE).and_then(|entry| {
        let thread = thread_at(call, entry.object.body());
        Ok(thread.impersonation().ok_or(NtStatus::NO_TOKEN)?.token)
    });
    give(call, found, access, attributes, out)
}

fn give(call: &Call, token: Result<ObjectRef, NtStatus>, access: u32, attributes: u32, out: Raw<usize>) -> NtStatus {
    match token {
        Ok(token) => {
            out.write(make_handle(call, &token, access, attributes));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}
