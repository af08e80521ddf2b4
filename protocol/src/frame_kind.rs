//! The kinds of frames, and what each may carry.

/// What a frame carries. The numbers are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Client: [`crate::Hello`], the first frame.
    Hello = 1,
    /// Client: [`crate::Request`], followed by texts.
    Request = 2,
    /// Client: no body; the request of this id is no longer wanted.
    Cancel = 3,
    /// Client: [`crate::Free`], slots that it no longer reads. Has no answer.
    Free = 4,
    /// Daemon: [`crate::Welcome`], the answer to Hello.
    Welcome = 16,
    /// Daemon: [`crate::Refusal`]; then the connection ends.
    Refusal = 17,
    /// Daemon: [`crate::Response`], followed by inline rows.
    Response = 18,
    /// Daemon: [`crate::SegmentAnnounce`], with its descriptor if it has one.
    Segment = 19,
    /// Daemon: [`crate::SegmentRetire`], a segment that will not be used again.
    Retire = 20,
    /// Daemon: [`crate::Event`], progress of the request of this id, before its answer.
    Event = 21,
}

impl FrameKind {
    const ALL: [Self; 10] = [
        Self::Hello,
        Self::Request,
        Self::Cancel,
        Self::Free,
        Self::Welcome,
        Self::Refusal,
        Self::Response,
        Self::Segment,
        Self::Retire,
        Self::Event,
    ];

    /// The kind of a number, if there is one.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// How many descriptors may ride on the frame.
    pub(crate) const fn max_descriptors(self) -> u16 {
        match self {
            Self::Segment => 1,
            Self::Hello
            | Self::Request
            | Self::Cancel
            | Self::Free
            | Self::Welcome
            | Self::Refusal
            | Self::Response
            | Self::Retire
            | Self::Event => 0,
        }
    }

    /// Whether the frame may carry a message.
    pub(crate) const fn may_have_body(self) -> bool {
        !matches!(self, Self::Cancel)
    }

    /// Whether raw bytes may follow the message.
    pub(crate) const fn may_have_tail(self) -> bool {
        matches!(self, Self::Request | Self::Response)
    }
}
