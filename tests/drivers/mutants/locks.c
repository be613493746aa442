/*
 * Locks: taken once, in one order, given back by their owner before it leaves.
 *
 * The correct driver takes two spin locks, two fast mutexes and a mutex, always in the same order.
 */
#include "wdm_mutant.h"

static KSPIN_LOCK First;
static KSPIN_LOCK Second;
static FAST_MUTEX Outer;
static FAST_MUTEX Inner;
static KMUTEX Owned;
static ULONG Counted;

static VOID TakeBoth(void)
{
    KIRQL before;

    KeAcquireSpinLock(&First, &before);
    KeAcquireSpinLockAtDpcLevel(&Second);
    Counted++;
#ifdef MUTANT_SPIN_LOCK_TAKEN_TWICE
    KeAcquireSpinLockAtDpcLevel(&First);
#endif
    KeReleaseSpinLockFromDpcLevel(&Second);
#ifdef MUTANT_SPIN_LOCK_RELEASED_TWICE
    KeReleaseSpinLockFromDpcLevel(&Second);
#endif
#ifndef MUTANT_SPIN_LOCK_KEPT
    KeReleaseSpinLock(&First, before);
#endif
}

static VOID TakeBothAgain(void)
{
    KIRQL before;

#ifdef MUTANT_SPIN_LOCKS_IN_THE_OTHER_ORDER
    KeAcquireSpinLock(&Second, &before);
    KeAcquireSpinLockAtDpcLevel(&First);
    KeReleaseSpinLockFromDpcLevel(&First);
    KeReleaseSpinLock(&Second, before);
#else
    KeAcquireSpinLock(&First, &before);
    KeAcquireSpinLockAtDpcLevel(&Second);
    KeReleaseSpinLockFromDpcLevel(&Second);
    KeReleaseSpinLock(&First, before);
#endif
#ifdef MUTANT_DPC_LEVEL_LOCK_AT_PASSIVE
    KeAcquireSpinLockAtDpcLevel(&First);
    KeReleaseSpinLockFromDpcLevel(&First);
#endif
}

static VOID TakeMutexes(void)
{
    ExAcquireFastMutex(&Outer);
    ExAcquireFastMutex(&Inner);
    Counted++;
#ifdef MUTANT_FAST_MUTEX_TAKEN_TWICE
    ExAcquireFastMutex(&Outer);
#elif defined(MUTANT_FILE_OPENED_UNDER_A_FAST_MUTEX)
    {
        UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\??\\C:\\locks.txt");
        OBJECT_ATTRIBUTES attributes;
        IO_STATUS_BLOCK ended;
        HANDLE file;
        InitializeObjectAttributes(&attributes, &name, OBJ_KERNEL_HANDLE, NULL, NULL);
        if (NT_SUCCESS(ZwCreateFile(&file, FILE_GENERIC_READ, &attributes, &ended, NULL, 0, FILE_SHARE_READ, FILE_OPEN_IF,
                                    FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))) {
            ZwClose(file);
        }
    }
#endif
    ExReleaseFastMutex(&Inner);
    ExReleaseFastMutex(&Outer);
#ifdef MUTANT_FAST_MUTEX_NOT_OWNED
    ExReleaseFastMutex(&Outer);
#endif
#ifdef MUTANT_FAST_MUTEXES_IN_THE_OTHER_ORDER
    ExAcquireFastMutex(&Inner);
    ExAcquireFastMutex(&Outer);
    ExReleaseFastMutex(&Outer);
    ExReleaseFastMutex(&Inner);
#endif
}

static VOID TakeOwned(void)
{
    KeWaitForSingleObject(&Owned, Executive, KernelMode, FALSE, NULL);
    Counted++;
    KeReleaseMutex(&Owned, FALSE);
#ifdef MUTANT_MUTEX_NOT_OWNED
    KeReleaseMutex(&Owned, FALSE);
#endif
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    TakeBoth();
    TakeBothAgain();
    TakeMutexes();
    TakeOwned();
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&First);
    KeInitializeSpinLock(&Second);
    ExInitializeFastMutex(&Outer);
    ExInitializeFastMutex(&Inner);
    KeInitializeMutex(&Owned, 0);
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}
