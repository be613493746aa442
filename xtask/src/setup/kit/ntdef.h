/* mingw-w64's FIELD_OFFSET for compilers that define no __GNUC__ casts a null pointer, which clang accepts in no
   constant expression; the C_ASSERTs of the DDK headers need one. */
#include_next <ntdef.h>
#undef FIELD_OFFSET
#define FIELD_OFFSET(Type, Field) ((LONG)__builtin_offsetof(Type, Field))
