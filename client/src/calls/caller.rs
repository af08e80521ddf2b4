use super::face::Face;
use super::lease_handle::LeaseHandle;
use super::lease_state::LeaseState;
use super::retries::Retries;
use crate::error::Error;
use crate::transport::link::Link;
use crate::transport::session::Session;
use crate::wire::request::{PreparedRequest, model_id};
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{Event, ModelId, ModelKind, Request};
use std::sync::Arc;

/// Sends requests over a link, and repeats those that were interrupted.
#[derive(Debug)]
pub(crate) struct Caller<F: Face> {
    link: Arc<Link>,
    /// Held by the caller that connects again.
    reconnecting: F::Lock,
}

impl<F: Face> Caller<F> {
    pub(crate) fn new(link: Link) -> Self {
        Self { link: Arc::new(link), reconnecting: F::Lock::default() }
    }

    /// The current session, or a new one if the last one died.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        if let Some(session) = self.link.usable() {
            return Ok(session);
        }
        let _reconnecting = F::lock(&self.reconnecting).await;
        // Another caller may have connected in the meantime.
        if let Some(session) = self.link.usable() {
            return Ok(session);
        }
        F::connect(&self.link).await
    }

    /// Sends a request, and waits for its response.
    pub(crate) async fn request(&self, request: Request) -> Result<ReceivedResponse, Error> {
        self.send(PreparedRequest::new(request)?, |_| {}).await
    }

    /// Sends a request, and waits for its response; events before it go to `on_event`.
    pub(crate) async fn send(
        &self,
        mut request: PreparedRequest,
        on_event: impl FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        Ok(self.send_repeatedly(&mut request, None, on_event).await?.1)
    }

    /// As [`Caller::send`], under a lease.
    pub(crate) async fn send_leased(
        &self,
        lease: &LeaseHandle<F>,
        mut request: PreparedRequest,
        on_event: impl FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        Ok(self.send_repeatedly(&mut request, Some(lease), on_event).await?.1)
    }

    /// Takes a lease on a model, which is loaded first if necessary.
    pub(crate) async fn acquire(
        &self,
        id: &str,
        kind: Option<ModelKind>,
    ) -> Result<LeaseHandle<F>, Error> {
        let model = model_id(id)?;
        let request = PreparedRequest::acquire(model.clone(), kind.clone(), false)?;
        self.take_lease(request, model, kind, |_| {}).await
    }

    /// As [`Caller::acquire`]; the progress of a load goes to `on_event`.
    pub(crate) async fn acquire_with(
        &self,
        id: &str,
        kind: Option<ModelKind>,
        on_event: impl FnMut(Event),
    ) -> Result<LeaseHandle<F>, Error> {
        let model = model_id(id)?;
        let request = PreparedRequest::acquire(model.clone(), kind.clone(), true)?;
        self.take_lease(request, model, kind, on_event).await
    }

    async fn take_lease(
        &self,
        mut request: PreparedRequest,
        model: ModelId,
        kind: Option<ModelKind>,
        on_event: impl FnMut(Event),
    ) -> Result<LeaseHandle<F>, Error> {
        let (session, response) = self.send_repeatedly(&mut request, None, on_event).await?;
        // No await from here on: a future that is dropped must not lose the lease.
        let link = Arc::clone(&self.link);
        let state = LeaseState::new(link, model, kind, &session, response.leased()?);
        Ok(LeaseHandle::new(state))
    }

    /// Sends a request until it is answered, as often as [`Retries`] allow. Returns the session
    /// that answered.
    async fn send_repeatedly(
        &self,
        request: &mut PreparedRequest,
        lease: Option<&LeaseHandle<F>>,
        mut on_event: impl FnMut(Event),
    ) -> Result<(Session, ReceivedResponse), Error> {
        let is_safe = request.is_safe_to_repeat();
        if !is_safe {
            self.link.check_hangup();
        }
        let mut retries = Retries::new(&self.link, is_safe);
        loop {
            let session = self.session().await?;
            let mut on_event = |event: Event| {
                retries.note(&event);
                on_event(event);
            };
            match self.send_once(&session, request, lease, &mut on_event).await {
                Ok(response) => return Ok((session, response)),
                Err(error) if retries.allow(&session, &error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_once<E: FnMut(Event)>(
        &self,
        session: &Session,
        request: &mut PreparedRequest,
        lease: Option<&LeaseHandle<F>>,
        on_event: &mut E,
    ) -> Result<ReceivedResponse, Error> {
        match lease {
            Some(lease) => request.set_lease(lease.id_in(session).await?)?,
            None => self.link.renew_leases(session, None),
        }
        F::call(&session.connection, request, on_event).await
    }
}
