//! A miniport that does what the test at hand wants, and the exports as a driver would call them.
#![expect(non_upper_case_globals, reason = "matches on constants in the spelling of ndis.h")]

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use ndis::NdisStatus;
use ndis::raw::*;
use nt_types::{DRIVER_OBJECT, UNICODE_STRING};

use super::adapter::{Adapter, AdapterError};
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::ddi::{Export, Target};
use crate::finding::{Rule, Stopped};
use crate::machine::Machine;
use crate::nt::raw::{Raw, field};

mod adapter;
mod answers;
mod binding;
mod buffers;
mod buffers_data;
mod configuration;
mod data_path;
mod device;
mod events;
mod file;
mod filter;
mod filter_events;
mod filter_oid;
mod hardware;
mod lock;
mod names;
mod objects;
mod oid;
mod optional;
mod protocol;
mod protocol_oid;
mod registration;
mod reset;
mod status;

type Hook<A> = Mutex<Option<Arc<dyn Fn(A) -> NdisStatus + Send + Sync>>>;

/// What the miniport of one test does. Its address is the miniport's context, so that every thread finds it.
struct Script {
    /// Runs after the attributes are set; gets the adapter's handle.
    initialize: Hook<usize>,
    oid: Hook<usize>,
    direct_oid: Hook<usize>,
    cancel: Hook<usize>,
    pause: Hook<usize>,
    reset: Hook<usize>,
    halt: Hook<usize>,
    /// Gets the first list.
    send: Hook<usize>,
    /// Gets the first list.
    give_back: Hook<usize>,
    restart: Cell<NdisStatus>,
    hangs: Cell<bool>,
    sets_attributes: Cell<bool>,
    /// The adapter that was initialised last.
    adapter: Cell<usize>,
    /// Callbacks as they came.
    seen: Mutex<Vec<&'static str>>,
}

// SAFETY: the cells are set by the test's own thread before anything runs on another.
unsafe impl Sync for Script {}

impl Script {
    fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            initialize: Mutex::default(),
            oid: Mutex::default(),
            direct_oid: Mutex::default(),
            cancel: Mutex::default(),
            pause: Mutex::default(),
            reset: Mutex::default(),
            halt: Mutex::default(),
            send: Mutex::default(),
            give_back: Mutex::default(),
            restart: Cell::new(NdisStatus::SUCCESS),
            hangs: Cell::new(false),
            sets_attributes: Cell::new(true),
            adapter: Cell::new(0),
            seen: Mutex::default(),
        }))
    }

    fn at(context: NDIS_HANDLE) -> &'static Self {
        assert!(!context.is_null(), "the context of the registration, or of the attributes");
        // SAFETY: the machine passes back what the test registered, which is never freed.
        unsafe { &*context.cast_const().cast() }
    }

    fn address(&'static self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }

    fn saw(&self, callback: &'static str) {
        self.seen.lock().unwrap().push(callback);
    }
}

/// Calls a hook, without a lock that a stop would leave locked; `or` where there is none.
fn run<A>(hook: &Hook<A>, argument: A, or: NdisStatus) -> NdisStatus {
    let hook = hook.lock().unwrap().clone();
    hook.map_or(or, |hook| hook(argument))
}

thread_local! {
    /// The script of the test on this thread.
    static SCRIPT: Cell<Option<&'static Script>> = const { Cell::new(None) };
}

