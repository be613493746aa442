//! Staging with files, memory and events made of plain Rust.

mod fakes;
mod lifetime;
mod sharing;

use std::vec;

use fakes::{Bench, File, units};

use super::*;
use crate::{Error, Limits};

const ABC_SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn sha256(hex: &str) -> Sha256 {
    core::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
}

#[test]
fn staged_image_has_the_bytes_and_the_digest_of_its_file() {
    let bench = Bench::new(Policy::Unsigned);
    let staged = bench.stage(r"\Device\V1\abc", &mut File::new(1, b"abc")).unwrap();
    assert_eq!(staged.image.bytes(), b"abc");
    assert_eq!(*staged.image.sha256(), sha256(ABC_SHA256));
    assert_eq!((staged.image.size(), staged.shared), (3, false));
    assert_eq!(staged.image.name(), units(r"\Device\V1\abc"));
    assert_eq!(bench.images.used_bytes(), 3);
}

#[test]
fn large_files_are_read_in_chunks_and_in_order() {
    let bench = Bench::new(Policy::Unsigned);
    let bytes: vec::Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    let mut file = File::new(1, &bytes);
    let staged = bench.stage(r"\Device\V1\a", &mut file).unwrap();
    assert_eq!(staged.image.bytes(), bytes);
    assert_eq!(file.reads, 10_000_usize.div_ceil(fakes::CHUNK));
}

#[test]
fn policy_decides_about_digests() {
    let stage = |policy, expected: Option<Sha256>| {
        let bench = Bench::new(policy);
        bench.stage_expecting(r"\Device\V1\abc", &mut File::new(1, b"abc"), expected).map(|_| ()).map_err(|f| f.error)
    };
    let (right, wrong) = (Some(sha256(ABC_SHA256)), Some([0; 32]));
    assert_eq!(stage(Policy::Unsigned, None), Ok(()));
    assert_eq!(stage(Policy::Unsigned, wrong), Err(Error::DigestMismatch));
    assert_eq!(stage(Policy::Digest, None), Err(Error::DigestRequired));
    assert_eq!(stage(Policy::Digest, right), Ok(()));
    assert_eq!(stage(Policy::Digest, wrong), Err(Error::DigestMismatch));
    assert_eq!(stage(Policy::Signed, right), Err(Error::SignedUnsupported));
}

#[test]
fn file_that_looks_the_same_but_should_not_be_is_read_again() {
    let bench = Bench::new(Policy::Unsigned);
    let old = bench.stage(r"\Device\V1\abc", &mut File::new(1, b"old")).unwrap();
    let mut same = File::new(1, b"old");
    let failure = bench.stage_expecting(r"\Device\V1\abc", &mut same, Some(sha256(ABC_SHA256))).err().unwrap();
    assert_eq!((failure.error, same.reads), (Error::DigestMismatch, 1));
    assert_eq!(bench.images.len(), 1, "the image that was there stays");
    // Rewritten within one tick of the file system's clock: same file, same length, same time.
    let mut rewritten = File::new(1, b"abc");
    let new = bench.stage_expecting(r"\Device\V1\abc", &mut rewritten, Some(sha256(ABC_SHA256))).unwrap();
    assert_eq!(new.image.bytes(), b"abc");
    assert_ne!(new.image.id(), old.image.id());
    assert_eq!(bench.images.len(), 1, "the new image is in the old one's place");
}

#[test]
fn failures_say_phase_and_cause_and_leave_nothing() {
    let bench = Bench::new(Policy::Unsigned);
    let io = Error::System(nt_types::NtStatus::IN_PAGE_ERROR);
    let expect = |file: File, phase, error| {
        let mut file = file;
        let failure = bench.stage(r"\Device\V1\a", &mut file).err().unwrap();
        assert_eq!(failure, Failure { phase, error });
        assert!(bench.images.is_empty());
        assert_eq!((bench.images.used_bytes(), bench.live_memories()), (0, 0));
    };
    expect(File::new(1, b""), Phase::Opening, Error::FileEmpty);
    expect(File { facts_error: Some(io), ..File::new(1, b"abc") }, Phase::Opening, io);
    expect(File { read_error: Some(io), ..File::new(1, b"abc") }, Phase::Reading, io);
    expect(File { shrinks: true, ..File::new(1, &[7; 1000]) }, Phase::Reading, Error::FileChanged);
    expect(File { overreads: true, ..File::new(1, b"abc") }, Phase::Reading, Error::FileChanged);
    expect(File { changes: true, ..File::new(1, b"abc") }, Phase::Verifying, Error::FileChanged);
    let mut directory = File::new(1, b"abc");
    directory.facts.is_directory = true;
    expect(directory, Phase::Opening, Error::IsDirectory);
}

#[test]
fn quotas_are_checked_before_memory_is_allocated() {
    let limits = Limits { total_bytes: 10, owner_bytes: 6, images: 3, ..Limits::DEFAULT };
    let bench = Bench::with_limits(Policy::Unsigned, limits);
    let stage = |id: u8, owner, length| {
        let name = [r"\Device\V1\", ["a", "b", "c", "d", "e"][usize::from(id)]].concat();
        bench.stage_for(owner, &name, &mut File::new(id, &vec![id; length])).map(|_| ()).map_err(|f| f.error)
    };
    assert_eq!(stage(0, 1, 5), Ok(()));
    assert_eq!(stage(1, 1, 2), Err(Error::OwnerBytes));
    assert_eq!(stage(1, 2, 6), Err(Error::TotalBytes));
    assert_eq!(bench.allocations(), 1);
    assert_eq!(stage(1, 2, 3), Ok(()));
    assert_eq!(stage(2, 2, 1), Ok(()));
    assert_eq!(stage(3, 3, 1), Err(Error::TooManyImages));
}

#[test]
fn memory_for_a_low_address_is_not_that_of_a_high_one() {
    let bench = Bench::new(Policy::Unsigned);
    let high = bench.stage(r"\Device\V1\a", &mut File::new(1, b"abc")).unwrap();
    let low = bench.stage_below(0xFFFF_FFFF, r"\Device\V1\a", &mut File::new(1, b"abc")).unwrap();
    assert_eq!(low.image.highest_address(), 0xFFFF_FFFF);
    assert!(!low.shared);
    // Memory in a low place will do for those who do not care.
    let any = bench.stage(r"\Device\V1\b", &mut File::new(2, b"abc")).unwrap();
    assert!(any.shared && any.image.highest_address() == 0xFFFF_FFFF);
    drop(high);
}

#[test]
fn progress_never_goes_back() {
    let job = bench_job();
    job.set_total(100);
    job.advance(Phase::Reading, 50);
    job.advance(Phase::Reading, 40);
    job.advance(Phase::Allocating, 100);
    assert_eq!(job.progress(), Progress { phase: Phase::Reading, done: 50, total: 100 });
    job.advance(Phase::Verifying, 0);
    assert_eq!(job.progress(), Progress { phase: Phase::Verifying, done: 50, total: 100 });
}

fn bench_job() -> crate::Shared<Job<fakes::Plain>> {
    Job::try_new(crate::Time::NEVER, fakes::Event::default()).unwrap()
}
