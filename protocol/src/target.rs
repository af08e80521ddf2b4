//! The model that a request is for.

use crate::id::{LeaseId, ModelId};
use serde::{Deserialize, Serialize};

/// The model of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The model of a lease that this connection holds.
    Lease(LeaseId),
    /// A model by id; it is leased for the duration of this request.
    Model(ModelId),
}
