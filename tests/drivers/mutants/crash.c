/*
 * What ends a Windows machine with a blue screen: bad pointers, bad arithmetic, and asking for it.
 *
 * The correct driver walks a short list, divides, and calls through a table, with the checks that these need.
 */
#include "wdm_mutant.h"

typedef struct _NODE {
    struct _NODE *Next;
    LONG Value;
} NODE;

typedef VOID (*OPERATION)(volatile LONG *Value);

static NODE Last = { NULL, 2 };
static NODE Head = { &Last, 1 };
static const volatile LONG Constant = 5;
static volatile LONG Result;

static VOID Increment(volatile LONG *Value)
{
    InterlockedIncrement(Value);
}

static OPERATION Operations[2] = { Increment, NULL };

static LONG Walk(void)
{
    volatile NODE *node = &Head;
    LONG sum = 0;

#ifdef MUTANT_NULL_POINTER
    for (;;) {
#else
    while (node != NULL) {
#endif
        sum += node->Value;
        node = node->Next;
    }
    return sum;
}

static LONG Divide(LONG Amount, volatile LONG *By)
{
#ifndef MUTANT_DIVISION_BY_ZERO
    if (*By == 0) {
        return 0;
    }
#endif
    return Amount / *By;
}

static VOID Call(ULONG Which)
{
    OPERATION operation = *(OPERATION volatile *)&Operations[Which];

#ifndef MUTANT_CALL_OF_NULL
    if (operation == NULL) {
        return;
    }
#endif
    operation(&Result);
}

static LONG Recurse(volatile LONG *Depth)
{
    volatile CHAR frame[512];

    frame[0] = (CHAR)*Depth;
#ifndef MUTANT_STACK_OVERFLOW
    if (*Depth == 0) {
        return frame[0];
    }
#endif
    *Depth -= 1;
    return Recurse(Depth) + frame[0];
}

static VOID Store(volatile LONG *Value)
{
    *Value = 6;
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    LONG depth = 3;

    UNREFERENCED_PARAMETER(Stack);
    Result = Walk();
    Result = 0;
    Result = Divide(7, &Result);
    Call(0);
    Call(1);
    Result = Recurse(&depth) + Constant;
    Store(&Result);
#ifdef MUTANT_CONSTANT_WRITTEN
    Store((volatile LONG *)&Constant);
#elif defined(MUTANT_BUG_CHECK)
    KeBugCheckEx(0xE2, 1, 2, 3, Constant);
#elif defined(MUTANT_ASSERTION_FAILED)
    __asm__ volatile("int $0x2c");
#elif defined(MUTANT_BREAKPOINT)
    __asm__ volatile("int3");
#elif defined(MUTANT_PRIVILEGED_INSTRUCTION)
    __asm__ volatile("hlt");
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
