//! RoBERTa, and what is built like it in other languages: XLM-R, CamemBERT.

use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::raw_config::Settings;
use crate::checkpoint::reader::{Bias, Reader};
use crate::encoder::architectures::bert::Bert;
use crate::encoder::architectures::{
    Architecture, ClassifierNames, Facts, HeadNormNames, MaskNames, Pool,
};
use crate::encoder::network::Network;
use crate::layers::activation::Activation;

/// BERT's blocks, with places counted from behind the padding token's number.
#[derive(Debug)]
pub(crate) struct Roberta {
    name: &'static str,
    bert: Bert,
    padding: u32,
    /// Places that are left for tokens.
    positions: usize,
}

impl Roberta {
    pub(crate) fn read(name: &'static str, settings: Settings<'_>) -> Result<Self, LoadError> {
        let bert = Bert::read(settings)?;
        let padding = settings.token_or("pad_token_id", 1)?;
        let positions = positions_behind(padding, bert.positions, settings)?;
        Ok(Self { name, bert, padding, positions })
    }
}

/// Rows of a position table that are left where tokens are counted from behind the padding.
pub(crate) fn positions_behind(
    padding: u32,
    rows: usize,
    settings: Settings<'_>,
) -> Result<usize, LoadError> {
    let taken = usize::try_from(padding).unwrap_or(usize::MAX).saturating_add(1);
    match rows.checked_sub(taken) {
        Some(left) if left > 0 => Ok(left),
        _ => {
            let wanted = format!("more than {taken}, since places count from pad_token_id on");
            Err(settings.setting("max_position_embeddings", rows, wanted))
        }
    }
}

impl Architecture for Roberta {
    fn facts(&self) -> Facts {
        Facts { name: self.name, positions: self.positions, ..self.bert.facts() }
    }

    fn network(&self, reader: &mut Reader<'_>) -> Result<Network, LoadError> {
        reader.enter(&["roberta."], "embeddings.word_embeddings.weight");
        self.bert.network_counting(reader, Some(self.padding))
    }

    fn classifier(&self) -> Option<ClassifierNames> {
        Some(CLASSIFIER)
    }

    fn mask_head(&self) -> Option<MaskNames> {
        Some(mask_head(self.bert.epsilon()))
    }
}

/// The head over the first token that RoBERTa and MPNet have.
pub(crate) const CLASSIFIER: ClassifierNames = ClassifierNames {
    pool: Pool::First,
    dense: "classifier.dense",
    dense_bias: Bias::Each,
    activation: Activation::Tanh,
    norm: None,
    output: "classifier.out_proj",
};

/// The head for masks that RoBERTa and MPNet have.
pub(crate) fn mask_head(epsilon: f32) -> MaskNames {
    MaskNames {
        dense: "lm_head.dense",
        dense_bias: Bias::Each,
        activation: Activation::Gelu,
        norm: HeadNormNames { name: "lm_head.layer_norm", bias: Bias::Each, epsilon },
        decoder: "lm_head.decoder.weight",
        bias: Some("lm_head.bias"),
    }
}
