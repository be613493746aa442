/*
 * An NDIS protocol that speaks to adapters through OID requests only: it sends and receives no frames.
 *
 * It binds to every adapter, asks each for its address and sets a packet filter, and clears it again before it closes. Opens,
 * closes and requests may all be pended by NDIS or the miniport, so each is written for both outcomes. A control device lets
 * a program, or another driver, have a request of its choice made on the first adapter.
 */
#include <ndis.h>

#define TAG 'torP'

/* A request is a ULONG with the OID, then the bytes to set. Query: output is the answer. */
#define IOCTL_OIDPROT_QUERY CTL_CODE(FILE_DEVICE_NETWORK, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_OIDPROT_SET CTL_CODE(FILE_DEVICE_NETWORK, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

/* How long the driver waits for an answer, in milliseconds. */
#define PATIENCE 5000

typedef struct _BINDING {
    LIST_ENTRY Link;
    NDIS_HANDLE Handle;
    /* Requests under way, and one more while the binding is open. The last one signals Idle. */
    LONG References;
    NDIS_EVENT Idle;
    /* What the completion callbacks report. */
    NDIS_STATUS Status;
    NDIS_EVENT Completed;
    /* NDIS writes to these until an open is complete. */
    NDIS_OPEN_PARAMETERS Open;
    NDIS_MEDIUM Medium;
    UINT SelectedMedium;
    UCHAR Address[6];
} BINDING, *PBINDING;

/* A request and who waits for it. NDIS owns Request until it is complete. */
typedef struct _CALL {
    NDIS_OID_REQUEST Request;
    NDIS_EVENT Completed;
    NDIS_STATUS Status;
    UCHAR Data[256];
} CALL, *PCALL;

static NDIS_HANDLE Protocol;
static PDEVICE_OBJECT Control;
static LIST_ENTRY Bindings;
static NDIS_SPIN_LOCK BindingsLock;

static NDIS_OBJECT_HEADER Header(UCHAR type, UCHAR revision, USHORT size)
{
    NDIS_OBJECT_HEADER header = {type, revision, size};
    return header;
}

/* ---- references ---- */

static BOOLEAN Reference(PBINDING binding)
{
    LONG seen = binding->References;

    while (seen != 0) {
        LONG now = InterlockedCompareExchange(&binding->References, seen + 1, seen);
        if (now == seen) {
            return TRUE;
        }
        seen = now;
    }
    return FALSE;
}

static VOID Dereference(PBINDING binding)
{
    if (InterlockedDecrement(&binding->References) == 0) {
        NdisSetEvent(&binding->Idle);
    }
}

/* ---- OID requests ---- */

static VOID OidRequestComplete(NDIS_HANDLE context, PNDIS_OID_REQUEST request, NDIS_STATUS status)
{
    PCALL call = CONTAINING_RECORD(request, CALL, Request);

    UNREFERENCED_PARAMETER(context);
    call->Status = status;
    NdisSetEvent(&call->Completed);
}

/*
 * One request on an open binding; waits for its end. For a query, *length is the room in data and then the length of
 * the answer.
 */
static NDIS_STATUS Ask(PBINDING binding, NDIS_REQUEST_TYPE type, NDIS_OID oid, PVOID data, PULONG length)
{
    NDIS_STATUS status;
    PCALL call;

    if (*length > sizeof(call->Data)) {
        return NDIS_STATUS_RESOURCES;
    }
    call = NdisAllocateMemoryWithTagPriority(binding->Handle, sizeof(*call), TAG, NormalPoolPriority);
    if (call == NULL) {
        return NDIS_STATUS_RESOURCES;
    }
    RtlZeroMemory(call, sizeof(*call));
    NdisInitializeEvent(&call->Completed);
    RtlCopyMemory(call->Data, data, *length);
    call->Request.Header =
        Header(NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_REQUEST_REVISION_1, NDIS_SIZEOF_OID_REQUEST_REVISION_1);
    call->Request.RequestType = type;
    call->Request.RequestId = call;
    call->Request.DATA.QUERY_INFORMATION.Oid = oid;
    call->Request.DATA.QUERY_INFORMATION.InformationBuffer = call->Data;
    call->Request.DATA.QUERY_INFORMATION.InformationBufferLength = *length;
    status = NdisOidRequest(binding->Handle, &call->Request);
    if (status == NDIS_STATUS_PENDING) {
        if (!NdisWaitEvent(&call->Completed, PATIENCE)) {
            NdisCancelOidRequest(binding->Handle, call);
            NdisWaitEvent(&call->Completed, 0);
        }
        status = call->Status;
    }
    if (status == NDIS_STATUS_SUCCESS && type == NdisRequestQueryInformation) {
        ULONG written = call->Request.DATA.QUERY_INFORMATION.BytesWritten;
        *length = written < *length ? written : *length;
        RtlCopyMemory(data, call->Data, *length);
    }
    NdisFreeMemory(call, 0, 0);
    return status;
}

