//! Segments as a client sees them, and how pools grow.

mod conformance;
mod growth;
