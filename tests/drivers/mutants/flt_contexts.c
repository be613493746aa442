/*
 * Contexts: what is allocated or got is released once, and what is released is not looked at.
 *
 * The correct driver gives each file a stream context when it is opened, and counts in it what is written.
 */
#include <fltKernel.h>

#define TAG 'tuMC'

typedef struct _COUNTS {
    volatile LONG Writes;
} COUNTS, *PCOUNTS;

static PFLT_FILTER Filter;
static LONG Cleaned;

static VOID NTAPI CleanUp(PFLT_CONTEXT Context, FLT_CONTEXT_TYPE ContextType)
{
    InterlockedIncrement(&Cleaned);
}

static PCOUNTS NewCounts(void)
{
    PFLT_CONTEXT context;
    NTSTATUS status;

    status = FltAllocateContext(Filter, FLT_STREAM_CONTEXT, sizeof(COUNTS), NonPagedPool, &context);
    if (!NT_SUCCESS(status)) {
        return NULL;
    }
    RtlZeroMemory(context, sizeof(COUNTS));
#ifdef MUTANT_OVERRUN
    ((volatile UCHAR *)context)[sizeof(COUNTS)] = 1;
#endif
    return context;
}

static FLT_POSTOP_CALLBACK_STATUS NTAPI PostCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                   PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    PCOUNTS counts;

    if ((Flags & FLTFL_POST_OPERATION_DRAINING) || !NT_SUCCESS(Data->IoStatus.Status)) {
        return FLT_POSTOP_FINISHED_PROCESSING;
    }
    counts = NewCounts();
    if (counts == NULL) {
        return FLT_POSTOP_FINISHED_PROCESSING;
    }
    FltSetStreamContext(FltObjects->Instance, FltObjects->FileObject, FLT_SET_CONTEXT_KEEP_IF_EXISTS, counts, NULL);
#ifndef MUTANT_NOT_RELEASED_AFTER_SETTING
    FltReleaseContext(counts);
#endif
#ifdef MUTANT_RELEASED_TWICE
    FltReleaseContext(counts);
#elif defined(MUTANT_FREED_AS_POOL)
    ExFreePoolWithTag(counts, TAG);
#endif
    return FLT_POSTOP_FINISHED_PROCESSING;
}

static FLT_PREOP_CALLBACK_STATUS NTAPI PreWrite(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                PVOID *CompletionContext)
{
    PCOUNTS counts;

    if (!NT_SUCCESS(FltGetStreamContext(FltObjects->Instance, FltObjects->FileObject, (PFLT_CONTEXT *)&counts))) {
        return FLT_PREOP_SUCCESS_NO_CALLBACK;
    }
    InterlockedIncrement(&counts->Writes);
#ifndef MUTANT_NOT_RELEASED_AFTER_GETTING
    FltReleaseContext(counts);
#endif
#ifdef MUTANT_REFERENCED_AND_KEPT
    FltReferenceContext(counts);
#elif defined(MUTANT_USED_AFTER_DELETE)
    /* Nobody holds the context any more: it is gone when it is taken off the stream. */
    FltDeleteStreamContext(FltObjects->Instance, FltObjects->FileObject, NULL);
    InterlockedIncrement(&counts->Writes);
#endif
    return FLT_PREOP_SUCCESS_NO_CALLBACK;
}

static FLT_PREOP_CALLBACK_STATUS NTAPI PreCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                 PVOID *CompletionContext)
{
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
}

static NTSTATUS NTAPI FilterUnload(FLT_FILTER_UNLOAD_FLAGS Flags)
{
    FltUnregisterFilter(Filter);
    return STATUS_SUCCESS;
}

static const FLT_CONTEXT_REGISTRATION Contexts[] = {
    { FLT_STREAM_CONTEXT, 0, CleanUp, sizeof(COUNTS), TAG, NULL, NULL, NULL },
#ifdef MUTANT_UNKNOWN_TYPE
    { 0x0100, 0, CleanUp, sizeof(COUNTS), TAG, NULL, NULL, NULL },
#endif
    { FLT_CONTEXT_END, 0, NULL, 0, 0, NULL, NULL, NULL },
};

static const FLT_OPERATION_REGISTRATION Operations[] = {
    { IRP_MJ_CREATE, 0, PreCreate, PostCreate, NULL },
    { IRP_MJ_WRITE, 0, PreWrite, NULL, NULL },
    { IRP_MJ_OPERATION_END, 0, NULL, NULL, NULL },
};

static const FLT_REGISTRATION Registration = {
    .Size = sizeof(FLT_REGISTRATION),
    .Version = FLT_REGISTRATION_VERSION,
    .ContextRegistration = Contexts,
    .OperationRegistration = Operations,
    .FilterUnloadCallback = FilterUnload,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

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
