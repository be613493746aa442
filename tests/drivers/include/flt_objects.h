/*
 * Routines on the filter manager's objects: filters, instances, volumes, contexts, names, ports. Included by fltKernel.h.
 */
#ifndef FWBROKER_TESTS_FLT_OBJECTS_H
#define FWBROKER_TESTS_FLT_OBJECTS_H

/* ---- instances and volumes ---- */

typedef struct _FLT_VOLUME_PROPERTIES {
    DEVICE_TYPE DeviceType;
    ULONG DeviceCharacteristics;
    ULONG DeviceObjectFlags;
    ULONG AlignmentRequirement;
    USHORT SectorSize;
    USHORT Flags;
    UNICODE_STRING FileSystemDriverName;
    UNICODE_STRING FileSystemDeviceName;
    UNICODE_STRING RealDeviceName;
} FLT_VOLUME_PROPERTIES, *PFLT_VOLUME_PROPERTIES;

FLT_ASSERT_LAYOUT(sizeof(FLT_VOLUME_PROPERTIES) == 72);
#define VOL_PROP_FL_DAX_VOLUME 0x00000001

FLT_IMPORT NTSTATUS FLTAPI FltAttachVolume(PFLT_FILTER Filter, PFLT_VOLUME Volume, PCUNICODE_STRING InstanceName,
                                           PFLT_INSTANCE *RetInstance);
FLT_IMPORT NTSTATUS FLTAPI FltAttachVolumeAtAltitude(PFLT_FILTER Filter, PFLT_VOLUME Volume, PCUNICODE_STRING Altitude,
                                                     PCUNICODE_STRING InstanceName, PFLT_INSTANCE *RetInstance);
