/*
 * Declarations of the filter manager for drivers that are built without the Windows Driver Kit.
 *
 * Written from the pages of the reference (wdk-ddi-src/content/fltkernel) and from layouts measured on x64; mingw-w64 has no
 * fltKernel.h. Only what the drivers in this folder use is here. Every structure that a driver and the filter manager share has
 * its size and the offsets that padding decides asserted. With the real kit on the include path, this file is not needed.
 */
#ifndef FWBROKER_TESTS_FLTKERNEL_H
#define FWBROKER_TESTS_FLTKERNEL_H

#include <ntifs.h>

/* Imported functions, as the kit declares them: a call then goes through the import table without a thunk. */
#define FLTAPI NTSYSAPI
#define FLT_ASSERT_LAYOUT(condition) _Static_assert(condition, "the layout differs from that of Windows on x64")

/* Objects of the filter manager: opaque, referenced with FltObjectReference. */
typedef struct _FLT_FILTER *PFLT_FILTER;
typedef struct _FLT_VOLUME *PFLT_VOLUME;
typedef struct _FLT_INSTANCE *PFLT_INSTANCE;
typedef struct _FLT_PORT *PFLT_PORT;
typedef struct _FLT_GENERIC_WORKITEM *PFLT_GENERIC_WORKITEM;
typedef struct _FLT_DEFERRED_IO_WORKITEM *PFLT_DEFERRED_IO_WORKITEM;
typedef PVOID PFLT_CONTEXT;

/* ---- operations: what a callback is told ---- */

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
        ULONG Length;
        ULONG POINTER_ALIGNMENT Key;
        LARGE_INTEGER ByteOffset;
        PVOID ReadBuffer;
        PMDL MdlAddress;
    } Read;
    struct {
        ULONG Length;
        ULONG POINTER_ALIGNMENT Key;
        LARGE_INTEGER ByteOffset;
        PVOID WriteBuffer;
        PMDL MdlAddress;
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
        PVOID Argument1;
        PVOID Argument2;
        PVOID Argument3;
        PVOID Argument4;
        PVOID Argument5;
        LARGE_INTEGER Argument6;
    } Others;
} FLT_PARAMETERS, *PFLT_PARAMETERS;

FLT_ASSERT_LAYOUT(sizeof(FLT_PARAMETERS) == 48);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.FileAttributes) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.ShareAccess) == 18);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.EaLength) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Create.AllocationSize) == 40);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Read.Key) == 8);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Read.ReadBuffer) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, Write.WriteBuffer) == 24);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, QueryFileInformation.InfoBuffer) == 16);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, SetFileInformation.FileInformationClass) == 8);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_PARAMETERS, SetFileInformation.InfoBuffer) == 32);

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

typedef ULONG FLT_CALLBACK_DATA_FLAGS;
#define FLTFL_CALLBACK_DATA_IRP_OPERATION 0x00000001
#define FLTFL_CALLBACK_DATA_GENERATED_IO 0x00010000
#define FLTFL_CALLBACK_DATA_POST_OPERATION 0x00080000
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
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_CALLBACK_DATA, RequestorMode) == 80);

typedef struct _FLT_RELATED_OBJECTS {
    USHORT CONST Size;
    USHORT CONST TransactionContext;
    PFLT_FILTER CONST Filter;
    PFLT_VOLUME CONST Volume;
    PFLT_INSTANCE CONST Instance;
    PFILE_OBJECT CONST FileObject;
    struct _KTRANSACTION *CONST Transaction;
} FLT_RELATED_OBJECTS, *PFLT_RELATED_OBJECTS;
typedef const FLT_RELATED_OBJECTS *PCFLT_RELATED_OBJECTS;

FLT_ASSERT_LAYOUT(sizeof(FLT_RELATED_OBJECTS) == 48);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_RELATED_OBJECTS, Instance) == 24);

