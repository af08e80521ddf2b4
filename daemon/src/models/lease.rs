//! The leases: which connection holds which model, since when. Pure: no clock, no I/O, no lock.
//!
//! ```text
//!            grant                    release, or the end of the connection
//!   (none) ─────────▶ held by one connection ─────────▶ (gone; its id is never used again)
//! ```
//! A lease belongs to the connection that took it: no other can use or release it, and it ends with
//! its connection, however that ends.

pub use crate::ground::connection_id::ConnectionId;
use emberd_protocol::{LeaseId, ModelId};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

#[cfg(test)]
mod tests;

/// All leases.
#[derive(Debug, Default)]
pub struct LeaseTable {
    last_id: u64,
    leases: BTreeMap<LeaseId, Lease>,
    by_connection: HashMap<ConnectionId, Vec<LeaseId>>,
    usage: HashMap<ModelId, Usage>,
}

/// A connection's right to a model in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The holder.
    pub connection: ConnectionId,
    /// The model.
    pub model: ModelId,
    /// When it was granted.
    pub since: Instant,
}

/// How a model is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Leases that are held now.
    pub leases: usize,
    /// The last grant, use or release; `None` before the first.
    pub last_used: Option<Instant>,
}

/// Why a lease cannot be granted, used or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The connection holds no such lease. The error does not tell whether the lease never
    /// existed, has ended, or belongs to another connection.
    #[error("this connection does not hold lease {0}: acquire the model again")]
    NotHeld(LeaseId),
    /// The connection holds the maximum number of leases.
    #[error("this connection holds {0} leases, the maximum: release some, or clone one")]
    TooMany(usize),
}

impl LeaseTable {
    /// Grants a lease, unless the connection already holds `limit` of them.
    ///
    /// # Errors
    /// [`LeaseError::TooMany`].
    pub fn grant(
        &mut self,
        connection: ConnectionId,
        model: &ModelId,
        limit: usize,
        now: Instant,
    ) -> Result<LeaseId, LeaseError> {
        let held = self.by_connection.entry(connection).or_default();
        if held.len() >= limit {
            return Err(LeaseError::TooMany(held.len()));
        }
        self.last_id += 1;
        let id = LeaseId(self.last_id);
        held.push(id);
        self.leases.insert(id, Lease { connection, model: model.clone(), since: now });
        let usage = self.usage.entry(model.clone()).or_default();
        usage.leases += 1;
        usage.last_used = Some(now);
        Ok(id)
    }

    /// The model of a lease, if this connection holds it.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`].
    pub fn model_of(&self, connection: ConnectionId, id: LeaseId) -> Result<&ModelId, LeaseError> {
        match self.leases.get(&id) {
            Some(lease) if lease.connection == connection => Ok(&lease.model),
            Some(_) | None => Err(LeaseError::NotHeld(id)),
        }
    }

    /// Ends a lease and returns its model.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`], also when called a second time.
    pub fn release(
        &mut self,
        connection: ConnectionId,
        id: LeaseId,
        now: Instant,
    ) -> Result<ModelId, LeaseError> {
        let model = self.model_of(connection, id)?.clone();
        if let Some(held) = self.by_connection.get_mut(&connection) {
            held.retain(|lease| *lease != id);
        }
        self.remove(id, now);
        Ok(model)
    }

    /// Ends all leases of a connection and returns their number.
    pub fn end_connection(&mut self, connection: ConnectionId, now: Instant) -> usize {
        let held = self.by_connection.remove(&connection).unwrap_or_default();
        for id in &held {
            self.remove(*id, now);
        }
        held.len()
    }

    /// Notes that a model was used, with or without a lease.
    pub fn touch(&mut self, model: &ModelId, now: Instant) {
        self.usage.entry(model.clone()).or_default().last_used = Some(now);
    }

    /// How a model is used.
    #[must_use]
    pub fn usage(&self, model: &ModelId) -> Usage {
        self.usage.get(model).copied().unwrap_or_default()
    }

    /// Whether some connection holds a lease.
    #[must_use]
    pub fn is_alive(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// A lease that some connection holds.
    #[must_use]
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All leases, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    fn remove(&mut self, id: LeaseId, now: Instant) {
        if let Some(lease) = self.leases.remove(&id)
            && let Some(usage) = self.usage.get_mut(&lease.model)
        {
            usage.leases -= 1;
            usage.last_used = Some(now);
        }
    }
}
