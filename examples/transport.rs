//! The cost of moving rows from one process to another, without inference.
//!
//! A daemon whose model type answers at once is measured from another process, from the request until
//! all values are read. Its peers answer the same request over a Unix socket:
//! - length-prefixed bincode with the rows as `Vec<f32>`, in blocking loops;
//! - JSON over HTTP/1.1 as servers of embeddings do it: `scripts/peers/http` (axum, hyper);
//! - JSON over HTTP/1.1 in blocking loops without a framework, as a lower bound;
//! - for an empty request, one blocking write and read on each side.
//!
//! ```text
//! cargo run --release --example transport -- [--runs N] [--http-peer PROGRAM]
//! ```
//! Prints a table of medians, then one JSON object for each point of the curve (the same rows inline
//! and in shared memory) and for each figure.
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

use emberd_client::Client;
use emberd_daemon::Daemon;
use emberd_daemon::engine::{ComputeContext, ComputeError, EmbeddingModel, ModelSpec, Sequence};
use emberd_daemon::settings::Settings;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const DIMENSION: usize = 384;

/// Rows of a request, and how many requests one run makes.
const SIZES: [(usize, usize); 4] = [(1, 2000), (32, 1000), (1000, 200), (10_000, 20)];

/// The size at which the targets are set.
const TARGET_ROWS: usize = 1000;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [] => measure(7, None),
        ["--runs", runs] => measure(runs.parse()?, None),
        ["--runs", runs, "--http-peer", peer] => measure(runs.parse()?, Some(Path::new(peer))),
        ["serve", kind, socket] => serve(kind, socket),
        ["serve-on", core, kind, socket] => {
            pin(core.parse()?)?;
            serve(kind, socket)
        }
        _ => Err("usage: transport [--runs N [--http-peer PROGRAM]]".into()),
    }
}

// ---- the servers, each a separate process ----

fn serve(kind: &str, socket: &str) -> Outcome {
    match kind {
        "emberd" => serve_emberd(socket, ""),
        "slots" => serve_emberd(socket, "segments.inline_kib = 0\n"),
        "bincode" => serve_bincode(socket),
        "http" => serve_http(socket),
        "echo" => serve_echo(socket),
        _ => Err(format!("no server {kind}").into()),
    }
}

/// Writes prepared rows, whatever the texts.
#[derive(Debug)]
struct InstantModel {
    spec: ModelSpec,
    rows: Vec<Vec<f32>>,
}

impl EmbeddingModel for InstantModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn tokenize(&self, _text: &str) -> Result<Sequence, ComputeError> {
        Ok(Sequence::default())
    }

    fn compute_context(self: Arc<Self>) -> Box<dyn ComputeContext> {
        Box::new(Copier(self))
    }
}

struct Copier(Arc<InstantModel>);

impl ComputeContext for Copier {
    fn compute(
        &mut self,
        _batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        for (row, prepared) in rows.iter_mut().zip(self.0.rows.iter().cycle()) {
            row.copy_from_slice(prepared);
        }
        Ok(())
    }
}

/// Different rows of unit length. The same as in `scripts/peers/http`.
fn prepared_rows() -> Vec<Vec<f32>> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        #[expect(clippy::cast_precision_loss, reason = "24 bits")]
        let value = (state >> 8) as f32 / (1u32 << 23) as f32;
        value - 1.0
    };
    let row = |_| {
        let row: Vec<f32> = (0..DIMENSION).map(|_| next()).collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.into_iter().map(|x| x / norm).collect()
    };
    (0..64).map(row).collect()
}

fn serve_emberd(socket: &str, settings: &str) -> Outcome {
    let model = "models.instant.type = \"instant\"\nmodels.instant.batch_size = 1024\n";
    let text = format!("{model}{settings}");
    let settings = Settings::parse(&text, Path::new("transport"), &["instant".to_owned()])?;
    let spec = ModelSpec {
        architecture: "instant".into(),
        dimension: DIMENSION,
        max_tokens: 1,
        normalized: false,
        weight_bytes: 0,
        ..ModelSpec::default()
    };
    let model = Arc::new(InstantModel { spec, rows: prepared_rows() });
    let daemon = Daemon::builder(settings)
        .model_type("instant", move |_, _| Ok(Arc::clone(&model) as Arc<dyn EmbeddingModel>))
        .build()?;
    // As `emberd serve` does it.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let name = socket.to_fs_name::<GenericFilePath>()?;
        let listener = ListenerOptions::new().name(name).create_tokio()?;
        daemon.run(listener, std::future::pending()).await;
        Ok(())
    })
}

