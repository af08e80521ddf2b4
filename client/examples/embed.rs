//! Embeds a few texts and shows which of them are similar.
//!
//! ```text
//! emberd serve --detach
//! cargo run -p emberd-client --example embed
//! ```
#![expect(clippy::print_stdout, reason = "it is written to be read")]

use emberd_client::Client;

fn main() -> Result<(), emberd_client::Error> {
    let texts = [
        "how to bake bread",
        "a recipe for a sourdough loaf",
        "the train to Vienna leaves at nine",
        "when does the next train go?",
    ];
    let client = Client::connect()?;
    let model = client.embedding_model("builtin")?;
    let vectors = model.embed(&texts)?;

    // Rows of this model have unit length, so the dot product of two is their cosine.
    for (text, row) in texts.iter().zip(vectors.rows()) {
        let near = texts.iter().zip(vectors.rows()).filter(|(other, _)| *other != text);
        let cosine = |other: &[f32]| row.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let best = near.map(|(other, row)| (cosine(row), other)).max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((cosine, other)) = best {
            println!("{text:?} is nearest to {other:?} ({cosine:.2})");
        }
    }
    Ok(())
}
