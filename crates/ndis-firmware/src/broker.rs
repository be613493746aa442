//! Finding the broker and fetching its table.

use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::{self, NonNull};

use nt_types::{NtStatus, UNICODE_STRING, utf16};
use wdk_sys::ntddk::{
    ExAllocatePool2, ExFreePool, IoBuildDeviceIoControlRequest, IoGetDeviceObjectPointer, IofCallDriver,
    KeInitializeEvent, KeWaitForSingleObject, ObfDereferenceObject,
};

use crate::interface::{
    FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1, FWBROKER_QUERY_INTERFACE, IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE,
};
use crate::table::Table;

/// Pool tag of the exchange with the broker: `FwCl`.
const TAG: u32 = u32::from_le_bytes(*b"FwCl");

/// `POOL_FLAG_NON_PAGED`.
const POOL_FLAG_NON_PAGED: u64 = 0x40;

/// `FILE_READ_DATA`: all that the device asks of its openers.
const FILE_READ_DATA: u32 = 1;

/// How long the broker may take to answer, in units of 100 ns, relative: 5 seconds. It has nothing to wait for.
const DEADLINE: i64 = -50_000_000;

/// A connection to the broker. Field order matters: the table goes back before the file object that keeps the broker loaded.
pub struct Broker {
    table: Table,
    _device: DeviceReference,
}

impl Broker {
    /// Connects as `consumer` (the driver's service name, UTF-16 without NUL). `PASSIVE_LEVEL`, kernel APCs enabled.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND` when the broker is not loaded; what [`IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE`] documents;
    /// `STATUS_IO_TIMEOUT`; `STATUS_INSUFFICIENT_RESOURCES`; `STATUS_REVISION_MISMATCH` for a broker that speaks another version.
    pub fn connect(consumer: &[u16]) -> Result<Self, NtStatus> {
        let (device, target) = DeviceReference::open()?;
        let table = query(target, consumer)?;
        Ok(Self { table, _device: device })
    }

    /// The broker's functions.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }
}

/// A reference to the file object that `IoGetDeviceObjectPointer` opened.
struct DeviceReference(NonNull<c_void>);

// SAFETY: a counted reference; it is only given back, on any thread.
unsafe impl Send for DeviceReference {}
// SAFETY: as above.
unsafe impl Sync for DeviceReference {}

impl DeviceReference {
    /// Opens the broker's device; also returns the device object at the top of its stack, which the reference keeps alive.
    fn open() -> Result<(Self, wdk_sys::PDEVICE_OBJECT), NtStatus> {
        let name = UNICODE_STRING::from_utf16(utf16!(r"\Device\FwBroker")).ok_or(NtStatus::OBJECT_NAME_INVALID)?;
        let mut file: wdk_sys::PFILE_OBJECT = ptr::null_mut();
        let mut device: wdk_sys::PDEVICE_OBJECT = ptr::null_mut();
        // SAFETY: the string and the two cells outlive the call; the layouts of both UNICODE_STRINGs are the same.
        let status = unsafe {
            IoGetDeviceObjectPointer(
                (&raw const name).cast_mut().cast(),
                FILE_READ_DATA,
                &raw mut file,
                &raw mut device,
            )
        };
        NtStatus(status).ok()?;
        let reference = NonNull::new(file.cast()).ok_or(NtStatus::NO_SUCH_DEVICE)?;
        Ok((Self(reference), device))
    }
}

impl Drop for DeviceReference {
    fn drop(&mut self) {
        // SAFETY: the reference that IoGetDeviceObjectPointer gave, given back once. The previous count is of no interest.
        let _ = unsafe { ObfDereferenceObject(self.0.as_ptr()) };
    }
}

/// Everything that the I/O manager and the broker write to while the request is under way.
#[repr(C)]
struct Exchange {
    event: wdk_sys::KEVENT,
    status: wdk_sys::IO_STATUS_BLOCK,
    request: FWBROKER_QUERY_INTERFACE,
    reply: FWBROKER_INTERFACE,
}

/// The exchange lives in pool, not on the stack: should the broker, against its contract, let the deadline pass, the request stays under way
/// and the memory is abandoned to it rather than pulled from under it.
struct ExchangeMemory(NonNull<Exchange>);

