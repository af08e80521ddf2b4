//! Queues of work, and the threads that compute it.
//!
//! Two ways lead through here, and share what they can: rows and scores (`row_job`, `queue`,
//! `worker`, `single_flight`), and texts with an answer of their own (`text_job`, `fair_queue`,
//! `fill_mask`, `generation`).

mod claimed;
mod fair_queue;
pub mod fill_mask;
pub mod generation;
pub(crate) mod queue;
pub(crate) mod row_job;
pub(crate) mod row_shape;
mod single_flight;
mod text_input;
pub(crate) mod text_job;
pub(crate) mod worker;
