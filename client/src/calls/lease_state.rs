//! A lease across the restarts of a daemon.

use crate::error::Error;
use crate::sync::lock;
use crate::transport::link::Link;
use crate::transport::renewals::Renewable;
use crate::transport::session::Session;
use crate::wire::in_flight::OnResponse;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::{
    ErrorCode, Failure, LeaseId, Leased, Method, ModelId, ModelInfo, ModelKind, Request,
};
use std::sync::{Arc, Mutex, Weak};

/// What was requested, and the lease that is held now. Dropping it releases the lease.
#[derive(Debug)]
pub(super) struct LeaseState {
    link: Arc<Link>,
    model: ModelId,
    kind: Option<ModelKind>,
    /// Never held for long: drops lock it.
    current: Mutex<CurrentLease>,
}

impl LeaseState {
    /// A lease that was granted in a session. It is renewed when the daemon restarts.
    pub(super) fn new(
        link: Arc<Link>,
        model: ModelId,
        kind: Option<ModelKind>,
        session: &Session,
        leased: Leased,
    ) -> Arc<Self> {
        let current = CurrentLease { generation: session.generation, leased, is_released: false };
        let state = Arc::new(Self { link, model, kind, current: Mutex::new(current) });
        let renewable: Weak<dyn Renewable> = Arc::<Self>::downgrade(&state);
        state.link.add_lease(renewable);
        state
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn info(&self) -> ModelInfo {
        lock(&self.current).leased.model.clone()
    }

    pub(super) fn id(&self) -> LeaseId {
        lock(&self.current).leased.lease
    }

    /// Fails unless the model has a method.
    pub(super) fn require(&self, method: &Method) -> Result<(), Error> {
        let model = self.info();
        if model.methods.contains(method) {
            return Ok(());
        }
        let offered: Vec<String> = model.methods.iter().map(Method::to_string).collect();
        let message = format!("model \"{}\" offers {}, not {method}", model.id, offered.join(", "));
        Err(Failure::new(ErrorCode::WrongModelType, message).into())
    }

    /// The lease in a session, or `None` if it has to be renewed there.
    pub(super) fn id_in(&self, session: &Session) -> Result<Option<LeaseId>, Error> {
        let current = lock(&self.current);
        // A released lease stays released. In its own session the daemon reports that itself.
        if current.generation == session.generation {
            return Ok(Some(current.leased.lease));
        }
        if current.is_released {
            return Err(not_alive(current.leased.lease));
        }
        Ok(None)
    }

    /// The request that renews it.
    pub(super) fn renewal(&self) -> Result<PreparedRequest, Error> {
        PreparedRequest::acquire(self.model.clone(), self.kind.clone(), false)
    }

    /// A session has granted it again.
    pub(super) fn renewed(&self, session: &Session, leased: Leased) -> Result<LeaseId, Error> {
        let mut current = lock(&self.current);
        if current.is_released {
            session.connection.send_one_way(&Request::Release { lease: leased.lease });
            return Err(not_alive(current.leased.lease));
        }
        if current.generation >= session.generation {
            // Its user has renewed it in the meantime: one lease is enough.
            session.connection.send_one_way(&Request::Release { lease: leased.lease });
            return Ok(current.leased.lease);
        }
        current.generation = session.generation;
        current.leased = leased;
        Ok(current.leased.lease)
    }

    /// The request that releases it, and its session; `None` if it ended with its session.
    pub(super) fn release(&self) -> Result<Option<(Session, PreparedRequest)>, Error> {
        let (lease, generation, was_released) = {
            let mut current = lock(&self.current);
            let was_released = std::mem::replace(&mut current.is_released, true);
            (current.leased.lease, current.generation, was_released)
        };
        match self.link.session_of(generation) {
            Some(session) => Ok(Some((session, PreparedRequest::new(Request::Release { lease })?))),
            None if !was_released => Ok(None),
            None => Err(not_alive(lease)),
        }
    }
}

impl Renewable for LeaseState {
    fn renew_in_background(self: Arc<Self>, session: &Session) {
        if matches!(self.id_in(session), Ok(None))
            && let Ok(mut renewal) = self.renewal()
        {
            // Weak: neither the lease nor the connection may wait for a response to be dropped.
            let (lease, connection) = (Arc::downgrade(&self), Arc::downgrade(&session.connection));
            let generation = session.generation;
            let on_response = OnResponse::new(move |response| {
                if let Some(connection) = connection.upgrade() {
                    take_renewal(&lease, &Session { connection, generation }, response);
                }
            });
            session.connection.send_in_background(&mut renewal, on_response);
        }
    }
}

impl Drop for LeaseState {
    fn drop(&mut self) {
        let current = lock(&self.current);
        if current.is_released {
            return;
        }
        if let Some(session) = self.link.session_of(current.generation) {
            session.connection.send_one_way(&Request::Release { lease: current.leased.lease });
        }
    }
}

#[derive(Debug)]
struct CurrentLease {
    /// The session that took it.
    generation: u64,
    leased: Leased,
    is_released: bool,
}

/// A renewal has been answered. A failure is reported when the lease is used, which tries again.
fn take_renewal(lease: &Weak<LeaseState>, session: &Session, response: ReceivedResponse) {
    let Some(granted) = response.granted_lease() else { return };
    match (lease.upgrade(), response.leased()) {
        // If the lease was released in the meantime, this releases the new one, too.
        (Some(lease), Ok(leased)) => drop(lease.renewed(session, leased)),
        _ => session.connection.send_one_way(&Request::Release { lease: granted }),
    }
}

/// What the daemon would answer for a lease whose session ended. It is not asked: in another session
/// the same number may be another lease.
fn not_alive(lease: LeaseId) -> Error {
    let message = format!("lease {lease} was released: acquire the model again");
    Failure::new(ErrorCode::ReferenceError, message).into()
}
