//! From a TOML text and environment variables to settings, or to everything that is wrong with them.
#[cfg(test)]
pub(crate) mod tests;

use crate::settings::table;
use crate::settings::table::{Key, Origin, Rule};
use crate::settings::{
    BUILTINS, EMBEDDING_TYPE, ModelSettings, RERANK_TYPE, Settings, TEXT2TEXT_TYPE, is_builtin_id,
};
use emberd_protocol::ModelId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What variables that are settings begin with.
const VARIABLE_PREFIX: &str = "EMBERD_";

/// Of a key that is given more than once.
const TWICE: &str = "this key stands twice: keep one of them";

/// Stands for a dot in the name of a variable.
const VARIABLE_DOT: &str = "__";

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// They say what cannot be.
    #[error("{}", list(.0))]
    Wrong(Vec<Problem>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the name of the variable.
    pub path: PathBuf,
    /// The line, from 1; 0 for a variable.
    pub line: usize,
    /// The key; empty where the text is no TOML.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

pub(super) fn read(
    path: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    custom_types: &[String],
) -> Result<Settings, SettingsError> {
    let Some(path) = path else { return parse(None, variables, custom_types) };
    let bytes = std::fs::read(path)
        .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let problem = Problem {
            path: path.to_owned(),
            line: line_at(sound),
            key: String::new(),
            message: "this line is not UTF-8: save the file as UTF-8".into(),
        };
        SettingsError::Wrong(vec![problem])
    })?;
    parse(Some((&text, path)), variables, custom_types)
}

/// The line, from 1, on which a text goes on.
fn line_at(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

pub(super) fn parse(
    file: Option<(&str, &Path)>,
    variables: impl IntoIterator<Item = (String, String)>,
    custom_types: &[String],
) -> Result<Settings, SettingsError> {
    let mut reader = Reader { custom_types, settings: Settings::default(), problems: Vec::new() };
    if let Some((text, path)) = file {
        let base = path.parent().unwrap_or(Path::new(""));
        let layer = Layer { text, path, base, variable: None };
        let document = reader.document(&layer);
        if document.get_ref().contains_key("models") {
            // A file that names models names all of them.
            reader.settings = Settings::without_models();
        }
        reader.apply_document(&layer, document.get_ref());
    }
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        reader.variable(&name, &value);
    }
    reader.check_models();
    if reader.problems.is_empty() {
        return Ok(reader.settings);
    }
    reader.problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    // What cannot be read is told once for each line.
    let is_text = |problem: &Problem| problem.key.is_empty();
    reader.problems.dedup_by(|b, a| {
        a == b || (is_text(a) && is_text(b) && (&a.path, a.line) == (&b.path, b.line))
    });
    Err(SettingsError::Wrong(reader.problems))
}

struct Reader<'a> {
    custom_types: &'a [String],
    settings: Settings,
    problems: Vec<Problem>,
}

/// A text of settings, and where it stands.
struct Layer<'a> {
    text: &'a str,
    path: &'a Path,
    /// What paths in it are relative to.
    base: &'a Path,
    /// The variable that it was made of.
    variable: Option<&'a str>,
}

impl Layer<'_> {
    fn line(&self, at: &Range<usize>) -> usize {
        if self.variable.is_some() {
            return 0;
        }
        line_at(&self.text.as_bytes()[..at.start.min(self.text.len())])
    }

    /// The key of a line, or the table that it begins.
    fn key(&self, at: &Range<usize>) -> &str {
        let start =
            self.text.get(..at.start).map_or(0, |text| text.rfind('\n').map_or(0, |at| at + 1));
        let line = self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let key = line.split_once('=').map_or(line, |(key, _)| key);
        key.trim().trim_start_matches('[').trim_end_matches(']').trim()
    }

    fn origin(&self, at: &Range<usize>) -> Origin {
        match self.variable {
            Some(name) => Origin::Variable(name.to_owned()),
            None => Origin::File { path: self.path.to_owned(), line: self.line(at) },
        }
    }
}

/// A value with its flat key, and where it stands.
struct Flat<'a> {
    key: String,
    value: &'a DeValue<'a>,
    at: Range<usize>,
}

