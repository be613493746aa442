/*
 * What an NDIS miniport does wrong: registration, attributes, requests, files, and what it leaves when it is halted.
 *
 * The correct driver has no hardware. It reads its configuration and a file, has a timer and a work item, answers one OID at once
 * and one from the work item, and indicates a status when it is restarted. A control device beside the adapters counts requests.
 */
#include <ndis.h>

#define TAG 'tuMC'

#define OID_MUTANT_NOW 0xFF000001
#define OID_MUTANT_LATER 0xFF000002

static NDIS_HANDLE Driver;
static NDIS_HANDLE ControlHandle;
static PDEVICE_OBJECT Control;
static NDIS_HANDLE Adapter;
static NDIS_HANDLE Timer;
static NDIS_HANDLE WorkItem;
static NDIS_HANDLE Configuration;
static NDIS_SPIN_LOCK Lock;
static NDIS_EVENT WorkDone;
static PNDIS_OID_REQUEST Pended;
static NDIS_OID Supported[] = {OID_GEN_VENDOR_ID, OID_MUTANT_NOW, OID_MUTANT_LATER};

static NDIS_OBJECT_HEADER Header(UCHAR type, UCHAR revision, USHORT size)
{
    NDIS_OBJECT_HEADER header = {type, revision, size};
    return header;
}

/* ---- requests ---- */

static NDIS_STATUS Answer(PNDIS_OID_REQUEST request)
{
    ULONG value = 7;

    if (request->RequestType != NdisRequestQueryInformation) {
        return NDIS_STATUS_NOT_SUPPORTED;
    }
    if (request->DATA.QUERY_INFORMATION.InformationBufferLength < sizeof(value)) {
#ifdef MUTANT_TOO_SHORT_WITHOUT_LENGTH
        request->DATA.QUERY_INFORMATION.BytesNeeded = 0;
#else
        request->DATA.QUERY_INFORMATION.BytesNeeded = sizeof(value);
#endif
        return NDIS_STATUS_BUFFER_TOO_SHORT;
    }
    RtlCopyMemory(request->DATA.QUERY_INFORMATION.InformationBuffer, &value, sizeof(value));
#ifdef MUTANT_BUFFER_OVERRUN
    ((PUCHAR)request->DATA.QUERY_INFORMATION.InformationBuffer)[4] = 1;
#endif
#ifdef MUTANT_MORE_WRITTEN_THAN_ROOM
    request->DATA.QUERY_INFORMATION.BytesWritten = 64;
#else
    request->DATA.QUERY_INFORMATION.BytesWritten = sizeof(value);
#endif
    return NDIS_STATUS_SUCCESS;
}

static VOID AnswerLater(PVOID context, NDIS_HANDLE item)
{
    PNDIS_OID_REQUEST request = context;
    NDIS_STATUS status;

    UNREFERENCED_PARAMETER(item);
    /* A device takes its time, in microseconds: whoever asked has gone on by then. */
    NdisMSleep(50000);
    status = Answer(request);
#ifdef MUTANT_COMPLETED_AS_PENDING
    status = NDIS_STATUS_PENDING;
#endif
    NdisMOidRequestComplete(Adapter, request, status);
#ifdef MUTANT_REQUEST_COMPLETED_TWICE
    NdisMOidRequestComplete(Adapter, request, status);
#endif
    NdisSetEvent(&WorkDone);
}

static NDIS_STATUS OidRequest(NDIS_HANDLE context, PNDIS_OID_REQUEST request)
{
    UNREFERENCED_PARAMETER(context);
    switch (request->DATA.QUERY_INFORMATION.Oid) {
    case OID_MUTANT_NOW: {
        NDIS_STATUS status = Answer(request);
#ifdef MUTANT_COMPLETED_AND_RETURNED
        NdisMOidRequestComplete(Adapter, request, status);
#endif
        return status;
    }
    case OID_MUTANT_LATER:
        Pended = request;
#ifdef MUTANT_REQUEST_NEVER_COMPLETED
        return NDIS_STATUS_PENDING;
#endif
        NdisResetEvent(&WorkDone);
        NdisQueueIoWorkItem(WorkItem, AnswerLater, request);
        return NDIS_STATUS_PENDING;
    default:
        return NDIS_STATUS_NOT_SUPPORTED;
    }
}

