use crate::settings::builtin::BUILTINS;
use crate::settings::problem::SettingsError;
use crate::settings::read::parse as read_text;
use crate::settings::suggest::nearest_key;
use crate::settings::{KeyLine, Origin, Settings, table};
use emberd_protocol::ModelId;
use std::path::Path;

fn parse(text: &str) -> Result<Settings, Vec<String>> {
    match read_text(Some((text, Path::new("/etc/emberd/x.toml"))), [], &["mine".to_owned()]) {
        Ok(settings) => Ok(settings),
        Err(SettingsError::Wrong(problems)) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(error) => panic!("{error}"),
    }
}

fn id(id: &str) -> ModelId {
    ModelId::new(id).unwrap()
}

#[test]
fn dotted_keys_and_tables_mean_the_same_and_paths_are_relative_to_the_file() {
    let dotted =
        parse("models.a.type = \"embedding\"\nmodels.a.local_path = \"m\"\nsegments.wait_ms = 7");
    let tables =
        parse("[segments]\nwait_ms = 7\n[models.a]\ntype = \"embedding\"\nlocal_path = \"m\"\n");
    let (dotted, tables) = (dotted.unwrap(), tables.unwrap());
    assert_eq!(dotted.models, tables.models);
    assert_eq!(dotted.segments.wait.as_millis(), 7);
    assert_eq!(dotted.models[&id("a")].local_path, Some("/etc/emberd/m".into()));
    assert!(dotted.models.contains_key(&id(crate::settings::BUILTIN_ID)));
    let line = |key: &str| dotted.lines().into_iter().find(|line| line.key == key).unwrap();
    assert_eq!(line("segments.wait_ms").origin.to_string(), "/etc/emberd/x.toml:3");
    assert_eq!(line("segments.idle_seconds").origin, Origin::Default);
    assert_eq!(line("models.a.local_path").value, "\"/etc/emberd/m\"");
}

#[test]
fn all_errors_are_reported_with_line_and_remedy() {
    let problems = parse(
        "segments.wait_ms = -1\nsegmants.wait_ms = 3\nsharing.enabled = 1\n\
         models.a.type = \"embeding\"\nmodels.a.local_path = 3\nmodels.b.type = \"embedding\"\n\
         gpu_memory_fraction = 1.5\nmodels.d.local_path = \"x\"\nmodels.d.batchsize = 4\n\
         device_preference = \"cuda\"\nmodels.builtin.type = \"embedding\"\nmodels.\"é\".type = \"mine\"\n\
         models.e.type = \"embedding\"\nmodels.e.name = \"a/b/c\"\n\
         models.f.type = \"text2text\"\nmodels.f.name = \"x/y\"\nmodels.f.dimension = 3\n\
         models.g.type = \"embedding\"\nmodels.g.name = \"builtin:nothing\"\n\
         sharing.max_shared_models = \"five\"\n\
         models.h.type = \"text2text\"\nmodels.h.local_path = \"builtin:verbalizer-t5\"\n",
    )
    .unwrap_err();
    let expected = [
        (1, "segments.wait_ms: expected a whole number from 0 to 86400000, found -1"),
        (2, "segmants.wait_ms: there is no such key: did you mean segments.wait_ms?"),
        (3, "sharing.enabled: expected true or false, found 1"),
        (
            4,
            "models.a.type: \"embeding\" is not a model type: use \"embedding\" or \"rerank\" or \"text2text\" or \"mine\"",
        ),
        (5, "models.a.local_path: expected a text in quotes, found 3"),
        (6, "models.b: give models.b.local_path"),
        (7, "gpu_memory_fraction: expected a number above 0 and up to 1, found 1.5"),
        (8, "models.d.type: missing"),
        (9, "models.d.batchsize: there is no such key: did you mean models.d.batch_size?"),
        (10, "device_preference: \"cuda\" is not possible: use \"auto\", \"gpu\""),
        (11, "models.builtin: this id is a built-in model's"),
        (12, "models.é: \"é\" is not a model id"),
        (14, "models.e.name: \"a/b/c\" is not possible: give a name on the hub"),
        (17, "models.f.dimension: does not apply to a model of type text2text"),
        (19, "models.g.name: there is no such built-in model: use \"builtin:static-minilm\" or"),
        (20, "sharing.max_shared_models: expected a whole number from 1 to 100000, found the text"),
        (
            22,
            "models.h.local_path: \"builtin:verbalizer-t5\" is not possible: a built-in model has no",
        ),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, (line, start)) in problems.iter().zip(expected) {
        let whole = format!("/etc/emberd/x.toml:{line}: {start}");
        assert!(problem.starts_with(&whole), "{problem}\nshould start with\n{whole}");
    }
}