fn accept(socket: &str) -> Outcome<UnixStream> {
    Ok(UnixListener::bind(socket)?.accept()?.0)
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
}

fn write_message(stream: &mut UnixStream, bytes: &[u8]) -> Outcome {
    stream.write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
    Ok(stream.write_all(bytes)?)
}

fn read_message(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Outcome {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    buffer.resize(u32::from_le_bytes(len) as usize, 0);
    Ok(stream.read_exact(buffer)?)
}

fn serve_bincode(socket: &str) -> Outcome {
    let (mut stream, prepared, mut buffer) = (accept(socket)?, prepared_rows(), Vec::new());
    loop {
        read_message(&mut stream, &mut buffer)?;
        let (texts, _): (Vec<String>, usize) =
            bincode::serde::decode_from_slice(&buffer, config())?;
        let rows = prepared.iter().cycle().take(texts.len()).flatten();
        let rows: Vec<f32> = rows.copied().collect();
        write_message(&mut stream, &bincode::serde::encode_to_vec(&rows, config())?)?;
    }
}

fn serve_http(socket: &str) -> Outcome {
    let (stream, prepared) = (accept(socket)?, prepared_rows());
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let body = read_http(&mut reader)?;
        let texts: Vec<String> = serde_json::from_slice(&body)?;
        let rows: Vec<_> = prepared.iter().cycle().take(texts.len()).collect();
        let body = serde_json::to_vec(&rows)?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
    }
}

/// Reads the head and the body of a request or a reply.
fn read_http(reader: &mut BufReader<UnixStream>) -> Outcome<Vec<u8>> {
    let mut len = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err("the peer has gone".into());
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            len = value.trim().parse()?;
        }
        if line == "\r\n" {
            let mut body = vec![0; len];
            reader.read_exact(&mut body)?;
            return Ok(body);
        }
    }
}

/// The size of an empty request of ours, echoed.
const EMPTY_BYTES: usize = 28;

fn serve_echo(socket: &str) -> Outcome {
    let mut stream = accept(socket)?;
    let mut message = [0; EMPTY_BYTES];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

// ---- the measuring process ----

/// A server that ends with the measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself when its client left.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, args: &[&str], socket: &Path) -> Outcome<Server> {
    let server = Server(Command::new(program).args(args).arg(socket).spawn()?);
    for _ in 0..1000 {
        if socket.exists() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(format!("{} {args:?} did not start", program.display()).into())
}

fn sum(values: &[f32]) -> f32 {
    // Eight sums in parallel: reading then costs what memory costs, not what additions cost.
    let mut sums = [0.0f32; 16];
    for chunk in values.chunks_exact(16) {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += value;
        }
    }
    sums.iter().sum()
}

