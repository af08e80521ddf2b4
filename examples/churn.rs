//! Hundreds of clients connect, work and die at random. Afterwards the daemon must hold nothing of
//! theirs, or the exit code is 1. `scripts/churn` builds and runs it.
//!
//! ```text
//! churn --daemon EMBERD [--clients 1000] [--alive 100] [--seconds 120] [--seed 1]
//!       [--warm-up 500]
//! ```
//! Each client is a process. It leases models, shared ones and its own, embeds small and large
//! requests, and ends in one of seven ways, such as by SIGKILL during a request or after half a frame.
//! The daemon's leases, connections, descriptors, threads, segments and memory are compared before and
//! after, with all models unloaded and the cache cleared.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a terminal")]

use emberd_client::{Client, EmbeddingModel};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The allowed growth of the resident memory, as a fraction: the allocator keeps what the peak needed.
/// A leak of a few KiB for each client would be more.
const MORE_MEMORY: f64 = 0.25;

/// The allowed growth of the number of threads: the runtime starts threads for blocking work (looking
/// for a model's files, the cache's file) and ends them after a while of idleness.
const MORE_THREADS: u64 = 6;

/// How long to wait for memory that is returned with a delay (idle segments and models, a second).
const PATIENCE: Duration = Duration::from_secs(60);

const SETTINGS: &str = "
sharing.unload_after_seconds = 1
sharing.max_shared_models = 2
segments.idle_seconds = 1
limits.connections = 4096
[models.table]
type = \"embedding\"
name = \"builtin:static-minilm\"
[models.own]
type = \"embedding\"
name = \"builtin:static-minilm\"
shared = false
";

/// A random number generator that is the same on every machine (xorshift).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap_or(0)
    }
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, socket, seed] = args.as_slice()
        && mode == "client"
    {
        return client(Path::new(socket), seed.parse()?);
    }
    let mut options = BTreeMap::from([
        ("--daemon", String::new()),
        ("--clients", "1000".into()),
        ("--alive", "100".into()),
        ("--seconds", "120".into()),
        ("--seed", "1".into()),
        ("--warm-up", "500".into()),
    ]);
    for pair in args.chunks(2) {
        let [name, value] = pair else { return Err("every option takes a value".into()) };
        let known = options.get_mut(name.as_str()).ok_or(format!("no such option: {name}"))?;
        value.clone_into(known);
    }
    let number = |name: &str| -> Outcome<usize> { Ok(options[name].parse()?) };
    if options["--daemon"].is_empty() {
        return Err("give --daemon, the program to be tried".into());
    }
    let mut world = World::start(Path::new(&options["--daemon"]), number("--seed")?)?;
    // A warm-up, so that one-time allocations are done: threads, and memory for the peak.
    world.churn(number("--warm-up")?, number("--alive")?, Duration::ZERO)?;
    let before = world.settled(None)?;
    let started = Instant::now();
    let seconds = Duration::from_secs(number("--seconds")? as u64);
    let clients = world.churn(number("--clients")?, number("--alive")?, seconds)?;
    let took = started.elapsed().as_secs_f64();
    let after = world.settled(Some(&before))?;

    println!("{clients} client processes in {took:.0} s, at most {} at once", options["--alive"]);
    println!("ended: {}", world.ends());
    println!("\n{:<28} {:>14} {:>14}", "", "before", "after");
    for ((name, before), after) in before.rows().iter().zip(after.rows().iter().map(|row| row.1)) {
        println!("{name:<28} {before:>14} {after:>14}");
    }
    println!();
    for ((name, before), after) in before.rows().iter().zip(after.rows().iter().map(|row| row.1)) {
        println!(
            "{{\"figure\": \"churn\", \"what\": \"{name}\", \"before\": {before}, \"after\": {after}, \"clients\": {clients}}}"
        );
    }
    world.stop()?;
    match after.leaked(&before) {
        None => Ok(()),
        Some(what) => Err(format!("left behind: {what}").into()),
    }
}

/// What the daemon holds at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Holds {
    leases: u64,
    connections: u64,
    models: u64,
    segments: u64,
    segment_bytes: u64,
    descriptors: u64,
    threads: u64,
    shm_names: u64,
    own_bytes: u64,
    resident_bytes: u64,
}

