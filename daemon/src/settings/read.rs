//! From a TOML text and environment variables to settings, or to everything that is wrong with them.

use crate::settings::builtin::is_builtin_id;
use crate::settings::checks::check_models;
use crate::settings::environment;
use crate::settings::origin::Origin;
use crate::settings::problem::{Problem, SettingsError};
use crate::settings::rule::Key;
use crate::settings::suggest::nearest_key;
use crate::settings::table::{model_keys, top_keys};
use crate::settings::toml_layer::{FlatValue, TWICE, TomlLayer, flatten, line_after};
use crate::settings::values::Settings;
use emberd_protocol::ModelId;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

impl Settings {
    /// Reads a settings file and environment variables over the defaults, the variables over the
    /// file. Paths in a file are relative to its folder.
    ///
    /// A variable is named after its key: `EMBERD_SHARING__MAX_SHARED_MODELS`, with two underscores
    /// for each dot; the id of a model stays as it is (`EMBERD_MODELS__minilm__DEVICE`).
    ///
    /// # Errors
    /// Everything that is wrong in them, at once.
    pub fn read(
        path: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        custom_types: &[String],
    ) -> Result<Self, SettingsError> {
        let Some(path) = path else { return parse(None, variables, custom_types) };
        let bytes = std::fs::read(path)
            .map_err(|source| SettingsError::Unreadable { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let problem = Problem {
                path: path.to_owned(),
                line: line_after(valid),
                key: String::new(),
                message: "this line is not UTF-8: save the file as UTF-8".into(),
            };
            SettingsError::Wrong(vec![problem])
        })?;
        parse(Some((&text, path)), variables, custom_types)
    }

    /// Checks the text of a settings file; `path` is named in errors, and paths in the text are
    /// relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong in it, at once.
    pub fn parse(text: &str, path: &Path, custom_types: &[String]) -> Result<Self, SettingsError> {
        parse(Some((text, path)), [], custom_types)
    }
}

/// Reads the text of a file and variables over the defaults.
pub(super) fn parse(
    file: Option<(&str, &Path)>,
    variables: impl IntoIterator<Item = (String, String)>,
    custom_types: &[String],
) -> Result<Settings, SettingsError> {
    let mut reader = LayerReader { settings: Settings::default(), problems: Vec::new() };
    if let Some((text, path)) = file {
        let folder = path.parent().unwrap_or(Path::new(""));
        reader.read_file(&TomlLayer { text, path, folder, variable: None });
    }
    let mut variables: Vec<_> = variables.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        reader.read_variable(&name, &value);
    }
    let LayerReader { settings, mut problems } = reader;
    check_models(&settings, custom_types, &mut problems);
    if problems.is_empty() {
        return Ok(settings);
    }
    problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    // Of several problems of one line that is not TOML, one is enough.
    let is_syntax = |problem: &Problem| problem.key.is_empty();
    problems.dedup_by(|b, a| {
        a == b || (is_syntax(a) && is_syntax(b) && (&a.path, a.line) == (&b.path, b.line))
    });
    Err(SettingsError::Wrong(problems))
}

/// Reads one layer after another.
struct LayerReader {
    settings: Settings,
    problems: Vec<Problem>,
}

/// Keys that are set together: those outside of `models`, or those of one model.
struct KeyGroup<'a, T: 'static> {
    keys: &'a [Key<T>],
    /// The prefix of each key, such as `models.minilm.`.
    prefix: &'a str,
}

impl LayerReader {
    fn read_file(&mut self, layer: &TomlLayer<'_>) {
        let (document, problems) = layer.parse();
        self.problems.extend(problems);
        if document.get_ref().contains_key("models") {
            // A file that names models names all of them.
            self.settings = Settings::without_models();
        }
        self.apply_document(layer, document.get_ref());
    }

    fn read_variable(&mut self, name: &str, value: &str) {
        match environment::toml_line(name, value) {
            None => {}
            Some(Err(problem)) => self.problems.push(problem),
            Some(Ok(text)) => {
                let (path, folder) = (Path::new(name), Path::new(""));
                let layer = TomlLayer { text: &text, path, folder, variable: Some(name) };
                let (document, problems) = layer.parse();
                self.problems.extend(problems);
                self.apply_document(&layer, document.get_ref());
            }
        }
    }

