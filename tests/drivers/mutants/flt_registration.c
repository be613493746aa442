/* Built with MinGW's gcc. */
/*
 * Registration of a minifilter, from DriverEntry to its unload callback.
 *
 * The correct driver registers for IRP_MJ_CREATE, lets it pass, and unregisters.
 */
#include <fltKernel.h>

static PFLT_FILTER Filter;

static FLT_PREOP_CALLBACK_STATUS NTAPI PreCreate(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                 PVOID *CompletionContext)
{
    UNREFERENCED_PARAMETER(Data);
    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(CompletionContext);
    return FLT_PREOP_SUCCESS_NO_CALLBACK;
}

#ifdef MUTANT_SHUTDOWN_WITH_POST_OPERATION
static FLT_POSTOP_CALLBACK_STATUS NTAPI PostShutdown(PFLT_CALLBACK_DATA Data, PCFLT_RELATED_OBJECTS FltObjects,
                                                     PVOID CompletionContext, FLT_POST_OPERATION_FLAGS Flags)
{
    UNREFERENCED_PARAMETER(Data);
    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(CompletionContext);
    UNREFERENCED_PARAMETER(Flags);
    return FLT_POSTOP_FINISHED_PROCESSING;
}
#endif

static NTSTATUS NTAPI InstanceSetup(PCFLT_RELATED_OBJECTS FltObjects, FLT_INSTANCE_SETUP_FLAGS Flags,
                                    DEVICE_TYPE VolumeDeviceType, FLT_FILESYSTEM_TYPE VolumeFilesystemType)
{
    UNREFERENCED_PARAMETER(FltObjects);
    UNREFERENCED_PARAMETER(Flags);
    UNREFERENCED_PARAMETER(VolumeDeviceType);
    UNREFERENCED_PARAMETER(VolumeFilesystemType);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FilterUnload(FLT_FILTER_UNLOAD_FLAGS Flags)
{
    UNREFERENCED_PARAMETER(Flags);
#ifndef MUTANT_NOT_UNREGISTERED
    FltUnregisterFilter(Filter);
#endif
#ifdef MUTANT_UNREGISTERED_TWICE
    FltUnregisterFilter(Filter);
#endif
    return STATUS_SUCCESS;
}

static const FLT_OPERATION_REGISTRATION Operations[] = {
    { IRP_MJ_CREATE, 0, PreCreate, NULL, NULL },
#ifdef MUTANT_OPERATION_TWICE
    { IRP_MJ_CREATE, 0, PreCreate, NULL, NULL },
#elif defined(MUTANT_POWER_REGISTERED)
    { IRP_MJ_POWER, 0, PreCreate, NULL, NULL },
#elif defined(MUTANT_SHUTDOWN_WITH_POST_OPERATION)
    { IRP_MJ_SHUTDOWN, 0, PreCreate, PostShutdown, NULL },
#endif
    { IRP_MJ_OPERATION_END, 0, NULL, NULL, NULL },
};

static const FLT_REGISTRATION Registration = {
#ifdef MUTANT_WRONG_SIZE
    sizeof(FLT_REGISTRATION) - 2 * sizeof(PVOID),
#else
    sizeof(FLT_REGISTRATION),
#endif
#ifdef MUTANT_WRONG_VERSION
    0x0100,
#else
    FLT_REGISTRATION_VERSION,
#endif
    0, NULL, Operations, FilterUnload, InstanceSetup, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
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
#ifdef MUTANT_STARTED_TWICE
    if (NT_SUCCESS(status)) {
        status = FltStartFiltering(Filter);
    }
#elif defined(MUTANT_FAILS_WITHOUT_UNREGISTERING)
    return STATUS_INSUFFICIENT_RESOURCES;
#endif
    if (!NT_SUCCESS(status)) {
        FltUnregisterFilter(Filter);
    }
    return status;
}
