//! A protocol that does what the test at hand wants, and `NdisRegisterProtocolDriver`.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::*;

/// Open parameters, and the media in them.
type OpenMemory = (NDIS_OPEN_PARAMETERS, [u32; 2]);

/// What the protocol of one test does. Its address is the context of the protocol and of its bindings.
pub(super) struct Talk {
    /// Gets the bind context and the parameters; opens the adapter where there is no hook.
    pub(super) bind: Hook<(usize, usize)>,
    /// Gets the unbind context; closes the adapter where there is no hook.
    pub(super) unbind: Hook<usize>,
    /// Gets the event and the notification.
    pub(super) event: Hook<(u32, usize)>,
    /// Gets the request and its status.
    pub(super) complete: Hook<(usize, NdisStatus)>,
    pub(super) status: Hook<usize>,
    pub(super) opened: Hook<NdisStatus>,
    pub(super) closed: Hook<()>,
    /// Gets the first list.
    pub(super) receive: Hook<usize>,
    /// Gets the first list.
    pub(super) sent: Hook<usize>,
    pub(super) handle: AtomicUsize,
    /// The binding handle, as `NdisOpenAdapterEx` writes it.
    pub(super) binding: AtomicUsize,
    pub(super) medium: AtomicU32,
    /// Open parameters and media, which must outlive the call.
    open: Mutex<Option<Box<OpenMemory>>>,
    pending: AtomicUsize,
    seen: Mutex<Vec<String>>,
}

// SAFETY: the pointers in the open parameters lead to parts of the structure itself.
unsafe impl Send for Talk {}
// SAFETY: as above.
unsafe impl Sync for Talk {}

impl Talk {
    fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            bind: Mutex::default(),
            unbind: Mutex::default(),
            event: Mutex::default(),
            complete: Mutex::default(),
            status: Mutex::default(),
            opened: Mutex::default(),
            closed: Mutex::default(),
            receive: Mutex::default(),
            sent: Mutex::default(),
            handle: AtomicUsize::new(0),
            binding: AtomicUsize::new(0),
            medium: AtomicU32::new(99),
            open: Mutex::default(),
            pending: AtomicUsize::new(0),
            seen: Mutex::default(),
        }))
    }

    fn at(context: NDIS_HANDLE) -> &'static Self {
        assert!(!context.is_null(), "the context of the protocol, or of the binding");
        // SAFETY: the machine passes back what the test registered, which is never freed.
        unsafe { &*context.cast_const().cast() }
    }

    pub(super) fn address(&'static self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }

    pub(super) fn saw(&self, what: impl Into<String>) {
        self.seen.lock().unwrap().push(what.into());
    }

    pub(super) fn take_seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Whether the end of a reset was indicated.
    pub(super) fn seen_end(&self) -> bool {
        self.seen.lock().unwrap().iter().any(|seen| seen == "status NDIS_STATUS_RESET_END")
    }

    /// Waits until a callback was seen that another thread makes.
    pub(super) fn wait_for(&self, what: &str) {
        for _ in 0..500 {
            if self.seen.lock().unwrap().iter().any(|seen| seen == what) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{what} was not seen, but {:?}", self.seen.lock().unwrap());
    }

    pub(super) fn binding(&self) -> usize {
        self.binding.load(Ordering::Acquire)
    }

    /// `NdisOpenAdapterEx` with the adapter of the bind parameters.
    pub(super) fn open(&'static self, bind_context: usize, parameters: usize) -> NdisStatus {
        self.open_changed(bind_context, parameters, |_| {})
    }

    pub(super) fn open_changed(
        &'static self,
        bind_context: usize,
        parameters: usize,
        change: impl FnOnce(&mut NDIS_OPEN_PARAMETERS),
    ) -> NdisStatus {
        let bind = Raw::<NDIS_BIND_PARAMETERS>::at(parameters).read();
        let size = NDIS_SIZEOF_OPEN_PARAMETERS_REVISION_1;
        let mut memory = Box::new((
            NDIS_OPEN_PARAMETERS {
                Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_OPEN_PARAMETERS, 1, size),
                AdapterName: bind.AdapterName,
                MediumArray: std::ptr::null_mut(),
                MediumArraySize: 2,
                SelectedMediumIndex: self.medium.as_ptr(),
                FrameTypeArray: std::ptr::null_mut(),
                FrameTypeArraySize: 0,
            },
            // NdisMediumNative802_11, NdisMedium802_3.
            [16, 0],
        ));
        memory.0.MediumArray = memory.1.as_mut_ptr();
        memory.0.MediumArray.expose_provenance();
        self.medium.as_ptr().expose_provenance();
        change(&mut memory.0);
        let open = (&raw const memory.0).expose_provenance();
        *self.open.lock().unwrap() = Some(memory);
        call_ddi!(
            "NdisOpenAdapterEx",
            fn(usize, usize, usize, usize, usize) -> NdisStatus,
            self.handle.load(Ordering::Acquire),
            self.address(),
            open,
            bind_context,
            self.binding.as_ptr().expose_provenance()
        )
    }

    pub(super) fn close(&self) -> NdisStatus {
        close(self.binding())
    }

    pub(super) fn on_bind(&self, hook: impl Fn((usize, usize)) -> NdisStatus + Send + Sync + 'static) -> &Self {
        *self.bind.lock().unwrap() = Some(Arc::new(hook));
        self
    }

    pub(super) fn on_unbind(&self, hook: impl Fn(usize) -> NdisStatus + Send + Sync + 'static) -> &Self {
        *self.unbind.lock().unwrap() = Some(Arc::new(hook));
        self
    }

    pub(super) fn on_event(&self, hook: impl Fn((u32, usize)) -> NdisStatus + Send + Sync + 'static) -> &Self {
        *self.event.lock().unwrap() = Some(Arc::new(hook));
        self
    }
}

