//! Calls that block their thread.

use super::{Connection, PendingRequest};
use crate::error::Error;
use crate::sync::lock;
use crate::wire::expected_events::ExpectedEvents;
use crate::wire::in_flight::Arrival;
use crate::wire::request::PreparedRequest;
use crate::wire::response::ReceivedResponse;
use emberd_protocol::Event;
use std::sync::{Arc, PoisonError};

impl Connection {
    /// Sends a request and waits for its response, without a time limit. A failure of the request
    /// is an error.
    pub(crate) fn call(
        self: &Arc<Self>,
        request: &mut PreparedRequest,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        let expects = request.expected_events();
        let frame = request.frame(self.limits())?;
        let pending = self.begin(expects)?;
        frame.id = pending.id;
        if let Err(error) = self.outbox.send(&self.socket, frame) {
            self.die(&self.death_by(&error));
        }
        self.wait(pending.id, on_event)?.or_failure()
    }

    /// A new request, once fewer than [`Connection::max_in_flight`] are in flight.
    fn begin(self: &Arc<Self>, expects: ExpectedEvents) -> Result<PendingRequest, Error> {
        let mut in_flight = lock(&self.in_flight);
        loop {
            if let Some(id) = in_flight.begin(self.max_in_flight(), expects)? {
                return Ok(PendingRequest { connection: Arc::clone(self), id });
            }
            in_flight = self.changed.wait(in_flight).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a response, and reads for all threads while no other thread does: that one is the
    /// leader. When its own response has arrived, another waiting thread takes over.
    fn wait(
        self: &Arc<Self>,
        id: u64,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<ReceivedResponse, Error> {
        let mut in_flight = lock(&self.in_flight);
        loop {
            let (arrival, wakeups) = in_flight.next_arrival(id);
            match arrival {
                Some(Arrival::Response(response)) => {
                    drop(in_flight);
                    // There is room for another request, and the lead is free.
                    self.changed.notify_all();
                    wakeups.wake();
                    return Ok(response?);
                }
                Some(Arrival::Event(event)) => {
                    drop(in_flight);
                    on_event(event);
                    in_flight = lock(&self.in_flight);
                    continue;
                }
                None => {}
            }
            if in_flight.has_leader {
                in_flight = self.changed.wait(in_flight).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            in_flight.has_leader = true;
            drop(in_flight);
            if let Err(death) = self.read_some() {
                self.die(&death);
            }
            in_flight = lock(&self.in_flight);
            in_flight.has_leader = false;
            if in_flight.len() > 1 {
                self.changed.notify_all();
            }
        }
    }
}
