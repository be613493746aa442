//! Addresses that a driver hands to an export.

use std::fmt;
use std::marker::PhantomData;

/// An address that its sender says points at a `T`.
///
/// Exports take their pointer parameters as `Raw`, because nothing about a driver's pointer is known before it is
/// used: it may be NULL, dangling or a user address. Each access is one volatile copy, never a reference, so that the
/// compiler concludes nothing from it and two threads of a driver that race on a structure stay the driver's business.
/// A bad address faults inside the export; the machine's fault handler reports that as the driver's error. Do not hold
/// a lock of the host across an access: whoever faults does not come back to release it.
#[repr(transparent)]
pub(crate) struct Raw<T> {
    address: usize,
    of: PhantomData<*mut T>,
}

impl<T> Clone for Raw<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Raw<T> {}

impl<T> PartialEq for Raw<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> fmt::Debug for Raw<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

impl<T> Raw<T> {
    /// NULL.
    pub(crate) const NULL: Self = Self { address: 0, of: PhantomData };

    /// The `T` that is said to be at `address`.
    pub(crate) const fn at(address: usize) -> Self {
        Self { address, of: PhantomData }
    }

    /// The `T` behind a pointer of an NT structure.
    pub(crate) fn of(pointer: *mut T) -> Self {
        Self::at(pointer.expose_provenance())
    }

    pub(crate) const fn address(self) -> usize {
        self.address
    }

    pub(crate) const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The pointer, to be stored in an NT structure.
    pub(crate) fn pointer(self) -> *mut T {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    /// `Some(self)` unless NULL: optional parameters.
    pub(crate) fn some(self) -> Option<Self> {
        (!self.is_null()).then_some(self)
    }

    /// The same address, seen as another type.
    pub(crate) const fn cast<U>(self) -> Raw<U> {
        Raw::at(self.address)
    }

    /// What lies `bytes` further on: a field, by `offset_of!`.
    pub(crate) const fn field<U>(self, bytes: usize) -> Raw<U> {
        Raw::at(self.address.wrapping_add(bytes))
    }

    /// Element `index` of an array that starts here.
    pub(crate) const fn index(self, index: usize) -> Self {
        self.field(index.wrapping_mul(size_of::<T>()))
    }
}

impl<T: Copy> Raw<T> {
    /// Copies the value out.
    pub(crate) fn read(self) -> T {
        if self.address.is_multiple_of(align_of::<T>()) {
            // SAFETY: the driver vouches for its pointer under the DDI's contract; a false address faults and is reported.
            unsafe { self.pointer().read_volatile() }
        } else {
            // SAFETY: as above; x86-64 reads unaligned data, and so do drivers.
            unsafe { self.pointer().read_unaligned() }
        }
    }

    /// Copies `value` in.
    pub(crate) fn write(self, value: T) {
        if self.address.is_multiple_of(align_of::<T>()) {
            // SAFETY: the driver vouches for its pointer under the DDI's contract; a false address faults and is reported.
            unsafe { self.pointer().write_volatile(value) }
        } else {
            // SAFETY: as above; x86-64 writes unaligned data, and so do drivers.
            unsafe { self.pointer().write_unaligned(value) }
        }
    }

    /// Copies `value` in unless the pointer is NULL: optional out parameters.
    pub(crate) fn write_if_some(self, value: T) {
        if let Some(pointer) = self.some() {
            pointer.write(value);
        }
    }

    /// Copies `count` elements out.
    pub(crate) fn read_slice(self, count: usize) -> Vec<T> {
        (0..count).map(|index| self.index(index).read()).collect()
    }
}

impl Raw<u8> {
    /// Copies `length` bytes out.
    pub(crate) fn read_bytes(self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes, length);
        bytes
    }

    /// Copies `length` bytes out, behind those that `bytes` has.
    pub(crate) fn append_to(self, bytes: &mut Vec<u8>, length: usize) {
        bytes.reserve(length);
        let end = bytes.spare_capacity_mut().as_mut_ptr().cast();
        // SAFETY: the target is ours and at least as long; the source is the driver's claim, see `read`.
        unsafe { self.pointer().copy_to_nonoverlapping(end, length) };
        let length = bytes.len() + length;
        // SAFETY: reserved above, and just written.
        unsafe { bytes.set_len(length) };
    }

    /// Copies as many bytes out as `bytes` has room for.
    pub(crate) fn read_into(self, bytes: &mut [u8]) {
        // SAFETY: the target is ours; the source is the driver's claim, see `read`.
        unsafe { self.pointer().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Copies `bytes` in.
    pub(crate) fn write_bytes(self, bytes: &[u8]) {
        // SAFETY: the source is ours; the target is the driver's claim, see `write`.
        unsafe { self.pointer().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Sets `length` bytes to `value`.
    pub(crate) fn fill(self, value: u8, length: usize) {
        // SAFETY: the range is the driver's claim, see `write`.
        unsafe { self.pointer().write_bytes(value, length) };
    }
}

/// One field of an NT structure behind a [`Raw`]: `field!(irp, IRP, UserIosb)` is a `Raw` of the field's own type.
macro_rules! field {
    ($raw:expr, $type:ty, $($field:tt)+) => {
        $crate::nt::raw::typed_field(
            $raw,
            std::mem::offset_of!($type, $($field)+),
            |structure: &$type| &raw const structure.$($field)+,
        )
    };
}
pub(crate) use field;

/// See [`field!`]; `_witness` only names the field's type.
pub(crate) fn typed_field<T, F>(raw: Raw<T>, offset: usize, _witness: fn(&T) -> *const F) -> Raw<F> {
    raw.field(offset)
}
