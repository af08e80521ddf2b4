//! Who holds what, since when. Pure: no clock of its own, no I/O, no lock.
//!
//! ```text
//!            grant                    release, or the end of the connection
//!   (none) ─────────▶ held by one connection ─────────▶ (gone; its id is never given again)
//! ```
//! A lease belongs to the connection that took it: nobody else can use or release it, and the
//! end of the connection, by whatever death, ends it.

use emberd_protocol::{LeaseId, ModelId};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// A connection, unique for the daemon's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One counted right to a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who took it.
    pub connection: ConnectionId,
    /// On what.
    pub model: ModelId,
    /// When.
    pub since: Instant,
}

/// What the table knows of one model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Leases that are held now.
    pub leases: usize,
    /// The last grant, use or release; `None` before the first.
    pub last_used: Option<Instant>,
}

/// All leases.
#[derive(Debug, Default)]
pub struct LeaseTable {
    last_id: u64,
    leases: BTreeMap<LeaseId, Lease>,
    by_connection: HashMap<ConnectionId, Vec<LeaseId>>,
    usage: HashMap<ModelId, Usage>,
}

/// Why a lease cannot be used, taken or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No such lease is alive on this connection. Whether it never existed, is gone, or is
    /// another's is not told.
    #[error("lease {0} is not alive on this connection: acquire the model again")]
    NotHeld(LeaseId),
    /// The connection holds as many as it may.
    #[error("this connection holds {0} leases, the most it may: release some, or clone one")]
    TooMany(usize),
}

impl LeaseTable {
    /// Gives a lease, unless the connection already holds `limit` of them.
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

    /// The model of a lease, if it is this connection's.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`].
    pub fn model_of(&self, connection: ConnectionId, id: LeaseId) -> Result<&ModelId, LeaseError> {
        match self.leases.get(&id) {
            Some(lease) if lease.connection == connection => Ok(&lease.model),
            Some(_) | None => Err(LeaseError::NotHeld(id)),
        }
    }

    /// Ends a lease and tells its model.
    ///
    /// # Errors
    /// [`LeaseError::NotHeld`], also the second time.
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

    /// Ends all leases of a connection and tells how many there were.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn model(id: &str) -> ModelId {
        ModelId::new(id).unwrap()
    }

    #[test]
    fn leases_are_counted_per_model_and_the_last_release_is_remembered() {
        let (m, start) = (model("m"), Instant::now());
        let mut table = LeaseTable::default();
        let first = table.grant(A, &m, 9, start).unwrap();
        let second = table.grant(B, &m, 9, start).unwrap();
        assert_eq!(table.usage(&m).leases, 2);
        let later = start + Duration::from_secs(5);
        assert_eq!(table.release(A, first, later), Ok(m.clone()));
        assert_eq!(table.usage(&m), Usage { leases: 1, last_used: Some(later) });
        let last = start + Duration::from_secs(8);
        assert_eq!(table.release(B, second, last), Ok(m.clone()));
        assert_eq!(table.usage(&m), Usage { leases: 0, last_used: Some(last) });
        assert_eq!(table.usage(&model("other")), Usage::default());
    }

    #[test]
    fn a_second_release_and_a_foreign_lease_are_refused_and_change_nothing() {
        let (m, now) = (model("m"), Instant::now());
        let mut table = LeaseTable::default();
        let id = table.grant(A, &m, 9, now).unwrap();
        assert_eq!(table.release(B, id, now), Err(LeaseError::NotHeld(id)));
        assert_eq!(table.model_of(B, id), Err(LeaseError::NotHeld(id)));
        assert_eq!(table.usage(&m).leases, 1);
        assert_eq!(table.model_of(A, id), Ok(&m));
        table.release(A, id, now).unwrap();
        assert_eq!(table.release(A, id, now), Err(LeaseError::NotHeld(id)));
        assert_eq!(table.usage(&m).leases, 0);
        assert_eq!(table.release(A, LeaseId(77), now), Err(LeaseError::NotHeld(LeaseId(77))));
    }

    #[test]
    fn the_end_of_a_connection_ends_its_leases_and_no_others() {
        let (m, n, now) = (model("m"), model("n"), Instant::now());
        let mut table = LeaseTable::default();
        table.grant(A, &m, 9, now).unwrap();
        table.grant(A, &n, 9, now).unwrap();
        let kept = table.grant(B, &m, 9, now).unwrap();
        assert_eq!(table.end_connection(A, now), 2);
        assert_eq!(table.end_connection(A, now), 0);
        assert_eq!((table.usage(&m).leases, table.usage(&n).leases), (1, 0));
        assert_eq!(table.iter().map(|(id, _)| id).collect::<Vec<_>>(), [kept]);
    }

    #[test]
    fn ids_are_never_given_twice_and_the_limit_counts_only_what_is_held() {
        let (m, now) = (model("m"), Instant::now());
        let mut table = LeaseTable::default();
        let first = table.grant(A, &m, 1, now).unwrap();
        assert_eq!(table.grant(A, &m, 1, now), Err(LeaseError::TooMany(1)));
        assert!(table.grant(B, &m, 1, now).is_ok());
        table.release(A, first, now).unwrap();
        let again = table.grant(A, &m, 1, now).unwrap();
        assert!(again > first);
    }
}
