//! The program `fwbctl`; see the library's [`cli`](fwbctl::cli).
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    fwbctl::cli::main()
}
