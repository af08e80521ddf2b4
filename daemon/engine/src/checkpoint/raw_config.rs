//! The settings of a `config.json`, read so that what is wrong is told with its name.

use std::path::Path;

use serde::de::Error as _;
use serde_json::Value;

use crate::checkpoint::load_error::LoadError;
use crate::layers::activation::Activation;
use crate::layers::relative_bias::Buckets;

/// A configuration and the file that it stands in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) file: &'a Path,
    pub(crate) json: &'a Value,
}

/// What any size may be at most: products of a few of them still do not overflow.
const LARGEST: usize = 1 << 28;

impl<'a> Settings<'a> {
    /// A size, which is there and not 0.
    pub(crate) fn size(self, setting: &'static str) -> Result<usize, LoadError> {
        match self.size_if_there(setting)? {
            Some(size) => Ok(size),
            None => Err(self.wrong(setting, "is missing")),
        }
    }

    /// A size that another value stands in for.
    pub(crate) fn size_or(self, setting: &'static str, other: usize) -> Result<usize, LoadError> {
        Ok(self.size_if_there(setting)?.unwrap_or(other))
    }

    /// A size that may be missing, or null.
    pub(crate) fn size_if_there(self, setting: &'static str) -> Result<Option<usize>, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(None);
        }
        let found = value.as_u64().ok_or_else(|| self.wrong(setting, "is no size"))?;
        let found = usize::try_from(found).unwrap_or(usize::MAX);
        if (1..=LARGEST).contains(&found) {
            return Ok(Some(found));
        }
        Err(self.setting(setting, found, format!("between 1 and {LARGEST}")))
    }

    /// A size that is a multiple of another one, which is not 0.
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

    /// The width of a head, or of the part of it that is turned: whole pairs of values.
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

    /// The base of rotary positions, without any scaling of them.
    pub(crate) fn rotary_base(self, setting: &'static str, other: f32) -> Result<f32, LoadError> {
        self.unscaled()?;
        // Where newer versions of transformers write it, and look first.
        let nested = Self { json: &self.json["rope_parameters"], ..self };
        nested.unscaled()?;
        nested.positive_or("rope_theta", self.positive_or(setting, other)?)
    }

    /// The base of rotary positions for blocks of one kind, which newer versions of transformers
    /// write for each kind by itself.
    pub(crate) fn rotary_base_of(
        self,
        kind: &str,
        setting: &'static str,
        other: f32,
    ) -> Result<f32, LoadError> {
        self.unscaled()?;
        let nested = Self { json: &self.json["rope_parameters"][kind], ..self };
        nested.unscaled()?;
        nested.positive_or("rope_theta", self.positive_or(setting, other)?)
    }

    /// Refuses rotary positions that are not those of each whole head as they come.
    fn unscaled(self) -> Result<(), LoadError> {
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

    /// Which blocks look at all tokens, by `layer_types`, where that is said.
    pub(crate) fn global_blocks(self) -> Result<Option<Vec<bool>>, LoadError> {
        let layers = self.size("num_hidden_layers")?;
        let Some(kinds) = self.json["layer_types"].as_array() else { return Ok(None) };
        if kinds.len() != layers {
            let wanted = format!("{}, as many as layer_types has", kinds.len());
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

    /// Buckets of distances.
    pub(crate) fn buckets(
        self,
        setting: &'static str,
        count: usize,
        max_distance: usize,
    ) -> Result<Buckets, LoadError> {
        // A quarter of the buckets is for the smallest distances, on either side; and a curve is
        // kept for each head.
        if count.is_multiple_of(4) && (count / 4 + 1..=1 << 16).contains(&max_distance) {
            return Ok(Buckets { count, max_distance });
        }
        let wanted = format!("a multiple of 4, and a quarter of it below {max_distance}");
        Err(self.setting(setting, count, wanted))
    }

    /// The number of a token.
    pub(crate) fn token_or(self, setting: &'static str, other: u32) -> Result<u32, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(other);
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.wrong(setting, "is no token"))
    }

    /// A positive number that another one stands in for.
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
            _ => Err(self.wrong(setting, "is no positive number")),
        }
    }

    /// A yes or no that another value stands in for.
    pub(crate) fn flag_or(self, setting: &'static str, other: bool) -> Result<bool, LoadError> {
        match &self.json[setting] {
            Value::Null => Ok(other),
            Value::Bool(flag) => Ok(*flag),
            _ => Err(self.wrong(setting, "is neither true nor false")),
        }
    }

    /// A word.
    pub(crate) fn text(self, setting: &str) -> Option<&'a str> {
        self.json[setting].as_str()
    }

    /// The activation that a setting names, or another one where it is missing.
    pub(crate) fn activation_or(
        self,
        setting: &str,
        other: Activation,
    ) -> Result<Activation, LoadError> {
        let value = &self.json[setting];
        if value.is_null() {
            return Ok(other);
        }
        let name = value.as_str().unwrap_or("(none)");
        Activation::named(name)
            .ok_or_else(|| self.unsupported("the activation", name, Activation::NAMES))
    }

    /// Refuses a setting that is there with another value than the only one that is supported.
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

    /// The error for what is understood but not done.
    pub(crate) fn unsupported(
        self,
        what: &'static str,
        found: &str,
        supported: &'static str,
    ) -> LoadError {
        let (file, found) = (self.file.to_owned(), found.to_owned());
        LoadError::Unsupported { file, what, found, supported }
    }

    /// The error for a size that does not fit.
    pub(crate) fn setting(self, setting: &'static str, found: usize, wanted: String) -> LoadError {
        LoadError::Setting { file: self.file.to_owned(), setting, found, wanted }
    }

    fn wrong(self, setting: &str, what: &str) -> LoadError {
        let source = serde_json::Error::custom(format!("the setting {setting:?} {what}"));
        LoadError::Json { file: self.file.to_owned(), source }
    }
}
