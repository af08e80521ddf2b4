//! Queues of work and the threads that compute it.

pub(crate) mod fair_queue;
pub mod fill_mask;
pub mod generation;
pub(crate) mod job;
pub(crate) mod queue;
pub(crate) mod row_shape;
pub(crate) mod text_job;
pub(crate) mod worker;
