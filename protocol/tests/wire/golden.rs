//! The bytes of every message, kept in `golden.txt`.

use crate::message::Message;
use crate::samples;
use emberd_protocol::{
    Delivery, EarlyStopping, ElementType, Event, FinishReason, Frame, FrameKind, HEADER_BYTES,
    Method, ModelKind, ModelState, Pairing, Place, Prompt, RefusalReason, Request, Response,
    ScoreActivation, SegmentBackend, SegmentHandle, Target, Verdict,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "\
# One frame of every message: name, header, body, tail (`-` where there is none), in hexadecimal.
# A difference is either a mistake or a new version of the protocol. After a deliberate change:
#   UPDATE_GOLDEN=1 cargo test -p emberd-protocol
";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt")
}

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target)
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    assert!(rest.is_empty(), "an odd number of digits in {text:?}");
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(byte).collect()
}

/// What the golden file should be.
fn text() -> String {
    let mut text = HEAD.to_owned();
    for sample in samples::all() {
        let header = sample.frame.header().unwrap();
        let [header, body, tail] = [&header[..], &sample.frame.body, &sample.frame.tail].map(hex);
        writeln!(text, "{} {header} {body} {tail}", sample.name).unwrap();
    }
    text
}

/// The frames of the golden file, by name.
pub(crate) fn frames() -> BTreeMap<String, Vec<u8>> {
    // While the file is rewritten, no other test may read half of it.
    let text = if is_update() { text() } else { fs::read_to_string(file()).unwrap() };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let frame = |line: &str| {
        let (name, parts) = line.split_once(' ').unwrap();
        (name.to_owned(), parts.split(' ').flat_map(from_hex).collect())
    };
    lines.map(frame).collect()
}

/// Compares a file with what it should be, or rewrites it if that is requested.
fn keep(path: &Path, wanted: &[u8]) {
    if is_update() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, wanted).unwrap();
        return;
    }
    let there = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let name = path.file_name().unwrap().display();
    let show = |bytes: &[u8]| match str::from_utf8(bytes) {
        Ok(text) if text.contains('\n') => text.to_owned(),
        _ => hex(bytes),
    };
    assert_eq!(
        show(&there),
        show(wanted),
        "{name} (left) is not what the code makes (right); see the head of golden.txt"
    );
}

#[test]
fn every_message_has_the_bytes_of_the_golden_file() {
    keep(&file(), text().as_bytes());
}

#[test]
fn the_fuzz_seeds_are_the_golden_frames() {
    let samples = samples::all();
    let mut conversation = Vec::new();
    for sample in &samples {
        let bytes = sample.frame.to_bytes();
        keep(&seeds("frame").join(sample.name), &bytes);
        conversation.extend(bytes);
    }
    keep(&seeds("frame").join("all"), &conversation);
    let mut blocks = 0;
    for sample in &samples {
        if let Some(texts) = sample.message.texts() {
            let block = [&texts.to_le_bytes()[..], &sample.frame.tail].concat();
            keep(&seeds("text_block").join(sample.name), &block);
            blocks += 1;
        }
    }
    assert_eq!(fs::read_dir(seeds("frame")).unwrap().count(), samples.len() + 1);
    assert_eq!(fs::read_dir(seeds("text_block")).unwrap().count(), blocks);
}

#[test]
fn the_golden_frames_decode_to_the_messages_that_they_are_named_after() {
    let golden = frames();
    let samples = samples::all();
    assert_eq!(golden.len(), samples.len(), "names are unique, and none is left over");
    for sample in samples {
        let bytes = &golden[sample.name];
        let mut decoder = emberd_protocol::Decoder::default();
        decoder.feed(bytes);
        let frame = decoder.next().unwrap().unwrap();
        assert_eq!((&frame, frame.to_bytes()), (&sample.frame, bytes.clone()), "{}", sample.name);
        assert_eq!(Message::decode(&frame).unwrap(), sample.message, "{}", sample.name);
    }
}

/// How many variants an enum has. The match has no other arm: a new variant does not compile
/// until it is named here, and then the test below asks for its sample.
macro_rules! variants {
    ($($type:ident { $($variant:ident)* })*) => {{
        $(const _: fn(&$type) = |value| match value { $($type::$variant { .. } => {})* };)*
        [$((stringify!($type), [$(stringify!($variant)),*].len())),*]
    }};
}

#[test]
fn every_kind_of_frame_and_every_variant_is_in_the_golden_file() {
    let wanted: BTreeSet<(&str, u32)> = variants! {
        Request {
            Ping Acquire Release Embed AvailableModels ModelConfig Status Preload Unload
            CleanupUnusedModels ClearEmbeddingCache Reload Why Plan Rerank Generate FillMask
        }
        Response {
            Failed Pong Leased Released Embedded AvailableModels ModelConfig Status Preloaded
            Freed CacheCleared Reloaded Decisions Reranked Generated MasksFilled
        }
        Event { Fetching WaitingForRoom Reading Piece }
        Verdict { Load Wait Refuse Evict Unload Fail Stay }
        RefusalReason { Version NotPermitted TooManyConnections ShuttingDown NoHello }
        SegmentBackend { Memfd Posix }
        SegmentHandle { Descriptor Name }
        ModelKind { Embedding Text2Text Rerank }
        Method { Embed Rerank Generate FillMask }
        ModelState { Configured Loading Ready Idle Draining Unloading Failed }
        Target { Lease Model }
        Delivery { Auto Inline }
        Place { Inline Slot }
        ElementType { F32 F16 I8 U8 Binary Ubinary }
        Prompt { Default Named Text }
        Pairing { QueryFirst Adjacent }
        ScoreActivation { Model Identity Sigmoid Softmax }
        EarlyStopping { No Yes Never }
        FinishReason { End Length Stop }
    }
    .into_iter()
    .flat_map(|(name, count)| (0..count).map(move |at| (name, u32::try_from(at).unwrap())))
    .collect();
    let samples = samples::all();
    let there: BTreeSet<_> =
        samples.iter().flat_map(|sample| sample.message.reference().variants).collect();
    assert_eq!(there, wanted);

    let kinds = variants! {
        FrameKind { Hello Request Cancel Free Welcome Refusal Response Segment Retire Event }
    };
    let numbers: BTreeSet<u8> = samples.iter().map(|sample| sample.frame.kind as u8).collect();
    assert_eq!(numbers.len(), kinds[0].1);
    assert_eq!(numbers, known_kinds(), "a number is known that no sample has");
}

/// The kinds that the decoder knows, found by trying all of them.
fn known_kinds() -> BTreeSet<u8> {
    let cancel = Message::Cancel.frame(1).to_bytes();
    let mut header: [u8; HEADER_BYTES] = cancel.try_into().unwrap();
    let mut is_known = |kind: &u8| {
        header[3] = *kind;
        let mut decoder = emberd_protocol::Decoder::default();
        decoder.feed(&header);
        matches!(decoder.next(), Ok(Some(Frame { .. })))
    };
    (0..=u8::MAX).filter(|kind| is_known(kind)).collect()
}

#[test]
fn bincode_encodes_as_the_document_says() {
    for sample in samples::all() {
        assert_eq!(sample.message.reference().bytes, sample.frame.body, "{}", sample.name);
    }
}
