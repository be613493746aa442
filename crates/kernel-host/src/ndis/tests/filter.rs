//! A filter that does what the test at hand wants, and its life: attach, pause, restart, detach.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::protocol::Talk;
use super::*;
use crate::ndis::filter::FilterState;
use crate::nt::hive::Value;

pub(super) const GUID: &str = "{5cbf81bd-5055-47cd-9055-a76b2b4e3697}";

/// What the filter of one test does. Its address is the context of the driver and of its modules.
pub(super) struct Sieve {
    /// Gets the module's handle; sets the attributes where there is no hook.
    pub(super) attach: Hook<usize>,
    pub(super) detach: Hook<()>,
    pub(super) pause: Hook<()>,
    pub(super) restart: Hook<()>,
    pub(super) options: Hook<()>,
    /// Gets the request.
    pub(super) oid: Hook<usize>,
    /// Gets the request and its status.
    pub(super) complete: Hook<(usize, NdisStatus)>,
    pub(super) cancel: Hook<usize>,
    /// Gets the indication; passes it on where there is no hook.
    pub(super) status: Hook<usize>,
    pub(super) handle: AtomicUsize,
    pub(super) module: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

thread_local! {
    static SIEVE: Cell<Option<&'static Sieve>> = const { Cell::new(None) };
}

pub(super) fn sieve() -> &'static Sieve {
    SIEVE.get().expect("a test makes a filter first")
}

/// Makes a filter that of this thread.
pub(super) fn adopt(of: &'static Sieve) {
    SIEVE.set(Some(of));
}

impl Sieve {
    fn at(context: NDIS_HANDLE) -> &'static Self {
        assert!(!context.is_null(), "the context of the filter driver, or of the module");
        // SAFETY: the machine passes back what the test registered, which is never freed.
        unsafe { &*context.cast_const().cast() }
    }

    pub(super) fn address(&'static self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }

    pub(super) fn module(&self) -> usize {
        self.module.load(Ordering::Acquire)
    }

    pub(super) fn saw(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    pub(super) fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub(super) fn set_attributes(&'static self, module: usize) -> NdisStatus {
        let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_FILTER_ATTRIBUTES, 1, 8);
        let attributes = NDIS_FILTER_ATTRIBUTES { Header: header, Flags: 0 };
        call_ddi!(
            "NdisFSetAttributes",
            fn(usize, usize, &NDIS_FILTER_ATTRIBUTES) -> NdisStatus,
            module,
            self.address(),
            &attributes
        )
    }
}

pub(super) fn on<A>(hook: &Hook<A>, body: impl Fn(A) -> NdisStatus + Send + Sync + 'static) {
    *hook.lock().unwrap() = Some(Arc::new(body));
}

unsafe extern "efiapi" fn attach(
    handle: NDIS_HANDLE,
    context: NDIS_HANDLE,
    parameters: *mut NDIS_FILTER_ATTACH_PARAMETERS,
) -> NdisStatus {
    let sieve = Sieve::at(context);
    let parameters = Raw::of(parameters).read();
    assert_eq!((parameters.Header.Revision, parameters.MacAddressLength), (4, 6));
    sieve.saw("attach");
    sieve.module.store(handle.addr(), Ordering::Release);
    let hook = sieve.attach.lock().unwrap().clone();
    hook.map_or_else(|| sieve.set_attributes(handle.addr()), |hook| hook(handle.addr()))
}

