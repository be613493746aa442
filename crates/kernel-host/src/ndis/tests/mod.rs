//! A miniport that does what the test at hand wants, and the exports as a driver would call them.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use ndis::NdisStatus;
use ndis::raw::*;
use nt_types::{DRIVER_OBJECT, UNICODE_STRING};

use super::adapter::{Adapter, AdapterError};
use crate::ddi::testing::Bench;
use crate::ddi::{Export, Target};
use crate::finding::{Rule, Stopped};
use crate::machine::Machine;
use crate::nt::raw::Raw;

mod adapter;
mod configuration;
mod file;
mod oid;
mod registration;

type Hook<A> = Option<Box<dyn Fn(A) -> NdisStatus>>;

thread_local! {
    /// What the miniport does after it set its attributes; gets the adapter's handle.
    static INITIALIZE: RefCell<Hook<usize>> = const { RefCell::new(None) };
    static OID: RefCell<Hook<usize>> = const { RefCell::new(None) };
    static RESTART: Cell<NdisStatus> = const { Cell::new(NdisStatus::SUCCESS) };
    static SETS_ATTRIBUTES: Cell<bool> = const { Cell::new(true) };
    /// Callbacks as they came.
    static SEEN: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// What the miniport registers as its context.
const CONTEXT: usize = 0x5150;

fn seen(callback: &'static str) {
    SEEN.with_borrow_mut(|seen| seen.push(callback));
}

/// A DDI by name, as an import would be bound.
fn ddi(name: &str) -> *const () {
    match super::exports().find(|export| export.name == name).map(|export| export.target) {
        Some(Target::Function(function)) => function,
        _ => panic!("{name} is not exported"),
    }
}

fn export(name: &str) -> &'static Export {
    super::exports().find(|export| export.name == name).unwrap()
}

/// `call_ddi!("NdisCloseFile", fn(usize), handle)`
macro_rules! call_ddi {
    ($name:literal, fn($($type:ty),*) $(-> $result:ty)? $(, $argument:expr)*) => {{
        // SAFETY: the signature is that of the DDI's page.
        let function: extern "efiapi" fn($($type),*) $(-> $result)? = unsafe { std::mem::transmute(ddi($name)) };
        function($($argument),*)
    }};
}
use call_ddi;

unsafe extern "efiapi" fn initialize(
    handle: NDIS_HANDLE,
    _: NDIS_HANDLE,
    parameters: *mut NDIS_MINIPORT_INIT_PARAMETERS,
) -> NdisStatus {
    seen("initialize");
    // SAFETY: the machine passes valid parameters.
    assert_eq!(unsafe { (*parameters).Header.Size }, 64);
    if SETS_ATTRIBUTES.get() {
        assert_eq!(set_registration(handle.addr(), 1), NdisStatus::SUCCESS);
        assert_eq!(set_general(handle.addr(), 2), NdisStatus::SUCCESS);
    }
    INITIALIZE.with_borrow(|hook| hook.as_ref().map_or(NdisStatus::SUCCESS, |hook| hook(handle.addr())))
}

unsafe extern "efiapi" fn halt(context: NDIS_HANDLE, _: u32) {
    assert_eq!(context.addr(), CONTEXT);
    seen("halt");
}

unsafe extern "efiapi" fn unload(_: *mut DRIVER_OBJECT) {
    seen("unload");
    call_ddi!("NdisMDeregisterMiniportDriver", fn(usize), REGISTERED.get());
}

unsafe extern "efiapi" fn pause(_: NDIS_HANDLE, _: *mut NDIS_MINIPORT_PAUSE_PARAMETERS) -> NdisStatus {
    seen("pause");
    NdisStatus::SUCCESS
}

unsafe extern "efiapi" fn restart(_: NDIS_HANDLE, _: *mut NDIS_MINIPORT_RESTART_PARAMETERS) -> NdisStatus {
    seen("restart");
    RESTART.get()
}

unsafe extern "efiapi" fn oid_request(context: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST) -> NdisStatus {
    assert_eq!(context.addr(), CONTEXT);
    OID.with_borrow(|hook| hook.as_ref().map_or(NdisStatus::NOT_SUPPORTED, |hook| hook(request.addr())))
}

unsafe extern "efiapi" fn send(_: NDIS_HANDLE, _: *mut NET_BUFFER_LIST, _: u32, _: u32) {}
unsafe extern "efiapi" fn give_back(_: NDIS_HANDLE, _: *mut NET_BUFFER_LIST, _: u32) {}
unsafe extern "efiapi" fn cancel(_: NDIS_HANDLE, _: *mut c_void) {}
unsafe extern "efiapi" fn pnp_event(_: NDIS_HANDLE, _: *mut c_void) {
    seen("pnp event");
}
unsafe extern "efiapi" fn shutdown(_: NDIS_HANDLE, _: u32) {
    seen("shutdown");
}

