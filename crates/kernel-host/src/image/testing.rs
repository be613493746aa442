//! A driver file for tests, made in memory: real machine code, unwind data, imports, exports and relocations.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use super::imports::Resolver;
use super::{Image, LoadError};
use crate::ddi::{Call, exports};
use crate::machine::Driver;
use nt_types::NtStatus;

mod code;

exports! { pub(crate) TABLE in "ntoskrnl.exe":
    KernelHostTestRaise(max 2, fails RESOURCES) = raise;
    KernelHostTestCallBack(max 2) = call_back;
}

/// Raises the status it is given, as `ExRaiseStatus` does. The trace shows the driver's stack, found in both ways there are.
extern "efiapi" fn raise(status: NtStatus) {
    let call = Call::enter();
    let mut frames = [0; 8];
    let count = crate::cpu::backtrace::capture(&call.site().registers, &mut frames);
    call.detail(format_args!("{:x?} {:x?}", frames.get(..count).unwrap_or_default(), call.site().return_addresses()));
    call.raise(status)
}

/// Calls a routine of the driver, as exports do that exceptions do not pass.
extern "efiapi" fn call_back(routine: usize, argument: usize) {
    let call = Call::enter();
    // SAFETY: the tests' driver passes one of its functions.
    let routine = unsafe { std::mem::transmute::<usize, extern "efiapi" fn(usize)>(routine) };
    let driver = Arc::clone(call.driver());
    let _ = call.thread().call_driver(&driver, "TEST_CALLBACK", 0, || routine(argument));
}

/// Offset of the optional header in files made here.
pub(crate) const OPTIONAL_HEADER: usize = 0x98;
/// Offset of the first section header.
pub(crate) const SECTION_HEADERS: usize = OPTIONAL_HEADER + 240;

/// The bytes of a good driver file. Tests that need a bad one change some.
pub(crate) fn driver_file() -> Vec<u8> {
    let mut file = vec![0_u8; 0x1000];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3C, &0x80_u32.to_le_bytes());
    put(0x80, b"PE\0\0");
    put(0x84, &0x8664_u16.to_le_bytes()); // machine
    put(0x86, &4_u16.to_le_bytes()); // sections
    put(0x94, &240_u16.to_le_bytes()); // size of optional header
    put(0x96, &0x22_u16.to_le_bytes()); // executable, large addresses
    put(OPTIONAL_HEADER, &0x20B_u16.to_le_bytes());
    put(OPTIONAL_HEADER + 16, &0x1000_u32.to_le_bytes()); // entry point
    put(OPTIONAL_HEADER + 24, &0x1_4000_0000_u64.to_le_bytes()); // image base
    put(OPTIONAL_HEADER + 32, &0x1000_u32.to_le_bytes()); // section alignment
    put(OPTIONAL_HEADER + 36, &0x1000_u32.to_le_bytes()); // file alignment
    put(OPTIONAL_HEADER + 56, &0x5000_u32.to_le_bytes()); // size of image
    put(OPTIONAL_HEADER + 60, &0x1000_u32.to_le_bytes()); // size of headers
    put(OPTIONAL_HEADER + 68, &1_u16.to_le_bytes()); // subsystem native
    put(OPTIONAL_HEADER + 108, &16_u32.to_le_bytes()); // directories
    for (index, [offset, size]) in code::directories() {
        put(OPTIONAL_HEADER + 112 + 8 * index, &offset.to_le_bytes());
        put(OPTIONAL_HEADER + 116 + 8 * index, &size.to_le_bytes());
    }
    let sections: [(&[u8], u32); 4] =
        [(b".text", 0x6000_0020), (b".rdata", 0x4000_0040), (b".data", 0xC000_0040), (b".reloc", 0x4200_0040)];
    for (index, (name, flags)) in sections.into_iter().enumerate() {
        let at = SECTION_HEADERS + 40 * index;
        let offset = 0x1000 * (index as u32 + 1);
        put(at, name);
        put(at + 8, &0x1000_u32.to_le_bytes());
        put(at + 12, &offset.to_le_bytes());
        put(at + 16, &0x1000_u32.to_le_bytes());
        put(at + 20, &offset.to_le_bytes());
        put(at + 36, &flags.to_le_bytes());
    }
    file.extend_from_slice(code::sections());
    file
}

/// Loads a file's bytes as a driver that no machine knows.
pub(crate) fn load(file: &[u8]) -> Result<Image, LoadError> {
    load_for(file, &Weak::new())
}

/// Loads a file's bytes; calls count as `driver`'s.
pub(crate) fn load_for(file: &[u8], driver: &Weak<Driver>) -> Result<Image, LoadError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path: PathBuf = folder.path().join("test.sys");
    std::fs::write(&path, file)?;
    Image::load(&path, &Resolver::default(), driver)
}

/// A function of a test image.
pub(crate) fn function<F: Copy>(image: &Image, name: &str) -> F {
    let address = image.export(name).expect("the test image exports the name");
    assert_eq!(size_of::<F>(), size_of::<usize>());
    // SAFETY: the test names the function's type; see code.rs.
    unsafe { std::mem::transmute_copy::<usize, F>(&address) }
}

/// The test image, loaded for the bench's driver.
pub(crate) fn load_on(bench: &crate::ddi::testing::Bench) -> Image {
    load_for(&driver_file(), &Arc::downgrade(bench.driver())).expect("the test image is good")
}
