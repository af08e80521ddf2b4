//! The names of the layers of a head in a file.

use crate::checkpoint::layer_reader::Bias;
use crate::layers::activation::Activation;

/// A sequence classification head: a dense layer with an activation, an optional norm, and an output
/// layer with one value for each label.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClassifierNames {
    pub(crate) pooling: ClassifierPooling,
    pub(crate) dense: &'static str,
    pub(crate) dense_bias: Bias,
    pub(crate) activation: Activation,
    pub(crate) norm: Option<HeadNormNames>,
    pub(crate) output: &'static str,
}

/// Which token rows are classified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClassifierPooling {
    /// The first one.
    First,
    /// The mean of all.
    Mean,
}

/// A masked language model head: a dense layer with an activation, a norm, and a score for each token.
/// The dense layer writes rows as wide as those of the token table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskHeadNames {
    pub(crate) dense: &'static str,
    pub(crate) dense_bias: Bias,
    pub(crate) activation: Activation,
    pub(crate) norm: HeadNormNames,
    /// The output matrix, in files where it is not tied to the token table.
    pub(crate) decoder: &'static str,
    /// The bias of the scores.
    pub(crate) bias: Option<&'static str>,
}

/// The norm of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadNormNames {
    pub(crate) name: &'static str,
    pub(crate) bias: Bias,
    pub(crate) epsilon: f32,
}
