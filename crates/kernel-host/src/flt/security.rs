//! Security descriptors of ports: building the default one, and checking a token against any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::process::Token;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltBuildDefaultSecurityDescriptor(max 1, fails RESOURCES) = flt_build_default_security_descriptor;
    FltFreeSecurityDescriptor(max 1) = flt_free_security_descriptor;
}

/// `SE_DACL_PRESENT`.
const DACL_PRESENT: u16 = 0x0004;
/// `SE_SELF_RELATIVE`.
const SELF_RELATIVE: u16 = 0x8000;
/// Bytes of an absolute `SECURITY_DESCRIPTOR`.
const ABSOLUTE: usize = 40;

/// A security identifier in its binary form.
type Sid = Vec<u8>;

fn sid(authority: u8, parts: &[u32]) -> Sid {
    let mut bytes = vec![1, parts.len() as u8, 0, 0, 0, 0, 0, authority];
    bytes.extend(parts.iter().flat_map(|part| part.to_le_bytes()));
    bytes
}

fn local_system() -> Sid {
    sid(5, &[18])
}

fn administrators() -> Sid {
    sid(5, &[32, 544])
}

/// The identities of a token.
fn groups(token: Token) -> Vec<Sid> {
    let mut groups = vec![sid(1, &[0]), sid(5, &[11])];
    match token {
        Token::System => groups.extend([local_system(), administrators()]),
        Token::Administrator => groups.extend([administrators(), sid(5, &[32, 545])]),
        Token::User => groups.push(sid(5, &[32, 545])),
    }
    groups
}

/// Descriptors from FltBuildDefaultSecurityDescriptor that are not freed yet: address to builder.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(Mutex<HashMap<usize, Arc<Driver>>>);

