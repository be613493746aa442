//! `NTSTATUS` as a type of its own.

/// An `NTSTATUS` value: severity in the top two bits, facility, code.
///
/// The constants drop the `STATUS_` prefix and keep the rest of the name, so that
/// `STATUS_ACCESS_DENIED` is [`NtStatus::ACCESS_DENIED`]. Any 32-bit value is a valid status;
/// the ones without a constant print as a number.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[must_use]
pub struct NtStatus(pub i32);

impl NtStatus {
    /// Status with the given bits, as headers print them (`0xC0000022`).
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits.cast_signed())
    }

    /// The 32 bits of the status.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// `NT_SUCCESS`: true for success **and** informational severity.
    ///
    /// That includes `STATUS_TIMEOUT`, `STATUS_PENDING` and `STATUS_REPARSE`: where one of these
    /// can come back, compare with [`NtStatus::SUCCESS`] instead.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 >= 0
    }

    /// `NT_ERROR`: error severity (top two bits set).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.bits() >> 30 == 3
    }

    /// `Ok(())` when [`is_success`](Self::is_success), the status itself otherwise.
    ///
    /// # Errors
    /// The status, when its severity is warning or error.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }
}

/// Declares the constants of a status type and, from the same list, their names and how they print.
///
/// The type is a newtype with `from_bits` and `bits`; the prefix is what its headers put before each name.
#[macro_export]
macro_rules! statuses {
    ($type:ident, $prefix:literal; $($(#[$doc:meta])* $name:ident = $bits:expr;)*) => {
        impl $type {
            $(
                #[doc = concat!("`", $prefix, stringify!($name), "`.")]
                #[doc = ""]
                $(#[$doc])*
                pub const $name: Self = Self::from_bits($bits);
            )*

            /// The name in the headers, prefix included, if this crate knows it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(concat!($prefix, stringify!($name))),)*
                    _ => None,
                }
            }
        }

        impl ::core::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(self, f)
            }
        }

        impl ::core::fmt::Display for $type {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} (0x{:08X})", self.bits()),
                    None => write!(f, "0x{:08X}", self.bits()),
                }
            }
        }

        impl ::core::error::Error for $type {}
    };
}

