/*
 * A minifilter in C to copy from: contexts of each type, names, and a port.
 *
 * It counts what programs write. A stream handle context counts for one open, a stream context for one file's data, a file
 * context the opens of the file, an instance context for the volume as this filter sees it, and a volume context keeps facts
 * that do not change. A program connects to \CtxFilterPort and asks for the totals, or for the file written last.
 *
 * Rules that the code shows:
 * - each context that was got or allocated is released once, whatever happens to it in between;
 * - a post-operation callback can run at DISPATCH_LEVEL, so what it needs is got before the operation and handed over;
 * - the memory of a message is the program's: probed, touched inside __try, and copied before anything is decided on it;
 * - at unload the port is closed first, then the filter is unregistered, then what is left is freed.
 */
#include <fltKernel.h>

#define TAG_NAME 'nxtC'
#define TAG_CONTEXT 'cxtC'

/* Longest name that is kept, in bytes. */
#define LONGEST_NAME 1024

typedef struct _VOLUME_FACTS {
    DEVICE_TYPE DeviceType;
    FLT_FILESYSTEM_TYPE FileSystem;
} VOLUME_FACTS, *PVOLUME_FACTS;

typedef struct _INSTANCE_COUNTS {
    volatile LONG64 BytesWritten;
} INSTANCE_COUNTS, *PINSTANCE_COUNTS;

typedef struct _FILE_COUNTS {
    volatile LONG Opens;
} FILE_COUNTS, *PFILE_COUNTS;

typedef struct _STREAM_COUNTS {
    volatile LONG64 BytesWritten;
    UNICODE_STRING Name; /* ours, freed with the context */
} STREAM_COUNTS, *PSTREAM_COUNTS;

typedef struct _HANDLE_COUNTS {
    volatile LONG64 BytesWritten;
} HANDLE_COUNTS, *PHANDLE_COUNTS;

/* What a write's callback before the operation hands to the one after it; each is referenced, or NULL. */
typedef struct _WRITE_UNDER_WAY {
    PINSTANCE_COUNTS Instance;
    PSTREAM_COUNTS Stream;
    PHANDLE_COUNTS Handle;
} WRITE_UNDER_WAY, *PWRITE_UNDER_WAY;

/* ---- messages ---- */

#define ASK_TOTALS 1
#define ASK_LAST_WRITTEN 2

typedef struct _QUESTION {
    ULONG Kind;
} QUESTION;

typedef struct _TOTALS {
    LONG64 BytesWritten;
    LONG64 BytesByHandlesClosed;
    LONG Opens;
    LONG LiveContexts;
} TOTALS;

typedef struct _LAST_WRITTEN {
    LONG64 BytesWritten;
    ULONG NameLength; /* in bytes; the name follows, without a terminator */
} LAST_WRITTEN;

static struct {
    PFLT_FILTER Filter;
    PFLT_PORT ServerPort;
    PFLT_PORT ClientPort; /* at most one connection */
    volatile LONG64 BytesWritten;
    volatile LONG64 BytesByHandlesClosed;
    volatile LONG Opens;
    volatile LONG LiveContexts;
    KSPIN_LOCK LastLock;
    PSTREAM_COUNTS Last; /* referenced */
} Globals;

/* ---- contexts ---- */

/* Allocates a context of the registered size, zeroed; NULL when memory is short. The caller releases it. */
static PVOID NewContext(FLT_CONTEXT_TYPE Type, SIZE_T Size)
{
    PFLT_CONTEXT context;

    /* All but volume contexts could be paged; these are touched in post-operation callbacks. */
    if (!NT_SUCCESS(FltAllocateContext(Globals.Filter, Type, Size, NonPagedPool, &context))) {
        return NULL;
    }
    RtlZeroMemory(context, Size);
    InterlockedIncrement(&Globals.LiveContexts);
    return context;
}

