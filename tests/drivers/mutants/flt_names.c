/*
 * Names of files: each one that was got is released, once, and not looked at afterwards.
 *
 * The correct driver gets the name of each file that is opened, parses it and looks at the extension, once before the file
 * system and once after it.
 */
#include <fltKernel.h>

static PFLT_FILTER Filter;
static LONG Scripts;

static VOID LookAt(PFLT_CALLBACK_DATA Data)
{
    static const UNICODE_STRING script = RTL_CONSTANT_STRING(L"cmd");
    PFLT_FILE_NAME_INFORMATION name;

    if (!NT_SUCCESS(FltGetFileNameInformation(Data, FLT_FILE_NAME_NORMALIZED | FLT_FILE_NAME_QUERY_DEFAULT, &name))) {
        return;
    }
#ifdef MUTANT_USED_AFTER_RELEASE
    FltReleaseFileNameInformation(name);
#endif
    if (NT_SUCCESS(FltParseFileNameInformation(name)) && RtlEqualUnicodeString(&name->Extension, &script, TRUE)) {
        InterlockedIncrement(&Scripts);
    }
#if !defined(MUTANT_NOT_RELEASED) && !defined(MUTANT_USED_AFTER_RELEASE)
    FltReleaseFileNameInformation(name);
#endif
#ifdef MUTANT_RELEASED_TWICE
    FltReleaseFileNameInformation(name);
#elif defined(MUTANT_REFERENCED_AND_KEPT)
    FltReferenceFileNameInformation(name);
#endif
}

static FLT_PREOP_CALLBACK_STATUS NTAPI PreCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                 PVOID *CompletionContext)
{
    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(CompletionContext);
#ifdef MUTANT_ASKED_FOR_AT_DISPATCH
    {
        KIRQL before;
        KeRaiseIrql(DISPATCH_LEVEL, &before);
        LookAt(Data);
        KeLowerIrql(before);
    }
#else
    LookAt(Data);
#endif
    return FLT_PREOP_SUCCESS_WITH_CALLBACK;
}

static FLT_POSTOP_CALLBACK_STATUS NTAPI PostCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                   PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(CompletionContext);
    if (!(Flags & FLTFL_POST_OPERATION_DRAINING) && NT_SUCCESS(Data->IoStatus.Status)) {
        LookAt(Data);
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
    { IRP_MJ_CREATE, 0, PreCreate, PostCreate, NULL },
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
