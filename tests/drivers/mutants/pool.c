/*
 * Pool: everything that can be done wrong with one block.
 *
 * The correct driver allocates a record, fills all of it, reads it back and frees it with its tag.
 */
#include "wdm_mutant.h"

typedef struct _RECORD {
    ULONG Words[10];
} RECORD, *PRECORD;

static PRECORD MakeRecord(void)
{
#ifdef MUTANT_TAG_ZERO
    PRECORD record = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(RECORD), 0);
#elif defined(MUTANT_ZERO_BYTES)
    PRECORD record = ExAllocatePool2(POOL_FLAG_NON_PAGED, 0, TAG);
#else
    PRECORD record = ExAllocatePool2(POOL_FLAG_NON_PAGED, sizeof(RECORD), TAG);
#endif
    return record;
}

static VOID FillRecord(PRECORD Record)
{
    volatile ULONG *words = Record->Words;
    ULONG last = RTL_NUMBER_OF(Record->Words);
    ULONG at;

#ifdef MUTANT_OVERRUN_BY_A_WORD
    last += 1; /* within the slack behind the block: found when it is freed */
#elif defined(MUTANT_OVERRUN_BY_A_CACHE_LINE)
    last += 16; /* beyond the page: faults at once */
#endif
    for (at = 0; at < last; at++) {
        words[at] = at;
    }
#ifdef MUTANT_UNDERRUN
    words[-1] = 7;
#endif
}

static ULONG SumRecord(PRECORD Record)
{
    volatile ULONG *words = Record->Words;
    ULONG sum = 0;
    ULONG at;

    for (at = 0; at < RTL_NUMBER_OF(Record->Words); at++) {
        sum += words[at];
    }
    return sum;
}

static VOID FreeRecord(PRECORD Record)
{
#ifdef MUTANT_WRONG_TAG
    ExFreePoolWithTag(Record, 'eslF');
#elif defined(MUTANT_FREE_INSIDE_THE_BLOCK)
    ExFreePoolWithTag(&Record->Words[4], TAG);
#else
    ExFreePoolWithTag(Record, TAG);
#endif
#ifdef MUTANT_DOUBLE_FREE
    ExFreePoolWithTag(Record, TAG);
#endif
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PRECORD record;

    UNREFERENCED_PARAMETER(Stack);
    record = MakeRecord();
    if (record == NULL) {
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES);
    }
#ifdef MUTANT_UNINITIALISED_POINTER
    /* Memory that was asked for without zeroes holds no pointer. */
    {
        ULONG **link = ExAllocatePool2(POOL_FLAG_NON_PAGED | POOL_FLAG_UNINITIALIZED, sizeof(*link), TAG);
        *(volatile ULONG *)*link = 1;
        ExFreePoolWithTag(link, TAG);
    }
#endif
    FillRecord(record);
#ifdef MUTANT_USE_AFTER_FREE
    FreeRecord(record);
    SumRecord(record);
#elif defined(MUTANT_LEAK)
    SumRecord(record);
#else
    SumRecord(record);
    FreeRecord(record);
#endif
#ifdef MUTANT_FREE_OF_A_STACK_VARIABLE
    {
        RECORD local;
        FillRecord(&local);
        ExFreePoolWithTag(&local, TAG);
    }
#endif
    return Finish(Irp, STATUS_SUCCESS);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(DriverObject);
    UNREFERENCED_PARAMETER(RegistryPath);
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}
