/*
 * mingw-w64's ntdef.h with three macros repaired: for a compiler without gcc's casts, FIELD_OFFSET is no constant expression
 * there, which the assertions of the DDK's own headers need; and a parameter that nothing refers to may be const.
 */
#include_next <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(Type, Field) ((LONG)__builtin_offsetof(Type, Field))
#undef UNREFERENCED_PARAMETER
#define UNREFERENCED_PARAMETER(P) ((void)(P))
#undef UNREFERENCED_LOCAL_VARIABLE
#define UNREFERENCED_LOCAL_VARIABLE(L) ((void)(L))

#ifndef FWBROKER_TESTS_TCHAR
#define FWBROKER_TESTS_TCHAR
#ifdef UNICODE
typedef WCHAR TCHAR, *PTCHAR;
#else
typedef char TCHAR, *PTCHAR;
#endif
#endif
