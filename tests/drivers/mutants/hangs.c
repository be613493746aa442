/*
 * Code that waits for what never comes.
 *
 * The correct driver polls a flag that it has set itself, at each IRQL that a driver can wait for something at.
 */
#include "wdm_mutant.h"

static volatile LONG Ready;

static VOID SpinAtPassive(void)
{
#ifdef MUTANT_LOOPS_AT_PASSIVE
    Ready = 0;
#endif
    while (Ready == 0)
        ;
}

static VOID SpinAtDispatch(void)
{
    KIRQL before;

    KeRaiseIrql(DISPATCH_LEVEL, &before);
#ifdef MUTANT_LOOPS_AT_DISPATCH
    Ready = 0;
#endif
    while (Ready == 0)
        ;
    KeLowerIrql(before);
}

static VOID Poll(void)
{
    LARGE_INTEGER interval;

    interval.QuadPart = -10 * 1000; /* a millisecond */
#ifdef MUTANT_POLLS_FOR_EVER
    Ready = 0;
#endif
    while (Ready == 0) {
        KeDelayExecutionThread(KernelMode, FALSE, &interval);
    }
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    UNREFERENCED_PARAMETER(Stack);
    Ready = 1;
    SpinAtPassive();
    SpinAtDispatch();
    Poll();
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
