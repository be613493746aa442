//! Descriptors taken apart and merged, tokens copied.

use nt_types::{HANDLE, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags};

use crate::conformance::conforms;
use crate::ddi::Call;
use crate::ddi::testing::Bench;
use crate::machine::Machine;
use crate::nt::ob_exports::{close, make_handle};
use crate::nt::raw::Raw;
use crate::nt::security::descriptor::{Descriptor, rtl_get_sacl_security_descriptor};
use crate::nt::security::duplicate::{zw_allocate_locally_unique_id, zw_duplicate_token, zw_set_information_thread};
use crate::nt::security::object::{DACL, GROUP, OWNER, zw_query_security_object, zw_set_security_object};
use crate::nt::security::relative::{
    rtl_self_relative_to_absolute_sd, rtl_valid_relative_security_descriptor, se_query_security_descriptor_info,
    se_set_security_descriptor_info_ex, se_valid_security_descriptor,
};
use crate::nt::security::sid::Sid;
use crate::nt::security::token::TokenBody;

fn example() -> Vec<u8> {
    Descriptor::open_to_world(1).bytes()
}

#[test]
fn a_relative_descriptor_is_checked_to_its_last_entry() {
    conforms!(
        "wdm/nf-wdm-rtlvalidrelativesecuritydescriptor.md",
        "TRUE is for a sound descriptor that has the parts required."
    );
    conforms!("wdm/nf-wdm-sevalidsecuritydescriptor.md", "Parts that do not fit into the length make it invalid.");
    Bench::new()
        .run(|| {
            let mut bytes = example();
            let (at, length) = (Raw::of(bytes.as_mut_ptr()), bytes.len() as u32);
            let valid = |length, required| rtl_valid_relative_security_descriptor(at, length, required);
            assert_eq!([valid(length, OWNER | GROUP | DACL), valid(length, 8), valid(length - 1, 0)], [1, 0, 0]);
            assert_eq!([se_valid_security_descriptor(length, at), se_valid_security_descriptor(19, at)], [1, 0]);
            // The owner's offset, odd.
            at.field::<u32>(4).write(21);
            assert_eq!(se_valid_security_descriptor(length, at), 0);
            let (mut present, mut list, mut defaulted) = (9_u8, 9_usize, 9_u8);
            let (present, list) = (Raw::of(&raw mut present), Raw::of(&raw mut list));
            let status = rtl_get_sacl_security_descriptor(at, present, list, Raw::of(&raw mut defaulted));
            assert_eq!((status, present.read(), list.read()), (NtStatus::SUCCESS, 0, 9));
        })
        .unwrap();
}

