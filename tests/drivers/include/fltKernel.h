/*
 * Declarations of the filter manager for drivers that are built without the Windows Driver Kit.
 *
 * Written from the pages of the reference (wdk-ddi-src/content/fltkernel) and from layouts measured on x64; mingw-w64 has no
 * fltKernel.h. Every structure that a driver and the filter manager share has its size and the offsets that padding decides
 * asserted. With the real kit on the include path, this file is not needed.
 */
#ifndef FWBROKER_TESTS_FLTKERNEL_H
#define FWBROKER_TESTS_FLTKERNEL_H

/* Versions of the filter manager, by which a source asks for what it may use. This one is the newest. */
#define FLT_MGR_BASELINE (1)
#define FLT_MGR_AFTER_XPSP2 (1)
#define FLT_MGR_LONGHORN (NTDDI_VERSION >= NTDDI_VISTA)
#define FLT_MGR_WIN7 (NTDDI_VERSION >= NTDDI_WIN7)
#define FLT_MGR_WIN8 (NTDDI_VERSION >= NTDDI_WIN8)
#define FLT_MGR_WINBLUE (NTDDI_VERSION >= NTDDI_WINBLUE)
#define FLT_MGR_WIN10 (NTDDI_VERSION >= 0x0A000000)

#include <ntifs.h>
#include <initguid.h>
#include <fltuserstructures.h>

/* Imported functions, as the kit declares them: a call then goes through the import table without a thunk. */
#define FLT_IMPORT NTSYSAPI
#define FLT_ASSERT_LAYOUT(condition) _Static_assert(condition, "the layout differs from that of Windows on x64")

#ifndef FLT_ASSERT
#if DBG
#define FLT_ASSERT(_e) NT_ASSERT(_e)
#define FLT_ASSERTMSG(_m, _e) NT_ASSERTMSG(_m, _e)
#else
#define FLT_ASSERT(_e) ((void)0)
#define FLT_ASSERTMSG(_m, _e) ((void)0)
#endif
#endif

#ifndef FlagOn
#define FlagOn(_F, _SF) ((_F) & (_SF))
#endif
#ifndef BooleanFlagOn
#define BooleanFlagOn(F, SF) ((BOOLEAN)(((F) & (SF)) != 0))
#endif
#ifndef SetFlag
#define SetFlag(_F, _SF) ((_F) |= (_SF))
#endif
#ifndef ClearFlag
#define ClearFlag(_F, _SF) ((_F) &= ~(_SF))
#endif
#ifndef PtrOffset
#define PtrOffset(B, O) ((ULONG)((ULONG_PTR)(O) - (ULONG_PTR)(B)))
#endif
#ifndef ROUND_TO_SIZE
#define ROUND_TO_SIZE(_length, _alignment) ((((ULONG_PTR)(_length)) + ((_alignment) - 1)) & ~(ULONG_PTR)((_alignment) - 1))
#endif
#ifndef IS_ALIGNED
#define IS_ALIGNED(_pointer, _alignment) ((((ULONG_PTR)(_pointer)) & ((_alignment) - 1)) == 0)
#endif
#ifndef Add2Ptr
#define Add2Ptr(P, I) ((PVOID)((PUCHAR)(P) + (I)))
#endif

/* Objects of the filter manager: opaque, referenced with FltObjectReference. */
typedef struct _FLT_FILTER *PFLT_FILTER;
typedef struct _FLT_VOLUME *PFLT_VOLUME;
typedef struct _FLT_INSTANCE *PFLT_INSTANCE;
typedef struct _FLT_PORT *PFLT_PORT;
typedef struct _FLT_GENERIC_WORKITEM *PFLT_GENERIC_WORKITEM;
typedef struct _FLT_DEFERRED_IO_WORKITEM *PFLT_DEFERRED_IO_WORKITEM;
typedef PVOID PFLT_CONTEXT;
#define NULL_CONTEXT ((PFLT_CONTEXT)NULL)

#include <flt_operations.h>
#include <flt_registration.h>
#include <flt_objects.h>
#include <flt_io.h>

/* ---- statuses that mingw-w64 does not have ---- */

#ifndef STATUS_FLT_DELETING_OBJECT
#define STATUS_FLT_DELETING_OBJECT ((NTSTATUS)0xC01C000BL)
#endif
#ifndef STATUS_FLT_DO_NOT_ATTACH
#define STATUS_FLT_DO_NOT_ATTACH ((NTSTATUS)0xC01C000FL)
#endif
#ifndef STATUS_FLT_DO_NOT_DETACH
#define STATUS_FLT_DO_NOT_DETACH ((NTSTATUS)0xC01C0010L)
#endif
#ifndef STATUS_FLT_CONTEXT_ALREADY_DEFINED
#define STATUS_FLT_CONTEXT_ALREADY_DEFINED ((NTSTATUS)0xC01C0002L)
#endif

#endif
