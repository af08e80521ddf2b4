//! Checks that need all keys of a model.

use crate::settings::builtin::{BUILTINS, is_builtin_id};
use crate::settings::model::ModelSettings;
use crate::settings::model_type::ModelType;
use crate::settings::origin::Origin;
use crate::settings::problem::Problem;
use crate::settings::values::Settings;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Adds the problems of all models that are not built in.
pub(super) fn check_models(
    settings: &Settings,
    custom_types: &[String],
    problems: &mut Vec<Problem>,
) {
    let faulty: BTreeSet<String> = problems.iter().map(|problem| problem.key.clone()).collect();
    for (id, model) in settings.models.iter().filter(|(id, _)| !is_builtin_id(id.as_str())) {
        let check = ModelCheck {
            settings,
            custom_types,
            faulty: &faulty,
            model,
            key: format!("models.{id}"),
        };
        check.add_problems(problems);
    }
}

/// The check of one model.
struct ModelCheck<'a> {
    settings: &'a Settings,
    custom_types: &'a [String],
    /// Keys that have problems already.
    faulty: &'a BTreeSet<String>,
    model: &'a ModelSettings,
    /// `models.<id>`.
    key: String,
}

impl ModelCheck<'_> {
    fn add_problems(&self, problems: &mut Vec<Problem>) {
        let Self { model, key, .. } = self;
        let (type_key, name_key) = (format!("{key}.type"), format!("{key}.name"));
        if !self.faulty.contains(&type_key)
            && let Some(message) = self.type_fault(&type_key)
        {
            problems.push(self.problem(&[&type_key, key], &type_key, message));
        }
        let is_builtin = model.name.as_deref().is_some_and(|name| name.starts_with("builtin:"));
        if is_builtin && model.local_path.is_some() {
            let message = "a built-in model has no folder: give a name or a local_path".into();
            problems.push(self.problem(&[key], key, message));
        } else if let Some(message) = builtin_fault(model) {
            problems.push(self.problem(&[&name_key], &name_key, message));
        }
        if self.lacks_files() {
            let message = format!(
                "give {key}.local_path, the folder that holds the model, or {key}.name, its name on \
                 the hub"
            );
            problems.push(self.problem(&[key], key, message));
        }
        for line in self.settings.origins.keys() {
            let own = line.strip_prefix(&format!("{key}."));
            if model.model_type.is_set() && own.is_some_and(|own| !model.model_type.has_key(own)) {
                let message = format!("does not apply to a model of type {}", model.model_type);
                problems.push(self.problem(&[line], line, message));
            }
        }
    }

    fn type_fault(&self, type_key: &str) -> Option<String> {
        let given = &self.model.model_type;
        if !given.is_set() {
            return Some(format!(
                "missing: add it, for example {type_key} = \"{}\"",
                ModelType::Embedding
            ));
        }
        let ModelType::Custom(name) = given else { return None };
        if self.custom_types.contains(name) {
            return None;
        }
        let built_in = ModelType::BUILT_IN.iter().map(ModelType::name);
        let known: Vec<_> = built_in.chain(self.custom_types.iter().map(String::as_str)).collect();
        Some(format!("\"{name}\" is not a model type: use \"{}\"", known.join("\" or \"")))
    }

    fn lacks_files(&self) -> bool {
        let model = self.model;
        let prefix = format!("{}.", self.key);
        let needs_files = !self.custom_types.iter().any(|name| name == model.model_type.name());
        let has_faults = self.faulty.iter().any(|faulty| faulty.starts_with(&prefix));
        needs_files && model.name.is_none() && model.local_path.is_none() && !has_faults
    }

    /// A problem at the first of these keys that was set.
    fn problem(&self, set: &[&str], key: &str, message: String) -> Problem {
        let origin = set.iter().find_map(|key| self.settings.origins.get(*key));
        let (path, line) = match origin {
            Some(Origin::File { path, line }) => (path.clone(), *line),
            Some(Origin::Variable(name)) => (name.into(), 0),
            Some(Origin::Default | Origin::CommandLine) | None => (PathBuf::new(), 0),
        };
        Problem { path, line, key: key.into(), message }
    }
}

/// The fault of a name that should be a built-in model's.
fn builtin_fault(model: &ModelSettings) -> Option<String> {
    let name = model.name.as_deref().filter(|name| name.starts_with("builtin:"))?;
    match BUILTINS.iter().find(|builtin| builtin.name == name) {
        Some(builtin) if builtin.model_type == model.model_type || !model.model_type.is_set() => {
            None
        }
        Some(builtin) => Some(format!("this built-in model is of type {}", builtin.model_type)),
        None => {
            let known = BUILTINS.map(|builtin| format!("\"{}\"", builtin.name)).join(" or ");
            Some(format!("there is no such built-in model: use {known}"))
        }
    }
}