#[test]
fn an_absolute_copy_says_what_it_needs_and_has_the_same_parts() {
    conforms!(
        "ntifs/nf-ntifs-rtlselfrelativetoabsolutesd.md",
        "A buffer that is too small is STATUS_BUFFER_TOO_SMALL, and the sizes needed are returned."
    );
    Bench::new()
        .run(|| {
            let mut bytes = example();
            let from = Raw::of(bytes.as_mut_ptr());
            let mut buffers = [[0_u64; 32]; 5];
            let mut sizes = [0_u32; 5];
            let at = buffers.each_mut().map(|buffer| Raw::of(buffer.as_mut_ptr().cast::<u8>()));
            let size = sizes.each_mut().map(|size| Raw::of(std::ptr::from_mut(size)));
            let copy = || {
                rtl_self_relative_to_absolute_sd(
                    from, at[0], size[0], at[1], size[1], at[2], size[2], at[3], size[3], at[4], size[4],
                )
            };
            assert_eq!(copy(), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!((size[0].read(), size[2].read()), (40, 0));
            assert_eq!(copy(), NtStatus::SUCCESS);
            assert_eq!(Descriptor::read(at[0]), Descriptor::read(from));
            assert_eq!(
                rtl_self_relative_to_absolute_sd(
                    at[0], at[0], size[0], at[1], size[1], at[2], size[2], at[3], size[3], at[4], size[4],
                ),
                crate::nt::security::descriptor::BAD_FORMAT
            );
        })
        .unwrap();
}

#[test]
fn a_driver_s_own_object_has_its_descriptor_queried_and_replaced() {
    conforms!(
        "ntifs/nf-ntifs-sesetsecuritydescriptorinfo.md",
        "An object without a descriptor is STATUS_NO_SECURITY_ON_OBJECT; the caller frees what it gets."
    );
    conforms!("ntifs/nf-ntifs-sequerysecuritydescriptorinfo.md", "Only the parts asked for are returned.");
    Bench::new()
        .run(|| {
            let (mut old, mut new) = (example(), Descriptor::default());
            new.owner = Some(Sid::local_system());
            let mut new = new.bytes();
            let mut object = 0_usize;
            let (object, mut information) = (Raw::of(&raw mut object), OWNER);
            let information = Raw::of(&raw mut information);
            let new = Raw::of(new.as_mut_ptr());
            let set = || se_set_security_descriptor_info_ex(0, information, new, object, 0, 1, 0);
            assert_eq!(set(), NtStatus::NO_SECURITY_ON_OBJECT);
            object.write(old.as_mut_ptr().expose_provenance());
            assert_eq!(set(), NtStatus::SUCCESS);
            let merged = Descriptor::read(Raw::at(object.read())).unwrap();
            let before = Descriptor::read(Raw::of(old.as_mut_ptr())).unwrap();
            assert_eq!((merged.owner, merged.dacl), (Some(Sid::local_system()), before.dacl));
            let (mut answer, mut length) = ([0_u64; 16], 4_u32);
            let (answer, length) = (Raw::of(answer.as_mut_ptr().cast::<u8>()), Raw::of(&raw mut length));
            assert_eq!(
                se_query_security_descriptor_info(information, answer, length, object),
                NtStatus::BUFFER_TOO_SMALL
            );
            assert_eq!(se_query_security_descriptor_info(information, answer, length, object), NtStatus::SUCCESS);
            let seen = Descriptor::read(answer).unwrap();
            assert_eq!((seen.owner, seen.group), (Some(Sid::local_system()), None));
            let call = Call::enter();
            call.machine().nt.pool().free(&call, object.read(), 0);
        })
        .unwrap();
}

#[test]
fn a_copied_token_has_the_level_asked_for_and_never_a_higher_one() {
    conforms!(
        "ntifs/nf-ntifs-zwduplicatetoken.md",
        "A level above the existing token's is STATUS_BAD_IMPERSONATION_LEVEL; without one, it is the existing token's."
    );
    conforms!(
        "ntddk/nf-ntddk-zwsetinformationthread.md",
        "A length that is not the class's is STATUS_INFO_LENGTH_MISMATCH, a wrong value STATUS_INVALID_PARAMETER."
    );
    let bench = Bench::new();
    let program = bench.machine().process("p.exe").start().unwrap();
    bench
        .run(|| {
            let call = Call::enter();
            let token = crate::nt::security::token::primary(call.machine(), &program).unwrap();
            let flags = ObjectFlags::KERNEL_HANDLE;
            let as_handle = |handle: usize| -> HANDLE { std::ptr::without_provenance_mut(handle) };
            let first = as_handle(make_handle(&call, &token, 0xF_01FF, flags.bits()));
            let duplicate = |from, level: Option<u32>, kind| {
                let mut quality = [0_u32, level.unwrap_or(0), 0];
                let mut attributes = OBJECT_ATTRIBUTES::new(std::ptr::null_mut(), flags);
                if level.is_some() {
                    attributes.SecurityQualityOfService = quality.as_mut_ptr().cast();
                }
                let mut handle = 0_usize;
                let out = Raw::of(&raw mut handle);
                zw_duplicate_token(from, 0, Raw::of(&raw mut attributes), 0, kind, out).ok()?;
                Ok(as_handle(out.read()))
            };
            let body = |handle: HANDLE| {
                let entry = crate::nt::ob_exports::open_entry(&call, handle.addr(), 0, None, KERNEL_MODE).unwrap();
                entry.object.payload::<TokenBody>().unwrap()
            };
            let looks: HANDLE = duplicate(first, Some(1), 2).unwrap();
            assert_eq!(body(looks).level(), Some(1));
            assert_eq!(duplicate(looks, Some(2), 2), Err(NtStatus::BAD_IMPERSONATION_LEVEL));
            assert_eq!(duplicate(looks, None, 1), Err(NtStatus::BAD_IMPERSONATION_LEVEL));
            let same = duplicate(looks, None, 2).unwrap();
            assert_eq!(body(same).level(), Some(1));
            assert_eq!(duplicate(first, None, 7), Err(NtStatus::INVALID_PARAMETER));
            let mut value = same.addr();
            let value = Raw::of(&raw mut value);
            let thread = as_handle(usize::MAX - 1);
            let set = |class, length| zw_set_information_thread(thread, class, value.cast(), length);
            assert_eq!(set(5, 4), NtStatus::INFO_LENGTH_MISMATCH);
            assert_eq!(set(5, 8), NtStatus::SUCCESS);
            assert_eq!(call.thread().impersonation().map(|client| client.level), Some(1));
            value.write(0);
            assert_eq!(set(5, 8), NtStatus::SUCCESS);
            assert_eq!((set(2, 4), set(999, 4)), (NtStatus::INVALID_PARAMETER, NtStatus::INVALID_INFO_CLASS));
            let mut luids = [0_u64; 2];
            let [one, two] = luids.each_mut().map(|luid| Raw::of(std::ptr::from_mut(luid)));
            assert!(zw_allocate_locally_unique_id(one).is_success() && zw_allocate_locally_unique_id(two).is_success());
            assert_ne!(one.read(), two.read());
            for handle in [first, looks, same] {
                assert!(close(&call, handle.addr(), KERNEL_MODE).is_success());
            }
        })
        .unwrap();
}

#[test]
fn a_file_s_descriptor_is_the_file_system_s() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"x").unwrap();
    let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
    let inner = bench.machine().inner();
    let handle = inner.nt.system_process(inner).open(r"\??\C:\file", 0xF_01FF).unwrap();
    let handle: HANDLE = std::ptr::without_provenance_mut(handle);
    bench
        .run(|| {
            let mut new = Descriptor { owner: Some(Sid::local_system()), ..Descriptor::default() }.bytes();
            assert_eq!(zw_set_security_object(handle, OWNER, Raw::of(new.as_mut_ptr())), NtStatus::SUCCESS);
            let (mut answer, mut needed) = ([0_u64; 16], 0_u32);
            let (answer, needed) = (Raw::of(answer.as_mut_ptr().cast::<u8>()), Raw::of(&raw mut needed));
            assert_eq!(zw_query_security_object(handle, OWNER, answer, 4, needed), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(zw_query_security_object(handle, OWNER, answer, needed.read(), needed), NtStatus::SUCCESS);
            assert_eq!(Descriptor::read(answer).unwrap().owner, Some(Sid::local_system()));
            assert!(close(&Call::enter(), handle.addr(), KERNEL_MODE).is_success());
        })
        .unwrap();
}