pub(super) fn close(binding: usize) -> NdisStatus {
    call_ddi!("NdisCloseAdapterEx", fn(usize) -> NdisStatus, binding)
}

pub(super) fn complete_bind(context: usize, status: NdisStatus) {
    call_ddi!("NdisCompleteBindAdapterEx", fn(usize, NdisStatus), context, status);
}

pub(super) fn complete_unbind(context: usize) {
    call_ddi!("NdisCompleteUnbindAdapterEx", fn(usize), context);
}

unsafe extern "efiapi" fn bind_adapter(
    context: NDIS_HANDLE,
    bind_context: NDIS_HANDLE,
    parameters: *mut NDIS_BIND_PARAMETERS,
) -> NdisStatus {
    let talk = Talk::at(context);
    talk.saw("bind");
    let arguments = (bind_context.addr(), parameters.expose_provenance());
    let hook = talk.bind.lock().unwrap().clone();
    let Some(hook) = hook else {
        talk.pending.store(arguments.0, Ordering::Release);
        return talk.open(arguments.0, arguments.1);
    };
    hook(arguments)
}

unsafe extern "efiapi" fn unbind_adapter(unbind_context: NDIS_HANDLE, context: NDIS_HANDLE) -> NdisStatus {
    let talk = Talk::at(context);
    talk.saw("unbind");
    let hook = talk.unbind.lock().unwrap().clone();
    let Some(hook) = hook else {
        talk.pending.store(unbind_context.addr(), Ordering::Release);
        return talk.close();
    };
    hook(unbind_context.addr())
}

unsafe extern "efiapi" fn open_complete(context: NDIS_HANDLE, status: NdisStatus) {
    let talk = Talk::at(context);
    talk.saw("open complete");
    let hook = talk.opened.lock().unwrap().clone();
    match hook {
        Some(hook) => assert_eq!(hook(status), NdisStatus::SUCCESS),
        None => complete_bind(talk.pending.load(Ordering::Acquire), status),
    }
}

unsafe extern "efiapi" fn close_complete(context: NDIS_HANDLE) {
    let talk = Talk::at(context);
    talk.saw("close complete");
    let hook = talk.closed.lock().unwrap().clone();
    match hook {
        Some(hook) => assert_eq!(hook(()), NdisStatus::SUCCESS),
        None => complete_unbind(talk.pending.load(Ordering::Acquire)),
    }
}

unsafe extern "efiapi" fn net_pnp_event(
    context: NDIS_HANDLE,
    notification: *mut NET_PNP_EVENT_NOTIFICATION,
) -> NdisStatus {
    let raw = Raw::of(notification);
    let event = raw.read().NetPnPEvent.NetEvent;
    let talk = if context.is_null() { current() } else { Talk::at(context) };
    talk.saw(match event {
        NetEventPause => "pause event",
        NetEventRestart => "restart event",
        NetEventBindsComplete => "binds complete",
        NetEventQueryPower => "query power",
        NetEventSetPower => "set power",
        NetEventQueryRemoveDevice => "query remove",
        NetEventCancelRemoveDevice => "cancel remove",
        NetEventReconfigure => "reconfigure",
        other => panic!("event {other}"),
    });
    run(&talk.event, (event, raw.address()), NdisStatus::SUCCESS)
}