impl Holds {
    fn rows(&self) -> [(&'static str, u64); 10] {
        [
            ("leases", self.leases),
            ("connections", self.connections),
            ("models in memory", self.models),
            ("segments", self.segments),
            ("bytes of segments", self.segment_bytes),
            ("descriptors", self.descriptors),
            ("threads", self.threads),
            ("names in /dev/shm", self.shm_names),
            ("own resident bytes", self.own_bytes),
            ("resident bytes", self.resident_bytes),
        ]
    }

    /// What exceeds the earlier counts.
    fn leaked(&self, before: &Self) -> Option<String> {
        let (own, more) = (self.own_bytes as f64, before.resident_bytes as f64 * MORE_MEMORY);
        if own > before.own_bytes as f64 + more {
            return Some(format!("{} bytes, {} before", self.own_bytes, before.own_bytes));
        }
        let counted = self.rows().into_iter().zip(before.rows()).take(8);
        let room = |name: &str| if name == "threads" { MORE_THREADS } else { 0 };
        counted
            .filter(|((name, after), (_, before))| *after > before + room(name))
            .map(|((name, after), (_, before))| format!("{after} {name}, {before} before"))
            .next()
    }
}

struct World {
    daemon: Child,
    socket: PathBuf,
    client: Client,
    dice: Dice,
    ends: BTreeMap<String, usize>,
    _folder: tempfile::TempDir,
}

impl World {
    fn start(program: &Path, seed: usize) -> Outcome<Self> {
        let folder = tempfile::Builder::new().prefix("emberd-churn.").tempdir()?;
        let socket = folder.path().join("emberd.sock");
        let settings = folder.path().join("emberd.toml");
        let tiny =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon/engine/tests/data/bert-mean-norm");
        let tiny = format!("[models.tiny]\ntype = \"embedding\"\nlocal_path = {tiny:?}\n");
        std::fs::write(&settings, format!("{SETTINGS}{tiny}"))?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut daemon = Command::new(program)
            .args(["serve", "--log", "error", "--socket"])
            .arg(&socket)
            .arg("--settings")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        let client = loop {
            match Client::connect_to(&socket) {
                Ok(client) => break client,
                Err(error) if daemon.try_wait()?.is_some() || Instant::now() > deadline => {
                    return Err(error.into());
                }
                Err(_) => sleep(Duration::from_millis(5)),
            }
        };
        let (dice, ends) = (Dice::new(seed as u64), BTreeMap::new());
        Ok(Self { daemon, socket, client, dice, ends, _folder: folder })
    }

    /// Starts clients, at least this many and for at least this long; returns their number.
    fn churn(&mut self, clients: usize, alive: usize, at_least: Duration) -> Outcome<usize> {
        let program = std::env::current_exe()?;
        let until = Instant::now() + at_least;
        let mut running: Vec<(Child, Instant)> = Vec::new();
        let (mut started, mut reported_at) = (0, Instant::now());
        while started < clients || Instant::now() < until || !running.is_empty() {
            let wants_more = started < clients || Instant::now() < until;
            if wants_more && running.len() < alive {
                let seed = self.dice.below(1 << 40);
                let child = Command::new(&program)
                    .arg("client")
                    .arg(&self.socket)
                    .arg(seed.to_string())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()?;
                let life = Duration::from_millis(20 + self.dice.below(3000) as u64);
                running.push((child, Instant::now() + life));
                started += 1;
            } else {
                sleep(Duration::from_millis(2));
            }
            let mut still = Vec::with_capacity(running.len());
            for (mut child, dies_at) in running {
                if child.try_wait()?.is_none() && Instant::now() >= dies_at {
                    child.kill()?;
                    child.wait()?;
                }
                match child.try_wait()? {
                    None => still.push((child, dies_at)),
                    Some(status) => *self.ends.entry(status.to_string()).or_default() += 1,
                }
            }
            running = still;
            if let Some(status) = self.daemon.try_wait()? {
                return Err(format!("the daemon ended: {status}").into());
            }
            if reported_at.elapsed() > Duration::from_secs(10) {
                eprintln!("churn: {started} clients started, {} alive", running.len());
                reported_at = Instant::now();
            }
        }
        Ok(started)
    }

