//! Everything that can fail fails once: the drivers refuse cleanly, leave nothing, and work again afterwards.
//!
//! Each test sweeps one scenario. While a call below it fails, a request may succeed, and then its answer must be true, or fail with the
//! status that tells what happened: a shortage of memory must not read as "no such file". `KERNEL_HOST_FAULTS`, set to what a report says, runs one broken case alone.

use fwbroker_tests::{Bench, BootReport, Client, Nic, Refused, Source, sha256};
use kernel_host::fault::Site;
use kernel_host::registry::Value;
use kernel_host::{Machine, Sweep, SweepReport, Trial};
use nt_types::NtStatus;
use protocol::{Reason, RevokeScope};

const ROM: &[u8] = b"\x55\xaa firmware that takes a few bytes";

/// Reports what a sweep did; the test fails when a run went wrong, or nothing was tried.
fn check(report: &SweepReport) {
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.exercised, report.sites.len(), "{report}");
    assert!(report.exercised > 0, "nothing was tried");
}

/// Ends the faults; from now on all must work, also what failed before. Unloads everything.
fn recover(trial: &Trial, bench: Bench) {
    trial.end();
    if let Some(finding) = bench.machine().finding() {
        panic!("the machine stopped: {finding}");
    }
    if !bench.is_loaded() {
        bench.load();
    }
    let path = bench.write_firmware("after.rom", ROM);
    let client = bench.client();
    let open = client.open(&path).expect("files can be opened again");
    assert_eq!(client.read(open.handle, 0, 4096).as_deref(), Ok(ROM));
    client.close(open.handle).expect("its handle is open");
    let staged = client.stage(&path, Some(sha256(ROM))).expect("files can be staged again");
    client.unstage(staged.image_id).expect("nobody uses the image");
    assert_eq!(client.list(), Ok(Vec::new()), "nothing is staged any more");
    drop(client);
    bench.finish();
}

/// What came of a request. A refusal has to say what went wrong below.
fn attempt<T>(trial: &Trial, result: Result<T, Refused>) -> Option<T> {
    if let Err(refused) = &result {
        let failed = trial.failed();
        assert!(failed.iter().any(|site| explains(site, refused.status)), "{refused:?} although {failed:?}");
    }
    trial.attempt(result)
}

/// Whether a failure is an honest reason for a refusal with this status.
fn explains(site: &Site, status: NtStatus) -> bool {
    let failure = site.failure.as_str();
    match status {
        NtStatus::ACCESS_VIOLATION => failure.ends_with("vanishes"),
        NtStatus::INSUFFICIENT_RESOURCES => {
            matches!(failure, "NULL" | "half of the pages") || failure.contains("RESOURCES")
        }
        // A root that cannot be read is left out, so that the others can be used; the driver's log says so.
        NtStatus::ACCESS_DENIED => failure.contains("STATUS_IO_DEVICE_ERROR"),
        status => failure.contains(&status.to_string()),
    }
}

/// Opens, queries, reads and closes; what succeeds must be right.
fn use_file(trial: &Trial, client: &Client, path: &str, content: &[u8]) {
    let Some(open) = attempt(trial, client.open(path)) else { return };
    assert_eq!(open.size, content.len() as u64);
    if let Some(facts) = attempt(trial, client.query(open.handle)) {
        assert_eq!(facts.size, content.len() as u64);
    }
    if let Some(data) = attempt(trial, client.read(open.handle, 0, 40_000)) {
        // A read may give less than asked for, and the client asks again.
        assert!(!data.is_empty() && content.starts_with(&data), "{} bytes", data.len());
        let is_short = trial.failed().iter().any(|site| site.failure == "half of the bytes");
        assert!(is_short || data.len() == content.len().min(40_000), "{} bytes", data.len());
    }
    // When it fails, the handle goes with the session.
    let _closed = attempt(trial, client.close(open.handle));
}

/// Stages, lists and takes out again; what succeeds must be right.
fn use_staging(trial: &Trial, client: &Client, path: &str, content: &[u8]) {
    if let Some(staged) = attempt(trial, client.stage(path, Some(sha256(content)))) {
        assert_eq!((staged.size, staged.sha256), (content.len() as u64, sha256(content)));
    }
    let listed = attempt(trial, client.list()).unwrap_or_default();
    for image in &listed {
        assert_eq!(image.sha256, sha256(content));
    }
    if let Some(image) = listed.first() {
        let _unstaged = attempt(trial, client.unstage(image.image_id));
    }
}

