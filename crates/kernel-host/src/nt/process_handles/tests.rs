use nt_types::UNICODE_STRING;

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::nt::ob_exports::close;
use crate::nt::unicode;
use crate::process::Token;
use crate::thread::Thread;

fn id(number: usize) -> HANDLE {
    std::ptr::without_provenance_mut(number)
}

/// A kernel handle to a process: status, handle.
fn open_by_id(process: u64, thread: u32, attributes: &OBJECT_ATTRIBUTES) -> Result<HANDLE, NtStatus> {
    let mut client = CLIENT_ID { UniqueProcess: id(process as usize), UniqueThread: id(thread as usize) };
    let mut handle = 0_usize;
    let out = Raw::of(&raw mut handle);
    let attributes = Raw::of(std::ptr::from_ref(attributes).cast_mut());
    zw_open_process(out, 0x1F_FFFF, attributes, Raw::of(&raw mut client)).ok()?;
    Ok(id(out.read()))
}

fn attributes() -> OBJECT_ATTRIBUTES {
    OBJECT_ATTRIBUTES::new(std::ptr::null_mut(), ObjectFlags::KERNEL_HANDLE)
}

#[test]
fn a_process_is_opened_by_its_id_and_nothing_else() {
    conforms!(
        "ntddk/nf-ntddk-zwopenprocess.md",
        "A name, or no client id, is STATUS_INVALID_PARAMETER_MIX; an id that is none is STATUS_INVALID_CID."
    );
    let bench = Bench::new();
    let program = bench.machine().process("p.exe").start().unwrap();
    bench
        .run(|| {
            let attributes = attributes();
            let by_process = open_by_id(program.id(), 0, &attributes).unwrap();
            let by_thread = open_by_id(0, program.first_thread_id(), &attributes).unwrap();
            assert_eq!(open_by_id(4, program.first_thread_id(), &attributes), Err(NtStatus::INVALID_CID));
            assert_eq!(open_by_id(0x7FFF_0000, 0, &attributes), Err(NtStatus::INVALID_CID));
            let mut name = UNICODE_STRING::from_utf16(&[]).unwrap();
            let named = OBJECT_ATTRIBUTES::new(&raw mut name, ObjectFlags::KERNEL_HANDLE);
            assert_eq!(open_by_id(program.id(), 0, &named), Err(NtStatus::INVALID_PARAMETER_MIX));
            let call = Call::enter();
            for handle in [by_process, by_thread] {
                assert_eq!(process_of_handle(&call, handle).unwrap().id(), program.id());
                assert!(close(&call, handle.addr(), KERNEL_MODE).is_success());
            }
        })
        .unwrap();
}

#[test]
fn the_nt_form_looks_at_the_program_s_rights() {
    conforms!(
        "ntddk/nf-ntddk-ntopenprocess.md",
        "The Nt form works with the previous mode of the thread: rights that the caller may not have are denied."
    );
    let bench = Bench::new();
    let user = bench.machine().process("user.exe").plain_user().start().unwrap();
    let service = bench.machine().process("service.exe").token(Token::System).start().unwrap();
    bench
        .run(|| {
            let attributes = attributes();
            Thread::current().set_process(Some(user.clone()));
            let mut client = CLIENT_ID { UniqueProcess: id(service.id() as usize), UniqueThread: id(0) };
            let mut handle = 0_usize;
            let (out, client) = (Raw::of(&raw mut handle), Raw::of(&raw mut client));
            let at = Raw::of((&raw const attributes).cast_mut());
            assert_eq!(nt_open_process(out, 0x1F_FFFF, at, client), NtStatus::ACCESS_DENIED);
            assert_eq!(nt_open_process(out, 0x1000, at, client), NtStatus::SUCCESS);
            let call = Call::enter();
            assert!(close(&call, out.read(), KERNEL_MODE).is_success());
            assert!(zw_open_process(out, 0x1F_FFFF, at, client).is_success());
            assert!(close(&call, out.read(), KERNEL_MODE).is_success());
            Thread::current().set_process(None);
        })
        .unwrap();
}

