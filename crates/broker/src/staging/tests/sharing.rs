//! Requests that have something in common.

use std::sync::mpsc;
use std::time::Duration;
use std::vec::Vec;

use super::fakes::{Bench, File, Plain, job, job_until};
use super::*;
use crate::{Platform, Shared};

const NAME: &str = r"\Device\V1\a";

#[test]
fn file_that_is_staged_already_is_not_read_again() {
    let bench = Bench::new(Policy::Unsigned);
    let first = bench.stage(NAME, &mut File::new(1, b"abc")).unwrap();
    let mut file = File::new(1, b"abc");
    let again = bench.stage(r"\device\v1\A", &mut file).unwrap();
    assert!(Shared::ptr_eq(&first.image, &again.image) && again.shared);
    assert_eq!((file.reads, bench.allocations()), (0, 1));
}

/// A file whose first read waits until the sender is dropped, and says when it has begun.
fn gated(file: File) -> (File, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (started, has_started) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let file = file.before_read(move || {
        let _ = started.send(());
        let _ = gate.recv();
    });
    (file, has_started, release)
}

/// A joiner shows the progress of its leader, which is at a gate in its first read.
fn wait_until_joined(job: &Job<Plain>) {
    while job.progress().phase != Phase::Reading {
        std::thread::yield_now();
    }
}

#[test]
fn simultaneous_requests_share_one_read_and_one_image() {
    let bench = Bench::new(Policy::Unsigned);
    let (mut leader, has_started, release) = gated(File::new(1, b"abc"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.stage(NAME, &mut leader));
        has_started.recv().unwrap();
        let joined: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut file = File::new(1, b"abc");
                    (bench.stage(NAME, &mut file), file.reads)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(30));
        drop(release);
        let first = first.join().unwrap().unwrap();
        for thread in joined {
            let (staged, reads) = thread.join().unwrap();
            assert_eq!(reads, 0);
            assert!(Shared::ptr_eq(&staged.unwrap().image, &first.image));
        }
    });
    assert_eq!((bench.allocations(), bench.images.len()), (1, 1));
}

#[test]
fn failure_is_shared_too_and_the_next_request_starts_afresh() {
    let bench = Bench::new(Policy::Unsigned);
    let error = Error::System(nt_types::NtStatus::IN_PAGE_ERROR);
    let (mut leader, has_started, release) = gated(File { read_error: Some(error), ..File::new(1, b"abc") });
    let joiners_job = job();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.stage(NAME, &mut leader).err());
        has_started.recv().unwrap();
        let joined = scope.spawn(|| bench.stage_as(&joiners_job, NAME, &mut File::new(1, b"abc")).err());
        wait_until_joined(&joiners_job);
        drop(release);
        let failure = Some(Failure { phase: Phase::Reading, error });
        assert_eq!(first.join().unwrap(), failure);
        assert_eq!(joined.join().unwrap(), failure);
    });
    assert!(bench.stage(NAME, &mut File::new(1, b"abc")).is_ok());
}

#[test]
fn cancelled_leader_leaves_the_lead_to_who_waits() {
    let bench = Bench::new(Policy::Unsigned);
    // Two chunks, so that the leader looks for its cancellation once more.
    let bytes = [5; super::fakes::CHUNK + 1];
    let (mut leader, has_started, release) = gated(File::new(1, &bytes));
    let (leaders_job, joiners_job) = (job(), job());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.stage_as(&leaders_job, NAME, &mut leader).err());
        has_started.recv().unwrap();
        let joined = scope.spawn(|| bench.stage_as(&joiners_job, NAME, &mut File::new(1, &bytes)));
        wait_until_joined(&joiners_job);
        leaders_job.cancel();
        drop(release);
        assert_eq!(first.join().unwrap(), Some(Failure { phase: Phase::Reading, error: Error::Cancelled }));
        assert_eq!(joined.join().unwrap().unwrap().image.bytes(), bytes);
    });
    assert_eq!(joiners_job.progress(), Progress { phase: Phase::Ready, done: 257, total: 257 });
    assert_eq!(leaders_job.progress().phase, Phase::Failed);
}

#[test]
fn who_waits_has_a_deadline_and_a_cancellation_of_its_own() {
    let bench = Bench::new(Policy::Unsigned);
    let (mut leader, has_started, release) = gated(File::new(1, b"abc"));
    let cancelled = job();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| bench.stage(NAME, &mut leader));
        has_started.recv().unwrap();
        let late = job_until(Plain::now().after_milliseconds(40));
        let failure = bench.stage_as(&late, NAME, &mut File::new(1, b"abc")).err().unwrap();
        assert_eq!(failure.error, Error::TimedOut);
        let waiting = scope.spawn(|| bench.stage_as(&cancelled, NAME, &mut File::new(1, b"abc")).err());
        cancelled.cancel();
        assert_eq!(waiting.join().unwrap().unwrap().error, Error::Cancelled);
        drop(release);
        assert!(first.join().unwrap().is_ok());
    });
}

#[test]
fn requests_that_expect_different_digests_do_not_depend_on_each_other() {
    let bench = Bench::new(Policy::Unsigned);
    let (mut leader, has_started, release) = gated(File::new(1, b"abc"));
    std::thread::scope(|scope| {
        let wrong = scope.spawn(|| bench.stage_expecting(NAME, &mut leader, Some([0; 32])).err());
        has_started.recv().unwrap();
        let right = bench.stage_expecting(NAME, &mut File::new(1, b"abc"), Some(sha256(ABC_SHA256)));
        assert!(right.is_ok());
        drop(release);
        assert_eq!(wrong.join().unwrap().unwrap().error, Error::DigestMismatch);
    });
    assert_eq!(bench.images.len(), 1);
}

#[test]
fn equal_bytes_under_two_names_lie_in_memory_once() {
    let bench = Bench::new(Policy::Unsigned);
    let first = bench.stage(NAME, &mut File::new(1, b"abc")).unwrap();
    let second = bench.stage(r"\Device\V1\b", &mut File::new(2, b"abc")).unwrap();
    assert!(second.shared && first.image.shares_memory());
    assert_ne!(first.image.id(), second.image.id());
    assert_eq!(first.image.bytes().as_ptr(), second.image.bytes().as_ptr());
    assert_eq!((bench.live_memories(), bench.images.used_bytes()), (1, 3));
    drop(first);
    bench.images.unstage(Which::Name(&super::units(NAME)), Unstage::Refuse).unwrap();
    assert_eq!(second.image.bytes(), b"abc");
}
