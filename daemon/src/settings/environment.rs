//! Environment variables that are settings, as lines of TOML.

use crate::settings::problem::Problem;
use crate::settings::suggest::nearest_variable;
use crate::settings::table::{model_keys, top_keys};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The start of the names of variables that are settings.
const PREFIX: &str = "EMBERD_";

/// A dot of a key, in the name of a variable.
const DOT: &str = "__";

/// A variable that is a setting, as a line of TOML. `None` for other variables, such as
/// `EMBERD_SOCKET`.
///
/// # Errors
/// When the variable names a group of settings, or nearly names a setting.
pub(super) fn toml_line(name: &str, value: &str) -> Option<Result<String, Problem>> {
    let rest = name.strip_prefix(PREFIX)?;
    let parts: Vec<&str> = rest.split(DOT).collect();
    let key = match parts.as_slice() {
        [single] => {
            let key = single.to_lowercase();
            if !top_keys().iter().any(|known| known.name == key) {
                let message = group_fault(&key).or_else(|| spelling_fault(name))?;
                return Some(Err(Problem { path: name.into(), line: 0, key, message }));
            }
            key
        }
        ["MODELS", id, key] => format!("models.\"{id}\".{}", key.to_lowercase()),
        parts => parts.join(".").to_lowercase(),
    };
    // As a file would have it: numbers and flags bare if the key wants one, otherwise a text.
    let line = if !wants_text(&parts) && is_number_or_flag(value) {
        format!("{key} = {value}")
    } else {
        format!("{key} = {}", toml::Value::String(value.into()))
    };
    Some(Ok(line))
}

/// Whether a variable's setting is a text, which may look like a number.
fn wants_text(parts: &[&str]) -> bool {
    if let ["MODELS", _, key] = parts {
        let key = key.to_lowercase();
        return model_keys().iter().any(|known| known.name == key && known.rule.is_text());
    }
    let key = parts.join(".").to_lowercase();
    top_keys().iter().any(|known| known.name == key && known.rule.is_text())
}

fn is_number_or_flag(value: &str) -> bool {
    let text = format!("x = {value}");
    let is_it = |value: &Spanned<DeValue<'_>>| {
        matches!(value.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_))
    };
    !value.contains('\n')
        && DeTable::parse(&text).is_ok_and(|table| table.get_ref().get("x").is_some_and(is_it))
}

/// The fault of a variable that names a group of settings (`EMBERD_SHARING`).
fn group_fault(key: &str) -> Option<String> {
    let example = if key == "models" {
        format!("{PREFIX}MODELS{DOT}<id>{DOT}NAME")
    } else {
        let is_inner =
            |name: &str| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        variable_of(top_keys().into_iter().find(|known| is_inner(known.name))?.name)
    };
    Some(format!("this is a group of settings: set one of them, such as {example}"))
}

/// The fault of a variable without a dot that nearly names a setting: it is misspelled, or has one
/// underscore instead of two.
fn spelling_fault(name: &str) -> Option<String> {
    let known = top_keys().into_iter().map(|key| variable_of(key.name));
    let meant = nearest_variable(name, known, DOT)?;
    Some(format!("there is no such setting: did you mean {meant}?"))
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', DOT))
}