#[test]
fn a_terminated_process_has_its_status_and_its_end() {
    conforms!(
        "ntddk/nf-ntddk-zwterminateprocess.md",
        "A process that terminates already is STATUS_PROCESS_IS_TERMINATING; its exit status is the one given."
    );
    let bench = Bench::new();
    let program = bench.machine().process("p.exe").start().unwrap();
    bench
        .run(|| {
            let handle = open_by_id(program.id(), 0, &attributes()).unwrap();
            assert!(zw_terminate_process(handle, NtStatus::UNSUCCESSFUL).is_success());
            assert_eq!(zw_terminate_process(handle, NtStatus::UNSUCCESSFUL), NtStatus::PROCESS_IS_TERMINATING);
            assert_eq!(open_by_id(program.id(), 0, &attributes()), Err(NtStatus::INVALID_CID));
            let (mut basic, mut length) = ([0_u64; 6], 0_u32);
            let (buffer, returned) = (Raw::of(basic.as_mut_ptr()), Raw::of(&raw mut length));
            let query = |class, length| zw_query_information_process(handle, class, buffer.cast(), length, returned);
            assert_eq!(query(class::BASIC, 47), NtStatus::INFO_LENGTH_MISMATCH);
            assert_eq!((query(class::BASIC, 48), returned.read()), (NtStatus::SUCCESS, 48));
            let numbers = buffer.read_slice(6);
            assert_eq!((numbers[0] as u32, numbers[4], numbers[5]), (0xC000_0001, program.id(), 4));
            assert_eq!(query(class::TIMES, 32), NtStatus::SUCCESS);
            let times = buffer.read_slice(2);
            assert!(times[1] >= times[0] && times[0] != 0);
            close(&Call::enter(), handle.addr(), KERNEL_MODE).ok()
        })
        .unwrap()
        .unwrap();
    assert_eq!(
        bench.run(|| zw_terminate_process(id(usize::MAX), NtStatus::SUCCESS)).unwrap_err().0.rule,
        Rule::BugCheck
    );
}

#[test]
fn a_process_s_image_name_is_a_string_with_its_characters_behind_it() {
    let bench = Bench::new();
    let program = bench.machine().process("p.exe").start().unwrap();
    bench
        .run(|| {
            let handle = open_by_id(program.id(), 0, &attributes()).unwrap();
            let (mut buffer, mut length) = ([0_u64; 64], 0_u32);
            let (buffer, returned) = (Raw::of(buffer.as_mut_ptr().cast::<u8>()), Raw::of(&raw mut length));
            let query = |length| zw_query_information_process(handle, class::IMAGE_FILE_NAME, buffer, length, returned);
            assert_eq!(query(16), NtStatus::INFO_LENGTH_MISMATCH);
            let needed = returned.read();
            assert_eq!(needed as usize, 16 + 2 * program.image_path().len() + 2);
            assert_eq!(query(needed), NtStatus::SUCCESS);
            assert_eq!(unicode::name(buffer.cast()).as_deref(), Ok(program.image_path()));
            let unknown = zw_query_information_process(handle, 999, buffer, 8, returned);
            assert_eq!(unknown, NtStatus::INVALID_INFO_CLASS);
            close(&Call::enter(), handle.addr(), KERNEL_MODE).ok()
        })
        .unwrap()
        .unwrap();
}

#[test]
fn programs_open_read_and_end_one_another_as_far_as_their_rights_go() {
    let bench = Bench::new();
    let start = |name, token| bench.machine().process(name).token(token).start().unwrap();
    let (one, two) = (start("one.exe", Token::Administrator), start("two.exe", Token::User));
    assert_eq!(two.open_process(one.id(), 1), Err(NtStatus::ACCESS_DENIED));
    // GENERIC_ALL.
    assert_eq!(two.open_process(one.id(), 0x1000_0000), Err(NtStatus::ACCESS_DENIED));
    assert!(two.open_process(one.id(), 0x1000).is_ok());
    assert_eq!(one.open_process(0x7FFF_0000, 1), Err(NtStatus::INVALID_CID));
    let reads = one.open_process(two.id(), 0x10).unwrap();
    let text = two.buffer(b"text").unwrap();
    assert_eq!(one.read_memory_of(reads, text.address(), 4), Ok(b"text".to_vec()));
    assert_eq!(one.write_memory_of(reads, text.address(), b"X"), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(one.terminate_process(reads, NtStatus::SUCCESS), Err(NtStatus::ACCESS_DENIED));
    let ends = one.open_process(two.id(), 0x0200_0000).unwrap();
    assert_eq!(one.granted_access(ends), Ok(0x1F_FFFF));
    assert_eq!(one.terminate_process(ends, NtStatus::SUCCESS), Ok(()));
    assert!(two.has_exited());
}
