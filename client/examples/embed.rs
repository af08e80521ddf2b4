//! Embeds a few texts and shows how alike they are.
//!
//! ```text
//! emberd serve &
//! cargo run -p emberd-client --example embed -- [MODEL]
//! ```
#![expect(clippy::print_stdout, reason = "it is written to be read")]

use emberd_client::{Client, Error};

const TEXTS: [&str; 4] = [
    "The cat sleeps on the sofa.",
    "A kitten naps on the couch.",
    "Rust programs manage memory without a collector.",
    "The stock market fell sharply today.",
];

fn main() -> Result<(), Error> {
    let id = std::env::args().nth(1).unwrap_or_else(|| "embedding".into());

    let client = Client::connect()?;
    let model = client.embedding_model(&id)?; // a lease: loaded once, shared by all processes
    let rows = model.embed(&TEXTS)?; // one row for each text, read where the daemon wrote it

    for (one, text) in rows.rows().zip(TEXTS) {
        for other in rows.rows() {
            print!("{:6.3}", cosine(one, other));
        }
        println!("  {text}");
    }
    Ok(())
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}
