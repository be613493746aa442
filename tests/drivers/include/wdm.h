/*
 * mingw-w64's wdm.h, which ends with Windows 8, and what later Windows Driver Kits add to it.
 *
 * A driver's source includes the names of the Windows Driver Kit (<ntifs.h>, <fltKernel.h>, <ndis.h>) and nothing else, so
 * that it compiles with the real kit too. This folder comes first on the include path when it is built here.
 */
#ifndef FWBROKER_TESTS_WDM_H
#define FWBROKER_TESTS_WDM_H

#include_next <wdm.h>

/* mingw-w64 declares these with dllimport, by which the name stands for the exported variable itself; with the kit it stands for
   the variable's address, and drivers write *IoFileObjectType. */
#define ExEventObjectType ((POBJECT_TYPE *)&ExEventObjectType)
#define ExSemaphoreObjectType ((POBJECT_TYPE *)&ExSemaphoreObjectType)
#define IoFileObjectType ((POBJECT_TYPE *)&IoFileObjectType)
#define PsThreadType ((POBJECT_TYPE *)&PsThreadType)

#ifndef POOL_FLAG_NON_PAGED
typedef ULONG64 POOL_FLAGS;
#define POOL_FLAG_USE_QUOTA 0x0000000000000001ULL
#define POOL_FLAG_UNINITIALIZED 0x0000000000000002ULL
#define POOL_FLAG_CACHE_ALIGNED 0x0000000000000008ULL
#define POOL_FLAG_RAISE_ON_FAILURE 0x0000000000000020ULL
#define POOL_FLAG_NON_PAGED 0x0000000000000040ULL
#define POOL_FLAG_PAGED 0x0000000000000100ULL
NTKERNELAPI PVOID NTAPI ExAllocatePool2(POOL_FLAGS Flags, SIZE_T NumberOfBytes, ULONG Tag);
NTKERNELAPI VOID NTAPI ExFreePool2(PVOID P, ULONG Tag, PVOID ExtendedParameters, ULONG ExtendedParametersCount);
#endif

#include <wdm_later.h>

#endif
