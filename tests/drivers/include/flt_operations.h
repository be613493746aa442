/*
 * What a minifilter's callback is told of an operation: FLT_PARAMETERS with all its members, FLT_CALLBACK_DATA, and the
 * macros that ask about them. Included by fltKernel.h.
 *
 * The kit aligns some members to pointers (POINTER_ALIGNMENT), others not: each offset that this decides is asserted.
 */
#ifndef FWBROKER_TESTS_FLT_OPERATIONS_H
#define FWBROKER_TESTS_FLT_OPERATIONS_H

/* Operations that have no IRP: fast I/O, and what memory and cache manager ask. */
#define IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION ((UCHAR)-1)
#define IRP_MJ_RELEASE_FOR_SECTION_SYNCHRONIZATION ((UCHAR)-2)
#define IRP_MJ_ACQUIRE_FOR_MOD_WRITE ((UCHAR)-3)
#define IRP_MJ_RELEASE_FOR_MOD_WRITE ((UCHAR)-4)
#define IRP_MJ_ACQUIRE_FOR_CC_FLUSH ((UCHAR)-5)
#define IRP_MJ_RELEASE_FOR_CC_FLUSH ((UCHAR)-6)
#define IRP_MJ_QUERY_OPEN ((UCHAR)-7)
#define IRP_MJ_FAST_IO_CHECK_IF_POSSIBLE ((UCHAR)-13)
#define IRP_MJ_NETWORK_QUERY_OPEN ((UCHAR)-14)
#define IRP_MJ_MDL_READ ((UCHAR)-15)
#define IRP_MJ_MDL_READ_COMPLETE ((UCHAR)-16)
#define IRP_MJ_PREPARE_MDL_WRITE ((UCHAR)-17)
#define IRP_MJ_MDL_WRITE_COMPLETE ((UCHAR)-18)
#define IRP_MJ_VOLUME_MOUNT ((UCHAR)-19)
#define IRP_MJ_VOLUME_DISMOUNT ((UCHAR)-20)
#define FLT_INTERNAL_OPERATION_COUNT 22
#ifndef IRP_MJ_OPERATION_END
#define IRP_MJ_OPERATION_END ((UCHAR)0x80)
#endif

/* Members of these names occur in more than one operation. */
#define FLT_IOCTL_LENGTHS(Code) \
    ULONG OutputBufferLength;  \
    ULONG POINTER_ALIGNMENT InputBufferLength; \
    ULONG POINTER_ALIGNMENT Code
#define FLT_TRANSFER(Buffer)           \
    ULONG Length;                      \
    ULONG POINTER_ALIGNMENT Key;       \
    LARGE_INTEGER ByteOffset;          \
    PVOID Buffer;                      \
    PMDL MdlAddress

