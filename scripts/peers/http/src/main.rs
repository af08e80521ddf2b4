//! Rows of 384 values as JSON over HTTP/1.1 on a Unix socket: an axum server, a hyper client.
//!
//! ```text
//! http-peer serve SOCKET
//! http-peer measure SOCKET ROWS COUNT      median microseconds of COUNT requests, one JSON line
//! ```
use anyhow::{Context, Result, bail, ensure};
use axum::{Json, Router, extract::DefaultBodyLimit, routing::post};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::{UnixListener, UnixStream};

const DIMENSION: usize = 384;

/// Different rows, of length 1. The same as in `examples/transport.rs`.
fn prepared_rows() -> Vec<Vec<f32>> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let row = |_| {
        let row: Vec<f32> = (0..DIMENSION).map(|_| next()).collect();
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.into_iter().map(|x| x / norm).collect()
    };
    (0..64).map(row).collect()
}

async fn serve(socket: &str) -> Result<()> {
    let rows = Arc::new(prepared_rows());
    let embed = move |Json(texts): Json<Vec<String>>| async move {
        Json((0..texts.len()).map(|at| rows[at % rows.len()].clone()).collect::<Vec<_>>())
    };
    let router = Router::new().route("/embed", post(embed)).layer(DefaultBodyLimit::disable());
    Ok(axum::serve(UnixListener::bind(socket)?, router).await?)
}

async fn request(sender: &mut SendRequest<Full<Bytes>>, texts: &[String]) -> Result<()> {
    let request = hyper::Request::post("/embed")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(texts)?)))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    let rows: Vec<Vec<f32>> = serde_json::from_slice(&body)?;
    let total: f32 = rows.iter().flatten().sum();
    ensure!(rows.len() == texts.len() && total.is_finite(), "other rows than asked for");
    Ok(())
}

async fn measure(socket: &str, rows: usize, count: usize) -> Result<()> {
    let stream = UnixStream::connect(socket).await.context("no server")?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let texts: Vec<String> = (0..rows).map(|n| format!("text {n}")).collect();
    for _ in 0..count / 10 + 2 {
        request(&mut sender, &texts).await?;
    }
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let started = Instant::now();
        request(&mut sender, &texts).await?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    println!("{{\"median_us\": {}}}", times[times.len() / 2]);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", socket] => serve(socket).await,
        ["measure", socket, rows, count] => measure(socket, rows.parse()?, count.parse()?).await,
        _ => bail!("usage: http-peer serve SOCKET | measure SOCKET ROWS COUNT"),
    }
}
