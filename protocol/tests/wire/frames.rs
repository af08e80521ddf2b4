//! Frames: whole, cut, in pieces, back to back, and broken.
//!
//! # The bound on memory
//! Of `n` bytes that were fed, decoder and frames together never hold more than `4 n + 1024`: a
//! buffer that doubles has its old and its new place for a moment (3), and the frames taken out of
//! it are copies (1). What a header *promises* counts nothing.

use crate::allocation::peak_bytes;
use crate::golden;
use crate::message::Message;
use crate::samples;
use emberd_protocol::{
    Decoder, Frame, FrameError, FrameKind, HEADER_BYTES, MAGIC, MAX_BODY_BYTES, MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
};
use proptest::prelude::{any, prop, prop_assert_eq, proptest};

fn bound(len: usize) -> usize {
    4 * len + 1024
}

/// Feeds the bytes in pieces of the given sizes, the last one over and over.
fn decode_in_pieces(bytes: &[u8], sizes: &[usize]) -> (Vec<Frame>, Option<FrameError>, Decoder) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::with_capacity(bytes.len() / HEADER_BYTES + 1);
    let mut sizes = sizes.iter().copied();
    let (mut rest, mut size) = (bytes, usize::MAX);
    while !rest.is_empty() {
        size = sizes.next().unwrap_or(size).clamp(1, rest.len().max(1));
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error), decoder),
            }
        }
    }
    (frames, None, decoder)
}

/// What holds for all bytes, whole or in pieces: no panic, memory within the bound, the same
/// frames and the same error either way, and frames that are the bytes that were fed.
fn decode_whatever_it_is(bytes: &[u8], sizes: &[usize]) -> (Vec<Frame>, Option<FrameError>) {
    let (whole, error, _) = decode_in_pieces(bytes, &[bytes.len()]);
    let ((pieces, same_error, mut decoder), peak) = peak_bytes(|| decode_in_pieces(bytes, sizes));
    let list = (bytes.len() / HEADER_BYTES + 1) * size_of::<Frame>();
    let len = bytes.len();
    assert!(peak - list <= bound(len), "{peak} bytes for {len} in pieces of {sizes:?}");
    assert_eq!((&whole, &error), (&pieces, &same_error), "in pieces of {sizes:?}");
    let again: Vec<u8> = whole.iter().flat_map(Frame::to_bytes).collect();
    assert_eq!(again, bytes[..again.len()]);
    match &error {
        Some(error) => {
            decoder.feed(&Message::Cancel.frame(1).to_bytes());
            assert_eq!(decoder.next().as_ref(), Err(error), "an error stays");
        }
        None => assert_eq!(decoder.is_mid_frame(), again.len() < len),
    }
    for frame in &whole {
        let _ = Message::decode(frame);
    }
    (whole, error)
}

fn header(change: impl FnOnce(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
    let mut header: [u8; HEADER_BYTES] = Message::Cancel.frame(7).to_bytes().try_into().unwrap();
    change(&mut header);
    header
}

fn error_of(bytes: &[u8]) -> FrameError {
    let (frames, error) = decode_whatever_it_is(bytes, &[1]);
    assert_eq!(frames, []);
    error.expect("the header breaks a rule")
}

fn sized(kind: FrameKind, body_len: usize, tail_len: usize) -> [u8; HEADER_BYTES] {
    header(|h| {
        h[3] = kind as u8;
        h[16..20].copy_from_slice(&u32::try_from(body_len).unwrap().to_le_bytes());
        h[20..24].copy_from_slice(&u32::try_from(tail_len).unwrap().to_le_bytes());
    })
}

#[test]
fn every_frame_may_come_byte_by_byte_and_says_what_it_still_lacks() {
    for sample in samples::all() {
        let bytes = sample.frame.to_bytes();
        let mut decoder = Decoder::default();
        assert!(!decoder.is_mid_frame());
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(decoder.next(), Ok(None), "{} cut at {at}", sample.name);
            assert_eq!(decoder.is_mid_frame(), at > 0, "{} cut at {at}", sample.name);
            let end = if at < HEADER_BYTES { HEADER_BYTES } else { bytes.len() };
            assert_eq!(decoder.missing_bytes(), end - at, "{} cut at {at}", sample.name);
            decoder.feed(&[*byte]);
        }
        assert_eq!(decoder.next(), Ok(Some(sample.frame)), "{}", sample.name);
        assert!(!decoder.is_mid_frame());
        assert_eq!(decoder.next(), Ok(None));
    }
}

