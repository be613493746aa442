//! Callback data in drivers' hands: dirty or not, allocated, flown and flown again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::{
    FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FLT_PARAMETERS, FltCallbackDataFlags, PFLT_COMPLETED_ASYNC_IO_CALLBACK,
};
use nt_types::{BOOLEAN, FILE_OBJECT, FileObjectFlags, IO_STATUS_BLOCK, KERNEL_MODE, NtStatus, PVOID};

use super::flight::{Flight, Stage};
use super::major;
use super::object;
use super::operation::{Kind, Operation};
use super::stack::{self, Flown, Walk};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::serve;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::nt::raw::{Raw, field};
use crate::origin::Origin;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltSetCallbackDataDirty(max 2) = flt_set_callback_data_dirty;
    FltClearCallbackDataDirty(max 2) = flt_clear_callback_data_dirty;
    FltIsCallbackDataDirty(max 2) = flt_is_callback_data_dirty;
    FltAllocateCallbackData(max 1, fails RESOURCES) = flt_allocate_callback_data;
    FltAllocateCallbackDataEx(max 1, fails RESOURCES) = flt_allocate_callback_data_ex;
    FltFreeCallbackData(max 2) = flt_free_callback_data;
    FltReuseCallbackData(max 2) = flt_reuse_callback_data;
    FltPerformSynchronousIo(max 1) = flt_perform_synchronous_io;
    FltPerformAsynchronousIo(max 1, fails RESOURCES) = flt_perform_asynchronous_io;
    FltReissueSynchronousIo(max 1) = flt_reissue_synchronous_io;
}

/// Callback data that drivers allocated and have not freed.
#[derive(Debug, Default)]
pub(crate) struct Allocated(Mutex<Vec<(Arc<Flight>, Origin)>>);

impl Allocated {
    /// What `driver` has not freed.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mine = |flight: &Flight| {
            flight.allocated.as_ref().is_some_and(|(owner, _)| std::ptr::eq(Arc::as_ptr(owner), driver))
        };
        let leak = |(flight, site): &(Arc<Flight>, Origin)| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!("FLT_CALLBACK_DATA at {:?}, allocated from {site}", flight.data()),
        };
        self.lock().iter().filter(|(flight, _)| mine(flight)).map(leak).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<Flight>, Origin)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

extern "efiapi" fn flt_set_callback_data_dirty(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let _checked = Flight::of(&call, data);
    let flags = field!(data, FLT_CALLBACK_DATA, Flags);
    flags.write(flags.read() | FltCallbackDataFlags::DIRTY.bits());
}

extern "efiapi" fn flt_clear_callback_data_dirty(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let _checked = Flight::of(&call, data);
    let flags = field!(data, FLT_CALLBACK_DATA, Flags);
    flags.write(flags.read() & !FltCallbackDataFlags::DIRTY.bits());
}

extern "efiapi" fn flt_is_callback_data_dirty(data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    let _checked = Flight::of(&call, data);
    BOOLEAN::from(field!(data, FLT_CALLBACK_DATA, Flags).read() & FltCallbackDataFlags::DIRTY.bits() != 0)
}

extern "efiapi" fn flt_allocate_callback_data(instance: usize, file: Raw<FILE_OBJECT>, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    allocate(&call, instance, file, out)
}

extern "efiapi" fn flt_allocate_callback_data_ex(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    flags: u32,
    out: Raw<usize>,
) -> NtStatus {
    const PREALLOCATE_ALL_MEMORY: u32 = 1;
    let call = Call::enter();
    if flags & !PREALLOCATE_ALL_MEMORY != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    allocate(&call, instance, file, out)
}

fn allocate(call: &Call, instance: usize, file: Raw<FILE_OBJECT>, out: Raw<usize>) -> NtStatus {
    let instance = object::instance(call, instance);
    let operation = Operation::new(Kind::Irp, 0, file.address(), KERNEL_MODE).generated();
    let stack = Some(Arc::clone(&instance.volume));
    let owner = Some((Arc::clone(call.driver()), Arc::clone(&instance)));
    let flight = Flight::new(call.machine(), stack, &operation, call.thread(), owner);
    field!(flight.block(), FLT_IO_PARAMETER_BLOCK, TargetInstance).write(Raw::at(instance.address).pointer());
    out.write(flight.data().address());
    call.machine().flt.allocated.lock().push((flight, Origin::of(call.site())));
    NtStatus::SUCCESS
}

/// Callback data that the calling driver allocated; stops on any other.
fn own(call: &Call, data: Raw<FLT_CALLBACK_DATA>) -> Arc<Flight> {
    let flight = Flight::of(call, data);
    let mine = flight.allocated.as_ref().is_some_and(|(driver, _)| Arc::ptr_eq(driver, call.driver()));
    if !mine {
        call.stop(Rule::BadArgument, "the callback data was not allocated with FltAllocateCallbackData by this driver");
    }
    flight
}

/// Stops while the operation is under way.
fn check_landed(call: &Call, flight: &Flight) {
    if flight.is_under_way() {
        call.stop(Rule::BadState, "the operation is under way: its completion routine has not been called");
    }
}

extern "efiapi" fn flt_free_callback_data(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let flight = own(&call, data);
    check_landed(&call, &flight);
    call.machine().flt.allocated.lock().retain(|(known, _)| !Arc::ptr_eq(known, &flight));
}

