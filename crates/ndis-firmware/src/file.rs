//! An open firmware image and its mappings.

use core::ops::Deref;
use core::{ptr, slice};

use nt_types::NtStatus;

use crate::interface::FWBROKER_IMAGE;
use crate::table::Table;

/// An open image; dropping it closes it, exactly once, at IRQL <= `DISPATCH_LEVEL`.
pub struct FirmwareFile<'table> {
    table: &'table Table,
    image: FWBROKER_IMAGE,
}

impl<'table> FirmwareFile<'table> {
    pub(crate) const fn new(table: &'table Table, image: FWBROKER_IMAGE) -> Self {
        Self { table, image }
    }

    /// Length in bytes; at least 1.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.image.Length
    }

    /// Never true of an image that the broker opened.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.image.Length == 0
    }

    /// SHA-256 of the image, computed by the broker from the bytes that [`map`](Self::map) exposes.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.image.Sha256
    }

    /// Gives access to the bytes, at IRQL <= `DISPATCH_LEVEL`. Mappings can be had several times; they are shared and read-only.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE` when the broker took the image away.
    pub fn map(&self) -> Result<Mapping<'_>, NtStatus> {
        let mut buffer = ptr::null();
        // SAFETY: the table is referenced and the handle open.
        let status = unsafe { (self.table.map)(self.table.context, self.image.Handle, &raw mut buffer) };
        if status != NtStatus::SUCCESS {
            return Err(if status.is_success() { NtStatus::UNSUCCESSFUL } else { status });
        }
        let length = usize::try_from(self.image.Length).unwrap_or(0);
        if buffer.is_null() || length == 0 {
            // SAFETY: undoes the mapping just made.
            let _ = unsafe { (self.table.unmap)(self.table.context, self.image.Handle) };
            return Err(NtStatus::UNSUCCESSFUL);
        }
        Ok(Mapping {
            // SAFETY: the broker keeps `Length` bytes readable and unchanged until the unmapping in `drop`, and
            // the borrow keeps the handle open for at least as long.
            bytes: unsafe { slice::from_raw_parts(buffer.cast(), length) },
            file: self,
        })
    }
}

impl Drop for FirmwareFile<'_> {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; a mapping borrows the file and is gone by now. The status can only say that the broker
        // took the image away first, and there is nobody to tell.
        let _ = unsafe { (self.table.close)(self.table.context, self.image.Handle) };
    }
}

/// The bytes of an image; dropping it unmaps them, exactly once, at IRQL <= `DISPATCH_LEVEL`.
pub struct Mapping<'file> {
    bytes: &'file [u8],
    file: &'file FirmwareFile<'file>,
}

