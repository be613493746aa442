use super::testing::{OPTIONAL_HEADER, SECTION_HEADERS, driver_file, function, load};
use super::*;

fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut file = driver_file();
    change(&mut file);
    load(&file).map(|_| ()).unwrap_err().to_string()
}

fn put32(file: &mut [u8], at: usize, value: u32) {
    file[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn a_good_image_is_mapped_relocated_and_found_by_address() {
    let image = load(&driver_file()).unwrap();
    let base = image.module().base();
    assert_eq!(image.entry(), base + 0x1000);
    assert!(base > crate::process::HIGHEST_USER_ADDRESS);
    let word = |offset: usize| crate::cpu::memory::try_read_u64((base + offset) as u64);
    assert_eq!(word(0x3008), Some((base + 0x3000) as u64), "relocated");
    let cookie = word(0x3000).unwrap();
    assert_ne!(cookie, 0x2B99_2DDF_A232, "a fresh stack cookie");
    assert_eq!(cookie >> 48, 0);
    assert!(is_driver_address(image.entry()));
    assert_eq!(find(base + 1).unwrap().name(), "test.sys");
    let module = Arc::clone(image.module());
    drop(image);
    // The range is free: a test beside this one may have an image of its own there by now.
    assert!(find(base).is_none_or(|found| !Arc::ptr_eq(&found, &module)));
}

#[test]
fn pages_get_their_sections_protection() {
    crate::cpu::install_handlers();
    let image = load(&driver_file()).unwrap();
    let base = image.module().base();
    let writable = |offset: usize| {
        // SAFETY: writes a zero over data of the test image that nothing reads.
        let missing = unsafe { crate::cpu::memory::try_copy((base + offset) as *mut u8, [0].as_ptr(), 1) };
        missing == 0
    };
    assert!(!writable(0x10), "headers");
    assert!(!writable(0x1FF0), "code");
    assert!(!writable(0x2FF0), "read-only data");
    assert!(writable(0x3FF0), "data");
}

#[test]
fn an_unloaded_image_keeps_its_range_without_memory() {
    crate::cpu::install_handlers();
    let image = load(&driver_file()).unwrap();
    let base = image.module().base();
    image.unload();
    assert_eq!(crate::cpu::memory::try_read_u64((base + 0x1000) as u64), None);
    assert!(find(base).unwrap().is_unloaded());
}

#[test]
fn images_that_no_driver_loader_takes_are_refused_with_the_reason() {
    assert!(refusal(|file| put32(file, 0x84, 0x0004_AA64)).contains("ARM64"));
    assert!(refusal(|file| put32(file, 0x84, 0x0004_014C)).contains("x64"));
    assert!(refusal(|file| put32(file, OPTIONAL_HEADER + 112 + 9 * 8, 0x2000)).contains("thread-local"));
    assert!(refusal(|file| put32(file, SECTION_HEADERS + 36, 0xE000_0020)).contains("writable and executable"));
    assert!(refusal(|file| put32(file, OPTIONAL_HEADER + 16, 0x3000)).contains("entry point"));
    assert!(refusal(|file| put32(file, SECTION_HEADERS + 40 + 12, 0x1000)).contains("overlap"));
    assert!(refusal(|file| put32(file, OPTIONAL_HEADER + 56, 0)).contains("SizeOfImage"));
    assert!(refusal(|file| put32(file, 0x4000, 0x7000_0000)).contains("relocation"));
    assert!(refusal(|file| file.truncate(0x3800)).contains("outside of the file"));
    assert!(refusal(|file| file.truncate(0x60)).contains("malformed"));
}

#[test]
fn missing_imports_are_listed_all_at_once() {
    let rename = |file: &mut Vec<u8>, from: &[u8], to: &[u8]| {
        let at = file.windows(from.len()).position(|window| window == from).unwrap();
        file[at..at + to.len()].copy_from_slice(to);
    };
    let text = refusal(|file| {
        rename(file, b"memmove\0", b"memmmmm");
        rename(file, b"KernelHostTestRaise", b"KernelHostTestRaisX");
    });
    assert!(text.contains("ntoskrnl.exe!memmmmm, ntoskrnl.exe!KernelHostTestRaisX"), "{text}");
}

#[test]
fn an_import_by_ordinal_is_refused() {
    let image = load(&driver_file()).unwrap();
    drop(image);
    let text = refusal(|file| {
        // The first import's name table entry is the first quad whose value is the address of the string.
        let at = file.windows(8).position(|window| window == b"memmove\0").unwrap() - 2;
        let rva = (at as u64).to_le_bytes();
        let entry = file.windows(8).position(|window| window == rva).unwrap();
        file[entry..entry + 8].copy_from_slice(&0x8000_0000_0000_0007_u64.to_le_bytes());
    });
    assert!(text.contains("ordinal 7"), "{text}");
}

#[test]
fn import_slots_need_no_alignment() {
    let mut file = driver_file();
    let directory = u32::from_le_bytes(file[OPTIONAL_HEADER + 120..][..4].try_into().unwrap()) as usize;
    // FirstThunk of the first descriptor: the table is where it was, and the slots begin four bytes later.
    let slots = u32::from_le_bytes(file[directory + 16..][..4].try_into().unwrap());
    put32(&mut file, directory + 16, slots + 4);
    let image = load(&file).unwrap();
    // SAFETY: the image's own read-only data, of any alignment.
    let slot = unsafe { std::ptr::read_unaligned((image.module().base() + slots as usize + 4) as *const u64) };
    assert_ne!(slot, 0, "the import is bound where the image wants it");
}

#[test]
fn damaged_files_never_crash_the_loader() {
    let good = driver_file();
    // Every header byte, and a sample of the tables, with a few values each.
    let places = (0x3C..SECTION_HEADERS + 160).chain((0x2000..0x2600).step_by(3)).chain(0x4000..0x4020);
    for at in places {
        for value in [0x00, 0x7F, 0xFF] {
            let mut file = good.clone();
            file[at] = value;
            let _ = load(&file);
        }
    }
}

#[test]
fn functions_are_found_by_address() {
    let image = load(&driver_file()).unwrap();
    let call: usize = function(&image, "call");
    let module = image.module();
    let offset = (call - module.base()) as u32;
    assert_eq!(module.function_at(offset + 4).unwrap().0.begin, offset);
    assert!(module.function_at(0x1000).is_none(), "a leaf function has no entry");
}

#[test]
fn an_image_without_relocations_is_refused_with_what_its_linker_needs() {
    let text = refusal(|file| {
        put32(file, OPTIONAL_HEADER + 112 + 5 * 8, 0);
        put32(file, OPTIONAL_HEADER + 116 + 5 * 8, 0);
        file[0x96] |= 1; // IMAGE_FILE_RELOCS_STRIPPED
    });
    assert!(text.contains("--dynamicbase"), "{text}");
}
