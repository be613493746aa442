/*
 * What a lightweight filter does wrong: registration, attach and detach, OID requests, net buffer lists.
 *
 * The correct driver passes every OID request and indication through, and keeps a net buffer list with data for each module.
 */
#include <ndis.h>

#define TAG 'tuMC'

/* Which filter reads from the module's context: there is one at a time. */
typedef struct _MODULE {
    NDIS_HANDLE Handle;
    NDIS_HANDLE Pool;
    PNET_BUFFER_LIST List;
} MODULE, *PMODULE;

static NDIS_HANDLE Driver;

static NDIS_OBJECT_HEADER Header(UCHAR type, UCHAR revision, USHORT size)
{
    NDIS_OBJECT_HEADER header = {type, revision, size};
    return header;
}

/* ---- net buffer lists ---- */

static NDIS_STATUS AllocateList(PMODULE module)
{
    NET_BUFFER_LIST_POOL_PARAMETERS parameters;
    PUCHAR data;

    RtlZeroMemory(&parameters, sizeof(parameters));
    parameters.Header = Header(NDIS_OBJECT_TYPE_DEFAULT, NET_BUFFER_LIST_POOL_PARAMETERS_REVISION_1,
                               NDIS_SIZEOF_NET_BUFFER_LIST_POOL_PARAMETERS_REVISION_1);
#ifndef MUTANT_DATA_WITHOUT_A_BUFFER
    parameters.fAllocateNetBuffer = TRUE;
#endif
#ifdef MUTANT_CONTEXT_SIZE_NOT_ALIGNED
    parameters.ContextSize = 8;
#endif
    parameters.PoolTag = TAG;
    parameters.DataSize = 64;
    module->Pool = NdisAllocateNetBufferListPool(module->Handle, &parameters);
    if (module->Pool == NULL) {
        return NDIS_STATUS_RESOURCES;
    }
    module->List = NdisAllocateNetBufferList(module->Pool, 0, 0);
    if (module->List == NULL) {
        NdisFreeNetBufferListPool(module->Pool);
        return NDIS_STATUS_RESOURCES;
    }
    data = NdisGetDataBuffer(NET_BUFFER_LIST_FIRST_NB(module->List), 64, NULL, 1, 0);
    if (data != NULL) {
        data[63] = 1;
#ifdef MUTANT_WRITTEN_PAST_THE_DATA
        data[64] = 1;
#endif
    }
    return NDIS_STATUS_SUCCESS;
}

static VOID FreeList(PMODULE module)
{
#ifdef MUTANT_POOL_HANDLE_OVERWRITTEN
    module->List->NdisPoolHandle = NULL;
#endif
#ifdef MUTANT_LIST_FREED_AS_MEMORY
    NdisFreeMemory(module->List, 0, 0);
#endif
#ifndef MUTANT_POOL_FREED_FIRST
    NdisFreeNetBufferList(module->List);
#endif
#ifdef MUTANT_LIST_FREED_TWICE
    NdisFreeNetBufferList(module->List);
#endif
#ifndef MUTANT_POOL_LEFT
    NdisFreeNetBufferListPool(module->Pool);
#endif
}

/* ---- attach and detach ---- */

static NDIS_STATUS Attach(NDIS_HANDLE handle, NDIS_HANDLE context, PNDIS_FILTER_ATTACH_PARAMETERS parameters)
{
    PMODULE module = NdisAllocateMemoryWithTagPriority(handle, sizeof(*module), TAG, 0);
    NDIS_FILTER_ATTRIBUTES attributes;
    NDIS_STATUS status;

    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(parameters);
    if (module == NULL) {
        return NDIS_STATUS_RESOURCES;
    }
    RtlZeroMemory(module, sizeof(*module));
    module->Handle = handle;
    status = AllocateList(module);
    if (status != NDIS_STATUS_SUCCESS) {
        NdisFreeMemory(module, 0, 0);
        return status;
    }
#ifdef MUTANT_INDICATION_WHILE_ATTACHING
    {
        NDIS_STATUS_INDICATION indication;

        RtlZeroMemory(&indication, sizeof(indication));
        indication.Header = Header(NDIS_OBJECT_TYPE_STATUS_INDICATION, NDIS_STATUS_INDICATION_REVISION_1,
                                   NDIS_SIZEOF_STATUS_INDICATION_REVISION_1);
        indication.SourceHandle = handle;
        NdisFIndicateStatus(handle, &indication);
    }
#endif
    attributes.Header = Header(NDIS_OBJECT_TYPE_FILTER_ATTRIBUTES, NDIS_FILTER_ATTRIBUTES_REVISION_1,
                               NDIS_SIZEOF_FILTER_ATTRIBUTES_REVISION_1);
    attributes.Flags = 0;
#ifndef MUTANT_NO_ATTRIBUTES
    status = NdisFSetAttributes(handle, module, &attributes);
#endif
#ifdef MUTANT_ATTACH_PENDED
    return NDIS_STATUS_PENDING;
#endif
    return status;
}

static VOID Detach(NDIS_HANDLE context)
{
    PMODULE module = context;

    FreeList(module);
#ifdef MUTANT_DETACH_KEEPS_A_WORK_ITEM
    NdisAllocateIoWorkItem(module->Handle);
#endif
#ifndef MUTANT_CONTEXT_LEFT
    NdisFreeMemory(module, 0, 0);
#endif
}

