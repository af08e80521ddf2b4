//! A counted right to a loaded model.

use crate::answer::Answer;
use crate::client::Client;
use crate::error::Error;
use crate::held::Held;
use crate::line::{Link, Tries};
use crate::lock;
use crate::question::Question;
use emberd_protocol::{Event, LeaseId, ModelId, ModelInfo, ModelKind};
use std::sync::{Arc, Mutex};

/// Keeps a model in the daemon's memory.
///
/// Clones count locally; the last one dropped releases, and so does the end of the process. When
/// the daemon was restarted, all leases of a client are taken again with the first request to the
/// new one. One that cannot be had again tells why when it is used.
#[derive(Debug, Clone)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    held: Arc<Held>,
    /// Held by the thread that takes it again.
    taking: Mutex<()>,
}

impl Lease {
    pub(crate) fn acquire(
        client: Client,
        model: ModelId,
        kind: Option<ModelKind>,
        on_event: Option<&mut dyn FnMut(Event)>,
    ) -> Result<Self, Error> {
        let mut question = Question::acquire(model.clone(), kind.clone(), on_event.is_some())?;
        let (link, answer) = client.ask_on(&mut question, on_event)?;
        let held = Held::new(Arc::clone(client.line()), model, kind, &link, answer.leased()?);
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

    /// Releases it for all clones, and waits until the daemon has.
    ///
    /// # Errors
    /// `REFERENCE_ERROR` the second time. [`Error::Transport`] when the connection died meanwhile,
    /// and the lease with it.
    pub fn release(&self) -> Result<(), Error> {
        match self.shared.held.release()? {
            Some((link, mut question)) => {
                link.connection.call(&mut question, &mut |_| {})?.released()
            }
            // It ended with its connection: there is nothing left to release.
            None => Ok(()),
        }
    }

    /// Asks with the lease, and again where that is safe and the connection was cut off. What was
    /// shown already is not shown twice.
    pub(crate) fn ask(
        &self,
        mut question: Question,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Answer, Error> {
        let line = self.client().line();
        let mut tries = Tries::new(line, question.is_safe_to_repeat());
        loop {
            let link = line.link()?;
            let mut on_event = |event: Event| {
                tries.note(&event);
                on_event(event);
            };
            let result = self.on(&link).and_then(|lease| {
                question.aim(lease)?;
                link.connection.call(&mut question, &mut on_event)
            });
            match result {
                Err(error) if tries.again(&link, &error) => {}
                result => return result,
            }
        }
    }

    /// The lease on a connection; taken again if it belongs to one that died, and with it all others.
    pub(crate) fn on(&self, link: &Link) -> Result<LeaseId, Error> {
        let held = &self.shared.held;
        self.client().line().take_again(link, Some(held));
        if let Some(lease) = held.on(link)? {
            return Ok(lease);
        }
        let _turn = lock(&self.shared.taking);
        // Another thread may have done it meanwhile.
        if let Some(lease) = held.on(link)? {
            return Ok(lease);
        }
        let answer = link.connection.call(&mut held.question()?, &mut |_| {})?;
        held.taken(link, answer.leased()?)
    }
}
