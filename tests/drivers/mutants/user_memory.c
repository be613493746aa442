/*
 * A program's memory, as METHOD_NEITHER hands it to a driver: raw addresses, which may be bad, or go bad at any moment.
 *
 * A program's handle, too, is the program's to say.
 *
 * The correct driver probes and copies inside __try, touches without a guard only what it has locked, and goes back to the
 * process that an address belongs to before it uses the address again.
 */
#include "wdm_mutant.h"

#define LARGEST 64

#define IOCTL_ECHO CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_KEEP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_NAME CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_NEITHER, FILE_ANY_ACCESS)

static PEPROCESS Owner;
static PUCHAR Kept;
static volatile UCHAR First;

static NTSTATUS Capture(PVOID To, PVOID From, ULONG Length)
{
    __try {
        ProbeForRead(From, Length, 1);
        RtlCopyMemory(To, From, Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Return(PVOID To, PVOID From, ULONG Length)
{
#ifdef MUTANT_WRITTEN_UNGUARDED
    *(volatile UCHAR *)To = *(PUCHAR)From;
#endif
    __try {
        ProbeForWrite(To, Length, 1);
        RtlCopyMemory(To, From, Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return STATUS_SUCCESS;
}

/* Locked pages stay, whatever the program does: their system address needs no guard. */
static NTSTATUS LookAtLocked(PUCHAR Buffer, ULONG Length)
{
    PMDL list = IoAllocateMdl(Buffer, Length, FALSE, FALSE, NULL);
    PUCHAR system;

    if (list == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
#ifdef MUTANT_LOCKED_UNGUARDED
    MmProbeAndLockPages(list, UserMode, IoReadAccess);
#else
    __try {
        MmProbeAndLockPages(list, UserMode, IoReadAccess);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        IoFreeMdl(list);
        return GetExceptionCode();
    }
#endif
#ifdef MUTANT_LOCKED_AND_NOT_MAPPED
    system = Buffer;
#else
    system = MmGetSystemAddressForMdlSafe(list, NormalPagePriority);
#endif
    if (system != NULL) {
        First = *(volatile UCHAR *)system;
    }
#ifdef MUTANT_LOCKED_UNTIL_THE_PROCESS_ENDS
    return STATUS_SUCCESS;
#endif
    MmUnlockPages(list);
    IoFreeMdl(list);
    return STATUS_SUCCESS;
}

static NTSTATUS Echo(PVOID Input, ULONG InputLength, PVOID Output, ULONG OutputLength)
{
    ULONG length = min(min(InputLength, OutputLength), LARGEST);
    PUCHAR message;
    NTSTATUS status;

#ifdef MUTANT_READ_UNGUARDED
    First = *(volatile UCHAR *)Input;
#elif defined(MUTANT_PROBED_UNGUARDED)
    ProbeForRead(Input, InputLength, 1);
#elif defined(MUTANT_GIVEN_TO_A_ROUTINE_UNGUARDED)
    {
        WCHAR buffer[LARGEST];
        UNICODE_STRING own = {0, sizeof(buffer), buffer};
        UNICODE_STRING given = {(USHORT)(length & ~1), (USHORT)(length & ~1), Input};
        RtlCopyUnicodeString(&own, &given);
    }
#endif
    message = ExAllocatePoolWithTag(NonPagedPoolNx, LARGEST, TAG);
    if (message == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    status = Capture(message, Input, length);
    if (NT_SUCCESS(status)) {
        status = LookAtLocked(Input, length);
    }
#ifdef MUTANT_READ_AGAIN_UNGUARDED
    message[0] = *(volatile UCHAR *)Input;
#endif
    if (NT_SUCCESS(status)) {
        status = Return(Output, message, length);
    }
    ExFreePoolWithTag(message, TAG);
    return status;
}

/* The program names one of its files by a handle. */
static NTSTATUS UseHandle(HANDLE Handle)
{
    PFILE_OBJECT file;
    NTSTATUS status;
#ifdef MUTANT_USER_HANDLE_AS_A_KERNEL_HANDLE
    status = ObReferenceObjectByHandle(Handle, FILE_READ_DATA, *IoFileObjectType, KernelMode, (PVOID *)&file, NULL);
#else
    status = ObReferenceObjectByHandle(Handle, FILE_READ_DATA, *IoFileObjectType, UserMode, (PVOID *)&file, NULL);
#endif
    if (NT_SUCCESS(status)) {
        ObDereferenceObject(file);
    }
    return status;
}

/* Another program asks what the first one's buffer begins with now. */
static NTSTATUS Look(void)
{
    KAPC_STATE state;
    NTSTATUS status;
    UCHAR now;

    if (Owner == NULL) {
        return STATUS_NOT_FOUND;
    }
#ifdef MUTANT_TOUCHED_FROM_ANOTHER_PROCESS
    First = *(volatile UCHAR *)Kept;
#endif
    KeStackAttachProcess((PKPROCESS)Owner, &state);
    status = Capture(&now, Kept, 1);
    KeUnstackDetachProcess(&state);
#ifdef MUTANT_TOUCHED_AFTER_DETACHING
    First = *(volatile UCHAR *)Kept;
#else
    First = now;
#endif
    return status;
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PVOID input = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
    ULONG inputLength = Stack->Parameters.DeviceIoControl.InputBufferLength;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ECHO:
        return Finish(Irp, Echo(input, inputLength, Irp->UserBuffer,
                                Stack->Parameters.DeviceIoControl.OutputBufferLength));
    case IOCTL_KEEP:
        Owner = PsGetCurrentProcess();
        ObReferenceObject(Owner);
        Kept = input;
        return Finish(Irp, STATUS_SUCCESS);
    case IOCTL_NAME:
        if (inputLength < sizeof(HANDLE)) {
            return Finish(Irp, STATUS_INVALID_PARAMETER);
        }
        return Finish(Irp, UseHandle(*(PHANDLE)Irp->AssociatedIrp.SystemBuffer));
    case IOCTL_LOOK:
        return Finish(Irp, Look());
    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST);
    }
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    if (Owner != NULL) {
        ObDereferenceObject(Owner);
    }
}
