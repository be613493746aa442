/*
 * A legacy driver in C to copy from: a control device whose requests carry raw user addresses.
 *
 * Programs open \\.\Memo, add short texts, read them back by number, and clear them. The texts are in a list under an
 * ERESOURCE, in memory from a lookaside list; a DPC counts what is there.
 *
 * Rules that the code shows:
 * - METHOD_NEITHER means that nobody has looked at the buffers: probe them, touch them only inside __try, in the dispatch
 *   routine, where the requesting program's memory is the current one, and never twice the same byte;
 * - __finally gives a lock back on every way out, an exception included, while __except outside of it decides on the status;
 * - a filter expression handles what it expects and lets everything else go on to be a bug check;
 * - an ERESOURCE is acquired with normal kernel APCs disabled, and deleted before its memory goes;
 * - at unload what runs by itself is stopped first, then names, devices and memory go.
 */
#include <ntifs.h>

#define TAG 'omeM'
#define LONGEST 256 /* bytes of one text */

#define IOCTL_MEMO_ADD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_MEMO_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_MEMO_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_MEMO_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _MEMO {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Text[LONGEST];
} MEMO, *PMEMO;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Memo");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\??\\Memo");

static PDEVICE_OBJECT Device;
static NPAGED_LOOKASIDE_LIST Memory;
static ERESOURCE Lock;
static LIST_ENTRY Memos; /* under Lock */
static volatile LONG Count;

/* A DPC runs one count at a time: whoever wants one holds the mutex. */
static FAST_MUTEX Counting;
static KDPC CountDpc;
static KEVENT Counted;
static LONG CountSeen;

/* ---- user memory ---- */

/* Whether an exception is the program's fault; where, and for what, is left in `Status`. */
static LONG ProgramsFault(PEXCEPTION_POINTERS Exception, PNTSTATUS Status)
{
    NTSTATUS code = (NTSTATUS)Exception->ExceptionRecord->ExceptionCode;

    if (code != STATUS_ACCESS_VIOLATION && code != STATUS_DATATYPE_MISALIGNMENT && code != STATUS_IN_PAGE_ERROR) {
        return EXCEPTION_CONTINUE_SEARCH;
    }
    *Status = code;
    return EXCEPTION_EXECUTE_HANDLER;
}

static NTSTATUS CopyFromProgram(PVOID To, PVOID From, ULONG Length)
{
    NTSTATUS status = STATUS_SUCCESS;

    __try {
        ProbeForRead(From, Length, 1);
        RtlCopyMemory(To, From, Length);
    } __except (ProgramsFault(GetExceptionInformation(), &status)) {
        NOTHING; /* the filter has left the status */
    }
    return status;
}

/* ---- the list ---- */

static VOID Enter(BOOLEAN ToChange)
{
    KeEnterCriticalRegion();
    if (ToChange) {
        ExAcquireResourceExclusiveLite(&Lock, TRUE);
    } else {
        ExAcquireResourceSharedLite(&Lock, TRUE);
    }
}

static VOID Leave(void)
{
    ExReleaseResourceLite(&Lock);
    KeLeaveCriticalRegion();
}

