//! The program behind `scripts/quickstart`: starts a daemon on a private socket, lets three client
//! processes share its model, and prints the results. It leaves nothing behind.
//!
//! ```text
//! quickstart --daemon PATH [--model-dir DIR] [FILE | -]
//! quickstart client SOCKET MODEL           one of the three; lines on standard input
//! ```
#![expect(clippy::print_stderr, reason = "it is written to be read")]

use emberd_client::{Client, GenerateOptions};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::error::Error;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const CLIENTS: usize = 3;

/// Lines that each process embeds one by one, as an interactive program would.
const SINGLE_LINES: usize = 16;

/// Lines that it embeds together afterwards, as an indexer would.
const BATCH_LINES: usize = 256;

/// Matches shown for a question.
const MATCHES: usize = 3;

/// The largest number that the built-in text model knows.
const LARGEST_NUMBER: usize = 999_999;

const QUESTIONS: [&str; 5] = [
    "make a file smaller",
    "talk to another computer safely",
    "show pictures",
    "find mistakes in my program",
    "what time is it anywhere in the world",
];

/// Processes that must not outlive this one.
static STARTED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.as_slice() {
        [mode, socket, model] if mode == "client" => client(Path::new(socket), model),
        _ => Options::parse(args).and_then(|options| run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A closed pipe (`scripts/quickstart | head`) is not a failure.
        Err(error) if is_closed_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn started() -> MutexGuard<'static, Vec<Pid>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP stop the started processes, remove the folder, and end this
/// process. Call it before any thread exists: threads inherit the signals that are blocked here.
/// (Started processes do not: the standard library unblocks all signals for them.)
fn clean_up_on_signals(folder: &Path) -> Outcome {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    let folder = folder.to_owned();
    thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        // Held until the end, so that nothing more is started.
        let started = started();
        for pid in started.iter() {
            // Some may have ended already.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        // If it cannot be removed, nothing can be done about it here.
        let _ = std::fs::remove_dir_all(&folder);
        eprintln!("quickstart: stopped by {signal}");
        #[expect(clippy::exit, reason = "main may be waiting for what was just ended")]
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}

/// Starts a process that ends with this one.
fn start(command: &mut Command) -> Outcome<Child> {
    let mut started = started();
    let child = command.spawn()?;
    started.push(Pid::from_raw(i32::try_from(child.id())?));
    Ok(child)
}

struct Options {
    daemon: PathBuf,
    model_dir: Option<PathBuf>,
    input: Option<String>,
}

impl Options {
    fn parse(args: Vec<String>) -> Outcome<Self> {
        let (mut daemon, mut model_dir, mut input) = (None, None, None);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--daemon" => daemon = Some(value()?.into()),
                "--model-dir" => model_dir = Some(value()?.into()),
                _ => input = Some(arg),
            }
        }
        Ok(Self { daemon: daemon.ok_or("--daemon is missing")?, model_dir, input })
    }
}

fn run(options: &Options) -> Outcome {
    let (lines, origin) = lines(options.input.as_deref())?;
    writeln!(stdout(), "{} lines: {origin}", lines.len())?;
    let shared_before = shared_memory_entries();
    let folder = tempfile::Builder::new().prefix("emberd-quickstart.").tempdir()?;
    clean_up_on_signals(folder.path())?;
    let socket = folder.path().join("emberd.sock");
    let mut daemon = Daemon::start(options, &socket)?;
    let pid = daemon.child.id();
    let model = if options.model_dir.is_some() { "minilm" } else { "builtin" };
    writeln!(stdout(), "daemon: process {pid} on {}, model \"{model}\"", socket.display())?;

    let started = Instant::now();
    let reports = share(&lines, &socket, model)?;
    let seconds = started.elapsed().as_secs_f64();
    let status = Client::connect_to(&socket)?.status()?;
    let loaded = status.models.iter().find(|m| m.id.as_str() == model).ok_or("no such model")?;

    writeln!(
        stdout(),
        "\n{:<22} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "process",
        "inline",
        "shared",
        "rows",
        "rows/s",
        "memory"
    )?;
    for report in &reports {
        let number = |key: &str| report[key].as_u64().unwrap_or(0);
        writeln!(
            stdout(),
            "{:<22} {:>8} {:>8} {:>8} {:>9.0} {:>9}",
            format!("client {}", number("pid")),
            number("inline"),
            number("shared"),
            number("inline") + number("shared"),
            report["rows_s"].as_f64().unwrap_or(0.0),
            mib(number("memory")),
        )?;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    let rate = (loaded.rows_inline + loaded.rows_shared) as f64 / seconds;
    writeln!(
        stdout(),
        "{:<22} {:>8} {:>8} {:>8} {:>9.0} {:>9}",
        format!("daemon {pid}"),
        loaded.rows_inline,
        loaded.rows_shared,
        loaded.rows_inline + loaded.rows_shared,
        rate,
        mib(memory(pid)),
    )?;
    writeln!(
        stdout(),
        "\nThe model was loaded {} ({} ms, {} of weights) for {} processes.",
        if loaded.loads == 1 { "once".to_owned() } else { format!("{} times", loaded.loads) },
        loaded.load_ms,
        mib(loaded.info.as_ref().map_or(0, |info| info.weight_bytes)),
        reports.len(),
    )?;
    writeln!(
        stdout(),
        "Of the daemon's rows {} were computed; {} were known from the same text before.",
        loaded.texts,
        loaded.texts_cached
    )?;
    writeln!(
        stdout(),
        "Beside their lines, each process embedded the {} questions. Memory: proportional set size.",
        QUESTIONS.len()
    )?;
    search(&reports)?;
    texts(&socket, lines.len())?;

    let ended = daemon.stop()?;
    let mut left = Vec::new();
    if socket.exists() {
        left.push(format!("socket {}", socket.display()));
    }
    if Path::new(&format!("/proc/{pid}")).exists() {
        left.push(format!("process {pid}"));
    }
    for entry in shared_memory_entries() {
        if !shared_before.contains(&entry) && entry.contains("emberd") {
            left.push(format!("segment {entry}"));
        }
    }
    if !ended.success() || !left.is_empty() {
        return Err(format!("the daemon ended with {ended}; left behind: {left:?}").into());
    }
    writeln!(
        stdout(),
        "\nThe daemon has stopped. Left behind: no process, no socket, no segment."
    )?;
    Ok(())
}

/// The daemon's process, ended with this value.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(options: &Options, socket: &Path) -> Outcome<Self> {
        let log = socket.with_extension("log");
        let mut command = Command::new(&options.daemon);
        command.args(["serve", "--socket"]).arg(socket).arg("--log-file").arg(&log);
        command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        // Ignores the user's own settings.
        command.env("XDG_CONFIG_HOME", socket.with_extension("none"));
        if let Some(folder) = &options.model_dir {
            let mut model = std::ffi::OsString::from("minilm=");
            model.push(folder);
            command.arg("--model").arg(model);
        }
        let mut daemon = Self { child: start(command.stdin(Stdio::null()))? };
        let deadline = Instant::now() + Duration::from_secs(30);
        while Client::connect_to(socket).is_err() {
            if daemon.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the daemon did not start:\n{log}").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }

    fn stop(&mut self) -> Outcome<ExitStatus> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives each client process a share of the lines and collects what it reports.
fn share(lines: &[String], socket: &Path, model: &str) -> Outcome<Vec<Value>> {
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} lines, {per_sec}")?;
        ProgressBar::new(lines.len() as u64).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut threads = Vec::new();
    for number in 0..CLIENTS {
        let bound = |number| lines.len() * number / CLIENTS;
        let lines = &lines[bound(number)..bound(number + 1)];
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("client").arg(socket).arg(model);
        let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (mut input, output) =
            child.stdin.take().zip(child.stdout.take()).ok_or("no pipes to the client")?;
        let (text, bar) = (lines.join("\n"), bar.clone());
        threads.push(thread::spawn(move || -> Result<Value, String> {
            let failed = |error: std::io::Error| error.to_string();
            input.write_all(text.as_bytes()).map_err(failed)?;
            drop(input);
            let mut report = Value::Null;
            for line in BufReader::new(output).lines() {
                let line = line.map_err(failed)?;
                report = serde_json::from_str(&line).map_err(|error| error.to_string())?;
                bar.inc(report["done"].as_u64().unwrap_or(0));
            }
            let status = child.wait().map_err(failed)?;
            if !status.success() {
                return Err(format!("a client ended with {status}"));
            }
            Ok(report)
        }));
    }
    let reports: Result<Vec<_>, String> = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
        .collect();
    bar.finish_and_clear();
    Ok(reports?)
}

/// One of the processes: a lease, its share of the lines, and its best matches.
fn client(socket: &Path, model: &str) -> Outcome {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let lines: Vec<&str> = text.lines().collect();
    let model = Client::connect_to(socket)?.embedding_model(model)?;
    let questions = model.embed(&QUESTIONS)?;
    let mut matches = vec![Vec::new(); QUESTIONS.len()];
    let started = Instant::now();
    let (mut inline, mut shared) = (0, 0);
    let (single, together) = lines.split_at(lines.len().min(SINGLE_LINES));
    for batch in single.chunks(1).chain(together.chunks(BATCH_LINES)) {
        let rows = model.embed(batch)?;
        *if rows.is_shared() { &mut shared } else { &mut inline } += rows.len();
        for (question, best) in questions.rows().zip(&mut matches) {
            // Rows have unit length: the dot product is the cosine. They are read in place.
            let scores = rows.rows().map(|row| dot(question, row));
            best.extend(scores.zip(batch.iter().map(|line| (*line).to_owned())));
            best.sort_by(|a: &(f32, String), b| b.0.total_cmp(&a.0));
            best.truncate(MATCHES);
        }
        writeln!(stdout(), "{}", json!({"done": batch.len()}))?;
    }
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count of lines")]
    let rows_s = lines.len() as f64 / seconds;
    let pid = std::process::id();
    writeln!(
        stdout(),
        "{}",
        json!({
            "pid": pid, "inline": inline, "shared": shared, "rows_s": rows_s,
            "memory": memory(pid), "matches": matches,
        })
    )?;
    Ok(())
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn search(reports: &[Value]) -> Outcome {
    writeln!(stdout(), "\nSearch by meaning:")?;
    for (number, question) in QUESTIONS.iter().enumerate() {
        let found = reports.iter().flat_map(|report| report["matches"][number].as_array());
        let mut found: Vec<_> = found
            .flatten()
            .filter_map(|found| Some((found[0].as_f64()?, found[1].as_str()?)))
            .collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        writeln!(stdout(), "\n  {question}")?;
        for (score, line) in found.into_iter().take(MATCHES) {
            let line: String = line.chars().take(90).collect();
            writeln!(stdout(), "    {score:.2}  {line}")?;
        }
    }
    Ok(())
}

/// Text from text, with the small T5 that is built into the program. Its answers can be checked: what it
/// spells out it can turn back into digits.
fn texts(socket: &Path, count: usize) -> Outcome {
    let model = Client::connect_to(socket)?.text_model("builtin-t5")?;
    let options = GenerateOptions::default();
    writeln!(stdout(), "\nText from text, by \"builtin-t5\" in the same daemon:\n")?;
    let ask = |question: String| -> Outcome<String> {
        write!(stdout(), "  {question} -> ")?;
        let answer = model.generate_with(&[question], &options, |piece| {
            // Printed as it is generated. A closed output is noticed at the end of the line.
            let _ = write!(stdout(), "{}", piece.piece).and_then(|()| stdout().flush());
        })?;
        writeln!(stdout())?;
        let text =
            answer.texts.into_iter().next().and_then(|text| text.sequences.into_iter().next());
        Ok(text.ok_or("an answer without a text")?.text)
    };
    let spelled = ask(format!("spell: {}", count.min(LARGEST_NUMBER)))?;
    ask(format!("number: {spelled}"))?;
    ask("date: March 3, 2021".to_owned())?;
    Ok(())
}

/// The lines to embed, and a description of them.
fn lines(input: Option<&str>) -> Outcome<(Vec<String>, String)> {
    let given = match input {
        Some("-") => Some((read_all(std::io::stdin())?, "standard input".to_owned())),
        Some(file) => {
            let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            Some((bytes, file.to_owned()))
        }
        None => None,
    };
    let sources: [(&str, &[&str], &str); 2] = [
        (
            "dpkg-query",
            &["-W", "-f", "${Package}: ${binary:Summary}\\n"],
            "this machine's packages",
        ),
        ("man", &["-k", "."], "this machine's manual pages"),
    ];
    let sources = if given.is_some() { &sources[..0] } else { &sources[..] };
    let installed = sources.iter().filter_map(|(program, args, name)| {
        let output = Command::new(program).args(*args).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| (output.stdout, (*name).to_owned()))
    });
    for (text, name) in given.into_iter().chain(installed) {
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> =
            text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned).collect();
        if !lines.is_empty() {
            return Ok((lines, name));
        }
        eprintln!("{name}: no lines");
    }
    Err("there is no text to embed: name a file, or pass - and lines on standard input".into())
}

fn read_all(mut input: impl Read) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Memory of a process in bytes, its share of shared pages counted (proportional set size).
fn memory(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{mib:.1} MiB")
}

fn shared_memory_entries() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
