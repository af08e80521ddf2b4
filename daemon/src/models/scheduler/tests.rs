//! The scheduler without threads and without a clock.

mod life;
mod placement;
mod play;
mod random;
