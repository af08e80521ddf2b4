//! The modules of sentence-transformers behind pooling, as their files describe them.

use std::path::PathBuf;

/// A module behind pooling, before its weights are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModuleSpec {
    /// A linear layer with an activation.
    Dense {
        folder: PathBuf,
        inputs: usize,
        outputs: usize,
        has_bias: bool,
        activation: DenseActivation,
    },
    /// A layer normalisation with scale and shift.
    Norm { folder: PathBuf, dimension: usize },
    /// L2 normalisation.
    Normalize,
}

/// The activation of a [`ModuleSpec::Dense`], with the defaults of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DenseActivation {
    Identity,
    Tanh,
    Relu,
    Gelu,
    Silu,
    Sigmoid,
}

impl ModuleSpec {
    /// The same module without the path of its files, for a hash.
    pub(crate) fn without_folder(&self) -> Self {
        let mut spec = self.clone();
        match &mut spec {
            Self::Dense { folder, .. } | Self::Norm { folder, .. } => folder.clear(),
            Self::Normalize => {}
        }
        spec
    }
}

impl DenseActivation {
    /// The supported classes, for messages.
    pub(crate) const SUPPORTED: &str = "torch.nn's Identity, Tanh, ReLU, GELU, SiLU, Sigmoid";

    /// The activation of a class path, such as `torch.nn.modules.activation.Tanh`.
    pub(crate) fn of_class(path: &str) -> Option<Self> {
        if !path.starts_with("torch.nn.") {
            return None;
        }
        Some(match path.rsplit('.').next()? {
            "Identity" => Self::Identity,
            "Tanh" => Self::Tanh,
            "ReLU" => Self::Relu,
            "GELU" => Self::Gelu,
            "SiLU" => Self::Silu,
            "Sigmoid" => Self::Sigmoid,
            _ => return None,
        })
    }
}