    fn apply_document(&mut self, layer: &TomlLayer<'_>, document: &DeTable<'_>) {
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
                    self.problems.push(layer.problem(&value.span(), "models", message));
                }
                (name, _) => flatten(name.to_owned(), value, &mut flat),
            }
        }
        let group = KeyGroup { keys: &top_keys(), prefix: "" };
        // Out of `self`, so that problems can be added while it is changed.
        let mut settings = std::mem::replace(&mut self.settings, Settings::without_models());
        let origins = self.apply(layer, &group, flat, &mut settings);
        self.settings = settings;
        self.settings.origins.extend(origins);
        for (id, (at, model)) in models {
            self.apply_model(layer, &id, &at, model);
        }
    }

    fn apply_model(
        &mut self,
        layer: &TomlLayer<'_>,
        id: &str,
        at: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let key = format!("models.{id}");
        let DeValue::Table(table) = value.get_ref() else {
            let expected = format!("expected keys below it, such as {key}.type");
            return self.problems.push(layer.problem(&value.span(), &key, expected));
        };
        let model_id = match ModelId::new(id) {
            Ok(model_id) if !is_builtin_id(id) => model_id,
            Ok(_) => {
                let message = "this id is a built-in model's: choose another".into();
                return self.problems.push(layer.problem(at, &key, message));
            }
            Err(error) => return self.problems.push(layer.problem(at, &key, error.to_string())),
        };
        let mut flat = Vec::new();
        for (name, value) in table {
            flatten(name.get_ref().to_string(), value, &mut flat);
        }
        let group = KeyGroup { keys: &model_keys(), prefix: &format!("{key}.") };
        let mut model = self.settings.models.get(&model_id).cloned().unwrap_or_default();
        let origins = self.apply(layer, &group, flat, &mut model);
        // Problems of the whole model are reported at its first line.
        self.settings.origins.entry(key).or_insert_with(|| layer.origin(at));
        self.settings.origins.extend(origins);
        self.settings.models.insert(model_id, model);
    }

    /// Sets values. Returns the origin of each key that was set.
    fn apply<T>(
        &mut self,
        layer: &TomlLayer<'_>,
        group: &KeyGroup<'_, T>,
        mut flat: Vec<FlatValue<'_>>,
        target: &mut T,
    ) -> BTreeMap<String, Origin> {
        let (mut origins, mut seen) = (BTreeMap::new(), BTreeSet::new());
        flat.sort_by_key(|entry| entry.at.start);
        for entry in flat {
            let whole = format!("{}{}", group.prefix, entry.key);
            // A key in quotes (`"sharing.enabled"`) and one in a table may be the same, which the
            // parser does not notice.
            let result = if seen.insert(entry.key.clone()) {
                group.set(&entry, layer.folder, target)
            } else {
                Err(TWICE.to_owned())
            };
            match result {
                Ok(true) => {
                    origins.insert(whole, layer.origin(&entry.at));
                }
                Ok(false) => {}
                Err(message) => self.problems.push(layer.problem(&entry.at, &whole, message)),
            }
        }
        origins
    }
}

impl<T> KeyGroup<'_, T> {
    /// Sets one value. Returns whether it is one: a group of keys may be empty.
    fn set(&self, entry: &FlatValue<'_>, folder: &Path, target: &mut T) -> Result<bool, String> {
        let is_inner = |key: &Key<T>| key.name.starts_with(&format!("{}.", entry.key));
        if matches!(entry.value, DeValue::Table(_)) && self.keys.iter().any(is_inner) {
            return Ok(false);
        }
        let Some(key) = self.keys.iter().find(|key| key.name == entry.key) else {
            return Err(match nearest_key(&entry.key, self.keys.iter().map(|key| key.name)) {
                Some(name) => {
                    format!("there is no such key: did you mean {}{name}?", self.prefix)
                }
                None => "there is no such key".into(),
            });
        };
        key.rule.set(entry.value, folder, target).map(|()| true)
    }
}
