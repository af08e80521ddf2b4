use emberd_protocol::Event;

/// The next piece of a text that is being generated: whole characters, in order. The pieces of a
/// text add up to its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text that it belongs to, by its position in the request.
    pub text: usize,
    /// The next characters.
    pub piece: String,
    /// Tokens generated for this text so far.
    pub tokens: u32,
}

impl Piece {
    /// The piece in an event, if the event has one.
    pub(crate) fn from_event(event: Event) -> Option<Self> {
        match event {
            Event::Piece { text, piece, tokens } => {
                Some(Self { text: text as usize, piece, tokens })
            }
            Event::Fetching { .. } | Event::WaitingForRoom | Event::Reading { .. } => None,
        }
    }
}
