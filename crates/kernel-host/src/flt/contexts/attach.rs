//! FltSetXxxContext, FltGetXxxContext, FltDeleteXxxContext and FltDeleteContext.

use std::sync::Arc;

use fltmgr::raw::{FLT_SET_CONTEXT_KEEP_IF_EXISTS, FLT_SET_CONTEXT_REPLACE_IF_EXISTS};
use nt_types::{FILE_OBJECT, NtStatus};

use super::definition::Kind;
use super::{Closing, Hold, Owner, Place, State, Unused, allocate, closing_open, with_context};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::create::file_object;
use crate::flt::filter::Filter;
use crate::flt::instance::{Instance, VolumeStack};
use crate::flt::object;
use crate::fs::open::Open;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltSetVolumeContext(max 1) = flt_set_volume_context;
    FltGetVolumeContext(max 1) = flt_get_volume_context;
    FltDeleteVolumeContext(max 1) = flt_delete_volume_context;
    FltSetInstanceContext(max 1, fails BUSY) = flt_set_instance_context;
    FltGetInstanceContext(max 1) = flt_get_instance_context;
    FltDeleteInstanceContext(max 1) = flt_delete_instance_context;
    FltSetFileContext(max 1, fails BUSY) = flt_set_file_context;
    FltGetFileContext(max 1) = flt_get_file_context;
    FltDeleteFileContext(max 1) = flt_delete_file_context;
    FltSetStreamContext(max 1, fails BUSY) = flt_set_stream_context;
    FltGetStreamContext(max 1) = flt_get_stream_context;
    FltDeleteStreamContext(max 1) = flt_delete_stream_context;
    FltSetStreamHandleContext(max 1, fails BUSY) = flt_set_stream_handle_context;
    FltGetStreamHandleContext(max 1) = flt_get_stream_handle_context;
    FltDeleteStreamHandleContext(max 1) = flt_delete_stream_handle_context;
    FltSetTransactionContext(max 1) = flt_set_transaction_context;
    FltGetTransactionContext(max 1) = flt_get_transaction_context;
    FltDeleteTransactionContext(max 1) = flt_delete_transaction_context;
    FltDeleteContext(max 1) = flt_delete_context;
}

/// An object as a driver names it, for one type of contexts.
pub(super) struct Target {
    kind: Kind,
    place: Place,
    /// The object is on its way out.
    ending: bool,
}

impl Target {
    pub(super) fn volume(filter: &Filter, volume: &VolumeStack) -> Self {
        let place = Place { owner: Owner::Volume(volume.address), whose: filter.address };
        Self { kind: Kind::Volume, place, ending: volume.rundown.is_ending() }
    }

    pub(super) fn instance(instance: &Instance) -> Self {
        let place = Place { owner: Owner::Instance, whose: instance.address };
        Self { kind: Kind::Instance, place, ending: instance.rundown.is_ending() }
    }

    /// A file, a stream or a stream handle.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a file object that is not open: none, one in pre-create, one whose create failed.
    pub(super) fn file(call: &Call, kind: Kind, instance: &Instance, file: Raw<FILE_OBJECT>) -> Result<Self, NtStatus> {
        let open = open_of(call, file).ok_or(NtStatus::NOT_SUPPORTED)?;
        let owner = match kind {
            Kind::File => Owner::File(open.volume.number, open.stream.key.file),
            Kind::Stream => Owner::Stream(Arc::as_ptr(&open.stream).addr()),
            Kind::Section => Owner::Section(Arc::as_ptr(&open.stream).addr()),
            _ => Owner::Handle(file.address()),
        };
        let place = Place { owner, whose: instance.address };
        Ok(Self { kind, place, ending: instance.rundown.is_ending() })
    }

    /// Where its context is kept.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// The open behind a file object; `None` when it is not open. Stops on what is no file object.
pub(super) fn open_of(call: &Call, file: Raw<FILE_OBJECT>) -> Option<Arc<Open>> {
    let closing = closing_open(call.machine(), file.some()?.address());
    // In IRP_MJ_CLOSE the object manager has let go of the file object already.
    closing.map_or_else(|| file_object(call, file).1.open().ok().cloned(), Closing::open)
}

/// All parameters of FltSetXxxContext but the object.
pub(super) struct Setting {
    pub(super) operation: i32,
    pub(super) new: usize,
    pub(super) old: Raw<usize>,
}

impl Setting {
    pub(super) fn carry_out(&self, call: &Call, target: &Target) -> NtStatus {
        call.detail(target.kind);
        self.old.write_if_some(0);
        if self.new == 0
            || !matches!(self.operation, FLT_SET_CONTEXT_REPLACE_IF_EXISTS | FLT_SET_CONTEXT_KEEP_IF_EXISTS)
        {
            return NtStatus::INVALID_PARAMETER;
        }
        match with_context(call, self.new, |state| self.set(call, state, target)) {
            Ok((replaced, unused)) => {
                self.old.write_if_some(replaced);
                allocate::free_all(call.thread(), unused.into_iter().collect());
                NtStatus::SUCCESS
            }
            Err((status, existing)) => {
                self.old.write_if_some(existing);
                status
            }
        }
    }

