/* Built with MinGW's gcc. */
/*
 * What a driver leaves in the system: devices, links, callbacks.
 *
 * The correct driver adds a second device, a symbolic link and notifications of all kinds, and takes all of it away. gcc builds
 * it: its images carry their symbols in themselves.
 */
#include "wdm_mutant.h"

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\??\\MutantLink");
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Mutant");
static PDEVICE_OBJECT Second;

static VOID NTAPI OnProcess(HANDLE Parent, HANDLE Process, BOOLEAN Create)
{
    UNREFERENCED_PARAMETER(Parent);
    UNREFERENCED_PARAMETER(Process);
    UNREFERENCED_PARAMETER(Create);
}

static VOID NTAPI OnThread(HANDLE Process, HANDLE Thread, BOOLEAN Create)
{
    UNREFERENCED_PARAMETER(Process);
    UNREFERENCED_PARAMETER(Thread);
    UNREFERENCED_PARAMETER(Create);
}

static VOID NTAPI OnImage(PUNICODE_STRING Name, HANDLE Process, PIMAGE_INFO Image)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Process);
    UNREFERENCED_PARAMETER(Image);
}

static VOID StopListening(void)
{
#ifndef MUTANT_PROCESS_NOTIFY_ROUTINE_LEFT
    PsSetCreateProcessNotifyRoutine(OnProcess, TRUE);
#endif
#ifndef MUTANT_THREAD_NOTIFY_ROUTINE_LEFT
    PsRemoveCreateThreadNotifyRoutine(OnThread);
#endif
#ifndef MUTANT_IMAGE_NOTIFY_ROUTINE_LEFT
    PsRemoveLoadImageNotifyRoutine(OnImage);
#endif
}

static VOID Listen(void)
{
    PsSetCreateProcessNotifyRoutine(OnProcess, FALSE);
    PsSetCreateThreadNotifyRoutine(OnThread);
    PsSetLoadImageNotifyRoutine(OnImage);
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = IoCreateDevice(DriverObject, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Second);
    if (!NT_SUCCESS(status)) {
        IoDeleteSymbolicLink(&LinkName);
        return status;
    }
#ifdef MUTANT_FAILS_AND_LEAVES_A_DEVICE
    IoDeleteSymbolicLink(&LinkName);
    return STATUS_UNSUCCESSFUL;
#else
    Listen();
    return STATUS_SUCCESS;
#endif
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    StopListening();
#ifndef MUTANT_SYMBOLIC_LINK_LEFT
    IoDeleteSymbolicLink(&LinkName);
#endif
#ifndef MUTANT_DEVICE_LEFT
    IoDeleteDevice(Second);
#endif
#ifdef MUTANT_DEVICE_DELETED_TWICE
    IoDeleteDevice(Second);
#endif
}