statuses! {
    NtStatus, "STATUS_";
    /// The operation did what it was asked to do.
    SUCCESS = 0x0000_0000;
    /// A wait ended because the time was up. Success severity!
    TIMEOUT = 0x0000_0102;
    /// The operation goes on after the call returned. Success severity!
    PENDING = 0x0000_0103;
    /// Some of what was to be mapped could not be.
    SOME_NOT_MAPPED = 0x0000_0107;
    /// The name has to be parsed again from its new start. Success severity!
    REPARSE = 0x0000_0104;
    /// An open succeeded while an oplock break is under way. Success severity!
    OPLOCK_BREAK_IN_PROGRESS = 0x0000_0108;
    /// The oplock is another handle's now, which has the same key. Success severity!
    OPLOCK_SWITCHED_TO_NEW_HANDLE = 0x0000_0215;
    /// An object of that name existed and was opened.
    OBJECT_NAME_EXISTS = 0x4000_0000;
    /// First touch of a guard page.
    GUARD_PAGE_VIOLATION = 0x8000_0001;
    /// An address that is not aligned for its access.
    DATATYPE_MISALIGNMENT = 0x8000_0002;
    /// A breakpoint instruction ran.
    BREAKPOINT = 0x8000_0003;
    /// One instruction ran with the trap flag set.
    SINGLE_STEP = 0x8000_0004;
    /// The output did not fit; what fitted was written. Warning severity.
    BUFFER_OVERFLOW = 0x8000_0005;
    /// An enumeration is over.
    NO_MORE_FILES = 0x8000_0006;
    /// An enumeration is over.
    NO_MORE_ENTRIES = 0x8000_001A;
    /// The open met a symbolic link and was asked to stop there.
    STOPPED_ON_SYMLINK = 0x8000_002D;
    /// The operation failed, without a better status.
    UNSUCCESSFUL = 0xC000_0001;
    /// The operation is not implemented.
    NOT_IMPLEMENTED = 0xC000_0002;
    /// The information class is unknown.
    INVALID_INFO_CLASS = 0xC000_0003;
    /// A structure's length is not what its type demands.
    INFO_LENGTH_MISMATCH = 0xC000_0004;
    /// A memory access faulted.
    ACCESS_VIOLATION = 0xC000_0005;
    /// A page could not be read in.
    IN_PAGE_ERROR = 0xC000_0006;
    /// A floating-point operation has no result.
    FLOAT_INVALID_OPERATION = 0xC000_0090;
    /// An integer was divided by zero.
    INTEGER_DIVIDE_BY_ZERO = 0xC000_0094;
    /// The processor does not know the instruction.
    ILLEGAL_INSTRUCTION = 0xC000_001D;
    /// An assertion failed.
    ASSERTION_FAILURE = 0xC000_0420;
    /// The handle names nothing, or nothing of the caller's.
    INVALID_HANDLE = 0xC000_0008;
    /// A parameter is not acceptable.
    INVALID_PARAMETER = 0xC000_000D;
    /// An unwind is under way.
    UNWIND = 0xC000_0027;
    /// The device does not exist.
    NO_SUCH_DEVICE = 0xC000_000E;
    /// The file does not exist.
    NO_SUCH_FILE = 0xC000_000F;
    /// The request is not valid for the device.
    INVALID_DEVICE_REQUEST = 0xC000_0010;
    /// The read starts at or behind the end of the file.
    END_OF_FILE = 0xC000_0011;
    /// Not enough memory.
    NO_MEMORY = 0xC000_0017;
    /// The address is in use.
    CONFLICTING_ADDRESSES = 0xC000_0018;
    /// The file cannot back a section.
    INVALID_FILE_FOR_SECTION = 0xC000_0020;
    /// The caller has no right to do that.
    ACCESS_DENIED = 0xC000_0022;
    /// The output buffer cannot hold the result.
    BUFFER_TOO_SMALL = 0xC000_0023;
    /// The object is of another type.
    OBJECT_TYPE_MISMATCH = 0xC000_0024;
    /// The name is not well-formed.
    OBJECT_NAME_INVALID = 0xC000_0033;
    /// The last component of the name does not exist.
    OBJECT_NAME_NOT_FOUND = 0xC000_0034;
    /// An object of that name exists.
    OBJECT_NAME_COLLISION = 0xC000_0035;
    /// The port has no peer any more.
    PORT_DISCONNECTED = 0xC000_0037;
    /// A path component is not acceptable.
    OBJECT_PATH_INVALID = 0xC000_0039;
    /// A component before the last does not exist.
    OBJECT_PATH_NOT_FOUND = 0xC000_003A;
    /// The name lacks a separator where one has to be.
    OBJECT_PATH_SYNTAX_BAD = 0xC000_003B;
    /// Data are not what their check says.
    DATA_ERROR = 0xC000_003E;
    /// Data do not match their check sum.
    CRC_ERROR = 0xC000_003F;
    /// The section is larger than what it maps.
    SECTION_TOO_BIG = 0xC000_0040;
    /// The page protection is not valid.
    INVALID_PAGE_PROTECTION = 0xC000_0045;
    /// Another open conflicts with the access or the sharing asked for.
    SHARING_VIOLATION = 0xC000_0043;
    /// A quota is used up.
    QUOTA_EXCEEDED = 0xC000_0044;
    /// The thread is on its way out.
    THREAD_IS_TERMINATING = 0xC000_004B;
    /// A byte range is locked.
    FILE_LOCK_CONFLICT = 0xC000_0054;
    /// The file is being deleted.
    DELETE_PENDING = 0xC000_0056;
    /// The revision is not known.
    UNKNOWN_REVISION = 0xC000_0058;
    /// The revisions do not fit each other.
    REVISION_MISMATCH = 0xC000_0059;
    /// The token lacks a privilege.
    PRIVILEGE_NOT_HELD = 0xC000_0061;
    /// The image is not a program this system can run.
    INVALID_IMAGE_FORMAT = 0xC000_007B;
    /// A security descriptor is not valid.
    INVALID_SECURITY_DESCR = 0xC000_0079;
    /// The entry point does not exist.
    PROCEDURE_NOT_FOUND = 0xC000_007A;
    /// The address range is not valid.
    INVALID_ADDRESS = 0xC000_0141;
    /// A 32-bit value would overflow.
    INTEGER_OVERFLOW = 0xC000_0095;
    /// Not enough memory or other resources.
    INSUFFICIENT_RESOURCES = 0xC000_009A;
    /// Nothing is allocated at the address.
    MEMORY_NOT_ALLOCATED = 0xC000_00A0;
    /// The working set quota does not allow more pages to be locked.
    WORKING_SET_QUOTA = 0xC000_00A1;
    /// The device is not ready.
    DEVICE_NOT_READY = 0xC000_00A3;
    /// The device is in a state that does not allow the request.
    INVALID_DEVICE_STATE = 0xC000_0184;
    /// The device reported an error.
    IO_DEVICE_ERROR = 0xC000_0185;
    /// The time for an I/O request is up.
    IO_TIMEOUT = 0xC000_00B5;
    /// The name denotes a directory.
    FILE_IS_A_DIRECTORY = 0xC000_00BA;
    /// The operation is not supported here.
    NOT_SUPPORTED = 0xC000_00BB;
    /// The oplock cannot be granted.
    OPLOCK_NOT_GRANTED = 0xC000_00E2;
    /// The parameters do not fit together.
    INVALID_PARAMETER_MIX = 0xC000_0030;
    /// The first parameter is not acceptable.
    INVALID_PARAMETER_1 = 0xC000_00EF;
    /// The second parameter is not acceptable.
    INVALID_PARAMETER_2 = 0xC000_00F0;
    /// The third parameter is not acceptable.
    INVALID_PARAMETER_3 = 0xC000_00F1;
    /// The fourth parameter is not acceptable.
    INVALID_PARAMETER_4 = 0xC000_00F2;
    /// The fifth parameter is not acceptable.
    INVALID_PARAMETER_5 = 0xC000_00F3;
    /// The name denotes something that is not a directory.
    NOT_A_DIRECTORY = 0xC000_0103;
    /// The name is too long.
    NAME_TOO_LONG = 0xC000_0106;
    /// The image is already loaded.
    IMAGE_ALREADY_LOADED = 0xC000_010E;
    /// The operation was cancelled.
    CANCELLED = 0xC000_0120;
    /// The file could not be deleted.
    CANNOT_DELETE = 0xC000_0121;
    /// The file has no object id.
    OBJECTID_NOT_FOUND = 0xC000_02F0;
    /// The file was deleted.
    FILE_DELETED = 0xC000_0123;
    /// The file handle was closed already.
    FILE_CLOSED = 0xC000_0128;
    /// The driver's entry point does not exist.
    DRIVER_ENTRYPOINT_NOT_FOUND = 0xC000_0263;
    /// The driver's imports cannot be bound.
    DRIVER_UNABLE_TO_LOAD = 0xC000_026C;
    /// The device object given as a hint is not in the file's device stack.
    INVALID_DEVICE_OBJECT_PARAMETER = 0xC000_0369;
    /// The request would block and must not.
    CANT_WAIT = 0xC000_00D8;
    /// User memory cannot be read or written.
    INVALID_USER_BUFFER = 0xC000_00E8;
    /// The process is on its way out.
    PROCESS_IS_TERMINATING = 0xC000_010A;
    /// The caller holds as many open files or handles as it may.
    TOO_MANY_OPENED_FILES = 0xC000_011F;
    /// The pipe or port was broken by its peer.
    PIPE_BROKEN = 0xC000_014B;
    /// The registry data are damaged.
    REGISTRY_CORRUPT = 0xC000_014C;
    /// The address is in no mapping.
    NOT_MAPPED_VIEW = 0xC000_0019;
    /// The key was deleted while somebody had it open.
    KEY_DELETED = 0xC000_017C;
    /// The file has been closed by somebody else than the one who opened it.
    FILE_FORCED_CLOSED = 0xC000_00B6;
    /// The object is in use.
    DEVICE_BUSY = 0x8000_0011;
    /// The file's state does not allow it.
    FILE_INVALID = 0xC000_0098;
    /// No such entry.
    NOT_FOUND = 0xC000_0225;
    /// The request has to be tried again.
    RETRY = 0xC000_022D;
    /// A value of this kind exists already.
    DUPLICATE_OBJECTID = 0xC000_022A;
    /// As many connections as allowed exist.
    CONNECTION_COUNT_LIMIT = 0xC000_0246;
    /// The volume was dismounted.
    VOLUME_DISMOUNTED = 0xC000_026E;
    /// The reparse point is not known to anybody.
    IO_REPARSE_TAG_NOT_HANDLED = 0xC000_0279;
    /// The reparse point has bad data.
    IO_REPARSE_DATA_INVALID = 0xC000_0278;
    /// DriverEntry failed.
    FAILED_DRIVER_ENTRY = 0xC000_0365;
    /// A buffer's size is out of range.
    INVALID_BUFFER_SIZE = 0xC000_0206;
    /// A mount point leads away from the instance's volume.
    MOUNT_POINT_NOT_RESOLVED = 0xC000_0368;
    /// A hash is not the expected one.
    INVALID_IMAGE_HASH = 0xC000_0428;
    /// Refused by the administrator's policy.
    ACCESS_DISABLED_BY_POLICY_DEFAULT = 0xC000_0361;
    /// Content was refused by a driver's policy.
    CONTENT_BLOCKED = 0xC000_0804;
    /// Two volumes where one was expected.
    NOT_SAME_DEVICE = 0xC000_00D4;
    /// The file is larger than the limit.
    FILE_TOO_LARGE = 0xC000_0904;
    /// An oplock cannot be broken.
    CANNOT_BREAK_OPLOCK = 0xC000_0909;
    /// An oplock break was acknowledged that is not in progress.
    INVALID_OPLOCK_PROTOCOL = 0xC000_00E3;
    /// The oplock cannot be granted now, for another reason than other oplocks: a mapped section, for one.
    CANNOT_GRANT_REQUESTED_OPLOCK = 0x8000_002E;
    /// The operation is blocked because the other side is shutting down.
    SHUTDOWN_IN_PROGRESS = 0xC000_02FE;
    /// A completion routine keeps the request; its driver completes it later.
    MORE_PROCESSING_REQUIRED = 0xC000_0016;
    /// Another device is attached already.
    DEVICE_ALREADY_ATTACHED = 0xC000_0038;
    /// The thread impersonates nobody.
    NO_TOKEN = 0xC000_007C;
    /// The access list is not well-formed, or has no room.
    INVALID_ACL = 0xC000_0077;
    /// The security identifier is not well-formed.
    INVALID_SID = 0xC000_0078;
    /// The structure has no room for what is to be added.
    ALLOTTED_SPACE_EXCEEDED = 0xC000_0099;
    /// The client allows less impersonation than is asked for.
    BAD_IMPERSONATION_LEVEL = 0xC000_00A5;
    /// The token is of the other type: primary, or for impersonation.
    BAD_TOKEN_TYPE = 0xC000_00A8;
    /// The object has no security descriptor.
    NO_SECURITY_ON_OBJECT = 0xC000_00D7;
    /// A stable key cannot be made below a volatile one.
    CHILD_MUST_BE_VOLATILE = 0xC000_0181;
    /// The system is too far in its shutdown, or its start.
    TOO_LATE = 0xC000_0189;
    /// A registered callback took the operation over.
    CALLBACK_BYPASS = 0xC000_0503;
    /// A wait was ended by an APC. Success severity!
    USER_APC = 0x0000_00C0;
    /// A wait was ended by an alert. Success severity!
    ALERTED = 0x0000_0101;
    /// A notification ends with its folder's handle.
    NOTIFY_CLEANUP = 0x0000_010B;
    /// More changed than the buffer takes: look for yourself.
    NOTIFY_ENUM_DIR = 0x0000_010C;
    /// An asynchronous operation was completed by a filter.
    FLT_IO_COMPLETE = 0x001C_0001;
    /// No file, or no more extended attributes.
    NO_MORE_EAS = 0x8000_0012;
    /// The name of an extended attribute has an illegal character.
    INVALID_EA_NAME = 0x8000_0013;
    /// A list of extended attributes does not hang together.
    EA_LIST_INCONSISTENT = 0x8000_0014;
    /// Extended attributes are too large.
    EA_TOO_LARGE = 0xC000_0050;
    /// There is no extended attribute with that index.
    NONEXISTENT_EA_ENTRY = 0xC000_0051;
    /// The file has no extended attributes.
    NO_EAS_ON_FILE = 0xC000_0052;
    /// A byte-range lock cannot be granted now.
    LOCK_NOT_GRANTED = 0xC000_0055;
    /// The range is not locked by the caller.
    RANGE_NOT_LOCKED = 0xC000_007E;
    /// The disk is full.
    DISK_FULL = 0xC000_007F;
    /// A volume label is too long, or has an illegal character.
    INVALID_VOLUME_LABEL = 0xC000_0086;
    /// The folder has entries.
    DIRECTORY_NOT_EMPTY = 0xC000_0101;
    /// The volume is not locked.
    NOT_LOCKED = 0xC000_002A;
    /// A range of a byte-range lock wraps around.
    INVALID_LOCK_RANGE = 0xC000_01A1;
    /// A mapped view keeps the file from becoming shorter.
    USER_MAPPED_FILE = 0xC000_0243;
    /// The file is no reparse point.
    NOT_A_REPARSE_POINT = 0xC000_0275;
    /// A section is being made of a file that nobody writes to.
    FILE_LOCKED_WITH_ONLY_READERS = 0x0000_012A;
    /// A section is being made of a file that somebody writes to.
    FILE_LOCKED_WITH_WRITERS = 0x0000_012B;
    /// The filter has no handler for it.
    FLT_NO_HANDLER_DEFINED = 0xC01C_0001;
    /// The object has a context of this kind already.
    FLT_CONTEXT_ALREADY_DEFINED = 0xC01C_0002;
    /// An asynchronous request where only a synchronous one is allowed.
    FLT_INVALID_ASYNCHRONOUS_REQUEST = 0xC01C_0003;
    /// The fast path is refused.
    FLT_DISALLOW_FAST_IO = 0xC01C_0004;
    /// A name was asked for where none can be had.
    FLT_INVALID_NAME_REQUEST = 0xC01C_0005;
    /// The operation cannot be posted to a worker.
    FLT_NOT_SAFE_TO_POST_OPERATION = 0xC01C_0006;
    /// The filter manager is not up.
    FLT_NOT_INITIALIZED = 0xC01C_0007;
    /// The filter has not called FltStartFiltering.
    FLT_FILTER_NOT_READY = 0xC01C_0008;
    /// A post-operation has to clean up.
    FLT_POST_OPERATION_CLEANUP = 0xC01C_0009;
    /// The filter manager found itself in a bad state.
    FLT_INTERNAL_ERROR = 0xC01C_000A;
    /// The buffer was compressed, and holds nothing but zeros.
    BUFFER_ALL_ZEROS = 0x0000_0117;
    /// The thread does not own the mutant.
    MUTANT_NOT_OWNED = 0xC000_0046;
    /// The semaphore's count would go above its limit.
    SEMAPHORE_LIMIT_EXCEEDED = 0xC000_0047;
    /// A character that the code page does not have.
    UNMAPPABLE_CHARACTER = 0xC000_0162;
    /// Compressed data that is malformed, or does not fit.
    BAD_COMPRESSION_BUFFER = 0xC000_0242;
    /// The compression format is none that is supported.
    UNSUPPORTED_COMPRESSION = 0xC000_025F;
    /// Something that the file system does not do.
    FILE_SYSTEM_LIMITATION = 0xC000_0427;
    /// The object is being torn down.
    FLT_DELETING_OBJECT = 0xC01C_000B;
    /// Memory that must come from non-paged pool.
    FLT_MUST_BE_NONPAGED_POOL = 0xC01C_000C;
    /// A registration lists the same thing twice.
    FLT_DUPLICATE_ENTRY = 0xC01C_000D;
    /// The callback data queue is disabled.
    FLT_CBDQ_DISABLED = 0xC01C_000E;
    /// The filter does not want to attach here.
    FLT_DO_NOT_ATTACH = 0xC01C_000F;
    /// The filter does not want to detach, or to be unloaded, now.
    FLT_DO_NOT_DETACH = 0xC01C_0010;
    /// No process or thread has the id.
    INVALID_CID = 0xC000_000B;
    /// A view's protection is more than its section allows.
    SECTION_PROTECTION = 0xC000_004E;
    /// A view reaches behind the end of its section.
    INVALID_VIEW_SIZE = 0xC000_001F;
    /// An empty file cannot be mapped.
    MAPPED_FILE_SIZE_ZERO = 0xC000_011E;
    /// The file does not begin as an image does.
    INVALID_IMAGE_NOT_MZ = 0xC000_012F;
    /// An image was mapped elsewhere than where it was linked for.
    IMAGE_NOT_AT_BASE = 0x4000_0003;
    /// The memory is a view of a section, which is unmapped and not freed.
    UNABLE_TO_DELETE_SECTION = 0xC000_001B;
    /// The sixth parameter is not allowed.
    INVALID_PARAMETER_6 = 0xC000_00F4;
    /// The eighth parameter is not allowed.
    INVALID_PARAMETER_8 = 0xC000_00F6;
    /// The ninth parameter is not allowed.
    INVALID_PARAMETER_9 = 0xC000_00F7;
    /// Another instance has this altitude.
    FLT_INSTANCE_ALTITUDE_COLLISION = 0xC01C_0011;
    /// Another instance has this name.
    FLT_INSTANCE_NAME_COLLISION = 0xC01C_0012;
    /// No such filter.
    FLT_FILTER_NOT_FOUND = 0xC01C_0013;
    /// No such volume.
    FLT_VOLUME_NOT_FOUND = 0xC01C_0014;
    /// No such instance.
    FLT_INSTANCE_NOT_FOUND = 0xC01C_0015;
    /// No context registration fits the allocation.
    FLT_CONTEXT_ALLOCATION_NOT_FOUND = 0xC01C_0016;
    /// A context registration is not valid.
    FLT_INVALID_CONTEXT_REGISTRATION = 0xC01C_0017;
    /// The name is not in the cache and nothing else was allowed.
    FLT_NAME_CACHE_MISS = 0xC01C_0018;
    /// The volume has no device object.
    FLT_NO_DEVICE_OBJECT = 0xC01C_0019;
    /// The volume is mounted already.
    FLT_VOLUME_ALREADY_MOUNTED = 0xC01C_001A;
    /// The filter is enlisted in the transaction already.
    FLT_ALREADY_ENLISTED = 0xC01C_001B;
    /// The context is attached to another object.
    FLT_CONTEXT_ALREADY_LINKED = 0xC01C_001C;
    /// Nobody waits for this reply.
    FLT_NO_WAITER_FOR_REPLY = 0xC01C_0020;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::NtStatus;
    use std::string::ToString;

    #[test]
    fn a_timeout_counts_as_success_and_a_warning_does_not() {
        assert!(NtStatus::TIMEOUT.is_success());
        assert!(!NtStatus::BUFFER_OVERFLOW.is_success());
        assert!(!NtStatus::BUFFER_OVERFLOW.is_error());
        assert_eq!(NtStatus::ACCESS_DENIED.ok(), Err(NtStatus::ACCESS_DENIED));
    }

    #[test]
    fn known_statuses_print_their_name_and_unknown_ones_their_bits() {
        assert_eq!(NtStatus::ACCESS_DENIED.to_string(), "STATUS_ACCESS_DENIED (0xC0000022)");
        assert_eq!(NtStatus::from_bits(0xE012_3456).to_string(), "0xE0123456");
    }
}