/// Characteristics that NDIS accepts.
fn characteristics() -> NDIS_MINIPORT_DRIVER_CHARACTERISTICS {
    NDIS_MINIPORT_DRIVER_CHARACTERISTICS {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS, 2, 152),
        MajorNdisVersion: 6,
        MinorNdisVersion: 30,
        MajorDriverVersion: 1,
        MinorDriverVersion: 0,
        Flags: 0,
        SetOptionsHandler: None,
        InitializeHandlerEx: Some(initialize),
        HaltHandlerEx: Some(halt),
        UnloadHandler: Some(unload),
        PauseHandler: Some(pause),
        RestartHandler: Some(restart),
        OidRequestHandler: Some(oid_request),
        SendNetBufferListsHandler: Some(send),
        ReturnNetBufferListsHandler: Some(give_back),
        CancelSendHandler: Some(cancel),
        CheckForHangHandlerEx: None,
        ResetHandlerEx: None,
        DevicePnPEventNotifyHandler: Some(pnp_event),
        ShutdownHandlerEx: Some(shutdown),
        CancelOidRequestHandler: Some(cancel),
        DirectOidRequestHandler: None,
        CancelDirectOidRequestHandler: None,
        SynchronousOidRequestHandler: None,
    }
}

thread_local! {
    static REGISTERED: Cell<usize> = const { Cell::new(0) };
    /// One per test, which has a thread of its own.
    static DRIVER_OBJECT_ADDRESS: usize = {
        // SAFETY: all-zero bytes are a valid driver object: every routine is absent.
        let object: DRIVER_OBJECT = unsafe { std::mem::zeroed() };
        Box::into_raw(Box::new(object)).expose_provenance()
    };
}

fn driver_object() -> usize {
    DRIVER_OBJECT_ADDRESS.with(|address| *address)
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn register(characteristics: &NDIS_MINIPORT_DRIVER_CHARACTERISTICS) -> NdisStatus {
    let path = wide(r"\Registry\Machine\System\CurrentControlSet\Services\testnic");
    let path = UNICODE_STRING::from_utf16(&path).unwrap();
    let mut handle = 0;
    let status = call_ddi!(
        "NdisMRegisterMiniportDriver",
        fn(usize, &UNICODE_STRING, usize, &NDIS_MINIPORT_DRIVER_CHARACTERISTICS, &mut usize) -> NdisStatus,
        driver_object(),
        &path,
        0,
        characteristics,
        &mut handle
    );
    if status == NdisStatus::SUCCESS {
        REGISTERED.set(handle);
    }
    status
}

fn set_registration(handle: usize, revision: u8) -> NdisStatus {
    let attributes = NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES, revision, 28),
        MiniportAdapterContext: Raw::at(CONTEXT).pointer(),
        AttributeFlags: 0,
        CheckForHangTimeInSeconds: 0,
        InterfaceType: NdisInterfaceInternal,
    };
    set_attributes(handle, (&raw const attributes).cast())
}

fn set_general(handle: usize, revision: u8) -> NdisStatus {
    // SAFETY: all-zero bytes are valid attributes.
    let mut attributes: NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES = unsafe { std::mem::zeroed() };
    attributes.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, revision, 224);
    attributes.MacAddressLength = 6;
    attributes.CurrentMacAddress[0] = 2;
    set_attributes(handle, (&raw const attributes).cast())
}

fn set_attributes(handle: usize, attributes: *const c_void) -> NdisStatus {
    call_ddi!("NdisMSetMiniportAttributes", fn(usize, *const c_void) -> NdisStatus, handle, attributes)
}

/// A machine with volume C: in a temporary folder, and the miniport registered.
struct Nic {
    bench: Bench,
    folder: tempfile::TempDir,
}

impl Nic {
    fn new() -> Self {
        let nic = Self::unregistered();
        assert_eq!(nic.bench.run(|| register(&characteristics())).unwrap(), NdisStatus::SUCCESS);
        nic
    }

    fn unregistered() -> Self {
        INITIALIZE.set(None);
        OID.set(None);
        RESTART.set(NdisStatus::SUCCESS);
        SETS_ATTRIBUTES.set(true);
        SEEN.set(Vec::new());
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("Windows/System32/drivers")).unwrap();
        let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
        bench.enter(|thread| {
            if thread.machine().fs.volumes().is_empty() {
                crate::fs::mount(thread.machine(), "C:", folder.path()).unwrap();
            }
        });
        Self { bench, folder }
    }

    fn on_initialize(&self, hook: impl Fn(usize) -> NdisStatus + 'static) -> &Self {
        INITIALIZE.set(Some(Box::new(hook)));
        self
    }

    fn on_oid(&self, hook: impl Fn(usize) -> NdisStatus + 'static) -> &Self {
        OID.set(Some(Box::new(hook)));
        self
    }

    fn add(&self) -> Result<Adapter, AdapterError> {
        self.bench.machine().add_adapter("testnic", "Ethernet", &[("FirmwareName", "nic.bin"), ("*FlowControl", "3")])
    }

    /// Puts a file where `NdisOpenFile` looks.
    fn driver_file(&self, name: &str, contents: &[u8]) {
        std::fs::write(self.folder.path().join("Windows/System32/drivers").join(name), contents).unwrap();
    }

    fn leaks(&self) -> usize {
        use crate::leak::LeakSource;
        self.bench.machine().inner().ndis.leaks(self.bench.driver()).len()
    }
}

fn rule<T: std::fmt::Debug>(result: Result<T, AdapterError>) -> Rule {
    match result.unwrap_err() {
        AdapterError::Stopped(Stopped(finding)) => finding.rule,
        AdapterError::Status(status) => panic!("{status} instead of a finding"),
    }
}

fn status<T: std::fmt::Debug>(result: Result<T, AdapterError>) -> NdisStatus {
    result.unwrap_err().status().expect("no finding")
}

fn callbacks() -> Vec<&'static str> {
    SEEN.take()
}
