use crate::calls::face::Face;
use crate::error::Error;
use crate::sync::lock;
use crate::transport::link::Link;
use crate::transport::session::Session;
use crate::wire::connection::Connection;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::Event;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Callers block their thread.
#[derive(Debug)]
pub(super) struct BlockingFace;

impl Face for BlockingFace {
    type Lock = Mutex<()>;
    type Guard<'a> = MutexGuard<'a, ()>;

    async fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
        lock(mutex)
    }

    async fn connect(link: &Arc<Link>) -> Result<Session, Error> {
        link.session()
    }

    async fn call<E: FnMut(Event)>(
        connection: &Arc<Connection>,
        request: &mut PreparedRequest,
        on_event: &mut E,
    ) -> Result<ReceivedResponse, Error> {
        connection.call(request, on_event)
    }
}

/// Runs a future of the blocking face, which does all of its work when it is first polled.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("no future of the blocking face waits for another"),
    }
}
