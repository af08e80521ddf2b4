//! A loaded model and its users: it is freed when the last user has left.

use crate::models::loaded::LoadedModel;
use std::convert::Infallible;
use std::ops::Deref;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long an unload waits for the last users of a model (a status, an answer on its way).
const LAST_USERS: Duration = Duration::from_secs(10);

/// A loaded model as the registry keeps it.
#[derive(Debug)]
pub(super) struct ResidentModel {
    model: Arc<LoadedModel>,
    users: mpsc::Sender<Infallible>,
    /// Closed when the last user has left; no message is ever sent.
    users_gone: mpsc::Receiver<Infallible>,
}

/// A user's reference to a loaded model.
#[derive(Debug)]
pub(crate) struct ModelRef {
    // Dropped first: when the channel closes, the registry has the last reference.
    model: Arc<LoadedModel>,
    _user: mpsc::Sender<Infallible>,
}

impl ResidentModel {
    pub(super) fn new(model: LoadedModel) -> Self {
        let (users, users_gone) = mpsc::channel();
        Self { model: Arc::new(model), users, users_gone }
    }

    /// A reference for one more user.
    pub(super) fn user(&self) -> ModelRef {
        ModelRef { model: Arc::clone(&self.model), _user: self.users.clone() }
    }

    /// Waits for the last user, then ends the workers and frees the weights. A user that stays for
    /// too long frees them itself, when it leaves.
    pub(super) fn free(self) {
        let Self { model, users, users_gone } = self;
        drop(users);
        // Both errors end the wait: all users have left, or one stays for too long.
        let _ = users_gone.recv_timeout(LAST_USERS);
        drop(model);
    }
}

impl Deref for ResidentModel {
    type Target = LoadedModel;

    fn deref(&self) -> &LoadedModel {
        &self.model
    }
}

impl Deref for ModelRef {
    type Target = LoadedModel;

    fn deref(&self) -> &LoadedModel {
        &self.model
    }
}
