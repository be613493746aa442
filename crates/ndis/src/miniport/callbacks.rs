//! The functions that NDIS calls: they turn raw arguments into types and pass on.

use core::ffi::c_void;

use nt_types::DRIVER_OBJECT;

use super::{AdapterHandle, Initializing, Miniport};
use crate::NdisStatus;
use crate::memory::NdisBox;
use crate::oid::OidRequest;
use crate::raw::{
    NDIS_HANDLE, NDIS_MINIPORT_INIT_PARAMETERS, NDIS_MINIPORT_PAUSE_PARAMETERS, NDIS_MINIPORT_RESTART_PARAMETERS,
    NDIS_OID_REQUEST, NDIS_SEND_COMPLETE_FLAGS_DISPATCH_LEVEL, NDIS_SEND_FLAGS_DISPATCH_LEVEL, NET_BUFFER_LIST,
    NdisMSendNetBufferListsComplete,
};

/// What `MiniportAdapterContext` points at: the driver's part, and the handle that completing sends takes.
struct Adapter<M> {
    device: M,
    handle: AdapterHandle,
}

/// The adapter behind a context pointer.
///
/// # Safety
/// `context` is what [`initialize`] registered for an `M`, and the adapter is not halted.
unsafe fn adapter<'a, M: Miniport>(context: NDIS_HANDLE) -> &'a Adapter<M> {
    // SAFETY: by the caller's contract the pointer is to a live adapter, of which only shared references exist until halt.
    unsafe { &*context.cast::<Adapter<M>>() }
}

/// `MiniportInitializeEx`.
pub(super) unsafe extern "efiapi" fn initialize<M: Miniport>(
    handle: NDIS_HANDLE,
    _driver_context: NDIS_HANDLE,
    _parameters: *mut NDIS_MINIPORT_INIT_PARAMETERS,
) -> NdisStatus {
    // NDIS waits for PENDING nowhere here, and NOT_RECOGNIZED and its like would look like success.
    match try_initialize::<M>(&Initializing::new(handle)) {
        Ok(()) => NdisStatus::SUCCESS,
        Err(status) if status.0 < 0 || status == NdisStatus::NOT_ACCEPTED => status,
        Err(_) => NdisStatus::FAILURE,
    }
}

/// Errors leave through `?`, so that the adapter's memory goes back on every one of them.
fn try_initialize<M: Miniport>(init: &Initializing<'_>) -> Result<(), NdisStatus> {
    let handle = init.handle();
    let mut adapter = NdisBox::new(handle, M::POOL_TAG, Adapter { device: M::create(init)?, handle })?;
    init.set_registration(adapter.as_ptr().cast(), &M::ATTRIBUTES)?;
    let attributes = adapter.device.start(init)?;
    if let Err(status) = init.set_general(&attributes) {
        adapter.device.halt(crate::raw::NdisHaltDeviceInitializationFailed);
        return Err(status);
    }
    // From here on NDIS owns the adapter; `halt` takes it back.
    let _context = adapter.into_raw();
    Ok(())
}

/// `MiniportHaltEx`.
pub(super) unsafe extern "efiapi" fn halt<M: Miniport>(context: NDIS_HANDLE, action: u32) {
    // SAFETY: NDIS passes the registered context, and calls this once, as the adapter's last callback.
    let adapter = unsafe { NdisBox::from_raw(context.cast::<Adapter<M>>()) };
    if let Some(mut adapter) = adapter {
        adapter.device.halt(action);
    }
}

/// `MiniportDriverUnload`.
pub(super) unsafe extern "efiapi" fn unload<M: Miniport>(_driver: *mut DRIVER_OBJECT) {
    M::driver().deregister();
}

/// `MiniportPause`.
pub(super) unsafe extern "efiapi" fn pause<M: Miniport>(
    context: NDIS_HANDLE,
    _parameters: *mut NDIS_MINIPORT_PAUSE_PARAMETERS,
) -> NdisStatus {
    // SAFETY: NDIS passes the registered context of a live adapter.
    unsafe { adapter::<M>(context) }.device.pause();
    NdisStatus::SUCCESS
}

/// `MiniportRestart`.
pub(super) unsafe extern "efiapi" fn restart<M: Miniport>(
    context: NDIS_HANDLE,
    _parameters: *mut NDIS_MINIPORT_RESTART_PARAMETERS,
) -> NdisStatus {
    // SAFETY: NDIS passes the registered context of a live adapter.
    match unsafe { adapter::<M>(context) }.device.restart() {
        Ok(()) => NdisStatus::SUCCESS,
        Err(status) if status.0 < 0 => status,
        Err(_) => NdisStatus::FAILURE,
    }
}

/// `MiniportOidRequest`.
pub(super) unsafe extern "efiapi" fn oid_request<M: Miniport>(
    context: NDIS_HANDLE,
    request: *mut NDIS_OID_REQUEST,
) -> NdisStatus {
    // SAFETY: NDIS hands a request to one miniport at a time, and keeps it valid until completion.
    let Some(mut request) = (unsafe { OidRequest::from_raw(request) }) else {
        return NdisStatus::INVALID_PARAMETER;
    };
    // SAFETY: NDIS passes the registered context of a live adapter.
    let adapter = unsafe { adapter::<M>(context) };
    match adapter.device.oid_request(&mut request) {
        // Nobody would ever complete it.
        NdisStatus::PENDING => NdisStatus::FAILURE,
        status => status,
    }
}

/// `MiniportSendNetBufferLists`: there is no data path, and every list goes back as failed at once.
pub(super) unsafe extern "efiapi" fn send<M: Miniport>(
    context: NDIS_HANDLE,
    lists: *mut NET_BUFFER_LIST,
    _port: u32,
    flags: u32,
) {
    let mut list = lists;
    while !list.is_null() {
        // SAFETY: NDIS gave us the chain; each link is a valid list that is ours until completion.
        unsafe { (*list).Status = NdisStatus::NOT_SUPPORTED };
        // SAFETY: as above.
        list = unsafe { (*list).Next };
    }
    let complete_flags =
        if flags & NDIS_SEND_FLAGS_DISPATCH_LEVEL == 0 { 0 } else { NDIS_SEND_COMPLETE_FLAGS_DISPATCH_LEVEL };
    // SAFETY: NDIS passes the registered context of a live adapter.
    let handle = unsafe { adapter::<M>(context) }.handle;
    // SAFETY: the chain is the one just received, completed once.
    unsafe { NdisMSendNetBufferListsComplete(handle.as_raw(), lists, complete_flags) };
}

/// `MiniportReturnNetBufferLists`: nothing was ever indicated, so that nothing comes back.
pub(super) unsafe extern "efiapi" fn return_net_buffer_lists(
    _context: NDIS_HANDLE,
    _lists: *mut NET_BUFFER_LIST,
    _flags: u32,
) {
}

/// `MiniportCancelSend` and `MiniportCancelOidRequest`: neither sends nor requests are ever kept, so that none can be cancelled.
pub(super) unsafe extern "efiapi" fn cancel(_context: NDIS_HANDLE, _id: *mut c_void) {}

/// `MiniportDevicePnPEventNotify`: surprise removal is followed by a halt, which does all there is to do.
pub(super) unsafe extern "efiapi" fn device_pnp_event(_context: NDIS_HANDLE, _event: *mut c_void) {}

/// `MiniportShutdownEx`.
pub(super) unsafe extern "efiapi" fn shutdown<M: Miniport>(context: NDIS_HANDLE, action: u32) {
    // SAFETY: NDIS passes the registered context of a live adapter.
    unsafe { adapter::<M>(context) }.device.shutdown(action);
}
