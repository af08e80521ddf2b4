//! A client for tests, in a process that can be killed.
//!
//! ```text
//! client_process hold SOCKET MODEL ROWS   holds a lease and rows, "held"; waits for a line
//! client_process ask-once SOCKET MODEL ROWS   no lease, "asking", sends a request; "answered"
//! client_process start SOCKET PROGRAM 0   starts PROGRAM if no daemon runs; "pid N" of the daemon
//! client_process actor SOCKET - 0         carries out commands, one a line; see `act`
//! client_process unload SOCKET MODEL 0   unloads the model
//! client_process ask SOCKET MODEL ROWS    lease, "asking", sends a request; "answered" when it has rows
//! ```
//! After a line, `hold` sums its rows again, sends another request, and says "lost CODE" or "works";
//! the same again after the next line.
#![expect(clippy::print_stdout, reason = "it speaks to the test")]

use emberd_client::{Client, StartOptions};
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;

fn say(text: &str) -> std::io::Result<()> {
    println!("{text}");
    std::io::stdout().flush()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, socket, model, rows] = args.as_slice() else {
        return Err("usage: client_process hold|ask SOCKET MODEL ROWS".into());
    };
    let texts: Vec<String> = (0..rows.parse()?).map(|n| format!("text number {n}")).collect();
    if mode == "start" {
        let start = StartOptions::default().socket(socket).program(model);
        let client = Client::builder().connect_or_start(start)?;
        return Ok(say(&format!("pid {}", client.status()?.daemon.pid))?);
    }
    // Errors must be visible.
    let client = Client::builder().repeat_requests(false).connect_to(Path::new(socket))?;
    if mode == "ask-once" {
        say("asking")?;
        client.generate_embeddings(&texts, model)?;
        return Ok(say("answered")?);
    }
    if mode == "actor" {
        return act(&client);
    }
    if mode == "unload" {
        client.unload(model)?;
        return Ok(());
    }
    let model = client.embedding_model(model)?;
    if mode == "ask" {
        say("asking")?;
        model.embed(&texts)?;
        return Ok(say("answered")?);
    }
    let held = model.embed(&texts)?;
    assert!(held.is_shared(), "the test is about shared memory");
    let before: f64 = held.as_slice().iter().map(|value| f64::from(*value)).sum();
    say("held")?;
    let mut lines = std::io::stdin().lock().lines();
    while lines.next().transpose()?.is_some() {
        let now: f64 = held.as_slice().iter().map(|value| f64::from(*value)).sum();
        assert!(now.to_bits() == before.to_bits(), "the rows changed under the view");
        match model.embed(&texts) {
            Ok(rows) => say(&format!("works {}", rows.len()))?,
            Err(emberd_client::Error::Daemon(failure)) => say(&format!("failed {}", failure.code))?,
            Err(emberd_client::Error::Transport(_)) => say("lost")?,
            Err(emberd_client::Error::Connect(_)) => say("no daemon")?,
            Err(error) => say(&format!("other: {error}"))?,
        }
    }
    Ok(())
}

/// Carries out `lease MODEL`, `release AT`, `embed AT ROWS` and `use MODEL ROWS`, and says
/// "done" or "failed CODE" to each. `AT` counts its leases from 0, including released ones.
fn act(client: &Client) -> Result<(), Box<dyn Error>> {
    let mut leases = Vec::new();
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let texts = |rows: &str| -> Result<Vec<String>, Box<dyn Error>> {
            Ok((0..rows.parse()?).map(|n| format!("text number {n}")).collect())
        };
        let done = match words.as_slice() {
            ["lease", model] => client.embedding_model(model).map(|lease| leases.push(Some(lease))),
            ["release", at] => match leases.get_mut(at.parse::<usize>()?).and_then(Option::take) {
                Some(lease) => lease.release(),
                None => return Err("no such lease".into()),
            },
            ["embed", at, rows] => {
                match leases.get(at.parse::<usize>()?).and_then(Option::as_ref) {
                    Some(lease) => lease.embed(&texts(rows)?).map(drop),
                    None => return Err("no such lease".into()),
                }
            }
            ["use", model, rows] => client.generate_embeddings(&texts(rows)?, model).map(drop),
            _ => return Err(format!("what is {line:?}?").into()),
        };
        match done {
            Ok(()) => say("done")?,
            Err(error) => match error.code() {
                Some(code) => say(&format!("failed {code}"))?,
                None => return Err(error.into()),
            },
        }
    }
    Ok(())
}
