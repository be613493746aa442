//! A driver that asks the broker for images, with every mistake that a driver can make.
//!
//! samplenic.sys behaves; this calls the function table as it likes, at the IRQL it likes.
#![expect(unsafe_code, reason = "calls the functions of a driver's table, which are foreign code")]

use std::ffi::c_void;
use std::sync::Arc;

use kernel_host::thread::Thread;
use kernel_host::{Driver, KernelDevice, KernelRequest, Machine};
use ndis_firmware::interface::{
    ANY_ADDRESS, DEVICE_NAME, FWBROKER_IMAGE, FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1,
    FWBROKER_OPEN_PARAMETERS, FWBROKER_QUERY_INTERFACE, IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE,
};
use nt_types::{IRP_MJ_INTERNAL_DEVICE_CONTROL, KERNEL_MODE, NtStatus, UNICODE_STRING};

use crate::Bench;

/// `PASSIVE_LEVEL`.
pub const PASSIVE: u8 = 0;
/// `DISPATCH_LEVEL`.
pub const DISPATCH: u8 = 2;

/// A driver with a function table and a file object of the device, as the interface wants it.
///
/// Dropping it gives back the file object only: see [`dereference`](Self::dereference).
pub struct Consumer<'a> {
    bench: &'a Bench,
    driver: Arc<Driver>,
    table: FWBROKER_INTERFACE,
    _device: KernelDevice,
}

/// A request for a table that the broker must grant.
#[must_use]
pub fn good_query(name: &UNICODE_STRING) -> FWBROKER_QUERY_INTERFACE {
    FWBROKER_QUERY_INTERFACE {
        Size: size_of::<FWBROKER_QUERY_INTERFACE>() as u16,
        Version: FWBROKER_INTERFACE_VERSION_1,
        Flags: 0,
        Consumer: *name,
    }
}

/// The IRP that carries `query`, with its reply going to `table`.
#[must_use]
pub fn query_request(query: &FWBROKER_QUERY_INTERFACE, table: &mut FWBROKER_INTERFACE) -> KernelRequest {
    KernelRequest {
        major: IRP_MJ_INTERNAL_DEVICE_CONTROL,
        mode: KERNEL_MODE,
        code: IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE,
        input: std::ptr::from_ref(query).addr(),
        input_length: size_of::<FWBROKER_QUERY_INTERFACE>() as u32,
        output: std::ptr::from_mut(table).addr(),
        output_length: size_of::<FWBROKER_INTERFACE>() as u32,
    }
}

impl<'a> Consumer<'a> {
    /// Fetches a table under the name `name`.
    ///
    /// # Errors
    /// The broker's.
    pub fn try_new(bench: &'a Bench, name: &str) -> Result<Self, NtStatus> {
        let device = bench.machine().open_device(DEVICE_NAME)?;
        let name: Vec<u16> = name.encode_utf16().collect();
        let name = UNICODE_STRING::from_utf16(&name).expect("a short name");
        let query = good_query(&name);
        let mut table = FWBROKER_INTERFACE::EMPTY;
        device.send(&query_request(&query, &mut table))?.Status.ok()?;
        let driver = broker_driver(bench.machine());
        Ok(Self { bench, driver, table, _device: device })
    }

    /// As [`try_new`](Self::try_new), where nothing is wrong.
    ///
    /// # Panics
    /// When the broker refuses.
    #[must_use]
    pub fn new(bench: &'a Bench, name: &str) -> Self {
        Self::try_new(bench, name).expect("the broker hands out its table")
    }

    /// Opens an image that may lie anywhere.
    pub fn open(&self, name: &str) -> Result<FWBROKER_IMAGE, NtStatus> {
        self.open_with(name, ANY_ADDRESS, None)
    }

    /// Opens an image.
    pub fn open_with(
        &self,
        name: &str,
        highest_address: i64,
        parameters: Option<&FWBROKER_OPEN_PARAMETERS>,
    ) -> Result<FWBROKER_IMAGE, NtStatus> {
        let name: Vec<u16> = name.encode_utf16().collect();
        let name = UNICODE_STRING::from_utf16(&name).expect("a short name");
        self.open_raw(Some(&name), highest_address, parameters, PASSIVE)
    }

