/*
 * Firmware images from fwbroker.sys, for drivers written in C.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Include <wdm.h>, <ntddk.h> or <ndis.h> first. The same contract in Rust, with every status
 * documented, is crates/ndis-firmware/src/interface.rs; a test keeps the two alike.
 *
 *     FWBROKER_INTERFACE fw;
 *     PFILE_OBJECT file;
 *     FWBROKER_IMAGE image;
 *     const VOID *bytes;
 *
 *     status = FwBrokerQueryInterface(&serviceName, &fw, &file);          PASSIVE_LEVEL
 *     status = fw.Open(fw.Context, &imageName, -1, NULL, &image);         PASSIVE_LEVEL
 *     status = fw.Map(fw.Context, image.Handle, &bytes);                  <= DISPATCH_LEVEL
 *     ...read image.Length bytes...
 *     fw.Unmap(fw.Context, image.Handle);                                 <= DISPATCH_LEVEL
 *     fw.Close(fw.Context, image.Handle);                                 <= DISPATCH_LEVEL
 *     FwBrokerReleaseInterface(&fw, file);                                PASSIVE_LEVEL
 */
#ifndef FWBROKER_H
#define FWBROKER_H

#define FWBROKER_DEVICE_NAME L"\\Device\\FwBroker"

/* Internal device control only; input and output are kernel memory. */
#define IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE \
    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)

#define FWBROKER_INTERFACE_VERSION_1 1
#define FWBROKER_POOL_TAG 0x6C437746 /* "FwCl" */

typedef struct _FWBROKER_QUERY_INTERFACE {
    USHORT Size;             /* 24 */
    USHORT Version;          /* FWBROKER_INTERFACE_VERSION_1 */
    ULONG Flags;             /* 0 */
    UNICODE_STRING Consumer; /* service name of the driver that asks */
} FWBROKER_QUERY_INTERFACE, *PFWBROKER_QUERY_INTERFACE;

typedef struct _FWBROKER_OPEN_PARAMETERS {
    USHORT Size;               /* 16 */
    USHORT Version;            /* FWBROKER_INTERFACE_VERSION_1 */
    ULONG Flags;               /* 0 */
    ULONG TimeoutMilliseconds; /* 0: the broker's default */
    ULONG Reserved;            /* 0 */
} FWBROKER_OPEN_PARAMETERS, *PFWBROKER_OPEN_PARAMETERS;

typedef struct _FWBROKER_IMAGE {
    ULONGLONG Handle;
    ULONGLONG Length; /* bytes, at least 1 */
    UCHAR Sha256[32];
} FWBROKER_IMAGE, *PFWBROKER_IMAGE;

typedef VOID (NTAPI *PFWBROKER_REFERENCE)(PVOID Context);
typedef NTSTATUS (NTAPI *PFWBROKER_OPEN)(PVOID Context, const UNICODE_STRING *Name,
                                         LONGLONG HighestAcceptableAddress,
                                         const FWBROKER_OPEN_PARAMETERS *Parameters,
                                         FWBROKER_IMAGE *Image);
typedef NTSTATUS (NTAPI *PFWBROKER_MAP)(PVOID Context, ULONGLONG Handle, const VOID **Buffer);
typedef NTSTATUS (NTAPI *PFWBROKER_UNMAP)(PVOID Context, ULONGLONG Handle);
typedef NTSTATUS (NTAPI *PFWBROKER_CLOSE)(PVOID Context, ULONGLONG Handle);

/* Starts with the members of WDM's INTERFACE. Comes referenced once. */
typedef struct _FWBROKER_INTERFACE {
    USHORT Size; /* 64 */
    USHORT Version;
    PVOID Context;
    PFWBROKER_REFERENCE InterfaceReference;
    PFWBROKER_REFERENCE InterfaceDereference;
    PFWBROKER_OPEN Open;
    PFWBROKER_MAP Map;
    PFWBROKER_UNMAP Unmap;
    PFWBROKER_CLOSE Close;
} FWBROKER_INTERFACE, *PFWBROKER_INTERFACE;

