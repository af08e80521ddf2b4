//! The wire from outside: what each message looks like in bytes, and what hostile bytes do.
//!
//! `golden.txt` holds one frame of every kind of message. A test that differs from it is either a
//! mistake or a new version of the protocol; `UPDATE_GOLDEN=1 cargo test -p emberd-protocol`
//! writes the file (and the seeds of the fuzz targets) again, so that the change shows in the diff.
#![expect(clippy::unwrap_used, reason = "what fails in a test is shown as it is")]

mod allocation;
mod arbitrary;
mod arbitrary_models;
mod arbitrary_status;
mod frames;
mod golden;
mod message;
mod messages;
mod model_samples;
mod reference;
mod samples;
mod status_sample;
mod texts;
