//! `config.json`, read so that an error names the file and the setting.

use std::path::Path;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Value;

use crate::checkpoint::load_error::LoadError;
use crate::layers::activation::Activation;
use crate::layers::relative_bias::Buckets;

/// The values of a configuration file, none of them checked yet.
///
/// A setting that is null counts as missing, as it does in transformers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawConfig<'a> {
    /// The file, for messages.
    pub(crate) file: &'a Path,
    pub(crate) json: &'a Value,
}

/// The largest size that any setting may have: products of a few of them do not overflow.
const MAX_SIZE: usize = 1 << 28;

impl<'a> RawConfig<'a> {
    /// A required size, at least 1.
    pub(crate) fn size(self, setting: &'static str) -> Result<usize, LoadError> {
        match self.size_if_there(setting)? {
            Some(size) => Ok(size),
            None => Err(self.wrong(setting, "is missing")),
        }
    }

    /// A size with a default.
    pub(crate) fn size_or(self, setting: &'static str, other: usize) -> Result<usize, LoadError> {
        Ok(self.size_if_there(setting)?.unwrap_or(other))
    }

    /// An optional size, at least 1.
    pub(crate) fn size_if_there(self, setting: &'static str) -> Result<Option<usize>, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(None);
        }
        let found = value.as_u64().ok_or_else(|| self.wrong(setting, "is not a size"))?;
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        if (1..=MAX_SIZE).contains(&found) {
            return Ok(Some(found));
        }
        Err(self.setting(setting, found, format!("between 1 and {MAX_SIZE}")))
    }

    /// Divides a size into `of` equal parts.
    pub(crate) fn parts(
        self,
        setting: &'static str,
        found: usize,
        of: usize,
    ) -> Result<usize, LoadError> {
        if of > 0 && found.is_multiple_of(of) {
            return Ok(found / of);
        }
        Err(self.setting(setting, found, format!("a multiple of {of}")))
    }

    /// Checks the width of a head, or of the part of it that is rotated: rotation needs whole pairs
    /// of values.
    pub(crate) fn even_heads(
        self,
        setting: &'static str,
        found: usize,
    ) -> Result<usize, LoadError> {
        if found > 0 && found.is_multiple_of(2) {
            return Ok(found);
        }
        Err(self.setting(setting, found, "even in each head".to_owned()))
    }

    /// The base of rotary positions. Scaled positions are refused.
    pub(crate) fn rotary_base(self, setting: &'static str, other: f32) -> Result<f32, LoadError> {
        self.rotary_base_in(&self.json["rope_parameters"], setting, other)
    }

    /// The base of rotary positions for blocks of one kind, such as `full_attention`: newer versions
    /// of transformers write one for each kind.
    pub(crate) fn rotary_base_of(
        self,
        kind: &str,
        setting: &'static str,
        other: f32,
    ) -> Result<f32, LoadError> {
        self.rotary_base_in(&self.json["rope_parameters"][kind], setting, other)
    }

    /// For each block, whether it attends to all tokens; `None` without `layer_types`.
    pub(crate) fn global_blocks(self) -> Result<Option<Vec<bool>>, LoadError> {
        let layers = self.size("num_hidden_layers")?;
        let Some(kinds) = self.json["layer_types"].as_array() else { return Ok(None) };
        if kinds.len() != layers {
            let wanted = format!("{}, the length of layer_types", kinds.len());
            return Err(self.setting("num_hidden_layers", layers, wanted));
        }
        let is_global = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(true),
            Some("sliding_attention") => Ok(false),
            other => {
                let supported = "full_attention, sliding_attention";
                Err(self.unsupported("layer_types", other.unwrap_or("(none)"), supported))
            }
        };
        kinds.iter().map(is_global).collect::<Result<_, _>>().map(Some)
    }

    /// Checks the buckets of a relative position bias.
    pub(crate) fn buckets(
        self,
        setting: &'static str,
        count: usize,
        max_distance: usize,
    ) -> Result<Buckets, LoadError> {
        // A quarter of the buckets holds one short distance each, on either side. The upper bound
        // keeps the curves small that are computed for each head.
        if count.is_multiple_of(4) && (count / 4 + 1..=1 << 16).contains(&max_distance) {
            return Ok(Buckets { count, max_distance });
        }
        let wanted = format!("a multiple of 4 whose quarter is below the distance {max_distance}");
        Err(self.setting(setting, count, wanted))
    }

    /// A token id with a default.
    pub(crate) fn token_or(self, setting: &'static str, other: u32) -> Result<u32, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(other);
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(setting, "is not a token id"))
    }

    /// A positive number with a default.
    pub(crate) fn positive_or(self, setting: &'static str, other: f32) -> Result<f32, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(other);
        }
        match value.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "networks compute in f32")]
            Some(number)
                if (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&number) =>
            {
                Ok(number as f32)
            }
            _ => Err(self.wrong(setting, "is not a positive number")),
        }
    }

    /// A flag with a default.
    pub(crate) fn flag_or(self, setting: &'static str, other: bool) -> Result<bool, LoadError> {
        Ok(self.flag_if_there(setting)?.unwrap_or(other))
    }

    /// An optional flag.
    pub(crate) fn flag_if_there(self, setting: &'static str) -> Result<Option<bool>, LoadError> {
        match &self.json[setting] {
            Value::Null => Ok(None),
            Value::Bool(flag) => Ok(Some(*flag)),
            _ => Err(self.wrong(setting, "is neither true nor false")),
        }
    }

    /// An optional string.
    pub(crate) fn text(self, setting: &str) -> Result<Option<&'a str>, LoadError> {
        match &self.json[setting] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text)),
            _ => Err(self.wrong(setting, "is not a string")),
        }
    }

    /// An optional value of any type, such as a list.
    pub(crate) fn value<T: Deserialize<'a>>(self, setting: &str) -> Result<Option<T>, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(None);
        }
        let read = T::deserialize(value);
        read.map(Some).map_err(|error| self.wrong(setting, &format!("cannot be used: {error}")))
    }

    /// The activation that a setting names, or a default.
    pub(crate) fn activation_or(
        self,
        setting: &str,
        other: Activation,
    ) -> Result<Activation, LoadError> {
        match self.text(setting)? {
            None => Ok(other),
            Some(name) => self.activation(name),
        }
    }

    /// The activation of this name.
    pub(crate) fn activation(self, name: &str) -> Result<Activation, LoadError> {
        Activation::named(name)
            .ok_or_else(|| self.unsupported("the activation", name, Activation::NAMES))
    }

    /// Refuses a setting whose value is not the only supported one. It may be missing.
    pub(crate) fn only(
        self,
        setting: &'static str,
        wanted: &Value,
        supported: &'static str,
    ) -> Result<(), LoadError> {
        let value = &self.json[setting];
        if value.is_null() || value == wanted {
            return Ok(());
        }
        let found = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(self.unsupported(setting, &found, supported))
    }

    /// The error for a valid value that this engine does not support.
    pub(crate) fn unsupported(
        self,
        what: &'static str,
        found: &str,
        supported: &'static str,
    ) -> LoadError {
        let (file, found) = (self.file.to_owned(), found.to_owned());
        LoadError::Unsupported { file, what, found, supported }
    }

    /// The error for a size that is out of range or does not fit another one.
    pub(crate) fn setting(self, setting: &'static str, found: usize, wanted: String) -> LoadError {
        LoadError::Setting { file: self.file.to_owned(), setting, found, wanted }
    }

    /// Newer versions of transformers write the base into `nested` and look there first.
    fn rotary_base_in(
        self,
        nested: &Value,
        setting: &'static str,
        other: f32,
    ) -> Result<f32, LoadError> {
        self.check_unscaled()?;
        let nested = RawConfig { file: self.file, json: nested };
        nested.check_unscaled()?;
        nested.positive_or("rope_theta", self.positive_or(setting, other)?)
    }

    /// Refuses rotary positions that are scaled, or that rotate only a part of each head.
    fn check_unscaled(self) -> Result<(), LoadError> {
        let scaling = &self.json["rope_scaling"];
        for rope in [Self { json: scaling, ..self }, self] {
            rope.only("rope_type", &"default".into(), "default")?;
            rope.only("partial_rotary_factor", &1.0.into(), "1.0")?;
        }
        let kind = &scaling["type"];
        if scaling.is_null() || scaling["rope_type"] == "default" || *kind == "default" {
            return Ok(());
        }
        Err(self.unsupported("rope_scaling", &scaling.to_string(), "null, default"))
    }

    fn wrong(self, setting: &str, what: &str) -> LoadError {
        let source = serde_json::Error::custom(format!("the setting {setting:?} {what}"));
        LoadError::Json { file: self.file.to_owned(), source }
    }
}
