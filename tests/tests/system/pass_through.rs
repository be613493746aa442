//! passthru.sys: the sample that a minifilter can be started from.

use fwbroker_tests::Bench;
use kernel_host::OpenOptions;
use nt_types::NtStatus;

#[test]
fn the_sample_counts_what_passes_and_changes_nothing() {
    let bench = Bench::without_broker();
    bench.install_from_package("passthru.sys");
    bench.machine().load_driver("PassThru").unwrap();
    bench.write_file("Windows/a.txt", b"0123456789");

    let program = bench.administrator();
    let file = program.create_file(r"\??\C:\Windows\a.txt", &OpenOptions::new().write()).unwrap();
    assert_eq!(file.read(2, 4).unwrap(), b"2345");
    file.write(0, b"ab").unwrap();
    let missing = program.create_file(r"\??\C:\Windows\b.txt", &OpenOptions::new());
    assert_eq!(missing.unwrap_err(), NtStatus::OBJECT_NAME_NOT_FOUND);
    drop(file);

    let report = bench.machine().unload_driver("PassThru", false).unwrap();
    assert!(report.is_clean(), "{report}");
    let log = bench.machine().debug_log();
    assert_eq!(log, ["passthru.sys: passthru: unloaded after 4 operations, 1 of them failed; 6 bytes"]);
    bench.finish_unloaded();
}

#[test]
fn a_filter_without_an_instance_in_the_registry_does_not_start_and_leaves_nothing() {
    let bench = Bench::without_broker();
    bench.install_from_package("passthru.sys");
    let services = bench.machine().registry().open(r"\Registry\Machine\System\CurrentControlSet\Services").unwrap();
    let instances = services.open(r"PassThru\Parameters\Instances").unwrap();
    instances.delete("PassThru Instance").unwrap();
    bench.machine().load_driver("PassThru").unwrap_err();
    bench.finish_unloaded();
}