static NTSTATUS Add(PVOID Text, ULONG Length)
{
    NTSTATUS status;
    PMEMO memo;

    if (Length == 0 || Length > LONGEST) {
        return STATUS_INVALID_BUFFER_SIZE;
    }
    memo = ExAllocateFromNPagedLookasideList(&Memory);
    if (memo == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    memo->Length = Length;
    status = CopyFromProgram(memo->Text, Text, Length);
    if (!NT_SUCCESS(status)) {
        ExFreeToNPagedLookasideList(&Memory, memo);
        return status;
    }
    Enter(TRUE);
    InsertTailList(&Memos, &memo->Link);
    InterlockedIncrement(&Count);
    Leave();
    return STATUS_SUCCESS;
}

/* Finds a text by its number. The caller holds the lock. */
static PMEMO Find(ULONG Number)
{
    PLIST_ENTRY link;

    for (link = Memos.Flink; link != &Memos; link = link->Flink) {
        if (Number-- == 0) {
            return CONTAINING_RECORD(link, MEMO, Link);
        }
    }
    return NULL;
}

static NTSTATUS Read(PVOID Input, ULONG InputLength, PVOID Output, ULONG OutputLength, PULONG_PTR Returned)
{
    NTSTATUS status;
    ULONG number;
    PMEMO memo;

    if (InputLength < sizeof(number)) {
        return STATUS_INVALID_PARAMETER;
    }
    status = CopyFromProgram(&number, Input, sizeof(number));
    if (!NT_SUCCESS(status)) {
        return status;
    }
    __try {
        Enter(FALSE);
        __try {
            memo = Find(number);
            if (memo == NULL) {
                status = STATUS_NOT_FOUND;
                __leave;
            }
            if (OutputLength < memo->Length) {
                status = STATUS_BUFFER_TOO_SMALL;
                __leave;
            }
            ProbeForWrite(Output, memo->Length, 1);
            RtlCopyMemory(Output, memo->Text, memo->Length);
            *Returned = memo->Length;
        } __finally {
            /* Also when the program's buffer is gone, and before the handler below runs. */
            Leave();
        }
    } __except (ProgramsFault(GetExceptionInformation(), &status)) {
        *Returned = 0;
    }
    return status;
}

static VOID Clear(void)
{
    Enter(TRUE);
    while (!IsListEmpty(&Memos)) {
        PLIST_ENTRY link = RemoveHeadList(&Memos);
        InterlockedDecrement(&Count);
        ExFreeToNPagedLookasideList(&Memory, CONTAINING_RECORD(link, MEMO, Link));
    }
    Leave();
}

/* ---- counting ---- */

static VOID NTAPI OnCount(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    CountSeen = Count;
    KeSetEvent(&Counted, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS CountMemos(PVOID Buffer, ULONG Length, PULONG_PTR Returned)
{
    if (Length < sizeof(LONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    ExAcquireFastMutex(&Counting);
    KeInsertQueueDpc(&CountDpc, NULL, NULL);
    KeWaitForSingleObject(&Counted, Executive, KernelMode, FALSE, NULL);
    *(PLONG)Buffer = CountSeen;
    ExReleaseFastMutex(&Counting);
    *Returned = sizeof(LONG);
    return STATUS_SUCCESS;
}

/* ---- requests ---- */

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI OpenOrClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID input = stack->Parameters.DeviceIoControl.Type3InputBuffer;
    ULONG inputLength = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outputLength = stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR returned = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MEMO_ADD:
        status = Add(input, inputLength);
        break;
    case IOCTL_MEMO_READ:
        status = Read(input, inputLength, Irp->UserBuffer, outputLength, &returned);
        break;
    case IOCTL_MEMO_CLEAR:
        Clear();
        status = STATUS_SUCCESS;
        break;
    case IOCTL_MEMO_COUNT:
        status = CountMemos(Irp->AssociatedIrp.SystemBuffer, outputLength, &returned);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(Irp, status, returned);
}

/* ---- the driver ---- */

static VOID NTAPI DriverUnload(PDRIVER_OBJECT DriverObject)
{
    KeFlushQueuedDpcs();
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Device);
    Clear();
    ExDeleteResourceLite(&Lock);
    ExDeleteNPagedLookasideList(&Memory);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    InitializeListHead(&Memos);
    ExInitializeFastMutex(&Counting);
    KeInitializeEvent(&Counted, SynchronizationEvent, FALSE);
    KeInitializeDpc(&CountDpc, OnCount, NULL);
    status = ExInitializeResourceLite(&Lock);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ExInitializeNPagedLookasideList(&Memory, NULL, NULL, 0, sizeof(MEMO), TAG, 0);

    status = IoCreateDevice(DriverObject, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(status)) {
        goto FreeLists;
    }
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        goto DeleteDevice;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = OpenOrClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = OpenOrClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = OpenOrClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    DriverObject->DriverUnload = DriverUnload;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;

DeleteDevice:
    IoDeleteDevice(Device);
FreeLists:
    ExDeleteNPagedLookasideList(&Memory);
    ExDeleteResourceLite(&Lock);
    return status;
}
