use crate::support::{Daemon, code_of, emberd, eventually, run};
use emberd_client::{GenerateOptions, TextModel};
use emberd_protocol::{ErrorCode, FinishReason, Method, ModelKind};

const MODEL: &str = "builtin-t5";

/// Inputs that the built-in model was trained for, so its answers can be checked exactly.
const ANSWERS: [(&str, &str); 2] =
    [("number: four hundred and seven", "407"), ("date: 3 March 2021", "2021-03-03")];

fn model(daemon: &Daemon) -> TextModel {
    daemon.client().text_model(MODEL).unwrap()
}

fn greedy() -> GenerateOptions {
    GenerateOptions::default()
}

#[test]
fn the_built_in_model_answers_exactly_and_describes_itself() {
    let daemon = Daemon::start();
    let model = model(&daemon);
    let info = model.info();
    assert_eq!((info.kind, info.methods), (ModelKind::Text2Text, vec![Method::Generate]));
    assert_eq!((info.dimension, &*info.device), (0, "cpu"));
    assert!(info.max_tokens > 0 && info.max_output_tokens > 0);
    let texts = ANSWERS.map(|(text, _)| text);
    let made = model.generate(&texts, &greedy()).unwrap();
    for ((_, answer), text) in ANSWERS.iter().zip(&made.texts) {
        let [sequence] = &text.sequences[..] else { panic!("{text:?}") };
        assert_eq!((&*sequence.text, sequence.finish), (*answer, FinishReason::End));
        assert!(text.input_tokens > 3 && !text.truncated);
    }
    let once = daemon.client().generate_text(MODEL, &texts, &greedy()).unwrap();
    assert_eq!(once, made);
}

#[test]
fn the_pieces_of_a_stream_are_the_answer() {
    let daemon = Daemon::start();
    let model = model(&daemon);
    let texts = ANSWERS.map(|(text, _)| text);
    let mut shown = vec![String::new(); texts.len()];
    let made = model
        .generate_with(&texts, &greedy(), |piece| shown[piece.text].push_str(&piece.piece))
        .unwrap();
    assert_eq!(shown, ANSWERS.map(|(_, answer)| answer));
    assert_eq!(made, model.generate(&texts, &greedy()).unwrap());
}

#[test]
fn lengths_of_the_settings_and_of_the_request_are_kept() {
    let daemon = Daemon::with_settings(
        "[models.short]\ntype = \"text2text\"\nname = \"builtin:verbalizer-t5\"\n\
         max_input_length = 4\nmax_output_length = 2\n",
    );
    let short = daemon.client().text_model("short").unwrap();
    let info = short.info();
    assert_eq!((info.max_tokens, info.max_output_tokens), (4, 2));
    let made = short.generate(&[ANSWERS[0].0], &greedy()).unwrap();
    assert_eq!((made.texts[0].input_tokens, made.texts[0].truncated), (4, true));
    assert!(made.texts[0].sequences[0].ids.len() <= 2);
    let over = GenerateOptions { max_new_tokens: Some(3), ..greedy() };
    assert_eq!(code_of(short.generate(&["x"], &over)), ErrorCode::LimitExceeded);
    let one = GenerateOptions { max_new_tokens: Some(1), ..greedy() };
    let made = model(&daemon).generate(&[ANSWERS[1].0], &one).unwrap();
    let [sequence] = &made.texts[0].sequences[..] else { panic!("{made:?}") };
    assert_eq!((sequence.ids.len(), sequence.finish), (1, FinishReason::Length));
}

#[test]
fn invalid_options_are_refused_and_the_model_continues() {
    let daemon = Daemon::start();
    let model = model(&daemon);
    let refused = [
        GenerateOptions { num_beams: Some(0), ..greedy() },
        GenerateOptions { temperature: Some(0.0), do_sample: Some(true), ..greedy() },
        GenerateOptions { top_p: Some(f32::NAN), do_sample: Some(true), ..greedy() },
        GenerateOptions { stop: vec![String::new()], ..greedy() },
    ];
    for options in refused {
        let result = model.generate(&["x"], &options);
        assert_eq!(code_of(result), ErrorCode::InvalidRequest, "{options:?}");
    }
    let beams = GenerateOptions { num_beams: Some(2), ..greedy() };
    let streamed = model.generate_with(&["x"], &beams, |piece| panic!("{piece:?}"));
    assert_eq!(code_of(streamed), ErrorCode::InvalidRequest);
    let made = model.generate(&[ANSWERS[0].0], &beams).unwrap();
    assert_eq!(made.texts[0].sequences[0].text, ANSWERS[0].1);
    assert!(made.texts[0].sequences[0].score.is_some());
    assert!(model.generate::<&str>(&[], &greedy()).unwrap().texts.is_empty());
}