/* A header-only definition that stays quiet in files that do not use it. */
#if defined(_MSC_VER)
#define FWBROKER_INLINE static __inline
#else
#define FWBROKER_INLINE static __inline__ __attribute__((unused))
#endif

/* What the I/O manager and the broker write to while the request is under way. */
typedef struct _FWBROKER_EXCHANGE {
    KEVENT Event;
    IO_STATUS_BLOCK IoStatus;
    FWBROKER_QUERY_INTERFACE Request;
    FWBROKER_INTERFACE Reply;
} FWBROKER_EXCHANGE;

/*
 * Gives back what FwBrokerQueryInterface returned: the table first, for the file object keeps
 * the broker loaded. PASSIVE_LEVEL.
 */
FWBROKER_INLINE VOID FwBrokerReleaseInterface(FWBROKER_INTERFACE *Interface, PFILE_OBJECT File)
{
    Interface->InterfaceDereference(Interface->Context);
    ObDereferenceObject(File);
}

/*
 * Connects to the broker. PASSIVE_LEVEL, kernel APCs enabled.
 *
 * STATUS_OBJECT_NAME_NOT_FOUND: the broker is not loaded. STATUS_IO_TIMEOUT: no answer within five
 * seconds; the exchange is abandoned to the request that is still under way. Others: interface.rs.
 */
FWBROKER_INLINE NTSTATUS FwBrokerQueryInterface(const UNICODE_STRING *Consumer,
                                                FWBROKER_INTERFACE *Interface, PFILE_OBJECT *File)
{
    static WCHAR deviceName[] = FWBROKER_DEVICE_NAME;
    FWBROKER_EXCHANGE *exchange;
    UNICODE_STRING name;
    PDEVICE_OBJECT device;
    LARGE_INTEGER deadline;
    NTSTATUS status;
    PIRP irp;

    name.Buffer = deviceName;
    name.Length = sizeof(deviceName) - sizeof(WCHAR);
    name.MaximumLength = sizeof(deviceName);
    status = IoGetDeviceObjectPointer(&name, FILE_READ_DATA, File, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }

#if defined(POOL_FLAG_NON_PAGED)
    exchange = (FWBROKER_EXCHANGE *)ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(*exchange),
                                                    FWBROKER_POOL_TAG);
#else
    exchange = (FWBROKER_EXCHANGE *)ExAllocatePoolWithTag((POOL_TYPE)512 /* NonPagedPoolNx */,
                                                          sizeof(*exchange), FWBROKER_POOL_TAG);
#endif
    if (exchange == NULL) {
        ObDereferenceObject(*File);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(exchange, sizeof(*exchange));
    exchange->Request.Size = sizeof(exchange->Request);
    exchange->Request.Version = FWBROKER_INTERFACE_VERSION_1;
    exchange->Request.Consumer = *Consumer;

    KeInitializeEvent(&exchange->Event, NotificationEvent, FALSE);
    irp = IoBuildDeviceIoControlRequest(IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE, device,
                                        &exchange->Request, sizeof(exchange->Request),
                                        &exchange->Reply, sizeof(exchange->Reply), TRUE,
                                        &exchange->Event, &exchange->IoStatus);
    if (irp == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
    } else {
        status = IoCallDriver(device, irp);
        if (status == STATUS_PENDING) {
            deadline.QuadPart = -50000000;
            if (KeWaitForSingleObject(&exchange->Event, Executive, KernelMode, FALSE, &deadline) !=
                STATUS_SUCCESS) {
                ObDereferenceObject(*File);
                return STATUS_IO_TIMEOUT;
            }
            status = exchange->IoStatus.Status;
        }
    }
    if (NT_SUCCESS(status)) {
        *Interface = exchange->Reply;
        if (Interface->Version != FWBROKER_INTERFACE_VERSION_1 ||
            Interface->Size < sizeof(*Interface)) {
            if (Interface->InterfaceDereference != NULL) {
                Interface->InterfaceDereference(Interface->Context);
            }
            status = STATUS_REVISION_MISMATCH;
        }
    }
    ExFreePoolWithTag(exchange, FWBROKER_POOL_TAG);
    if (!NT_SUCCESS(status)) {
        ObDereferenceObject(*File);
    }
    return status;
}

#endif /* FWBROKER_H */
