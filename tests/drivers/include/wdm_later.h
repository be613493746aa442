/*
 * What mingw-w64's wdm.h lacks for ordinary device drivers: names of later Windows Driver Kits, and those that its authors left out.
 * Included by this folder's wdm.h only.
 */
#ifndef FWBROKER_TESTS_WDM_LATER_H
#define FWBROKER_TESTS_WDM_LATER_H

/* ---- assertions ---- */

/* A failed NT_ASSERT is interrupt 0x2C. mingw-w64 names a function of Microsoft's compiler, which no header declares. */
#if defined(_MSC_VER)
#undef DbgRaiseAssertionFailure
#define DbgRaiseAssertionFailure() ({ __asm__ volatile("int $0x2c"); })
#undef NT_ASSERT
#undef NT_VERIFY
#if DBG
#define NT_ASSERT(_exp) ((_exp) ? (void)0 : DbgRaiseAssertionFailure())
#define NT_VERIFY(_exp) ((_exp) ? TRUE : (DbgRaiseAssertionFailure(), FALSE))
#else
#define NT_ASSERT(_exp) ((void)0)
#define NT_VERIFY(_exp) ((_exp) ? TRUE : FALSE)
#endif
#endif

/* ---- exceptions, by the names that kernel sources use ---- */

#if defined(_MSC_VER) && !defined(try)
#define try __try
#define except __except
#define finally __finally
#define leave __leave
#endif

/* ---- mappings ---- */

#ifndef MdlMappingNoWrite
#define MdlMappingNoWrite 0x80000000
#define MdlMappingNoExecute 0x40000000
#define MdlMappingWithGuardPtes 0x20000000
#endif

/* ---- types of objects ---- */

/* As wdm.h does for others: the name stands for the address of the exported variable. */
#define PsProcessType ((POBJECT_TYPE *)&PsProcessType)
#define CmKeyObjectType ((POBJECT_TYPE *)&CmKeyObjectType)
#define SeTokenObjectType ((POBJECT_TYPE *)&SeTokenObjectType)
#define TmTransactionObjectType ((POBJECT_TYPE *)&TmTransactionObjectType)

#endif
