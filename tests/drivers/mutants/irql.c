/*
 * IRQL: each routine has a highest one, and who raises it lowers it again.
 *
 * The correct driver raises to DISPATCH_LEVEL, does what is allowed there, and lowers again.
 */
#include "wdm_mutant.h"

static KEVENT Event;
static ULONG Shared;
static PULONG Paged;

static VOID Lookup(void)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Registry\\Machine\\System");
    OBJECT_ATTRIBUTES attributes;
    HANDLE key;

    InitializeObjectAttributes(&attributes, &name, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes))) {
        ZwClose(key);
    }
}

static VOID Pause(void)
{
    LARGE_INTEGER soon;

    soon.QuadPart = -10;
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, &soon);
}

static VOID Count(void)
{
    KIRQL before;

    KeRaiseIrql(DISPATCH_LEVEL, &before);
    Shared++;
#ifdef MUTANT_REGISTRY_AT_DISPATCH
    Lookup();
#elif defined(MUTANT_WAIT_AT_DISPATCH)
    Pause();
#elif defined(MUTANT_DELAY_AT_DISPATCH)
    {
        LARGE_INTEGER soon;
        soon.QuadPart = -10;
        KeDelayExecutionThread(KernelMode, FALSE, &soon);
    }
#elif defined(MUTANT_PAGED_POOL_AT_DISPATCH)
    {
        PVOID block = ExAllocatePool2(POOL_FLAG_PAGED, 64, TAG);
        if (block != NULL) {
            ExFreePoolWithTag(block, TAG);
        }
    }
#elif defined(MUTANT_PAGED_POOL_TOUCHED_AT_DISPATCH)
    *(volatile ULONG *)Paged += 1;
#elif defined(MUTANT_STRING_COMPARED_AT_DISPATCH)
    {
        /* The case tables are pageable. */
        UNICODE_STRING one = RTL_CONSTANT_STRING(L"one");
        UNICODE_STRING other = RTL_CONSTANT_STRING(L"ONE");
        Shared += RtlEqualUnicodeString(&one, &other, TRUE);
    }
#endif
#ifndef MUTANT_RETURNS_AT_DISPATCH
    KeLowerIrql(before);
#endif
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    Count();
    Lookup();
    Pause();
#ifdef MUTANT_CRITICAL_REGION_LEFT_OPEN
    KeEnterCriticalRegion();
#elif defined(MUTANT_CRITICAL_REGION_LEFT_TWICE)
    KeEnterCriticalRegion();
    KeLeaveCriticalRegion();
    KeLeaveCriticalRegion();
#endif
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Paged = ExAllocatePool2(POOL_FLAG_PAGED, sizeof(*Paged), TAG);
    return Paged == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    ExFreePoolWithTag(Paged, TAG);
}