fn script() -> &'static Script {
    SCRIPT.get().expect("a test makes a Nic first")
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
    context: NDIS_HANDLE,
    parameters: *mut NDIS_MINIPORT_INIT_PARAMETERS,
) -> NdisStatus {
    let script = Script::at(context);
    script.saw("initialize");
    script.adapter.set(handle.addr());
    // SAFETY: the machine passes valid parameters.
    assert_eq!(unsafe { (*parameters).Header.Size }, 64);
    if script.sets_attributes.get() {
        assert_eq!(set_registration(handle.addr(), 1), NdisStatus::SUCCESS);
        assert_eq!(set_general(handle.addr(), 2), NdisStatus::SUCCESS);
    }
    run(&script.initialize, handle.addr(), NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn halt(context: NDIS_HANDLE, _: u32) {
    Script::at(context).saw("halt");
    let _ = run(&Script::at(context).halt, 0, NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn unload(_: *mut DRIVER_OBJECT) {
    script().saw("unload");
    call_ddi!("NdisMDeregisterMiniportDriver", fn(usize), REGISTERED.get());
}

unsafe extern "efiapi" fn pause(context: NDIS_HANDLE, parameters: *mut NDIS_MINIPORT_PAUSE_PARAMETERS) -> NdisStatus {
    Script::at(context).saw("pause");
    // SAFETY: the machine passes valid parameters.
    run(&Script::at(context).pause, unsafe { (*parameters).PauseReason } as usize, NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn restart(context: NDIS_HANDLE, _: *mut NDIS_MINIPORT_RESTART_PARAMETERS) -> NdisStatus {
    Script::at(context).saw("restart");
    Script::at(context).restart.get()
}

unsafe extern "efiapi" fn oid_request(context: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST) -> NdisStatus {
    run(&Script::at(context).oid, request.expose_provenance(), NdisStatus::NOT_SUPPORTED)
}

unsafe extern "efiapi" fn direct_oid_request(context: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST) -> NdisStatus {
    run(&Script::at(context).direct_oid, request.expose_provenance(), NdisStatus::NOT_SUPPORTED)
}

unsafe extern "efiapi" fn cancel_oid(context: NDIS_HANDLE, id: *mut c_void) {
    Script::at(context).saw("cancel");
    let _ = run(&Script::at(context).cancel, id.addr(), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn check_for_hang(context: NDIS_HANDLE) -> u8 {
    u8::from(Script::at(context).hangs.get())
}

unsafe extern "efiapi" fn reset(context: NDIS_HANDLE, addressing: *mut u8) -> NdisStatus {
    Script::at(context).saw("reset");
    run(&Script::at(context).reset, addressing.expose_provenance(), NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn send(context: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, _: u32, _: u32) {
    Script::at(context).saw("send");
    let _ = run(&Script::at(context).send, list.expose_provenance(), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn give_back(context: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, _: u32) {
    Script::at(context).saw("return");
    let _ = run(&Script::at(context).give_back, list.expose_provenance(), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn cancel_send(context: NDIS_HANDLE, _: *mut c_void) {
    Script::at(context).saw("cancel send");
}
unsafe extern "efiapi" fn pnp_event(context: NDIS_HANDLE, event: *mut c_void) {
    let event = Raw::of(event.cast::<NET_DEVICE_PNP_EVENT>()).read();
    assert_eq!(event.Header.Size, NDIS_SIZEOF_NET_DEVICE_PNP_EVENT_REVISION_1);
    Script::at(context).saw(match event.DevicePnPEvent {
        NdisDevicePnPEventSurpriseRemoved => "surprise removal",
        NdisDevicePnPEventPowerProfileChanged => "power profile",
        other => panic!("event {other}"),
    });
}
unsafe extern "efiapi" fn shutdown(context: NDIS_HANDLE, _: u32) {
    Script::at(context).saw("shutdown");
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
        CancelSendHandler: Some(cancel_send),
        CheckForHangHandlerEx: None,
        ResetHandlerEx: None,
        DevicePnPEventNotifyHandler: Some(pnp_event),
        ShutdownHandlerEx: Some(shutdown),
        CancelOidRequestHandler: Some(cancel_oid),
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
        script().address(),
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
        MiniportAdapterContext: Raw::at(script().address()).pointer(),
        AttributeFlags: 0,
        CheckForHangTimeInSeconds: 0,
        InterfaceType: NdisInterfaceInternal,
    };
    set_attributes(handle, (&raw const attributes).cast())
}

fn set_general(handle: usize, revision: u8) -> NdisStatus {
    static OIDS: [u32; 1] = [OID_GEN_STATISTICS];
    // SAFETY: all-zero bytes are valid attributes.
    let mut attributes: NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES = unsafe { std::mem::zeroed() };
    attributes.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, revision, 224);
    attributes.MacAddressLength = 6;
    attributes.CurrentMacAddress[0] = 2;
    attributes.MtuSize = 1500;
    attributes.LookaheadSize = 128;
    attributes.MacOptions = 9;
    attributes.PhysicalMediumType = 14;
    attributes.MediaConnectState = MediaConnectStateConnected;
    OIDS.as_ptr().expose_provenance();
    attributes.SupportedOidList = OIDS.as_ptr().cast_mut();
    attributes.SupportedOidListLength = 4;
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
        SCRIPT.set(Some(Script::new()));
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

    /// A NIC whose miniport is registered with changed characteristics.
    fn with(change: impl FnOnce(&mut NDIS_MINIPORT_DRIVER_CHARACTERISTICS)) -> Self {
        let nic = Self::unregistered();
        let mut changed = characteristics();
        change(&mut changed);
        assert_eq!(nic.bench.run(|| register(&changed)).unwrap(), NdisStatus::SUCCESS);
        nic
    }

    /// A NIC that can be reset.
    fn resettable() -> Self {
        Self::with(|c| {
            c.CheckForHangHandlerEx = Some(check_for_hang);
            c.ResetHandlerEx = Some(reset);
        })
    }

    fn on_initialize(&self, hook: impl Fn(usize) -> NdisStatus + Send + Sync + 'static) -> &Self {
        *script().initialize.lock().unwrap() = Some(Arc::new(hook));
        self
    }

    fn on_oid(&self, hook: impl Fn(usize) -> NdisStatus + Send + Sync + 'static) -> &Self {
        *script().oid.lock().unwrap() = Some(Arc::new(hook));
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
    std::mem::take(&mut script().seen.lock().unwrap())
}