#pragma pack(push, 8)
typedef union _FLT_PARAMETERS {
    struct {
        PIO_SECURITY_CONTEXT SecurityContext;
        ULONG Options; /* disposition in the highest 8 bits, create options below */
        USHORT POINTER_ALIGNMENT FileAttributes;
        USHORT ShareAccess;
        ULONG POINTER_ALIGNMENT EaLength;
        PVOID EaBuffer;
        LARGE_INTEGER AllocationSize;
    } Create;
    struct {
        PIO_SECURITY_CONTEXT SecurityContext;
        ULONG Options;
        USHORT POINTER_ALIGNMENT Reserved;
        USHORT ShareAccess;
        PVOID Parameters; /* NAMED_PIPE_CREATE_PARAMETERS */
    } CreatePipe;
    struct {
        PIO_SECURITY_CONTEXT SecurityContext;
        ULONG Options;
        USHORT POINTER_ALIGNMENT Reserved;
        USHORT ShareAccess;
        PVOID Parameters; /* MAILSLOT_CREATE_PARAMETERS */
    } CreateMailslot;
    struct {
        FLT_TRANSFER(ReadBuffer);
    } Read;
    struct {
        FLT_TRANSFER(WriteBuffer);
    } Write;
    struct {
        ULONG Length;
        FILE_INFORMATION_CLASS POINTER_ALIGNMENT FileInformationClass;
        PVOID InfoBuffer;
    } QueryFileInformation;
    struct {
        ULONG Length;
        FILE_INFORMATION_CLASS POINTER_ALIGNMENT FileInformationClass;
        PFILE_OBJECT ParentOfTarget;
        union {
            struct {
                BOOLEAN ReplaceIfExists;
                BOOLEAN AdvanceOnly;
            };
            ULONG ClusterCount;
            HANDLE DeleteHandle;
        };
        PVOID InfoBuffer;
    } SetFileInformation;
    struct {
        ULONG Length;
        PVOID EaList;
        ULONG EaListLength;
        ULONG POINTER_ALIGNMENT EaIndex;
        PVOID EaBuffer;
        PMDL MdlAddress;
    } QueryEa;
    struct {
        ULONG Length;
        PVOID EaBuffer;
        PMDL MdlAddress;
    } SetEa;
    struct {
        ULONG Length;
        FS_INFORMATION_CLASS POINTER_ALIGNMENT FsInformationClass;
        PVOID VolumeBuffer;
    } QueryVolumeInformation;
    struct {
        ULONG Length;
        FS_INFORMATION_CLASS POINTER_ALIGNMENT FsInformationClass;
        PVOID VolumeBuffer;
    } SetVolumeInformation;
    union {
        struct {
            ULONG Length;
            PUNICODE_STRING FileName;
            FILE_INFORMATION_CLASS FileInformationClass;
            ULONG POINTER_ALIGNMENT FileIndex;
            PVOID DirectoryBuffer;
            PMDL MdlAddress;
        } QueryDirectory;
        struct {
            ULONG Length;
            ULONG POINTER_ALIGNMENT CompletionFilter;
            ULONG POINTER_ALIGNMENT Spare1;
            ULONG POINTER_ALIGNMENT Spare2;
            PVOID DirectoryBuffer;
            PMDL MdlAddress;
        } NotifyDirectory;
        struct {
            ULONG Length;
            ULONG POINTER_ALIGNMENT CompletionFilter;
            DIRECTORY_NOTIFY_INFORMATION_CLASS POINTER_ALIGNMENT DirectoryNotifyInformationClass;
            ULONG POINTER_ALIGNMENT Spare2;
            PVOID DirectoryBuffer;
            PMDL MdlAddress;
        } NotifyDirectoryEx;
    } DirectoryControl;
    union {
        struct {
            PVPB Vpb;
            PDEVICE_OBJECT DeviceObject;
        } VerifyVolume;
        struct {
            FLT_IOCTL_LENGTHS(FsControlCode);
        } Common;
        struct {
            FLT_IOCTL_LENGTHS(FsControlCode);
            PVOID InputBuffer;
            PVOID OutputBuffer;
            PMDL OutputMdlAddress;
        } Neither;
        struct {
            FLT_IOCTL_LENGTHS(FsControlCode);
            PVOID SystemBuffer;
        } Buffered;
        struct {
            FLT_IOCTL_LENGTHS(FsControlCode);
            PVOID InputSystemBuffer;
            PVOID OutputBuffer;
            PMDL OutputMdlAddress;
        } Direct;
    } FileSystemControl;
    union {
        struct {
            FLT_IOCTL_LENGTHS(IoControlCode);
        } Common;
        struct {
            FLT_IOCTL_LENGTHS(IoControlCode);
            PVOID InputBuffer;
            PVOID OutputBuffer;
            PMDL OutputMdlAddress;
        } Neither;
        struct {
            FLT_IOCTL_LENGTHS(IoControlCode);
            PVOID SystemBuffer;
        } Buffered;
        struct {
            FLT_IOCTL_LENGTHS(IoControlCode);
            PVOID InputSystemBuffer;
            PVOID OutputBuffer;
            PMDL OutputMdlAddress;
        } Direct;
        struct {
            FLT_IOCTL_LENGTHS(IoControlCode);
            PVOID InputBuffer;
            PVOID OutputBuffer;
        } FastIo;
    } DeviceIoControl;
    struct {
        PLARGE_INTEGER Length;
        ULONG POINTER_ALIGNMENT Key;
        LARGE_INTEGER ByteOffset;
        PEPROCESS ProcessId;
        BOOLEAN FailImmediately;
        BOOLEAN ExclusiveLock;
    } LockControl;
    struct {
        SECURITY_INFORMATION SecurityInformation;
        ULONG POINTER_ALIGNMENT Length;
        PVOID SecurityBuffer;
        PMDL MdlAddress;
    } QuerySecurity;
    struct {
        SECURITY_INFORMATION SecurityInformation;
        PSECURITY_DESCRIPTOR SecurityDescriptor;
    } SetSecurity;
    struct {
        ULONG_PTR ProviderId;
        PVOID DataPath;
        ULONG BufferSize;
        PVOID Buffer;
    } WMI;
    struct {
        ULONG Length;
        PSID StartSid;
        PFILE_GET_QUOTA_INFORMATION SidList;
        ULONG SidListLength;
        PVOID QuotaBuffer;
        PMDL MdlAddress;
    } QueryQuota;
    struct {
        ULONG Length;
        PVOID QuotaBuffer;
        PMDL MdlAddress;
    } SetQuota;
    union {
        struct {
            PCM_RESOURCE_LIST AllocatedResources;
            PCM_RESOURCE_LIST AllocatedResourcesTranslated;
        } StartDevice;
        struct {
            DEVICE_RELATION_TYPE Type;
        } QueryDeviceRelations;
        struct {
            CONST GUID *InterfaceType;
            USHORT Size;
            USHORT Version;
            PINTERFACE Interface;
            PVOID InterfaceSpecificData;
        } QueryInterface;
        struct {
            PDEVICE_CAPABILITIES Capabilities;
        } DeviceCapabilities;
        struct {
            PIO_RESOURCE_REQUIREMENTS_LIST IoResourceRequirementList;
        } FilterResourceRequirements;
        struct {
            ULONG WhichSpace;
            PVOID Buffer;
            ULONG Offset;
            ULONG POINTER_ALIGNMENT Length;
        } ReadWriteConfig;
        struct {
            BOOLEAN Lock;
        } SetLock;
        struct {
            BUS_QUERY_ID_TYPE IdType;
        } QueryId;
        struct {
            DEVICE_TEXT_TYPE DeviceTextType;
            LCID POINTER_ALIGNMENT LocaleId;
        } QueryDeviceText;
        struct {
            BOOLEAN InPath;
            BOOLEAN Reserved[3];
            DEVICE_USAGE_NOTIFICATION_TYPE POINTER_ALIGNMENT Type;
        } UsageNotification;
    } Pnp;
    struct {
        FS_FILTER_SECTION_SYNC_TYPE SyncType;
        ULONG PageProtection;
        PVOID OutputInformation; /* FS_FILTER_SECTION_SYNC_OUTPUT */
        ULONG Flags;
        ULONG AllocationAttributes;
    } AcquireForSectionSynchronization;
    struct {
        PLARGE_INTEGER EndingOffset;
        PERESOURCE *ResourceToRelease;
    } AcquireForModifiedPageWriter;
    struct {
        PERESOURCE ResourceToRelease;
    } ReleaseForModifiedPageWriter;
    struct {
        PIRP Irp;
        PVOID FileInformation;
        PULONG Length;
        FILE_INFORMATION_CLASS FileInformationClass;
    } QueryOpen;
    struct {
        LARGE_INTEGER FileOffset;
        ULONG Length;
        ULONG POINTER_ALIGNMENT LockKey;
        BOOLEAN POINTER_ALIGNMENT CheckForReadOperation;
    } FastIoCheckIfPossible;
    struct {
        PIRP Irp;
        PFILE_NETWORK_OPEN_INFORMATION NetworkInformation;
    } NetworkQueryOpen;
    struct {
        LARGE_INTEGER FileOffset;
        ULONG POINTER_ALIGNMENT Length;
        ULONG POINTER_ALIGNMENT Key;
        PMDL *MdlChain;
    } MdlRead;
    struct {
        PMDL MdlChain;
    } MdlReadComplete;
    struct {
        LARGE_INTEGER FileOffset;
        ULONG POINTER_ALIGNMENT Length;
        ULONG POINTER_ALIGNMENT Key;
        PMDL *MdlChain;
    } PrepareMdlWrite;
    struct {
        LARGE_INTEGER FileOffset;
        PMDL MdlChain;
    } MdlWriteComplete;
    struct {
        ULONG DeviceType;
    } MountVolume;
    struct {
        PVOID Argument1;
        PVOID Argument2;
        PVOID Argument3;
        PVOID Argument4;
        PVOID Argument5;
        LARGE_INTEGER Argument6;
    } Others;
} FLT_PARAMETERS, *PFLT_PARAMETERS;
#pragma pack(pop)

