//! Any message, so that a test can speak of all kinds at once.

use crate::reference::{self, Reference};
use emberd_protocol::{
    CodecError, Event, Frame, FrameKind, Free, Hello, Refusal, Request, Response, SegmentAnnounce,
    SegmentRetire, Welcome,
};

/// The message of each kind of frame; the compiler asks for a line here when a kind is added.
macro_rules! messages {
    ($($kind:ident($type:ty)),*) => {
        /// What a frame of the kind of the same name carries.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) enum Message {
            $($kind($type),)*
            Cancel,
        }

        impl Message {
            pub(crate) fn kind(&self) -> FrameKind {
                match self {
                    $(Self::$kind(_) => FrameKind::$kind,)*
                    Self::Cancel => FrameKind::Cancel,
                }
            }

            /// The body of a frame as a message of its kind.
            pub(crate) fn decode(frame: &Frame) -> Result<Self, CodecError> {
                Ok(match frame.kind {
                    $(FrameKind::$kind => Self::$kind(frame.decode::<$type>()?),)*
                    FrameKind::Cancel => Self::Cancel,
                })
            }

            /// A frame around it.
            pub(crate) fn frame(&self, id: u64) -> Frame {
                match self {
                    $(Self::$kind(message) => {
                        Frame::message(FrameKind::$kind, id, message).unwrap()
                    })*
                    Self::Cancel => Frame {
                        kind: FrameKind::Cancel,
                        descriptors: 0,
                        id,
                        body: Vec::new(),
                        tail: Vec::new(),
                    },
                }
            }

            /// How many texts ride behind it, where texts do.
            pub(crate) fn texts(&self) -> Option<u32> {
                let Self::Request(request) = self else { return None };
                match request {
                    Request::Embed(embed) => Some(embed.texts),
                    Request::Rerank(rerank) => Some(rerank.texts),
                    Request::Generate(generate) => Some(generate.texts),
                    Request::FillMask(fill) => Some(fill.texts),
                    _ => None,
                }
            }

            /// Its bytes by the rules that `docs/protocol.md` gives, without bincode.
            pub(crate) fn reference(&self) -> Reference {
                match self {
                    $(Self::$kind(message) => reference::encode(message),)*
                    Self::Cancel => Reference::default(),
                }
            }
        }
    };
}

messages!(
    Hello(Hello),
    Request(Request),
    Free(Free),
    Welcome(Welcome),
    Refusal(Refusal),
    Response(Response),
    Segment(SegmentAnnounce),
    Retire(SegmentRetire),
    Event(Event)
);