FLT_IMPORT NTSTATUS FLTAPI FltDetachVolume(PFLT_FILTER Filter, PFLT_VOLUME Volume, PCUNICODE_STRING InstanceName);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateFilters(PFLT_FILTER *FilterList, ULONG FilterListSize, PULONG NumberFiltersReturned);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateInstances(PFLT_VOLUME Volume, PFLT_FILTER Filter, PFLT_INSTANCE *InstanceList,
                                                 ULONG InstanceListSize, PULONG NumberInstancesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateVolumes(PFLT_FILTER Filter, PFLT_VOLUME *VolumeList, ULONG VolumeListSize,
                                               PULONG NumberVolumesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltGetFilterFromName(PCUNICODE_STRING FilterName, PFLT_FILTER *RetFilter);
FLT_IMPORT NTSTATUS FLTAPI FltGetFilterFromInstance(PFLT_INSTANCE Instance, PFLT_FILTER *RetFilter);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeFromName(PFLT_FILTER Filter, PCUNICODE_STRING VolumeName, PFLT_VOLUME *RetVolume);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeFromInstance(PFLT_INSTANCE Instance, PFLT_VOLUME *RetVolume);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeFromFileObject(PFLT_FILTER Filter, PFILE_OBJECT FileObject, PFLT_VOLUME *RetVolume);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeFromDeviceObject(PFLT_FILTER Filter, PDEVICE_OBJECT DeviceObject,
                                                        PFLT_VOLUME *RetVolume);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeInstanceFromName(PFLT_FILTER Filter, PFLT_VOLUME Volume,
                                                        PCUNICODE_STRING InstanceName, PFLT_INSTANCE *RetInstance);
FLT_IMPORT NTSTATUS FLTAPI FltGetTopInstance(PFLT_VOLUME Volume, PFLT_INSTANCE *Instance);
FLT_IMPORT NTSTATUS FLTAPI FltGetBottomInstance(PFLT_VOLUME Volume, PFLT_INSTANCE *Instance);
FLT_IMPORT NTSTATUS FLTAPI FltGetUpperInstance(PFLT_INSTANCE CurrentInstance, PFLT_INSTANCE *UpperInstance);
FLT_IMPORT NTSTATUS FLTAPI FltGetLowerInstance(PFLT_INSTANCE CurrentInstance, PFLT_INSTANCE *LowerInstance);
FLT_IMPORT LONG FLTAPI FltCompareInstanceAltitudes(PFLT_INSTANCE Instance1, PFLT_INSTANCE Instance2);
FLT_IMPORT NTSTATUS FLTAPI FltGetFilterInformation(PFLT_FILTER Filter, FILTER_INFORMATION_CLASS InformationClass,
                                                   PVOID Buffer, ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltGetInstanceInformation(PFLT_INSTANCE Instance, INSTANCE_INFORMATION_CLASS InformationClass,
                                                     PVOID Buffer, ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeInformation(PFLT_VOLUME Volume, FILTER_VOLUME_INFORMATION_CLASS InformationClass,
                                                   PVOID Buffer, ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateFilterInformation(ULONG Index, FILTER_INFORMATION_CLASS InformationClass,
                                                         PVOID Buffer, ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateInstanceInformationByFilter(PFLT_FILTER Filter, ULONG Index,
                                                                   INSTANCE_INFORMATION_CLASS InformationClass,
                                                                   PVOID Buffer, ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateInstanceInformationByVolume(PFLT_VOLUME Volume, ULONG Index,
                                                                   INSTANCE_INFORMATION_CLASS InformationClass,
                                                                   PVOID Buffer, ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltEnumerateVolumeInformation(PFLT_FILTER Filter, ULONG Index,
                                                         FILTER_VOLUME_INFORMATION_CLASS InformationClass, PVOID Buffer,
                                                         ULONG BufferSize, PULONG BytesReturned);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeName(PFLT_VOLUME Volume, PUNICODE_STRING VolumeName, PULONG BufferSizeNeeded);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeGuidName(PFLT_VOLUME Volume, PUNICODE_STRING VolumeGuidName, PULONG BufferSizeNeeded);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeProperties(PFLT_VOLUME Volume, PFLT_VOLUME_PROPERTIES VolumeProperties,
                                                  ULONG VolumePropertiesLength, PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltGetFileSystemType(PVOID FltObject, PFLT_FILESYSTEM_TYPE FileSystemType);
FLT_IMPORT NTSTATUS FLTAPI FltGetDeviceObject(PFLT_VOLUME Volume, PDEVICE_OBJECT *DeviceObject);
FLT_IMPORT NTSTATUS FLTAPI FltGetDiskDeviceObject(PFLT_VOLUME Volume, PDEVICE_OBJECT *DiskDeviceObject);
FLT_IMPORT BOOLEAN FLTAPI FltIsFltMgrVolumeDeviceObject(PDEVICE_OBJECT DeviceObject);
FLT_IMPORT NTSTATUS FLTAPI FltIsVolumeWritable(PVOID FltObject, PBOOLEAN IsWritable);
FLT_IMPORT NTSTATUS FLTAPI FltIsVolumeSnapshot(PVOID FltObject, PBOOLEAN IsSnapshotVolume);
FLT_IMPORT NTSTATUS FLTAPI FltQueryVolumeInformation(PFLT_INSTANCE Instance, PIO_STATUS_BLOCK Iosb, PVOID FsInformation,
                                                     ULONG Length, FS_INFORMATION_CLASS FsInformationClass);
FLT_IMPORT NTSTATUS FLTAPI FltSetVolumeInformation(PFLT_INSTANCE Instance, PIO_STATUS_BLOCK Iosb, PVOID FsInformation,
                                                   ULONG Length, FS_INFORMATION_CLASS FsInformationClass);
FLT_IMPORT NTSTATUS FLTAPI FltCreateSystemVolumeInformationFolder(PFLT_INSTANCE Instance);

/* ---- contexts ---- */

typedef enum _FLT_SET_CONTEXT_OPERATION {
    FLT_SET_CONTEXT_REPLACE_IF_EXISTS,
    FLT_SET_CONTEXT_KEEP_IF_EXISTS
} FLT_SET_CONTEXT_OPERATION, *PFLT_SET_CONTEXT_OPERATION;

FLT_IMPORT NTSTATUS FLTAPI FltAllocateContext(PFLT_FILTER Filter, FLT_CONTEXT_TYPE ContextType, SIZE_T ContextSize,
                                              POOL_TYPE PoolType, PFLT_CONTEXT *ReturnedContext);
FLT_IMPORT VOID FLTAPI FltReferenceContext(PFLT_CONTEXT Context);
FLT_IMPORT VOID FLTAPI FltReleaseContext(PFLT_CONTEXT Context);
FLT_IMPORT VOID FLTAPI FltDeleteContext(PFLT_CONTEXT Context);
FLT_IMPORT NTSTATUS FLTAPI FltSetVolumeContext(PFLT_VOLUME Volume, FLT_SET_CONTEXT_OPERATION Operation,
                                               PFLT_CONTEXT NewContext, PFLT_CONTEXT *OldContext);
FLT_IMPORT NTSTATUS FLTAPI FltGetVolumeContext(PFLT_FILTER Filter, PFLT_VOLUME Volume, PFLT_CONTEXT *Context);
FLT_IMPORT NTSTATUS FLTAPI FltDeleteVolumeContext(PFLT_FILTER Filter, PFLT_VOLUME Volume, PFLT_CONTEXT *OldContext);
FLT_IMPORT NTSTATUS FLTAPI FltSetInstanceContext(PFLT_INSTANCE Instance, FLT_SET_CONTEXT_OPERATION Operation,
                                                 PFLT_CONTEXT NewContext, PFLT_CONTEXT *OldContext);
FLT_IMPORT NTSTATUS FLTAPI FltGetInstanceContext(PFLT_INSTANCE Instance, PFLT_CONTEXT *Context);
FLT_IMPORT NTSTATUS FLTAPI FltDeleteInstanceContext(PFLT_INSTANCE Instance, PFLT_CONTEXT *OldContext);

/* Those of files, streams and handles have one form each. */
#define FLT_FILE_CONTEXT_ROUTINES(Kind)                                                                               \
    FLT_IMPORT NTSTATUS FLTAPI FltSet##Kind##Context(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,                 \
                                                     FLT_SET_CONTEXT_OPERATION Operation, PFLT_CONTEXT NewContext,    \
                                                     PFLT_CONTEXT *OldContext);                                       \
    FLT_IMPORT NTSTATUS FLTAPI FltGet##Kind##Context(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,                 \
                                                     PFLT_CONTEXT *Context);                                          \
    FLT_IMPORT NTSTATUS FLTAPI FltDelete##Kind##Context(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,              \
                                                        PFLT_CONTEXT *OldContext)
FLT_FILE_CONTEXT_ROUTINES(File);
FLT_FILE_CONTEXT_ROUTINES(Stream);
FLT_FILE_CONTEXT_ROUTINES(StreamHandle);

FLT_IMPORT BOOLEAN FLTAPI FltSupportsFileContexts(PFILE_OBJECT FileObject);
FLT_IMPORT BOOLEAN FLTAPI FltSupportsFileContextsEx(PFILE_OBJECT FileObject, PFLT_INSTANCE Instance);
FLT_IMPORT BOOLEAN FLTAPI FltSupportsStreamContexts(PFILE_OBJECT FileObject);
FLT_IMPORT BOOLEAN FLTAPI FltSupportsStreamHandleContexts(PFILE_OBJECT FileObject);
FLT_IMPORT NTSTATUS FLTAPI FltGetContexts(PCFLT_RELATED_OBJECTS FltObjects, FLT_CONTEXT_TYPE DesiredContexts,
                                          PFLT_RELATED_CONTEXTS Contexts);
FLT_IMPORT NTSTATUS FLTAPI FltGetContextsEx(PCFLT_RELATED_OBJECTS FltObjects, FLT_CONTEXT_TYPE DesiredContexts,
                                            SIZE_T ContextsSize, PFLT_RELATED_CONTEXTS_EX Contexts);
FLT_IMPORT VOID FLTAPI FltReleaseContexts(PFLT_RELATED_CONTEXTS Contexts);
FLT_IMPORT VOID FLTAPI FltReleaseContextsEx(SIZE_T ContextsSize, PFLT_RELATED_CONTEXTS_EX Contexts);

/* ---- transactions ---- */

typedef ULONG NOTIFICATION_MASK;
FLT_IMPORT NTSTATUS FLTAPI FltSetTransactionContext(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                    FLT_SET_CONTEXT_OPERATION Operation, PFLT_CONTEXT NewContext,
                                                    PFLT_CONTEXT *OldContext);
FLT_IMPORT NTSTATUS FLTAPI FltGetTransactionContext(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                    PFLT_CONTEXT *Context);
FLT_IMPORT NTSTATUS FLTAPI FltDeleteTransactionContext(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                       PFLT_CONTEXT *OldContext);
FLT_IMPORT NTSTATUS FLTAPI FltEnlistInTransaction(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                  PFLT_CONTEXT TransactionContext, NOTIFICATION_MASK NotificationMask);
FLT_IMPORT NTSTATUS FLTAPI FltRollbackEnlistment(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                 PFLT_CONTEXT TransactionContext);
FLT_IMPORT NTSTATUS FLTAPI FltPrePrepareComplete(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                 PFLT_CONTEXT TransactionContext);
FLT_IMPORT NTSTATUS FLTAPI FltPrepareComplete(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                              PFLT_CONTEXT TransactionContext);
FLT_IMPORT NTSTATUS FLTAPI FltCommitComplete(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                             PFLT_CONTEXT TransactionContext);
FLT_IMPORT NTSTATUS FLTAPI FltCommitFinalizeComplete(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                                     PFLT_CONTEXT TransactionContext);
FLT_IMPORT NTSTATUS FLTAPI FltRollbackComplete(PFLT_INSTANCE Instance, PKTRANSACTION Transaction,
                                               PFLT_CONTEXT TransactionContext);

/* ---- names ---- */

typedef USHORT FLT_FILE_NAME_PARSED_FLAGS;
#define FLTFL_FILE_NAME_PARSED_FINAL_COMPONENT 0x0001
#define FLTFL_FILE_NAME_PARSED_EXTENSION 0x0002
#define FLTFL_FILE_NAME_PARSED_STREAM 0x0004
#define FLTFL_FILE_NAME_PARSED_PARENT_DIR 0x0008

typedef struct _FLT_FILE_NAME_INFORMATION {
    USHORT Size;
    FLT_FILE_NAME_PARSED_FLAGS NamesParsed;
    FLT_FILE_NAME_OPTIONS Format;
    UNICODE_STRING Name;
    UNICODE_STRING Volume;
    UNICODE_STRING Share;
    UNICODE_STRING Extension;
    UNICODE_STRING Stream;
    UNICODE_STRING FinalComponent;
    UNICODE_STRING ParentDir;
} FLT_FILE_NAME_INFORMATION, *PFLT_FILE_NAME_INFORMATION;

FLT_ASSERT_LAYOUT(sizeof(FLT_FILE_NAME_INFORMATION) == 120);

/* FLT_FILE_NAME_OPTIONS: a format, a way to query, flags. */
#define FLT_VALID_FILE_NAME_FORMATS 0x000000ff
#define FLT_FILE_NAME_NORMALIZED 0x00000001
#define FLT_FILE_NAME_OPENED 0x00000002
#define FLT_FILE_NAME_SHORT 0x00000003
#define FLT_VALID_FILE_NAME_QUERY_METHODS 0x0000ff00
#define FLT_FILE_NAME_QUERY_DEFAULT 0x00000100
#define FLT_FILE_NAME_QUERY_CACHE_ONLY 0x00000200
#define FLT_FILE_NAME_QUERY_FILESYSTEM_ONLY 0x00000300
#define FLT_FILE_NAME_QUERY_ALWAYS_ALLOW_CACHE_LOOKUP 0x00000400
#define FLT_VALID_FILE_NAME_FLAGS 0xff000000
#define FLT_FILE_NAME_REQUEST_FROM_CURRENT_PROVIDER 0x01000000
#define FLT_FILE_NAME_DO_NOT_CACHE 0x02000000
#define FLT_FILE_NAME_ALLOW_QUERY_ON_REPARSE 0x04000000
#define FltGetFileNameFormat(NameOptions) ((NameOptions) & FLT_VALID_FILE_NAME_FORMATS)
#define FltGetFileNameQueryMethod(NameOptions) ((NameOptions) & FLT_VALID_FILE_NAME_QUERY_METHODS)

FLT_IMPORT NTSTATUS FLTAPI FltGetFileNameInformation(PFLT_CALLBACK_DATA CallbackData, FLT_FILE_NAME_OPTIONS NameOptions,
                                                     PFLT_FILE_NAME_INFORMATION *FileNameInformation);
FLT_IMPORT NTSTATUS FLTAPI FltGetFileNameInformationUnsafe(PFILE_OBJECT FileObject, PFLT_INSTANCE Instance,
                                                           FLT_FILE_NAME_OPTIONS NameOptions,
                                                           PFLT_FILE_NAME_INFORMATION *FileNameInformation);
FLT_IMPORT NTSTATUS FLTAPI FltGetDestinationFileNameInformation(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                                HANDLE RootDirectory, PWSTR FileName, ULONG FileNameLength,
                                                                FLT_FILE_NAME_OPTIONS NameOptions,
                                                                PFLT_FILE_NAME_INFORMATION *RetFileNameInformation);
FLT_IMPORT NTSTATUS FLTAPI FltGetTunneledName(PFLT_CALLBACK_DATA CallbackData,
                                              PFLT_FILE_NAME_INFORMATION FileNameInformation,
                                              PFLT_FILE_NAME_INFORMATION *RetTunneledFileNameInformation);
FLT_IMPORT NTSTATUS FLTAPI FltParseFileName(PCUNICODE_STRING FileName, PUNICODE_STRING Extension, PUNICODE_STRING Stream,
                                            PUNICODE_STRING FinalComponent);
FLT_IMPORT NTSTATUS FLTAPI FltParseFileNameInformation(PFLT_FILE_NAME_INFORMATION FileNameInformation);
FLT_IMPORT VOID FLTAPI FltReferenceFileNameInformation(PFLT_FILE_NAME_INFORMATION FileNameInformation);
FLT_IMPORT VOID FLTAPI FltReleaseFileNameInformation(PFLT_FILE_NAME_INFORMATION FileNameInformation);
FLT_IMPORT NTSTATUS FLTAPI FltPurgeFileNameInformationCache(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject);
FLT_IMPORT NTSTATUS FLTAPI FltCheckAndGrowNameControl(PFLT_NAME_CONTROL NameCtrl, USHORT NewSize);

/* ---- communication ports ---- */

#define FLT_PORT_CONNECT 0x0001
#define FLT_PORT_ALL_ACCESS (FLT_PORT_CONNECT | STANDARD_RIGHTS_ALL)

typedef NTSTATUS(FLTAPI *PFLT_CONNECT_NOTIFY)(PFLT_PORT ClientPort, PVOID ServerPortCookie, PVOID ConnectionContext,
                                              ULONG SizeOfContext, PVOID *ConnectionPortCookie);
typedef VOID(FLTAPI *PFLT_DISCONNECT_NOTIFY)(PVOID ConnectionCookie);
typedef NTSTATUS(FLTAPI *PFLT_MESSAGE_NOTIFY)(PVOID PortCookie, PVOID InputBuffer, ULONG InputBufferLength,
                                              PVOID OutputBuffer, ULONG OutputBufferLength,
                                              PULONG ReturnOutputBufferLength);

FLT_IMPORT NTSTATUS FLTAPI FltBuildDefaultSecurityDescriptor(PSECURITY_DESCRIPTOR *SecurityDescriptor,
                                                             ACCESS_MASK DesiredAccess);
FLT_IMPORT VOID FLTAPI FltFreeSecurityDescriptor(PSECURITY_DESCRIPTOR SecurityDescriptor);
FLT_IMPORT NTSTATUS FLTAPI FltCreateCommunicationPort(PFLT_FILTER Filter, PFLT_PORT *ServerPort,
                                                      POBJECT_ATTRIBUTES ObjectAttributes, PVOID ServerPortCookie,
                                                      PFLT_CONNECT_NOTIFY ConnectNotifyCallback,
                                                      PFLT_DISCONNECT_NOTIFY DisconnectNotifyCallback,
                                                      PFLT_MESSAGE_NOTIFY MessageNotifyCallback, LONG MaxConnections);
FLT_IMPORT VOID FLTAPI FltCloseCommunicationPort(PFLT_PORT ServerPort);
FLT_IMPORT VOID FLTAPI FltCloseClientPort(PFLT_FILTER Filter, PFLT_PORT *ClientPort);
FLT_IMPORT NTSTATUS FLTAPI FltSendMessage(PFLT_FILTER Filter, PFLT_PORT *ClientPort, PVOID SenderBuffer,
                                          ULONG SenderBufferLength, PVOID ReplyBuffer, PULONG ReplyLength,
                                          PLARGE_INTEGER Timeout);

#endif
