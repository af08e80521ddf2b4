use crate::error::Error;
use crate::transport::link::Link;
use crate::transport::session::Session;
use crate::wire::connection::Connection;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::Event;
use std::fmt;
use std::sync::Arc;

/// How callers wait: by blocking their thread, or as futures.
///
/// The futures of the blocking face are ready when they are first polled: they block instead.
pub(crate) trait Face: fmt::Debug {
    /// A lock that is held while a caller waits.
    type Lock: fmt::Debug + Default;
    type Guard<'a>;

    async fn lock(lock: &Self::Lock) -> Self::Guard<'_>;

    /// The link's session, or a new one: see [`Link::session`].
    async fn connect(link: &Arc<Link>) -> Result<Session, Error>;

    /// Sends a request and waits for its response, without a time limit. A failure of the request
    /// is an error.
    async fn call<E: FnMut(Event)>(
        connection: &Arc<Connection>,
        request: &mut PreparedRequest,
        on_event: &mut E,
    ) -> Result<ReceivedResponse, Error>;
}