typedef enum _FLT_PREOP_CALLBACK_STATUS {
    FLT_PREOP_SUCCESS_WITH_CALLBACK,
    FLT_PREOP_SUCCESS_NO_CALLBACK,
    FLT_PREOP_PENDING,
    FLT_PREOP_DISALLOW_FASTIO,
    FLT_PREOP_COMPLETE,
    FLT_PREOP_SYNCHRONIZE,
    FLT_PREOP_DISALLOW_FSFILTER_IO
} FLT_PREOP_CALLBACK_STATUS;

typedef enum _FLT_POSTOP_CALLBACK_STATUS {
    FLT_POSTOP_FINISHED_PROCESSING,
    FLT_POSTOP_MORE_PROCESSING_REQUIRED,
    FLT_POSTOP_DISALLOW_FSFILTER_IO
} FLT_POSTOP_CALLBACK_STATUS;

typedef ULONG FLT_POST_OPERATION_FLAGS;
#define FLTFL_POST_OPERATION_DRAINING 0x00000001

typedef FLT_PREOP_CALLBACK_STATUS(NTAPI *PFLT_PRE_OPERATION_CALLBACK)(PFLT_CALLBACK_DATA Data,
                                                                       PCFLT_RELATED_OBJECTS FltObjects,
                                                                       PVOID *CompletionContext);
typedef FLT_POSTOP_CALLBACK_STATUS(NTAPI *PFLT_POST_OPERATION_CALLBACK)(PFLT_CALLBACK_DATA Data,
                                                                         PCFLT_RELATED_OBJECTS FltObjects,
                                                                         PVOID CompletionContext,
                                                                         FLT_POST_OPERATION_FLAGS Flags);

/* ---- registration ---- */

typedef USHORT FLT_CONTEXT_TYPE;
#define FLT_VOLUME_CONTEXT 0x0001
#define FLT_INSTANCE_CONTEXT 0x0002
#define FLT_FILE_CONTEXT 0x0004
#define FLT_STREAM_CONTEXT 0x0008
#define FLT_STREAMHANDLE_CONTEXT 0x0010
#define FLT_TRANSACTION_CONTEXT 0x0020
#define FLT_SECTION_CONTEXT 0x0040
#define FLT_CONTEXT_END 0xffff

typedef USHORT FLT_CONTEXT_REGISTRATION_FLAGS;
typedef VOID(NTAPI *PFLT_CONTEXT_CLEANUP_CALLBACK)(PFLT_CONTEXT Context, FLT_CONTEXT_TYPE ContextType);
typedef PVOID(NTAPI *PFLT_CONTEXT_ALLOCATE_CALLBACK)(POOL_TYPE PoolType, SIZE_T Size, FLT_CONTEXT_TYPE ContextType);
typedef VOID(NTAPI *PFLT_CONTEXT_FREE_CALLBACK)(PVOID Pool, FLT_CONTEXT_TYPE ContextType);
#define FLT_VARIABLE_SIZED_CONTEXTS ((SIZE_T)-1)

typedef struct _FLT_CONTEXT_REGISTRATION {
    FLT_CONTEXT_TYPE ContextType;
    FLT_CONTEXT_REGISTRATION_FLAGS Flags;
    PFLT_CONTEXT_CLEANUP_CALLBACK ContextCleanupCallback;
    SIZE_T Size;
    ULONG PoolTag;
    PFLT_CONTEXT_ALLOCATE_CALLBACK ContextAllocateCallback;
    PFLT_CONTEXT_FREE_CALLBACK ContextFreeCallback;
    PVOID Reserved1;
} FLT_CONTEXT_REGISTRATION, *PFLT_CONTEXT_REGISTRATION;

FLT_ASSERT_LAYOUT(sizeof(FLT_CONTEXT_REGISTRATION) == 56);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_CONTEXT_REGISTRATION, PoolTag) == 24);

typedef ULONG FLT_OPERATION_REGISTRATION_FLAGS;
#define IRP_MJ_OPERATION_END ((UCHAR)0x80)

