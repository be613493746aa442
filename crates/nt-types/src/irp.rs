//! I/O request packets.

use crate::{
    BOOLEAN, DEVICE_OBJECT, FILE_OBJECT, IO_STATUS_BLOCK, KEVENT, KIRQL, KPROCESSOR_MODE, LARGE_INTEGER, LIST_ENTRY,
    MDL, NtStatus, PVOID,
};
use core::fmt;

/// `IRP`. DDI page: `wdm/ns-wdm-_irp`. `Tail.Overlay` is written out as plain fields: its other
/// views (an APC, a completion key) are the I/O manager's own.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IRP {
    /// `IO_TYPE_IRP`: 6.
    pub Type: i16,
    /// Bytes of the IRP and its stack locations.
    pub Size: u16,
    /// Pages of a direct-I/O buffer.
    pub MdlAddress: *mut MDL,
    /// [`IrpFlags`] bits.
    pub Flags: u32,
    /// `AssociatedIrp.SystemBuffer` (also `MasterIrp`, `IrpCount`).
    pub SystemBuffer: PVOID,
    /// Link in the thread's list.
    pub ThreadListEntry: LIST_ENTRY,
    /// Outcome.
    pub IoStatus: IO_STATUS_BLOCK,
    /// Who asks: [`KERNEL_MODE`](crate::KERNEL_MODE) or [`USER_MODE`](crate::USER_MODE).
    pub RequestorMode: KPROCESSOR_MODE,
    /// A lower driver returned STATUS_PENDING.
    pub PendingReturned: BOOLEAN,
    /// Stack locations.
    pub StackCount: i8,
    /// Current stack location, counting down from `StackCount + 1`.
    pub CurrentLocation: i8,
    /// The request is to be cancelled.
    pub Cancel: BOOLEAN,
    /// IRQL to go back to after the cancel lock.
    pub CancelIrql: KIRQL,
    /// The I/O manager's.
    pub ApcEnvironment: i8,
    /// The I/O manager's.
    pub AllocationFlags: u8,
    /// Where the outcome is copied.
    pub UserIosb: *mut IO_STATUS_BLOCK,
    /// Signalled at completion.
    pub UserEvent: *mut KEVENT,
    /// `Overlay`: APC routine and context, or allocation size of a create.
    pub Overlay: [PVOID; 2],
    /// Called when the request is cancelled.
    pub CancelRoutine: DRIVER_CANCEL,
    /// Caller's buffer.
    pub UserBuffer: PVOID,
    /// `Tail.Overlay.DriverContext`: for the driver that holds the IRP.
    pub DriverContext: [PVOID; 4],
    /// `Tail.Overlay.Thread`: who asked.
    pub Thread: PVOID,
    /// `Tail.Overlay.AuxiliaryBuffer`.
    pub AuxiliaryBuffer: PVOID,
    /// `Tail.Overlay.ListEntry`: for the driver that holds the IRP.
    pub ListEntry: LIST_ENTRY,
    /// `Tail.Overlay.CurrentStackLocation`: what `IoGetCurrentIrpStackLocation` reads.
    pub CurrentStackLocation: *mut IO_STACK_LOCATION,
    /// `Tail.Overlay.OriginalFileObject`.
    pub OriginalFileObject: *mut FILE_OBJECT,
    /// The I/O manager's.
    pub IrpExtension: PVOID,
}

crate::assert_layout!(IRP, 208, {
    Type: 0, Size: 2, MdlAddress: 8, Flags: 16, SystemBuffer: 24, ThreadListEntry: 32,
    IoStatus: 48, RequestorMode: 64, PendingReturned: 65, StackCount: 66, CurrentLocation: 67,
    Cancel: 68, CancelIrql: 69, UserIosb: 72, UserEvent: 80, Overlay: 88, CancelRoutine: 104,
    UserBuffer: 112, DriverContext: 120, Thread: 152, AuxiliaryBuffer: 160, ListEntry: 168,
    CurrentStackLocation: 184, OriginalFileObject: 192,
});

/// `DRIVER_CANCEL`: runs at DISPATCH_LEVEL with the cancel lock held.
pub type DRIVER_CANCEL = Option<unsafe extern "efiapi" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP)>;

/// `IO_COMPLETION_ROUTINE`: IRQL <= DISPATCH_LEVEL.
pub type IO_COMPLETION_ROUTINE =
    Option<unsafe extern "efiapi" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP, Context: PVOID) -> NtStatus>;

