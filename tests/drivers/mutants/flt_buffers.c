/*
 * The buffers of reads and writes, which are a program's own.
 *
 * The correct driver looks at what is written inside __try, and at what was read through a system address of the locked
 * buffer, which needs no guard.
 */
#include <fltKernel.h>

static PFLT_FILTER Filter;
static volatile UCHAR First;

static FLT_PREOP_CALLBACK_STATUS NTAPI PreWrite(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                PVOID *CompletionContext)
{
    PUCHAR buffer = Data->Iopb->Parameters.Write.WriteBuffer;

    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(CompletionContext);
    if (Data->Iopb->Parameters.Write.Length == 0) {
        return FLT_PREOP_SUCCESS_NO_CALLBACK;
    }
#ifdef MUTANT_WRITE_BUFFER_READ_UNGUARDED
    First = *(volatile UCHAR *)buffer;
#endif
    __try {
        First = *(volatile UCHAR *)buffer;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Data->IoStatus.Status = GetExceptionCode();
        return FLT_PREOP_COMPLETE;
    }
    return FLT_PREOP_SUCCESS_NO_CALLBACK;
}

static FLT_POSTOP_CALLBACK_STATUS NTAPI PostRead(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                 PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    PUCHAR buffer;

    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(CompletionContext);
    UNREFERENCED_PARAMETER(Flags);
    if (Data->IoStatus.Information == 0 || KeGetCurrentIrql() > APC_LEVEL || !NT_SUCCESS(FltLockUserBuffer(Data))) {
        return FLT_POSTOP_FINISHED_PROCESSING;
    }
#ifdef MUTANT_READ_BUFFER_CHANGED_UNGUARDED
    buffer = Data->Iopb->Parameters.Read.ReadBuffer;
#else
    buffer = MmGetSystemAddressForMdlSafe(Data->Iopb->Parameters.Read.MdlAddress, NormalPagePriority);
#endif
    if (buffer != NULL) {
        First = *(volatile UCHAR *)buffer;
        *(volatile UCHAR *)buffer = First;
    }
    return FLT_POSTOP_FINISHED_PROCESSING;
}

static NTSTATUS NTAPI FilterUnload(FLT_FILTER_UNLOAD_FLAGS Flags)
{
    UNREFERENCED_PARAMETER(Flags);
    FltUnregisterFilter(Filter);
    return STATUS_SUCCESS;
}

static const FLT_OPERATION_REGISTRATION Operations[] = {
    { IRP_MJ_WRITE, 0, PreWrite, NULL, NULL },
    { IRP_MJ_READ, 0, NULL, PostRead, NULL },
    { IRP_MJ_OPERATION_END, 0, NULL, NULL, NULL },
};

static const FLT_REGISTRATION Registration = {
    .Size = sizeof(FLT_REGISTRATION),
    .Version = FLT_REGISTRATION_VERSION,
    .OperationRegistration = Operations,
    .FilterUnloadCallback = FilterUnload,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = FltRegisterFilter(DriverObject, &Registration, &Filter);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = FltStartFiltering(Filter);
    if (!NT_SUCCESS(status)) {
        FltUnregisterFilter(Filter);
    }
    return status;
}
