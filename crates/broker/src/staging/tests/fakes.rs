//! A platform of plain Rust: files in memory, memory that counts itself, an event of the standard library.

use std::boxed::Box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::vec;
use std::vec::Vec;

use super::super::*;
use crate::policy::DeviceName;
use crate::testing::{NoIrql, depth, facts};
use crate::{
    Completion, Error, FileFacts, ImageAllocator, ImageMemory, Limits, Platform, Shared, Source, Time, WritableMemory,
};

pub(super) struct Plain;

impl Platform for Plain {
    type Irql = NoIrql;
    type Memory = Bytes;
    type Completion = Event;

    fn now() -> Time {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        Time(START.get_or_init(Instant::now).elapsed().as_micros() as u64 * 10)
    }

    fn upcase(unit: u16) -> u16 {
        u8::try_from(unit).map_or(unit, |byte| u16::from(byte.to_ascii_uppercase()))
    }
}

#[derive(Default)]
pub(super) struct Event(Mutex<bool>, Condvar);

impl Completion for Event {
    fn signal(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self, deadline: Time) -> bool {
        assert_eq!(depth(), 0, "waits under a lock");
        let left = Duration::from_micros(deadline.0.saturating_sub(Plain::now().0) / 10);
        let (signalled, _) = self.1.wait_timeout_while(self.0.lock().unwrap(), left, |done| !*done).unwrap();
        *signalled
    }
}

/// Image memory that knows how many like it are alive.
pub(super) struct Bytes(Vec<u8>, Arc<AtomicUsize>);

impl ImageMemory for Bytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl WritableMemory for Bytes {
    type Sealed = Self;

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn seal(self) -> Result<Self, Error> {
        Ok(self)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        assert_eq!(depth(), 0, "image memory is freed under a lock");
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file that can misbehave.
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) facts: FileFacts,
    pub(super) reads: usize,
    pub(super) facts_error: Option<Error>,
    pub(super) read_error: Option<Error>,
    /// Ends after the first chunk.
    pub(super) shrinks: bool,
    /// Claims to have read more than fits.
    pub(super) overreads: bool,
    /// Has another identity after it was read.
    pub(super) changes: bool,
    /// Called before each read.
    pub(super) before_read: Box<dyn FnMut() + Send>,
}

impl File {
    pub(super) fn new(id: u8, bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            facts: facts(id, bytes.len() as u64),
            reads: 0,
            facts_error: None,
            read_error: None,
            shrinks: false,
            overreads: false,
            changes: false,
            before_read: Box::new(|| ()),
        }
    }

    pub(super) fn before_read(mut self, action: impl FnMut() + Send + 'static) -> Self {
        self.before_read = Box::new(action);
        self
    }
}

impl Source for File {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        (self.before_read)();
        self.reads += 1;
        if let Some(error) = self.read_error {
            return Err(error);
        }
        if self.overreads {
            return Ok(buffer.len() + 1);
        }
        let rest = &self.bytes[offset as usize..];
        let length = if self.shrinks && offset > 0 { 0 } else { rest.len().min(buffer.len()) };
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn facts(&mut self) -> Result<FileFacts, Error> {
        if self.changes && self.reads > 0 {
            self.facts.identity.change_time += 1;
        }
        self.facts_error.map_or(Ok(self.facts), Err)
    }
}

pub(super) const CHUNK: usize = 256;

/// A registry, and the memory that it uses.
pub(super) struct Bench {
    pub(super) images: Images<Plain>,
    live: Arc<AtomicUsize>,
    allocations: AtomicUsize,
}

impl ImageAllocator<Bytes> for &Bench {
    type Writable = Bytes;

    fn allocate(&mut self, size: usize, _: u64) -> Result<Bytes, Error> {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes(vec![0; size], self.live.clone()))
    }
}

impl Bench {
    pub(super) fn new(policy: Policy) -> Self {
        Self::with_limits(policy, Limits { images: 16, ..Limits::DEFAULT })
    }

    pub(super) fn with_limits(policy: Policy, limits: Limits) -> Self {
        let images = Images::try_new(limits, policy).unwrap();
        Self { images, live: Arc::default(), allocations: AtomicUsize::new(0) }
    }

    pub(super) fn stage(&self, name: &str, file: &mut File) -> Result<Staged<Plain>, Failure> {
        self.stage_expecting(name, file, None)
    }

    pub(super) fn stage_expecting(
        &self,
        name: &str,
        file: &mut File,
        expected: Option<Sha256>,
    ) -> Result<Staged<Plain>, Failure> {
        self.run(&job(), name, file, OwnerId(1), expected, u64::MAX)
    }

    pub(super) fn stage_for(&self, owner: u64, name: &str, file: &mut File) -> Result<Staged<Plain>, Failure> {
        self.run(&job(), name, file, OwnerId(owner), None, u64::MAX)
    }

    pub(super) fn stage_below(&self, highest: u64, name: &str, file: &mut File) -> Result<Staged<Plain>, Failure> {
        self.run(&job(), name, file, OwnerId(1), None, highest)
    }

    pub(super) fn stage_as(
        &self,
        job: &Shared<Job<Plain>>,
        name: &str,
        file: &mut File,
    ) -> Result<Staged<Plain>, Failure> {
        self.run(job, name, file, OwnerId(1), None, u64::MAX)
    }

    fn run(
        &self,
        job: &Shared<Job<Plain>>,
        name: &str,
        file: &mut File,
        owner: OwnerId,
        expected: Option<Sha256>,
        highest_address: u64,
    ) -> Result<Staged<Plain>, Failure> {
        let name = units(name);
        let name = DeviceName::from_normalized(&name).unwrap();
        let request = StageRequest { name, owner, expected, highest_address };
        let mut allocator = self;
        self.images.stage(&request, job, file, &mut allocator, &mut [0; CHUNK])
    }

    pub(super) fn live_memories(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }
}

/// A job that has all the time in the world.
pub(super) fn job() -> Shared<Job<Plain>> {
    job_until(Time::NEVER)
}

pub(super) fn job_until(deadline: Time) -> Shared<Job<Plain>> {
    Job::try_new(deadline, Event::default()).unwrap()
}

pub(super) fn units(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}
