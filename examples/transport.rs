//! What it costs to bring rows from one process to another, without any inference.
//!
//! A daemon with a model type that answers at once is measured from another process, request to
//! all values read, beside three peers that answer the same request over a Unix socket:
//! length-prefixed bincode with the rows as `Vec<f32>`, JSON over HTTP/1.1, and (for an empty
//! request) one blocking write and read on each side. Every peer is a blocking loop without
//! framework, so each is as fast as its encoding allows.
//!
//! ```text
//! cargo run --release --example transport -- [--runs N]
//! ```
//! Prints a table of medians, then one JSON object for each figure.
#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

use emberd_client::Client;
use emberd_daemon::Daemon;
use emberd_daemon::engine::model::{ComputeError, Computer, EmbeddingModel, ModelCard, Sequence};
use emberd_daemon::settings::Settings;
use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
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
        [] => measure(7),
        ["--runs", runs] => measure(runs.parse()?),
        ["serve", "emberd", socket] => serve_emberd(socket),
        ["serve", "bincode", socket] => serve_bincode(socket),
        ["serve", "http", socket] => serve_http(socket),
        ["serve", "echo", socket] => serve_echo(socket),
        _ => Err("usage: transport [--runs N]".into()),
    }
}

// ---- the servers, each a process of its own ----

/// Writes one prepared row, whatever the text.
#[derive(Debug)]
struct InstantModel {
    card: ModelCard,
    row: Vec<f32>,
}

impl EmbeddingModel for InstantModel {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn encode(&self, _text: &str) -> Result<Sequence, ComputeError> {
        Ok(Sequence::default())
    }

    fn computer(self: Arc<Self>) -> Box<dyn Computer> {
        Box::new(Copier(self))
    }
}

struct Copier(Arc<InstantModel>);

impl Computer for Copier {
    fn compute(
        &mut self,
        _batch: &[&Sequence],
        rows: &mut [&mut [f32]],
    ) -> Result<(), ComputeError> {
        for row in rows {
            row.copy_from_slice(&self.0.row);
        }
        Ok(())
    }
}

fn prepared_row() -> Vec<f32> {
    (0..DIMENSION).map(|n| f32::from(u16::try_from(n).unwrap_or(0)) / 384.0).collect()
}

fn serve_emberd(socket: &str) -> Outcome {
    let text = "models.instant.type = \"instant\"\nmodels.instant.batch_size = 1024\n";
    let settings = Settings::parse(text, Path::new("transport"), &["instant".to_owned()])?;
    let card = ModelCard {
        architecture: "instant".into(),
        dimension: DIMENSION,
        max_tokens: 1,
        normalized: false,
        weight_bytes: 0,
    };
    let model = Arc::new(InstantModel { card, row: prepared_row() });
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
    let (mut stream, row, mut buffer) = (accept(socket)?, prepared_row(), Vec::new());
    loop {
        read_message(&mut stream, &mut buffer)?;
        let (texts, _): (Vec<String>, usize) =
            bincode::serde::decode_from_slice(&buffer, config())?;
        let rows = row.repeat(texts.len());
        write_message(&mut stream, &bincode::serde::encode_to_vec(&rows, config())?)?;
    }
}

fn serve_http(socket: &str) -> Outcome {
    let (stream, row) = (accept(socket)?, prepared_row());
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let body = read_http(&mut reader)?;
        let texts: Vec<String> = serde_json::from_slice(&body)?;
        let rows = vec![&row; texts.len()];
        let body = serde_json::to_vec(&rows)?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
    }
}

/// Reads head and body of a request or a reply.
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

fn start(kind: &str, socket: &Path) -> Outcome<Server> {
    let program = std::env::current_exe()?;
    let server = Server(Command::new(program).args(["serve", kind]).arg(socket).spawn()?);
    for _ in 0..1000 {
        if socket.exists() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(format!("the {kind} server did not start").into())
}

fn sum(values: &[f32]) -> f32 {
    // Eight sums side by side: the reading costs what memory costs, not what additions cost.
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
    client: Client,
    bincode: UnixStream,
    http: UnixStream,
    http_reader: BufReader<UnixStream>,
    echo: UnixStream,
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

    fn echo(&mut self) -> Outcome {
        let mut message = [1; EMPTY_BYTES];
        self.echo.write_all(&message)?;
        Ok(self.echo.read_exact(&mut message)?)
    }
}

fn check(values: &[f32], rows: usize) -> Outcome {
    check_sum(sum(values), values.len(), rows)
}

fn check_sum(total: f32, values: usize, rows: usize) -> Outcome {
    if values == rows * DIMENSION && total > 0.0 {
        return Ok(());
    }
    Err(format!("{values} values came for {rows} rows").into())
}

fn measure(runs: usize) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let mut servers = Vec::new();
    for kind in ["emberd", "bincode", "http", "echo"] {
        servers.push(start(kind, &path(kind))?);
    }
    let client = Client::connect_to(path("emberd"))?;
    let http = UnixStream::connect(path("http"))?;
    let mut peers = Peers {
        emberd: client.embedding_model("instant")?,
        client,
        bincode: UnixStream::connect(path("bincode"))?,
        http_reader: BufReader::new(http.try_clone()?),
        http,
        echo: UnixStream::connect(path("echo"))?,
    };

    println!(
        "{:>8} {:>14} {:>14} {:>14}   median microseconds",
        "rows", "emberd", "bincode", "JSON/HTTP"
    );
    let mut figures = Vec::new();
    for (rows, count) in SIZES {
        let texts: Vec<String> = (0..rows).map(|n| format!("text {n}")).collect();
        let (mut ours, mut bincode, mut http) = (Vec::new(), Vec::new(), Vec::new());
        let mut buffer = Vec::new();
        for _ in 0..runs {
            ours.push(median(|| peers.emberd(&texts), count)?);
            bincode.push(median(|| peers.bincode(&texts, &mut buffer), count)?);
            http.push(median(|| peers.http(&texts), (count / 10).max(2))?);
        }
        let medians = [middle(&mut ours), middle(&mut bincode), middle(&mut http)];
        println!("{rows:>8} {:>14.1} {:>14.1} {:>14.1}", medians[0], medians[1], medians[2]);
        if rows == TARGET_ROWS {
            figures.push(figure(
                "transport_rows_1000",
                medians[0],
                medians[1],
                "bincode Vec<f32>",
                runs,
            ));
            figures.push(figure(
                "transport_rows_1000_json",
                medians[0],
                medians[2],
                "JSON over HTTP",
                runs,
            ));
        }
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(median(|| Ok(peers.client.ping()?), 5000)?);
        bare.push(median(|| peers.echo(), 5000)?);
    }
    let (ours, bare) = (middle(&mut ours), middle(&mut bare));
    println!("{:>8} {ours:>14.1} {bare:>14.1} (bare blocking round trip)", "empty");
    figures.push(figure("transport_empty", ours, bare, "bare Unix socket round trip", runs));
    for figure in figures {
        println!("{figure}");
    }
    Ok(())
}

fn figure(name: &str, ours: f64, peer: f64, peer_name: &str, runs: usize) -> serde_json::Value {
    json!({
        "figure": name, "ours": ours, "peer": peer, "peer_name": peer_name,
        "ratio": peer / ours, "unit": "us, median", "runs": runs,
    })
}
