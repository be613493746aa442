//! Tests of the program: one binary, so that it is linked once.

mod commands;
mod fake;
#[cfg(unix)]
mod json_schema;
#[cfg(unix)]
mod over_the_socket;
