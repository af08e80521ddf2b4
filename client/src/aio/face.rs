use super::call::call;
use crate::calls::face::Face;
use crate::error::{ConnectError, Error};
use crate::transport::link::Link;
use crate::transport::session::Session;
use crate::wire::connection::Connection;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::Event;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// Callers are futures on a tokio runtime.
#[derive(Debug)]
pub(super) struct AsyncFace;

impl Face for AsyncFace {
    type Lock = Mutex<()>;
    type Guard<'a> = MutexGuard<'a, ()>;

    async fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
        mutex.lock().await
    }

    async fn connect(link: &Arc<Link>) -> Result<Session, Error> {
        let link = Arc::clone(link);
        run_blocking(move || link.session()).await
    }

    async fn call<E: FnMut(Event)>(
        connection: &Arc<Connection>,
        request: &mut PreparedRequest,
        on_event: &mut E,
    ) -> Result<ReceivedResponse, Error> {
        call(connection, request, on_event).await
    }
}

/// Runs blocking work on one of the runtime's threads for it.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {
            let source = io::Error::other("the runtime is shutting down");
            Err(ConnectError::Socket { path: PathBuf::new(), source }.into())
        }
    }
}