/// Microseconds of the median request.
fn median(mut request: impl FnMut() -> Outcome, count: usize) -> Outcome<f64> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count / 10 + 2 {
        request()?;
    }
    for _ in 0..count {
        let started = Instant::now();
        request()?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    Ok(middle(&mut times))
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Peers {
    emberd: emberd_client::EmbeddingModel,
    bincode: UnixStream,
    http: UnixStream,
    http_reader: BufReader<UnixStream>,
}

impl Peers {
    fn emberd(&self, texts: &[String]) -> Outcome {
        let rows = self.emberd.embed(texts)?;
        check(rows.as_slice(), texts.len())
    }

    fn bincode(&mut self, texts: &[String], buffer: &mut Vec<u8>) -> Outcome {
        write_message(&mut self.bincode, &bincode::serde::encode_to_vec(texts, config())?)?;
        read_message(&mut self.bincode, buffer)?;
        let (rows, _): (Vec<f32>, usize) = bincode::serde::decode_from_slice(buffer, config())?;
        check(&rows, texts.len())
    }

    fn http(&mut self, texts: &[String]) -> Outcome {
        let body = serde_json::to_vec(texts)?;
        write!(
            self.http,
            "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        self.http.write_all(&body)?;
        let rows: Vec<Vec<f32>> = serde_json::from_slice(&read_http(&mut self.http_reader)?)?;
        let total: f32 = rows.iter().map(|row| sum(row)).sum();
        check_sum(total, rows.len() * DIMENSION, texts.len())
    }
}

fn check(values: &[f32], rows: usize) -> Outcome {
    check_sum(sum(values), values.len(), rows)
}

fn check_sum(total: f32, values: usize, rows: usize) -> Outcome {
    if values == rows * DIMENSION && total.is_finite() {
        return Ok(());
    }
    Err(format!("{values} values came for {rows} rows").into())
}

/// Medians of each run, in microseconds.
#[derive(Default)]
struct Runs {
    emberd: Vec<f64>,
    bincode: Vec<f64>,
    http: Vec<f64>,
    bare_http: Vec<f64>,
}

fn measure(runs: usize, http_peer: Option<&Path>) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let this = std::env::current_exe()?;
    let mut servers = Vec::new();
    for kind in ["emberd", "bincode", "http"] {
        servers.push(start(&this, &["serve", kind], &path(kind))?);
    }
    if let Some(peer) = http_peer {
        servers.push(start(peer, &["serve"], &path("axum"))?);
    }
    let http = |rows: usize, count: usize| -> Outcome<Option<f64>> {
        let Some(peer) = http_peer else { return Ok(None) };
        let args = [rows.to_string(), count.to_string()];
        let output = Command::new(peer).arg("measure").arg(path("axum")).args(args).output()?;
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout)
            .map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(figures["median_us"].as_f64())
    };
    let bare_http = UnixStream::connect(path("http"))?;
    let mut peers = Peers {
        emberd: Client::connect_to(path("emberd"))?.embedding_model("instant")?,
        bincode: UnixStream::connect(path("bincode"))?,
        http_reader: BufReader::new(bare_http.try_clone()?),
        http: bare_http,
    };

    println!("median microseconds from request to all values read");
    println!(
        "{:>8} {:>12} {:>12} {:>12} {:>16}",
        "rows", "emberd", "bincode", "JSON/HTTP", "JSON, bare loop"
    );
    let mut figures = Vec::new();
    for (rows, count) in SIZES {
        let texts: Vec<String> = (0..rows).map(|n| format!("text {n}")).collect();
        let mut all = Runs::default();
        let mut buffer = Vec::new();
        for _ in 0..runs {
            all.emberd.push(median(|| peers.emberd(&texts), count)?);
            all.bincode.push(median(|| peers.bincode(&texts, &mut buffer), count)?);
            all.bare_http.push(median(|| peers.http(&texts), (count / 10).max(2))?);
            all.http.extend(http(rows, (count / 10).max(2))?);
        }
        let ours = middle(&mut all.emberd);
        let bincode = middle(&mut all.bincode);
        let bare = middle(&mut all.bare_http);
        let http = (!all.http.is_empty()).then(|| middle(&mut all.http));
        let shown = http.map_or("-".to_owned(), |us| format!("{us:.1}"));
        println!("{rows:>8} {ours:>12.1} {bincode:>12.1} {shown:>12} {bare:>16.1}");
        if rows == TARGET_ROWS {
            let name = "transport_rows_1000";
            figures.push(figure(name, ours, bincode, "bincode Vec<f32>", 8.0, runs));
            if let Some(http) = http {
                let peer = "JSON over HTTP (axum, hyper)";
                figures.push(figure("transport_rows_1000_json", ours, http, peer, 100.0, runs));
            }
        }
    }
    drop(peers);
    drop(servers);
    figures.push(empty(runs, folder.path())?);
    for line in threshold(runs, folder.path())?.into_iter().chain(figures) {
        println!("{line}");
    }
    Ok(())
}