impl ExchangeMemory {
    fn new() -> Result<Self, NtStatus> {
        // SAFETY: non-paged, zeroed, and tagged; IRQL is PASSIVE_LEVEL.
        let memory = unsafe { ExAllocatePool2(POOL_FLAG_NON_PAGED, size_of::<Exchange>() as u64, TAG) };
        NonNull::new(memory.cast()).map(Self).ok_or(NtStatus::INSUFFICIENT_RESOURCES)
    }
}

impl Drop for ExchangeMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once, and no request uses it any more (see `query`).
        unsafe { ExFreePool(self.0.as_ptr().cast()) };
    }
}

/// Sends the request and waits for its end.
fn query(target: wdk_sys::PDEVICE_OBJECT, consumer: &[u16]) -> Result<Table, NtStatus> {
    let consumer = UNICODE_STRING::from_utf16(consumer).ok_or(NtStatus::INVALID_PARAMETER)?;
    let memory = ExchangeMemory::new()?;
    let exchange = memory.0.as_ptr();
    let event: wdk_sys::PKEVENT = exchange.wrapping_byte_add(offset_of!(Exchange, event)).cast();
    let status_block: wdk_sys::PIO_STATUS_BLOCK = exchange.wrapping_byte_add(offset_of!(Exchange, status)).cast();
    let request: *mut FWBROKER_QUERY_INTERFACE = exchange.wrapping_byte_add(offset_of!(Exchange, request)).cast();
    let reply: *mut FWBROKER_INTERFACE = exchange.wrapping_byte_add(offset_of!(Exchange, reply)).cast();
    let question = FWBROKER_QUERY_INTERFACE {
        Size: size_of::<FWBROKER_QUERY_INTERFACE>() as u16,
        Version: FWBROKER_INTERFACE_VERSION_1,
        Flags: 0,
        Consumer: consumer,
    };
    // SAFETY: a field of the exchange, which is ours alone so far.
    unsafe { request.write(question) };
    // SAFETY: the event is ours and unused; notification type, not signalled.
    unsafe { KeInitializeEvent(event, wdk_sys::_EVENT_TYPE::NotificationEvent, 0) };
    // SAFETY: all pointers lie in the exchange, which outlives the request; the device is kept alive by the caller's reference.
    let irp = unsafe {
        IoBuildDeviceIoControlRequest(
            IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE,
            target,
            request.cast(),
            size_of::<FWBROKER_QUERY_INTERFACE>() as u32,
            reply.cast(),
            size_of::<FWBROKER_INTERFACE>() as u32,
            1, // internal: no process in user mode can send this
            event,
            status_block,
        )
    };
    if irp.is_null() {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    }
    // SAFETY: a fresh request for this device, given away here.
    let mut status = NtStatus(unsafe { IofCallDriver(target, irp) });
    if status == NtStatus::PENDING {
        if !wait(event) {
            core::mem::forget(memory);
            return Err(NtStatus::IO_TIMEOUT);
        }
        // SAFETY: the event says that the I/O manager has written the block.
        let block = unsafe { status_block.read() };
        // SAFETY: a completed request leaves its status in the union.
        status = NtStatus(unsafe { block.__bindgen_anon_1.Status });
    }
    if status != NtStatus::SUCCESS {
        return Err(if status.is_success() { NtStatus::UNSUCCESSFUL } else { status });
    }
    // SAFETY: the request is complete, and zeroed memory is a valid (empty) table where the broker wrote nothing.
    let reply = unsafe { reply.read() };
    // SAFETY: the broker filled the table, and stays loaded while the caller's file object is referenced.
    unsafe { Table::from_interface(&reply) }
}

/// True when the event was signalled before the deadline.
fn wait(event: wdk_sys::PKEVENT) -> bool {
    let mut deadline = wdk_sys::LARGE_INTEGER { QuadPart: DEADLINE };
    // SAFETY: the event is initialised, and kernel mode keeps what a wait needs of the stack in memory.
    let status = unsafe {
        KeWaitForSingleObject(
            event.cast(),
            wdk_sys::_KWAIT_REASON::Executive,
            wdk_sys::_MODE::KernelMode as i8,
            0,
            &raw mut deadline,
        )
    };
    NtStatus(status) == NtStatus::SUCCESS
}
