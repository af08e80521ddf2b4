//! A counted right to a loaded model.

use super::call::call;
use super::client::Client;
use crate::answer::Answer;
use crate::error::Error;
use crate::held::Held;
use crate::line::{Link, Tries};
use crate::question::{Question, model_id};
use emberd_protocol::{Event, LeaseId, ModelInfo, ModelKind};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Keeps a model in the daemon's memory; as [`crate::Lease`].
///
/// Dropping the last clone releases it, without waiting and without a runtime.
#[derive(Debug, Clone)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    held: Arc<Held>,
    /// Held by the future that takes it again.
    taking: Mutex<()>,
}

impl Lease {
    pub(super) async fn acquire(
        client: &Client,
        id: &str,
        kind: Option<ModelKind>,
        wants_events: bool,
        on_event: impl FnMut(Event),
    ) -> Result<Self, Error> {
        let model = model_id(id)?;
        let mut question = Question::acquire(model.clone(), kind.clone(), wants_events)?;
        let (link, answer) = client.ask_on(&mut question, on_event).await?;
        // Nothing is awaited from here on: what was granted is held.
        let held = Held::new(Arc::clone(client.line()), model, kind, &link, answer.leased()?);
        let client = client.clone();
        Ok(Self { shared: Arc::new(Shared { client, held, taking: Mutex::default() }) })
    }

    /// The model, as it was when the lease was taken.
    #[must_use]
    pub fn info(&self) -> ModelInfo {
        self.shared.held.info()
    }

    /// The daemon's number for it.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.shared.held.id()
    }

    /// The client that took it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// As [`crate::Lease::release`]. Once polled it is released, even if the future is dropped.
    ///
    /// # Errors
    /// As there.
    pub async fn release(&self) -> Result<(), Error> {
        match self.shared.held.release()? {
            Some((link, mut question)) => {
                call(&link.connection, &mut question, &mut |_| {}).await?.released()
            }
            // It ended with its connection: there is nothing left to release.
            None => Ok(()),
        }
    }

    /// Asks with the lease, and again where that is safe and the connection was cut off. What was
    /// shown already is not shown twice.
    pub(super) async fn ask(
        &self,
        mut question: Question,
        mut on_event: impl FnMut(Event),
    ) -> Result<Answer, Error> {
        let mut tries = Tries::new(self.client().line(), question.is_safe_to_repeat());
        loop {
            let link = self.client().link().await?;
            let mut on_event = |event: Event| {
                tries.note(&event);
                on_event(event);
            };
            let result = match self.on(&link).await.and_then(|lease| question.aim(lease)) {
                Ok(()) => call(&link.connection, &mut question, &mut on_event).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if tries.again(&link, &error) => {}
                result => return result,
            }
        }
    }

    /// The lease on a connection; taken again if it belongs to one that died, and with it all others.
    pub(super) async fn on(&self, link: &Link) -> Result<LeaseId, Error> {
        let held = &self.shared.held;
        self.client().line().take_again(link, Some(held));
        if let Some(lease) = held.on(link)? {
            return Ok(lease);
        }
        let _turn = self.shared.taking.lock().await;
        // Another future may have done it meanwhile.
        if let Some(lease) = held.on(link)? {
            return Ok(lease);
        }
        let answer = call(&link.connection, &mut held.question()?, &mut |_| {}).await?;
        held.taken(link, answer.leased()?)
    }
}