static NDIS_STATUS Restart(NDIS_HANDLE context, PNDIS_FILTER_RESTART_PARAMETERS parameters)
{
    PMODULE module = context;

    UNREFERENCED_PARAMETER(module);
    UNREFERENCED_PARAMETER(parameters);
#ifdef MUTANT_RESTART_COMPLETED_UNASKED
    NdisFRestartComplete(module->Handle, NDIS_STATUS_SUCCESS);
#endif
    return NDIS_STATUS_SUCCESS;
}

static NDIS_STATUS Pause(NDIS_HANDLE context, PNDIS_FILTER_PAUSE_PARAMETERS parameters)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(parameters);
#ifdef MUTANT_PAUSE_REFUSED
    return NDIS_STATUS_RESOURCES;
#endif
#ifdef MUTANT_PAUSE_NEVER_COMPLETED
    return NDIS_STATUS_PENDING;
#endif
    return NDIS_STATUS_SUCCESS;
}

/* ---- requests ---- */

static VOID OidRequestComplete(NDIS_HANDLE context, PNDIS_OID_REQUEST clone, NDIS_STATUS status)
{
    PMODULE module = context;
    PNDIS_OID_REQUEST original = *(PNDIS_OID_REQUEST *)clone->SourceReserved;

    original->DATA.QUERY_INFORMATION.BytesWritten = clone->DATA.QUERY_INFORMATION.BytesWritten;
    original->DATA.QUERY_INFORMATION.BytesNeeded = clone->DATA.QUERY_INFORMATION.BytesNeeded;
#ifndef MUTANT_CLONE_LEFT
    NdisFreeCloneOidRequest(module->Handle, clone);
#endif
#ifdef MUTANT_CLONE_FREED_TWICE
    NdisFreeCloneOidRequest(module->Handle, clone);
#endif
#ifdef MUTANT_CLONE_COMPLETED
    NdisFOidRequestComplete(module->Handle, clone, status);
#endif
    NdisFOidRequestComplete(module->Handle, original, status);
#ifdef MUTANT_REQUEST_COMPLETED_TWICE
    NdisFOidRequestComplete(module->Handle, original, status);
#endif
}

static NDIS_STATUS OidRequest(NDIS_HANDLE context, PNDIS_OID_REQUEST request)
{
    PMODULE module = context;
    PNDIS_OID_REQUEST clone;
    NDIS_STATUS status;

#ifdef MUTANT_ORIGINAL_FORWARDED
    return NdisFOidRequest(module->Handle, request);
#endif
#ifdef MUTANT_REQUEST_NEVER_COMPLETED
    return NDIS_STATUS_PENDING;
#endif
    status = NdisAllocateCloneOidRequest(module->Handle, request, TAG, &clone);
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
    *(PNDIS_OID_REQUEST *)clone->SourceReserved = request;
    clone->RequestId = request->RequestId;
    status = NdisFOidRequest(module->Handle, clone);
#ifdef MUTANT_CLONE_FREED_WHILE_PENDED
    if (status == NDIS_STATUS_PENDING) {
        NdisFreeCloneOidRequest(module->Handle, clone);
    }
#endif
    if (status != NDIS_STATUS_PENDING) {
        OidRequestComplete(context, clone, status);
    }
    return NDIS_STATUS_PENDING;
}

static VOID Status(NDIS_HANDLE context, PNDIS_STATUS_INDICATION indication)
{
    PMODULE module = context;

#ifdef MUTANT_INDICATION_WITHOUT_HEADER
    indication->Header.Size = 0;
#endif
    NdisFIndicateStatus(module->Handle, indication);
}

/* ---- the driver ---- */

static VOID NTAPI DriverUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
#ifndef MUTANT_NOT_DEREGISTERED
    NdisFDeregisterFilterDriver(Driver);
#endif
#ifdef MUTANT_DEREGISTERED_TWICE
    NdisFDeregisterFilterDriver(Driver);
#endif
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    NDIS_STRING friendly = RTL_CONSTANT_STRING(L"A filter of the test suite");
#ifdef MUTANT_UNIQUE_NAME_IS_NO_GUID
    NDIS_STRING unique = RTL_CONSTANT_STRING(L"Mutant");
#else
    NDIS_STRING unique = RTL_CONSTANT_STRING(L"{7f2f8a1c-3f6b-4b5e-9d43-0c1d2e3f4a5b}");
#endif
    NDIS_STRING service = RTL_CONSTANT_STRING(L"Mutant");
    NDIS_FILTER_DRIVER_CHARACTERISTICS characteristics;

    UNREFERENCED_PARAMETER(registry_path);
    RtlZeroMemory(&characteristics, sizeof(characteristics));
    characteristics.Header =
        Header(NDIS_OBJECT_TYPE_FILTER_DRIVER_CHARACTERISTICS, NDIS_FILTER_CHARACTERISTICS_REVISION_2,
               NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_2);
    characteristics.MajorNdisVersion = 6;
    characteristics.MinorNdisVersion = 30;
    characteristics.FriendlyName = friendly;
    characteristics.UniqueName = unique;
    characteristics.ServiceName = service;
    characteristics.AttachHandler = Attach;
    characteristics.DetachHandler = Detach;
    characteristics.RestartHandler = Restart;
    characteristics.PauseHandler = Pause;
    characteristics.OidRequestHandler = OidRequest;
#ifndef MUTANT_NO_COMPLETION_HANDLER
    characteristics.OidRequestCompleteHandler = OidRequestComplete;
#endif
    characteristics.StatusHandler = Status;
    driver->DriverUnload = DriverUnload;
    return NdisFRegisterFilterDriver(driver, driver, &characteristics, &Driver);
}