unsafe extern "efiapi" fn uninstall() {
    current().saw("uninstall");
}

unsafe extern "efiapi" fn complete(context: NDIS_HANDLE, request: *mut NDIS_OID_REQUEST, status: NdisStatus) {
    let talk = Talk::at(context);
    let hook = talk.complete.lock().unwrap().clone();
    if let Some(hook) = hook {
        assert_eq!(hook((request.expose_provenance(), status)), NdisStatus::SUCCESS);
    }
    talk.saw(format!("complete {}", status.name().unwrap_or("?")));
}

unsafe extern "efiapi" fn status_indication(context: NDIS_HANDLE, indication: *mut NDIS_STATUS_INDICATION) {
    let talk = Talk::at(context);
    talk.saw(format!("status {}", Raw::of(indication).read().StatusCode.name().unwrap_or("?")));
    let _ = run(&talk.status, indication.expose_provenance(), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn receive(context: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, _: u32, count: u32, flags: u32) {
    let talk = Talk::at(context);
    talk.saw(format!("receive {count} {flags:#x}"));
    let _ = run(&talk.receive, list.expose_provenance(), NdisStatus::SUCCESS);
}

unsafe extern "efiapi" fn sent(context: NDIS_HANDLE, list: *mut NET_BUFFER_LIST, _: u32) {
    let talk = Talk::at(context);
    talk.saw(format!("sent {}", super::buffers::chain_length(list.expose_provenance())));
    let _ = run(&talk.sent, list.expose_provenance(), NdisStatus::SUCCESS);
}

thread_local! {
    static TALK: Cell<Option<&'static Talk>> = const { Cell::new(None) };
}

/// The protocol of the test on this thread.
pub(super) fn current() -> &'static Talk {
    TALK.get().expect("a test makes a protocol first")
}

/// Characteristics that NDIS accepts; `name` must outlive the call.
pub(super) fn protocol_characteristics(name: &[u16]) -> NDIS_PROTOCOL_DRIVER_CHARACTERISTICS {
    NDIS_PROTOCOL_DRIVER_CHARACTERISTICS {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS, 2, 128),
        MajorNdisVersion: 6,
        MinorNdisVersion: 30,
        MajorDriverVersion: 1,
        MinorDriverVersion: 0,
        Flags: 0,
        Name: UNICODE_STRING::from_utf16(name).unwrap(),
        SetOptionsHandler: None,
        BindAdapterHandlerEx: Some(bind_adapter),
        UnbindAdapterHandlerEx: Some(unbind_adapter),
        OpenAdapterCompleteHandlerEx: Some(open_complete),
        CloseAdapterCompleteHandlerEx: Some(close_complete),
        NetPnPEventHandler: Some(net_pnp_event),
        UninstallHandler: Some(uninstall),
        OidRequestCompleteHandler: Some(complete),
        StatusHandlerEx: Some(status_indication),
        ReceiveNetBufferListsHandler: Some(receive),
        SendNetBufferListsCompleteHandler: Some(sent),
        DirectOidRequestCompleteHandler: Some(complete),
    }
}

/// `NdisRegisterProtocolDriver`, with the test's [`Talk`] as context.
pub(super) fn register_protocol(
    name: &str,
    change: impl FnOnce(&mut NDIS_PROTOCOL_DRIVER_CHARACTERISTICS),
) -> NdisStatus {
    let name = wide(name);
    let mut characteristics = protocol_characteristics(&name);
    change(&mut characteristics);
    call_ddi!(
        "NdisRegisterProtocolDriver",
        fn(usize, &NDIS_PROTOCOL_DRIVER_CHARACTERISTICS, usize) -> NdisStatus,
        current().address(),
        &characteristics,
        current().handle.as_ptr().expose_provenance()
    )
}

pub(super) fn deregister_protocol() {
    call_ddi!("NdisDeregisterProtocolDriver", fn(usize), current().handle.load(Ordering::Acquire));
}

