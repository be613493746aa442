//! Many clients at once, of whom some disappear and some lose their handles.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nt_types::NtStatus;
use protocol::{Reason, RevokeScope};

use crate::bench::Bench;
use crate::client::{Client, Refused};
use crate::random::Random;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Threads, each of which is one client after the other.
    pub clients: u32,
    /// Rounds of open, read and close, of all threads together.
    pub rounds: u64,
    /// Decides who disconnects when and what is revoked. Which thread is faster it does not decide.
    pub seed: u64,
}

/// What happened. Displays as a few lines for a report.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    churn: Churn,
    tally: Tally,
    /// Calls of `FltCreateFileEx` or `FltCreateFileEx2`, none of which failed.
    opens: u64,
    flt_close: u64,
    dereference: u64,
    took: Duration,
}

/// How rounds ended.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Opened, read and closed.
    whole: u64,
    /// Lost the handle to an administrator on the way.
    revoked: u64,
    /// Cut short by the end of the client's process.
    cut: u64,
    /// Clients that were killed, with a handle open or a request running.
    killed: u64,
    /// Clients that closed their connection in order.
    left: u64,
    /// Revocations that the driver confirmed.
    revocations: u64,
}

/// Opens in a client's life, on average. Low, so that many lives begin and end.
const LIFE: u64 = 400;

/// How long the administrator rests between two looks at the handles.
const REST: Duration = Duration::from_millis(2);

impl Churn {
    /// Does it on a machine of its own, without a trace, and checks that nothing is left.
    ///
    /// # Panics
    /// When a request ends otherwise than it may, or a count is wrong.
    #[must_use]
    pub fn run(self) -> Outcome {
        let bench = Bench::untraced();
        let content: Vec<u8> = (0..4096_u32).map(|at| (at * 31).to_le_bytes()[1]).collect();
        let paths: Vec<String> =
            (0..4).map(|number| bench.write_firmware(&format!("{number}.rom"), &content)).collect();
        let (tally, done, taken) = (Mutex::new(Tally::default()), AtomicBool::new(false), AtomicU64::new(0));
        let started = Instant::now();
        std::thread::scope(|scope| {
            let administrator = scope.spawn(|| revoke_at_random(&bench, Random::new(self.seed ^ 0xADAD), &done));
            let clients: Vec<_> = (0..self.clients)
                .map(|number| {
                    let seed = Random::new(self.seed.wrapping_add(u64::from(number) + 1)).draw();
                    let (bench, paths, taken) = (&bench, &paths, &taken);
                    scope.spawn(move || live(bench, paths, taken, self.rounds, Random::new(seed)))
                })
                .collect();
            for client in clients {
                tally.lock().expect("nobody panics with it").add(client.join().expect("a client does not panic"));
            }
            done.store(true, Ordering::Relaxed);
            let revocations = administrator.join().expect("the administrator does not panic");
            tally.lock().expect("nobody panics with it").revocations = revocations;
        });
        let took = started.elapsed();
        let machine = bench.machine().clone();
        bench.finish();
        let calls = |names: &[&str]| names.iter().map(|name| machine.calls(name)).sum();
        let outcome = Outcome {
            churn: self,
            tally: *tally.lock().expect("nobody panics with it"),
            opens: calls(&["FltCreateFile", "FltCreateFileEx", "FltCreateFileEx2"]),
            flt_close: calls(&["FltClose"]),
            dereference: calls(&["ObfDereferenceObject", "ObDereferenceObject"]),
            took,
        };
        outcome.check();
        outcome
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.revoked += other.revoked;
        self.cut += other.cut;
        self.killed += other.killed;
        self.left += other.left;
    }
}

/// One thread's clients, one after the other, until all rounds have been taken.
fn live(bench: &Bench, paths: &[String], taken: &AtomicU64, rounds: u64, mut random: Random) -> Tally {
    let mut tally = Tally::default();
    loop {
        let client = bench.client().keeping_buffers();
        loop {
            if taken.fetch_add(1, Ordering::Relaxed) >= rounds {
                tally.left += 1;
                leave(client);
                return tally;
            }
            let path = &paths[random.below(paths.len())];
            if random.once_in(LIFE) {
                tally.cut += 1;
                if random.once_in(2) {
                    tally.killed += 1;
                    die_in_a_round(&client, path, &mut random);
                } else {
                    tally.left += 1;
                    // Without closing: that is for the driver to do.
                    let _open = client.open(path);
                    leave(client);
                }
                break;
            }
            if round(&client, path) {
                tally.whole += 1;
            } else {
                tally.revoked += 1;
            }
        }
    }
}