/* The last reference to a context is gone. */
static VOID NTAPI CleanUpContext(PFLT_CONTEXT Context, FLT_CONTEXT_TYPE ContextType)
{
    if (ContextType == FLT_STREAM_CONTEXT) {
        PSTREAM_COUNTS stream = Context;
        if (stream->Name.Buffer != NULL) {
            ExFreePoolWithTag(stream->Name.Buffer, TAG_NAME);
        }
    } else if (ContextType == FLT_STREAMHANDLE_CONTEXT) {
        InterlockedExchangeAdd64(&Globals.BytesByHandlesClosed, ((PHANDLE_COUNTS)Context)->BytesWritten);
    }
    InterlockedDecrement(&Globals.LiveContexts);
}

/*
 * Makes `Context` the file's, unless it has one; the one that counts, referenced, or NULL. The reference to `Context` that
 * the caller had is used up.
 */
static PVOID Settle(NTSTATUS Status, PFLT_CONTEXT Context, PFLT_CONTEXT Old)
{
    if (NT_SUCCESS(Status)) {
        return Context;
    }
    FltReleaseContext(Context);
    return Status == STATUS_FLT_CONTEXT_ALREADY_DEFINED ? Old : NULL;
}

static PFILE_COUNTS FileCounts(PCFLT_RELATED_OBJECTS FltObjects)
{
    PFLT_CONTEXT old = NULL;
    PFILE_COUNTS file;
    NTSTATUS status;

    if (NT_SUCCESS(FltGetFileContext(FltObjects->Instance, FltObjects->FileObject, (PFLT_CONTEXT *)&file))) {
        return file;
    }
    file = NewContext(FLT_FILE_CONTEXT, sizeof(*file));
    if (file == NULL) {
        return NULL;
    }
    status = FltSetFileContext(FltObjects->Instance, FltObjects->FileObject, FLT_SET_CONTEXT_KEEP_IF_EXISTS, file, &old);
    return Settle(status, file, old);
}

/* Keeps the file's name; without one the context is as good. */
static VOID RememberName(PSTREAM_COUNTS Stream, PFLT_CALLBACK_DATA Data)
{
    PFLT_FILE_NAME_INFORMATION name;
    USHORT length;

    if (!NT_SUCCESS(FltGetFileNameInformation(Data, FLT_FILE_NAME_NORMALIZED | FLT_FILE_NAME_QUERY_DEFAULT, &name))) {
        return;
    }
    length = min(name->Name.Length, LONGEST_NAME);
    if (NT_SUCCESS(FltParseFileNameInformation(name)) && length != 0) {
        Stream->Name.Buffer = ExAllocatePool2(POOL_FLAG_NON_PAGED, length, TAG_NAME);
        if (Stream->Name.Buffer != NULL) {
            RtlCopyMemory(Stream->Name.Buffer, name->Name.Buffer, length);
            Stream->Name.Length = Stream->Name.MaximumLength = length;
        }
    }
    FltReleaseFileNameInformation(name);
}

static PSTREAM_COUNTS StreamCounts(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects)
{
    PFLT_CONTEXT old = NULL;
    PSTREAM_COUNTS stream;
    NTSTATUS status;

    if (NT_SUCCESS(FltGetStreamContext(FltObjects->Instance, FltObjects->FileObject, (PFLT_CONTEXT *)&stream))) {
        return stream;
    }
    stream = NewContext(FLT_STREAM_CONTEXT, sizeof(*stream));
    if (stream == NULL) {
        return NULL;
    }
    RememberName(stream, Data);
    status =
        FltSetStreamContext(FltObjects->Instance, FltObjects->FileObject, FLT_SET_CONTEXT_KEEP_IF_EXISTS, stream, &old);
    return Settle(status, stream, old);
}

/* ---- operations ---- */

static FLT_PREOP_CALLBACK_STATUS NTAPI PreCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                 PVOID *CompletionContext)
{
    /* Contexts can only be set on a file object that is open: after the operation. */
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
}

