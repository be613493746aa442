/*
 * Resources, lookaside lists and memory descriptor lists: initialised, used in pairs, deleted.
 *
 * The correct driver takes an ERESOURCE shared and exclusively, has one entry of a lookaside list at a time, and describes and maps
 * a block of pool.
 */
#include "wdm_mutant.h"

static ERESOURCE Lock;
static NPAGED_LOOKASIDE_LIST List;
static ULONG Uses;

static VOID UseResource(void)
{
#ifndef MUTANT_RESOURCE_WITHOUT_A_CRITICAL_REGION
    KeEnterCriticalRegion();
#endif
    ExAcquireResourceExclusiveLite(&Lock, TRUE);
    Uses++;
#ifndef MUTANT_RESOURCE_KEPT
    ExReleaseResourceLite(&Lock);
#endif
#ifdef MUTANT_RESOURCE_RELEASED_TWICE
    ExReleaseResourceLite(&Lock);
#elif defined(MUTANT_RESOURCE_SHARED_THEN_EXCLUSIVE)
    /* Nobody can be let in alone while this thread itself reads. */
    ExAcquireResourceSharedLite(&Lock, TRUE);
    ExAcquireResourceExclusiveLite(&Lock, TRUE);
    ExReleaseResourceLite(&Lock);
    ExReleaseResourceLite(&Lock);
#endif
#ifndef MUTANT_RESOURCE_WITHOUT_A_CRITICAL_REGION
    KeLeaveCriticalRegion();
#endif
}

static VOID UseList(void)
{
    PULONG entry = ExAllocateFromNPagedLookasideList(&List);

    if (entry == NULL) {
        return;
    }
    *entry = Uses;
#ifndef MUTANT_ENTRY_NOT_FREED
    ExFreeToNPagedLookasideList(&List, entry);
#endif
}

static VOID DescribePool(void)
{
    PVOID block = ExAllocatePool2(POOL_FLAG_NON_PAGED, 4096, TAG);
    PMDL list;

    if (block == NULL) {
        return;
    }
    list = IoAllocateMdl(block, 4096, FALSE, FALSE, NULL);
    if (list != NULL) {
#ifndef MUTANT_MDL_USED_UNBUILT
        MmBuildMdlForNonPagedPool(list);
#endif
        if (MmGetSystemAddressForMdlSafe(list, NormalPagePriority) != NULL) {
            Uses++;
        }
#ifndef MUTANT_MDL_NOT_FREED
        IoFreeMdl(list);
#endif
#ifdef MUTANT_MDL_FREED_TWICE
        IoFreeMdl(list);
#endif
    }
    ExFreePoolWithTag(block, TAG);
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UseResource();
    UseList();
    DescribePool();
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    ExInitializeNPagedLookasideList(&List, NULL, NULL, 0, 64, TAG, 0);
#ifdef MUTANT_RESOURCE_INITIALISED_TWICE
    ExInitializeResourceLite(&Lock);
#endif
    return ExInitializeResourceLite(&Lock);
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
#ifndef MUTANT_RESOURCE_NOT_DELETED
    ExDeleteResourceLite(&Lock);
#endif
#ifndef MUTANT_LOOKASIDE_LIST_NOT_DELETED
    ExDeleteNPagedLookasideList(&List);
#endif
}