typedef struct _FLT_OPERATION_REGISTRATION {
    UCHAR MajorFunction;
    FLT_OPERATION_REGISTRATION_FLAGS Flags;
    PFLT_PRE_OPERATION_CALLBACK PreOperation;
    PFLT_POST_OPERATION_CALLBACK PostOperation;
    PVOID Reserved1;
} FLT_OPERATION_REGISTRATION, *PFLT_OPERATION_REGISTRATION;

FLT_ASSERT_LAYOUT(sizeof(FLT_OPERATION_REGISTRATION) == 32);

typedef ULONG FLT_FILTER_UNLOAD_FLAGS;
#define FLTFL_FILTER_UNLOAD_MANDATORY 0x00000001
typedef NTSTATUS(NTAPI *PFLT_FILTER_UNLOAD_CALLBACK)(FLT_FILTER_UNLOAD_FLAGS Flags);

typedef ULONG FLT_INSTANCE_SETUP_FLAGS;
typedef enum _FLT_FILESYSTEM_TYPE {
    FLT_FSTYPE_UNKNOWN,
    FLT_FSTYPE_RAW,
    FLT_FSTYPE_NTFS,
    FLT_FSTYPE_FAT
} FLT_FILESYSTEM_TYPE;
typedef NTSTATUS(NTAPI *PFLT_INSTANCE_SETUP_CALLBACK)(PCFLT_RELATED_OBJECTS FltObjects, FLT_INSTANCE_SETUP_FLAGS Flags,
                                                      DEVICE_TYPE VolumeDeviceType,
                                                      FLT_FILESYSTEM_TYPE VolumeFilesystemType);
typedef ULONG FLT_INSTANCE_QUERY_TEARDOWN_FLAGS;
typedef NTSTATUS(NTAPI *PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK)(PCFLT_RELATED_OBJECTS FltObjects,
                                                               FLT_INSTANCE_QUERY_TEARDOWN_FLAGS Flags);
typedef ULONG FLT_INSTANCE_TEARDOWN_FLAGS;
typedef VOID(NTAPI *PFLT_INSTANCE_TEARDOWN_CALLBACK)(PCFLT_RELATED_OBJECTS FltObjects, FLT_INSTANCE_TEARDOWN_FLAGS Reason);

typedef USHORT FLT_REGISTRATION_FLAGS;
#define FLT_REGISTRATION_VERSION 0x0203

typedef struct _FLT_REGISTRATION {
    USHORT Size;
    USHORT Version;
    ULONG Flags;
    const FLT_CONTEXT_REGISTRATION *ContextRegistration;
    const FLT_OPERATION_REGISTRATION *OperationRegistration;
    PFLT_FILTER_UNLOAD_CALLBACK FilterUnloadCallback;
    PFLT_INSTANCE_SETUP_CALLBACK InstanceSetupCallback;
    PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK InstanceQueryTeardownCallback;
    PFLT_INSTANCE_TEARDOWN_CALLBACK InstanceTeardownStartCallback;
    PFLT_INSTANCE_TEARDOWN_CALLBACK InstanceTeardownCompleteCallback;
    PVOID GenerateFileNameCallback;
    PVOID NormalizeNameComponentCallback;
    PVOID NormalizeContextCleanupCallback;
    PVOID TransactionNotificationCallback;
    PVOID NormalizeNameComponentExCallback;
    PVOID SectionNotificationCallback;
} FLT_REGISTRATION, *PFLT_REGISTRATION;

FLT_ASSERT_LAYOUT(sizeof(FLT_REGISTRATION) == 112);
FLT_ASSERT_LAYOUT(FIELD_OFFSET(FLT_REGISTRATION, SectionNotificationCallback) == 104);

FLTAPI NTSTATUS NTAPI FltRegisterFilter(PDRIVER_OBJECT Driver, const FLT_REGISTRATION *Registration, PFLT_FILTER *RetFilter);
FLTAPI NTSTATUS NTAPI FltStartFiltering(PFLT_FILTER Filter);
FLTAPI VOID NTAPI FltUnregisterFilter(PFLT_FILTER Filter);
FLTAPI NTSTATUS NTAPI FltObjectReference(PVOID FltObject);
FLTAPI VOID NTAPI FltObjectDereference(PVOID FltObject);