static FLT_POSTOP_CALLBACK_STATUS NTAPI PostCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                   PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    PHANDLE_COUNTS handle;
    PSTREAM_COUNTS stream;
    PFILE_COUNTS file;

    /* This callback runs at PASSIVE_LEVEL, in the thread that opens the file. While the instance goes, nothing is set. */
    if ((Flags & FLTFL_POST_OPERATION_DRAINING) || Data->IoStatus.Status != STATUS_SUCCESS) {
        return FLT_POSTOP_FINISHED_PROCESSING;
    }
    InterlockedIncrement(&Globals.Opens);
    file = FileCounts(FltObjects);
    if (file != NULL) {
        InterlockedIncrement(&file->Opens);
        FltReleaseContext(file);
    }
    stream = StreamCounts(Data, FltObjects);
    if (stream != NULL) {
        FltReleaseContext(stream);
    }
    handle = NewContext(FLT_STREAMHANDLE_CONTEXT, sizeof(*handle));
    if (handle != NULL) {
        /* Nobody else knows this file object yet, so there is no older one. */
        FltSetStreamHandleContext(FltObjects->Instance, FltObjects->FileObject, FLT_SET_CONTEXT_KEEP_IF_EXISTS, handle,
                                  NULL);
        FltReleaseContext(handle);
    }
    return FLT_POSTOP_FINISHED_PROCESSING;
}

static VOID EndWrite(PWRITE_UNDER_WAY Write)
{
    if (Write->Instance != NULL) {
        FltReleaseContext(Write->Instance);
    }
    if (Write->Stream != NULL) {
        FltReleaseContext(Write->Stream);
    }
    if (Write->Handle != NULL) {
        FltReleaseContext(Write->Handle);
    }
    ExFreePoolWithTag(Write, TAG_CONTEXT);
}

static FLT_PREOP_CALLBACK_STATUS NTAPI PreWrite(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                PVOID *CompletionContext)
{
    PWRITE_UNDER_WAY write = ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(*write), TAG_CONTEXT);

    if (write == NULL) {
        /* The write matters more than its being counted. */
        return FLT_PREOP_SUCCESS_NO_CALLBACK;
    }
    if (!NT_SUCCESS(FltGetInstanceContext(FltObjects->Instance, (PFLT_CONTEXT *)&write->Instance))) {
        write->Instance = NULL;
    }
    if (!NT_SUCCESS(
            FltGetStreamContext(FltObjects->Instance, FltObjects->FileObject, (PFLT_CONTEXT *)&write->Stream))) {
        write->Stream = NULL;
    }
    if (!NT_SUCCESS(
            FltGetStreamHandleContext(FltObjects->Instance, FltObjects->FileObject, (PFLT_CONTEXT *)&write->Handle))) {
        write->Handle = NULL;
    }
    *CompletionContext = write;
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
}

/* Makes a stream the one that was written last. Callable at DISPATCH_LEVEL. */
static VOID RememberLast(PSTREAM_COUNTS Stream)
{
    PSTREAM_COUNTS before;
    KIRQL irql;

    if (Stream != NULL) {
        FltReferenceContext(Stream);
    }
    KeAcquireSpinLock(&Globals.LastLock, &irql);
    before = Globals.Last;
    Globals.Last = Stream;
    KeReleaseSpinLock(&Globals.LastLock, irql);
    if (before != NULL) {
        FltReleaseContext(before);
    }
}

static FLT_POSTOP_CALLBACK_STATUS NTAPI PostWrite(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                  PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    PWRITE_UNDER_WAY write = CompletionContext;
    LONG64 bytes = (LONG64)Data->IoStatus.Information;

    if (!(Flags & FLTFL_POST_OPERATION_DRAINING) && NT_SUCCESS(Data->IoStatus.Status)) {
        InterlockedExchangeAdd64(&Globals.BytesWritten, bytes);
        if (write->Instance != NULL) {
            InterlockedExchangeAdd64(&write->Instance->BytesWritten, bytes);
        }
        if (write->Handle != NULL) {
            InterlockedExchangeAdd64(&write->Handle->BytesWritten, bytes);
        }
        if (write->Stream != NULL) {
            InterlockedExchangeAdd64(&write->Stream->BytesWritten, bytes);
            RememberLast(write->Stream);
        }
    }
    EndWrite(write);
    return FLT_POSTOP_FINISHED_PROCESSING;
}

/* ---- instances ---- */