    /// Opens an image with arguments that need not make sense; `None` is NULL.
    pub fn open_raw(
        &self,
        name: Option<&UNICODE_STRING>,
        highest_address: i64,
        parameters: Option<&FWBROKER_OPEN_PARAMETERS>,
        irql: u8,
    ) -> Result<FWBROKER_IMAGE, NtStatus> {
        let name = name.map_or(std::ptr::null(), std::ptr::from_ref);
        let parameters = parameters.map_or(std::ptr::null(), std::ptr::from_ref);
        let mut image = FWBROKER_IMAGE { Handle: 0, Length: 0, Sha256: [0; 32] };
        let (function, context) = (self.table.Open.expect("in the table"), self.table.Context);
        let out = &raw mut image;
        // SAFETY: the broker's function, with arguments that can be read, and a cell for the result.
        let status =
            self.call("FWBROKER_OPEN", irql, || unsafe { function(context, name, highest_address, parameters, out) });
        status.ok().map(|()| image)
    }

    /// Maps an open image; its address.
    pub fn map(&self, handle: u64, irql: u8) -> Result<*const u8, NtStatus> {
        let (function, context) = (self.table.Map.expect("in the table"), self.table.Context);
        let mut buffer = std::ptr::null::<c_void>();
        let cell = &raw mut buffer;
        // SAFETY: the broker's function, and a cell for the result.
        let status = self.call("FWBROKER_MAP", irql, || unsafe { function(context, handle, cell) });
        assert_eq!(status.is_success(), !buffer.is_null(), "NULL and failure go together");
        status.ok().map(|()| buffer.cast())
    }

    /// The first byte of an open image, through a mapping of its own.
    pub fn first_byte(&self, handle: u64) -> Result<u8, NtStatus> {
        let address = self.map(handle, PASSIVE)?;
        // SAFETY: mapped, and no image is empty.
        let byte = self.call("read", PASSIVE, || unsafe { address.read() });
        self.unmap(handle, PASSIVE).ok().map(|()| byte)
    }

    /// Unmaps once.
    pub fn unmap(&self, handle: u64, irql: u8) -> NtStatus {
        let (function, context) = (self.table.Unmap.expect("in the table"), self.table.Context);
        // SAFETY: the broker's function takes any number.
        self.call("FWBROKER_UNMAP", irql, || unsafe { function(context, handle) })
    }

    /// Closes a handle.
    pub fn close(&self, handle: u64, irql: u8) -> NtStatus {
        let (function, context) = (self.table.Close.expect("in the table"), self.table.Context);
        // SAFETY: the broker's function takes any number.
        self.call("FWBROKER_CLOSE", irql, || unsafe { function(context, handle) })
    }

    /// Takes a reference to the table.
    pub fn reference(&self, irql: u8) {
        let (function, context) = (self.table.InterfaceReference.expect("in the table"), self.table.Context);
        // SAFETY: the broker's function, with its own context.
        self.call("InterfaceReference", irql, || unsafe { function(context) });
    }

    /// Gives a reference to the table back.
    pub fn dereference(&self, irql: u8) {
        let (function, context) = (self.table.InterfaceDereference.expect("in the table"), self.table.Context);
        // SAFETY: the broker's function, with its own context.
        self.call("InterfaceDereference", irql, || unsafe { function(context) });
    }

    /// Calls into the broker as a thread of the machine.
    fn call<R>(&self, name: &'static str, irql: u8, body: impl FnOnce() -> R) -> R {
        Thread::enter(self.bench.machine().inner(), |thread| thread.call_driver(&self.driver, name, irql, body))
            .unwrap_or_else(|stopped| panic!("the machine stopped: {stopped:?} {:?}", self.bench.machine().finding()))
    }
}

fn broker_driver(machine: &Machine) -> Arc<Driver> {
    machine.drivers().into_iter().find(|driver| driver.name == "fwbroker.sys").expect("it is loaded")
}