/* ---- callback data ---- */

FLTAPI VOID NTAPI FltSetCallbackDataDirty(PFLT_CALLBACK_DATA Data);
FLTAPI VOID NTAPI FltCompletePendedPreOperation(PFLT_CALLBACK_DATA CallbackData, FLT_PREOP_CALLBACK_STATUS CallbackStatus,
                                                PVOID Context);
FLTAPI VOID NTAPI FltCompletePendedPostOperation(PFLT_CALLBACK_DATA CallbackData);
FLTAPI NTSTATUS NTAPI FltLockUserBuffer(PFLT_CALLBACK_DATA CallbackData);
FLTAPI ULONG NTAPI FltGetRequestorProcessId(PFLT_CALLBACK_DATA CallbackData);
FLTAPI BOOLEAN NTAPI FltDoCompletionProcessingWhenSafe(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                       PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags,
                                                       PFLT_POST_OPERATION_CALLBACK SafePostCallback,
                                                       FLT_POSTOP_CALLBACK_STATUS *RetPostOperationStatus);

/* ---- contexts ---- */

typedef enum _FLT_SET_CONTEXT_OPERATION {
    FLT_SET_CONTEXT_REPLACE_IF_EXISTS,
    FLT_SET_CONTEXT_KEEP_IF_EXISTS
} FLT_SET_CONTEXT_OPERATION;

FLTAPI NTSTATUS NTAPI FltAllocateContext(PFLT_FILTER Filter, FLT_CONTEXT_TYPE ContextType, SIZE_T ContextSize,
                                         POOL_TYPE PoolType, PFLT_CONTEXT *ReturnedContext);
FLTAPI VOID NTAPI FltReferenceContext(PFLT_CONTEXT Context);
FLTAPI VOID NTAPI FltReleaseContext(PFLT_CONTEXT Context);
FLTAPI VOID NTAPI FltDeleteContext(PFLT_CONTEXT Context);
FLTAPI NTSTATUS NTAPI FltSetVolumeContext(PFLT_VOLUME Volume, FLT_SET_CONTEXT_OPERATION Operation, PFLT_CONTEXT NewContext,
                                          PFLT_CONTEXT *OldContext);
FLTAPI NTSTATUS NTAPI FltGetVolumeContext(PFLT_FILTER Filter, PFLT_VOLUME Volume, PFLT_CONTEXT *Context);
FLTAPI NTSTATUS NTAPI FltSetInstanceContext(PFLT_INSTANCE Instance, FLT_SET_CONTEXT_OPERATION Operation,
                                            PFLT_CONTEXT NewContext, PFLT_CONTEXT *OldContext);
FLTAPI NTSTATUS NTAPI FltGetInstanceContext(PFLT_INSTANCE Instance, PFLT_CONTEXT *Context);
FLTAPI NTSTATUS NTAPI FltSetFileContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, FLT_SET_CONTEXT_OPERATION Operation,
                                        PFLT_CONTEXT NewContext, PFLT_CONTEXT *OldContext);
FLTAPI NTSTATUS NTAPI FltGetFileContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PFLT_CONTEXT *Context);
FLTAPI NTSTATUS NTAPI FltSetStreamContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                          FLT_SET_CONTEXT_OPERATION Operation, PFLT_CONTEXT NewContext,
                                          PFLT_CONTEXT *OldContext);
FLTAPI NTSTATUS NTAPI FltDeleteStreamContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PFLT_CONTEXT *OldContext);
FLTAPI NTSTATUS NTAPI FltGetStreamContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PFLT_CONTEXT *Context);
FLTAPI NTSTATUS NTAPI FltSetStreamHandleContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                FLT_SET_CONTEXT_OPERATION Operation, PFLT_CONTEXT NewContext,
                                                PFLT_CONTEXT *OldContext);
