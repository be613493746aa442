/*
 * Exceptions that no handler takes, and handlers that take too much for granted.
 *
 * The correct driver raises a status inside __try, lets it cross a __finally, and handles it by its code.
 */
#include "wdm_mutant.h"

static ULONG Cleaned;

static VOID Raise(NTSTATUS Status)
{
    ExRaiseStatus(Status);
}

static VOID RaiseInside(NTSTATUS Status)
{
    __try {
        Raise(Status);
    } __finally {
        Cleaned++;
#ifdef MUTANT_RAISES_IN_FINALLY
        *(volatile ULONG *)0x10 = 1;
#endif
    }
}

static LONG Expected(NTSTATUS Code)
{
#ifdef MUTANT_FILTER_SEARCHES_ON
    return EXCEPTION_CONTINUE_SEARCH;
#else
    return Code == STATUS_DATA_ERROR ? EXCEPTION_EXECUTE_HANDLER : EXCEPTION_CONTINUE_SEARCH;
#endif
}

static NTSTATUS Exercise(PIRP Irp, PIO_STACK_LOCATION Stack)
{
    NTSTATUS status = STATUS_UNSUCCESSFUL;

#ifdef MUTANT_RAISED_OUTSIDE_OF_TRY
    Raise(STATUS_DATA_ERROR);
#elif defined(MUTANT_ANOTHER_STATUS_RAISED)
    __try {
        RaiseInside(STATUS_INVALID_PARAMETER);
#else
    __try {
        RaiseInside(STATUS_DATA_ERROR);
#endif
#ifndef MUTANT_RAISED_OUTSIDE_OF_TRY
    } __except (Expected(GetExceptionCode())) {
        status = Cleaned == 1 ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
    }
#endif
    return Finish(Irp, status);
}

static NTSTATUS SetUp(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    return STATUS_SUCCESS;
}

static VOID TearDown(PDRIVER_OBJECT DriverObject)
{
}