fn with_variables(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    match read_text(Some((text, Path::new("/x.toml"))), variables, &[]) {
        Ok(settings) => Ok(settings),
        Err(SettingsError::Wrong(problems)) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn variables_come_before_the_file_and_say_where_a_value_is_from() {
    let settings = with_variables(
        "sharing.max_shared_models = 3\nmodels.Min.type = \"embedding\"\nmodels.Min.name = \"a/b\"\n",
        &[
            ("EMBERD_SHARING__MAX_SHARED_MODELS", "7"),
            ("EMBERD_SHARING__ENABLED", "false"),
            ("EMBERD_DEVICE_PREFERENCE", "cpu"),
            ("EMBERD_GPU_MEMORY_FRACTION", "0.5"),
            ("EMBERD_MODELS__Min__LOCAL_PATH", "/m"),
            ("EMBERD_SOCKET", "/not/ours"),
            ("HOME", "/root"),
        ],
    )
    .unwrap();
    assert_eq!(settings.sharing.max_shared_models, 7);
    assert!(!settings.sharing.enabled);
    assert_eq!(settings.device_preference.to_string(), "cpu");
    assert_eq!(settings.gpu_memory_fraction.to_bits(), 0.5f64.to_bits());
    let model = &settings.models[&id("Min")];
    assert_eq!((model.name.as_deref(), model.local_path.clone()), (Some("a/b"), Some("/m".into())));
    let line = |key: &str| settings.lines().into_iter().find(|line| line.key == key).unwrap();
    let origin = line("sharing.max_shared_models").origin.to_string();
    assert_eq!(origin, "EMBERD_SHARING__MAX_SHARED_MODELS");
    assert_eq!(line("models.Min.name").origin.to_string(), "/x.toml:3");
}

#[test]
fn an_invalid_variable_is_refused_by_name() {
    let problems = with_variables(
        "",
        &[
            ("EMBERD_SHARING__MAX_SHARED_MODEL", "7"),
            ("EMBERD_SHARING__ENABLED", "maybe"),
            ("EMBERD_MODELS__x__TYPE", "embedding"),
            ("EMBERD_CPU_WORKERS", "3\nsharing.enabled = false"),
            ("EMBERD_GPU_MEMORY_FRACTON", "0.5"),
            ("EMBERD_SHARING_MAX_SHARED_MODELS", "2"),
            ("EMBERD_SOCKET", "none of ours"),
        ],
    )
    .unwrap_err();
    let expected = [
        "EMBERD_CPU_WORKERS: cpu_workers: expected a whole number",
        "EMBERD_GPU_MEMORY_FRACTON: gpu_memory_fracton: there is no such setting: did you mean \
         EMBERD_GPU_MEMORY_FRACTION?",
        "EMBERD_MODELS__x__TYPE: models.x: give models.x.local_path",
        "EMBERD_SHARING_MAX_SHARED_MODELS: sharing_max_shared_models: there is no such setting: \
         did you mean EMBERD_SHARING__MAX_SHARED_MODELS?",
        "EMBERD_SHARING__ENABLED: sharing.enabled: expected true or false, found the text",
        "EMBERD_SHARING__MAX_SHARED_MODEL: sharing.max_shared_model: there is no such key: did you",
    ];
    let mut problems = problems;
    problems.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(expected) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn a_line_that_cannot_be_read_hides_none_of_the_others() {
    let text = "x = = 3\nshring.enabled = true\nsharing.max_shared_models = 0\n\
                [models.t]\ntype = \"text2text\"\nname = \"t\"\ndimension = 3\ncache_embeddings = true\n";
    let problems = read_text(Some((text, Path::new("/x.toml"))), [], &[]).unwrap_err();
    let message = problems.to_string();
    for expected in [
        "/x.toml:1:",
        "/x.toml:2: shring",
        "/x.toml:3: sharing.max_shared_models",
        "/x.toml:7: models.t.dimension",
        "/x.toml:8: models.t.cache_embeddings",
    ] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_variable_of_a_text_is_taken_as_it_is() {
    let file = "models.x.type = \"embedding\"\nmodels.x.name = \"a/b\"\n";
    let variables = [
        ("EMBERD_MODELS__x__REVISION", "2024"),
        ("EMBERD_MODELS__x__NAME", "2024"),
        ("EMBERD_MODELS__x__LOCAL_PATH", "true"),
        ("EMBERD_EMBEDDING_CACHE__FILE", "1.5"),
    ];
    let mut settings = with_variables(file, &variables).unwrap();
    let model = settings.models[&id("x")].clone();
    assert_eq!((model.revision.as_str(), model.name.as_deref()), ("2024", Some("2024")));
    // Paths in variables are relative to the program's folder, not to the file's.
    settings.resolve_paths(Path::new("/here"));
    assert_eq!(settings.models[&id("x")].local_path, Some("/here/true".into()));
    assert_eq!(settings.cache.file, Some("/here/1.5".into()));
    let problems = with_variables("", &[("EMBERD_ACCESS__GROUP", "0")]).unwrap_err();
    assert!(
        problems[0].contains("\"0\" is not possible: give the name of a group"),
        "{problems:?}"
    );
}

#[test]
fn a_variable_that_names_a_group_of_settings_is_refused() {
    for (name, example) in [
        ("EMBERD_SHARING", "EMBERD_SHARING__ENABLED"),
        ("EMBERD_EMBEDDING_CACHE", "EMBERD_EMBEDDING_CACHE__"),
        ("EMBERD_MODELS", "EMBERD_MODELS__<id>__NAME"),
    ] {
        let problems = with_variables("", &[(name, "false")]).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("a group of settings"), "{problems:?}");
        assert!(problems[0].contains(example), "{problems:?}");
    }
}

#[test]
fn a_duplicate_key_is_named_in_any_spelling() {
    for (text, line, key) in [
        ("cpu_workers = 1\ncpu_workers = 2\n", 2, "cpu_workers"),
        ("sharing.enabled = true\nsharing.enabled = true\n", 2, "sharing.enabled"),
        ("[sharing]\nenabled = true\n[sharing]\n", 3, "sharing"),
        ("\"sharing.enabled\" = true\n[sharing]\nenabled = false\n", 3, "sharing.enabled"),
        ("[models.a]\ntype = \"mine\"\n\"type\" = \"mine\"\n", 3, "\"type\""),
    ] {
        let problems = parse(text).unwrap_err();
        let start = format!("/etc/emberd/x.toml:{line}: {key}: this key is set twice");
        assert!(problems.iter().any(|problem| problem.starts_with(&start)), "{problems:#?}");
    }
    // A quoted one alone is the same as a dotted one.
    assert!(!parse("\"sharing.enabled\" = false").unwrap().sharing.enabled);
}

#[test]
fn the_key_that_was_meant_is_found_by_its_last_part_whatever_its_case() {
    for (given, meant) in [
        ("sharing.Max_Shared_Models", Some("sharing.max_shared_models")),
        ("CPU_WORKERS", Some("cpu_workers")),
        ("wait_ms", Some("segments.wait_ms")),
        ("cache.ttl_seconds", Some("embedding_cache.ttl_seconds")),
        ("sharing.enable", Some("sharing.enabled")),
        ("sharing.colour", None),
    ] {
        let keys = table::top_keys();
        assert_eq!(nearest_key(given, keys.iter().map(|key| key.name)), meant, "{given}");
    }
}

#[test]
fn a_binary_file_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    let message = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let error = Settings::read(Some(&path), [], &[]).unwrap_err();
        error.to_string().replace(&*path.to_string_lossy(), "x.toml")
    };
    let latin = b"cpu_workers = 1\n# gr\xfc\xdfe\n";
    assert_eq!(message(latin), "x.toml:2: this line is not UTF-8: save the file as UTF-8");
    let many = message("= = = = = = = = = = = = =\n".repeat(2).as_bytes());
    assert_eq!(many.lines().count(), 2, "{many}");
}

#[test]
fn a_revision_that_no_hub_has_is_refused() {
    for revision in ["..", "a/../b", "a b", "a\\tb", "", "/main"] {
        let text = format!(
            "models.a.type = \"embedding\"\nmodels.a.name = \"a/b\"\nmodels.a.revision = \"{revision}\"\n"
        );
        let problems = parse(&text).unwrap_err();
        assert!(problems[0].contains(":3: models.a.revision:"), "{revision}: {problems:?}");
        assert!(problems[0].contains("a branch, a tag or a commit"), "{problems:?}");
    }
}

#[test]
fn an_id_with_dots_is_shown_as_a_file_would_have_it() {
    let settings = parse("models.\"v1.5\".type = \"mine\"\n").unwrap();
    let keys: Vec<_> = settings.lines().iter().map(KeyLine::toml_key).collect();
    assert!(keys.contains(&"models.\"v1.5\".type".to_owned()), "{keys:?}");
    assert!(keys.contains(&"models.builtin.type".to_owned()));
    let unset = settings.unset();
    assert!(unset.contains(&"models.\"v1.5\".local_path".to_owned()), "{unset:?}");
    assert!(unset.contains(&"access.group".to_owned()));
}

#[test]
fn without_a_file_there_are_the_two_models_of_the_mission_and_the_built_in_ones() {
    let settings = read_text(None, [], &[]).unwrap();
    let line = |key: &str| settings.lines().into_iter().find(|line| line.key == key).unwrap().value;
    let expected = [
        ("models.embedding.type", "\"embedding\""),
        ("models.embedding.name", "\"mixedbread-ai/mxbai-embed-large-v1\""),
        ("models.embedding.device", "\"auto\""),
        ("models.embedding.shared", "true"),
        ("models.embedding.dimension", "1024"),
        ("models.embedding.batch_size", "32"),
        ("models.embedding.cache_embeddings", "true"),
        ("models.t5_summarizer.type", "\"text2text\""),
        ("models.t5_summarizer.name", "\"google/flan-t5-large\""),
        ("models.t5_summarizer.device", "\"cpu\""),
        ("models.t5_summarizer.max_input_length", "512"),
        ("models.t5_summarizer.max_output_length", "128"),
        ("device_preference", "\"auto\""),
        ("gpu_memory_fraction", "0.8"),
        ("allow_gpu_growth", "true"),
        ("sharing.enabled", "true"),
        ("sharing.max_shared_models", "5"),
        ("sharing.unload_after_seconds", "1800"),
        ("sharing.reference_counting", "true"),
    ];
    for (key, value) in expected {
        assert_eq!(line(key), value, "{key}");
    }
    assert!(BUILTINS.iter().all(|builtin| settings.models.contains_key(&id(builtin.id))));
    // A file that names models names all of them; one that names none leaves these.
    let names = |settings: &Settings| settings.models.len();
    assert_eq!(names(&parse("cpu_workers = 1").unwrap()), 4);
    assert_eq!(names(&parse("models.a.type = \"mine\"").unwrap()), 3);
}

#[test]
fn invalid_toml_is_reported_with_its_line() {
    let problems = parse("cpu_workers = 1\nmodels.a.type = \n").unwrap_err();
    assert!(problems[0].starts_with("/etc/emberd/x.toml:2: "), "{problems:?}");
}

#[test]
fn every_key_that_is_shown_can_be_set_to_what_is_shown() {
    let settings = parse("models.a.type = \"mine\"\nmodels.a.dimension = 5\n").unwrap();
    let shown = settings.lines();
    assert!(shown.len() > 15, "{shown:#?}");
    for line in shown.iter().filter(|line| !line.key.starts_with("models.builtin")) {
        let kind = if line.key.starts_with("models.a.") && line.key != "models.a.type" {
            "models.a.type = \"mine\"\n"
        } else {
            ""
        };
        if line.value == "\"\"" {
            continue; // a custom model without files
        }
        parse(&format!("{kind}{} = {}\n", line.key, line.value)).unwrap();
    }
}
