//! Runs every case on every table.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

use crate::Options;
use crate::cases::Case;
use crate::contender::{ALL, Contender};
use crate::report::Row;

const LIVE: [usize; 4] = [1, 1_000, 100_000, 4_000_000];
const SAMPLES: usize = 31;

/// How often a sample is taken at most, while another program takes a processor away from one of its threads.
const ATTEMPTS: u32 = 8;

/// The least processor time of a sample, so that reading the clock does not count.
const LEAST: Duration = Duration::from_micros(500);

/// Measures what `options` ask for.
pub(crate) fn run(options: &Options) -> Result<Vec<Row>> {
    let chosen: Vec<_> =
        ALL.iter().filter(|(name, _)| options.tables.is_empty() || options.tables.iter().any(|t| t == name)).collect();
    ensure!(!chosen.is_empty(), "there is no such table; there are {}", ALL.map(|(name, _)| name).join(", "));
    let lives = match (options.live.as_slice(), options.short) {
        ([], true) => LIVE.iter().copied().take(2).collect(),
        ([], false) => LIVE.to_vec(),
        (some, _) => some.to_vec(),
    };
    ensure!(!lives.contains(&0), "a table without live handles cannot be asked for one");
    let cases = if options.cases.is_empty() { Case::value_variants().to_vec() } else { options.cases.clone() };
    let mut criterion = criterion(options.short);
    let mut rows = Vec::new();
    for live in lives {
        // All tables are filled at the same time, so that they can take turns.
        let contenders: Vec<_> = chosen.iter().map(|(_, make)| make(live)).collect();
        for case in &cases {
            for threads in thread_counts() {
                measure(&mut criterion, &contenders, *case, threads, live, &mut rows);
            }
        }
    }
    Ok(rows)
}

/// 1 and 2 threads, and as many as there are processors, up to 8.
fn thread_counts() -> Vec<usize> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, 2];
    counts.extend([4, 8].into_iter().filter(|count| *count <= processors));
    counts
}

fn criterion(short: bool) -> Criterion {
    let (warm_up, measured) = if short { (5, 25) } else { (20, 100) };
    Criterion::default()
        .without_plots()
        .sample_size(SAMPLES)
        .nresamples(1_001)
        .warm_up_time(Duration::from_millis(warm_up))
        .measurement_time(Duration::from_millis(measured))
}

#[expect(clippy::cast_precision_loss, reason = "rates to a few digits")]
fn measure(
    criterion: &mut Criterion,
    contenders: &[Contender],
    case: Case,
    threads: usize,
    live: usize,
    rows: &mut Vec<Row>,
) {
    let mut group = criterion.benchmark_group(format!("{}, {threads} threads", case.name().replace('/', "-")));
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(threads as u64));
    for contender in contenders {
        let rates = RefCell::new(Vec::new());
        let least = least_rounds(contender, case, threads);
        group.bench_function(BenchmarkId::new(contender.name, live), |bencher| {
            bencher.iter_custom(|rounds| {
                // Criterion counts rounds by the clock, of which a busy machine lets too much pass.
                let actual = rounds.max(least);
                let elapsed = undisturbed(contender, case, threads, actual);
                let operations = actual as f64 * threads as f64;
                rates.borrow_mut().push(operations / elapsed.as_secs_f64().max(1e-9) / 1e6);
                elapsed.mul_f64(rounds as f64 / actual as f64)
            });
        });
        let rates = rates.into_inner();
        // Those before the samples are criterion's warm-up.
        let mut samples = rates[rates.len().saturating_sub(SAMPLES)..].to_vec();
        samples.sort_by(f64::total_cmp);
        rows.push(Row {
            table: contender.name,
            case: case.name(),
            threads,
            live,
            mops: samples[samples.len() / 2],
            bytes_per_handle: contender.bytes_per_handle,
        });
    }
    group.finish();
}

/// How many rounds take long enough.
fn least_rounds(contender: &Contender, case: Case, threads: usize) -> u64 {
    let mut rounds = 256;
    while rounds < 1 << 24 && (contender.run)(case, threads, rounds).processor < LEAST {
        rounds *= 2;
    }
    rounds
}

/// The processor time of a run in which all threads ran at the same time; of the last attempt, if there was none.
fn undisturbed(contender: &Contender, case: Case, threads: usize, rounds: u64) -> Duration {
    let mut spent = (contender.run)(case, threads, rounds);
    for _ in 1..ATTEMPTS {
        if spent.is_undisturbed() {
            break;
        }
        spent = (contender.run)(case, threads, rounds);
    }
    spent.processor
}