/// A request without texts, compared with as many bytes there and back over a bare socket.
///
/// Both are measured on one core and on two: waking a process on another core costs more than
/// everything else (most of all in a virtual machine), and the system places them by chance. The
/// figure is the worse of the two ratios.
fn empty(runs: usize, folder: &Path) -> Outcome<serde_json::Value> {
    let this = std::env::current_exe()?;
    let everywhere = sched_getaffinity(Pid::from_raw(0))?;
    let cores: Vec<usize> =
        (0..CpuSet::count()).filter(|core| everywhere.is_set(*core).unwrap_or(false)).collect();
    let here = *cores.first().ok_or("no core")?;
    let mut worst = None;
    for (place, core) in [("one core", Some(&here)), ("two cores", cores.get(1))] {
        let Some(core) = core else { continue };
        let path = |kind: &str| folder.join(format!("{kind}-{core}"));
        let core = core.to_string();
        let _servers = [
            start(&this, &["serve-on", &core, "emberd"], &path("emberd"))?,
            start(&this, &["serve-on", &core, "echo"], &path("echo"))?,
        ];
        pin(here)?;
        let client = Client::connect_to(path("emberd"))?;
        let mut echo = UnixStream::connect(path("echo"))?;
        let mut bare_round_trip = || -> Outcome {
            let mut message = [1; EMPTY_BYTES];
            echo.write_all(&message)?;
            Ok(echo.read_exact(&mut message)?)
        };
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            ours.push(median(|| Ok(client.ping()?), 5000)?);
            bare.push(median(&mut bare_round_trip, 5000)?);
        }
        sched_setaffinity(Pid::from_raw(0), &everywhere)?;
        let (ours, bare) = (middle(&mut ours), middle(&mut bare));
        println!("   empty {ours:>12.1} {bare:>12.1} (bare blocking round trip; {place})");
        if worst.is_none_or(|(ours_before, bare_before)| bare / ours < bare_before / ours_before) {
            worst = Some((ours, bare));
        }
    }
    let (ours, bare) = worst.ok_or("no core")?;
    Ok(figure("transport_empty", ours, bare, "bare Unix socket round trip", 1.0 / 3.0, runs))
}

/// From which size shared memory pays off: the same results inline and in slots, on one core.
fn threshold(runs: usize, folder: &Path) -> Outcome<Vec<serde_json::Value>> {
    let this = std::env::current_exe()?;
    let everywhere = sched_getaffinity(Pid::from_raw(0))?;
    let here = (0..CpuSet::count()).find(|core| everywhere.is_set(*core).unwrap_or(false));
    let core = here.ok_or("no core")?.to_string();
    let socket = folder.join("slots");
    let _server = start(&this, &["serve-on", &core, "slots"], &socket)?;
    pin(core.parse()?)?;
    let slots = Client::connect_to(&socket)?.embedding_model("instant")?;
    let inline = Client::builder().inline_only().connect_to(&socket)?;
    let inline = inline.embedding_model("instant")?;
    println!("\nthe same rows inline and in shared memory, on one core");
    println!("{:>8} {:>8} {:>12} {:>12}", "rows", "KiB", "inline", "shared");
    let mut curve = Vec::new();
    for rows in [1usize, 2, 5, 10, 16, 21, 32, 64, 128, 256, 1000] {
        let texts: Vec<String> = (0..rows).map(|n| format!("text {n}")).collect();
        let (mut with_inline, mut with_slots) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            for (model, times) in [(&inline, &mut with_inline), (&slots, &mut with_slots)] {
                let request = || check(model.embed(&texts)?.as_slice(), rows);
                times.push(median(request, 1000)?);
            }
        }
        let kib = rows * DIMENSION * size_of::<f32>() / 1024;
        let (with_inline, with_slots) = (middle(&mut with_inline), middle(&mut with_slots));
        println!("{rows:>8} {kib:>8} {with_inline:>12.1} {with_slots:>12.1}");
        for (who, us) in [("inline", with_inline), ("shared", with_slots)] {
            curve.push(json!({"value": us, "who": who, "metric": format!("{kib} KiB, us")}));
        }
    }
    sched_setaffinity(Pid::from_raw(0), &everywhere)?;
    Ok(curve)
}

fn pin(core: usize) -> Outcome {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn figure(
    name: &str,
    ours: f64,
    peer: f64,
    peer_name: &str,
    target: f64,
    runs: usize,
) -> serde_json::Value {
    json!({
        "figure": name, "ours": ours, "peer": peer, "peer_name": peer_name,
        "ratio": peer / ours, "unit": "us, median", "runs": runs, "target": target,
    })
}
