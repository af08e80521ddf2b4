//! What a waiter is granted: guards that give the model or the lease back when they are dropped.

use crate::ground::connection_id::ConnectionId;
use crate::models::residence::ModelRef;
use crate::models::scheduler::InstanceId;
use emberd_protocol::LeaseId;
use std::fmt;
use std::sync::Arc;

/// A model for one request; it stays in memory until this is dropped.
#[derive(Debug)]
pub(crate) struct Use {
    /// The model.
    pub(crate) model: ModelRef,
    owner: Arc<dyn GrantOwner>,
    instance: InstanceId,
}

/// A lease that was just granted; released when dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct HeldLease {
    /// Its model.
    pub(crate) model: ModelRef,
    owner: Arc<dyn GrantOwner>,
    connection: ConnectionId,
    lease: LeaseId,
    is_kept: bool,
}

/// Takes grants back.
pub(super) trait GrantOwner: fmt::Debug + Send + Sync {
    /// A request no longer uses an instance.
    fn end_use(self: Arc<Self>, instance: InstanceId);

    /// A lease ends, unless it ended with its connection.
    fn end_lease(self: Arc<Self>, connection: ConnectionId, lease: LeaseId);
}

impl Use {
    pub(super) fn new(owner: Arc<dyn GrantOwner>, instance: InstanceId, model: ModelRef) -> Self {
        Self { model, owner, instance }
    }
}

impl HeldLease {
    pub(super) fn new(
        owner: Arc<dyn GrantOwner>,
        connection: ConnectionId,
        lease: LeaseId,
        model: ModelRef,
    ) -> Self {
        Self { model, owner, connection, lease, is_kept: false }
    }

    /// The number by which the client names it.
    pub(crate) fn id(&self) -> LeaseId {
        self.lease
    }

    /// Leaves the release to the connection.
    pub(crate) fn keep(mut self) -> LeaseId {
        self.is_kept = true;
        self.lease
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        Arc::clone(&self.owner).end_use(self.instance);
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if !self.is_kept {
            Arc::clone(&self.owner).end_lease(self.connection, self.lease);
        }
    }
}
