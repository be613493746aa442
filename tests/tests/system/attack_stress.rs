//! Everybody at once.

use std::time::{Duration, Instant};

use fwbroker_tests::consumer::{Consumer, DISPATCH, PASSIVE};
use fwbroker_tests::{Bench, Nic, sha256};
use protocol::Policy;

const FILES: u8 = 4;
const TIME: Duration = Duration::from_secs(2);

/// A ROM that samplenic.sys boots, each with its own bytes.
fn rom(number: u8) -> Vec<u8> {
    let mut rom = vec![number; 40 * 512];
    rom[..3].copy_from_slice(&[0x55, 0xaa, 40]);
    rom[0x18..0x1a].copy_from_slice(&[0x20, 0]);
    rom[0x20..0x24].copy_from_slice(b"PCIR");
    rom
}

/// One client's life after the other: what it does depends on its number, how it ends too.
fn clients(bench: &Bench, paths: &[String], until: Instant, thread: usize) {
    let mut round = thread;
    while Instant::now() < until {
        let client = bench.client();
        for step in 0..6 {
            round += 1;
            let path = &paths[round % paths.len()];
            let content = rom((round % paths.len()) as u8);
            match (round + step) % 5 {
                0 | 1 => {
                    let open = client.open(path).expect("files stay as they are");
                    assert_eq!(client.read(open.handle, 0, 64).unwrap(), content[..64]);
                    if step % 2 == 0 {
                        client.close(open.handle).unwrap();
                    }
                }
                2 => {
                    let staged = client.stage(path, Some(sha256(&content))).expect("nothing is in its way");
                    assert_eq!(staged.sha256, sha256(&content));
                }
                3 => {
                    for listed in client.list().unwrap() {
                        // Somebody else may have been faster, or a NIC has it.
                        let _ = client.unstage(listed.image_id);
                    }
                }
                _ => assert!(client.query(round as u64).is_err()),
            }
        }
        if round.is_multiple_of(3) {
            client.die();
        }
    }
}

#[test]
fn clients_and_nics_come_and_go_at_once() {
    let bench = Bench::with_parameters(&[("Policy", Policy::Unsigned.code())]);
    let contents: Vec<Vec<u8>> = (0..FILES).map(rom).collect();
    let paths: Vec<String> =
        contents.iter().zip(0..).map(|(rom, number)| bench.write_firmware(&format!("{number}.rom"), rom)).collect();
    let until = Instant::now() + TIME;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (bench, paths) = (&bench, &paths);
            scope.spawn(move || clients(bench, paths, until, thread));
        }
        scope.spawn(|| {
            let mut round = 0;
            while Instant::now() < until {
                round = (round + 1) % FILES;
                let nic = Nic::add(&bench, &format!("{round}.rom")).expect("the file is there, staged or not");
                assert_eq!(nic.boot_report().sha256, sha256(&contents[usize::from(round)]));
                nic.remove();
            }
        });
        scope.spawn(|| {
            let mut round = 0;
            while Instant::now() < until {
                round = (round + 1) % FILES;
                let consumer = Consumer::new(&bench, "stress");
                let image = consumer.open(&format!("{round}.rom")).expect("the file is there, staged or not");
                consumer.map(image.Handle, DISPATCH).expect("an open handle");
                assert_eq!(consumer.first_byte(image.Handle), Ok(0x55));
                if round == 1 {
                    assert!(consumer.close(image.Handle, DISPATCH).is_success());
                }
                consumer.dereference(if round == 2 { DISPATCH } else { PASSIVE });
            }
        });
    });
    bench.finish();
}
