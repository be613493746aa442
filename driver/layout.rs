//! Proof that the official bindings and our own declarations mean the same bytes.
//!
//! Calls of ntoskrnl go through wdk-sys, everything else uses nt-types; pointers are cast between the two. The bindings come from
//! whatever headers the build found, so each structure that crosses is compared here. DEVICE_OBJECT is the exception:
//! MinGW's header lacks its 16-byte alignment, and this driver never reads one.

use core::mem::offset_of;

macro_rules! same_layout {
    ($ours:ident, $theirs:ident $(, $field:ident)*) => {
        const _: () = assert!(size_of::<nt_types::$ours>() == size_of::<wdk_sys::$theirs>());
        $(const _: () = assert!(offset_of!(nt_types::$ours, $field) == offset_of!(wdk_sys::$theirs, $field));)*
    };
}

same_layout!(UNICODE_STRING, UNICODE_STRING, Length, MaximumLength, Buffer);
same_layout!(OBJECT_ATTRIBUTES, OBJECT_ATTRIBUTES, RootDirectory, ObjectName, Attributes, SecurityDescriptor);
same_layout!(DRIVER_OBJECT, DRIVER_OBJECT, DriverName, DriverUnload, MajorFunction);
same_layout!(IRP, IRP, IoStatus, RequestorMode, UserBuffer);
same_layout!(IO_STACK_LOCATION, IO_STACK_LOCATION, Parameters, DeviceObject, FileObject);
same_layout!(FILE_OBJECT, FILE_OBJECT, SectionObjectPointer, Flags, FileName);
same_layout!(MDL, MDL, MdlFlags, MappedSystemVa, ByteCount, ByteOffset);
same_layout!(KEVENT, KEVENT, Header);
