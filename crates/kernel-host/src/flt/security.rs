//! Security descriptors of ports: building the default one, and checking a process against any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::{FLT_PORT_ALL_ACCESS, FLT_PORT_CONNECT};
use nt_types::{AccessMask, NtStatus};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::nt::security::access::{GenericMapping, check};
use crate::nt::security::acl::{Ace, Acl};
use crate::nt::security::descriptor::Descriptor;
use crate::nt::security::sid::Sid;
use crate::nt::security::token::{TokenBody, primary};
use crate::process::Process;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltBuildDefaultSecurityDescriptor(max 1, fails RESOURCES) = flt_build_default_security_descriptor;
    FltFreeSecurityDescriptor(max 1) = flt_free_security_descriptor;
}

/// `SE_DACL_PRESENT`.
const DACL_PRESENT: u16 = 0x0004;
/// Bytes of an absolute `SECURITY_DESCRIPTOR`.
const ABSOLUTE: usize = 40;

/// What generic rights mean for a port. General knowledge, no page: only "all" can be used to connect.
const PORT_MAPPING: GenericMapping = GenericMapping {
    read: AccessMask::READ_CONTROL.bits(),
    write: AccessMask::READ_CONTROL.bits(),
    execute: AccessMask::READ_CONTROL.bits(),
    all: FLT_PORT_ALL_ACCESS,
};

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

/// SYSTEM and Administrators, each with `mask`; nobody else.
pub(super) fn administrators_only(mask: u32) -> Descriptor {
    let allow = |sid| Ace { allow: true, mask, sid };
    let entries = vec![allow(Sid::local_system()), allow(Sid::administrators())];
    Descriptor { dacl: Some(Acl(entries)), ..Descriptor::default() }
}

/// Copies the descriptor at `address`, absolute or self-relative.
///
/// # Errors
/// `INVALID_SECURITY_DESCR` when it is malformed, whatever part is.
pub(super) fn capture(address: usize) -> Result<Descriptor, NtStatus> {
    Descriptor::read(Raw::at(address)).map_err(|_| NtStatus::INVALID_SECURITY_DESCR)
}

/// Whether a process may connect to a port with this descriptor.
///
/// # Errors
/// `ACCESS_DENIED`; `INSUFFICIENT_RESOURCES` without memory for the process's token.
pub(super) fn check_connect(machine: &Inner, descriptor: &Descriptor, process: &Process) -> Result<(), NtStatus> {
    let token = primary(machine, process)?;
    let token = token.payload::<TokenBody>().ok_or(NtStatus::ACCESS_DENIED)?;
    check(descriptor, &token, FLT_PORT_CONNECT, &PORT_MAPPING).map(|_granted| ())
}

extern "efiapi" fn flt_build_default_security_descriptor(out: Raw<usize>, access: u32) -> NtStatus {
    let call = Call::enter();
    let machine = call.machine();
    let list = administrators_only(access).dacl.unwrap_or_default().bytes();
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
    use crate::ddi::testing::Bench;
    use crate::process::Token;

    /// What a process with that token is answered.
    fn connect(descriptor: &Descriptor, token: Token) -> Result<(), NtStatus> {
        let bench = Bench::new();
        let process = bench.machine().process("client.exe").token(token).start().expect("address space");
        bench.enter(|_| check_connect(bench.machine().inner(), descriptor, &process))
    }

    fn list(entries: &[bool]) -> Descriptor {
        let entries = entries.iter().map(|&allow| Ace { allow, mask: FLT_PORT_CONNECT, sid: Sid::world() });
        Descriptor { dacl: Some(Acl(entries.collect())), ..Descriptor::default() }
    }

    #[test]
    fn the_default_descriptor_lets_administrators_in_and_nobody_else() {
        let all = administrators_only(FLT_PORT_ALL_ACCESS);
        assert_eq!(connect(&all, Token::System), Ok(()));
        assert_eq!(connect(&all, Token::Administrator), Ok(()));
        assert_eq!(connect(&all, Token::User), Err(NtStatus::ACCESS_DENIED));
        let other_rights = administrators_only(FLT_PORT_ALL_ACCESS & !FLT_PORT_CONNECT);
        assert_eq!(connect(&other_rights, Token::Administrator), Err(NtStatus::ACCESS_DENIED));
    }

    #[test]
    fn the_first_entry_that_applies_decides() {
        assert_eq!(connect(&list(&[false, true]), Token::Administrator), Err(NtStatus::ACCESS_DENIED));
        assert_eq!(connect(&list(&[true, false]), Token::User), Ok(()));
        assert_eq!(connect(&list(&[]), Token::System), Err(NtStatus::ACCESS_DENIED), "an empty list grants nothing");
        assert_eq!(connect(&Descriptor::default(), Token::User), Ok(()), "no list grants everything");
    }

    #[test]
    fn all_generic_rights_are_all_rights_to_a_port() {
        assert_eq!(connect(&administrators_only(AccessMask::GENERIC_ALL.bits()), Token::Administrator), Ok(()));
    }

    #[test]
    fn whatever_is_wrong_with_a_descriptor_it_is_malformed() {
        let good = Descriptor { owner: Some(Sid::local_system()), ..administrators_only(1) };
        let read = |bytes: &[u8]| capture(bytes.as_ptr().expose_provenance());
        assert_eq!(read(&good.bytes()), Ok(good.clone()));
        // Revision of the descriptor, of its owner, of its list; the length of the list's first entry.
        let list = 20 + Sid::local_system().bytes().len();
        for at in [0, 20, list, list + 8 + 2] {
            let mut bytes = good.bytes();
            bytes[at] = 0;
            assert_eq!(read(&bytes), Err(NtStatus::INVALID_SECURITY_DESCR), "byte {at}");
        }
    }
}