impl Nic {
    /// The protocol of this test; not registered yet.
    #[expect(clippy::unused_self, reason = "the protocol belongs to the machine of this NIC")]
    pub(super) fn talk(&self) -> &'static Talk {
        let talk = Talk::new();
        TALK.set(Some(talk));
        talk
    }

    /// A NIC with an adapter and a registered protocol, which is bound to it.
    pub(super) fn bound() -> (Self, Adapter, &'static Talk) {
        let nic = Self::new();
        let (adapter, talk) = nic.bind();
        (nic, adapter, talk)
    }

    /// Adds an adapter and registers a protocol.
    pub(super) fn bind(&self) -> (Adapter, &'static Talk) {
        let adapter = self.add().unwrap();
        let talk = self.talk();
        assert_eq!(self.register_protocol().unwrap(), NdisStatus::SUCCESS);
        (adapter, talk)
    }

    pub(super) fn register_protocol(&self) -> Result<NdisStatus, Stopped> {
        self.bench.run(|| register_protocol("testprot", |_| {}))
    }
}

fn refused(change: impl FnOnce(&mut NDIS_PROTOCOL_DRIVER_CHARACTERISTICS)) -> NdisStatus {
    let nic = Nic::new();
    nic.talk();
    let status = nic.bench.run(|| register_protocol("testprot", change)).unwrap();
    assert!(nic.bench.machine().protocols().is_empty(), "a refused protocol is not registered");
    status
}

#[test]
fn a_protocol_registers_under_its_service_name_and_deregisters() {
    conforms!("ndis/nf-ndis-ndisregisterprotocoldriver.md", "Success writes a handle that identifies the driver.");
    conforms!(
        "ndis/nf-ndis-ndisderegisterprotocoldriver.md",
        "Deregistering releases what NDIS keeps of the registration."
    );
    let nic = Nic::new();
    let talk = nic.talk();
    assert_eq!(nic.register_protocol().unwrap(), NdisStatus::SUCCESS);
    assert_ne!(talk.handle.load(Ordering::Acquire), 0);
    assert_eq!(nic.bench.machine().protocols()[0].name, "testprot");
    assert_eq!(nic.leaks(), 2, "the miniport and the protocol");
    nic.bench.run(deregister_protocol).unwrap();
    assert_eq!(nic.leaks(), 1);
}

