/// The events that the daemon may send before the response to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedEvents {
    None,
    /// The progress of a load. Events may be skipped.
    LoadProgress,
    /// Pieces of generated texts. No piece may be skipped.
    Pieces {
        /// How many texts the request has.
        texts: u32,
    },
}
