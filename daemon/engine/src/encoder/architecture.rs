//! The interface of an architecture, before and while its weights are read.

use std::fmt;

use crate::checkpoint::encoder_spec::EncoderSpec;
use crate::checkpoint::load_error::LoadError;
use crate::checkpoint::tensor_reader::TensorReader;
use crate::encoder::head_names::{ClassifierNames, MaskHeadNames};
use crate::encoder::network::Network;

/// A model's architecture with its settings, before any weights are read. Its `Debug` output is part
/// of the model's fingerprint, so every setting that affects the rows must be in it.
pub(crate) trait Architecture: fmt::Debug + Send + Sync {
    /// The description of the encoder, from its configuration alone.
    fn spec(&self) -> EncoderSpec;

    /// Reads the network.
    ///
    /// # Errors
    /// If the weights do not match the configuration.
    fn network(&self, reader: &mut TensorReader<'_>) -> Result<Network, LoadError>;

    /// The tensors of its sequence classification head, if it has one.
    fn classifier(&self) -> Option<ClassifierNames> {
        None
    }

    /// The tensors of its masked language model head, if it has one.
    fn mask_head(&self) -> Option<MaskHeadNames> {
        None
    }
}