FLT_ASSERT_LAYOUT(sizeof(FLT_PARAMETERS) == 48);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.FileAttributes) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.ShareAccess) == 18);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.EaLength) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.AllocationSize) == 40);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, CreatePipe.Parameters) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Read.Key) == 8);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Read.ReadBuffer) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Write.WriteBuffer) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QueryFileInformation.InfoBuffer) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, SetFileInformation.FileInformationClass) == 8);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, SetFileInformation.InfoBuffer) == 32);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QueryEa.EaIndex) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QueryVolumeInformation.VolumeBuffer) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, DirectoryControl.QueryDirectory.FileIndex) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, DirectoryControl.QueryDirectory.MdlAddress) == 40);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, DirectoryControl.NotifyDirectory.CompletionFilter) == 8);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, DirectoryControl.NotifyDirectory.DirectoryBuffer) == 32);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, FileSystemControl.Common.FsControlCode) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, FileSystemControl.Neither.OutputMdlAddress) == 40);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, DeviceIoControl.Buffered.SystemBuffer) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, LockControl.ProcessId) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, LockControl.ExclusiveLock) == 33);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QuerySecurity.SecurityBuffer) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QueryQuota.QuotaBuffer) == 32);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, AcquireForSectionSynchronization.PageProtection) == 4);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, AcquireForSectionSynchronization.AllocationAttributes) == 20);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QueryOpen.FileInformationClass) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, FastIoCheckIfPossible.CheckForReadOperation) == 24);