static NDIS_STATUS SetFilter(PBINDING binding, ULONG filter)
{
    ULONG length = sizeof(filter);
    return Ask(binding, NdisRequestSetInformation, OID_GEN_CURRENT_PACKET_FILTER, &filter, &length);
}

/* ---- bind and unbind ---- */

static VOID OpenAdapterComplete(NDIS_HANDLE context, NDIS_STATUS status)
{
    PBINDING binding = context;

    binding->Status = status;
    NdisSetEvent(&binding->Completed);
}

static VOID CloseAdapterComplete(NDIS_HANDLE context)
{
    PBINDING binding = context;

    NdisSetEvent(&binding->Completed);
}

/* Returns when the adapter is closed, and the memory gone. Nobody else may use the binding any more. */
static VOID Close(PBINDING binding)
{
    NdisResetEvent(&binding->Completed);
    if (NdisCloseAdapterEx(binding->Handle) == NDIS_STATUS_PENDING) {
        NdisWaitEvent(&binding->Completed, 0);
    }
    NdisFreeMemory(binding, 0, 0);
}

static NDIS_STATUS BindAdapter(NDIS_HANDLE driver, NDIS_HANDLE context, PNDIS_BIND_PARAMETERS parameters)
{
    NDIS_STATUS status;
    PBINDING binding;
    ULONG length = sizeof(binding->Address);

    UNREFERENCED_PARAMETER(driver);
    binding = NdisAllocateMemoryWithTagPriority(Protocol, sizeof(*binding), TAG, NormalPoolPriority);
    if (binding == NULL) {
        return NDIS_STATUS_RESOURCES;
    }
    RtlZeroMemory(binding, sizeof(*binding));
    binding->References = 1;
    binding->Medium = NdisMedium802_3;
    NdisInitializeEvent(&binding->Completed);
    NdisInitializeEvent(&binding->Idle);
    binding->Open.Header = Header(NDIS_OBJECT_TYPE_OPEN_PARAMETERS, NDIS_OPEN_PARAMETERS_REVISION_1,
                                  NDIS_SIZEOF_OPEN_PARAMETERS_REVSION_1);
    binding->Open.AdapterName = parameters->AdapterName;
    binding->Open.MediumArray = &binding->Medium;
    binding->Open.MediumArraySize = 1;
    binding->Open.SelectedMediumIndex = &binding->SelectedMedium;
    status = NdisOpenAdapterEx(Protocol, binding, &binding->Open, context, &binding->Handle);
    if (status == NDIS_STATUS_PENDING) {
        NdisWaitEvent(&binding->Completed, 0);
        status = binding->Status;
    }
    if (status != NDIS_STATUS_SUCCESS) {
        NdisFreeMemory(binding, 0, 0);
        return status;
    }
    status = Ask(binding, NdisRequestQueryInformation, OID_802_3_CURRENT_ADDRESS, binding->Address, &length);
    if (status == NDIS_STATUS_SUCCESS) {
        status = SetFilter(binding, NDIS_PACKET_TYPE_DIRECTED | NDIS_PACKET_TYPE_BROADCAST);
    }
    if (status != NDIS_STATUS_SUCCESS) {
        DbgPrint("oidprot: %wZ is not usable (0x%08X)\n", parameters->AdapterName, status);
        Close(binding);
        return status;
    }
    DbgPrint("oidprot: bound to %02X-%02X-%02X-%02X-%02X-%02X, frames of %u bytes\n", binding->Address[0],
             binding->Address[1], binding->Address[2], binding->Address[3], binding->Address[4], binding->Address[5],
             parameters->MtuSize);
    NdisAcquireSpinLock(&BindingsLock);
    InsertTailList(&Bindings, &binding->Link);
    NdisReleaseSpinLock(&BindingsLock);
    return NDIS_STATUS_SUCCESS;
}

static NDIS_STATUS UnbindAdapter(NDIS_HANDLE context, NDIS_HANDLE binding_context)
{
    PBINDING binding = binding_context;

    UNREFERENCED_PARAMETER(context);
    NdisAcquireSpinLock(&BindingsLock);
    RemoveEntryList(&binding->Link);
    NdisReleaseSpinLock(&BindingsLock);
    /* The last of the others' requests ends before the close begins. */
    Dereference(binding);
    NdisWaitEvent(&binding->Idle, 0);
    SetFilter(binding, 0);
    Close(binding);
    DbgPrint("oidprot: unbound\n");
    return NDIS_STATUS_SUCCESS;
}

