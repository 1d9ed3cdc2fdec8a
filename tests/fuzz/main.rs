//! Fuzzing of everything that reads what others may have made: streams, pictures, replies,
//! galleries, model sets, configurations, requests. It needs no nightly compiler.
//!
//! Inputs are mutated from small corpora (`corpus/`, and files of the repository). An input
//! with a new outcome, such as an error message that was not seen before, joins the corpus
//! of that run. No input may panic, take more memory than its target allows, or hang.
//!
//! `cargo test --release --test fuzz` runs a fixed number of executions, always the same.
//! `FACELATCH_FUZZ=1000000` sets another number, for slow targets a fraction of it, and
//! prints figures; `FACELATCH_FUZZ_SEED` changes the inputs. A filter such as `-- y4m` picks
//! targets. An input that fails is written to `target/fuzz/`; after the fault is mended it
//! goes to `corpus/TARGET/`, which every run tries first.

// Long runs print their figures.
#![allow(clippy::print_stderr)]

mod link;
mod mutate;
mod proto;
mod records;
mod targets;
mod trust;

use libtest_mimic::{Arguments, Failed, Trial};
use mutate::Chance;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use targets::Target;

/// Longest time of one input on this thread's processor.
const SLOWEST: Duration = Duration::from_secs(10);
/// An execution that has not ended after this time never will, on any machine.
const HANGS: Duration = Duration::from_secs(600);
/// Most inputs with new outcomes that are kept in memory.
const KEPT: usize = 512;
/// One of this number of inputs is mutated from the first ones and not from what was found.
const FROM_SEEDS: u64 = 4;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What an execution showed.
struct Shown {
    outcome: String,
    bytes: u64,
    took: Duration,
}

/// The input being tried, for the thread that looks for hangs.
type Current = Arc<Mutex<Option<(Instant, Vec<u8>)>>>;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(name: &'static str, current: Current) {
    std::thread::spawn(move || {
        while Arc::strong_count(&current) > 1 {
            std::thread::sleep(Duration::from_secs(1));
            if let Some((since, input)) = &*locked(&current)
                && since.elapsed() > HANGS
            {
                eprintln!("{name}: an input hangs; {}", save(name, input));
                std::process::exit(1);
            }
        }
    });
}

/// Writes a failing input. Returns a note where it is.
fn save(name: &str, input: &[u8]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz").join(plain(name));
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = folder.join(format!("{:016x}", hasher.finish()));
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    match written {
        Ok(()) => format!("the input is {}", path.display()),
        Err(error) => format!("the input cannot be written to {}: {error}", path.display()),
    }
}

fn plain(name: &str) -> String {
    name.replace(' ', "-")
}

/// Processor time of this thread.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn execute(target: &Target, input: &[u8]) -> Result<Shown, String> {
    let began = Instant::now();
    let mut result = None;
    let info = allocation_counter::measure(|| {
        result = Some(catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    });
    let mut took = began.elapsed();
    let outcome = match result {
        Some(Ok(outcome)) => outcome,
        Some(Err(panic)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            return Err(format!("panics: {}", text.unwrap_or("without a message")));
        }
        None => return Err("was not run".to_owned()),
    };
    if info.bytes_max > target.memory {
        return Err(format!("takes {} bytes, limit {}", info.bytes_max, target.memory));
    }
    if took > SLOWEST {
        // The machine may be busy: what counts is the processor's time.
        let before = processor_time();
        (target.run)(input);
        took = before.zip(processor_time()).map_or(took, |(before, after)| after - before);
        if took > SLOWEST {
            return Err(format!("takes {took:.1?} of processor time, limit {SLOWEST:.0?}"));
        }
    }
    Ok(Shown { outcome, bytes: info.bytes_max, took })
}

/// The outcome without numbers and quoted parts of the input, as a digest.
fn kind_of(outcome: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut quoted = false;
    for c in outcome.chars().take(400) {
        quoted ^= c == '"' || c == '`';
        if !quoted && !c.is_ascii_digit() {
            c.hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn corpus(name: &str) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(plain(name));
    let mut files = vec![];
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(files) };
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        files.push((path, bytes));
    }
    files.sort();
    Ok(files)
}

fn fuzz(target: &Target) -> Result<(), String> {
    let wanted = std::env::var("FACELATCH_FUZZ").ok();
    let executions = match &wanted {
        Some(number) => {
            let number: u64 = number.parse().map_err(|_| "FACELATCH_FUZZ: expected a number")?;
            (number / target.slowness).max(1)
        }
        None => target.quick,
    };
    let seed = std::env::var("FACELATCH_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut chance = Chance::new(seed.unwrap_or(1), target.name);
    let current = Current::default();
    watch(target.name, Arc::clone(&current));
    QUIET.set(true);
    let (mut kinds, mut bytes, mut slowest) = (BTreeSet::new(), 0, Duration::ZERO);
    let mut found: Vec<Vec<u8>> = vec![];
    let mut attempt = |input: &[u8]| -> Result<bool, String> {
        *locked(&current) = Some((Instant::now(), input.to_vec()));
        let shown = execute(target, input);
        *locked(&current) = None;
        let shown = shown.map_err(|fault| format!("{fault}; {}", save(target.name, input)))?;
        (bytes, slowest) = (shown.bytes.max(bytes), shown.took.max(slowest));
        Ok(kinds.insert(kind_of(&shown.outcome)))
    };
    let mut seeds = (target.seeds)();
    for (path, input) in corpus(target.name)? {
        attempt(&input).map_err(|fault| format!("{}: {fault}", path.display()))?;
        seeds.push(input);
    }
    for seed in &seeds {
        attempt(seed)?;
    }
    if seeds.is_empty() {
        return Err("it has no corpus".to_owned());
    }
    let began = Instant::now();
    for _ in 0..executions {
        let from_seeds = found.is_empty() || chance.below(FROM_SEEDS) == 0;
        let pool = if from_seeds { &seeds } else { &found };
        let (one, other) = (chance.of(pool).clone(), chance.of(pool).clone());
        let mut input = (target.mutate)(&mut chance, one, &other);
        input.truncate(target.longest);
        if attempt(&input)? {
            if found.len() < KEPT {
                found.push(input);
            } else {
                let at = chance.below(KEPT as u64) as usize;
                found[at] = input;
            }
        }
    }
    if wanted.is_some() {
        eprintln!(
            "{}: {executions} executions in {:.0} s, {} outcomes, {} kB at most, slowest {:.1?}",
            target.name,
            began.elapsed().as_secs_f64(),
            kinds.len(),
            bytes / 1000,
            slowest
        );
    }
    Ok(())
}

fn main() {
    let arguments = Arguments::from_args();
    let hook = std::panic::take_hook();
    // Panics are reported once, with the input.
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            hook(info);
        }
    }));
    let trials = targets::targets()
        .into_iter()
        .chain(trust::targets())
        .chain(link::targets())
        .map(|target| Trial::test(target.name, move || fuzz(&target).map_err(Failed::from)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
