//! An answer that has not been written yet. It owns the slot or lease that it announces.

use crate::ground::error_chain::chain;
use crate::models::lease::ConnectionId;
use crate::models::registry::HeldLease;
use crate::request::failure::RequestError;
use crate::segment::{FinishedSlot, InlineShare};
use emberd_protocol::{ErrorCode, Leased, Response, SlotRef};
use std::pin::Pin;

/// What goes back to the client.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Bytes after the response: inline results.
    pub(crate) tail: Vec<u8>,
    pub(crate) promise: Promise,
}

/// What the client owns once it has the answer. Dropped before that, it goes back to where it came
/// from, so nobody else has to release what a cancelled request was about to get.
#[derive(Debug, Default)]
pub(crate) enum Promise {
    #[default]
    Nothing,
    /// The right to hold the tail in memory while it is written.
    Inline(#[expect(dead_code, reason = "it is held, not looked at")] InlineShare),
    /// A slot of shared memory.
    Slot(FinishedSlot),
    /// A lease.
    Lease(HeldLease),
}

/// An answer that waits for something: a load, a computation.
pub(crate) struct PendingAnswer {
    work: Pin<Box<dyn Future<Output = Result<Answer, RequestError>> + Send>>,
    connection: ConnectionId,
    /// The client's id of the request.
    request: u64,
}

impl Answer {
    /// Grants a lease.
    pub(crate) fn leased(lease: HeldLease) -> Self {
        let response =
            Response::Leased(Leased { lease: lease.id(), model: lease.model.info.clone() });
        Self { response, tail: Vec::new(), promise: Promise::Lease(lease) }
    }

    /// Tells the client why its request failed. A defect goes to the log in full.
    pub(crate) fn failed(connection: ConnectionId, request: u64, error: &RequestError) -> Self {
        let failure = error.to_failure();
        if failure.code == ErrorCode::Internal {
            tracing::error!(connection = connection.0, request, error = chain(error), "defect");
        }
        Self::from(Response::Failed(failure))
    }

    /// Confirms a cancellation.
    pub(crate) fn cancelled(connection: ConnectionId, request: u64) -> Self {
        Self::failed(connection, request, &RequestError::Cancelled)
    }

    /// Stands for the answer of a handler that panicked.
    pub(crate) fn panicked(connection: ConnectionId, request: u64) -> Self {
        Self::failed(connection, request, &RequestError::Defect("a task panicked"))
    }
}

impl From<Response> for Answer {
    /// An answer that promises nothing.
    fn from(response: Response) -> Self {
        Self { response, tail: Vec::new(), promise: Promise::Nothing }
    }
}

impl Promise {
    /// The slot that the answer points to.
    pub(crate) fn slot(&self) -> Option<SlotRef> {
        match self {
            Self::Slot(slot) => Some(slot.slot()),
            Self::Nothing | Self::Inline(_) | Self::Lease(_) => None,
        }
    }

    /// Ends the responsibility for what was promised: the answer is written, and the client frees
    /// the slot or releases the lease.
    pub(crate) fn fulfilled(self) {
        match self {
            Self::Nothing | Self::Inline(_) => {}
            Self::Slot(slot) => drop(slot.sent()),
            Self::Lease(lease) => {
                let _granted = lease.keep();
            }
        }
    }
}

impl PendingAnswer {
    /// `work` makes the answer to a request of a connection.
    pub(crate) fn new<F>(connection: ConnectionId, request: u64, work: F) -> Self
    where
        F: Future<Output = Result<Answer, RequestError>> + Send + 'static,
    {
        Self { work: Box::pin(work), connection, request }
    }

    /// Waits for the answer. Dropping this cancels the request's work.
    pub(crate) async fn wait(self) -> Answer {
        let Self { work, connection, request } = self;
        work.await.unwrap_or_else(|error| Answer::failed(connection, request, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::loader::Loaders;
    use crate::models::registry::Registry;
    use crate::segment::{Finished, Output, SegmentPool, Spares, TotalCredit, backend};
    use crate::settings::{BUILTIN_ID, Settings};
    use emberd_protocol::{ModelId, SegmentBackend};
    use std::sync::Arc;
    use std::time::Duration;

    const CLIENT: ConnectionId = ConnectionId(1);

    fn promising(promise: Promise) -> Answer {
        Answer { promise, ..Answer::from(Response::Pong) }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lease_is_released_with_an_answer_that_is_never_written() {
        let registry = Registry::new(&Settings::without_models(), Loaders::default());
        let time = tokio::spawn(Arc::clone(&registry).keep_time());
        let model = ModelId::new(BUILTIN_ID).unwrap();
        let leases = || registry.model_snapshot(&model).leases;
        let lease = async || registry.lease(CLIENT, &model, None).await.unwrap();

        let answer = Answer::leased(lease().await);
        let Response::Leased(leased) = &answer.response else { panic!("{answer:?}") };
        assert_eq!((leased.model.id.clone(), leases()), (model.clone(), 1));
        drop(answer);
        assert_eq!(leases(), 0);

        Answer::leased(lease().await).promise.fulfilled();
        assert_eq!(leases(), 1, "the client's, who releases it");
        drop(Answer::leased(lease().await));
        assert_eq!(leases(), 1);
        // One that outlives its connection gives nothing back a second time.
        let late = Answer::leased(lease().await);
        assert_eq!(registry.end_connection(CLIENT), 2);
        drop(late);
        assert_eq!(leases(), 0);
        time.abort();
    }

    #[tokio::test]
    async fn a_slot_is_freed_with_an_answer_that_is_never_written() {
        let spares = Spares::new(backend(SegmentBackend::Memfd), 0).unwrap();
        let pool = SegmentPool::new(spares, 1 << 20, TotalCredit::new(1 << 20));
        let finished = async || {
            let slot = pool.reserve(400, Duration::ZERO).await.unwrap();
            match Output::slot(slot, 1, 100).unwrap().finish() {
                Ok(Finished::Slot(slot)) => Promise::Slot(slot),
                other => panic!("no slot: {other:?}"),
            }
        };
        let answer = promising(finished().await);
        assert!(answer.promise.slot().is_some() && pool.held_bytes() > 0);
        drop(answer);
        assert_eq!(pool.held_bytes(), 0);

        let promise = finished().await;
        let slot = promise.slot().unwrap();
        promise.fulfilled();
        assert!(pool.held_bytes() > 0, "the client's, who frees it");
        assert!(pool.free(&slot));
    }

    #[tokio::test]
    async fn a_request_that_is_dropped_after_its_result_was_finished_gives_it_back() {
        let spares = Spares::new(backend(SegmentBackend::Memfd), 0).unwrap();
        let pool = SegmentPool::new(spares, 1 << 20, TotalCredit::new(1 << 20));
        let slot = pool.reserve(400, Duration::ZERO).await.unwrap();
        let Ok(Finished::Slot(slot)) = Output::slot(slot, 1, 100).unwrap().finish() else {
            panic!("no slot");
        };
        let pending = PendingAnswer::new(CLIENT, 1, async move {
            let answer = promising(Promise::Slot(slot));
            std::future::pending::<()>().await;
            Ok(answer)
        });
        let task = tokio::spawn(pending.wait());
        tokio::task::yield_now().await;
        assert!(pool.held_bytes() > 0);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(pool.held_bytes(), 0);
    }
}