#[test]
fn a_protocol_structure_of_another_type_is_bad_characteristics() {
    conforms!(
        "ndis/ns-ndis-_ndis_protocol_driver_characteristics.md",
        "Header.Type must be NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS."
    );
    assert_eq!(refused(|c| c.Header.Type = 0x8A), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn a_protocol_structure_below_the_size_of_its_revision_is_bad_characteristics() {
    conforms!(
        "ndis/ns-ndis-_ndis_protocol_driver_characteristics.md",
        "Header.Size must be that of the revision in Header.Revision."
    );
    assert_eq!(refused(|c| c.Header.Size = 120), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| (c.Header.Revision, c.Header.Size) = (1, 119)), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.Header.Revision = 3), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn the_second_revision_needs_ndis_6_1() {
    conforms!(
        "ndis/ns-ndis-_ndis_protocol_driver_characteristics.md",
        "Revision 2, with the direct OID handler, came with NDIS 6.1; NDIS 6.0 has revision 1."
    );
    assert_eq!(refused(|c| c.MinorNdisVersion = 0), NdisStatus::BAD_CHARACTERISTICS);
    let nic = Nic::new();
    nic.talk();
    let old = |c: &mut NDIS_PROTOCOL_DRIVER_CHARACTERISTICS| {
        (c.Header.Revision, c.Header.Size, c.MinorNdisVersion) = (1, 120, 0);
    };
    assert_eq!(nic.bench.run(|| register_protocol("old", old)).unwrap(), NdisStatus::SUCCESS);
}

#[test]
fn a_protocol_for_a_version_that_does_not_exist_is_bad_version() {
    conforms!("ndis/nf-ndis-ndisregisterprotocoldriver.md", "An invalid MajorNdisVersion is NDIS_STATUS_BAD_VERSION.");
    assert_eq!(refused(|c| c.MajorNdisVersion = 5), NdisStatus::BAD_VERSION);
    assert_eq!(refused(|c| c.MinorNdisVersion = 99), NdisStatus::BAD_VERSION);
}

#[test]
fn a_missing_required_protocol_handler_is_bad_characteristics() {
    conforms!(
        "ndis/nf-ndis-ndisregisterprotocoldriver.md",
        "Invalid members of the characteristics are NDIS_STATUS_BAD_CHARACTERISTICS."
    );
    assert_eq!(refused(|c| c.BindAdapterHandlerEx = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.UnbindAdapterHandlerEx = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.NetPnPEventHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.Name.Length = 0), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn optional_protocol_handlers_may_be_absent() {
    conforms!(
        "ndis/ns-ndis-_ndis_protocol_driver_characteristics.md",
        "UninstallHandler, StatusHandlerEx and DirectOidRequestCompleteHandler may be NULL."
    );
    let nic = Nic::new();
    nic.talk();
    let few = |c: &mut NDIS_PROTOCOL_DRIVER_CHARACTERISTICS| {
        (c.UninstallHandler, c.StatusHandlerEx, c.DirectOidRequestCompleteHandler) = (None, None, None);
    };
    assert_eq!(nic.bench.run(|| register_protocol("few", few)).unwrap(), NdisStatus::SUCCESS);
}

#[test]
fn a_name_is_registered_once() {
    let nic = Nic::new();
    nic.talk();
    nic.register_protocol().unwrap().ok().unwrap();
    nic.talk();
    assert_eq!(nic.register_protocol().unwrap(), NdisStatus::FAILURE);
}

unsafe extern "efiapi" fn set_options(_: NDIS_HANDLE, context: NDIS_HANDLE) -> NdisStatus {
    Talk::at(context).saw("set options");
    NdisStatus::RESOURCES
}

#[test]
fn options_are_set_within_the_registration_and_can_fail_it() {
    conforms!("ndis/nc-ndis-set_options.md", "NDIS calls ProtocolSetOptions within NdisRegisterProtocolDriver.");
    let nic = Nic::new();
    let talk = nic.talk();
    let status = nic.bench.run(|| register_protocol("testprot", |c| c.SetOptionsHandler = Some(set_options))).unwrap();
    assert_eq!((status, talk.take_seen()), (NdisStatus::RESOURCES, vec!["set options".to_owned()]));
    assert!(nic.bench.machine().protocols().is_empty());
}

#[test]
fn deregistering_a_protocol_twice_is_found() {
    let nic = Nic::new();
    nic.talk();
    nic.register_protocol().unwrap().ok().unwrap();
    let twice = nic.bench.run(|| {
        deregister_protocol();
        deregister_protocol();
    });
    assert_eq!(twice.unwrap_err().0.rule, Rule::InvalidHandle);
}

#[test]
fn deregistering_from_a_callback_is_found() {
    conforms!(
        "ndis/nf-ndis-ndisderegisterprotocoldriver.md",
        "A protocol must not deregister from an entry point that NDIS calls: it can deadlock."
    );
    let (_nic, adapter, talk) = Nic::bound();
    talk.on_unbind(|_| {
        deregister_protocol();
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(adapter.remove()), Rule::BadState);
}

#[test]
fn deregistering_unbinds_every_binding_first() {
    conforms!(
        "ndis/nf-ndis-ndisderegisterprotocoldriver.md",
        "For each open binding ProtocolUnbindAdapterEx is called within the call."
    );
    let (nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    nic.bench.run(deregister_protocol).unwrap();
    assert_eq!(talk.take_seen(), ["pause event", "unbind"]);
    assert!(adapter.bindings().is_empty());
}

#[test]
fn uninstalling_a_protocol_unbinds_it_first() {
    conforms!("ndis/nc-ndis-protocol_uninstall.md", "ProtocolUninstall comes after an unbind from each bound adapter.");
    let (nic, _adapter, talk) = Nic::bound();
    talk.take_seen();
    nic.bench.machine().uninstall_protocol("testprot").unwrap();
    assert_eq!(talk.take_seen(), ["pause event", "unbind", "uninstall"]);
}

#[test]
fn registering_is_passive_only() {
    conforms!("ndis/nf-ndis-ndisregisterprotocoldriver.md", "The IRQL must be PASSIVE_LEVEL.");
    assert_eq!(export("NdisRegisterProtocolDriver").max_irql, 0);
    assert_eq!(export("NdisDeregisterProtocolDriver").max_irql, 0);
    let nic = Nic::new();
    nic.talk();
    let raised = nic.bench.call(export("NdisRegisterProtocolDriver"), || {
        crate::thread::Thread::current().set_irql(2);
        register_protocol("testprot", |_| {})
    });
    assert_eq!(raised.unwrap_err().0.rule, Rule::IrqlTooHigh);
}