typedef struct _FLT_IO_PARAMETER_BLOCK {
    ULONG IrpFlags;
    UCHAR MajorFunction;
    UCHAR MinorFunction;
    UCHAR OperationFlags;
    UCHAR Reserved;
    PFILE_OBJECT TargetFileObject;
    PFLT_INSTANCE TargetInstance;
    FLT_PARAMETERS Parameters;
} FLT_IO_PARAMETER_BLOCK, *PFLT_IO_PARAMETER_BLOCK;

FLT_ASSERT_LAYOUT(sizeof(FLT_IO_PARAMETER_BLOCK) == 72);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_IO_PARAMETER_BLOCK, Parameters) == 24);

/* A reparse point's data, as a completed create carries it. */
typedef struct _FLT_TAG_DATA_BUFFER {
    ULONG FileTag;
    USHORT TagDataLength;
    USHORT UnparsedNameLength;
    union {
        struct {
            USHORT SubstituteNameOffset;
            USHORT SubstituteNameLength;
            USHORT PrintNameOffset;
            USHORT PrintNameLength;
            ULONG Flags;
            WCHAR PathBuffer[1];
        } SymbolicLinkReparseBuffer;
        struct {
            USHORT SubstituteNameOffset;
            USHORT SubstituteNameLength;
            USHORT PrintNameOffset;
            USHORT PrintNameLength;
            WCHAR PathBuffer[1];
        } MountPointReparseBuffer;
        struct {
            UCHAR DataBuffer[1];
        } GenericReparseBuffer;
        struct {
            GUID TagGuid;
            UCHAR DataBuffer[1];
        } GenericGUIDReparseBuffer;
    };
} FLT_TAG_DATA_BUFFER, *PFLT_TAG_DATA_BUFFER;
#define FLT_TAG_DATA_BUFFER_HEADER_SIZE FIELD_OFFSET(FLT_TAG_DATA_BUFFER, GenericReparseBuffer)
FLT_ASSERT_LAYOUT(FLT_TAG_DATA_BUFFER_HEADER_SIZE == 8);