FLTAPI NTSTATUS NTAPI FltGetStreamHandleContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PFLT_CONTEXT *Context);

/* ---- names ---- */

typedef struct _FLT_FILE_NAME_INFORMATION {
    USHORT Size;
    USHORT NamesParsed;
    ULONG Format;
    UNICODE_STRING Name;
    UNICODE_STRING Volume;
    UNICODE_STRING Share;
    UNICODE_STRING Extension;
    UNICODE_STRING Stream;
    UNICODE_STRING FinalComponent;
    UNICODE_STRING ParentDir;
} FLT_FILE_NAME_INFORMATION, *PFLT_FILE_NAME_INFORMATION;

FLT_ASSERT_LAYOUT(sizeof(FLT_FILE_NAME_INFORMATION) == 120);

typedef ULONG FLT_FILE_NAME_OPTIONS;
#define FLT_FILE_NAME_NORMALIZED 0x00000001
#define FLT_FILE_NAME_OPENED 0x00000002
#define FLT_FILE_NAME_SHORT 0x00000003
#define FLT_FILE_NAME_QUERY_DEFAULT 0x00000100

FLTAPI NTSTATUS NTAPI FltGetFileNameInformation(PFLT_CALLBACK_DATA CallbackData, FLT_FILE_NAME_OPTIONS NameOptions,
                                                PFLT_FILE_NAME_INFORMATION *FileNameInformation);
FLTAPI NTSTATUS NTAPI FltGetDestinationFileNameInformation(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                           HANDLE RootDirectory, PWSTR FileName, ULONG FileNameLength,
                                                           FLT_FILE_NAME_OPTIONS NameOptions,
                                                           PFLT_FILE_NAME_INFORMATION *RetFileNameInformation);
FLTAPI NTSTATUS NTAPI FltParseFileNameInformation(PFLT_FILE_NAME_INFORMATION FileNameInformation);
FLTAPI VOID NTAPI FltReferenceFileNameInformation(PFLT_FILE_NAME_INFORMATION FileNameInformation);
FLTAPI VOID NTAPI FltReleaseFileNameInformation(PFLT_FILE_NAME_INFORMATION FileNameInformation);
FLTAPI NTSTATUS NTAPI FltGetVolumeName(PFLT_VOLUME Volume, PUNICODE_STRING VolumeName, PULONG BufferSizeNeeded);
FLTAPI NTSTATUS NTAPI FltGetVolumeFromName(PFLT_FILTER Filter, const UNICODE_STRING *VolumeName, PFLT_VOLUME *RetVolume);

/* ---- files ---- */

#define FLTFL_IO_OPERATION_NON_CACHED 0x00000001
typedef ULONG FLT_IO_OPERATION_FLAGS;
typedef VOID(NTAPI *PFLT_COMPLETED_ASYNC_IO_CALLBACK)(PFLT_CALLBACK_DATA CallbackData, PFLT_CONTEXT Context);

FLTAPI NTSTATUS NTAPI FltCreateFileEx(PFLT_FILTER Filter, PFLT_INSTANCE Instance, PHANDLE FileHandle, PFILE_OBJECT *FileObject,
                                      ACCESS_MASK DesiredAccess, POBJECT_ATTRIBUTES ObjectAttributes,
                                      PIO_STATUS_BLOCK IoStatusBlock, PLARGE_INTEGER AllocationSize, ULONG FileAttributes,
                                      ULONG ShareAccess, ULONG CreateDisposition, ULONG CreateOptions, PVOID EaBuffer,
                                      ULONG EaLength, ULONG Flags);
FLTAPI NTSTATUS NTAPI FltReadFile(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject, PLARGE_INTEGER ByteOffset,
                                  ULONG Length, PVOID Buffer, FLT_IO_OPERATION_FLAGS Flags, PULONG BytesRead,
                                  PFLT_COMPLETED_ASYNC_IO_CALLBACK CallbackRoutine, PVOID CallbackContext);
