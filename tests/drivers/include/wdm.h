/*
 * mingw-w64's wdm.h, which ends with Windows 8, and what later Windows Driver Kits add to it.
 *
 * A driver's source includes the names of the Windows Driver Kit (<ntifs.h>, <fltKernel.h>, <ndis.h>) and nothing else, so
 * that it compiles with the real kit too. This folder comes first on the include path when it is built here.
 */
#ifndef FWBROKER_TESTS_WDM_H
#define FWBROKER_TESTS_WDM_H

#include_next <wdm.h>
#include <driverspecs.h>
#include <ktmtypes.h>
#include <wdm_later.h>

/* mingw-w64 declares these with dllimport, by which the name stands for the exported variable itself; with the kit it stands for
   the variable's address, and drivers write *IoFileObjectType. */
#define ExEventObjectType ((POBJECT_TYPE *)&ExEventObjectType)
#define ExSemaphoreObjectType ((POBJECT_TYPE *)&ExSemaphoreObjectType)
#define IoFileObjectType ((POBJECT_TYPE *)&IoFileObjectType)
#define PsThreadType ((POBJECT_TYPE *)&PsThreadType)

/* ---- pool ---- */

#ifndef POOL_FLAG_NON_PAGED
typedef ULONG64 POOL_FLAGS;
#define POOL_FLAG_USE_QUOTA 0x0000000000000001ULL
#define POOL_FLAG_UNINITIALIZED 0x0000000000000002ULL
#define POOL_FLAG_SESSION 0x0000000000000004ULL
#define POOL_FLAG_CACHE_ALIGNED 0x0000000000000008ULL
#define POOL_FLAG_RAISE_ON_FAILURE 0x0000000000000020ULL
#define POOL_FLAG_NON_PAGED 0x0000000000000040ULL
#define POOL_FLAG_NON_PAGED_EXECUTE 0x0000000000000080ULL
#define POOL_FLAG_PAGED 0x0000000000000100ULL
NTKERNELAPI PVOID NTAPI ExAllocatePool2(POOL_FLAGS Flags, SIZE_T NumberOfBytes, ULONG Tag);
NTKERNELAPI VOID NTAPI ExFreePool2(PVOID P, ULONG Tag, PVOID ExtendedParameters, ULONG ExtendedParametersCount);
#endif

#ifndef POOL_NX_ALLOCATION
#define POOL_NX_ALLOCATION 512
#endif
#ifndef POOL_ZERO_ALLOCATION
#define POOL_ZERO_ALLOCATION 1024
#endif

/*
 * A driver that says POOL_NX_OPTIN=1 means memory that cannot be executed when it says NonPagedPool: the kit makes the name a
 * variable, which ExInitializeDriverRuntime sets.
 */
#define DrvRtPoolNxOptIn 0x00000001
#if POOL_NX_OPTIN && !POOL_NX_OPTOUT
__declspec(selectany) POOL_TYPE ExDefaultNonPagedPoolType = NonPagedPool;
#define NonPagedPool ExDefaultNonPagedPoolType
#endif

FORCEINLINE VOID ExInitializeDriverRuntime(ULONG RuntimeFlags)
{
#if POOL_NX_OPTIN && !POOL_NX_OPTOUT
    if (RuntimeFlags & DrvRtPoolNxOptIn)
        ExDefaultNonPagedPoolType = NonPagedPoolNx;
#else
    (void)RuntimeFlags;
#endif
}

/* The forms that say whether the memory is zeroed: what ExAllocatePoolWithTag did not, and ExAllocatePool2 does. */
FORCEINLINE PVOID ExAllocatePoolZero(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag)
{
    PVOID Allocation = ExAllocatePoolWithTag((POOL_TYPE)(PoolType | POOL_ZERO_ALLOCATION), NumberOfBytes, Tag);
#if POOL_ZERO_DOWN_LEVEL_SUPPORT
    if (Allocation)
        RtlZeroMemory(Allocation, NumberOfBytes);
#endif
    return Allocation;
}

FORCEINLINE PVOID ExAllocatePoolUninitialized(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag)
{
    return ExAllocatePoolWithTag(PoolType, NumberOfBytes, Tag);
}

FORCEINLINE PVOID ExAllocatePoolQuotaZero(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag)
{
    return ExAllocatePoolWithQuotaTag((POOL_TYPE)(PoolType | POOL_ZERO_ALLOCATION), NumberOfBytes, Tag);
}

FORCEINLINE PVOID ExAllocatePoolPriorityZero(POOL_TYPE PoolType, SIZE_T NumberOfBytes, ULONG Tag,
                                             EX_POOL_PRIORITY Priority)
{
    return ExAllocatePoolWithTagPriority((POOL_TYPE)(PoolType | POOL_ZERO_ALLOCATION), NumberOfBytes, Tag, Priority);
}

/* ---- memory barriers, where mingw-w64 has the x86 forms only ---- */

#ifndef KeMemoryBarrier
#define KeMemoryBarrier() __sync_synchronize()
#endif

/* ---- a driver's own keys ---- */

typedef enum _DRIVER_REGKEY_TYPE {
    DriverRegKeyParameters,
    DriverRegKeyPersistentState,
    DriverRegKeySharedPersistentState
} DRIVER_REGKEY_TYPE, *PDRIVER_REGKEY_TYPE;
NTKERNELAPI NTSTATUS NTAPI IoOpenDriverRegistryKey(PDRIVER_OBJECT DriverObject, DRIVER_REGKEY_TYPE RegKeyType,
                                                   ACCESS_MASK DesiredAccess, ULONG Flags, PHANDLE DriverRegKey);

/* ---- transactions ---- */

typedef struct _KTRANSACTION KTRANSACTION, *PKTRANSACTION;
typedef struct _KENLISTMENT KENLISTMENT, *PKENLISTMENT;

#endif