/// `IO_STACK_LOCATION`: one driver's view of a request. DDI page: `wdm/ns-wdm-_io_stack_location`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_STACK_LOCATION {
    /// `IRP_MJ_*`.
    pub MajorFunction: u8,
    /// `IRP_MN_*`.
    pub MinorFunction: u8,
    /// `SL_*` flags, meaning depends on the major function.
    pub Flags: u8,
    /// `SL_*` completion flags.
    pub Control: u8,
    /// Parameters of the major function.
    pub Parameters: IoStackParameters,
    /// Device that the request is for.
    pub DeviceObject: *mut DEVICE_OBJECT,
    /// Open that it came through.
    pub FileObject: *mut FILE_OBJECT,
    /// Called when a lower driver completes the request.
    pub CompletionRoutine: IO_COMPLETION_ROUTINE,
    /// Its last argument.
    pub Context: PVOID,
}

crate::assert_layout!(IO_STACK_LOCATION, 72, {
    MajorFunction: 0, MinorFunction: 1, Flags: 2, Control: 3, Parameters: 8, DeviceObject: 40,
    FileObject: 48, CompletionRoutine: 56, Context: 64,
});

/// The `Parameters` union: the members this project reads or writes.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IoStackParameters {
    /// IRP_MJ_CREATE.
    pub Create: IoStackCreate,
    /// IRP_MJ_READ.
    pub Read: IoStackTransfer,
    /// IRP_MJ_WRITE.
    pub Write: IoStackTransfer,
    /// IRP_MJ_DEVICE_CONTROL and IRP_MJ_INTERNAL_DEVICE_CONTROL.
    pub DeviceIoControl: IoStackDeviceIoControl,
    /// IRP_MJ_QUERY_INFORMATION.
    pub QueryFile: IoStackQueryFile,
    /// Any other: four words.
    pub Others: [PVOID; 4],
}

crate::assert_layout!(IoStackParameters, 32);

impl fmt::Debug for IoStackParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Which member is live depends on MajorFunction, which is not here.
        f.write_str("IoStackParameters")
    }
}

/// `Parameters.Create`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IoStackCreate {
    /// `IO_SECURITY_CONTEXT`.
    pub SecurityContext: PVOID,
    /// Create options in the low 24 bits, disposition in the high 8.
    pub Options: u32,
    _pad0: u32,
    /// File attributes.
    pub FileAttributes: u16,
    /// Share access.
    pub ShareAccess: u16,
    _pad1: u32,
    /// Bytes of extended attributes.
    pub EaLength: u32,
    _pad2: u32,
}

crate::assert_layout!(IoStackCreate, 32, {
    SecurityContext: 0, Options: 8, FileAttributes: 16, ShareAccess: 18, EaLength: 24,
});

impl IoStackCreate {
    /// Parameters without security context and extended attributes.
    #[must_use]
    pub const fn new(options: u32, file_attributes: u16, share_access: u16) -> Self {
        Self {
            SecurityContext: core::ptr::null_mut(),
            Options: options,
            _pad0: 0,
            FileAttributes: file_attributes,
            ShareAccess: share_access,
            _pad1: 0,
            EaLength: 0,
            _pad2: 0,
        }
    }
}

/// `Parameters.Read`, `Parameters.Write`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IoStackTransfer {
    /// Bytes.
    pub Length: u32,
    _pad0: u32,
    /// Byte-range lock key.
    pub Key: u32,
    _pad1: u32,
    /// Offset in bytes.
    pub ByteOffset: LARGE_INTEGER,
}

crate::assert_layout!(IoStackTransfer, 24, { Length: 0, Key: 8, ByteOffset: 16 });

impl IoStackTransfer {
    /// A transfer of `length` bytes at `offset`.
    #[must_use]
    pub const fn new(length: u32, offset: LARGE_INTEGER) -> Self {
        Self { Length: length, _pad0: 0, Key: 0, _pad1: 0, ByteOffset: offset }
    }
}

/// `Parameters.DeviceIoControl`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IoStackDeviceIoControl {
    /// Bytes of the output buffer.
    pub OutputBufferLength: u32,
    _pad0: u32,
    /// Bytes of the input buffer.
    pub InputBufferLength: u32,
    _pad1: u32,
    /// Control code ([`ctl_code`]).
    pub IoControlCode: u32,
    _pad2: u32,
    /// Input buffer of a METHOD_NEITHER code.
    pub Type3InputBuffer: PVOID,
}

crate::assert_layout!(IoStackDeviceIoControl, 32, {
    OutputBufferLength: 0, InputBufferLength: 8, IoControlCode: 16, Type3InputBuffer: 24,
});

impl IoStackDeviceIoControl {
    /// Parameters of a request with the given code and buffer lengths.
    #[must_use]
    pub const fn new(code: u32, input_length: u32, output_length: u32) -> Self {
        Self {
            OutputBufferLength: output_length,
            _pad0: 0,
            InputBufferLength: input_length,
            _pad1: 0,
            IoControlCode: code,
            _pad2: 0,
            Type3InputBuffer: core::ptr::null_mut(),
        }
    }
}

