/*
 * Routines on operations and files: callback data, I/O of the filter's own, locks, work items, queues, sections, extra create
 * parameters. Included by fltKernel.h.
 */
#ifndef FWBROKER_TESTS_FLT_IO_H
#define FWBROKER_TESTS_FLT_IO_H

/* ---- callback data ---- */

typedef VOID(FLTAPI *PFLT_COMPLETE_CANCELED_CALLBACK)(PFLT_CALLBACK_DATA CallbackData);
typedef VOID(FLTAPI *PFLT_COMPLETE_LOCK_CALLBACK_DATA_ROUTINE_TYPE)(PVOID Context, PFLT_CALLBACK_DATA CallbackData);
typedef VOID(FLTAPI *PFLT_GET_OPERATION_STATUS_CALLBACK)(PCFLT_RELATED_OBJECTS FltObjects,
                                                         PFLT_IO_PARAMETER_BLOCK IopbSnapshot, NTSTATUS OperationStatus,
                                                         PVOID RequesterContext);

FLT_IMPORT VOID FLTAPI FltSetCallbackDataDirty(PFLT_CALLBACK_DATA Data);
FLT_IMPORT VOID FLTAPI FltClearCallbackDataDirty(PFLT_CALLBACK_DATA Data);
FLT_IMPORT BOOLEAN FLTAPI FltIsCallbackDataDirty(PFLT_CALLBACK_DATA Data);
FLT_IMPORT BOOLEAN FLTAPI FltIsOperationSynchronous(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT BOOLEAN FLTAPI FltIs32bitProcess(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT PEPROCESS FLTAPI FltGetRequestorProcess(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT ULONG FLTAPI FltGetRequestorProcessId(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT HANDLE FLTAPI FltGetRequestorProcessIdEx(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltGetRequestorSessionId(PFLT_CALLBACK_DATA CallbackData, PULONG SessionId);
FLT_IMPORT NTSTATUS FLTAPI FltLockUserBuffer(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltDecodeParameters(PFLT_CALLBACK_DATA CallbackData, PMDL **MdlAddressPointer, PVOID **Buffer,
                                               PULONG *Length, LOCK_OPERATION *DesiredAccess);
FLT_IMPORT PMDL FLTAPI FltGetSwappedBufferMdlAddress(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT VOID FLTAPI FltRetainSwappedBufferMdlAddress(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT PVOID FLTAPI FltGetNewSystemBufferAddress(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT VOID FLTAPI FltCompletePendedPreOperation(PFLT_CALLBACK_DATA CallbackData,
                                                     FLT_PREOP_CALLBACK_STATUS CallbackStatus, PVOID Context);
FLT_IMPORT VOID FLTAPI FltCompletePendedPostOperation(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT BOOLEAN FLTAPI FltDoCompletionProcessingWhenSafe(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                            PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags,
                                                            PFLT_POST_OPERATION_CALLBACK SafePostCallback,
                                                            PFLT_POSTOP_CALLBACK_STATUS RetPostOperationStatus);
FLT_IMPORT NTSTATUS FLTAPI FltRequestOperationStatusCallback(PFLT_CALLBACK_DATA Data,
                                                             PFLT_GET_OPERATION_STATUS_CALLBACK CallbackRoutine,
                                                             PVOID RequesterContext);
FLT_IMPORT BOOLEAN FLTAPI FltCancelIo(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltSetCancelCompletion(PFLT_CALLBACK_DATA CallbackData,
                                                  PFLT_COMPLETE_CANCELED_CALLBACK CanceledCallback);
FLT_IMPORT NTSTATUS FLTAPI FltClearCancelCompletion(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT BOOLEAN FLTAPI FltIsIoCanceled(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltCancellableWaitForSingleObject(PVOID Object, PLARGE_INTEGER Timeout,
                                                             PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltCancellableWaitForMultipleObjects(ULONG Count, PVOID ObjectArray[], WAIT_TYPE WaitType,
                                                                PLARGE_INTEGER Timeout, PKWAIT_BLOCK WaitBlockArray,
                                                                PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT PCHAR FLTAPI FltGetIrpName(UCHAR IrpMajorCode);

/* ---- I/O that the filter makes itself ---- */

typedef ULONG FLT_IO_OPERATION_FLAGS;
#define FLTFL_IO_OPERATION_NON_CACHED 0x00000001
#define FLTFL_IO_OPERATION_PAGING 0x00000002
#define FLTFL_IO_OPERATION_DO_NOT_UPDATE_BYTE_OFFSET 0x00000004
#define FLTFL_IO_OPERATION_SYNCHRONOUS_PAGING 0x00000008
typedef VOID(FLTAPI *PFLT_COMPLETED_ASYNC_IO_CALLBACK)(PFLT_CALLBACK_DATA CallbackData, PFLT_CONTEXT Context);

typedef ULONG FLT_ALLOCATE_CALLBACK_DATA_FLAGS;
#define FLT_ALLOCATE_CALLBACK_DATA_PREALLOCATE_ALL_MEMORY 0x00000001

FLT_IMPORT NTSTATUS FLTAPI FltAllocateCallbackData(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                   PFLT_CALLBACK_DATA *RetNewCallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltAllocateCallbackDataEx(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                     FLT_ALLOCATE_CALLBACK_DATA_FLAGS Flags,
                                                     PFLT_CALLBACK_DATA *RetNewCallbackData);
FLT_IMPORT VOID FLTAPI FltReuseCallbackData(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT VOID FLTAPI FltFreeCallbackData(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT VOID FLTAPI FltPerformSynchronousIo(PFLT_CALLBACK_DATA CallbackData);
FLT_IMPORT NTSTATUS FLTAPI FltPerformAsynchronousIo(PFLT_CALLBACK_DATA CallbackData,
                                                    PFLT_COMPLETED_ASYNC_IO_CALLBACK CallbackRoutine,
                                                    PVOID CallbackContext);
FLT_IMPORT VOID FLTAPI FltReissueSynchronousIo(PFLT_INSTANCE InitiatingInstance, PFLT_CALLBACK_DATA CallbackData);

FLT_IMPORT NTSTATUS FLTAPI FltCreateFile(PFLT_FILTER Filter, PFLT_INSTANCE Instance, PHANDLE FileHandle,
                                         ACCESS_MASK DesiredAccess, POBJECT_ATTRIBUTES ObjectAttributes,
                                         PIO_STATUS_BLOCK IoStatusBlock, PLARGE_INTEGER AllocationSize,
                                         ULONG FileAttributes, ULONG ShareAccess, ULONG CreateDisposition,
                                         ULONG CreateOptions, PVOID EaBuffer, ULONG EaLength, ULONG Flags);
FLT_IMPORT NTSTATUS FLTAPI FltCreateFileEx(PFLT_FILTER Filter, PFLT_INSTANCE Instance, PHANDLE FileHandle,
                                           PFILE_OBJECT *FileObject, ACCESS_MASK DesiredAccess,
                                           POBJECT_ATTRIBUTES ObjectAttributes, PIO_STATUS_BLOCK IoStatusBlock,
                                           PLARGE_INTEGER AllocationSize, ULONG FileAttributes, ULONG ShareAccess,
                                           ULONG CreateDisposition, ULONG CreateOptions, PVOID EaBuffer, ULONG EaLength,
                                           ULONG Flags);
FLT_IMPORT NTSTATUS FLTAPI FltCreateFileEx2(PFLT_FILTER Filter, PFLT_INSTANCE Instance, PHANDLE FileHandle,
                                            PFILE_OBJECT *FileObject, ACCESS_MASK DesiredAccess,
                                            POBJECT_ATTRIBUTES ObjectAttributes, PIO_STATUS_BLOCK IoStatusBlock,
                                            PLARGE_INTEGER AllocationSize, ULONG FileAttributes, ULONG ShareAccess,
                                            ULONG CreateDisposition, ULONG CreateOptions, PVOID EaBuffer, ULONG EaLength,
                                            ULONG Flags, PIO_DRIVER_CREATE_CONTEXT DriverContext);
FLT_IMPORT NTSTATUS FLTAPI FltOpenVolume(PFLT_INSTANCE Instance, PHANDLE VolumeHandle, PFILE_OBJECT *VolumeFileObject);
FLT_IMPORT NTSTATUS FLTAPI FltClose(HANDLE FileHandle);
FLT_IMPORT VOID FLTAPI FltCancelFileOpen(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject);
FLT_IMPORT NTSTATUS FLTAPI FltReadFile(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject, PLARGE_INTEGER ByteOffset,
                                       ULONG Length, PVOID Buffer, FLT_IO_OPERATION_FLAGS Flags, PULONG BytesRead,
                                       PFLT_COMPLETED_ASYNC_IO_CALLBACK CallbackRoutine, PVOID CallbackContext);
FLT_IMPORT NTSTATUS FLTAPI FltReadFileEx(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject,
                                         PLARGE_INTEGER ByteOffset, ULONG Length, PVOID Buffer,
                                         FLT_IO_OPERATION_FLAGS Flags, PULONG BytesRead,
                                         PFLT_COMPLETED_ASYNC_IO_CALLBACK CallbackRoutine, PVOID CallbackContext,
                                         PULONG Key, PMDL Mdl);
FLT_IMPORT NTSTATUS FLTAPI FltWriteFile(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject,
                                        PLARGE_INTEGER ByteOffset, ULONG Length, PVOID Buffer,
                                        FLT_IO_OPERATION_FLAGS Flags, PULONG BytesWritten,
                                        PFLT_COMPLETED_ASYNC_IO_CALLBACK CallbackRoutine, PVOID CallbackContext);
FLT_IMPORT NTSTATUS FLTAPI FltWriteFileEx(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject,
                                          PLARGE_INTEGER ByteOffset, ULONG Length, PVOID Buffer,
                                          FLT_IO_OPERATION_FLAGS Flags, PULONG BytesWritten,
                                          PFLT_COMPLETED_ASYNC_IO_CALLBACK CallbackRoutine, PVOID CallbackContext,
                                          PULONG Key, PMDL Mdl);
FLT_IMPORT NTSTATUS FLTAPI FltFlushBuffers(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject);
FLT_IMPORT NTSTATUS FLTAPI FltQueryInformationFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PVOID FileInformation,
                                                   ULONG Length, FILE_INFORMATION_CLASS FileInformationClass,
                                                   PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltSetInformationFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PVOID FileInformation,
                                                 ULONG Length, FILE_INFORMATION_CLASS FileInformationClass);
FLT_IMPORT NTSTATUS FLTAPI FltQueryDirectoryFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PVOID FileInformation,
                                                 ULONG Length, FILE_INFORMATION_CLASS FileInformationClass,
                                                 BOOLEAN ReturnSingleEntry, PUNICODE_STRING FileName, BOOLEAN RestartScan,
                                                 PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltQueryEaFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PVOID ReturnedEaData,
                                          ULONG Length, BOOLEAN ReturnSingleEntry, PVOID EaList, ULONG EaListLength,
                                          PULONG EaIndex, BOOLEAN RestartScan, PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltSetEaFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PVOID EaBuffer, ULONG Length);
FLT_IMPORT NTSTATUS FLTAPI FltQueryVolumeInformationFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                         PVOID FsInformation, ULONG Length,
                                                         FS_INFORMATION_CLASS FsInformationClass, PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltQuerySecurityObject(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                  SECURITY_INFORMATION SecurityInformation,
                                                  PSECURITY_DESCRIPTOR SecurityDescriptor, ULONG Length,
                                                  PULONG LengthNeeded);
FLT_IMPORT NTSTATUS FLTAPI FltSetSecurityObject(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                SECURITY_INFORMATION SecurityInformation,
                                                PSECURITY_DESCRIPTOR SecurityDescriptor);
FLT_IMPORT NTSTATUS FLTAPI FltFsControlFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, ULONG FsControlCode,
                                            PVOID InputBuffer, ULONG InputBufferLength, PVOID OutputBuffer,
                                            ULONG OutputBufferLength, PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltDeviceIoControlFile(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, ULONG IoControlCode,
                                                  PVOID InputBuffer, ULONG InputBufferLength, PVOID OutputBuffer,
                                                  ULONG OutputBufferLength, PULONG LengthReturned);
FLT_IMPORT NTSTATUS FLTAPI FltTagFile(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject, ULONG FileTag, GUID *Guid,
                                      PVOID DataBuffer, USHORT DataBufferLength);
FLT_IMPORT NTSTATUS FLTAPI FltUntagFile(PFLT_INSTANCE InitiatingInstance, PFILE_OBJECT FileObject, ULONG FileTag,
                                        GUID *Guid);
FLT_IMPORT NTSTATUS FLTAPI FltIsDirectory(PFILE_OBJECT FileObject, PFLT_INSTANCE Instance, PBOOLEAN IsDirectory);
FLT_IMPORT PVOID FLTAPI FltAllocatePoolAlignedWithTag(PFLT_INSTANCE Instance, POOL_TYPE PoolType, SIZE_T NumberOfBytes,
                                                      ULONG Tag);
FLT_IMPORT VOID FLTAPI FltFreePoolAlignedWithTag(PFLT_INSTANCE Instance, PVOID Buffer, ULONG Tag);

/* ---- work items ---- */

typedef VOID(FLTAPI *PFLT_DEFERRED_IO_WORKITEM_ROUTINE)(PFLT_DEFERRED_IO_WORKITEM FltWorkItem,
                                                        PFLT_CALLBACK_DATA CallbackData, PVOID Context);
typedef VOID(FLTAPI *PFLT_GENERIC_WORKITEM_ROUTINE)(PFLT_GENERIC_WORKITEM FltWorkItem, PVOID FltObject, PVOID Context);

FLT_IMPORT PFLT_DEFERRED_IO_WORKITEM FLTAPI FltAllocateDeferredIoWorkItem(VOID);
FLT_IMPORT VOID FLTAPI FltFreeDeferredIoWorkItem(PFLT_DEFERRED_IO_WORKITEM FltWorkItem);
FLT_IMPORT NTSTATUS FLTAPI FltQueueDeferredIoWorkItem(PFLT_DEFERRED_IO_WORKITEM FltWorkItem, PFLT_CALLBACK_DATA Data,
                                                      PFLT_DEFERRED_IO_WORKITEM_ROUTINE WorkerRoutine,
                                                      WORK_QUEUE_TYPE QueueType, PVOID Context);
FLT_IMPORT PFLT_GENERIC_WORKITEM FLTAPI FltAllocateGenericWorkItem(VOID);
FLT_IMPORT VOID FLTAPI FltFreeGenericWorkItem(PFLT_GENERIC_WORKITEM FltWorkItem);
FLT_IMPORT NTSTATUS FLTAPI FltQueueGenericWorkItem(PFLT_GENERIC_WORKITEM FltWorkItem, PVOID FltObject,
                                                   PFLT_GENERIC_WORKITEM_ROUTINE WorkerRoutine, WORK_QUEUE_TYPE QueueType,
                                                   PVOID Context);

/* ---- locks ---- */

FLT_IMPORT VOID FLTAPI FltAcquireResourceExclusive(PERESOURCE Resource);
FLT_IMPORT VOID FLTAPI FltAcquireResourceShared(PERESOURCE Resource);
FLT_IMPORT VOID FLTAPI FltReleaseResource(PERESOURCE Resource);
FLT_IMPORT VOID FLTAPI FltInitializePushLock(PEX_PUSH_LOCK PushLock);
FLT_IMPORT VOID FLTAPI FltDeletePushLock(PEX_PUSH_LOCK PushLock);
FLT_IMPORT VOID FLTAPI FltAcquirePushLockExclusive(PEX_PUSH_LOCK PushLock);
FLT_IMPORT VOID FLTAPI FltAcquirePushLockShared(PEX_PUSH_LOCK PushLock);
FLT_IMPORT VOID FLTAPI FltReleasePushLock(PEX_PUSH_LOCK PushLock);

/* ---- oplocks ---- */

typedef VOID(FLTAPI *PFLTOPLOCK_WAIT_COMPLETE_ROUTINE)(PFLT_CALLBACK_DATA CallbackData, PVOID Context);
typedef VOID(FLTAPI *PFLTOPLOCK_PREPOST_CALLBACKDATA_ROUTINE)(PFLT_CALLBACK_DATA CallbackData, PVOID Context);

FLT_IMPORT VOID FLTAPI FltInitializeOplock(POPLOCK Oplock);
FLT_IMPORT VOID FLTAPI FltUninitializeOplock(POPLOCK Oplock);
FLT_IMPORT FLT_PREOP_CALLBACK_STATUS FLTAPI FltOplockFsctrl(POPLOCK Oplock, PFLT_CALLBACK_DATA CallbackData,
                                                            ULONG OpenCount);
FLT_IMPORT FLT_PREOP_CALLBACK_STATUS FLTAPI FltCheckOplock(POPLOCK Oplock, PFLT_CALLBACK_DATA CallbackData, PVOID Context,
                                                           PFLTOPLOCK_WAIT_COMPLETE_ROUTINE WaitCompletionRoutine,
                                                           PFLTOPLOCK_PREPOST_CALLBACKDATA_ROUTINE
                                                               PrePostCallbackDataRoutine);
FLT_IMPORT BOOLEAN FLTAPI FltOplockIsFastIoPossible(POPLOCK Oplock);
FLT_IMPORT BOOLEAN FLTAPI FltCurrentBatchOplock(POPLOCK Oplock);
FLT_IMPORT BOOLEAN FLTAPI FltCurrentOplock(POPLOCK Oplock);

/* ---- queues of operations that can be cancelled ---- */

struct _FLT_CALLBACK_DATA_QUEUE;
typedef struct _FLT_CALLBACK_DATA_QUEUE_IO_CONTEXT {
    PVOID Reserved[2];
} FLT_CALLBACK_DATA_QUEUE_IO_CONTEXT, *PFLT_CALLBACK_DATA_QUEUE_IO_CONTEXT;
typedef ULONG FLT_CALLBACK_DATA_QUEUE_FLAGS;

typedef NTSTATUS(FLTAPI *PFLT_CALLBACK_DATA_QUEUE_INSERT_IO)(struct _FLT_CALLBACK_DATA_QUEUE *Cbdq,
                                                             PFLT_CALLBACK_DATA Cbd, PVOID InsertContext);
typedef VOID(FLTAPI *PFLT_CALLBACK_DATA_QUEUE_REMOVE_IO)(struct _FLT_CALLBACK_DATA_QUEUE *Cbdq, PFLT_CALLBACK_DATA Cbd);
typedef PFLT_CALLBACK_DATA(FLTAPI *PFLT_CALLBACK_DATA_QUEUE_PEEK_NEXT_IO)(struct _FLT_CALLBACK_DATA_QUEUE *Cbdq,
                                                                          PFLT_CALLBACK_DATA Cbd, PVOID PeekContext);
typedef VOID(FLTAPI *PFLT_CALLBACK_DATA_QUEUE_ACQUIRE)(struct _FLT_CALLBACK_DATA_QUEUE *Cbdq, PKIRQL Irql);
typedef VOID(FLTAPI *PFLT_CALLBACK_DATA_QUEUE_RELEASE)(struct _FLT_CALLBACK_DATA_QUEUE *Cbdq, KIRQL Irql);
typedef VOID(FLTAPI *PFLT_CALLBACK_DATA_QUEUE_COMPLETE_CANCELED_IO)(struct _FLT_CALLBACK_DATA_QUEUE *Cbdq,
                                                                    PFLT_CALLBACK_DATA Cbd);

typedef struct _FLT_CALLBACK_DATA_QUEUE {
    IO_CSQ Csq;
    FLT_CALLBACK_DATA_QUEUE_FLAGS Flags;
    PFLT_INSTANCE Instance;
    PFLT_CALLBACK_DATA_QUEUE_INSERT_IO InsertIo;
    PFLT_CALLBACK_DATA_QUEUE_REMOVE_IO RemoveIo;
    PFLT_CALLBACK_DATA_QUEUE_PEEK_NEXT_IO PeekNextIo;
    PFLT_CALLBACK_DATA_QUEUE_ACQUIRE Acquire;
    PFLT_CALLBACK_DATA_QUEUE_RELEASE Release;
    PFLT_CALLBACK_DATA_QUEUE_COMPLETE_CANCELED_IO CompleteCanceledIo;
} FLT_CALLBACK_DATA_QUEUE, *PFLT_CALLBACK_DATA_QUEUE;

FLT_IMPORT NTSTATUS FLTAPI FltCbdqInitialize(PFLT_INSTANCE Instance, PFLT_CALLBACK_DATA_QUEUE Cbdq,
                                             PFLT_CALLBACK_DATA_QUEUE_INSERT_IO CbdqInsertIo,
                                             PFLT_CALLBACK_DATA_QUEUE_REMOVE_IO CbdqRemoveIo,
                                             PFLT_CALLBACK_DATA_QUEUE_PEEK_NEXT_IO CbdqPeekNextIo,
                                             PFLT_CALLBACK_DATA_QUEUE_ACQUIRE CbdqAcquire,
                                             PFLT_CALLBACK_DATA_QUEUE_RELEASE CbdqRelease,
                                             PFLT_CALLBACK_DATA_QUEUE_COMPLETE_CANCELED_IO CbdqCompleteCanceledIo);
FLT_IMPORT VOID FLTAPI FltCbdqEnable(PFLT_CALLBACK_DATA_QUEUE Cbdq);
FLT_IMPORT VOID FLTAPI FltCbdqDisable(PFLT_CALLBACK_DATA_QUEUE Cbdq);
FLT_IMPORT NTSTATUS FLTAPI FltCbdqInsertIo(PFLT_CALLBACK_DATA_QUEUE Cbdq, PFLT_CALLBACK_DATA Cbd,
                                           PFLT_CALLBACK_DATA_QUEUE_IO_CONTEXT Context, PVOID InsertContext);
FLT_IMPORT PFLT_CALLBACK_DATA FLTAPI FltCbdqRemoveIo(PFLT_CALLBACK_DATA_QUEUE Cbdq,
                                                     PFLT_CALLBACK_DATA_QUEUE_IO_CONTEXT Context);
FLT_IMPORT PFLT_CALLBACK_DATA FLTAPI FltCbdqRemoveNextIo(PFLT_CALLBACK_DATA_QUEUE Cbdq, PVOID PeekContext);

/* ---- sections for scanning ---- */

FLT_IMPORT NTSTATUS FLTAPI FltRegisterForDataScan(PFLT_INSTANCE Instance);
FLT_IMPORT NTSTATUS FLTAPI FltCreateSectionForDataScan(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject,
                                                       PFLT_CONTEXT SectionContext, ACCESS_MASK DesiredAccess,
                                                       POBJECT_ATTRIBUTES ObjectAttributes, PLARGE_INTEGER MaximumSize,
                                                       ULONG SectionPageProtection, ULONG AllocationAttributes,
                                                       ULONG Flags, PHANDLE SectionHandle, PVOID *SectionObject,
                                                       PLARGE_INTEGER SectionFileSize);
FLT_IMPORT NTSTATUS FLTAPI FltCloseSectionForDataScan(PFLT_CONTEXT SectionContext);
FLT_IMPORT NTSTATUS FLTAPI FltGetSectionContext(PFLT_INSTANCE Instance, PFILE_OBJECT FileObject, PFLT_CONTEXT *Context);

/* ---- extra create parameters ---- */

FLT_IMPORT NTSTATUS FLTAPI FltGetEcpListFromCallbackData(PFLT_FILTER Filter, PFLT_CALLBACK_DATA CallbackData,
                                                         PECP_LIST *EcpList);
FLT_IMPORT NTSTATUS FLTAPI FltSetEcpListIntoCallbackData(PFLT_FILTER Filter, PFLT_CALLBACK_DATA CallbackData,
                                                         PECP_LIST EcpList);
FLT_IMPORT NTSTATUS FLTAPI FltAllocateExtraCreateParameterList(PFLT_FILTER Filter, FSRTL_ALLOCATE_ECPLIST_FLAGS Flags,
                                                               PECP_LIST *EcpList);
FLT_IMPORT VOID FLTAPI FltFreeExtraCreateParameterList(PFLT_FILTER Filter, PECP_LIST EcpList);
FLT_IMPORT NTSTATUS FLTAPI FltAllocateExtraCreateParameter(
    PFLT_FILTER Filter, LPCGUID EcpType, ULONG SizeOfContext, FSRTL_ALLOCATE_ECP_FLAGS Flags,
    PFSRTL_EXTRA_CREATE_PARAMETER_CLEANUP_CALLBACK CleanupCallback, ULONG PoolTag, PVOID *EcpContext);
FLT_IMPORT VOID FLTAPI FltFreeExtraCreateParameter(PFLT_FILTER Filter, PVOID EcpContext);
FLT_IMPORT NTSTATUS FLTAPI FltInsertExtraCreateParameter(PFLT_FILTER Filter, PECP_LIST EcpList, PVOID EcpContext);
FLT_IMPORT NTSTATUS FLTAPI FltFindExtraCreateParameter(PFLT_FILTER Filter, PECP_LIST EcpList, LPCGUID EcpType,
                                                       PVOID *EcpContext, ULONG *EcpContextSize);
FLT_IMPORT NTSTATUS FLTAPI FltRemoveExtraCreateParameter(PFLT_FILTER Filter, PECP_LIST EcpList, LPCGUID EcpType,
                                                         PVOID *EcpContext, ULONG *EcpContextSize);
FLT_IMPORT NTSTATUS FLTAPI FltGetNextExtraCreateParameter(PFLT_FILTER Filter, PECP_LIST EcpList, PVOID CurrentEcpContext,
                                                          LPGUID NextEcpType, PVOID *NextEcpContext,
                                                          ULONG *NextEcpContextSize);
FLT_IMPORT VOID FLTAPI FltAcknowledgeEcp(PFLT_FILTER Filter, PVOID EcpContext);
FLT_IMPORT BOOLEAN FLTAPI FltIsEcpAcknowledged(PFLT_FILTER Filter, PVOID EcpContext);
FLT_IMPORT BOOLEAN FLTAPI FltIsEcpFromUserMode(PFLT_FILTER Filter, PVOID EcpContext);

#endif