static VOID CancelOidRequest(NDIS_HANDLE context, PVOID id)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(id);
}

/* ---- start and end of an adapter ---- */

static VOID TimerFunction(PVOID one, PVOID context, PVOID two, PVOID three)
{
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(two);
    UNREFERENCED_PARAMETER(three);
}

/* Reads mutant.bin, as a NIC reads its firmware. */
static NDIS_STATUS ReadFile(VOID)
{
    NDIS_STRING name = RTL_CONSTANT_STRING(L"mutant.bin");
    NDIS_PHYSICAL_ADDRESS highest = {.QuadPart = -1};
    volatile UCHAR *bytes;
    NDIS_STATUS status;
    NDIS_HANDLE file;
    UINT length;

    NdisOpenFile(&status, &file, &length, &name, highest);
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
    NdisMapFile(&status, (PVOID *)&bytes, file);
    if (status == NDIS_STATUS_SUCCESS) {
        bytes[0];
        NdisUnmapFile(file);
    }
#ifdef MUTANT_FILE_UNMAPPED_TWICE
    NdisUnmapFile(file);
#endif
#ifdef MUTANT_FILE_USED_AFTER_UNMAP
    bytes[0];
#endif
#ifndef MUTANT_FILE_LEFT_OPEN
    NdisCloseFile(file);
#endif
#ifdef MUTANT_FILE_CLOSED_TWICE
    NdisCloseFile(file);
#endif
#ifdef MUTANT_FILE_USED_AFTER_CLOSE
    bytes[0];
#endif
    return status;
}

static NDIS_STATUS SetAttributes(VOID)
{
    NDIS_MINIPORT_ADAPTER_ATTRIBUTES attributes;
    NDIS_STATUS status;

#ifndef MUTANT_GENERAL_ATTRIBUTES_FIRST
    RtlZeroMemory(&attributes, sizeof(attributes));
    attributes.RegistrationAttributes.Header =
        Header(NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES,
               NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1,
               NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1);
    attributes.RegistrationAttributes.MiniportAdapterContext = &Adapter;
    status = NdisMSetMiniportAttributes(Adapter, &attributes);
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
#endif
#ifdef MUTANT_NO_GENERAL_ATTRIBUTES
    return NDIS_STATUS_SUCCESS;
#endif
    RtlZeroMemory(&attributes, sizeof(attributes));
    attributes.GeneralAttributes.Header = Header(NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES,
                                                 NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2,
                                                 NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2);
    attributes.GeneralAttributes.MediaType = NdisMedium802_3;
    attributes.GeneralAttributes.MtuSize = 1500;
    attributes.GeneralAttributes.MacAddressLength = 6;
    attributes.GeneralAttributes.CurrentMacAddress[0] = 2;
    attributes.GeneralAttributes.SupportedOidList = Supported;
    attributes.GeneralAttributes.SupportedOidListLength = sizeof(Supported);
    return NdisMSetMiniportAttributes(Adapter, &attributes);
}

static NDIS_STATUS OpenConfiguration(VOID)
{
    NDIS_CONFIGURATION_OBJECT object;

    RtlZeroMemory(&object, sizeof(object));
    object.Header = Header(NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT, NDIS_CONFIGURATION_OBJECT_REVISION_1,
                           NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1);
    object.NdisHandle = Adapter;
    return NdisOpenConfigurationEx(&object, &Configuration);
}

