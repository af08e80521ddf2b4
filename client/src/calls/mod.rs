//! Calls and leases, written once for both faces of the client: `blocking` and `aio`.

pub(crate) mod caller;
pub(crate) mod face;
pub(crate) mod lease_handle;
mod lease_state;
pub(crate) mod leased_model;
mod retries;