impl Reader<'_> {
    /// What could be read of a text; what could not is a problem each.
    fn document<'t>(&mut self, layer: &Layer<'t>) -> Spanned<DeTable<'t>> {
        let (document, errors) = DeTable::parse_recoverable(layer.text);
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            match error.message() {
                "duplicate key" => self.problem(layer, &at, layer.key(&at), TWICE.to_owned()),
                message => self.problem(layer, &at, "", message.to_owned()),
            }
        }
        document
    }

    fn apply_document(&mut self, layer: &Layer<'_>, document: &DeTable<'_>) {
        let (mut flat, mut models) = (Vec::new(), BTreeMap::new());
        for (name, value) in document {
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("models", DeValue::Table(table)) => {
                    for (id, model) in table {
                        models.insert(id.get_ref().to_string(), (id.span(), model));
                    }
                }
                ("models", _) => {
                    let message = "expected keys below it, such as models.<id>.type".into();
                    self.problem(layer, &value.span(), "models", message);
                }
                (name, _) => flatten(name.to_owned(), value, &mut flat),
            }
        }
        self.refuse_doubles(layer, "", &mut flat);
        let keys = table::top_keys();
        // Out of `self`, so that problems can be added while it is changed.
        let mut settings = std::mem::replace(&mut self.settings, Settings::without_models());
        let mut origins = BTreeMap::new();
        for entry in &flat {
            self.apply(layer, &keys, "", entry, &mut settings, &mut origins);
        }
        self.settings = settings;
        self.settings.origins.extend(origins);
        for (id, (at, model)) in models {
            self.model(layer, &id, &at, model);
        }
    }

    /// A key in quotes (`"sharing.enabled"`) and one in a table may be the same one, of which the
    /// parser knows nothing.
    fn refuse_doubles(&mut self, layer: &Layer<'_>, prefix: &str, flat: &mut Vec<Flat<'_>>) {
        let mut known = BTreeSet::new();
        flat.sort_by_key(|entry| entry.at.start);
        flat.retain(|entry| {
            let is_new = known.insert(entry.key.clone());
            if !is_new {
                let key = format!("{prefix}{}", entry.key);
                self.problem(layer, &entry.at, &key, TWICE.to_owned());
            }
            is_new
        });
    }

    fn model(
        &mut self,
        layer: &Layer<'_>,
        id: &str,
        at: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let key = format!("models.{id}");
        let DeValue::Table(table) = value.get_ref() else {
            let expected = format!("expected keys below it, such as {key}.type");
            return self.problem(layer, &value.span(), &key, expected);
        };
        let model_id = match ModelId::new(id) {
            Ok(model_id) if !is_builtin_id(id) => model_id,
            Ok(_) => {
                let message = "this id is a built-in model's: choose another".into();
                return self.problem(layer, at, &key, message);
            }
            Err(error) => return self.problem(layer, at, &key, error.to_string()),
        };
        let mut flat = Vec::new();
        for (name, value) in table {
            flatten(name.get_ref().to_string(), value, &mut flat);
        }
        self.refuse_doubles(layer, &format!("{key}."), &mut flat);
        let keys = table::model_keys();
        let mut model = self.settings.models.get(&model_id).cloned().unwrap_or_default();
        let mut origins = BTreeMap::new();
        for entry in &flat {
            self.apply(layer, &keys, &format!("{key}."), entry, &mut model, &mut origins);
        }
        // What is said of the whole model is said where it stands.
        self.settings.origins.entry(key).or_insert_with(|| layer.origin(at));
        self.settings.origins.extend(origins);
        self.settings.models.insert(model_id, model);
    }

    /// What only the whole of a model's keys can tell.
    fn check_models(&mut self) {
        let wrong: BTreeSet<String> = self.problems.iter().map(|p| p.key.clone()).collect();
        let models: Vec<_> = self.settings.models.clone().into_iter().collect();
        for (id, model) in models.iter().filter(|(id, _)| !is_builtin_id(id.as_str())) {
            let key = format!("models.{id}");
            let (type_key, name_key) = (format!("{key}.type"), format!("{key}.name"));
            if !wrong.contains(&type_key)
                && let Some(message) = self.type_fault(&type_key, &model.model_type)
            {
                self.problem_of(&[&type_key, &key], &type_key, message);
            }
            let is_builtin = model.name.as_deref().is_some_and(|name| name.starts_with("builtin:"));
            if is_builtin && model.local_path.is_some() {
                let message = "a built-in model has no folder: give a name or a local_path".into();
                self.problem_of(&[&key], &key, message);
            } else if let Some(message) = builtin_fault(model) {
                self.problem_of(&[&name_key], &name_key, message);
            }
            let needs_files = !self.custom_types.contains(&model.model_type);
            let has_faults = wrong.iter().any(|wrong| wrong.starts_with(&format!("{key}.")));
            if needs_files && model.name.is_none() && model.local_path.is_none() && !has_faults {
                let message = format!(
                    "give {key}.local_path, the folder that holds the model, or {key}.name, its \
                     name on the hub"
                );
                self.problem_of(&[&key], &key, message);
            }
            let lines: Vec<String> = self.settings.origins.keys().cloned().collect();
            for line in lines {
                let own = line.strip_prefix(&format!("{key}."));
                if !model.model_type.is_empty()
                    && own.is_some_and(|own| !table::concerns(own, &model.model_type))
                {
                    let message = format!("means nothing for a model of type {}", model.model_type);
                    self.problem_of(&[&line], &line, message);
                }
            }
        }
    }

    fn type_fault(&self, key: &str, given: &str) -> Option<String> {
        let mut known = vec![EMBEDDING_TYPE, RERANK_TYPE, TEXT2TEXT_TYPE];
        known.extend(self.custom_types.iter().map(String::as_str));
        if given.is_empty() {
            return Some(format!("missing: such as {key} = \"{EMBEDDING_TYPE}\""));
        }
        if known.contains(&given) {
            return None;
        }
        Some(format!("\"{given}\" is no model type: use \"{}\"", known.join("\" or \"")))
    }

    /// A variable that is a setting; others are none of ours, and are left alone.
    fn variable(&mut self, name: &str, value: &str) {
        let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) else { return };
        let parts: Vec<&str> = rest.split(VARIABLE_DOT).collect();
        let key = match parts.as_slice() {
            [single] => {
                let key = single.to_lowercase();
                if let Some(message) = group_fault(&key) {
                    self.problems.push(Problem { path: name.into(), line: 0, key, message });
                    return;
                }
                if !table::top_keys().iter().any(|known| known.name == key) {
                    if let Some(meant) = meant_by(name) {
                        let message = format!("there is no such setting: did you mean {meant}?");
                        self.problems.push(Problem {
                            path: name.into(),
                            line: 0,
                            key: key.clone(),
                            message,
                        });
                    }
                    return; // such as EMBERD_SOCKET, which is none of ours
                }
                key
            }
            ["MODELS", id, key] => format!("models.\"{id}\".{}", key.to_lowercase()),
            parts => parts.join(".").to_lowercase(),
        };
        // As it would stand in a file: a number or a yes where the key wants one, else a text.
        let text = if !wants_text(&parts) && is_number_or_yes(value) {
            format!("{key} = {value}")
        } else {
            format!("{key} = {}", toml::Value::String(value.into()))
        };
        let layer =
            Layer { text: &text, path: Path::new(name), base: Path::new(""), variable: Some(name) };
        let document = self.document(&layer);
        self.apply_document(&layer, document.get_ref());
    }

    fn apply<T>(
        &mut self,
        layer: &Layer<'_>,
        keys: &[Key<T>],
        prefix: &str,
        entry: &Flat<'_>,
        target: &mut T,
        origins: &mut BTreeMap<String, Origin>,
    ) {
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
            return self.problem(layer, &entry.at, &whole, message);
        };
        match set(&key.rule, entry.value, layer.base, target) {
            Ok(()) => {
                origins.insert(whole, layer.origin(&entry.at));
            }
            Err(message) => self.problem(layer, &entry.at, &whole, message),
        }
    }

    fn problem(&mut self, layer: &Layer<'_>, at: &Range<usize>, key: &str, message: String) {
        let (path, line) = (layer.path.to_owned(), layer.line(at));
        self.problems.push(Problem { path, line, key: key.into(), message });
    }

    /// A problem that stands where the first of these keys was given that was.
    fn problem_of(&mut self, given: &[&str], key: &str, message: String) {
        let origin = given.iter().find_map(|key| self.settings.origins.get(*key));
        let (path, line) = match origin {
            Some(Origin::File { path, line }) => (path.clone(), *line),
            Some(Origin::Variable(name)) => (name.into(), 0),
            Some(Origin::Default | Origin::CommandLine) | None => (PathBuf::new(), 0),
        };
        self.problems.push(Problem { path, line, key: key.into(), message });
    }
}