static NDIS_STATUS Initialize(NDIS_HANDLE adapter, NDIS_HANDLE context, PNDIS_MINIPORT_INIT_PARAMETERS parameters)
{
    NDIS_TIMER_CHARACTERISTICS timer;
    LARGE_INTEGER due = {.QuadPart = -36000000000LL};
    NDIS_STATUS status;

    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(parameters);
    Adapter = adapter;
    status = SetAttributes();
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
    status = ReadFile();
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
    status = OpenConfiguration();
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
#ifndef MUTANT_CONFIGURATION_LEFT_OPEN
    NdisCloseConfiguration(Configuration);
#endif
#ifdef MUTANT_CONFIGURATION_CLOSED_TWICE
    NdisCloseConfiguration(Configuration);
#endif
    RtlZeroMemory(&timer, sizeof(timer));
    timer.Header = Header(NDIS_OBJECT_TYPE_TIMER_CHARACTERISTICS, NDIS_TIMER_CHARACTERISTICS_REVISION_1,
                          NDIS_SIZEOF_TIMER_CHARACTERISTICS_REVISION_1);
    timer.AllocationTag = TAG;
    timer.TimerFunction = TimerFunction;
    status = NdisAllocateTimerObject(adapter, &timer, &Timer);
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
    WorkItem = NdisAllocateIoWorkItem(adapter);
    if (WorkItem == NULL) {
        NdisFreeTimerObject(Timer);
        return NDIS_STATUS_RESOURCES;
    }
#ifdef MUTANT_FAILED_START_KEEPS_A_TIMER
    NdisFreeIoWorkItem(WorkItem);
    return NDIS_STATUS_RESOURCES;
#endif
    /* In an hour: it is cancelled long before. */
    NdisSetTimerObject(Timer, due, 0, NULL);
    NdisAllocateSpinLock(&Lock);
    NdisInitializeEvent(&WorkDone);
    NdisSetEvent(&WorkDone);
#ifdef MUTANT_INITIALISATION_PENDED
    return NDIS_STATUS_PENDING;
#endif
    return NDIS_STATUS_SUCCESS;
}

static VOID Halt(NDIS_HANDLE context, NDIS_HALT_ACTION action)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(action);
#ifdef MUTANT_WAIT_UNDER_A_LOCK
    NdisAcquireSpinLock(&Lock);
    NdisWaitEvent(&WorkDone, 0);
    NdisReleaseSpinLock(&Lock);
#else
    NdisWaitEvent(&WorkDone, 0);
#endif
#ifdef MUTANT_SLEEP_UNDER_A_LOCK
    NdisAcquireSpinLock(&Lock);
    NdisMSleep(10);
    NdisReleaseSpinLock(&Lock);
#endif
#ifndef MUTANT_TIMER_LEFT_ARMED
#ifndef MUTANT_TIMER_FREED_WHILE_ARMED
    NdisCancelTimerObject(Timer);
#endif
    NdisFreeTimerObject(Timer);
#endif
#ifndef MUTANT_WORK_ITEM_LEFT
    NdisFreeIoWorkItem(WorkItem);
#endif
#ifdef MUTANT_WORK_ITEM_FREED_TWICE
    NdisFreeIoWorkItem(WorkItem);
#endif
    NdisFreeSpinLock(&Lock);
}

static NDIS_STATUS Pause(NDIS_HANDLE context, PNDIS_MINIPORT_PAUSE_PARAMETERS parameters)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(parameters);
#ifdef MUTANT_PAUSE_REFUSED
    return NDIS_STATUS_FAILURE;
#endif
#ifdef MUTANT_PAUSE_COMPLETED_UNASKED
    NdisMPauseComplete(Adapter);
#endif
    return NDIS_STATUS_SUCCESS;
}

static NDIS_STATUS Restart(NDIS_HANDLE context, PNDIS_MINIPORT_RESTART_PARAMETERS parameters)
{
    NDIS_STATUS_INDICATION indication;

    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(parameters);
#ifdef MUTANT_FILE_OPENED_LATE
    ReadFile();
#endif
    RtlZeroMemory(&indication, sizeof(indication));
#ifndef MUTANT_INDICATION_WITHOUT_HEADER
    indication.Header = Header(NDIS_OBJECT_TYPE_STATUS_INDICATION, NDIS_STATUS_INDICATION_REVISION_1,
                               NDIS_SIZEOF_STATUS_INDICATION_REVISION_1);
#endif
#ifndef MUTANT_INDICATION_WITHOUT_SOURCE
    indication.SourceHandle = Adapter;
#endif
    indication.StatusCode = NDIS_STATUS_MEDIA_SPECIFIC_INDICATION_EX;
    NdisMIndicateStatusEx(Adapter, &indication);
    return NDIS_STATUS_SUCCESS;
}

/* ---- what a miniport without a device has to have ---- */

static VOID SendNetBufferLists(NDIS_HANDLE context, PNET_BUFFER_LIST lists, NDIS_PORT_NUMBER port, ULONG flags)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(lists);
    UNREFERENCED_PARAMETER(port);
    UNREFERENCED_PARAMETER(flags);
}

