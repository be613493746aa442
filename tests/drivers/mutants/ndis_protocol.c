/*
 * What an NDIS protocol does wrong with registrations, bindings and OID requests.
 *
 * The correct driver binds, asks an OID that the miniport of ndis_miniport.c pends, and unbinds. The control device has that
 * request made.
 */
#include <ndis.h>

#define TAG 'tuMC'

/* Pended by ndis_miniport.c, and answered by a work item with four bytes. */
#define OID_MUTANT_LATER 0xFF000002

static NDIS_HANDLE Protocol;
static NDIS_HANDLE Binding;
static PDEVICE_OBJECT Control;
static NDIS_EVENT Completed;
static NDIS_STATUS CompletionStatus;
static NDIS_OPEN_PARAMETERS OpenParameters;
static NDIS_MEDIUM Medium = NdisMedium802_3;
static UINT SelectedMedium;

static NDIS_OBJECT_HEADER Header(UCHAR type, UCHAR revision, USHORT size)
{
    NDIS_OBJECT_HEADER header = {type, revision, size};
    return header;
}

static VOID OidRequestComplete(NDIS_HANDLE context, PNDIS_OID_REQUEST request, NDIS_STATUS status)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(request);
    CompletionStatus = status;
    NdisSetEvent(&Completed);
}

/* One request for four bytes, which the miniport pends. */
static NDIS_STATUS AskLater(VOID)
{
#ifdef MUTANT_REQUEST_IN_PAGED_POOL
    PNDIS_OID_REQUEST request = ExAllocatePoolWithTag(PagedPool, sizeof(*request) + 4, TAG);
#else
    PNDIS_OID_REQUEST request = ExAllocatePoolWithTag(NonPagedPool, sizeof(*request) + 4, TAG);
#endif
    NDIS_STATUS status;

    if (request == NULL) {
        return NDIS_STATUS_RESOURCES;
    }
    RtlZeroMemory(request, sizeof(*request) + 4);
#ifdef MUTANT_REQUEST_WITHOUT_HEADER
    request->Header = Header(NDIS_OBJECT_TYPE_DEFAULT, 0, 0);
#else
    request->Header =
        Header(NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_REQUEST_REVISION_1, NDIS_SIZEOF_OID_REQUEST_REVISION_1);
#endif
    request->RequestType = NdisRequestQueryInformation;
    request->DATA.QUERY_INFORMATION.Oid = OID_MUTANT_LATER;
    request->DATA.QUERY_INFORMATION.InformationBuffer = request + 1;
    request->DATA.QUERY_INFORMATION.InformationBufferLength = 4;
    NdisResetEvent(&Completed);
    status = NdisOidRequest(Binding, request);
#ifdef MUTANT_REQUEST_MADE_TWICE
    NdisOidRequest(Binding, request);
#endif
#ifdef MUTANT_REQUEST_FREED_WHILE_PENDED
    ExFreePoolWithTag(request, TAG);
    return status;
#endif
    if (status == NDIS_STATUS_PENDING) {
        NdisWaitEvent(&Completed, 0);
        status = CompletionStatus;
    }
    ExFreePoolWithTag(request, TAG);
    return status;
}

static VOID OpenAdapterComplete(NDIS_HANDLE context, NDIS_STATUS status)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(status);
}

static VOID CloseAdapterComplete(NDIS_HANDLE context)
{
    UNREFERENCED_PARAMETER(context);
}

static NDIS_STATUS BindAdapter(NDIS_HANDLE driver, NDIS_HANDLE context, PNDIS_BIND_PARAMETERS parameters)
{
    NDIS_STATUS status = NDIS_STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(driver);
    OpenParameters.Header = Header(NDIS_OBJECT_TYPE_OPEN_PARAMETERS, NDIS_OPEN_PARAMETERS_REVISION_1,
                                   NDIS_SIZEOF_OPEN_PARAMETERS_REVSION_1);
    OpenParameters.AdapterName = parameters->AdapterName;
    OpenParameters.MediumArray = &Medium;
    OpenParameters.MediumArraySize = 1;
    OpenParameters.SelectedMediumIndex = &SelectedMedium;
#ifndef MUTANT_BOUND_WITHOUT_AN_OPEN
    status = NdisOpenAdapterEx(Protocol, &Binding, &OpenParameters, context, &Binding);
#endif
#ifdef MUTANT_FAILED_BIND_LEFT_OPEN
    return NDIS_STATUS_RESOURCES;
#endif
#ifdef MUTANT_BIND_COMPLETED_UNASKED
    NdisCompleteBindAdapterEx(context, status);
#endif
    return status;
}

