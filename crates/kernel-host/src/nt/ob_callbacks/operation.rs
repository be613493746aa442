//! A handle to a process or thread on its way into a table.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nt_types::NtStatus;

use super::{HANDLE_CREATE, HANDLE_DUPLICATE, Registration, Watched};
use crate::finding::{Finding, Rule};
use crate::nt::notify::in_critical_region;
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::type_address;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// Names of the callbacks, as their pages have them.
pub(super) const PRE: &str = "POB_PRE_OPERATION_CALLBACK";
pub(super) const POST: &str = "POB_POST_OPERATION_CALLBACK";

/// A handle that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a> {
    /// What it will stand for.
    pub(crate) object: &'a ObjectRef,
    /// Rights asked for.
    pub(crate) access: u32,
    /// Whether it goes into the system's table.
    pub(crate) is_kernel: bool,
    /// Set for a duplicate.
    pub(crate) duplication: Option<Duplication>,
}

/// Process objects between which a handle is duplicated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Duplication {
    pub(crate) source: usize,
    pub(crate) target: usize,
}

/// `OB_PRE_OPERATION_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PreInformation {
    pub(super) operation: u32,
    /// Bit 0 is `KernelHandle`.
    pub(super) flags: u32,
    pub(super) object: usize,
    pub(super) object_type: usize,
    pub(super) call_context: usize,
    pub(super) parameters: Raw<PreParameters>,
}

const _: () = assert!(size_of::<PreInformation>() == 40);

/// `OB_PRE_DUPLICATE_HANDLE_INFORMATION`, which begins as `OB_PRE_CREATE_HANDLE_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PreParameters {
    pub(super) desired: u32,
    pub(super) original: u32,
    pub(super) source: usize,
    pub(super) target: usize,
}

const _: () = assert!(size_of::<PreParameters>() == 24);

/// `OB_POST_OPERATION_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct PostInformation {
    pub(super) operation: u32,
    pub(super) flags: u32,
    pub(super) object: usize,
    pub(super) object_type: usize,
    pub(super) call_context: usize,
    pub(super) status: NtStatus,
    /// `GrantedAccess` of either union member.
    pub(super) granted: Raw<u32>,
}

const _: () = assert!(size_of::<PostInformation>() == 48);

/// One registration's part in an operation.
struct Turn {
    registration: Arc<Registration>,
    watched: Watched,
    call_context: usize,
}

impl Operation<'_> {
    fn number(&self) -> u32 {
        if self.duplication.is_some() { HANDLE_DUPLICATE } else { HANDLE_CREATE }
    }

    /// Asks the callbacks, has the handle made with the rights that they leave, and tells them.
    pub(crate) fn carry_out(self, thread: &Thread, make: impl FnOnce(u32) -> usize) -> usize {
        let mut turns = self.turns(thread);
        if turns.is_empty() {
            return make(self.access);
        }
        let mut access = self.access;
        for turn in &mut turns {
            // Rights can be taken out, never put in.
            access &= self.before(thread, turn, access);
        }
        let handle = make(access);
        // The lowest first: the reverse of the way in.
        for turn in turns.iter().rev() {
            self.after(thread, turn, access);
        }
        for turn in &turns {
            turn.registration.running.fetch_sub(1, Ordering::AcqRel);
        }
        thread.machine().nt.dispatcher().wake();
        handle
    }

    /// Who wants to hear of it. Each is kept from being unregistered until the end.
    fn turns(&self, thread: &Thread) -> Vec<Turn> {
        let registrations = thread.machine().nt.ob_callbacks().lock();
        let wants = |watched: &&Watched| {
            watched.type_name == self.object.type_name() && watched.operations & self.number() != 0
        };
        let turn = |registration: &Arc<Registration>| {
            let watched = *registration.watched.iter().find(wants)?;
            registration.running.fetch_add(1, Ordering::AcqRel);
            Some(Turn { registration: Arc::clone(registration), watched, call_context: 0 })
        };
        registrations.iter().filter_map(turn).collect()
    }

    /// The pre-operation callback; the rights it leaves.
    fn before(&self, thread: &Thread, turn: &mut Turn, access: u32) -> u32 {
        type Routine = unsafe extern "efiapi" fn(usize, usize) -> i32;
        if turn.watched.pre == 0 {
            return access;
        }
        let (source, target) = self.duplication.map_or((0, 0), |between| (between.source, between.target));
        let mut parameters = PreParameters { desired: access, original: self.access, source, target };
        let parameters = Raw::of(&raw mut parameters);
        let mut information = PreInformation {
            operation: self.number(),
            flags: self.is_kernel.into(),
            object: self.object.body(),
            object_type: type_address(self.object.type_name()),
            call_context: 0,
            parameters,
        };
        let information = Raw::of(&raw mut information);
        let context = turn.registration.context;
        // SAFETY: the address of the driver's POB_PRE_OPERATION_CALLBACK.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(turn.watched.pre) };
        let answer = in_critical_region(thread, &turn.registration.driver, PRE, || {
            // SAFETY: the context is the driver's; the structures live during the call.
            unsafe { routine(context, information.address()) }
        });
        if answer.is_some_and(|answer| answer != 0) {
            let message = "the callback has to return OB_PREOP_SUCCESS, whatever it did";
            let name = &turn.registration.driver.name;
            thread.machine().record(Finding::new(Rule::BadState, message.to_owned(), PRE, name));
        }
        turn.call_context = field!(information, PreInformation, call_context).read();
        field!(parameters, PreParameters, desired).read()
    }

    fn after(&self, thread: &Thread, turn: &Turn, access: u32) {
        type Routine = unsafe extern "efiapi" fn(usize, usize);
        if turn.watched.post == 0 {
            return;
        }
        let mut granted = access;
        let mut information = PostInformation {
            operation: self.number(),
            flags: self.is_kernel.into(),
            object: self.object.body(),
            object_type: type_address(self.object.type_name()),
            call_context: turn.call_context,
            status: NtStatus::SUCCESS,
            granted: Raw::of(&raw mut granted),
        };
        let information = (&raw mut information).expose_provenance();
        let context = turn.registration.context;
        // SAFETY: the address of the driver's POB_POST_OPERATION_CALLBACK.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(turn.watched.post) };
        in_critical_region(thread, &turn.registration.driver, POST, || {
            // SAFETY: the context is the driver's; the structures live during the call.
            unsafe { routine(context, information) }
        });
    }
}