extern "efiapi" fn flt_reuse_callback_data(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let flight = own(&call, data);
    check_landed(&call, &flight);
    flight.reset();
    // The page: all but the target instance and the target file object.
    let block = flight.block();
    let before = block.read();
    block.write(FLT_IO_PARAMETER_BLOCK {
        IrpFlags: 0,
        MajorFunction: 0,
        MinorFunction: 0,
        OperationFlags: 0,
        Reserved: 0,
        Parameters: FLT_PARAMETERS::ZERO,
        ..before
    });
    field!(data, FLT_CALLBACK_DATA, IoStatus).write(IO_STATUS_BLOCK::new(NtStatus::SUCCESS, 0));
    let flags = FltCallbackDataFlags::IRP_OPERATION | FltCallbackDataFlags::GENERATED_IO;
    field!(data, FLT_CALLBACK_DATA, Flags).write(flags.bits());
}

/// Ready to start, and from where.
fn prepare(call: &Call, flight: &Arc<Flight>) -> Walk {
    check_landed(call, flight);
    let major = flight.major();
    if major > nt_types::IRP_MJ_PNP {
        call.stop(
            Rule::BadArgument,
            format!("a minifilter cannot start {}: only IRP-based operations", major::name(major)),
        );
    }
    if flight.is_complete() && flight.allocated.is_some() {
        call.stop(Rule::BadState, "the callback data was used: FltReuseCallbackData comes before its next use");
    }
    flight.reset();
    flight.depart();
    let (_, instance) = flight.allocated.as_ref().unwrap_or_else(|| unreachable!("`own` has checked"));
    Walk::on(&instance.volume, instance)
}

extern "efiapi" fn flt_perform_synchronous_io(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let flight = own(&call, data);
    let walk = prepare(&call, &flight);
    let outcome = stack::run_flight(call.thread(), &flight, walk);
    call.thread().leave_if_stopped();
    call.detail(outcome.0);
    call.bytes(outcome.1 as u64);
}

extern "efiapi" fn flt_perform_asynchronous_io(
    data: Raw<FLT_CALLBACK_DATA>,
    callback: PFLT_COMPLETED_ASYNC_IO_CALLBACK,
    context: PVOID,
) -> NtStatus {
    let call = Call::enter();
    let flight = own(&call, data);
    let Some(callback) = callback else { call.stop(Rule::BadArgument, "the completion routine is NULL") };
    let paging = serve::is_paging(&flight);
    if call.thread().irql() > 0 && !paging {
        call.stop(Rule::IrqlTooHigh, "above PASSIVE_LEVEL only paging I/O can be started");
    }
    let landing = completed(callback, context, call.driver());
    if flight.major() == major::CREATE {
        // The page: the routine is called even when the call fails.
        flight.set_outcome((NtStatus::FLT_INVALID_ASYNCHRONOUS_REQUEST, 0));
        landing(call.thread(), &flight);
        return NtStatus::FLT_INVALID_ASYNCHRONOUS_REQUEST;
    }
    let walk = prepare(&call, &flight);
    flight.on_landing(landing);
    let flown = stack::fly(call.thread(), &flight, walk);
    call.thread().leave_if_stopped();
    match flown {
        Flown::Parked => NtStatus::PENDING,
        Flown::Landed(_) if flight.was_completed_above() => NtStatus::FLT_IO_COMPLETE,
        Flown::Landed(_) | Flown::Broken => NtStatus::SUCCESS,
    }
}

/// The completion routine of an asynchronous operation, as a landing.
pub(super) fn completed(
    callback: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA, PVOID),
    context: PVOID,
    driver: &Arc<Driver>,
) -> super::flight::Landing {
    let driver = Arc::clone(driver);
    // An address: what it leads to is the driver's business.
    let context = Raw::of(context).address();
    Box::new(move |thread: &Thread, flight: &Arc<Flight>| {
        let data = flight.data().pointer();
        // A stop reaches whoever drives the machine.
        let _stopped = thread.call_driver(&driver, "CompletedAsyncIoCallback", thread.irql(), || {
            // SAFETY: the driver passed the function with this signature, for an operation of its own.
            unsafe { callback(data, Raw::at(context).pointer()) }
        });
    })
}

extern "efiapi" fn flt_reissue_synchronous_io(instance: usize, data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        call.stop(Rule::BadArgument, "only IRP-based operations can be reissued");
    }
    let in_post = flight.is_in(Stage::Post) && flight.last_instance() == instance.address;
    let again = flight.allocated.as_ref().is_some_and(|(_, own)| Arc::ptr_eq(own, &instance)) && flight.is_complete();
    if !in_post && !again {
        call.stop(
            Rule::BadState,
            "an operation is reissued in its post-operation callback, by the instance that has it",
        );
    }
    if in_post && !flight.is_synchronised() {
        call.stop(
            Rule::BadState,
            "only synchronized operations can be reissued: the pre-operation callback returns FLT_PREOP_SYNCHRONIZE",
        );
    }
    let file = Raw::<FILE_OBJECT>::at(flight.target());
    let cancelled = file
        .some()
        .is_some_and(|file| field!(file, FILE_OBJECT, Flags).read() & FileObjectFlags::FILE_OPEN_CANCELLED.bits() != 0);
    if flight.major() == major::CREATE && cancelled {
        flight.set_outcome((NtStatus::CANCELLED, 0));
        return;
    }
    let dirty = field!(data, FLT_CALLBACK_DATA, Flags).read() & FltCallbackDataFlags::DIRTY.bits() != 0;
    let outcome = stack::reissue(call.thread(), &flight, &instance, dirty);
    call.thread().leave_if_stopped();
    call.detail(outcome.0);
}
