/*
 * Pageable memory: touched at PASSIVE_LEVEL and APC_LEVEL only, and code for initialisation not after it.
 *
 * The correct driver copies a value from paged pool before it raises its IRQL, and back when it has lowered it again.
 */
#include "wdm_mutant.h"

static ULONG *Settings;
static ULONG Shared;
static KSPIN_LOCK Lock;

ULONG Scaled(ULONG Value);
ULONG FirstValue(void);
#pragma alloc_text(PAGE, Scaled)
#pragma alloc_text(INIT, FirstValue)

/* In a section that may be paged out. */
DECLSPEC_NOINLINE ULONG Scaled(ULONG Value)
{
    return Value * 3 + Shared;
}

/* In a section that goes away when DriverEntry has returned. */
DECLSPEC_NOINLINE ULONG FirstValue(void)
{
    return Shared + 1;
}

static VOID Update(void)
{
    ULONG value = *Settings;
    ULONG scaled = Scaled(value);
    KIRQL before;

    KeAcquireSpinLock(&Lock, &before);
#ifdef MUTANT_PAGED_POOL_READ_UNDER_A_SPIN_LOCK
    Shared += *Settings;
#elif defined(MUTANT_PAGED_POOL_WRITTEN_UNDER_A_SPIN_LOCK)
    *Settings = Shared;
#elif defined(MUTANT_PAGED_POOL_GIVEN_TO_A_CALL_UNDER_A_SPIN_LOCK)
    RtlCopyMemory(&Shared, Settings, sizeof(Shared));
    RtlZeroMemory(Settings, PAGE_SIZE);
#elif defined(MUTANT_PAGEABLE_CODE_UNDER_A_SPIN_LOCK)
    Shared += Scaled(value);
#endif
    Shared += scaled;
    KeReleaseSpinLock(&Lock, before);
    *Settings = Shared;
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    Update();
#ifdef MUTANT_INITIALISATION_CODE_CALLED_LATER
    Shared += FirstValue();
#endif
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Lock);
    Settings = ExAllocatePool2(POOL_FLAG_PAGED, PAGE_SIZE, TAG);
    if (Settings == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *Settings = FirstValue();
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    ExFreePoolWithTag(Settings, TAG);
}
