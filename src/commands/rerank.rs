//! `emberd rerank`: documents sorted by how well they match a query.

use super::connect;
use super::texts::{self, next_batch, warn_truncated};
use crate::args::Rerank;
use crate::exit::CommandError;
use crate::output;
use emberd_client::ScoreActivation;
use serde::Serialize;

/// Documents sent in one request.
const BATCH: usize = 256;

pub(super) fn run(args: &Rerank) -> Result<(), CommandError> {
    let documents = texts::read(&args.documents, args.file.as_deref())?;
    let model = connect(&args.socket)?.rerank_model(args.model.as_str())?;
    let (mut labels, mut truncated) = (model.info().labels, 0);
    let mut scored: Vec<Scored> = Vec::with_capacity(documents.len());
    while scored.len() < documents.len() {
        let batch = next_batch(&documents[scored.len()..], BATCH);
        let pairs: Vec<_> = batch.iter().map(|document| (&args.query, document)).collect();
        let scores = model.scores(&pairs, ScoreActivation::Model)?;
        truncated += scores.truncated().len();
        let first = scored.len();
        let rows = scores.rows().enumerate();
        scored.extend(rows.map(|(n, row)| Scored { index: first + n, scores: row.to_vec() }));
        labels = scores.labels().to_vec();
    }
    if labels.len() == 1 {
        scored.sort_by(|a, b| b.scores[0].total_cmp(&a.scores[0]));
    }
    scored.truncate(args.top.unwrap_or(usize::MAX));
    if args.json {
        for Scored { index, scores } in &scored {
            let document = &documents[*index];
            output::json_line(&RerankLine { index: *index, document, labels: &labels, scores })?;
        }
    } else {
        write_table(&labels, &documents, &scored)?;
    }
    warn_truncated(truncated, documents.len(), args.model.as_str(), model.info().max_tokens);
    Ok(())
}

/// A document and its scores, one for each label of the model.
struct Scored {
    index: usize,
    scores: Vec<f32>,
}

#[derive(Serialize)]
struct RerankLine<'a> {
    index: usize,
    document: &'a str,
    labels: &'a [String],
    scores: &'a [f32],
}

fn write_table(
    labels: &[String],
    documents: &[String],
    scored: &[Scored],
) -> Result<(), CommandError> {
    let names = labels.iter().map(String::as_str);
    // A single label has no useful name.
    let names: Vec<&str> = if labels.len() == 1 { vec!["SCORE"] } else { names.collect() };
    let header: Vec<&str> = names.into_iter().chain(["INDEX", "DOCUMENT"]).collect();
    let row = |Scored { index, scores }: &Scored| {
        let scores = scores.iter().map(|score| format!("{score:.4}"));
        scores.chain([index.to_string(), documents[*index].clone()]).collect()
    };
    output::table(&header, &scored.iter().map(row).collect::<Vec<_>>())
}