/// `Parameters.QueryFile`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IoStackQueryFile {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// Information class.
    pub FileInformationClass: i32,
    _pad1: u32,
}

crate::assert_layout!(IoStackQueryFile, 16, { Length: 0, FileInformationClass: 8 });

/// `CTL_CODE`: device type, function, method (0 buffered .. 3 neither) and access as one number.
#[must_use]
pub const fn ctl_code(device_type: u32, function: u32, method: u32, access: u32) -> u32 {
    device_type << 16 | access << 14 | function << 2 | method
}

/// Buffers are copied by the I/O manager.
pub const METHOD_BUFFERED: u32 = 0;
/// Buffers are the caller's own addresses.
pub const METHOD_NEITHER: u32 = 3;
/// Any access will do.
pub const FILE_ANY_ACCESS: u32 = 0;

bitflags::bitflags! {
    /// `IRP_*`: flags of an [`IRP`], as a minifilter also sees them in its I/O parameter block.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct IrpFlags: u32 {
        /// Not through the cache.
        const NOCACHE = 0x0000_0001;
        /// Paging I/O.
        const PAGING_IO = 0x0000_0002;
        /// From a synchronous interface.
        const SYNCHRONOUS_API = 0x0000_0004;
        /// Has a system buffer.
        const BUFFERED_IO = 0x0000_0010;
        /// The I/O manager frees the system buffer.
        const DEALLOCATE_BUFFER = 0x0000_0020;
        /// Synchronous paging I/O (also: the system buffer is copied back).
        const SYNCHRONOUS_PAGING_IO = 0x0000_0040;
        /// A create.
        const CREATE_OPERATION = 0x0000_0080;
        /// A read.
        const READ_OPERATION = 0x0000_0100;
        /// A write.
        const WRITE_OPERATION = 0x0000_0200;
        /// A close.
        const CLOSE_OPERATION = 0x0000_0400;
    }
}

/// `IO_NO_INCREMENT`: a completion that boosts nobody's priority.
pub const IO_NO_INCREMENT: i8 = 0;

/// Control flag: `IoMarkIrpPending` was called.
pub const SL_PENDING_RETURNED: u8 = 0x01;
/// Control flag: call the completion routine on cancellation.
pub const SL_INVOKE_ON_CANCEL: u8 = 0x20;
/// Control flag: call the completion routine on success.
pub const SL_INVOKE_ON_SUCCESS: u8 = 0x40;
/// Control flag: call the completion routine on error.
pub const SL_INVOKE_ON_ERROR: u8 = 0x80;

/// Declares the major functions with their numbers.
macro_rules! major_functions {
    ($($name:ident = $value:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            pub const $name: u8 = $value;
        )*
    };
}

major_functions! {
    IRP_MJ_CREATE = 0x00;
    IRP_MJ_CREATE_NAMED_PIPE = 0x01;
    IRP_MJ_CLOSE = 0x02;
    IRP_MJ_READ = 0x03;
    IRP_MJ_WRITE = 0x04;
    IRP_MJ_QUERY_INFORMATION = 0x05;
    IRP_MJ_SET_INFORMATION = 0x06;
    IRP_MJ_QUERY_EA = 0x07;
    IRP_MJ_SET_EA = 0x08;
    IRP_MJ_FLUSH_BUFFERS = 0x09;
    IRP_MJ_QUERY_VOLUME_INFORMATION = 0x0A;
    IRP_MJ_SET_VOLUME_INFORMATION = 0x0B;
    IRP_MJ_DIRECTORY_CONTROL = 0x0C;
    IRP_MJ_FILE_SYSTEM_CONTROL = 0x0D;
    IRP_MJ_DEVICE_CONTROL = 0x0E;
    IRP_MJ_INTERNAL_DEVICE_CONTROL = 0x0F;
    IRP_MJ_SHUTDOWN = 0x10;
    IRP_MJ_LOCK_CONTROL = 0x11;
    IRP_MJ_CLEANUP = 0x12;
    IRP_MJ_CREATE_MAILSLOT = 0x13;
    IRP_MJ_QUERY_SECURITY = 0x14;
    IRP_MJ_SET_SECURITY = 0x15;
    IRP_MJ_POWER = 0x16;
    IRP_MJ_SYSTEM_CONTROL = 0x17;
    IRP_MJ_DEVICE_CHANGE = 0x18;
    IRP_MJ_QUERY_QUOTA = 0x19;
    IRP_MJ_SET_QUOTA = 0x1A;
    IRP_MJ_PNP = 0x1B;
}