impl Deref for Mapping<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once, while the file is open (borrow).
        let _ = unsafe { (self.file.table.unmap)(self.file.table.context, self.file.image.Handle) };
    }
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;

    use core::ffi::c_void;
    use std::cell::Cell;
    use std::vec::Vec;

    use nt_types::UNICODE_STRING;

    use super::*;
    use crate::interface::{FWBROKER_INTERFACE, FWBROKER_OPEN_PARAMETERS};

    /// A broker with one image, `nic.bin`, that counts what is held.
    pub(crate) struct FakeBroker(std::boxed::Box<State>);

    struct State {
        references: Cell<u32>,
        open: Cell<u32>,
        mapped: Cell<u32>,
        bytes: Cell<&'static [u8]>,
        timeout: Cell<Option<u32>>,
    }

    pub(crate) fn name(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    impl FakeBroker {
        pub(crate) fn new() -> Self {
            Self(std::boxed::Box::new(State {
                references: Cell::new(1),
                open: Cell::new(0),
                mapped: Cell::new(0),
                bytes: Cell::new(b"\x55\xAAfirmware"),
                timeout: Cell::new(None),
            }))
        }

        pub(crate) fn references(&self) -> u32 {
            self.0.references.get()
        }

        pub(crate) fn interface(&self) -> FWBROKER_INTERFACE {
            FWBROKER_INTERFACE {
                Size: 64,
                Version: 1,
                Context: (&raw const *self.0).cast_mut().cast(),
                InterfaceReference: None,
                InterfaceDereference: Some(dereference),
                Open: Some(open),
                Map: Some(map),
                Unmap: Some(unmap),
                Close: Some(close),
            }
        }

        pub(crate) fn table(&self) -> Table {
            // SAFETY: the functions below are always loaded, and tests drop the table before the fake.
            unsafe { Table::from_interface(&self.interface()) }.unwrap()
        }
    }

    fn state<'a>(context: *mut c_void) -> &'a State {
        // SAFETY: the context is the fake's state, which outlives its tables.
        unsafe { &*context.cast::<State>() }
    }

    unsafe extern "efiapi" fn dereference(context: *mut c_void) {
        let references = &state(context).references;
        references.set(references.get() - 1);
    }

    unsafe extern "efiapi" fn open(
        context: *mut c_void,
        wanted: *const UNICODE_STRING,
        _highest: i64,
        parameters: *const FWBROKER_OPEN_PARAMETERS,
        image: *mut FWBROKER_IMAGE,
    ) -> NtStatus {
        let state = state(context);
        // SAFETY: NULL or a valid structure, by the interface.
        state.timeout.set(unsafe { parameters.as_ref() }.map(|p| p.TimeoutMilliseconds));
        // SAFETY: a valid string, by the interface.
        let wanted = unsafe { *wanted };
        // SAFETY: its buffer holds that many characters.
        let wanted = unsafe { slice::from_raw_parts(wanted.Buffer, wanted.chars()) };
        if wanted != name("nic.bin") {
            return NtStatus::OBJECT_NAME_NOT_FOUND;
        }
        state.open.set(state.open.get() + 1);
        let opened = FWBROKER_IMAGE { Handle: 7, Length: state.bytes.get().len() as u64, Sha256: [9; 32] };
        // SAFETY: a valid pointer, by the interface.
        unsafe { image.write(opened) };
        NtStatus::SUCCESS
    }

    unsafe extern "efiapi" fn map(context: *mut c_void, handle: u64, buffer: *mut *const c_void) -> NtStatus {
        assert_eq!(handle, 7);
        let state = state(context);
        state.mapped.set(state.mapped.get() + 1);
        // SAFETY: a valid pointer, by the interface.
        unsafe { buffer.write(state.bytes.get().as_ptr().cast()) };
        NtStatus::SUCCESS
    }

    unsafe extern "efiapi" fn unmap(context: *mut c_void, handle: u64) -> NtStatus {
        assert_eq!(handle, 7);
        let mapped = &state(context).mapped;
        mapped.set(mapped.get() - 1);
        NtStatus::SUCCESS
    }

    unsafe extern "efiapi" fn close(context: *mut c_void, handle: u64) -> NtStatus {
        assert_eq!(handle, 7);
        let state = state(context);
        assert_eq!(state.mapped.get(), 0, "closed while mapped");
        state.open.set(state.open.get() - 1);
        NtStatus::SUCCESS
    }

    #[test]
    fn an_image_is_mapped_unmapped_and_closed_exactly_once() {
        let broker = FakeBroker::new();
        let table = broker.table();
        let file = table.open(&name("nic.bin"), -1).unwrap();
        assert_eq!((file.len(), file.sha256()), (10, &[9; 32]));
        {
            let one = file.map().unwrap();
            let two = file.map().unwrap();
            assert_eq!(&one[..2], [0x55, 0xAA]);
            assert_eq!(one.as_ptr(), two.as_ptr());
            assert_eq!(broker.0.mapped.get(), 2);
        }
        assert_eq!((broker.0.mapped.get(), broker.0.open.get()), (0, 1));
        drop(file);
        assert_eq!(broker.0.open.get(), 0);
    }

    #[test]
    fn an_open_with_a_time_limit_tells_the_broker() {
        let broker = FakeBroker::new();
        let table = broker.table();
        drop(table.open_within(&name("nic.bin"), -1, 250).unwrap());
        assert_eq!(broker.0.timeout.get(), Some(250));
        drop(table.open(&name("nic.bin"), -1).unwrap());
        assert_eq!(broker.0.timeout.get(), None);
    }

    #[test]
    fn a_mapping_without_bytes_is_undone_and_refused() {
        let broker = FakeBroker::new();
        let table = broker.table();
        broker.0.bytes.set(&[]);
        let file = table.open(&name("nic.bin"), -1).unwrap();
        assert_eq!(file.map().err(), Some(NtStatus::UNSUCCESSFUL));
        assert_eq!(broker.0.mapped.get(), 0);
    }
}