typedef ULONG FLT_CALLBACK_DATA_FLAGS;
#define FLTFL_CALLBACK_DATA_REISSUE_MASK 0x0000FFFF
#define FLTFL_CALLBACK_DATA_IRP_OPERATION 0x00000001
#define FLTFL_CALLBACK_DATA_FAST_IO_OPERATION 0x00000002
#define FLTFL_CALLBACK_DATA_FS_FILTER_OPERATION 0x00000004
#define FLTFL_CALLBACK_DATA_SYSTEM_BUFFER 0x00000008
#define FLTFL_CALLBACK_DATA_GENERATED_IO 0x00010000
#define FLTFL_CALLBACK_DATA_REISSUED_IO 0x00020000
#define FLTFL_CALLBACK_DATA_DRAINING_IO 0x00040000
#define FLTFL_CALLBACK_DATA_POST_OPERATION 0x00080000
#define FLTFL_CALLBACK_DATA_NEW_SYSTEM_BUFFER 0x00100000
#define FLTFL_CALLBACK_DATA_DIRTY 0x80000000

typedef struct _FLT_CALLBACK_DATA {
    FLT_CALLBACK_DATA_FLAGS Flags;
    PETHREAD CONST Thread;
    PFLT_IO_PARAMETER_BLOCK CONST Iopb;
    IO_STATUS_BLOCK IoStatus;
    struct _FLT_TAG_DATA_BUFFER *TagData;
    union {
        struct {
            LIST_ENTRY QueueLinks;
            PVOID QueueContext[2];
        };
        PVOID FilterContext[4];
    };
    KPROCESSOR_MODE RequestorMode;
} FLT_CALLBACK_DATA, *PFLT_CALLBACK_DATA;

FLT_ASSERT_LAYOUT(sizeof(FLT_CALLBACK_DATA) == 88);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_CALLBACK_DATA, IoStatus) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_CALLBACK_DATA, FilterContext) == 48);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_CALLBACK_DATA, RequestorMode) == 80);

#define FLT_IS_IRP_OPERATION(Data) (((Data)->Flags & FLTFL_CALLBACK_DATA_IRP_OPERATION) != 0)
#define FLT_IS_FASTIO_OPERATION(Data) (((Data)->Flags & FLTFL_CALLBACK_DATA_FAST_IO_OPERATION) != 0)
#define FLT_IS_FS_FILTER_OPERATION(Data) (((Data)->Flags & FLTFL_CALLBACK_DATA_FS_FILTER_OPERATION) != 0)
#define FLT_IS_SYSTEM_BUFFER(Data) (((Data)->Flags & FLTFL_CALLBACK_DATA_SYSTEM_BUFFER) != 0)
#define FLT_IS_REISSUED_IO(Data) (((Data)->Flags & FLTFL_CALLBACK_DATA_REISSUED_IO) != 0)

typedef struct _FLT_RELATED_OBJECTS {
    USHORT CONST Size;
    USHORT CONST TransactionContext;
    PFLT_FILTER CONST Filter;
    PFLT_VOLUME CONST Volume;
    PFLT_INSTANCE CONST Instance;
    PFILE_OBJECT CONST FileObject;
    PKTRANSACTION CONST Transaction;
} FLT_RELATED_OBJECTS, *PFLT_RELATED_OBJECTS;
typedef CONST FLT_RELATED_OBJECTS *PCFLT_RELATED_OBJECTS;

FLT_ASSERT_LAYOUT(sizeof(FLT_RELATED_OBJECTS) == 48);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_RELATED_OBJECTS, Instance) == 24);

#endif
