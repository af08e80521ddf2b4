use crate::support::{ClientProcess, Daemon, Raw, code_of, eventually, minilm, texts};
use emberd_client::{Client, Embeddings};
use emberd_protocol::{
    Delivery, ElementType, EmbedOptions, EmbedRequest, Embedded, ErrorCode, Frame, FrameKind, Free,
    ModelId, Place, Request, Response, Target, TextBuilder,
};
use std::path::Path;
use std::sync::Arc;

fn bits(rows: &Embeddings) -> Vec<u32> {
    rows.as_slice().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn small_results_come_inline_large_ones_shared_and_both_are_the_same_rows() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    let texts = texts(600);
    let shared = model.embed(&texts).unwrap();
    assert!(shared.is_shared());
    assert_eq!((shared.len(), shared.dimension()), (600, 128));
    let inline = Client::builder().inline_only().connect_to(daemon.socket()).unwrap();
    let inline = inline.embedding_model("builtin").unwrap().embed(&texts).unwrap();
    assert!(!inline.is_shared());
    assert_eq!(bits(&shared), bits(&inline));
    for at in [0, 1, 63, 599] {
        let single = model.embed_one(&texts[at]).unwrap();
        assert!(!single.is_shared());
        assert_eq!(single.row(0), shared.row(at), "row {at}");
    }
    let status = daemon.status();
    let counted = status.models.iter().find(|m| m.id.as_str() == "builtin").unwrap();
    assert_eq!((counted.rows_shared, counted.rows_inline), (600, 604));
    assert_eq!((counted.texts, counted.texts_cached), (600, 604));
}

#[test]
fn the_threshold_is_the_settings_and_the_rows_do_not_depend_on_the_backend() {
    let memfd = Daemon::with_settings("segments.inline_kib = 1\n");
    let mut posix =
        Daemon::with_settings("segments.inline_kib = 1\nsegments.backend = \"posix\"\n");
    let texts = texts(50);
    let small = memfd.model("builtin").embed(&texts[..2]).unwrap();
    assert!(!small.is_shared(), "two rows of 512 bytes are 1 KiB");
    let one = memfd.model("builtin").embed(&texts[..3]).unwrap();
    assert!(one.is_shared());
    let client = posix.client();
    let model = client.embedding_model("builtin").unwrap();
    let other = model.embed(&texts[..3]).unwrap();
    assert_eq!(bits(&one), bits(&other));
    let prefix = format!("emberd-{}-", posix.pid());
    let entries = || {
        let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
        names.filter(|name| name.file_name().to_string_lossy().contains(&prefix)).count()
    };
    assert!(entries() > 0, "the rows came through a named segment");
    drop((model, client, other));
    posix.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(posix.wait().success());
    assert_eq!(entries(), 0, "no name is left behind");
}

#[test]
fn segments_that_are_cut_short_from_outside_cost_requests_and_no_process() {
    let daemon = Daemon::with_settings("segments.inline_kib = 1\nsegments.backend = \"posix\"\n");
    let model = daemon.model("builtin");
    let texts = texts(50);
    let whole = model.embed(&texts).unwrap();
    let prefix = format!("emberd-{}-", daemon.pid());
    let names = || {
        let names = std::fs::read_dir("/dev/shm").unwrap().flatten();
        names.filter(|name| name.file_name().to_string_lossy().starts_with(&prefix))
    };
    eventually("its spare segments are made", || names().count() > 2);
    for name in names() {
        let file = std::fs::File::options().write(true).open(name.path()).unwrap();
        file.set_len(0).unwrap();
    }
    // The one in use and the two spares are given up one after another.
    let mut refused = 0;
    let rows = loop {
        match model.embed(&texts) {
            Ok(rows) => break rows,
            failed => assert_eq!(code_of(failed), ErrorCode::DeviceError),
        }
        refused += 1;
        assert!(refused <= 3, "new segments are not cut short");
    };
    assert!(refused > 0, "the segment in use was cut short");
    assert_eq!(bits(&rows), bits(&whole));
}

#[test]
fn awkward_texts_are_embedded_and_none_is_dropped() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    let long = "word ".repeat(200_000);
    let texts = ["", " ", "a\0b\u{7}\u{1b}\u{feff}", "\u{10ffff}\u{0}", "日本語 العربية 🦀", &long];
    let together = model.embed(&texts).unwrap();
    assert_eq!(together.len(), texts.len());
    for (at, text) in texts.iter().enumerate() {
        let alone = model.embed_one(text).unwrap();
        assert_eq!(alone.row(0), together.row(at), "text {at}");
        assert!(alone.row(0).iter().all(|value| value.is_finite()));
    }
    assert_eq!(model.embed::<&str>(&[]).unwrap().len(), 0);
}

