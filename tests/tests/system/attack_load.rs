//! A driver that finds its names taken does not start, and leaves what is there alone.

use fwbroker_tests::{Bench, sha256};
use nt_types::NtStatus;

#[test]
fn a_second_service_with_the_same_driver_does_not_start() {
    let bench = Bench::start();
    let content = b"\x55\xaa firmware";
    let path = bench.write_firmware("nic.rom", content);
    let client = bench.client();
    let staged = client.stage(&path, Some(sha256(content))).unwrap();
    for _ in 0..3 {
        assert_eq!(bench.load_twin(), Err(NtStatus::OBJECT_NAME_COLLISION), "the device's name is taken");
    }
    assert_eq!(client.list().unwrap()[0].image_id, staged.image_id, "the first one goes on");
    drop(client);
    bench.finish();
}