static NTSTATUS NTAPI InstanceSetup(PCFLT_RELATED_OBJECTS FltObjects, FLT_INSTANCE_SETUP_FLAGS Flags,
                                    DEVICE_TYPE VolumeDeviceType, FLT_FILESYSTEM_TYPE VolumeFilesystemType)
{
    PINSTANCE_COUNTS instance;
    PVOLUME_FACTS volume;
    NTSTATUS status;

    instance = NewContext(FLT_INSTANCE_CONTEXT, sizeof(*instance));
    if (instance == NULL) {
        return STATUS_FLT_DO_NOT_ATTACH;
    }
    status = FltSetInstanceContext(FltObjects->Instance, FLT_SET_CONTEXT_KEEP_IF_EXISTS, instance, NULL);
    FltReleaseContext(instance);
    if (!NT_SUCCESS(status)) {
        return STATUS_FLT_DO_NOT_ATTACH;
    }
    volume = NewContext(FLT_VOLUME_CONTEXT, sizeof(*volume));
    if (volume != NULL) {
        volume->DeviceType = VolumeDeviceType;
        volume->FileSystem = VolumeFilesystemType;
        /* Attached a second time: the volume still has the first one's. */
        FltSetVolumeContext(FltObjects->Volume, FLT_SET_CONTEXT_KEEP_IF_EXISTS, volume, NULL);
        FltReleaseContext(volume);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI InstanceQueryTeardown(PCFLT_RELATED_OBJECTS FltObjects, FLT_INSTANCE_QUERY_TEARDOWN_FLAGS Flags)
{
    /* Nothing here depends on staying attached. */
    return STATUS_SUCCESS;
}

static VOID NTAPI InstanceTeardownComplete(PCFLT_RELATED_OBJECTS FltObjects, FLT_INSTANCE_TEARDOWN_FLAGS Reason)
{
    /* The stream written last may be of this volume, whose contexts are about to go. */
    RememberLast(NULL);
}

/* ---- port ---- */

static NTSTATUS AnswerTotals(PVOID Output, ULONG OutputLength, PULONG Returned)
{
    TOTALS totals;

    if (OutputLength < sizeof(totals)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    totals.BytesWritten = Globals.BytesWritten;
    totals.BytesByHandlesClosed = Globals.BytesByHandlesClosed;
    totals.Opens = Globals.Opens;
    totals.LiveContexts = Globals.LiveContexts;
    __try {
        RtlCopyMemory(Output, &totals, sizeof(totals));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    *Returned = sizeof(totals);
    return STATUS_SUCCESS;
}

static NTSTATUS AnswerLastWritten(PVOID Output, ULONG OutputLength, PULONG Returned)
{
    LAST_WRITTEN answer = { 0, 0 };
    PSTREAM_COUNTS stream;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Globals.LastLock, &irql);
    stream = Globals.Last;
    if (stream != NULL) {
        FltReferenceContext(stream);
    }
    KeReleaseSpinLock(&Globals.LastLock, irql);
    if (stream == NULL) {
        return STATUS_NOT_FOUND;
    }
    answer.BytesWritten = stream->BytesWritten;
    answer.NameLength = stream->Name.Length;
    status = STATUS_SUCCESS;
    if (OutputLength < sizeof(answer) + answer.NameLength) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        __try {
            RtlCopyMemory(Output, &answer, sizeof(answer));
            RtlCopyMemory((PUCHAR)Output + sizeof(answer), stream->Name.Buffer, answer.NameLength);
            *Returned = sizeof(answer) + answer.NameLength;
        } __except (EXCEPTION_EXECUTE_HANDLER) {
            status = GetExceptionCode();
        }
    }
    FltReleaseContext(stream);
    return status;
}

static NTSTATUS NTAPI OnMessage(PVOID PortCookie, PVOID InputBuffer, ULONG InputBufferLength, PVOID OutputBuffer,
                                ULONG OutputBufferLength, PULONG ReturnOutputBufferLength)
{
    QUESTION question;

    *ReturnOutputBufferLength = 0;
    if (InputBufferLength < sizeof(question)) {
        return STATUS_INVALID_PARAMETER;
    }
    __try {
        RtlCopyMemory(&question, InputBuffer, sizeof(question));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    switch (question.Kind) {
    case ASK_TOTALS:
        return AnswerTotals(OutputBuffer, OutputBufferLength, ReturnOutputBufferLength);
    case ASK_LAST_WRITTEN:
        return AnswerLastWritten(OutputBuffer, OutputBufferLength, ReturnOutputBufferLength);
    default:
        return STATUS_INVALID_PARAMETER;
    }
}

static NTSTATUS NTAPI OnConnect(PFLT_PORT ClientPort, PVOID ServerPortCookie, PVOID ConnectionContext, ULONG SizeOfContext,
                                PVOID *ConnectionPortCookie)
{
    Globals.ClientPort = ClientPort;
    *ConnectionPortCookie = NULL;
    return STATUS_SUCCESS;
}

static VOID NTAPI OnDisconnect(PVOID ConnectionCookie)
{
    FltCloseClientPort(Globals.Filter, &Globals.ClientPort);
}

static NTSTATUS OpenPort(void)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\CtxFilterPort");
    PSECURITY_DESCRIPTOR descriptor;
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;

    status = FltBuildDefaultSecurityDescriptor(&descriptor, FLT_PORT_ALL_ACCESS);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    InitializeObjectAttributes(&attributes, &name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, descriptor);
    status = FltCreateCommunicationPort(Globals.Filter, &Globals.ServerPort, &attributes, NULL, OnConnect, OnDisconnect,
                                        OnMessage, 1);
    FltFreeSecurityDescriptor(descriptor);
    return status;
}

/* ---- registration ---- */

static NTSTATUS NTAPI FilterUnload(FLT_FILTER_UNLOAD_FLAGS Flags)
{
    /* FltUnregisterFilter waits for all references to the filter, and an open port is one. */
    FltCloseCommunicationPort(Globals.ServerPort);
    RememberLast(NULL);
    FltUnregisterFilter(Globals.Filter);
    return STATUS_SUCCESS;
}

static const FLT_CONTEXT_REGISTRATION Contexts[] = {
    { FLT_VOLUME_CONTEXT, 0, CleanUpContext, sizeof(VOLUME_FACTS), TAG_CONTEXT, NULL, NULL, NULL },
    { FLT_INSTANCE_CONTEXT, 0, CleanUpContext, sizeof(INSTANCE_COUNTS), TAG_CONTEXT, NULL, NULL, NULL },
    { FLT_FILE_CONTEXT, 0, CleanUpContext, sizeof(FILE_COUNTS), TAG_CONTEXT, NULL, NULL, NULL },
    { FLT_STREAM_CONTEXT, 0, CleanUpContext, sizeof(STREAM_COUNTS), TAG_CONTEXT, NULL, NULL, NULL },
    { FLT_STREAMHANDLE_CONTEXT, 0, CleanUpContext, sizeof(HANDLE_COUNTS), TAG_CONTEXT, NULL, NULL, NULL },
    { FLT_CONTEXT_END, 0, NULL, 0, 0, NULL, NULL, NULL },
};

static const FLT_OPERATION_REGISTRATION Operations[] = {
    { IRP_MJ_CREATE, 0, PreCreate, PostCreate, NULL },
    { IRP_MJ_WRITE, 0, PreWrite, PostWrite, NULL },
    { IRP_MJ_OPERATION_END, 0, NULL, NULL, NULL },
};

static const FLT_REGISTRATION Registration = {
    .Size = sizeof(FLT_REGISTRATION),
    .Version = FLT_REGISTRATION_VERSION,
    .ContextRegistration = Contexts,
    .OperationRegistration = Operations,
    .FilterUnloadCallback = FilterUnload,
    .InstanceSetupCallback = InstanceSetup,
    .InstanceQueryTeardownCallback = InstanceQueryTeardown,
    .InstanceTeardownCompleteCallback = InstanceTeardownComplete,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    KeInitializeSpinLock(&Globals.LastLock);
    status = FltRegisterFilter(DriverObject, &Registration, &Globals.Filter);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = OpenPort();
    if (NT_SUCCESS(status)) {
        status = FltStartFiltering(Globals.Filter);
        if (!NT_SUCCESS(status)) {
            FltCloseCommunicationPort(Globals.ServerPort);
        }
    }
    if (!NT_SUCCESS(status)) {
        FltUnregisterFilter(Globals.Filter);
    }
    return status;
}