impl Descriptors {
    /// What `driver` has not freed.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let count = self.lock().values().filter(|owner| std::ptr::eq(Arc::as_ptr(owner), driver)).count() as u64;
        let detail = "security descriptors from FltBuildDefaultSecurityDescriptor".to_owned();
        if count == 0 { Vec::new() } else { vec![Leak { kind: LeakKind::Reference, count, bytes: 0, detail }] }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Driver>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An access list: who is allowed what, in order; `None` lets everybody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessList(Option<Vec<Ace>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ace {
    allow: bool,
    mask: u32,
    sid: Sid,
}

impl AccessList {
    /// SYSTEM and Administrators, each with `mask`.
    pub(crate) fn administrators_only(mask: u32) -> Self {
        let allow = |sid| Ace { allow: true, mask, sid };
        Self(Some(vec![allow(local_system()), allow(administrators())]))
    }

    /// Whether `token` gets all of `wanted`.
    pub(crate) fn grants(&self, token: Token, wanted: u32) -> bool {
        let Some(entries) = &self.0 else { return true };
        let groups = groups(token);
        let mut left = wanted;
        for ace in entries.iter().filter(|ace| groups.contains(&ace.sid)) {
            if ace.allow {
                left &= !ace.mask;
            } else if ace.mask & left != 0 {
                return false;
            }
        }
        left == 0
    }

    /// Reads the DACL of the descriptor at `address`, absolute or self-relative.
    ///
    /// # Errors
    /// `INVALID_SECURITY_DESCR` when it is malformed.
    pub(crate) fn capture(address: usize) -> Result<Self, NtStatus> {
        let descriptor = Raw::<u8>::at(address);
        if descriptor.read() != 1 {
            return Err(NtStatus::INVALID_SECURITY_DESCR);
        }
        let control = descriptor.field::<u16>(2).read();
        let dacl = match control & SELF_RELATIVE {
            0 => descriptor.field::<usize>(32).read(),
            _ => match descriptor.field::<u32>(16).read() {
                0 => 0,
                offset => address + offset as usize,
            },
        };
        // No DACL, or an empty pointer for one, protects nothing.
        if control & DACL_PRESENT == 0 || dacl == 0 {
            return Ok(Self(None));
        }
        let list = Raw::<u8>::at(dacl);
        let (size, count) = (usize::from(list.field::<u16>(2).read()), list.field::<u16>(4).read());
        let bytes = list.read_bytes(size);
        let mut rest = bytes.get(8..).ok_or(NtStatus::INVALID_SECURITY_DESCR)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let header = rest.first_chunk::<8>().ok_or(NtStatus::INVALID_SECURITY_DESCR)?;
            let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
            let mask = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
            let sid = rest.get(8..length).ok_or(NtStatus::INVALID_SECURITY_DESCR)?.to_vec();
            // ACCESS_ALLOWED_ACE_TYPE 0, ACCESS_DENIED_ACE_TYPE 1; other types grant nothing here.
            if header[0] <= 1 {
                entries.push(Ace { allow: header[0] == 0, mask, sid });
            }
            rest = rest.get(length..).ok_or(NtStatus::INVALID_SECURITY_DESCR)?;
        }
        Ok(Self(Some(entries)))
    }

    /// The binary form (`ACL`).
    fn bytes(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        let list = self.0.as_deref().unwrap_or_default();
        for ace in list {
            entries.extend([u8::from(!ace.allow), 0]);
            entries.extend(((8 + ace.sid.len()) as u16).to_le_bytes());
            entries.extend(ace.mask.to_le_bytes());
            entries.extend(&ace.sid);
        }
        let mut bytes = vec![2, 0];
        bytes.extend(((8 + entries.len()) as u16).to_le_bytes());
        bytes.extend((list.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(entries);
        bytes
    }
}

extern "efiapi" fn flt_build_default_security_descriptor(out: Raw<usize>, access: u32) -> NtStatus {
    let call = Call::enter();
    let machine = call.machine();
    let list = AccessList::administrators_only(access).bytes();
    let request = Request {
        kind: PoolKind::Paged,
        length: ABSOLUTE + list.len(),
        tag: u32::from_le_bytes(*b"FMsd"),
        zeroed: true,
        cache_aligned: false,
    };
    let address = machine.nt.pool().allocate(&call, request);
    if address == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let descriptor = Raw::<u8>::at(address);
    descriptor.write(1);
    descriptor.field::<u16>(2).write(DACL_PRESENT);
    descriptor.field::<usize>(32).write(address + ABSOLUTE);
    descriptor.field::<u8>(ABSOLUTE).write_bytes(&list);
    machine.flt.descriptors.lock().insert(address, Arc::clone(call.driver()));
    out.write(address);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_free_security_descriptor(address: usize) {
    let call = Call::enter();
    let known = call.machine().flt.descriptors.lock().remove(&address);
    if known.is_none() {
        call.stop(
            Rule::BadArgument,
            format!("{address:#x} is not from FltBuildDefaultSecurityDescriptor, or was freed before"),
        );
    }
    call.machine().nt.pool().free(&call, address, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_descriptor_lets_administrators_in_and_nobody_else() {
        let list = AccessList::administrators_only(0x1F_0001);
        assert!(list.grants(Token::System, 1) && list.grants(Token::Administrator, 0x1F_0001));
        assert!(!list.grants(Token::User, 1));
        assert!(!AccessList::administrators_only(1).grants(Token::Administrator, 2));
    }

    #[test]
    fn a_deny_entry_wins_when_it_comes_first() {
        let everyone = sid(1, &[0]);
        let ace = |allow| Ace { allow, mask: 1, sid: everyone.clone() };
        assert!(!AccessList(Some(vec![ace(false), ace(true)])).grants(Token::Administrator, 1));
        assert!(AccessList(Some(vec![ace(true), ace(false)])).grants(Token::User, 1));
        assert!(!AccessList(Some(Vec::new())).grants(Token::System, 1), "an empty list grants nothing");
        assert!(AccessList(None).grants(Token::User, 1), "no list grants everything");
    }

    #[test]
    fn a_self_relative_descriptor_is_read_too() {
        let list = AccessList::administrators_only(1).bytes();
        let mut bytes = vec![1, 0];
        bytes.extend((DACL_PRESENT | SELF_RELATIVE).to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(20u32.to_le_bytes());
        bytes.extend(list);
        let address = bytes.as_ptr().expose_provenance();
        assert_eq!(AccessList::capture(address), Ok(AccessList::administrators_only(1)));
    }
}