    /// The context that was replaced (0 for none) and, when nobody wants it any more, its end; or a status and the context
    /// that is there.
    fn set(
        &self,
        call: &Call,
        state: &mut State,
        target: &Target,
    ) -> Result<(usize, Option<Unused>), (NtStatus, usize)> {
        let new = state.contexts.get_mut(&self.new).ok_or((NtStatus::INVALID_PARAMETER, 0))?;
        if new.kind() != target.kind || !Arc::ptr_eq(&new.filter.driver, call.driver()) {
            return Err((NtStatus::INVALID_PARAMETER, 0));
        }
        if target.ending {
            return Err((NtStatus::FLT_DELETING_OBJECT, 0));
        }
        if new.place.is_some() {
            return Err((NtStatus::FLT_CONTEXT_ALREADY_LINKED, 0));
        }
        let existing = state.places.get(&target.place).copied();
        if let Some(existing) = existing.filter(|_| self.operation == FLT_SET_CONTEXT_KEEP_IF_EXISTS) {
            self.hand_out(call, state, existing);
            return Err((NtStatus::FLT_CONTEXT_ALREADY_DEFINED, existing));
        }
        if let Some(existing) = existing {
            self.hand_out(call, state, existing);
        }
        let unused = state.unset(target.place);
        if let Some(new) = state.contexts.get_mut(&self.new) {
            new.place = Some(target.place);
            new.was_set = true;
        }
        state.places.insert(target.place, self.new);
        Ok((existing.unwrap_or(0), unused))
    }

