//! A request and its response, as a future.

use crate::error::Error;
use crate::sync::lock;
use crate::wire::connection::{Connection, PendingRequest};
use crate::wire::death::Death;
use crate::wire::expected_events::ExpectedEvents;
use crate::wire::in_flight::Arrival;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::Event;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Sends a request and waits for its response, without a time limit. A failure of the request is an
/// error. Dropping the future cancels the request.
pub(super) async fn call<E: FnMut(Event)>(
    connection: &Arc<Connection>,
    request: &mut PreparedRequest,
    on_event: &mut E,
) -> Result<ReceivedResponse, Error> {
    let expects = request.expected_events();
    // The daemon answers a release as soon as it reads it, so a release needs no room. It must not
    // be lost while it waits for some.
    let limit = if request.is_release() { usize::MAX } else { connection.max_in_flight() };
    let frame = request.frame(connection.limits())?;
    let pending = Begin { connection, limit, expects, ticket: None }.await?;
    // No await until it is sent.
    frame.id = pending.id;
    connection.send_soon(frame);
    poll_fn(|context| poll_response(&pending, on_event, context)).await?.or_failure()
}

/// Waits until fewer than `limit` requests are in flight, and begins one.
struct Begin<'a> {
    connection: &'a Arc<Connection>,
    limit: usize,
    expects: ExpectedEvents,
    /// Its position in the queue, while it waits.
    ticket: Option<u64>,
}

impl Future for Begin<'_> {
    type Output = Result<PendingRequest, Death>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = Arc::clone(self.connection);
        let mut in_flight = lock(connection.in_flight());
        let Some(id) = in_flight.begin(self.limit, self.expects)? else {
            let old = in_flight.wake_on_room(&mut self.ticket, context.waker());
            drop(in_flight);
            drop(old);
            return Poll::Pending;
        };
        let waker = self.ticket.take().and_then(|ticket| in_flight.leave_queue(ticket));
        drop(in_flight);
        drop(waker);
        Poll::Ready(Ok(PendingRequest { connection, id }))
    }
}

impl Drop for Begin<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let (waker, wakeups) = lock(self.connection.in_flight()).give_up_queue(ticket);
            drop(waker);
            wakeups.wake();
        }
    }
}

fn poll_response<E: FnMut(Event)>(
    pending: &PendingRequest,
    on_event: &mut E,
    context: &mut Context<'_>,
) -> Poll<Result<ReceivedResponse, Death>> {
    loop {
        let mut in_flight = lock(pending.connection.in_flight());
        let (arrival, wakeups) = in_flight.next_arrival(pending.id);
        let Some(arrival) = arrival else {
            let old = in_flight.wake_on_arrival(pending.id, context.waker());
            drop(in_flight);
            drop(old);
            return Poll::Pending;
        };
        drop(in_flight);
        wakeups.wake();
        match arrival {
            Arrival::Event(event) => on_event(event),
            Arrival::Response(result) => return Poll::Ready(result),
        }
    }
}
