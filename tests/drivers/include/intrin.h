/*
 * Intrinsics that the DDK headers use and clang does not bring along in Microsoft's ABI. gcc and clang's own <intrin.h> are
 * not needed: clang knows the _Interlocked family by itself, and mingw-w64's header is written for gcc.
 */
#if defined(_MSC_VER)
#ifndef FWBROKER_TESTS_INTRIN_H
#define FWBROKER_TESTS_INTRIN_H

/* Every KeRaiseIrql, KeLowerIrql and KeGetCurrentIrql of wdm.h is inline and reads or writes CR8. */
static __inline unsigned __int64 __readcr8(void)
{
    unsigned __int64 value;
    __asm__ volatile("mov %%cr8, %0" : "=r"(value));
    return value;
}

static __inline void __writecr8(unsigned __int64 value)
{
    __asm__ volatile("mov %0, %%cr8" : : "r"(value) : "memory");
}

/* Built into the compiler, and declared by nobody: wdm.h declares the 32-bit ones only. */
__int64 _InterlockedExchangeAdd64(__int64 volatile *Addend, __int64 Value);
__int64 _InterlockedIncrement64(__int64 volatile *Addend);
__int64 _InterlockedDecrement64(__int64 volatile *Addend);

#endif
#else
#include_next <intrin.h>
#endif