/// Whether a variable's setting is a text, which may look like a number.
fn wants_text(parts: &[&str]) -> bool {
    let is_text = |known: &str, key: &str, is_text: bool| is_text && known == key;
    match parts {
        ["MODELS", _, key] => {
            let key = key.to_lowercase();
            table::model_keys().iter().any(|known| is_text(known.name, &key, known.rule.is_text()))
        }
        parts => {
            let key = parts.join(".").to_lowercase();
            table::top_keys().iter().any(|known| is_text(known.name, &key, known.rule.is_text()))
        }
    }
}

fn is_number_or_yes(value: &str) -> bool {
    let text = format!("x = {value}");
    let is_it = |value: &Spanned<DeValue<'_>>| {
        matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_))
    };
    !value.contains('\n')
        && DeTable::parse(&text).is_ok_and(|table| table.get_ref().get("x").is_some_and(is_it))
}

/// What is wrong with a variable that names a group of settings (`EMBERD_SHARING`).
fn group_fault(key: &str) -> Option<String> {
    if key == "models" {
        let example = format!("{VARIABLE_PREFIX}MODELS__<id>__NAME");
        return Some(format!("this is a group of settings: set one of them, such as {example}"));
    }
    let inner = table::top_keys().into_iter().find_map(|known| {
        known.name.strip_prefix(key)?.strip_prefix('.').is_some().then(|| variable_of(known.name))
    })?;
    Some(format!("this is a group of settings: set one of them, such as {inner}"))
}

fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('.', VARIABLE_DOT))
}

/// The variable of a setting that one without any dot is nearly: mistyped, or with one underscore
/// where there should be two. Others are left alone, such as `EMBERD_SOCKET`.
fn meant_by(name: &str) -> Option<String> {
    let plain = |name: &str| name.replace(VARIABLE_DOT, "_");
    let of =
        |key: &str| format!("{VARIABLE_PREFIX}{}", key.to_uppercase().replace('.', VARIABLE_DOT));
    let known = table::top_keys().into_iter().map(|key| of(key.name));
    known
        .map(|known| (strsim::damerau_levenshtein(&plain(&known), &plain(name)), known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
}

/// Puts a value where it belongs, or says what would be right.
fn set<T>(rule: &Rule<T>, value: &DeValue<'_>, base: &Path, target: &mut T) -> Result<(), String> {
    match (rule, value) {
        (Rule::Integer { range, set, .. }, value) => match integer(value) {
            Some(number) if range.contains(&number) => set(target, number),
            _ => {
                return Err(format!(
                    "expected a whole number from {} to {}, found {}",
                    range.start(),
                    range.end(),
                    shown(value)
                ));
            }
        },
        (Rule::Text { set, .. }, DeValue::String(text)) => {
            return set(target, text, base)
                .map_err(|right| format!("\"{text}\" is not possible: {right}"));
        }
        (Rule::Text { .. }, value) => {
            return Err(format!("expected a text in quotes, found {}", shown(value)));
        }
        (Rule::Flag { set, .. }, DeValue::Boolean(yes)) => set(target, *yes),
        (Rule::Flag { .. }, value) => {
            return Err(format!("expected true or false, found {}", shown(value)));
        }
        (Rule::Fraction { range: (above, most), set, .. }, value) => {
            match value.as_float().and_then(|number| number.as_str().parse::<f64>().ok()).or_else(
                || integer(value).and_then(|number| u32::try_from(number).ok()).map(f64::from),
            ) {
                Some(number) if number > *above && number <= *most => set(target, number),
                _ => {
                    return Err(format!(
                        "expected a number above {above} and up to {most}, found {}",
                        shown(value)
                    ));
                }
            }
        }
    }
    Ok(())
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

/// The most similar name, if one is similar enough to have been meant. The last segments decide:
/// what stands before them is the same for many.
fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let segments = |key: &str| match key.rsplit_once('.') {
        Some((group, last)) => (group.to_owned(), last.to_owned()),
        None => (String::new(), key.to_owned()),
    };
    let (group, last) = segments(&given);
    let scored = names.filter_map(|name| {
        let (its_group, its_last) = segments(name);
        let likeness = strsim::jaro_winkler(&last, &its_last);
        let of_group = strsim::jaro_winkler(&group, &its_group);
        (likeness > 0.8).then_some((likeness + of_group / 4.0, name))
    });
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// What is wrong with a name that means a model inside the program.
fn builtin_fault(model: &ModelSettings) -> Option<String> {
    let name = model.name.as_deref().filter(|name| name.starts_with("builtin:"))?;
    match BUILTINS.iter().find(|(_, builtin, _)| *builtin == name) {
        Some((.., own)) if *own == model.model_type || model.model_type.is_empty() => None,
        Some((.., own)) => Some(format!("this built-in model is of type {own}")),
        None => {
            let known = BUILTINS.map(|(_, name, _)| format!("\"{name}\"")).join(" or ");
            Some(format!("there is no such built-in model: use {known}"))
        }
    }
}
