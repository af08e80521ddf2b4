//! The leases to renew when a daemon restarts.

use super::session::Session;
use crate::sync::lock;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

/// A lease that a new session renews.
pub(crate) trait Renewable: fmt::Debug + Send + Sync {
    /// Requests the lease again if it belongs to a session that ended. Never blocks.
    fn renew_in_background(self: Arc<Self>, session: &Session);
}

/// All leases of a link.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    state: Mutex<State>,
}

impl Renewals {
    pub(super) fn add(&self, lease: Weak<dyn Renewable>) {
        let mut state = lock(&self.state);
        if state.leases.len() == state.leases.capacity() {
            // Remove dropped leases before the list grows.
            state.leases.retain(|lease| lease.strong_count() > 0);
        }
        state.leases.push(lease);
    }

    /// Renews all leases but one, once for each session: their models are held before any of them
    /// is used.
    pub(super) fn renew(&self, session: &Session, except: Option<&Arc<dyn Renewable>>) {
        let leases: Vec<Arc<dyn Renewable>> = {
            let mut state = lock(&self.state);
            if state.generation >= session.generation {
                return;
            }
            state.generation = session.generation;
            state.leases.iter().filter_map(Weak::upgrade).collect()
        };
        // Without the lock: the last clone of a lease may be dropped here.
        for lease in leases {
            if !except.is_some_and(|except| Arc::ptr_eq(except, &lease)) {
                lease.renew_in_background(session);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    leases: Vec<Weak<dyn Renewable>>,
    /// The last session that renewed them.
    generation: u64,
}
