//! Valid messages, mutated: whatever arrives, the driver answers with a well-formed reply or a status.
//!
//! `FWBROKER_FUZZ_SEED=<number>` replays a run, `FWBROKER_FUZZ_ROUNDS=<number>` makes it longer.

use fwbroker_tests::client::{REPLY_HEADER, encode, hello_bytes};
use fwbroker_tests::{Bench, Random, sha256};
use protocol::{Name, OpenRequest, ReadRequest, RequestBody, StageRequest, Target};

const ROM: &[u8] = b"\x55\xaa firmware for the fuzzer";
const ROUNDS: u64 = 3_000;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Changes a message a little: bits, numbers at the edges, length, or a piece copied over another.
fn mutate(message: &mut Vec<u8>, random: &mut Random) {
    const EDGES: [u32; 8] = [0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF, 0x1_0000];
    for _ in 0..=random.below(3) {
        let at = random.below(message.len());
        match random.below(6) {
            0 => message[at] ^= 1 << random.below(8),
            1 => message[at] = random.draw() as u8,
            2 => {
                let at = at & !3;
                if let Some(number) = message.get_mut(at..at + 4) {
                    number.copy_from_slice(&EDGES[random.below(EDGES.len())].to_le_bytes());
                }
            }
            3 => message.truncate(at.max(1)),
            4 => message.extend((0..random.below(40)).map(|byte| byte as u8)),
            _ => {
                let from = random.below(message.len());
                let length = random.below(16).min(message.len() - from).min(message.len() - at);
                message.copy_within(from..from + length, at);
            }
        }
    }
    if random.below(2) == 0 && message.len() >= 4 {
        // Otherwise most messages end at the check of their size.
        let length = (message.len() as u32).to_le_bytes();
        message[..4].copy_from_slice(&length);
    }
}

#[test]
fn mutated_messages_are_answered_and_leave_nothing() {
    let seed = from_environment("FWBROKER_FUZZ_SEED").unwrap_or(0x5EED);
    let rounds = from_environment("FWBROKER_FUZZ_ROUNDS").unwrap_or(ROUNDS);
    println!("FWBROKER_FUZZ_SEED={seed} FWBROKER_FUZZ_ROUNDS={rounds}");
    let mut random = Random::new(seed);
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let units: Vec<u16> = path.encode_utf16().collect();
    let name = Name::from_units(&units);
    let mut client = bench.client();
    let mut handle = client.open(&path).unwrap().handle;
    for round in 0..rounds {
        let stage =
            StageRequest { name, sha256: Some(sha256(ROM)), highest_address: Some(u64::MAX), deadline_ms: 1_000 };
        let mut message = match random.below(9) {
            0 => hello_bytes(),
            1 => encode(round, RequestBody::Open(OpenRequest { name })),
            2 => encode(round, RequestBody::Query(handle)),
            3 => encode(round, RequestBody::Read(ReadRequest { handle, offset: 1, length: 8 })),
            4 => encode(round, RequestBody::Close(handle)),
            5 => encode(round, RequestBody::Stage(stage)),
            6 => encode(round, RequestBody::Unstage(Target::Name(name))),
            7 => encode(round, RequestBody::Unstage(Target::Image(round % 7))),
            _ => encode(round, RequestBody::List(round % 7)),
        };
        if random.below(8) > 0 {
            mutate(&mut message, &mut random);
        }
        let room = [0, REPLY_HEADER, 64, 256, 4096][random.below(5)];
        if let Ok(reply) = client.send(&message, room) {
            assert!((REPLY_HEADER..=room).contains(&reply.len()), "round {round}: {} bytes for {room}", reply.len());
            let size = u32::from_le_bytes(reply[..4].try_into().unwrap());
            assert_eq!(size as usize, reply.len(), "round {round}: the header tells the length");
            let status = i32::from_le_bytes(reply[16..20].try_into().unwrap());
            let reason = u32::from_le_bytes(reply[20..24].try_into().unwrap());
            assert_eq!(status >= 0, reason == 0, "round {round}: refusals have a reason, and nothing else has");
        }
        if client.query(handle).is_err() {
            // Closed by a message that was not mutated enough, or quotas are full: a new client has neither.
            client = bench.client();
            handle = client.open(&path).unwrap_or_else(|refused| panic!("round {round}: {refused:?}")).handle;
        }
    }
    drop(client);
    bench.finish();
}
