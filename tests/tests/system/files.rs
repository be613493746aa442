//! Opening, querying, reading and closing a firmware file.

use fwbroker_tests::{Bench, Refused};
use nt_types::NtStatus;
use protocol::{ObjectKind, Reason};

#[test]
fn a_file_is_read_back_byte_for_byte_in_pieces_of_any_size() {
    let bench = Bench::start();
    let content: Vec<u8> = (0..200_003u32).map(|at| ((at * 31) >> 3) as u8).collect();
    let path = bench.write_firmware("nic.rom", &content);
    let client = bench.client();
    let open = client.open(&path).unwrap();
    assert_eq!(open.size, content.len() as u64);
    for piece in [4093, 65_536, 200_003, protocol::MAX_READ_BYTES] {
        assert_eq!(client.read_all(open.handle, piece), content, "{piece}");
    }
    client.close(open.handle).unwrap();
    drop(client);
    bench.finish();
}

#[test]
fn a_read_that_crosses_the_end_is_short_and_one_behind_it_says_end_of_file() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", b"0123456789");
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    assert_eq!(client.read(handle, 8, 100).unwrap(), b"89");
    for offset in [10, 11, 1 << 40] {
        assert_eq!(
            client.read(handle, offset, 1),
            Err(Refused::with(NtStatus::END_OF_FILE, Reason::EndOfFile)),
            "{offset}"
        );
    }
    drop(client);
    bench.finish();
}

#[test]
fn query_tells_the_facts_of_the_open_file() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", b"0123456789");
    let other = bench.write_firmware("other.rom", b"0123456789");
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    let facts = client.query(handle).unwrap();
    assert_eq!(facts.size, 10);
    assert_eq!(facts.kind, ObjectKind::File.code());
    assert_eq!(facts.number_of_links, 1);
    assert_ne!(facts.change_time, 0);
    let other = client.query(client.open(&other).unwrap().handle).unwrap();
    assert_ne!(facts.file_id, other.file_id);
    assert_eq!(facts.volume_serial, other.volume_serial);
    drop(client);
    bench.finish();
}

#[test]
fn names_are_compared_without_case_and_every_spelling_of_the_volume_works() {
    let bench = Bench::start();
    bench.write_firmware("Nic.Rom", b"firmware");
    let client = bench.client();
    for path in [
        r"\??\C:\Windows\Firmware\nic.rom",
        r"\??\c:\WINDOWS\firmware\NIC.ROM",
        r"\DosDevices\C:\Windows\Firmware\Nic.Rom",
        r"\SystemRoot\Firmware\Nic.Rom",
    ] {
        let open = client.open(path).unwrap_or_else(|refused| panic!("{path}: {refused:?}"));
        assert_eq!(client.read(open.handle, 0, 100).unwrap(), b"firmware", "{path}");
    }
    drop(client);
    bench.finish();
}

#[test]
fn two_handles_of_one_file_are_independent() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", b"0123456789");
    let client = bench.client();
    let (one, two) = (client.open(&path).unwrap(), client.open(&path).unwrap());
    assert_ne!(one.handle, two.handle);
    client.close(one.handle).unwrap();
    assert_eq!(client.read(two.handle, 0, 3).unwrap(), b"012");
    drop(client);
    bench.finish();
}

#[test]
fn a_plain_user_cannot_connect() {
    let bench = Bench::start();
    let process = bench.machine().process("user.exe").plain_user().start().unwrap();
    let refused = fwbroker_tests::Client::connect(process).err();
    assert_eq!(refused, Some(NtStatus::ACCESS_DENIED));
    bench.finish();
}

#[test]
fn a_client_reads_only_what_its_own_token_may_read() {
    let bench = Bench::start();
    let path = bench.write_firmware("secret.rom", b"firmware");
    bench.machine().set_audience(&path, kernel_host::Audience::System).unwrap();
    let client = bench.client();
    assert_eq!(client.open(&path), Err(Refused::with(NtStatus::ACCESS_DENIED, Reason::FileAccessDenied)));
    drop(client);
    bench.finish();
}
