//! Staging: what is published is what was verified, once for all who ask.

use fwbroker_tests::{Bench, Refused, sha256};
use nt_types::NtStatus;
use protocol::{Policy, Reason};

const ROM: &[u8] = b"\x55\xaa firmware version one";

#[test]
fn a_staged_image_has_the_digest_that_the_host_computes() {
    let bench = Bench::start();
    let content: Vec<u8> = (0..150_001u32).map(|at| (at * 7) as u8).collect();
    let path = bench.write_firmware("nic.rom", &content);
    let client = bench.client();
    let staged = client.stage(&path, Some(sha256(&content))).unwrap();
    assert_eq!(staged.size, content.len() as u64);
    assert_eq!(staged.sha256, sha256(&content));
    let list = client.list().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].image_id, staged.image_id);
    assert_eq!(list[0].sha256, staged.sha256);
    assert!(list[0].name.to_lowercase().ends_with("nic.rom"), "{list:?}");
    client.unstage(staged.image_id).unwrap();
    assert_eq!(client.list(), Ok(Vec::new()));
    drop(client);
    bench.finish();
}

#[test]
fn the_digest_policy_wants_a_digest_and_it_must_be_right() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    assert_eq!(client.limits().policy, Policy::Digest.code());
    assert_eq!(
        client.stage(&path, None).map(|staged| staged.size),
        Err(Refused::with(NtStatus::ACCESS_DENIED, Reason::DigestRequired))
    );
    assert_eq!(
        client.stage(&path, Some([0; 32])).map(|staged| staged.size),
        Err(Refused::with(NtStatus::INVALID_IMAGE_HASH, Reason::DigestMismatch))
    );
    assert_eq!(client.list(), Ok(Vec::new()), "nothing is left of either");
    drop(client);
    bench.finish();
}

#[test]
fn the_unsigned_policy_takes_a_file_without_a_digest() {
    let bench = Bench::with_parameters(&[("Policy", Policy::Unsigned.code())]);
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    assert_eq!(client.stage(&path, None).unwrap().sha256, sha256(ROM));
    assert_eq!(
        client.stage(&path, Some([0; 32])).map(|staged| staged.size),
        Err(Refused::with(NtStatus::INVALID_IMAGE_HASH, Reason::DigestMismatch)),
        "a digest that was given still counts"
    );
    drop(client);
    bench.finish();
}

#[test]
fn the_signed_policy_stages_nothing_yet() {
    let bench = Bench::with_parameters(&[("Policy", Policy::Signed.code())]);
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let refused = client.stage(&path, Some(sha256(ROM))).map(|staged| staged.size);
    assert_eq!(refused, Err(Refused::with(NtStatus::NOT_SUPPORTED, Reason::SignedPolicyUnsupported)));
    drop(client);
    bench.finish();
}

#[test]
fn the_same_file_staged_twice_is_one_image() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let (one, two) = (bench.client(), bench.client());
    let first = one.stage(&path, Some(sha256(ROM))).unwrap();
    let second = two.stage(&path, Some(sha256(ROM))).unwrap();
    assert_eq!(first.image_id, second.image_id);
    assert!(!first.shared && second.shared);
    assert_eq!(one.list().unwrap().len(), 1);
    drop((one, two));
    bench.finish();
}

#[test]
fn many_clients_that_stage_one_file_at_once_cause_one_image() {
    let bench = Bench::start();
    let content = vec![0x77; 3 << 20];
    let path = bench.write_firmware("nic.rom", &content);
    let digest = sha256(&content);
    let ids: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..6).map(|_| scope.spawn(|| bench.client().stage(&path, Some(digest)).unwrap().image_id)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    bench.finish();
}

#[test]
fn a_replaced_file_is_a_new_image_under_the_same_name() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let first = client.stage(&path, Some(sha256(ROM))).unwrap();
    let next: &[u8] = b"\x55\xaa firmware version two, longer";
    bench.write_firmware("nic.rom", next);
    let second = client.stage(&path, Some(sha256(next))).unwrap();
    assert_ne!(first.image_id, second.image_id);
    assert_eq!(second.sha256, sha256(next));
    drop(client);
    bench.finish();
}

#[test]
fn an_image_outlives_the_session_that_staged_it() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let staged = client.stage(&path, Some(sha256(ROM))).unwrap();
    drop(client);
    let client = bench.client();
    assert_eq!(client.list().unwrap()[0].image_id, staged.image_id);
    drop(client);
    bench.finish();
}

#[test]
fn an_image_that_is_not_staged_cannot_be_unstaged() {
    let bench = Bench::start();
    let path = bench.write_firmware("nic.rom", ROM);
    let client = bench.client();
    let id = client.stage(&path, Some(sha256(ROM))).unwrap().image_id;
    client.unstage(id).unwrap();
    for made_up in [id, id + 1, u64::MAX] {
        assert_eq!(
            client.unstage(made_up).map(|unstaged| unstaged.size),
            Err(Refused::with(NtStatus::NOT_FOUND, Reason::ImageNotFound))
        );
    }
    drop(client);
    bench.finish();
}

#[test]
fn staged_images_together_stay_under_the_limit() {
    let bench = Bench::with_parameters(&[("MaxStagedBytes", 100_000)]);
    let (first, second) = (vec![1; 60_000], vec![2; 60_000]);
    let one = bench.write_firmware("one.rom", &first);
    let two = bench.write_firmware("two.rom", &second);
    let client = bench.client();
    let id = client.stage(&one, Some(sha256(&first))).unwrap().image_id;
    let refused = client.stage(&two, Some(sha256(&second))).unwrap_err();
    assert_eq!(refused.status, NtStatus::QUOTA_EXCEEDED, "{refused:?}");
    client.unstage(id).unwrap();
    client.stage(&two, Some(sha256(&second))).expect("unstaging makes room");
    drop(client);
    bench.finish();
}