#[test]
fn an_unsupported_request_is_refused_with_the_supported_ones() {
    let daemon = Daemon::start();
    let client = daemon.client();
    let rows = client.generate_embeddings(&["x"], MODEL).unwrap_err();
    assert_eq!(rows.code(), Some(ErrorCode::WrongModelType));
    assert!(rows.to_string().contains("not embed"), "{rows}");
    assert_eq!(code_of(client.fill_mask(MODEL, &["[MASK]"], 1)), ErrorCode::WrongModelType);
    assert_eq!(code_of(client.rerank(MODEL, "q", &["a"])), ErrorCode::WrongModelType);
    let texts = client.generate_text("builtin", &["x"], &greedy());
    assert_eq!(code_of(texts), ErrorCode::WrongModelType);
    assert_eq!(code_of(client.text_model("builtin")), ErrorCode::WrongModelType);
    assert_eq!(code_of(client.rerank_model("builtin")), ErrorCode::WrongModelType);
    assert_eq!(daemon.leases(), 0);
}

#[test]
fn eight_clients_at_once_get_the_answers_of_one() {
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let model = model(&daemon);
                for (text, answer) in ANSWERS.iter().cycle().take(6) {
                    let made = model.generate(&[text], &greedy()).unwrap();
                    assert_eq!(made.texts[0].sequences[0].text, *answer);
                }
            });
        }
    });
    let status = daemon.status();
    let counted = status.models.iter().find(|model| model.id.as_str() == MODEL).unwrap();
    assert_eq!((counted.requests, counted.texts, counted.loads), (48, 48, 1));
    assert!(counted.tokens > 48 * 3 && counted.batches > 0);
    assert!(status.latencies.iter().any(|latency| latency.kind == "generate"));
}

#[test]
fn a_client_that_leaves_in_the_middle_stops_its_work() {
    let daemon = Daemon::start();
    let model = model(&daemon);
    let texts = vec![ANSWERS[0].0; 20_000];
    let leave = || {
        model.generate_with(&texts, &greedy(), |_| std::panic::resume_unwind(Box::new("enough")))
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(leave)).is_err());
    let counts = || {
        let status = daemon.status();
        let model = status.models.into_iter().find(|model| model.id.as_str() == MODEL).unwrap();
        (model.busy, model.queued_texts, model.texts)
    };
    eventually("nothing waits any more", || {
        let (busy, queued, _) = counts();
        (busy, queued) == (0, 0)
    });
    let made = model.generate(&[ANSWERS[0].0], &greedy()).unwrap();
    assert_eq!(made.texts[0].sequences[0].text, ANSWERS[0].1);
    assert!(counts().2 < 20_000, "most of it was not made");
}

#[test]
fn the_command_line_makes_texts() {
    let daemon = Daemon::start();
    let ask = |args: &[&str], input: &str| {
        let mut command = emberd(args);
        command.env("EMBERD_SOCKET", daemon.socket());
        let output = run(command, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    let (number, date) = (ANSWERS[0], ANSWERS[1]);
    assert_eq!(ask(&["generate", number.0, date.0], ""), "407\n2021-03-03\n");
    assert_eq!(ask(&["generate"], &format!("{}\n{}\n", date.0, number.0)), "2021-03-03\n407\n");
    assert_eq!(ask(&["generate", "--stream", number.0], ""), "407\n");
    let lines = ask(&["generate", "--json", "--stream", number.0], "");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, pieces) = lines.split_last().unwrap();
    let shown: String = pieces.iter().map(|line| line["piece"].as_str().unwrap()).collect();
    assert_eq!((&*shown, last["sequences"][0]["text"].as_str()), ("407", Some("407")));
    assert_eq!(last["sequences"][0]["finish"], "end");
    let mut wrong = emberd(&["generate", "--num-beams", "0", "x"]);
    wrong.env("EMBERD_SOCKET", daemon.socket());
    let wrong = run(wrong, "");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("num_beams"));
}