static VOID ReturnNetBufferLists(NDIS_HANDLE context, PNET_BUFFER_LIST lists, ULONG flags)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(lists);
    UNREFERENCED_PARAMETER(flags);
}

static VOID CancelSend(NDIS_HANDLE context, PVOID id)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(id);
}

static VOID DevicePnPEventNotify(NDIS_HANDLE context, PNET_DEVICE_PNP_EVENT event)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(event);
}

static VOID Shutdown(NDIS_HANDLE context, NDIS_SHUTDOWN_ACTION action)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(action);
}

static NTSTATUS NTAPI Dispatch(PDEVICE_OBJECT device, PIRP irp)
{
    PULONG count = NdisGetDeviceReservedExtension(device);

    *count += 1;
    irp->IoStatus.Status = STATUS_SUCCESS;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NDIS_STATUS RegisterDevice(VOID)
{
    NDIS_STRING name = RTL_CONSTANT_STRING(L"\\Device\\MutantNic");
    NDIS_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\MutantNic");
    PDRIVER_DISPATCH routines[IRP_MJ_MAXIMUM_FUNCTION + 1];
    NDIS_DEVICE_OBJECT_ATTRIBUTES attributes;

    RtlZeroMemory(routines, sizeof(routines));
    routines[IRP_MJ_CREATE] = Dispatch;
    routines[IRP_MJ_CLEANUP] = Dispatch;
    routines[IRP_MJ_CLOSE] = Dispatch;
    routines[IRP_MJ_DEVICE_CONTROL] = Dispatch;
    RtlZeroMemory(&attributes, sizeof(attributes));
    attributes.Header = Header(NDIS_OBJECT_TYPE_DEVICE_OBJECT_ATTRIBUTES, NDIS_DEVICE_OBJECT_ATTRIBUTES_REVISION_1,
                               NDIS_SIZEOF_DEVICE_OBJECT_ATTRIBUTES_REVISION_1);
    attributes.DeviceName = &name;
    attributes.SymbolicName = &link;
    attributes.MajorFunctions = routines;
    attributes.ExtensionSize = sizeof(ULONG);
    return NdisRegisterDeviceEx(Driver, &attributes, &Control, &ControlHandle);
}

static VOID Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
#ifndef MUTANT_DEVICE_LEFT
    NdisDeregisterDeviceEx(ControlHandle);
#endif
#ifdef MUTANT_DEVICE_DEREGISTERED_TWICE
    NdisDeregisterDeviceEx(ControlHandle);
#endif
#ifndef MUTANT_NOT_DEREGISTERED
    NdisMDeregisterMiniportDriver(Driver);
#endif
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    NDIS_MINIPORT_DRIVER_CHARACTERISTICS characteristics;
    NDIS_STATUS status;

    RtlZeroMemory(&characteristics, sizeof(characteristics));
#ifdef MUTANT_WRONG_REVISION
    characteristics.Header = Header(NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS, 9,
                                    NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2);
#else
    characteristics.Header =
        Header(NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS, NDIS_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2,
               NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2);
#endif
#ifdef MUTANT_WRONG_VERSION
    characteristics.MajorNdisVersion = 5;
#else
    characteristics.MajorNdisVersion = 6;
#endif
    characteristics.MinorNdisVersion = 30;
    characteristics.InitializeHandlerEx = Initialize;
    characteristics.HaltHandlerEx = Halt;
    characteristics.UnloadHandler = Unload;
    characteristics.PauseHandler = Pause;
    characteristics.RestartHandler = Restart;
    characteristics.OidRequestHandler = OidRequest;
    characteristics.SendNetBufferListsHandler = SendNetBufferLists;
    characteristics.ReturnNetBufferListsHandler = ReturnNetBufferLists;
    characteristics.CancelSendHandler = CancelSend;
    characteristics.DevicePnPEventNotifyHandler = DevicePnPEventNotify;
    characteristics.ShutdownHandlerEx = Shutdown;
    characteristics.CancelOidRequestHandler = CancelOidRequest;
    status = NdisMRegisterMiniportDriver(driver, registry_path, NULL, &characteristics, &Driver);
    if (status != NDIS_STATUS_SUCCESS) {
        return status;
    }
    status = RegisterDevice();
    if (status != NDIS_STATUS_SUCCESS) {
        NdisMDeregisterMiniportDriver(Driver);
    }
    return status;
}