#[test]
fn texts_that_lose_their_end_are_reported() {
    let daemon = Daemon::gated(None);
    daemon.open_gate();
    let model = daemon.model("gated");
    let long = "x".repeat(2000);
    let texts: Vec<&str> = (0..300).map(|n| if n % 100 == 7 { &long } else { "short" }).collect();
    let rows = model.embed(&texts).unwrap();
    assert_eq!(rows.truncated(), [7, 107, 207]);
    assert_eq!(rows.row(107)[0].to_bits(), 2000f32.to_bits());
    assert_eq!(rows.row(108)[0].to_bits(), 5f32.to_bits());
}

#[test]
fn a_client_that_keeps_its_results_reaches_its_limit_and_harms_nobody_else() {
    let daemon = Daemon::with_settings("segments.credit_mib = 4\nsegments.wait_ms = 50\n");
    let model = daemon.model("builtin");
    let texts = texts(2000); // 1 MB of rows
    let mut kept = Vec::new();
    let refused = loop {
        match model.embed(&texts) {
            Ok(rows) => kept.push(rows),
            Err(error) => break error,
        }
        assert!(kept.len() < 10, "the credit never ends");
    };
    assert_eq!(refused.code(), Some(ErrorCode::LimitExceeded), "{refused}");
    assert_eq!(kept.len(), 4);
    let first = bits(&kept[0]);
    assert!(kept.iter().all(|rows| bits(rows) == first), "kept rows stay as they were");
    assert!(daemon.model("builtin").embed(&texts).unwrap().is_shared(), "others are not affected");
    kept.pop();
    assert!(model.embed(&texts).unwrap().is_shared(), "room again");
}

#[test]
fn memory_that_a_client_does_not_use_is_there_for_another() {
    let settings = "segments.total_mib = 8\nsegments.idle_seconds = 3600\n";
    let daemon = Daemon::with_settings(settings);
    let texts = texts(200); // 100 KiB of rows
    // Each keeps a segment of 4 MiB for its next result.
    let idle: Vec<_> = (0..6)
        .map(|_| {
            let model = daemon.model("builtin");
            assert!(model.embed(&texts).unwrap().is_shared());
            model
        })
        .collect();
    let held = idle[0].embed(&texts).unwrap();
    assert!(daemon.model("builtin").embed(&texts).unwrap().is_shared());
    assert!(held.is_shared() && held.row(199).iter().any(|value| *value != 0.0));
}

#[test]
fn a_segment_that_nobody_uses_is_given_up_after_its_time() {
    let daemon = Daemon::with_settings("segments.idle_seconds = 1\n");
    let model = daemon.model("builtin");
    let held = model.embed(&texts(200)).unwrap();
    assert!(held.is_shared());
    let segments = || daemon.status().segments.segments;
    assert_eq!(segments(), 1);
    drop(held);
    eventually("it is given up", || segments() == 0);
    assert!(model.embed(&texts(200)).unwrap().is_shared(), "and another one is made");
}

#[test]
fn a_result_waits_for_memory_that_is_being_given_back() {
    let daemon = Daemon::with_settings("segments.credit_mib = 4\nsegments.wait_ms = 60000\n");
    let model = Arc::new(daemon.model("builtin"));
    let texts = texts(6000); // 3 MB of rows: two of them do not fit
    let held = model.embed(&texts).unwrap();
    let waiting = std::thread::spawn({
        let (model, texts) = (Arc::clone(&model), texts.clone());
        move || model.embed(&texts).map(|rows| rows.len())
    });
    eventually("the second request waits", || {
        daemon.status().connections.iter().any(|c| c.requests_in_flight == 1)
    });
    drop(held);
    assert_eq!(waiting.join().unwrap().unwrap(), 6000);
}

#[test]
fn a_result_that_can_never_fit_is_refused_at_once() {
    let daemon = Daemon::with_settings("segments.credit_mib = 4\nsegments.wait_ms = 60000\n");
    let model = daemon.model("builtin");
    assert_eq!(code_of(model.embed(&texts(10_000))), ErrorCode::LimitExceeded);
    assert!(model.embed(&texts(5000)).is_ok());
}