static NDIS_STATUS UnbindAdapter(NDIS_HANDLE context, NDIS_HANDLE binding)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(binding);
#ifdef MUTANT_UNBIND_COMPLETED_EARLY
    NdisCompleteUnbindAdapterEx(context);
    return NDIS_STATUS_PENDING;
#endif
#ifdef MUTANT_DEREGISTERED_IN_A_CALLBACK
    NdisDeregisterProtocolDriver(Protocol);
#endif
#ifndef MUTANT_UNBOUND_WITHOUT_A_CLOSE
    NdisCloseAdapterEx(Binding);
#endif
#ifdef MUTANT_CLOSED_TWICE
    NdisCloseAdapterEx(Binding);
#endif
#ifdef MUTANT_UNBIND_FAILS
    return NDIS_STATUS_FAILURE;
#endif
    return NDIS_STATUS_SUCCESS;
}

static NDIS_STATUS NetPnPEvent(NDIS_HANDLE context, PNET_PNP_EVENT_NOTIFICATION notification)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(notification);
#ifdef MUTANT_PAUSE_REFUSED
    if (notification->NetPnPEvent.NetEvent == NetEventPause) {
        return NDIS_STATUS_RESOURCES;
    }
#endif
#ifdef MUTANT_EVENT_NOT_SUPPORTED
    return NDIS_STATUS_NOT_SUPPORTED;
#else
    return NDIS_STATUS_SUCCESS;
#endif
}

static VOID StatusIndication(NDIS_HANDLE context, PNDIS_STATUS_INDICATION indication)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(indication);
}

static VOID Receive(NDIS_HANDLE context, PNET_BUFFER_LIST lists, NDIS_PORT_NUMBER port, ULONG count, ULONG flags)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(lists);
    UNREFERENCED_PARAMETER(port);
    UNREFERENCED_PARAMETER(count);
    UNREFERENCED_PARAMETER(flags);
}

static VOID SendComplete(NDIS_HANDLE context, PNET_BUFFER_LIST lists, ULONG flags)
{
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(lists);
    UNREFERENCED_PARAMETER(flags);
}

static NTSTATUS Finish(PIRP irp, NTSTATUS status)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI OpenOrClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
#ifdef MUTANT_CLOSED_OUTSIDE_OF_AN_UNBIND
    NdisCloseAdapterEx(Binding);
#endif
    return Finish(irp, AskLater());
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
#ifndef MUTANT_NOT_DEREGISTERED
    NdisDeregisterProtocolDriver(Protocol);
#endif
#ifdef MUTANT_DEREGISTERED_TWICE
    NdisDeregisterProtocolDriver(Protocol);
#endif
    IoDeleteDevice(Control);
}

static NDIS_STATUS Register(VOID)
{
    NDIS_PROTOCOL_DRIVER_CHARACTERISTICS characteristics;

    RtlZeroMemory(&characteristics, sizeof(characteristics));
#ifdef MUTANT_WRONG_SIZE
    characteristics.Header = Header(NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS,
                                    NDIS_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2, sizeof(NDIS_OBJECT_HEADER));
#else
    characteristics.Header =
        Header(NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS, NDIS_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2,
               NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2);
#endif
    characteristics.MajorNdisVersion = 6;
    characteristics.MinorNdisVersion = 30;
    RtlInitUnicodeString(&characteristics.Name, L"Mutant");
    characteristics.BindAdapterHandlerEx = BindAdapter;
    characteristics.UnbindAdapterHandlerEx = UnbindAdapter;
    characteristics.OpenAdapterCompleteHandlerEx = OpenAdapterComplete;
    characteristics.CloseAdapterCompleteHandlerEx = CloseAdapterComplete;
    characteristics.NetPnPEventHandler = NetPnPEvent;
    characteristics.OidRequestCompleteHandler = OidRequestComplete;
    characteristics.StatusHandlerEx = StatusIndication;
    characteristics.ReceiveNetBufferListsHandler = Receive;
    characteristics.SendNetBufferListsCompleteHandler = SendComplete;
    return NdisRegisterProtocolDriver(NULL, &characteristics, &Protocol);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Mutant");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(registry_path);
    NdisInitializeEvent(&Completed);
    status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_NETWORK, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    driver->MajorFunction[IRP_MJ_CREATE] = OpenOrClose;
    driver->MajorFunction[IRP_MJ_CLEANUP] = OpenOrClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = OpenOrClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    driver->DriverUnload = DriverUnload;
    status = Register();
    if (status != NDIS_STATUS_SUCCESS) {
        IoDeleteDevice(Control);
        return status;
    }
    return STATUS_SUCCESS;
}
