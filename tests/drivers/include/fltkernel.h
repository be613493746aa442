/* The kit's header of this name, for file systems that tell upper from lower case. */
#include <fltKernel.h>
