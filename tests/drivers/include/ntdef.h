/*
 * mingw-w64's ntdef.h with two macros repaired: for a compiler without gcc's casts, FIELD_OFFSET is no constant expression
 * there, which the assertions of the DDK's own headers need.
 */
#include_next <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(Type, Field) ((LONG)__builtin_offsetof(Type, Field))
