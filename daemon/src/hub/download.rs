//! Downloading one file from the hub into the cache, completely or not at all.
//!
//! hf-hub's own download resumes after an interruption only when it is called again, and only at the
//! last multiple of ten megabytes; it accepts an answer that is too short, and compares no hash. This
//! one requests the rest at once, and gives a content its name only when size and hash are right.

use crate::ground::error_chain::chain;
use crate::hub::cache::ModelCache;
use crate::hub::endpoint::Endpoint;
use crate::hub::error::HubError;
use crate::hub::listing::Content;
use crate::hub::name::HubModel;
use crate::hub::partial_blob::PartialBlob;
use reqwest::{Response, StatusCode};
use tokio::time::sleep;

/// A file to fetch, its source and its destination.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) cache: &'a ModelCache,
    pub(super) model: &'a HubModel,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
    pub(super) content: &'a Content,
}

impl Download<'_> {
    /// Fetches the content, and reports the number of bytes that have arrived.
    pub(super) async fn run(&self, report: &mut (dyn FnMut(u64) + Send)) -> Result<(), HubError> {
        let size = self.content.size;
        let mut part = PartialBlob::open(self.cache.part(&self.content.id), self.content).await?;
        let patience = self.endpoint.patience();
        let mut failures = 0;
        report(part.done());
        while part.done() < size {
            let before = part.done();
            let Err(error) = self.rest(&mut part, report).await else { continue };
            part.keep().await?;
            // With some progress each time, any number of interruptions is tolerated.
            failures = if part.done() > before { 1 } else { failures + 1 };
            if !is_cut(&error) || failures >= patience.tries {
                return Err(error);
            }
            let (done, pause) = (part.done(), patience.after(failures));
            tracing::warn!(model = self.model.name, file = self.file, done, size, %error, "a download was interrupted; resuming it");
            sleep(pause).await;
        }
        part.finish(self.file, &self.cache.blob(&self.content.id)).await
    }

    /// Makes one request for the missing bytes.
    async fn rest(
        &self,
        part: &mut PartialBlob,
        report: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), HubError> {
        let size = self.content.size;
        let (model, commit, file) = (self.model, self.commit, self.file);
        let mut response = self.endpoint.bytes(model, commit, file, part.done()).await?;
        let answer = |what| HubError::Answer { endpoint: self.endpoint.url().into(), what };
        let announced = match (response.status(), part.done()) {
            (StatusCode::PARTIAL_CONTENT, from @ 1..) => {
                let (start, total) = range(&response).ok_or_else(|| answer("an invalid range"))?;
                if start != from {
                    return Err(answer("another range than requested"));
                }
                total.unwrap_or(size)
            }
            (StatusCode::OK, _) => {
                // The hub ignores ranges, and sends the whole file.
                part.restart().await?;
                response.content_length().unwrap_or(size)
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, 1..) => {
                part.restart().await?;
                return Err(self.cut(0));
            }
            _ => return Err(answer("neither a file nor an error")),
        };
        if announced != size {
            return Err(self.other_size(part, announced));
        }
        loop {
            match self.endpoint.chunk(&mut response).await {
                Ok(Some(chunk)) => {
                    let done = part.done() + chunk.len() as u64;
                    if done > size {
                        return Err(self.other_size(part, done));
                    }
                    part.write(&chunk).await?;
                    report(done);
                }
                Ok(None) if part.done() == size => return Ok(()),
                Ok(None) => return Err(self.cut(part.done())),
                Err(error) => {
                    tracing::debug!(file, error = %chain(&error), "the answer was interrupted");
                    return Err(self.cut(part.done()));
                }
            }
        }
    }

    fn cut(&self, done: u64) -> HubError {
        HubError::CutShort { file: self.file.into(), done, size: self.content.size }
    }

    fn other_size(&self, part: &PartialBlob, found: u64) -> HubError {
        part.mismatch(self.file, "size", found.to_string(), self.content.size.to_string())
    }
}

/// Whether the connection failed. Requests that the hub refused have been repeated already.
const fn is_cut(error: &HubError) -> bool {
    matches!(
        error,
        HubError::CutShort { .. } | HubError::Unreachable { .. } | HubError::Silent { .. }
    )
}

/// The first byte of a partial answer, and the size of the whole file: `bytes 5-9/10`.
fn range(response: &Response) -> Option<(u64, Option<u64>)> {
    let text = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}