#[test]
fn frames_back_to_back_come_apart_however_they_are_cut() {
    let samples = samples::all();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.frame.to_bytes()).collect();
    let wanted: Vec<Frame> = samples.into_iter().map(|sample| sample.frame).collect();
    for size in 1..=bytes.len() {
        assert_eq!(decode_whatever_it_is(&bytes, &[size]), (wanted.clone(), None));
    }
}

#[test]
fn a_wrong_magic_version_kind_or_flag_is_an_error_as_soon_as_the_header_is_there() {
    for magic in [0u16, MAGIC.swap_bytes(), MAGIC ^ 1, !0] {
        let bytes = header(|h| h[0..2].copy_from_slice(&magic.to_le_bytes()));
        assert_eq!(error_of(&bytes), FrameError::WrongMagic);
    }
    for theirs in (0..=u8::MAX).filter(|version| *version != PROTOCOL_VERSION) {
        let bytes = header(|h| h[2] = theirs);
        assert_eq!(error_of(&bytes), FrameError::WrongVersion { theirs });
    }
    for kind in [0, 5, 15, 22, 128, 255] {
        assert_eq!(error_of(&header(|h| h[3] = kind)), FrameError::UnknownKind(kind));
    }
    for bit in 0..16 {
        let bytes = header(|h| h[4..6].copy_from_slice(&(1u16 << bit).to_le_bytes()));
        assert_eq!(error_of(&bytes), FrameError::UnknownFlags(1 << bit));
    }
}

#[test]
fn descriptors_bodies_and_tails_are_refused_where_they_have_no_place() {
    use FrameKind::{
        Cancel, Event, Free, Hello, Refusal, Request, Response, Retire, Segment, Welcome,
    };
    for kind in [Hello, Request, Cancel, Free, Welcome, Refusal, Response, Segment, Retire, Event] {
        let most = u16::from(kind == Segment);
        for count in [0, 1, 2, 253, u16::MAX] {
            let bytes = header(|h| {
                h[3] = kind as u8;
                h[6..8].copy_from_slice(&count.to_le_bytes());
            });
            let (frames, error) = decode_whatever_it_is(&bytes, &[5]);
            let unexpected = FrameError::UnexpectedDescriptors { count };
            assert_eq!(error, (count > most).then_some(unexpected), "{count} on {kind:?}");
            assert_eq!(frames.len(), usize::from(count <= most));
        }
        let body = (kind == Cancel).then_some(FrameError::UnexpectedBody);
        assert_eq!(decode_whatever_it_is(&sized(kind, 1, 0), &[7]), (vec![], body), "{kind:?}");
        let has_tail = matches!(kind, Request | Response);
        let tail = (!has_tail).then_some(FrameError::UnexpectedTail);
        assert_eq!(decode_whatever_it_is(&sized(kind, 0, 1), &[7]), (vec![], tail), "{kind:?}");
    }
}

#[test]
fn sizes_over_the_limits_are_refused_and_the_limits_themselves_are_not() {
    let most_tail = MAX_FRAME_BYTES - HEADER_BYTES - MAX_BODY_BYTES;
    let fits = sized(FrameKind::Request, MAX_BODY_BYTES, most_tail);
    assert_eq!(decode_whatever_it_is(&fits, &[9]), (vec![], None));
    assert_eq!(
        error_of(&sized(FrameKind::Request, MAX_BODY_BYTES, most_tail + 1)),
        FrameError::TooLarge { len_bytes: MAX_FRAME_BYTES as u64 + 1 }
    );
    assert_eq!(
        error_of(&sized(FrameKind::Hello, MAX_BODY_BYTES + 1, 0)),
        FrameError::BodyTooLarge { len_bytes: MAX_BODY_BYTES as u64 + 1 }
    );
    let most = u32::MAX as usize;
    assert_eq!(
        error_of(&sized(FrameKind::Response, 0, most)),
        FrameError::TooLarge { len_bytes: (HEADER_BYTES + most) as u64 }
    );
    assert_eq!(
        error_of(&sized(FrameKind::Response, most, most)),
        FrameError::BodyTooLarge { len_bytes: most as u64 }
    );
}

