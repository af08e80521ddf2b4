//! A request and its answer, as a future.

use crate::answer::Answer;
use crate::connection::{Connection, Pending};
use crate::error::Error;
use crate::lock;
use crate::question::Question;
use crate::table::{Death, News, Wants};
use emberd_protocol::Event;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Asks and waits for the answer, as long as it takes. A failure of the request is an error.
/// Dropped meanwhile, it cancels the request.
pub(super) async fn call<F: FnMut(Event)>(
    connection: &Arc<Connection>,
    question: &mut Question,
    on_event: &mut F,
) -> Result<Answer, Error> {
    let wants = question.wants();
    // Answered as it is read, it takes no room, and must not be lost while it waits for some.
    let most = if question.is_release() { usize::MAX } else { connection.most_in_flight() };
    let frame = question.frame(connection.limits())?;
    let pending = Entering { connection, most, wants, ticket: None }.await?;
    // Nothing is awaited until it is sent.
    frame.id = pending.id;
    connection.send_soon(frame);
    poll_fn(|context| poll_answer(&pending, on_event, context)).await?.or_failure()
}

/// A future that waits for room for its request.
struct Entering<'a> {
    connection: &'a Arc<Connection>,
    most: usize,
    wants: Wants,
    /// Its place in the queue, from when it first waited until it waits no more.
    ticket: Option<u64>,
}

impl Future for Entering<'_> {
    type Output = Result<Pending, Death>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let connection = Arc::clone(self.connection);
        let mut table = lock(&connection.table);
        let Some(id) = table.enter(self.most, self.wants)? else {
            let old = table.wait_for_room(&mut self.ticket, context.waker());
            drop(table);
            drop(old);
            return Poll::Pending;
        };
        let waker = self.ticket.take().and_then(|ticket| table.leave_queue(ticket));
        drop(table);
        drop(waker);
        Poll::Ready(Ok(Pending { connection, id }))
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let (waker, wake) = lock(&self.connection.table).give_up_queue(ticket);
            drop(waker);
            wake.now();
        }
    }
}

fn poll_answer<F: FnMut(Event)>(
    pending: &Pending,
    on_event: &mut F,
    context: &mut Context<'_>,
) -> Poll<Result<Answer, Death>> {
    loop {
        let mut table = lock(&pending.connection.table);
        let (news, wake) = table.news(pending.id);
        let Some(news) = news else {
            let old = table.wait_for_news(pending.id, context.waker());
            drop(table);
            drop(old);
            return Poll::Pending;
        };
        drop(table);
        wake.now();
        match news {
            News::Event(event) => on_event(event),
            News::Answer(result) => return Poll::Ready(result),
        }
    }
}
