use super::face::Face;
use super::lease_state::LeaseState;
use crate::error::Error;
use crate::transport::renewals::Renewable;
use crate::transport::session::Session;
use emberd_protocol::{LeaseId, Method, ModelInfo};
use std::sync::Arc;

/// A lease in the form that its users hold.
#[derive(Debug)]
pub(crate) struct LeaseHandle<F: Face> {
    state: Arc<LeaseState>,
    /// Held by the caller that renews it.
    renewing: F::Lock,
}

impl<F: Face> LeaseHandle<F> {
    pub(super) fn new(state: Arc<LeaseState>) -> Self {
        Self { state, renewing: F::Lock::default() }
    }

    /// The model, as it was when the lease was taken.
    pub(crate) fn info(&self) -> ModelInfo {
        self.state.info()
    }

    /// The daemon's number for it.
    pub(crate) fn id(&self) -> LeaseId {
        self.state.id()
    }

    /// Fails unless the model has a method.
    pub(crate) fn require(&self, method: &Method) -> Result<(), Error> {
        self.state.require(method)
    }

    /// Releases it, and waits until the daemon has released it.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        match self.state.release()? {
            Some((session, mut request)) => {
                F::call(&session.connection, &mut request, &mut |_| {}).await?.released()
            }
            // It ended with its session.
            None => Ok(()),
        }
    }

    /// The lease in a session. If it belongs to a session that ended, it is renewed, and with it
    /// all other leases.
    pub(super) async fn id_in(&self, session: &Session) -> Result<LeaseId, Error> {
        let renewable: Arc<dyn Renewable> = Arc::<LeaseState>::clone(&self.state);
        self.state.link().renew_leases(session, Some(&renewable));
        if let Some(lease) = self.state.id_in(session)? {
            return Ok(lease);
        }
        let _renewing = F::lock(&self.renewing).await;
        // Another caller may have renewed it in the meantime.
        if let Some(lease) = self.state.id_in(session)? {
            return Ok(lease);
        }
        let mut renewal = self.state.renewal()?;
        let response = F::call(&session.connection, &mut renewal, &mut |_| {}).await?;
        self.state.renewed(session, response.leased()?)
    }
}
