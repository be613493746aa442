/* The kit's header that deprecates unsafe C functions. Drivers built here have no C library to take those from. */