/// Lists handles and sessions, and takes the client's own handle away; what succeeds must be right.
fn use_inventory(trial: &Trial, client: &Client, path: &str) {
    let Some(open) = attempt(trial, client.open(path)) else { return };
    // Beside it there may be one that could not be closed before.
    let listed = attempt(trial, client.handles()).unwrap_or_default();
    assert!(listed.len() <= 2 && listed.iter().all(|entry| entry.size == ROM.len() as u64), "{listed:?}");
    if let Some(sessions) = attempt(trial, client.sessions()) {
        assert_eq!(sessions.len(), 1);
        assert!(listed.is_empty() || sessions[0].handles.used as usize == listed.len(), "{sessions:?}");
    }
    let revoked = match &listed[..] {
        [] => return,
        [only] => attempt(trial, client.revoke(RevokeScope::Handle, only.id)),
        [first, ..] => attempt(trial, client.revoke(RevokeScope::Session, first.session_id)),
    };
    assert!(revoked.is_none_or(|reply| (reply.revoked as usize, reply.kept) == (listed.len(), 0)), "{revoked:?}");
    match client.read(open.handle, 0, 1) {
        Ok(_) => assert_eq!(revoked, None, "the handle was revoked"),
        // Also where only the reply was lost on its way.
        Err(Refused { reason: Some(Reason::HandleRevoked), .. }) => {}
        other => drop(attempt(trial, other)),
    }
}

/// An image of several pages, read in several pieces.
fn large() -> Vec<u8> {
    (0..150_001_u32).map(|at| (at * 7).to_le_bytes()[0]).collect()
}

/// Takes out what a scenario has staged and could not take out itself.
fn unstage_all(trial: &Trial, bench: &Bench) {
    trial.end();
    let client = bench.client();
    for image in client.list().expect("lists work again") {
        client.unstage(image.image_id).expect("nobody uses the image");
    }
}

#[test]
fn load_and_unload_survive_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::installed(&[]);
        trial.begin(bench.machine());
        if trial.attempt(bench.load_again()).is_some() {
            let _unloaded = trial.attempt(bench.unload());
        }
        recover(trial, bench);
    }));
}

#[test]
fn settings_that_cannot_be_read_never_become_weaker_ones() {
    check(&Machine::sweep(|trial| {
        let signed = protocol::Policy::Signed.code();
        let settings = [("Policy", Value::dword(signed)), ("MaxImageBytes", Value::dword(4096))];
        let bench = Bench::installed(&settings);
        trial.begin(bench.machine());
        let loaded = trial.attempt(bench.load_again()).is_some();
        trial.end();
        if !loaded {
            bench.load();
        }
        let client = bench.client();
        assert_eq!(client.limits().policy, signed);
        assert_eq!(client.limits().max_image_bytes, 4096);
        let path = bench.write_firmware("large.rom", &large());
        assert_eq!(
            client.open(&path).map(|open| open.size).map_err(|refused| refused.status),
            Err(NtStatus::FILE_TOO_LARGE)
        );
        drop(client);
        bench.finish();
    }));
}

#[test]
fn open_query_read_and_close_survive_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::start();
        let path = bench.write_firmware("nic.rom", &large());
        trial.begin(bench.machine());
        if let Some(client) = trial.attempt(bench.try_client()) {
            use_file(trial, &client, &path, &large());
        }
        trial.end();
        assert!(bench.try_writer(&path).is_ok(), "the file is free again");
        recover(trial, bench);
    }));
}

#[test]
fn stage_list_and_unstage_survive_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::start();
        let path = bench.write_firmware("nic.rom", &large());
        trial.begin(bench.machine());
        if let Some(client) = trial.attempt(bench.try_client()) {
            use_staging(trial, &client, &path, &large());
        }
        unstage_all(trial, &bench);
        recover(trial, bench);
    }));
}

#[test]
fn lists_of_handles_and_revocations_survive_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::with_parameters(&[("AllowUsers", 1)]);
        let path = bench.write_firmware("nic.rom", ROM);
        trial.begin(bench.machine());
        if let Some(client) = trial.attempt(bench.try_client()) {
            use_inventory(trial, &client, &path);
        }
        trial.end();
        assert!(bench.try_writer(&path).is_ok(), "the file is free again");
        recover(trial, bench);
    }));
}

#[test]
fn a_dying_client_is_cleaned_up_after_whatever_fails() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::start();
        let path = bench.write_firmware("nic.rom", ROM);
        let client = bench.client();
        trial.begin(bench.machine());
        for _ in 0..3 {
            let _open = trial.attempt(client.open(&path));
        }
        client.die();
        trial.end();
        assert!(bench.try_writer(&path).is_ok(), "the file is free again");
        recover(trial, bench);
    }));
}

#[test]
fn a_mandatory_unload_with_files_and_images_in_use_survives_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::start();
        let path = bench.write_firmware("nic.rom", ROM);
        let client = bench.client();
        trial.begin(bench.machine());
        let _open = trial.attempt(client.open(&path));
        let _staged = trial.attempt(client.stage(&path, Some(sha256(ROM))));
        bench.unload_mandatory();
        drop(client);
        recover(trial, bench);
    }));
}

