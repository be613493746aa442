/*
 * Operations on files: what a callback may return, and what it owes the operation.
 *
 * The correct driver looks at each write before and after the file system, and lets it pass.
 */
#include <fltKernel.h>

static PFLT_FILTER Filter;
static KSPIN_LOCK Lock;
static LONG Seen;

#ifdef MUTANT_FILE_OPENED_UNDER_A_SPIN_LOCK
static VOID OpenLog(PCFLT_RELATED_OBJECTS FltObjects)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\??\\C:\\log.txt");
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK ended;
    PFILE_OBJECT object;
    HANDLE handle;

    InitializeObjectAttributes(&attributes, &name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(FltCreateFileEx(Filter, FltObjects->Instance, &handle, &object, FILE_GENERIC_READ, &attributes, &ended,
                                   NULL, 0, FILE_SHARE_READ, FILE_OPEN, 0, NULL, 0, 0))) {
        ObDereferenceObject(object);
        FltClose(handle);
    }
}
#endif

static VOID Look(PCFLT_RELATED_OBJECTS FltObjects)
{
    KIRQL before;

    KeAcquireSpinLock(&Lock, &before);
    Seen++;
#ifdef MUTANT_FILE_OPENED_UNDER_A_SPIN_LOCK
    OpenLog(FltObjects);
#endif
    KeReleaseSpinLock(&Lock, before);
}

static FLT_PREOP_CALLBACK_STATUS NTAPI PreWrite(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                PVOID *CompletionContext)
{
    Look(FltObjects);
#ifdef MUTANT_UNKNOWN_STATUS_RETURNED
    return (FLT_PREOP_CALLBACK_STATUS)77;
#elif defined(MUTANT_COMPLETED_AS_PENDING)
    Data->IoStatus.Status = STATUS_PENDING;
    return FLT_PREOP_COMPLETE;
#elif defined(MUTANT_PENDED_AND_FORGOTTEN)
    return FLT_PREOP_PENDING;
#elif defined(MUTANT_CONTEXT_WITHOUT_CALLBACK)
    *CompletionContext = &Seen;
    return FLT_PREOP_SUCCESS_NO_CALLBACK;
#elif defined(MUTANT_CHANGED_AND_NOT_DIRTY)
    Data->Iopb->Parameters.Write.Length = 1;
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
#elif defined(MUTANT_COMPLETED_FROM_BELOW)
    FltCompletePendedPreOperation(Data, FLT_PREOP_SUCCESS_WITH_CALLBACK, NULL);
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
#elif defined(MUTANT_PRE_RETURNS_AT_DISPATCH)
    {
        KIRQL before;
        KeRaiseIrql(DISPATCH_LEVEL, &before);
    }
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
#else
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
#endif
}

static FLT_POSTOP_CALLBACK_STATUS NTAPI PostWrite(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                  PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    Look(FltObjects);
#ifdef MUTANT_UNKNOWN_POST_STATUS_RETURNED
    return (FLT_POSTOP_CALLBACK_STATUS)77;
#elif defined(MUTANT_KEPT_AFTER_THE_OPERATION)
    return FLT_POSTOP_MORE_PROCESSING_REQUIRED;
#else
    return FLT_POSTOP_FINISHED_PROCESSING;
#endif
}

static NTSTATUS NTAPI FilterUnload(FLT_FILTER_UNLOAD_FLAGS Flags)
{
    FltUnregisterFilter(Filter);
    return STATUS_SUCCESS;
}

static const FLT_OPERATION_REGISTRATION Operations[] = {
    { IRP_MJ_WRITE, 0, PreWrite, PostWrite, NULL },
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

    KeInitializeSpinLock(&Lock);
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
