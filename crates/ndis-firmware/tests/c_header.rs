//! `include/fwbroker.h` says the same as `interface.rs`: MinGW compiles it, and every size and offset is compared.

use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use ndis_firmware::interface::{
    FWBROKER_IMAGE, FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1, FWBROKER_OPEN_PARAMETERS,
    FWBROKER_QUERY_INTERFACE, IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE,
};

const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// One `C_ASSERT` per claim: the compiler is the judge, so that nothing has to run.
fn assertions() -> String {
    let mut text = String::new();
    macro_rules! layout {
        ($type:ident: $($field:ident),*) => {
            let _ = writeln!(text, "C_ASSERT(sizeof({}) == {});", stringify!($type), size_of::<$type>());
            $(let _ = writeln!(
                text,
                "C_ASSERT(FIELD_OFFSET({}, {}) == {});",
                stringify!($type), stringify!($field), offset_of!($type, $field),
            );)*
        };
    }
    layout!(FWBROKER_QUERY_INTERFACE: Size, Version, Flags, Consumer);
    layout!(FWBROKER_OPEN_PARAMETERS: Size, Version, Flags, TimeoutMilliseconds, Reserved);
    layout!(FWBROKER_IMAGE: Handle, Length, Sha256);
    layout!(FWBROKER_INTERFACE:
        Size, Version, Context, InterfaceReference, InterfaceDereference, Open, Map, Unmap, Close);
    let _ = writeln!(
        text,
        "C_ASSERT(IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE == {IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE});\n\
         C_ASSERT(FWBROKER_INTERFACE_VERSION_1 == {FWBROKER_INTERFACE_VERSION_1});"
    );
    text
}

fn compile(source: &str, folder: &Path) -> Result<(), String> {
    let file = folder.join("check.c");
    std::fs::write(&file, source).map_err(|error| error.to_string())?;
    let output = Command::new(COMPILER)
        .args(["-std=c89", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-c", "-D_WIN32_WINNT=0x0A00"])
        // The DDK's own headers are no model of C89: as system headers they are not warned about.
        .args(["-isystem", "/usr/x86_64-w64-mingw32/include/ddk", "-isystem", "/usr/share/mingw-w64/include/ddk"])
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(&file)
        .arg("-o")
        .arg(folder.join("check.o"))
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn the_c_header_has_the_layout_of_the_rust_interface() {
    if Command::new(COMPILER).arg("--version").output().is_err() {
        eprintln!("skipped: {COMPILER} is not installed (apt-get install gcc-mingw-w64-x86-64)");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = |assertions: &str| format!("#include <ntddk.h>\n#include <fwbroker.h>\n{assertions}int unused;\n");
    compile(&source(&assertions()), folder).unwrap_or_else(|log| panic!("{log}"));
    let wrong = source("C_ASSERT(sizeof(FWBROKER_INTERFACE) == 63);\n");
    assert!(compile(&wrong, folder).is_err(), "a wrong claim has to be noticed");
}
