//! A key of the settings: its values, and how they are read and written.

use std::ops::RangeInclusive;
use std::path::Path;
use toml::de::DeValue;

/// A key below `T`: the settings, or one model.
pub(super) struct Key<T: 'static> {
    pub(super) name: &'static str,
    pub(super) rule: Rule<T>,
}

/// The values of a key, and the field that holds them.
pub(super) enum Rule<T: 'static> {
    /// A whole number in a range.
    Integer { range: RangeInclusive<u64>, set: fn(&mut T, u64), get: fn(&T) -> Option<u64> },
    /// A text. `set` gets the folder that relative paths start from; its error is the remedy.
    Text { set: fn(&mut T, &str, &Path) -> Result<(), String>, get: fn(&T) -> Option<String> },
    /// True or false.
    Flag { set: fn(&mut T, bool), get: fn(&T) -> bool },
    /// A number above the start of the range, up to its end.
    Fraction { range: (f64, f64), set: fn(&mut T, f64), get: fn(&T) -> f64 },
}

impl<T> Rule<T> {
    /// Whether values are texts.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text { .. })
    }

    /// The value in TOML, if the key has one.
    pub(super) fn get(&self, target: &T) -> Option<String> {
        match self {
            Self::Integer { get, .. } => get(target).map(|number| number.to_string()),
            Self::Text { get, .. } => get(target).map(|text| toml::Value::String(text).to_string()),
            Self::Flag { get, .. } => Some(get(target).to_string()),
            Self::Fraction { get, .. } => Some(format!("{:?}", get(target))),
        }
    }

    /// Sets the value. Relative paths start from `folder`.
    ///
    /// # Errors
    /// Why the value is not possible, and the remedy.
    pub(super) fn set(
        &self,
        value: &DeValue<'_>,
        folder: &Path,
        target: &mut T,
    ) -> Result<(), String> {
        match (self, value) {
            (Self::Integer { range, set, .. }, value) => {
                let number = integer(value).filter(|number| range.contains(number));
                let Some(number) = number else {
                    let (least, most) = (range.start(), range.end());
                    let found = shown(value);
                    return Err(format!(
                        "expected a whole number from {least} to {most}, found {found}"
                    ));
                };
                set(target, number);
            }
            (Self::Text { set, .. }, DeValue::String(text)) => {
                return set(target, text, folder)
                    .map_err(|remedy| format!("\"{text}\" is not possible: {remedy}"));
            }
            (Self::Text { .. }, value) => {
                return Err(format!("expected a text in quotes, found {}", shown(value)));
            }
            (Self::Flag { set, .. }, DeValue::Boolean(yes)) => set(target, *yes),
            (Self::Flag { .. }, value) => {
                return Err(format!("expected true or false, found {}", shown(value)));
            }
            (Self::Fraction { range: (above, most), set, .. }, value) => {
                let number = number(value).filter(|number| number > above && number <= most);
                let Some(number) = number else {
                    let found = shown(value);
                    return Err(format!(
                        "expected a number above {above} and up to {most}, found {found}"
                    ));
                };
                set(target, number);
            }
        }
        Ok(())
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A number with or without a fraction.
fn number(value: &DeValue<'_>) -> Option<f64> {
    match value.as_float() {
        Some(number) => number.as_str().parse().ok(),
        None => integer(value).and_then(|number| u32::try_from(number).ok()).map(f64::from),
    }
}

/// A value in a message.
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