    /// What the daemon holds once it is quiet, or at the deadline.
    fn settled(&self, before: Option<&Holds>) -> Outcome<Holds> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Holds::default();
        loop {
            self.client.cleanup_unused_models()?;
            self.client.clear_embedding_cache()?;
            let now = self.holds()?;
            let is_quiet = now.leases == 0 && now.connections == 1 && now.models == 0;
            let is_as_before = before.is_none_or(|before| now.leaked(before).is_none());
            let is_steady = now.segments == last.segments && now.threads == last.threads;
            if is_quiet && is_steady && is_as_before || Instant::now() > deadline {
                return Ok(now);
            }
            last = now;
            sleep(Duration::from_millis(1500));
        }
    }

    fn holds(&self) -> Outcome<Holds> {
        let status = self.client.status()?;
        let pid = self.daemon.id();
        let process = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let of = |name: &str| {
            let line = process.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        };
        // Only names of this daemon: other processes create segments, too.
        let is_its = |entry: &std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.contains("emberd") && name.contains(&pid.to_string())
        };
        let names = std::fs::read_dir("/dev/shm")
            .map_or(0, |entries| entries.flatten().filter(is_its).count());
        Ok(Holds {
            leases: status.leases.len() as u64 + status.leases_left_out,
            connections: status.connections.len() as u64,
            models: status.models.iter().map(|model| u64::from(model.copies)).sum(),
            segments: u64::from(status.segments.segments),
            segment_bytes: status.segments.segment_bytes,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            threads: of("Threads:"),
            shm_names: names as u64,
            own_bytes: of("RssAnon:") * 1024,
            resident_bytes: of("VmRSS:") * 1024,
        })
    }

    fn ends(&self) -> String {
        let ends = self.ends.iter().map(|(how, count)| format!("{count} by {how}"));
        ends.collect::<Vec<_>>().join(", ")
    }

    fn stop(&mut self) -> Outcome {
        kill(Pid::from_raw(i32::try_from(self.daemon.id())?), Signal::SIGTERM)?;
        let status = self.daemon.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the daemon ended: {status}").into()) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// One client's life.
fn client(socket: &Path, seed: u64) -> Outcome {
    let mut dice = Dice::new(seed);
    match dice.below(8) {
        0 => {
            let mut stream = UnixStream::connect(socket)?;
            let garbage: Vec<u8> =
                (0..200).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect();
            stream.write_all(&garbage)?;
            sleep(Duration::from_millis(dice.below(200) as u64));
            return Ok(());
        }
        1 => {
            // An incomplete frame.
            let mut stream = UnixStream::connect(socket)?;
            stream.write_all(&[0xed, 0xb3, 2, 1, 0, 0])?;
            sleep(Duration::from_millis(dice.below(500) as u64));
            return Ok(());
        }
        _ => {}
    }
    let client = Client::connect_to(socket)?;
    let mut held = Vec::new();
    let mut leases: Vec<EmbeddingModel> = Vec::new();
    for _ in 0..1 + dice.below(6) {
        let model = ["builtin", "table", "own", "tiny"][dice.below(4)];
        // All connections may be taken by others: a refusal is a valid answer.
        if let Ok(lease) = client.embedding_model(model) {
            leases.push(lease);
        }
        if let Some(lease) = leases.last() {
            let rows = [1, 20, 500, 3000][dice.below(4)];
            let texts: Vec<String> =
                (0..rows).map(|n| format!("text {n} of {}", dice.below(100_000))).collect();
            let rows = lease.embed(&texts)?;
            if dice.below(2) == 0 {
                held.push(rows);
            }
        }
        if dice.below(3) == 0 && !leases.is_empty() {
            let lease = leases.swap_remove(dice.below(leases.len()));
            lease.release()?;
        }
    }
    let this = Pid::this();
    match dice.below(5) {
        0 => Ok(()),
        #[expect(clippy::exit, reason = "without a word, and without a destructor")]
        1 => std::process::exit(3),
        2 => Ok(kill(this, Signal::SIGKILL)?),
        3 => {
            // In the middle of a request.
            let texts: Vec<String> =
                (0..5000).map(|n| format!("last text {n} of {seed}")).collect();
            std::thread::spawn(move || {
                sleep(Duration::from_millis(3));
                let _ = kill(this, Signal::SIGKILL);
            });
            client.generate_embeddings(&texts, "tiny")?;
            Ok(())
        }
        _ => {
            // Until it is killed.
            sleep(Duration::from_secs(60));
            Ok(())
        }
    }
}
