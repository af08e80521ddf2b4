//! Any bytes as a stream of frames, whole and in pieces, each frame decoded as its message.
#![no_main]

use emberd_protocol::{
    Decoder, Event, Frame, FrameError, FrameKind, Free, Hello, Refusal, Request, Response,
    SegmentAnnounce, SegmentRetire, TextBlock, Welcome,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (frames, error) = decode(bytes, |rest| rest.len());
    // The sizes of the pieces come from the bytes themselves, so that a seed is plain frames.
    let pieces = decode(bytes, |rest| 1 + usize::from(rest[0] % 61));
    assert_eq!((&frames, &error), (&pieces.0, &pieces.1));

    let again: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
    assert_eq!(again, bytes[..again.len()]);
    for frame in &frames {
        message(frame);
    }
});

fn decode(
    bytes: &[u8],
    size: impl Fn(&[u8]) -> usize,
) -> (Vec<Frame>, Option<FrameError>) {
    let (mut decoder, mut frames, mut rest) = (Decoder::default(), Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(size(rest).min(rest.len()));
        rest = behind;
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(decoder.missing_bytes() > 0);
    }
    (frames, None)
}

/// A body that is a message is the only one for it.
fn message(frame: &Frame) {
    macro_rules! check {
        ($type:ty) => {
            if let Ok(message) = frame.decode::<$type>() {
                let again = Frame::message(frame.kind, frame.id, &message)
                    .expect("it came in a frame, so it fits one");
                assert_eq!(again.body, frame.body, "{message:?}");
            }
        };
    }
    match frame.kind {
        FrameKind::Hello => check!(Hello),
        FrameKind::Request => {
            check!(Request);
            let texts = match frame.decode() {
                Ok(Request::Embed(embed)) => embed.texts,
                Ok(Request::Rerank(rerank)) => rerank.texts,
                Ok(Request::Generate(generate)) => generate.texts,
                Ok(Request::FillMask(fill)) => fill.texts,
                _ => return,
            };
            let _ = TextBlock::parse(texts, frame.tail.clone());
        }
        FrameKind::Cancel => assert!(frame.body.is_empty() && frame.tail.is_empty()),
        FrameKind::Free => check!(Free),
        FrameKind::Welcome => check!(Welcome),
        FrameKind::Refusal => check!(Refusal),
        FrameKind::Response => check!(Response),
        FrameKind::Segment => check!(SegmentAnnounce),
        FrameKind::Retire => check!(SegmentRetire),
        FrameKind::Event => check!(Event),
    }
}
