/*
 * Exceptions that no handler takes, and handlers that take too much for granted.
 *
 * The correct driver raises a status inside __try, lets it cross a __finally, and handles it by its code. It does the same
 * through calls that call a driver: IoCallDriver and RtlQueryRegistryValues.
 */
#include "wdm_mutant.h"

static ULONG Cleaned;

static VOID Raise(NTSTATUS Status)
{
    ExRaiseStatus(Status);
}

static VOID RaiseInside(NTSTATUS Status)
{
    __try {
        Raise(Status);
    } __finally {
        Cleaned++;
#ifdef MUTANT_RAISES_IN_FINALLY
        *(volatile ULONG *)0x10 = 1;
#endif
    }
}

static LONG Expected(NTSTATUS Code)
{
#ifdef MUTANT_FILTER_SEARCHES_ON
    return EXCEPTION_CONTINUE_SEARCH;
#else
    return Code == STATUS_DATA_ERROR ? EXCEPTION_EXECUTE_HANDLER : EXCEPTION_CONTINUE_SEARCH;
#endif
}

static LONG Mine(NTSTATUS Code)
{
    return Code == STATUS_DATA_ERROR ? EXCEPTION_EXECUTE_HANDLER : EXCEPTION_CONTINUE_SEARCH;
}

static NTSTATUS NTAPI FlushRaises(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    Raise(STATUS_DATA_ERROR);
    return STATUS_UNSUCCESSFUL;
}

static NTSTATUS NTAPI TakeBack(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* The dispatch routine below raises: the handler around IoCallDriver gets it, and the request is the caller's again. */
static NTSTATUS ThroughDispatch(VOID)
{
    NTSTATUS status = STATUS_UNSUCCESSFUL;
    PIRP irp = IoAllocateIrp(Control->StackSize, FALSE);

    if (irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoGetNextIrpStackLocation(irp)->MajorFunction = IRP_MJ_FLUSH_BUFFERS;
    IoSetCompletionRoutine(irp, TakeBack, NULL, TRUE, TRUE, TRUE);
    __try {
        IoCallDriver(Control, irp);
    } __except (Mine(GetExceptionCode())) {
        Finish(irp, STATUS_DATA_ERROR);
        status = STATUS_SUCCESS;
    }
    IoFreeIrp(irp);
    return status;
}

static NTSTATUS NTAPI QueryRaises(PWSTR Name, ULONG Type, PVOID Data, ULONG Length, PVOID Context, PVOID EntryContext)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Type);
    UNREFERENCED_PARAMETER(Data);
    UNREFERENCED_PARAMETER(Length);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(EntryContext);
    Raise(STATUS_DATA_ERROR);
    return STATUS_SUCCESS;
}

static ULONG Default = 7;
static RTL_QUERY_REGISTRY_TABLE Table[2] = {
    { QueryRaises, 0, L"NoSuchValue", NULL, REG_DWORD, &Default, sizeof(Default) },
};

/* A query routine raises: the handler around RtlQueryRegistryValues gets it. */
static NTSTATUS ThroughQuery(VOID)
{
    NTSTATUS status = STATUS_UNSUCCESSFUL;

    __try {
        RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, NULL, Table, NULL, NULL);
    } __except (Mine(GetExceptionCode())) {
        status = STATUS_SUCCESS;
    }
    return status;
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = STATUS_UNSUCCESSFUL;

#ifdef MUTANT_RAISED_OUTSIDE_OF_TRY
    Raise(STATUS_DATA_ERROR);
#elif defined(MUTANT_ANOTHER_STATUS_RAISED)
    __try {
        RaiseInside(STATUS_INVALID_PARAMETER);
#else
    __try {
        RaiseInside(STATUS_DATA_ERROR);
#endif
#ifndef MUTANT_RAISED_OUTSIDE_OF_TRY
    } __except (Expected(GetExceptionCode())) {
        status = Cleaned == 1 ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
    }
#endif
    if (NT_SUCCESS(status)) {
        status = ThroughDispatch();
    }
    if (NT_SUCCESS(status)) {
        status = ThroughQuery();
    }
    return Finish(Irp, status);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    DriverObject->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = FlushRaises;
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
}
