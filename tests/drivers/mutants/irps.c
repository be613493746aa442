/*
 * Requests: each is completed once, with a status, and the dispatch routine returns what became of it.
 *
 * The correct driver pends a request, remembers it in a queue of one, and completes it from a work item.
 */
#include "wdm_mutant.h"

static PIO_WORKITEM WorkItem;
static KSPIN_LOCK Lock;
static PIRP Waiting;
static KEVENT Answered;

static VOID NTAPI Cancelled(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    KIRQL before;

    UNREFERENCED_PARAMETER(DeviceObject);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Lock, &before);
    if (Waiting == Irp) {
        Waiting = NULL;
    }
    KeReleaseSpinLock(&Lock, before);
    Finish(Irp, STATUS_CANCELLED);
}

static VOID NTAPI Answer(PDEVICE_OBJECT DeviceObject, PVOID Context)
{
    KIRQL before;
    PIRP irp;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Context);
    KeAcquireSpinLock(&Lock, &before);
    irp = Waiting;
    Waiting = NULL;
#ifdef MUTANT_CANCEL_ROUTINE_LEFT_SET
    /* The routine could run at any time, for a request that is gone. */
#else
    if (irp != NULL && IoSetCancelRoutine(irp, NULL) == NULL) {
        irp = NULL; /* being cancelled: that routine completes it */
    }
#endif
    KeReleaseSpinLock(&Lock, before);
    if (irp == NULL) {
        KeSetEvent(&Answered, IO_NO_INCREMENT, FALSE);
        return;
    }
#ifdef MUTANT_COMPLETED_UNDER_A_SPIN_LOCK
    KeAcquireSpinLock(&Lock, &before);
    Finish(irp, STATUS_SUCCESS);
    KeReleaseSpinLock(&Lock, before);
#elif defined(MUTANT_NEVER_COMPLETED)
    /* Its sender waits for ever. */
#elif defined(MUTANT_COMPLETED_WITH_STATUS_PENDING)
    Finish(irp, STATUS_PENDING);
#else
    Finish(irp, STATUS_SUCCESS);
#endif
#ifdef MUTANT_COMPLETED_TWICE
    IoCompleteRequest(irp, IO_NO_INCREMENT);
#elif defined(MUTANT_TOUCHED_AFTER_COMPLETION)
    irp->IoStatus.Information = 1;
#endif
    KeSetEvent(&Answered, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS Pend(PIRP Irp)
{
    KIRQL before;

#ifdef MUTANT_PENDING_WITHOUT_THE_MARK
    /* The I/O manager learns from the mark that the request outlives the dispatch routine. */
#else
    IoMarkIrpPending(Irp);
#endif
    KeAcquireSpinLock(&Lock, &before);
    Waiting = Irp;
    IoSetCancelRoutine(Irp, Cancelled);
    KeReleaseSpinLock(&Lock, before);
    IoQueueWorkItem(WorkItem, Answer, DelayedWorkQueue, NULL);
#ifdef MUTANT_MARKED_BUT_NOT_PENDING
    return STATUS_SUCCESS;
#else
    return STATUS_PENDING;
#endif
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
#if defined(MUTANT_NOT_COMPLETED_AT_ALL) || defined(MUTANT_PENDING_RETURNED_BUT_COMPLETED) || \
    defined(MUTANT_ANOTHER_STATUS_THAN_COMPLETED)
    KeSetEvent(&Answered, IO_NO_INCREMENT, FALSE); /* nothing is pended */
#endif
#ifdef MUTANT_NOT_COMPLETED_AT_ALL
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return STATUS_SUCCESS;
#elif defined(MUTANT_PENDING_RETURNED_BUT_COMPLETED)
    Finish(Irp, STATUS_SUCCESS);
    return STATUS_PENDING;
#elif defined(MUTANT_ANOTHER_STATUS_THAN_COMPLETED)
    Finish(Irp, STATUS_SUCCESS);
    return STATUS_ACCESS_DENIED;
#else
    return Pend(Irp);
#endif
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Lock);
    KeInitializeEvent(&Answered, NotificationEvent, FALSE);
    WorkItem = IoAllocateWorkItem(Control);
    return WorkItem == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    KeWaitForSingleObject(&Answered, Executive, KernelMode, FALSE, NULL);
    IoFreeWorkItem(WorkItem);
}
