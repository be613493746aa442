/*
 * mingw-w64's driverspecs.h, and the annotations of the kit that it and its sal.h lack. All of them are for static analysis
 * and stand for nothing here.
 */
#ifndef FWBROKER_TESTS_DRIVERSPECS_H
#define FWBROKER_TESTS_DRIVERSPECS_H

#include_next <driverspecs.h>

#ifndef _Dispatch_type_
#define _Dispatch_type_(x)
#endif
#ifndef _IRQL_always_function_max_
#define _IRQL_always_function_max_(x)
#define _IRQL_always_function_min_(x)
#define _IRQL_restores_global_(kind, param)
#define _IRQL_saves_global_(kind, param)
#define _IRQL_uses_cancel_
#define _IRQL_is_cancel_
#define _Kernel_clear_do_init_(x)
#define _Kernel_float_saved_
#define _Kernel_float_restored_
#define _Kernel_float_used_
#define _Kernel_acquires_resource_(x)
#define _Kernel_releases_resource_(x)
#define _Kernel_requires_resource_held_(x)
#define _Kernel_requires_resource_not_held_(x)
#define _Kernel_IoGetDmaAdapter_
#endif
#ifndef _Pre_valid_
#define _Pre_valid_
#define _Pre_opt_valid_
#define _Pre_invalid_
#define _Pre_null_
#define _Pre_maybenull_
#define _Pre_z_
#define _Pre_
#define _Post_valid_
#define _Post_invalid_
#define _Post_null_
#define _Post_notnull_
#define _Post_maybenull_
#define _Post_ptr_invalid_
#define _Post_z_
#endif
#ifndef _Unreferenced_parameter_
#define _Unreferenced_parameter_
#endif

/* Values that travel through the filter manager. */
#ifndef _Flt_CompletionContext_Outptr_
#define _Flt_CompletionContext_Outptr_
#define _Flt_ConnectionCookie_Outptr_
#endif

#ifndef _Analysis_assume_
#define _Analysis_assume_(x)
#endif
#ifndef _Analysis_assume_lock_held_
#define _Analysis_assume_lock_held_(x)
#define _Analysis_assume_lock_not_held_(x)
#define _Analysis_suppress_lock_checking_(x)
#endif
#ifndef __analysis_assume
#define __analysis_assume(x)
#endif
#ifndef _Analysis_noreturn_
#define _Analysis_noreturn_
#endif

#endif