unsafe extern "efiapi" fn detach(context: NDIS_HANDLE) {
    Sieve::at(context).saw("detach");
    let _ = run(&Sieve::at(context).detach, (), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn pause(context: NDIS_HANDLE, parameters: *mut NDIS_FILTER_PAUSE_PARAMETERS) -> NdisStatus {
    assert_eq!(Raw::of(parameters).read().Header.Type, NDIS_OBJECT_TYPE_FILTER_PAUSE_PARAMETERS);
    Sieve::at(context).saw("pause");
    run(&Sieve::at(context).pause, (), NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn restart(context: NDIS_HANDLE, parameters: *mut NDIS_FILTER_RESTART_PARAMETERS) -> NdisStatus {
    assert_eq!(Raw::of(parameters).read().Header.Size, 44);
    Sieve::at(context).saw("restart");
    run(&Sieve::at(context).restart, (), NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn set_module_options(context: NDIS_HANDLE) -> NdisStatus {
    Sieve::at(context).saw("options");
    run(&Sieve::at(context).options, (), NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn oid_request(context: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST) -> NdisStatus {
    Sieve::at(context).saw("request");
    run(&Sieve::at(context).oid, request.expose_provenance(), NdisStatus::NOT_SUPPORTED)
}

unsafe extern "efiapi" fn oid_complete(context: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST, status: NdisStatus) {
    Sieve::at(context).saw(format!("complete {}", status.name().unwrap_or("?")));
    let _ = run(&Sieve::at(context).complete, (request.expose_provenance(), status), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn cancel(context: NDIS_HANDLE, id: *mut c_void) {
    Sieve::at(context).saw("cancel");
    let _ = run(&Sieve::at(context).cancel, id.addr(), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn status_indication(context: NDIS_HANDLE, indication: *mut NDIS_STATUS_INDICATION) {
    let sieve = Sieve::at(context);
    sieve.saw(format!("status {}", Raw::of(indication).read().StatusCode.name().unwrap_or("?")));
    let hook = sieve.status.lock().unwrap().clone();
    let address = indication.expose_provenance();
    if let Some(hook) = hook {
        assert_eq!(hook(address), NdisStatus::SUCCESS);
    } else {
        call_ddi!("NdisFIndicateStatus", fn(usize, usize), sieve.module(), address);
    }
}

unsafe extern "efiapi" fn device_event(context: NDIS_HANDLE, event: *mut NET_DEVICE_PNP_EVENT) {
    Sieve::at(context).saw("device event");
    call_ddi!("NdisFDevicePnPEventNotify", fn(usize, usize), Sieve::at(context).module(), event.expose_provenance());
}

unsafe extern "efiapi" fn net_event(context: NDIS_HANDLE, event: *mut NET_PNP_EVENT_NOTIFICATION) -> NdisStatus {
    Sieve::at(context).saw(format!("event {}", Raw::of(event).read().NetPnPEvent.NetEvent));
    let (module, event) = (Sieve::at(context).module(), event.expose_provenance());
    call_ddi!("NdisFNetPnPEvent", fn(usize, usize) -> NdisStatus, module, event)
}

/// Registers the filter of this test.
pub(super) fn register_filter(change: impl FnOnce(&mut NDIS_FILTER_DRIVER_CHARACTERISTICS)) -> NdisStatus {
    let (friendly, unique, service) = (wide("A test's filter"), wide(GUID), wide("testlwf"));
    // SAFETY: all-zero bytes are valid characteristics: no callbacks, empty names.
    let mut of: NDIS_FILTER_DRIVER_CHARACTERISTICS = unsafe { std::mem::zeroed() };
    of.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_FILTER_DRIVER_CHARACTERISTICS, 2, 224);
    (of.MajorNdisVersion, of.MinorNdisVersion) = (6, 30);
    of.FriendlyName = UNICODE_STRING::from_utf16(&friendly).unwrap();
    of.UniqueName = UNICODE_STRING::from_utf16(&unique).unwrap();
    of.ServiceName = UNICODE_STRING::from_utf16(&service).unwrap();
    of.AttachHandler = Some(attach);
    of.DetachHandler = Some(detach);
    of.PauseHandler = Some(pause);
    of.RestartHandler = Some(restart);
    of.SetFilterModuleOptionsHandler = Some(set_module_options);
    of.OidRequestHandler = Some(oid_request);
    of.OidRequestCompleteHandler = Some(oid_complete);
    of.CancelOidRequestHandler = Some(cancel);
    of.StatusHandler = Some(status_indication);
    of.DevicePnPEventNotifyHandler = Some(device_event);
    of.NetPnPEventHandler = Some(net_event);
    change(&mut of);
    call_ddi!(
        "NdisFRegisterFilterDriver",
        fn(usize, usize, &NDIS_FILTER_DRIVER_CHARACTERISTICS, usize) -> NdisStatus,
        driver_object(),
        sieve().address(),
        &of,
        sieve().handle.as_ptr().expose_provenance()
    )
}

pub(super) fn deregister_filter() {
    call_ddi!("NdisFDeregisterFilterDriver", fn(usize), sieve().handle.load(Ordering::Acquire));
}

impl Nic {
    /// The filter of this test; not registered yet.
    #[expect(clippy::unused_self, reason = "the filter belongs to the machine of this NIC")]
    pub(super) fn sieve(&self) -> &'static Sieve {
        let sieve = Box::leak(Box::new(Sieve {
            attach: Mutex::default(),
            detach: Mutex::default(),
            pause: Mutex::default(),
            restart: Mutex::default(),
            options: Mutex::default(),
            oid: Mutex::default(),
            complete: Mutex::default(),
            cancel: Mutex::default(),
            status: Mutex::default(),
            handle: AtomicUsize::new(0),
            module: AtomicUsize::new(0),
            seen: Mutex::default(),
        }));
        SIEVE.set(Some(sieve));
        sieve
    }

    pub(super) fn register_filter(&self) -> NdisStatus {
        self.bench.run(|| register_filter(|_| {})).unwrap()
    }

    /// A NIC with an adapter, a bound protocol and an attached filter.
    pub(super) fn filtered() -> (Self, Adapter, &'static Talk, &'static Sieve) {
        let (nic, adapter, talk) = Self::bound();
        let sieve = nic.sieve();
        assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
        sieve.take_seen();
        talk.take_seen();
        callbacks();
        (nic, adapter, talk, sieve)
    }

    /// What the INF of the filter says of its run type.
    fn run_type(&self, value: u32) {
        let inner = self.bench.machine().inner();
        let defaults = inner.nt.hive().create(r"\Registry\Machine\Test\testlwf").unwrap();
        let (ndi, _) = defaults.create("Ndi").unwrap();
        ndi.set_value("FilterRunType", Value::dword(value)).unwrap();
        ndi.set_value("FilterClass", Value::text("compression")).unwrap();
        inner.ndis.set_device_defaults("testlwf", defaults);
    }
}

fn refused(change: impl FnOnce(&mut NDIS_FILTER_DRIVER_CHARACTERISTICS)) -> NdisStatus {
    let nic = Nic::new();
    nic.sieve();
    let status = nic.bench.run(|| register_filter(change)).unwrap();
    assert!(nic.bench.machine().filter_drivers().is_empty(), "a refused filter is not registered");
    status
}

#[test]
fn a_filter_needs_its_required_handlers_and_names() {
    conforms!(
        "ndis/nf-ndis-ndisfregisterfilterdriver.md",
        "An invalid member of the characteristics gives NDIS_STATUS_BAD_CHARACTERISTICS."
    );
    conforms!("ndis/ns-ndis-_ndis_filter_driver_characteristics.md", "UniqueName is a GUID in braces.");
    conforms!(
        "ndis/nc-ndis-filter_oid_request.md",
        "A filter that handles OID requests provides the completion function too."
    );
    assert_eq!(refused(|of| of.AttachHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|of| of.DetachHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|of| of.PauseHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|of| of.RestartHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|of| of.OidRequestCompleteHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|of| of.UniqueName = of.ServiceName), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|of| of.Header.Size = 100), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn a_filter_for_another_ndis_is_refused() {
    conforms!(
        "ndis/nf-ndis-ndisfregisterfilterdriver.md",
        "An invalid MajorNdisVersion gives NDIS_STATUS_BAD_VERSION."
    );
    assert_eq!(refused(|of| of.MajorNdisVersion = 5), NdisStatus::BAD_VERSION);
}

#[test]
fn a_filter_that_registers_is_attached_to_a_paused_stack_which_then_runs() {
    conforms!("ndis/nc-ndis-filter_attach.md", "After a successful FilterAttach the module is Paused.");
    conforms!("ndis/nc-ndis-filter_set_module_options.md", "FilterSetModuleOptions is called before FilterRestart.");
    conforms!(
        "docs:network/pausing-a-driver-stack.md",
        "NDIS pauses a stack before it inserts a filter module, and restarts it after."
    );
    let (nic, adapter, talk) = Nic::bound();
    let sieve = nic.sieve();
    talk.take_seen();
    callbacks();
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    assert_eq!(sieve.take_seen(), ["attach", "options", "restart"]);
    assert_eq!(callbacks(), ["pause", "restart"]);
    assert_eq!(talk.take_seen(), ["pause event", "restart event"]);
    let module = adapter.filters().pop().unwrap();
    assert_eq!((module.filter.as_str(), module.state), ("testlwf", FilterState::Running));
    assert!(module.name.ends_with(&format!("-{GUID}-0000")), "{}", module.name);
}

#[test]
fn an_adapter_that_comes_later_gets_the_filter_before_its_protocols() {
    conforms!(
        "docs:network/starting-a-driver-stack.md",
        "Filters are attached after the miniport is initialised and before protocols bind."
    );
    let nic = Nic::new();
    let (sieve, talk) = (nic.sieve(), nic.talk());
    assert_eq!(nic.register_protocol().unwrap(), NdisStatus::SUCCESS);
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    talk.on_bind(|(context, parameters)| {
        sieve_saw_bind();
        protocol::current().open(context, parameters)
    });
    let adapter = nic.add().unwrap();
    assert_eq!(sieve.take_seen()[..2], ["attach", "bind"]);
    assert_eq!(adapter.filters().len(), 1);
}

fn sieve_saw_bind() {
    sieve().saw("bind");
}

#[test]
fn a_stack_is_paused_from_above_and_restarted_from_below() {
    conforms!(
        "docs:network/pausing-a-driver-stack.md",
        "The bindings are paused first, then the filters, then the miniport."
    );
    let (_nic, adapter, talk, sieve) = Nic::filtered();
    let order: &'static Mutex<Vec<&'static str>> = Box::leak(Box::default());
    let note = |what: &'static str| {
        move |()| {
            order.lock().unwrap().push(what);
            NdisStatus::SUCCESS
        }
    };
    talk.on_event(move |(event, _)| {
        order.lock().unwrap().push(if event == NetEventPause { "binding pauses" } else { "binding restarts" });
        NdisStatus::SUCCESS
    });
    on(&sieve.pause, note("filter pauses"));
    on(&sieve.restart, note("filter restarts"));
    on(&script().pause, move |_| {
        order.lock().unwrap().push("miniport pauses");
        NdisStatus::SUCCESS
    });
    adapter.pause().unwrap();
    assert_eq!(adapter.filters()[0].state, FilterState::Paused);
    adapter.restart().unwrap();
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["binding pauses", "filter pauses", "miniport pauses", "filter restarts", "binding restarts"]);
}

#[test]
fn a_pause_may_be_completed_later_and_cannot_fail() {
    conforms!(
        "ndis/nf-ndis-ndisfpausecomplete.md",
        "A pended pause is complete with NdisFPauseComplete, and the module Paused."
    );
    conforms!("ndis/nc-ndis-filter_pause.md", "FilterPause returns success or pending only.");
    let (_nic, adapter, _talk, sieve) = Nic::filtered();
    on(&sieve.pause, |()| {
        call_ddi!("NdisFPauseComplete", fn(usize), self::sieve().module());
        NdisStatus::PENDING
    });
    adapter.pause().unwrap();
    adapter.restart().unwrap();
    on(&sieve.pause, |()| NdisStatus::FAILURE);
    assert_eq!(rule(adapter.pause()), Rule::BadState);
}

#[test]
fn a_restart_may_be_completed_later() {
    conforms!("ndis/nf-ndis-ndisfrestartcomplete.md", "A pended restart ends with the status of NdisFRestartComplete.");
    let (_nic, adapter, _talk, sieve) = Nic::filtered();
    adapter.pause().unwrap();
    on(&sieve.restart, |()| {
        call_ddi!("NdisFRestartComplete", fn(usize, NdisStatus), self::sieve().module(), NdisStatus::SUCCESS);
        NdisStatus::PENDING
    });
    adapter.restart().unwrap();
    assert_eq!(adapter.filters()[0].state, FilterState::Running);
}

#[test]
fn a_module_that_does_not_restart_is_detached() {
    conforms!(
        "docs:network/starting-a-filter-module.md",
        "A module whose restart fails is detached, and the stack goes on without it when it is optional."
    );
    let (_nic, adapter, _talk, sieve) = Nic::filtered();
    adapter.pause().unwrap();
    on(&sieve.restart, |()| NdisStatus::FAILURE);
    adapter.restart().unwrap();
    assert!(adapter.filters().is_empty());
    assert_eq!(adapter.state(), super::super::adapter::AdapterState::Running);
    assert_eq!(sieve.take_seen().last().unwrap(), "detach");
}

#[test]
fn a_mandatory_filter_that_does_not_attach_takes_the_stack_with_it() {
    conforms!(
        "docs:network/mandatory-filter-drivers.md",
        "When a mandatory filter does not attach, the stack is torn down."
    );
    let nic = Nic::new();
    nic.run_type(1);
    on(&nic.sieve().attach, |_| NdisStatus::RESOURCES);
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    assert!(nic.bench.machine().filter_drivers()[0].is_mandatory);
    assert_eq!(status(nic.add()), NdisStatus::RESOURCES);
    assert_eq!(callbacks().last(), Some(&"halt"));
}

#[test]
fn an_adapter_that_a_mandatory_filter_took_down_is_halted_once() {
    let nic = Nic::new();
    nic.run_type(1);
    let sieve = nic.sieve();
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    let (adapter, machine) = (nic.add().unwrap(), nic.bench.machine());
    machine.detach_ndis_filter("testlwf", "Ethernet").unwrap();
    on(&sieve.attach, |_| NdisStatus::RESOURCES);
    assert_eq!(status(machine.attach_ndis_filter("testlwf", "Ethernet")), NdisStatus::RESOURCES);
    assert_eq!(adapter.state(), super::super::adapter::AdapterState::Halted);
    adapter.remove().unwrap();
    assert_eq!(callbacks().iter().filter(|callback| **callback == "halt").count(), 1);
}

#[test]
fn an_optional_filter_that_does_not_attach_is_not_missed() {
    conforms!(
        "docs:network/attaching-a-filter-module.md",
        "An optional filter module that does not attach leaves the rest of the stack alone."
    );
    let nic = Nic::new();
    nic.run_type(2);
    on(&nic.sieve().attach, |_| NdisStatus::RESOURCES);
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    assert!(nic.add().unwrap().filters().is_empty());
}

#[test]
fn an_attach_sets_the_attributes() {
    conforms!("ndis/nc-ndis-filter_attach.md", "FilterAttach calls NdisFSetAttributes with the context of the module.");
    let nic = Nic::new();
    on(&nic.sieve().attach, |_| NdisStatus::SUCCESS);
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    assert_eq!(rule(nic.add()), Rule::BadState);
}

#[test]
fn what_a_module_owns_is_freed_when_it_is_detached() {
    conforms!("ndis/nc-ndis-filter_detach.md", "FilterDetach frees what was allocated for the module.");
    let (nic, _adapter, _talk, _sieve) = Nic::filtered();
    let leak = nic.bench.run(|| {
        assert_ne!(call_ddi!("NdisAllocateIoWorkItem", fn(usize) -> usize, sieve().module()), 0);
        deregister_filter();
    });
    assert_eq!(leak.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_filter_that_deregisters_leaves_every_stack() {
    conforms!("ndis/nc-ndis-filter_detach.md", "A module is detached in the Paused state.");
    let (nic, adapter, _talk, sieve) = Nic::filtered();
    nic.bench.run(deregister_filter).unwrap();
    assert_eq!(sieve.take_seen(), ["pause", "detach"]);
    assert!(adapter.filters().is_empty());
    assert_eq!(adapter.state(), super::super::adapter::AdapterState::Running);
}

#[test]
fn an_adapter_that_goes_takes_its_modules_along() {
    let (_nic, adapter, _talk, sieve) = Nic::filtered();
    adapter.remove().unwrap();
    assert_eq!(sieve.take_seen(), ["pause", "detach"]);
}

#[test]
fn filters_are_detached_and_attached_by_hand() {
    let (nic, adapter, _talk, sieve) = Nic::filtered();
    let machine = nic.bench.machine();
    machine.detach_ndis_filter("testlwf", "Ethernet").unwrap();
    assert!(adapter.filters().is_empty());
    assert_eq!(status(machine.detach_ndis_filter("testlwf", "Ethernet")), NdisStatus::ADAPTER_NOT_FOUND);
    sieve.take_seen();
    machine.attach_ndis_filter("testlwf", "Ethernet").unwrap();
    assert_eq!(sieve.take_seen(), ["attach", "options", "restart"]);
    assert_eq!(machine.filter_drivers()[0].modules, adapter.filters());
}

#[test]
fn a_filter_can_ask_for_its_restart() {
    conforms!(
        "ndis/nf-ndis-ndisfrestartfilter.md",
        "NDIS schedules a pause and a restart, with FilterSetModuleOptions before the latter."
    );
    let (nic, _adapter, _talk, sieve) = Nic::filtered();
    let status = nic.bench.run(|| call_ddi!("NdisFRestartFilter", fn(usize) -> NdisStatus, self::sieve().module()));
    assert_eq!(status.unwrap(), NdisStatus::SUCCESS);
    for _ in 0..500 {
        if sieve.seen.lock().unwrap().len() == 3 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(sieve.take_seen(), ["pause", "options", "restart"]);
}

#[test]
fn handlers_are_changed_within_the_options_only() {
    conforms!(
        "ndis/nc-ndis-filter_set_module_options.md",
        "A module sets its handlers with NdisSetOptionalHandlers within FilterSetModuleOptions only."
    );
    let (nic, adapter, _talk, sieve) = Nic::filtered();
    on(&sieve.options, |()| set_handlers());
    adapter.pause().unwrap();
    adapter.restart().unwrap();
    let elsewhere = nic.bench.run(|| {
        let _ = set_handlers();
    });
    assert_eq!(elsewhere.unwrap_err().0.rule, Rule::BadState);
}

fn set_handlers() -> NdisStatus {
    // SAFETY: all-zero bytes are valid characteristics: nothing is handled.
    let mut partial: NDIS_FILTER_PARTIAL_CHARACTERISTICS = unsafe { std::mem::zeroed() };
    partial.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_FILTER_PARTIAL_CHARACTERISTICS, 1, 48);
    let status = call_ddi!(
        "NdisSetOptionalHandlers",
        fn(usize, &NDIS_FILTER_PARTIAL_CHARACTERISTICS) -> NdisStatus,
        sieve().module(),
        &partial
    );
    assert_eq!(status, NdisStatus::SUCCESS);
    status
}
