//! From a TOML text to settings, or to everything that is wrong with it.

use super::table::{self, Key, Origin, Rule};
use super::{BUILTIN_ID, BUILTIN_STATIC, EMBEDDING_TYPE, ModelSettings, ModelSource, Settings};
use emberd_protocol::ModelId;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What the program itself can load, beside the types registered with it.
const LATER_TYPES: [&str; 1] = ["text2text"];

/// A settings file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says what cannot be.
    #[error("{}", list(.0))]
    Wrong(Vec<Problem>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key; empty where the text is no TOML.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.path.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

pub(super) fn read(path: &Path, custom_types: &[String]) -> Result<Settings, SettingsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    parse(&text, path, custom_types)
}

pub(super) fn parse(
    text: &str,
    path: &Path,
    custom_types: &[String],
) -> Result<Settings, SettingsError> {
    let mut reader = Reader {
        text,
        path,
        base: path.parent().unwrap_or(Path::new("")),
        custom_types,
        settings: Settings::default(),
        problems: Vec::new(),
    };
    match DeTable::parse(text) {
        Ok(document) => reader.document(document.get_ref()),
        Err(error) => {
            let at = error.span().unwrap_or(0..0);
            reader.problem(&at, "", error.message().to_owned());
        }
    }
    if reader.problems.is_empty() {
        return Ok(reader.settings);
    }
    reader.problems.sort_by_key(|problem| problem.line);
    Err(SettingsError::Wrong(reader.problems))
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    base: &'a Path,
    custom_types: &'a [String],
    settings: Settings,
    problems: Vec<Problem>,
}

