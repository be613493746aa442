/*
 * The part that all mutants without a framework share: a control device, and one request that makes the driver do its thing.
 *
 * A source includes this file and defines three functions:
 *   SetUp     at the end of DriverEntry; what it returns is what DriverEntry returns
 *   Exercise  for each IRP_MJ_DEVICE_CONTROL; it completes the request, by Finish unless it says otherwise
 *   TearDown  at the start of DriverUnload
 */
#ifndef FWBROKER_TESTS_WDM_MUTANT_H
#define FWBROKER_TESTS_WDM_MUTANT_H

#include <ntifs.h>

#define TAG 'tuMC'

static PDEVICE_OBJECT Control;

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath);
static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack);
static VOID TearDown(PDRIVER_OBJECT DriverObject);

/* Completes a request and returns its status, as a dispatch routine must. */
static NTSTATUS Finish(PIRP Irp, NTSTATUS Status)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI OpenOrClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return Exercise(Irp, IoGetCurrentIrpStackLocation(Irp));
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT DriverObject)
{
    TearDown(DriverObject);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\Mutant");
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    DriverObject->MajorFunction[IRP_MJ_CREATE] = OpenOrClose;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = OpenOrClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = OpenOrClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    DriverObject->DriverUnload = DriverUnload;
    status = SetUp(DriverObject, RegistryPath);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Control);
        return status;
    }
    Control->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

#endif