/// What one side writes the other side reads: each refusal of the decoder is one of the writer.
#[test]
fn a_frame_that_no_reader_takes_is_not_written() {
    let frame = |kind, descriptors, body, tail| Frame {
        kind,
        descriptors,
        id: 1,
        body: vec![0; body],
        tail: vec![0; tail],
    };
    let over = MAX_FRAME_BYTES - HEADER_BYTES + 1;
    let broken = [
        (frame(FrameKind::Response, 1, 0, 0), FrameError::UnexpectedDescriptors { count: 1 }),
        (frame(FrameKind::Cancel, 0, 1, 0), FrameError::UnexpectedBody),
        (frame(FrameKind::Free, 0, 8, 1), FrameError::UnexpectedTail),
        (
            frame(FrameKind::Hello, 0, MAX_BODY_BYTES + 1, 0),
            FrameError::BodyTooLarge { len_bytes: MAX_BODY_BYTES as u64 + 1 },
        ),
        (
            frame(FrameKind::Response, 0, 0, over),
            FrameError::TooLarge { len_bytes: MAX_FRAME_BYTES as u64 + 1 },
        ),
    ];
    for (frame, error) in broken {
        assert_eq!(frame.header(), Err(error), "{frame:?}");
    }
    let largest = frame(FrameKind::Response, 0, 0, over - 1);
    let bytes = largest.to_bytes();
    assert_eq!(bytes.len(), MAX_FRAME_BYTES);
    let (frames, error, decoder) = decode_in_pieces(&bytes, &[256 << 10]);
    assert!(frames == [largest] && error.is_none() && !decoder.is_mid_frame());
}

#[test]
fn a_header_that_promises_the_most_reserves_nothing() {
    let bytes = sized(FrameKind::Response, MAX_BODY_BYTES, 30 << 20);
    let (decoder, peak) = peak_bytes(|| {
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        assert_eq!(decoder.next(), Ok(None));
        decoder
    });
    assert!(peak <= bound(HEADER_BYTES), "{peak} bytes for a header");
    assert_eq!(decoder.missing_bytes(), MAX_BODY_BYTES + (30 << 20));
}

#[test]
fn a_decoder_gives_the_memory_of_a_large_frame_back() {
    let mut frame = Message::Cancel.frame(1);
    frame.kind = FrameKind::Response;
    frame.tail = vec![0; 8 << 20];
    let bytes = [frame.to_bytes(), Message::Cancel.frame(2).to_bytes()].concat();
    let mut decoder = Decoder::default();
    decoder.feed(&bytes);
    let (frames, _) = peak_bytes(|| [decoder.next(), decoder.next()]);
    assert!(frames.iter().all(|frame| matches!(frame, Ok(Some(_)))));
    drop(frames);
    // A decoder that kept its buffer would have no need of a new one.
    let ((), peak) = peak_bytes(|| decoder.feed(&bytes[..1000]));
    assert!((1000..2000).contains(&peak), "{peak} bytes for 1000");
}

#[test]
fn texts_and_rows_are_not_shown_in_logs() {
    let mut decoder = Decoder::default();
    let bytes = &golden::frames()["request-embed"];
    decoder.feed(bytes);
    let held = format!("{decoder:?}");
    assert!(held.contains(&format!("held_bytes: {}", bytes.len())), "{held}");
    assert!(!held.contains("[1") && !held.contains("109"), "{held}");
    let frame = format!("{:?}", decoder.next());
    assert!(frame.contains("tail_len: 19") && !frame.contains("109"), "{frame}");
}

proptest! {
    #[test]
    fn golden_frames_with_changes_are_survived_in_any_pieces(
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        sizes in prop::collection::vec(1..90usize, 1..20),
        cut in 0..40usize,
    ) {
        let golden: Vec<Vec<u8>> = golden::frames().into_values().collect();
        let mut bytes: Vec<u8> =
            order.iter().flat_map(|at| golden[at.index(golden.len())].clone()).collect();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        let _ = decode_whatever_it_is(&bytes, &sizes);
    }

    #[test]
    fn random_bytes_are_survived_in_any_pieces(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        sizes in prop::collection::vec(1..90usize, 1..20),
    ) {
        let _ = decode_whatever_it_is(&bytes, &sizes);
        // Behind a good magic, version and kind they get further.
        let start = header(|h| h[3] = FrameKind::Request as u8);
        let _ = decode_whatever_it_is(&[&start[..6], &bytes].concat(), &sizes);
    }

    #[test]
    fn any_header_fields_come_back(id: u64, body in 0..999usize, tail in 0..99_999usize) {
        let frame = Frame {
            kind: FrameKind::Response,
            descriptors: 0,
            id,
            body: vec![1; body],
            tail: vec![2; tail],
        };
        prop_assert_eq!(frame.len_bytes(), frame.to_bytes().len());
        let (frames, error) = decode_whatever_it_is(&frame.to_bytes(), &[77, 70_000]);
        prop_assert_eq!((frames, error), (vec![frame], None));
    }
}
