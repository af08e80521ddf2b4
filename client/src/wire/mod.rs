//! One connection: frames over a socket, and the requests that are in flight on it.

pub(crate) mod connection;
pub(crate) mod death;
pub(crate) mod expected_events;
pub(crate) mod in_flight;
pub(crate) mod outbox;
pub(crate) mod reader;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod socket;
