//! How the rows of tokens become the row of a text.

/// A way to make one row of the rows of a text's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolingMode {
    /// The row of the first token, `[CLS]`. It is taken even if it belongs to a prompt that is left out,
    /// as sentence-transformers did before version 6.
    Cls,
    /// The largest value of each column.
    Max,
    /// The mean of each column.
    Mean,
    /// The sum of each column, divided by the square root of the number of tokens.
    MeanSqrtLen,
    /// The mean of each column, each token weighted by its position, counted from 1.
    WeightedMean,
    /// The row of the last token.
    LastToken,
}

/// One or several ways to pool. Their rows are joined in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pooling {
    pub(crate) modes: Vec<PoolingMode>,
}

impl Pooling {
    /// The pooling of folders that set none.
    pub(crate) fn mean() -> Self {
        Self { modes: vec![PoolingMode::Mean] }
    }

    /// Values of a row, made of token rows of `width` values.
    pub(crate) fn outputs(&self, width: usize) -> usize {
        self.modes.len() * width
    }
}