#[test]
fn slots_are_reused_and_late_doubled_and_invented_frees_do_nothing() {
    let daemon = Daemon::start();
    let mut raw = Raw::welcomed(&daemon);
    let mut builder = TextBuilder::default();
    (0..200).for_each(|n| builder.push(&format!("text {n}")).unwrap());
    let tail = builder.into_bytes();
    let request = Request::Embed(EmbedRequest {
        target: Target::Model(ModelId::new("builtin").unwrap()),
        texts: 200,
        delivery: Delivery::Auto,
        options: EmbedOptions::default(),
    });
    let mut frame = Frame::message(FrameKind::Request, 1, &request).unwrap();
    frame.tail = tail.clone();
    raw.send(&frame);
    assert_eq!(raw.next().unwrap().kind, FrameKind::Segment);
    let place = |response: Response| match response {
        Response::Embedded(Embedded { place: Place::Slot(slot), element, .. }) => {
            assert_eq!(element, ElementType::F32);
            slot
        }
        other => panic!("no slot: {other:?}"),
    };
    let first = place(raw.next().unwrap().decode().unwrap());
    assert_eq!(first.offset % 64, 0);
    let free = |slot| Frame::message(FrameKind::Free, 0, &Free { slots: vec![slot] }).unwrap();
    let mut invented = first;
    invented.generation += 1000;
    raw.send(&free(invented));
    let second = place(raw.ask(&request, tail.clone()));
    assert_ne!(first.offset, second.offset, "an invented free freed nothing");
    raw.send(&free(first));
    let third = place(raw.ask(&request, tail.clone()));
    assert_eq!(first.offset, third.offset, "the freed place is used again");
    assert_ne!(first.generation, third.generation);
    raw.send(&free(first)); // late and doubled: the place belongs to the third now
    let fourth = place(raw.ask(&request, tail));
    assert!(fourth.offset != third.offset && fourth.offset != second.offset);
}

#[test]
fn many_threads_share_one_connection() {
    let daemon = Daemon::start();
    let model = daemon.model("builtin");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let model = &model;
            scope.spawn(move || {
                for round in 0..20 {
                    let count = 1 + (thread * 37 + round * 11) % 300;
                    let texts: Vec<String> =
                        (0..count).map(|n| format!("{thread} {round} {n}")).collect();
                    let rows = model.embed(&texts).unwrap();
                    assert_eq!(rows.len(), count);
                    let last = model.embed_one(&texts[count - 1]).unwrap();
                    assert_eq!(rows.row(count - 1), last.row(0));
                }
            });
        }
    });
    // Freeing has no answer, so another connection's request may overtake the last Free.
    eventually("every slot is back", || {
        daemon.status().connections.iter().all(|connection| connection.held_bytes == 0)
    });
}

#[test]
fn one_clients_requests_do_not_delay_another_client() {
    let daemon = Daemon::gated(None);
    let mut stuck = ClientProcess::start(&daemon, "ask", "gated", 5000);
    let rows = daemon.model("builtin").embed(&texts(300)).unwrap();
    assert_eq!(rows.len(), 300);
    daemon.open_gate();
    assert_eq!(stuck.line(), "answered");
}

#[test]
fn the_real_model_gives_the_reference_rows_under_concurrent_clients() {
    let Some(folder) = minilm() else { return };
    let daemon = Daemon::with_args(&["--model", &format!("minilm={}", folder.display())]);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("daemon/engine/tests/data/expected");
    let json = std::fs::read_to_string(data.join("all-MiniLM-L6-v2.sts.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let sentences = json["sentences"].as_array().unwrap();
    let sentences: Vec<&str> = sentences.iter().map(|text| text.as_str().unwrap()).collect();
    let file = data.join("all-MiniLM-L6-v2.sts.safetensors");
    let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
    let wanted: Vec<Vec<f32>> = tensors["embeddings"].to_vec2().unwrap();
    assert_eq!(sentences.len(), wanted.len());
    let furthest = |row: &[f32], other: &[f32]| {
        assert_eq!(row.len(), other.len());
        row.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };

    let model = daemon.model("minilm");
    let alone: Vec<_> = sentences.iter().map(|text| model.embed_one(text).unwrap()).collect();
    for (row, wanted) in alone.iter().zip(&wanted) {
        assert!(furthest(row.row(0), wanted) <= 1e-5);
    }
    std::thread::scope(|scope| {
        for at_once in [7, 50, sentences.len()] {
            let (daemon, sentences, alone) = (&daemon, &sentences, &alone);
            scope.spawn(move || {
                let model = daemon.model("minilm");
                for (texts, alone) in sentences.chunks(at_once).zip(alone.chunks(at_once)) {
                    let rows = model.embed(texts).unwrap();
                    for (row, alone) in rows.rows().zip(alone) {
                        assert!(furthest(row, alone.row(0)) <= 5e-6, "{at_once} texts at once");
                    }
                }
            });
        }
    });
    let status = daemon.status();
    assert_eq!(status.models.iter().find(|m| m.id.as_str() == "minilm").unwrap().loads, 1);
}