#[test]
fn clients_that_stage_one_file_together_survive_every_failing_call_and_any_order() {
    let report = Sweep::new().schedules(100).run(|trial| {
        let bench = Bench::start();
        let content = large();
        let path = bench.write_firmware("nic.rom", &content);
        let clients = [bench.client(), bench.client()];
        trial.begin(bench.machine());
        let stage = |client: &Client| client.stage(&path, Some(sha256(&content)));
        let results = std::thread::scope(|scope| {
            let threads = clients.each_ref().map(|client| scope.spawn(|| stage(client)));
            threads.map(|thread| thread.join().expect("a client does not panic"))
        });
        for staged in results.into_iter().filter_map(|result| trial.attempt(result)) {
            assert_eq!(staged.sha256, sha256(&content));
        }
        unstage_all(trial, &bench);
        drop(clients);
        recover(trial, bench);
    });
    println!("{report}");
    // Who comes first differs from run to run, so that a site can be missed; nothing may break all the same.
    assert!(report.is_clean(), "{report}");
}

/// An option ROM that the NIC takes.
fn rom() -> Vec<u8> {
    let mut rom = vec![0x5a; 4 * 512];
    rom[..3].copy_from_slice(&[0x55, 0xaa, 4]);
    rom[0x18..0x1a].copy_from_slice(&[0x20, 0]);
    rom[0x20..0x24].copy_from_slice(b"PCIR");
    rom
}

/// Puts another good image where `NdisOpenFile` looks: nothing that fails in the broker may lead there.
fn write_decoy(bench: &Bench) {
    let mut decoy = rom();
    decoy[0x100] = 0xdd;
    bench.write_file("Windows/System32/drivers/8086100e.rom", &decoy);
}

/// Plugs the NIC in and out while calls fail, and again when none does.
fn boot(trial: &Trial, bench: &Bench, content: &[u8], source: Source) {
    trial.begin(bench.machine());
    if let Some(nic) = trial.attempt(Nic::try_add(bench, "8086100e.rom")) {
        if let Some(report) = trial.attempt(nic.try_boot_report()) {
            assert_eq!((report.bytes, report.sha256), (content.len() as u64, sha256(content)));
        }
        nic.remove();
    }
    trial.end();
    if let Some(finding) = bench.machine().finding() {
        panic!("the machine stopped: {finding}");
    }
    let nic = Nic::try_add(bench, "8086100e.rom").expect("the NIC starts");
    assert_eq!(nic.boot_report(), BootReport::of(content, source));
    nic.remove();
}

#[test]
fn a_nic_boot_through_the_broker_survives_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::start();
        bench.install_nic_driver();
        let content = rom();
        let path = bench.write_firmware("8086100e.rom", &content);
        bench.client().stage(&path, Some(sha256(&content))).expect("nothing fails yet");
        write_decoy(&bench);
        boot(trial, &bench, &content, Source::Broker);
        unstage_all(trial, &bench);
        recover(trial, bench);
    }));
}

#[test]
fn a_nic_boot_from_an_image_found_on_demand_survives_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::with_parameters(&[("Policy", protocol::Policy::Unsigned.code())]);
        bench.install_nic_driver();
        let content = rom();
        bench.write_firmware("8086100e.rom", &content);
        write_decoy(&bench);
        boot(trial, &bench, &content, Source::Broker);
        unstage_all(trial, &bench);
        recover(trial, bench);
    }));
}

#[test]
fn a_nic_boot_through_ndis_survives_every_failing_call() {
    check(&Machine::sweep(|trial| {
        let bench = Bench::without_broker();
        bench.install_nic_driver();
        let content = rom();
        bench.write_file("Windows/System32/drivers/8086100e.rom", &content);
        boot(trial, &bench, &content, Source::NdisOpenFile);
        bench.finish_unloaded();
    }));
}

#[test]
fn two_failures_in_one_session_are_survived_too() {
    check(&Sweep::new().pairs(200).run(|trial| {
        let bench = Bench::installed(&[]);
        let path = bench.write_firmware("nic.rom", ROM);
        trial.begin(bench.machine());
        if trial.attempt(bench.load_again()).is_some() {
            if let Some(client) = trial.attempt(bench.try_client()) {
                use_file(trial, &client, &path, ROM);
                use_inventory(trial, &client, &path);
                use_staging(trial, &client, &path, ROM);
            }
            let _unloaded = trial.attempt(bench.unload());
        }
        trial.end();
        if bench.is_loaded() {
            unstage_all(trial, &bench);
        }
        recover(trial, bench);
    }));
}
