/*
 * What runs by itself: a timer, a DPC, a work item and a thread, none of which may be left when the driver's code goes.
 *
 * The correct driver starts all four and, at unload, stops them in the order that they depend on each other.
 */
#include "wdm_mutant.h"

static KTIMER Timer;
static KDPC TimerDpc;
static KDPC Dpc;
static PIO_WORKITEM WorkItem;
static PVOID Thread;
static KEVENT Stop;
static KEVENT Worked;
static LONG Runs;

static VOID NTAPI OnDpc(PKDPC Running, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Running);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    InterlockedIncrement(&Runs);
#ifdef MUTANT_DPC_WAITS
    KeWaitForSingleObject(&Stop, Executive, KernelMode, FALSE, NULL);
#elif defined(MUTANT_DPC_RETURNS_AT_PASSIVE)
    KeLowerIrql(PASSIVE_LEVEL);
#endif
}

static VOID NTAPI OnWork(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Context);
    InterlockedIncrement(&Runs);
#ifdef MUTANT_WORK_ITEM_RETURNS_AT_DISPATCH
    {
        KIRQL before;
        KeRaiseIrql(DISPATCH_LEVEL, &before);
    }
#endif
    KeSetEvent(&Worked, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI OnThread(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    KeWaitForSingleObject(&Stop, Executive, KernelMode, FALSE, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS StartThread(void)
{
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, OnThread, NULL);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, *PsThreadType, KernelMode, &Thread, NULL);
    if (!NT_SUCCESS(status)) {
        /* The code may not go before the thread: wait for it by its handle. */
        KeSetEvent(&Stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static VOID StartTimer(void)
{
    LARGE_INTEGER never;

    never.QuadPart = -10LL * 1000 * 1000 * 3600;
    KeSetTimer(&Timer, never, &TimerDpc);
#ifdef MUTANT_TIMER_INITIALISED_WHILE_SET
    KeInitializeTimer(&Timer);
#endif
}

/* A timer, or its DPC, in a block that is freed while it is set. */
static VOID UsePoolTimer(void)
{
    LARGE_INTEGER never;
    PKTIMER timer = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(KTIMER), TAG);
    PKDPC dpc = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(KDPC), TAG);

    if (timer != NULL && dpc != NULL) {
        never.QuadPart = -10LL * 1000 * 1000 * 3600;
        KeInitializeTimer(timer);
        KeInitializeDpc(dpc, OnDpc, NULL);
        KeSetTimer(timer, never, dpc);
#ifdef MUTANT_TIMER_FREED_WHILE_SET
        ExFreePoolWithTag(timer, TAG);
#elif defined(MUTANT_DPC_FREED_WHILE_ITS_TIMER_IS_SET)
        ExFreePoolWithTag(dpc, TAG);
#endif
        KeCancelTimer(timer);
    }
    if (timer != NULL) {
        ExFreePoolWithTag(timer, TAG);
    }
    if (dpc != NULL) {
        ExFreePoolWithTag(dpc, TAG);
    }
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    StartTimer();
    UsePoolTimer();
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    IoQueueWorkItem(WorkItem, OnWork, DelayedWorkQueue, NULL);
    KeWaitForSingleObject(&Worked, Executive, KernelMode, FALSE, NULL);
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeEvent(&Stop, NotificationEvent, FALSE);
    KeInitializeEvent(&Worked, NotificationEvent, FALSE);
    KeInitializeTimer(&Timer);
    KeInitializeDpc(&TimerDpc, OnDpc, NULL);
    KeInitializeDpc(&Dpc, OnDpc, NULL);
    WorkItem = IoAllocateWorkItem(Control);
    if (WorkItem == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return StartThread();
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
#ifndef MUTANT_TIMER_LEFT_SET
    KeCancelTimer(&Timer);
#endif
    KeFlushQueuedDpcs();
#ifndef MUTANT_WORK_ITEM_NEVER_FREED
    IoFreeWorkItem(WorkItem);
#endif
#ifndef MUTANT_THREAD_LEFT_RUNNING
    KeSetEvent(&Stop, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
#endif
#ifndef MUTANT_THREAD_REFERENCE_KEPT
    ObDereferenceObject(Thread);
#endif
}