FLTAPI NTSTATUS NTAPI FltQueryInformationFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PVOID FileInformation,
                                              ULONG Length, FILE_INFORMATION_CLASS FileInformationClass,
                                              PULONG LengthReturned);
FLTAPI NTSTATUS NTAPI FltClose(HANDLE FileHandle);

/* ---- work items ---- */

typedef VOID(NTAPI *PFLT_GENERIC_WORKITEM_ROUTINE)(PFLT_GENERIC_WORKITEM FltWorkItem, PVOID FltObject, PVOID Context);
FLTAPI PFLT_GENERIC_WORKITEM NTAPI FltAllocateGenericWorkItem(void);
FLTAPI VOID NTAPI FltFreeGenericWorkItem(PFLT_GENERIC_WORKITEM FltWorkItem);
FLTAPI NTSTATUS NTAPI FltQueueGenericWorkItem(PFLT_GENERIC_WORKITEM FltWorkItem, PVOID FltObject,
                                              PFLT_GENERIC_WORKITEM_ROUTINE WorkerRoutine, WORK_QUEUE_TYPE QueueType,
                                              PVOID Context);

/* ---- communication ports ---- */

#define FLT_PORT_CONNECT 0x0001
#define FLT_PORT_ALL_ACCESS (FLT_PORT_CONNECT | STANDARD_RIGHTS_ALL)

typedef NTSTATUS(NTAPI *PFLT_CONNECT_NOTIFY)(PFLT_PORT ClientPort, PVOID ServerPortCookie, PVOID ConnectionContext,
                                             ULONG SizeOfContext, PVOID *ConnectionPortCookie);
typedef VOID(NTAPI *PFLT_DISCONNECT_NOTIFY)(PVOID ConnectionCookie);
typedef NTSTATUS(NTAPI *PFLT_MESSAGE_NOTIFY)(PVOID PortCookie, PVOID InputBuffer, ULONG InputBufferLength,
                                             PVOID OutputBuffer, ULONG OutputBufferLength,
                                             PULONG ReturnOutputBufferLength);

FLTAPI NTSTATUS NTAPI FltBuildDefaultSecurityDescriptor(PSECURITY_DESCRIPTOR *SecurityDescriptor, ACCESS_MASK DesiredAccess);
FLTAPI VOID NTAPI FltFreeSecurityDescriptor(PSECURITY_DESCRIPTOR SecurityDescriptor);
FLTAPI NTSTATUS NTAPI FltCreateCommunicationPort(PFLT_FILTER Filter, PFLT_PORT *ServerPort, POBJECT_ATTRIBUTES ObjectAttributes,
                                                 PVOID ServerPortCookie, PFLT_CONNECT_NOTIFY ConnectNotifyCallback,
                                                 PFLT_DISCONNECT_NOTIFY DisconnectNotifyCallback,
                                                 PFLT_MESSAGE_NOTIFY MessageNotifyCallback, LONG MaxConnections);
FLTAPI VOID NTAPI FltCloseCommunicationPort(PFLT_PORT ServerPort);
FLTAPI VOID NTAPI FltCloseClientPort(PFLT_FILTER Filter, PFLT_PORT *ClientPort);
FLTAPI NTSTATUS NTAPI FltSendMessage(PFLT_FILTER Filter, PFLT_PORT *ClientPort, PVOID SenderBuffer, ULONG SenderBufferLength,
                                     PVOID ReplyBuffer, PULONG ReplyLength, PLARGE_INTEGER Timeout);

/* ---- statuses ---- */

#define STATUS_FLT_DELETING_OBJECT ((NTSTATUS)0xC01C000BL)
#define STATUS_FLT_DO_NOT_ATTACH ((NTSTATUS)0xC01C000FL)
#define STATUS_FLT_DO_NOT_DETACH ((NTSTATUS)0xC01C0010L)
#define STATUS_FLT_CONTEXT_ALREADY_DEFINED ((NTSTATUS)0xC01C0002L)

#endif
