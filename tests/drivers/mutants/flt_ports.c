/*
 * A communication port, and the memory of the program behind it.
 *
 * The correct driver echoes each message. The buffers are the program's own: it may free or change them while the callback
 * runs, so each access is guarded, and what is decided on is copied first.
 */
#include <fltKernel.h>

#define TAG 'tuMC'
#define LARGEST 256

static PFLT_FILTER Filter;
static PFLT_PORT ServerPort;
static PFLT_PORT ClientPort;
static PFLT_VOLUME Volume;
static PFLT_GENERIC_WORKITEM WorkItem;
static KEVENT Worked;

static VOID NTAPI OnWork(PFLT_GENERIC_WORKITEM Item, PVOID FltObject, PVOID Context)
{
    UNREFERENCED_PARAMETER(FltObject);
    UNREFERENCED_PARAMETER(Context);
#ifndef MUTANT_WORK_ITEM_NOT_FREED
    FltFreeGenericWorkItem(Item);
#endif
    KeSetEvent(&Worked, IO_NO_INCREMENT, FALSE);
}

static VOID Work(void)
{
    WorkItem = FltAllocateGenericWorkItem();
    if (WorkItem == NULL) {
        return;
    }
    if (!NT_SUCCESS(FltQueueGenericWorkItem(WorkItem, Filter, OnWork, DelayedWorkQueue, NULL))) {
        FltFreeGenericWorkItem(WorkItem);
        return;
    }
    KeWaitForSingleObject(&Worked, Executive, KernelMode, FALSE, NULL);
#ifdef MUTANT_WORK_ITEM_FREED_BY_BOTH
    FltFreeGenericWorkItem(WorkItem);
#endif
}

static NTSTATUS Copy(PVOID To, const VOID *From, ULONG Length)
{
    __try {
        RtlCopyMemory(To, From, Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OnMessage(PVOID PortCookie, PVOID InputBuffer, ULONG InputBufferLength, PVOID OutputBuffer,
                                ULONG OutputBufferLength, PULONG ReturnOutputBufferLength)
{
    UCHAR message[LARGEST];
    ULONG length = min(InputBufferLength, sizeof(message));
    NTSTATUS status;

    UNREFERENCED_PARAMETER(PortCookie);
    *ReturnOutputBufferLength = 0;
#ifdef MUTANT_UNGUARDED_READ
    message[0] = *(volatile UCHAR *)InputBuffer;
#endif
    status = Copy(message, InputBuffer, length);
    if (!NT_SUCCESS(status)) {
        return status;
    }
#ifdef MUTANT_ADDRESS_INSIDE_THE_MESSAGE_NOT_PROBED
    /* The program says where to write: it can name any address of the kernel's. */
    if (length >= sizeof(PVOID)) {
        PVOID target = *(PVOID *)message;
        Copy(target, message, 1);
    }
#endif
#ifndef MUTANT_WRITE_PAST_THE_OUTPUT_BUFFER
    length = min(length, OutputBufferLength);
#endif
#ifdef MUTANT_UNGUARDED_WRITE
    if (OutputBufferLength != 0) {
        *(volatile UCHAR *)OutputBuffer = message[0];
    }
#elif defined(MUTANT_WRITE_PAST_THE_OUTPUT_BUFFER)
    RtlCopyMemory(OutputBuffer, message, sizeof(message));
#endif
    status = Copy(OutputBuffer, message, length);
    if (NT_SUCCESS(status)) {
#ifdef MUTANT_RETURNS_MORE_THAN_THE_BUFFER
        *ReturnOutputBufferLength = OutputBufferLength + 1;
#else
        *ReturnOutputBufferLength = length;
#endif
    }
    Work();
#ifdef MUTANT_RETURNS_AT_APC_LEVEL
    {
        KIRQL before;
        KeRaiseIrql(APC_LEVEL, &before);
    }
#endif
    return status;
}

static NTSTATUS NTAPI OnConnect(PFLT_PORT Client, PVOID ServerPortCookie, PVOID ConnectionContext, ULONG SizeOfContext,
                                PVOID *ConnectionPortCookie)
{
    UNREFERENCED_PARAMETER(ServerPortCookie);
    UNREFERENCED_PARAMETER(ConnectionContext);
    UNREFERENCED_PARAMETER(SizeOfContext);
    *ConnectionPortCookie = NULL;
    ClientPort = Client;
    return STATUS_SUCCESS;
}

static VOID NTAPI OnDisconnect(PVOID ConnectionCookie)
{
    UNREFERENCED_PARAMETER(ConnectionCookie);
#ifndef MUTANT_CLIENT_PORT_NOT_CLOSED
    FltCloseClientPort(Filter, &ClientPort);
#endif
}

static NTSTATUS NTAPI FilterUnload(FLT_FILTER_UNLOAD_FLAGS Flags)
{
    UNREFERENCED_PARAMETER(Flags);
#ifndef MUTANT_SERVER_PORT_NOT_CLOSED
    FltCloseCommunicationPort(ServerPort);
#endif
#ifdef MUTANT_SERVER_PORT_CLOSED_TWICE
    FltCloseCommunicationPort(ServerPort);
#endif
#ifndef MUTANT_VOLUME_NOT_DEREFERENCED
    FltObjectDereference(Volume);
#endif
#ifdef MUTANT_VOLUME_DEREFERENCED_TWICE
    FltObjectDereference(Volume);
#elif defined(MUTANT_FILTER_REFERENCED_AND_KEPT)
    FltObjectReference(Filter);
#endif
    FltUnregisterFilter(Filter);
    return STATUS_SUCCESS;
}

static const FLT_REGISTRATION Registration = {
    .Size = sizeof(FLT_REGISTRATION),
    .Version = FLT_REGISTRATION_VERSION,
    .FilterUnloadCallback = FilterUnload,
};

static NTSTATUS OpenPort(void)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\MutantPort");
    PSECURITY_DESCRIPTOR descriptor;
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;

    status = FltBuildDefaultSecurityDescriptor(&descriptor, FLT_PORT_ALL_ACCESS);
    if (!NT_SUCCESS(status)) {
        return status;
    }
#ifdef MUTANT_PORT_WITH_A_USER_HANDLE
    InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE, NULL, descriptor);
#else
    InitializeObjectAttributes(&attributes, &name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, descriptor);
#endif
    status = FltCreateCommunicationPort(Filter, &ServerPort, &attributes, NULL, OnConnect, OnDisconnect, OnMessage, 1);
#ifndef MUTANT_DESCRIPTOR_NOT_FREED
    FltFreeSecurityDescriptor(descriptor);
#endif
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING volume = RTL_CONSTANT_STRING(L"\\Device\\HarddiskVolume1");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeEvent(&Worked, SynchronizationEvent, FALSE);
    status = FltRegisterFilter(DriverObject, &Registration, &Filter);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = FltGetVolumeFromName(Filter, &volume, &Volume);
    if (NT_SUCCESS(status)) {
        status = OpenPort();
        if (!NT_SUCCESS(status)) {
            FltObjectDereference(Volume);
        }
    }
    if (NT_SUCCESS(status)) {
        status = FltStartFiltering(Filter);
    }
    if (!NT_SUCCESS(status)) {
        FltUnregisterFilter(Filter);
    }
    return status;
}