/// Opens, reads and closes. False where the handle was revoked on the way: any other refusal is an error.
fn round(client: &Client, path: &str) -> bool {
    const REVOKED: Refused = Refused::with(NtStatus::FILE_FORCED_CLOSED, Reason::HandleRevoked);
    let handle = client.open(path).expect("files stay as they are").handle;
    match client.read(handle, 0, 64) {
        Ok(data) => assert_eq!(data.len(), 64),
        Err(refused) => assert_eq!(refused, REVOKED),
    }
    match client.close(handle) {
        Ok(()) => true,
        Err(refused) => {
            assert_eq!(refused, REVOKED);
            assert_eq!(client.close(handle), Err(Refused::with(NtStatus::INVALID_HANDLE, Reason::HandleInvalid)));
            false
        }
    }
}

/// Closes the connection, then ends the process, as a program that is done does.
fn leave(client: Client) {
    let process = client.process().clone();
    drop(client);
    process.terminate();
}

/// Ends the process at some point of a round, from another thread.
fn die_in_a_round(client: &Client, path: &str, random: &mut Random) {
    let spins = random.below(20_000);
    let process = client.process().clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..spins {
                std::hint::spin_loop();
            }
            process.terminate();
        });
        // Whatever comes of it.
        if let Ok(open) = client.open(path) {
            let _read = client.read(open.handle, 0, 64);
            let _closed = client.close(open.handle);
        }
    });
}

/// Revokes single handles, sessions and processes, whatever the list shows; how many handles were taken away.
fn revoke_at_random(bench: &Bench, mut random: Random, done: &AtomicBool) -> u64 {
    let client = bench.client();
    let mut revoked = 0;
    while !done.load(Ordering::Relaxed) {
        let handles = client.handles().expect("an administrator may ask");
        if let Some(entry) = handles.get(random.below(8)).or_else(|| handles.first()) {
            let (scope, id) = match random.below(8) {
                0 => (RevokeScope::Session, entry.session_id),
                1 => (RevokeScope::Process, entry.process_id),
                _ => (RevokeScope::Handle, entry.id),
            };
            match client.revoke(scope, id) {
                Ok(reply) => revoked += u64::from(reply.revoked),
                // Its owner was faster.
                Err(refused) => assert_eq!(refused.status, NtStatus::NOT_FOUND),
            }
        }
        std::thread::sleep(REST);
    }
    revoked
}

impl Outcome {
    /// What was opened was closed, once; and enough happened on the way to show something.
    fn check(&self) {
        let Tally { whole, revoked, cut, .. } = self.tally;
        assert_eq!(whole + revoked + cut, self.churn.rounds, "every round ended somehow\n{self}");
        assert!(self.opens >= whole + revoked, "{self}");
        assert!(self.churn.rounds < 10_000 || (revoked > 0 && cut > 0), "too little happened\n{self}");
        assert_eq!(self.flt_close, self.opens, "FltClose\n{self}");
        assert_eq!(self.dereference, self.opens, "ObDereferenceObject\n{self}");
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Churn { clients, rounds, seed } = self.churn;
        let Tally { whole, revoked, cut, killed, left, revocations } = self.tally;
        let seconds = self.took.as_secs_f64();
        writeln!(
            f,
            "{rounds} rounds by {clients} threads, seed {seed:#x}: {seconds:.1} s, {:.0} rounds/s",
            f64::from(u32::try_from(rounds).unwrap_or(u32::MAX)) / seconds
        )?;
        writeln!(
            f,
            "  rounds:  {whole} whole, {revoked} lost their handle to an administrator, {cut} cut by a disconnect"
        )?;
        writeln!(f, "  clients: {killed} killed, {left} left; {revocations} handles revoked")?;
        write!(
            f,
            "  calls:   {} opens, {} FltClose, {} ObDereferenceObject",
            self.opens, self.flt_close, self.dereference
        )
    }
}