static NDIS_STATUS NetPnPEvent(NDIS_HANDLE context, PNET_PNP_EVENT_NOTIFICATION notification)
{
    UNREFERENCED_PARAMETER(context);
    /* Nothing is ever sent: a pause is complete at once, and so is everything else. */
    DbgPrint("oidprot: event %u\n", notification->NetPnPEvent.NetEvent);
    return NDIS_STATUS_SUCCESS;
}

static VOID StatusIndication(NDIS_HANDLE context, PNDIS_STATUS_INDICATION indication)
{
    UNREFERENCED_PARAMETER(context);
    DbgPrint("oidprot: status 0x%08X, %u bytes\n", indication->StatusCode, indication->StatusBufferSize);
}

/* The filter lets frames in, but no frame needs an answer: NDIS gets its lists back when this returns. */
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

/* ---- the control device ---- */

/* The first binding, referenced; NULL when there is none. */
static PBINDING FirstBinding(VOID)
{
    PBINDING binding = NULL;

    NdisAcquireSpinLock(&BindingsLock);
    if (!IsListEmpty(&Bindings)) {
        binding = CONTAINING_RECORD(Bindings.Flink, BINDING, Link);
        if (!Reference(binding)) {
            binding = NULL;
        }
    }
    NdisReleaseSpinLock(&BindingsLock);
    return binding;
}

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI OpenOrClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG input = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG length = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR buffer = irp->AssociatedIrp.SystemBuffer;
    PBINDING binding;
    NDIS_STATUS status;
    NDIS_OID oid;

    UNREFERENCED_PARAMETER(device);
    if (code != IOCTL_OIDPROT_QUERY && code != IOCTL_OIDPROT_SET) {
        return Finish(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (input < sizeof(oid)) {
        return Finish(irp, STATUS_INVALID_PARAMETER, 0);
    }
    RtlCopyMemory(&oid, buffer, sizeof(oid));
    binding = FirstBinding();
    if (binding == NULL) {
        return Finish(irp, STATUS_NO_SUCH_DEVICE, 0);
    }
    if (code == IOCTL_OIDPROT_QUERY) {
        status = Ask(binding, NdisRequestQueryInformation, oid, buffer, &length);
    } else {
        ULONG bytes = input - sizeof(oid);
        status = Ask(binding, NdisRequestSetInformation, oid, buffer + sizeof(oid), &bytes);
        length = 0;
    }
    Dereference(binding);
    /* Some refusals of NDIS have success severity. */
    if (status != NDIS_STATUS_SUCCESS) {
        return Finish(irp, NT_SUCCESS(status) ? STATUS_UNSUCCESSFUL : status, 0);
    }
    return Finish(irp, STATUS_SUCCESS, length);
}

/* ---- load and unload ---- */

static VOID NTAPI DriverUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    /* Unbinds first, and waits for it. */
    NdisDeregisterProtocolDriver(Protocol);
    IoDeleteDevice(Control);
    NdisFreeSpinLock(&BindingsLock);
}

static NDIS_STATUS Register(VOID)
{
    NDIS_PROTOCOL_DRIVER_CHARACTERISTICS characteristics;

    RtlZeroMemory(&characteristics, sizeof(characteristics));
    characteristics.Header =
        Header(NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS, NDIS_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2,
               NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2);
    characteristics.MajorNdisVersion = 6;
    characteristics.MinorNdisVersion = 30;
    characteristics.MajorDriverVersion = 1;
    RtlInitUnicodeString(&characteristics.Name, L"OidProt");
    characteristics.BindAdapterHandlerEx = BindAdapter;
    characteristics.UnbindAdapterHandlerEx = UnbindAdapter;
    characteristics.OpenAdapterCompleteHandlerEx = OpenAdapterComplete;
    characteristics.CloseAdapterCompleteHandlerEx = CloseAdapterComplete;
    characteristics.NetPnPEventHandler = NetPnPEvent;
    characteristics.OidRequestCompleteHandler = OidRequestComplete;
    characteristics.StatusHandlerEx = StatusIndication;
    characteristics.ReceiveNetBufferListsHandler = Receive;
    characteristics.SendNetBufferListsCompleteHandler = SendComplete;
    /* Binds can come before this returns: everything they need is ready, and NDIS stores the handle first. */
    return NdisRegisterProtocolDriver(NULL, &characteristics, &Protocol);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registry_path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\OidProt");
    NTSTATUS status;

    UNREFERENCED_PARAMETER(registry_path);
    InitializeListHead(&Bindings);
    NdisAllocateSpinLock(&BindingsLock);
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