    /// A reference for the driver, where it has room for the pointer.
    fn hand_out(&self, call: &Call, state: &mut State, address: usize) {
        if let Some(context) = state.contexts.get_mut(&address).filter(|_| !self.old.is_null()) {
            context.holds.push(Hold::of(call.site()));
        }
    }
}

/// The context that is set there, with a reference for the driver; 0 for none.
pub(super) fn get(call: &Call, target: &Target) -> usize {
    let mut state = call.machine().flt.contexts.lock();
    let address = state.places.get(&target.place).copied().unwrap_or(0);
    if let Some(context) = state.contexts.get_mut(&address) {
        context.holds.push(Hold::of(call.site()));
    }
    address
}

pub(super) fn get_into(call: &Call, target: Result<Target, NtStatus>, out: Raw<usize>) -> NtStatus {
    let found = target.map(|target| {
        call.detail(target.kind);
        get(call, &target)
    });
    out.write(found.unwrap_or(0));
    match found {
        Ok(0) => NtStatus::NOT_FOUND,
        Ok(_) => NtStatus::SUCCESS,
        Err(status) => status,
    }
}

/// FltDeleteXxxContext. The reference of the object goes to the driver, where it has room for the pointer.
fn delete(call: &Call, target: Result<Target, NtStatus>, old: Raw<usize>) -> NtStatus {
    old.write_if_some(0);
    let target = match target {
        // The page of FltDeleteFileContext alone does not name it.
        Ok(target) if target.ending && target.kind != Kind::File => return NtStatus::FLT_DELETING_OBJECT,
        Ok(target) => target,
        Err(status) => return status,
    };
    call.detail(target.kind);
    let (address, unused) = {
        let mut state = call.machine().flt.contexts.lock();
        let Some(address) = state.places.get(&target.place).copied() else { return NtStatus::NOT_FOUND };
        if let Some(context) = state.contexts.get_mut(&address).filter(|_| !old.is_null()) {
            context.holds.push(Hold::of(call.site()));
        }
        (address, state.unset(target.place))
    };
    old.write_if_some(address);
    allocate::free_all(call.thread(), unused.into_iter().collect());
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_delete_context(address: usize) {
    let call = Call::enter();
    let refusal = with_context(&call, address, |state| {
        let context = state.contexts.get(&address)?;
        if context.kind() == Kind::Section {
            return Some((Rule::BadState, "FltDeleteContext is not for section contexts"));
        }
        if !context.was_set {
            return Some((
                Rule::BadState,
                "a context that was never set cannot be deleted: FltReleaseContext frees it",
            ));
        }
        if context.holds.is_empty() {
            return Some((Rule::ReferenceUnderflow, "FltDeleteContext needs a reference, and the driver holds none"));
        }
        // One that was replaced or deleted meanwhile is off its object already. The caller's reference keeps it alive.
        let place = context.place?;
        debug_assert!(state.unset(place).is_none(), "the driver holds a reference");
        None
    });
    if let Some((rule, message)) = refusal {
        call.stop(rule, message);
    }
}

/// Declares the three exports for contexts on files.
macro_rules! on_files {
    ($($kind:ident: $set:ident, $get:ident, $delete:ident;)*) => {$(
        extern "efiapi" fn $set(
            instance: usize,
            file: Raw<FILE_OBJECT>,
            operation: i32,
            new: usize,
            old: Raw<usize>,
        ) -> NtStatus {
            let call = Call::enter();
            let instance = object::instance(&call, instance);
            match Target::file(&call, Kind::$kind, &instance, file) {
                Ok(target) => Setting { operation, new, old }.carry_out(&call, &target),
                Err(status) => {
                    old.write_if_some(0);
                    status
                }
            }
        }

        extern "efiapi" fn $get(instance: usize, file: Raw<FILE_OBJECT>, out: Raw<usize>) -> NtStatus {
            let call = Call::enter();
            let instance = object::instance(&call, instance);
            get_into(&call, Target::file(&call, Kind::$kind, &instance, file), out)
        }

        extern "efiapi" fn $delete(instance: usize, file: Raw<FILE_OBJECT>, old: Raw<usize>) -> NtStatus {
            let call = Call::enter();
            let instance = object::instance(&call, instance);
            delete(&call, Target::file(&call, Kind::$kind, &instance, file), old)
        }
    )*};
}

on_files! {
    File: flt_set_file_context, flt_get_file_context, flt_delete_file_context;
    Stream: flt_set_stream_context, flt_get_stream_context, flt_delete_stream_context;
    StreamHandle: flt_set_stream_handle_context, flt_get_stream_handle_context, flt_delete_stream_handle_context;
}

extern "efiapi" fn flt_set_volume_context(volume: usize, operation: i32, new: usize, old: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    // The filter is whoever the context belongs to.
    let filter = call.machine().flt.contexts.lock().contexts.get(&new).map(|context| Arc::clone(&context.filter));
    let setting = Setting { operation, new, old };
    match filter {
        Some(filter) => setting.carry_out(&call, &Target::volume(&filter, &volume)),
        None if new == 0 => {
            old.write_if_some(0);
            NtStatus::INVALID_PARAMETER
        }
        None => with_context(&call, new, |_| NtStatus::INVALID_PARAMETER),
    }
}

extern "efiapi" fn flt_get_volume_context(filter: usize, volume: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let (filter, volume) = (object::filter(&call, filter), object::volume(&call, volume));
    get_into(&call, Ok(Target::volume(&filter, &volume)), out)
}

extern "efiapi" fn flt_delete_volume_context(filter: usize, volume: usize, old: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let (filter, volume) = (object::filter(&call, filter), object::volume(&call, volume));
    delete(&call, Ok(Target::volume(&filter, &volume)), old)
}

extern "efiapi" fn flt_set_instance_context(instance: usize, operation: i32, new: usize, old: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    Setting { operation, new, old }.carry_out(&call, &Target::instance(&instance))
}

extern "efiapi" fn flt_get_instance_context(instance: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    get_into(&call, Ok(Target::instance(&instance)), out)
}

extern "efiapi" fn flt_delete_instance_context(instance: usize, old: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    delete(&call, Ok(Target::instance(&instance)), old)
}

extern "efiapi" fn flt_set_transaction_context(
    instance: usize,
    transaction: usize,
    _operation: i32,
    new: usize,
    old: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let _instance = object::instance(&call, instance);
    old.write_if_some(0);
    if new == 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    no_transaction(&call, transaction, NtStatus::INVALID_PARAMETER)
}

extern "efiapi" fn flt_get_transaction_context(instance: usize, transaction: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let _instance = object::instance(&call, instance);
    out.write(0);
    no_transaction(&call, transaction, NtStatus::NOT_FOUND)
}

extern "efiapi" fn flt_delete_transaction_context(instance: usize, transaction: usize, old: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let _instance = object::instance(&call, instance);
    old.write_if_some(0);
    no_transaction(&call, transaction, NtStatus::NOT_FOUND)
}

/// Files are never opened in a transaction here, so `FLT_RELATED_OBJECTS::Transaction` is NULL; that is answered with
/// `without`. Any other pointer cannot be a transaction.
fn no_transaction(call: &Call, transaction: usize, without: NtStatus) -> NtStatus {
    if transaction == 0 {
        return without;
    }
    call.stop(Rule::NotImplemented, format!("{transaction:#x}: kernel-host has no transactions"));
}