/// A value with its flat key, and where it stands.
struct Flat<'a> {
    key: String,
    value: &'a DeValue<'a>,
    at: Range<usize>,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        let (mut flat, mut models) = (Vec::new(), BTreeMap::new());
        for (name, value) in document {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("models", DeValue::Table(table)) => {
                    for (id, model) in table {
                        models.insert(id.get_ref().to_string(), (id.span(), model));
                    }
                }
                ("models", _) => self.problem(
                    &value.span(),
                    "models",
                    "expected keys below it, such as models.<id>.type".into(),
                ),
                (name, _) => flatten(name.to_owned(), value, &mut flat),
            }
        }
        let keys = table::top_keys();
        let mut settings = std::mem::take(&mut self.settings);
        for entry in flat {
            self.apply(&keys, "", &entry, &mut settings);
        }
        self.settings.origins.extend(settings.origins.clone());
        self.settings =
            Settings { origins: std::mem::take(&mut self.settings.origins), ..settings };
        for (id, (at, model)) in models {
            self.model(&id, &at, model);
        }
    }

    fn model(&mut self, id: &str, at: &Range<usize>, value: &Spanned<DeValue<'_>>) {
        let key = format!("models.{id}");
        let DeValue::Table(table) = value.get_ref() else {
            let expected = format!("expected keys below it, such as {key}.type");
            return self.problem(&value.span(), &key, expected);
        };
        let model_id = match ModelId::new(id) {
            Ok(model_id) if id != BUILTIN_ID => model_id,
            Ok(_) => {
                let message = "this id is the built-in model's: choose another".into();
                return self.problem(at, &key, message);
            }
            Err(error) => return self.problem(at, &key, error.to_string()),
        };
        let mut flat = Vec::new();
        for (name, value) in table {
            flatten(name.get_ref().to_string(), value, &mut flat);
        }
        let problems_before = self.problems.len();
        let keys = table::model_keys();
        let mut model = ModelSettings::default();
        for entry in &flat {
            self.apply(&keys, &format!("{key}."), entry, &mut model);
        }
        self.check_type(&format!("{key}.type"), at, &flat, &model);
        let has = |name: &str| flat.iter().any(|entry| entry.key == name);
        let is_builtin = flat.iter().any(|entry| {
            entry.key == "name"
                && matches!(entry.value, DeValue::String(name) if name == BUILTIN_STATIC)
        });
        if is_builtin && has("local_path") {
            let message = "a built-in model has no folder: give a name or a local_path".into();
            self.problem(at, &key, message);
        }
        let needs_files = model.model_type == EMBEDDING_TYPE;
        let no_source = model.source == ModelSource::Folder(PathBuf::new());
        if needs_files && no_source && self.problems.len() == problems_before {
            let message = format!("give {key}.local_path, the folder that holds the model");
            self.problem(at, &key, message);
        }
        self.settings.models.insert(model_id, model);
    }

    fn check_type(
        &mut self,
        key: &str,
        at: &Range<usize>,
        flat: &[Flat<'_>],
        model: &ModelSettings,
    ) {
        let Some(entry) = flat.iter().find(|entry| entry.key == "type") else {
            return self.problem(at, key, format!("missing: such as {key} = \"{EMBEDDING_TYPE}\""));
        };
        let given = model.model_type.as_str();
        if given.is_empty() && !matches!(entry.value, DeValue::String(_)) {
            return; // told already
        }
        if LATER_TYPES.contains(&given) {
            let message = format!("\"{given}\" models are not yet acted on by this version");
            return self.problem(&entry.at, key, message);
        }
        if given != EMBEDDING_TYPE && !self.custom_types.iter().any(|custom| custom == given) {
            let mut known = vec![EMBEDDING_TYPE];
            known.extend(self.custom_types.iter().map(String::as_str));
            let message =
                format!("\"{given}\" is no model type: use \"{}\"", known.join("\" or \""));
            self.problem(&entry.at, key, message);
        }
    }

    fn apply<T>(&mut self, keys: &[Key<T>], prefix: &str, entry: &Flat<'_>, target: &mut T) {
        let whole = format!("{prefix}{}", entry.key);
        if matches!(entry.value, DeValue::Table(_))
            && keys.iter().any(|key| key.name.starts_with(&format!("{}.", entry.key)))
        {
            return; // a table of ours without anything in it
        }
        let Some(key) = keys.iter().find(|key| key.name == entry.key) else {
            let names = keys.iter().map(|key| key.name);
            let message = match nearest(&entry.key, names) {
                Some(name) => format!("there is no such key: did you mean {prefix}{name}?"),
                None => "there is no such key".into(),
            };
            return self.problem(&entry.at, &whole, message);
        };
        let result = match (&key.rule, entry.value) {
            (Rule::Later, _) => {
                Err("known, but not yet acted on by this version: take it out".to_owned())
            }
            (Rule::Integer { range, set, .. }, value) => match integer(value) {
                Some(number) if range.contains(&number) => {
                    set(target, number);
                    Ok(())
                }
                _ => Err(format!(
                    "expected a whole number from {} to {}, found {}",
                    range.start(),
                    range.end(),
                    shown(value)
                )),
            },
            (Rule::Text { set, .. }, DeValue::String(text)) => set(target, text, self.base)
                .map_err(|right| format!("\"{text}\" is not possible: {right}")),
            (Rule::Text { .. }, value) => {
                Err(format!("expected a text in quotes, found {}", shown(value)))
            }
        };
        match result {
            Ok(()) => {
                let line = self.line(&entry.at);
                let origin = Origin::File { path: self.path.to_owned(), line };
                self.settings.origins.insert(whole, origin);
            }
            Err(message) => self.problem(&entry.at, &whole, message),
        }
    }

    fn problem(&mut self, at: &Range<usize>, key: &str, message: String) {
        let line = self.line(at);
        self.problems.push(Problem { path: self.path.to_owned(), line, key: key.into(), message });
    }

    fn line(&self, at: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..at.start.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

fn flatten<'a>(key: String, value: &'a Spanned<DeValue<'a>>, flat: &mut Vec<Flat<'a>>) {
    match value.get_ref() {
        DeValue::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                flatten(format!("{key}.{}", name.get_ref()), value, flat);
            }
        }
        single => flat.push(Flat { key, value: single, at: value.span() }),
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(yes) => yes.to_string(),
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// The most similar name, if one is similar enough to have been meant.
fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.map(|name| (strsim::jaro_winkler(given, name), name));
    let (score, name) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > 0.8).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Vec<String>> {
        match super::parse(text, Path::new("/etc/emberd/x.toml"), &["mine".to_owned()]) {
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
        let dotted = parse(
            "models.a.type = \"embedding\"\nmodels.a.local_path = \"m\"\nsegments.wait_ms = 7",
        );
        let tables = parse(
            "[segments]\nwait_ms = 7\n[models.a]\ntype = \"embedding\"\nlocal_path = \"m\"\n",
        );
        let (dotted, tables) = (dotted.unwrap(), tables.unwrap());
        assert_eq!(dotted.models, tables.models);
        assert_eq!(dotted.segments.wait.as_millis(), 7);
        assert_eq!(dotted.models[&id("a")].source, ModelSource::Folder("/etc/emberd/m".into()));
        assert!(dotted.models.contains_key(&id(BUILTIN_ID)));
        let line = |key: &str| dotted.lines().into_iter().find(|line| line.key == key).unwrap();
        assert_eq!(line("segments.wait_ms").origin.to_string(), "/etc/emberd/x.toml:3");
        assert_eq!(line("segments.idle_seconds").origin, Origin::Default);
        assert_eq!(line("models.a.local_path").value, "\"/etc/emberd/m\"");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_line_and_what_would_be_right() {
        let problems = parse(
            "segments.wait_ms = -1\nsegmants.wait_ms = 3\nembedding_cache.enabled = true\n\
             models.a.type = \"embeding\"\nmodels.a.local_path = 3\nmodels.b.type = \"embedding\"\n\
             models.c.type = \"text2text\"\nmodels.d.local_path = \"x\"\nmodels.d.batchsize = 4\n\
             device_preference = \"gpu\"\nmodels.builtin.type = \"embedding\"\nmodels.\"é\".type = \"mine\"\n",
        )
        .unwrap_err();
        let expected = [
            (1, "segments.wait_ms: expected a whole number from 0 to 86400000, found -1"),
            (2, "segmants.wait_ms: there is no such key: did you mean segments.wait_ms?"),
            (3, "embedding_cache.enabled: known, but not yet acted on"),
            (4, "models.a.type: \"embeding\" is no model type: use \"embedding\" or \"mine\""),
            (5, "models.a.local_path: expected a text in quotes, found 3"),
            (6, "models.b: give models.b.local_path"),
            (7, "models.c.type: \"text2text\" models are not yet acted on"),
            (8, "models.d.type: missing"),
            (9, "models.d.batchsize: there is no such key: did you mean models.d.batch_size?"),
            (10, "device_preference: \"gpu\" is not possible"),
            (11, "models.builtin: this id is the built-in model's"),
            (12, "models.é: \"é\" is no model id"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, (line, start)) in problems.iter().zip(expected) {
            let whole = format!("/etc/emberd/x.toml:{line}: {start}");
            assert!(problem.starts_with(&whole), "{problem}\nshould start with\n{whole}");
        }
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_with_its_line() {
        let problems = parse("cpu_workers = 1\nmodels.a.type = \n").unwrap_err();
        assert!(problems[0].starts_with("/etc/emberd/x.toml:2: "), "{problems:?}");
    }

    #[test]
    fn every_key_that_is_shown_can_be_set_to_what_is_shown() {
        let settings = parse("models.a.type = \"mine\"\nmodels.a.dimension = 5\n").unwrap();
        let shown = settings.lines();
        assert!(shown.len() > 15, "{shown:#?}");
        for line in shown.iter().filter(|line| !line.key.starts_with("models.builtin.")) {
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
}
