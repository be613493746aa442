/* The kit's spelling, for file systems that tell upper from lower case. */
#include <driverspecs.h>
