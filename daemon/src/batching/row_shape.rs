//! From the row that a model computes to the row that a client gets.

use emberd_engine::normalize;

/// Which part of a model's row is used, and how. Rows are computed and cached whole, so that one
/// cache entry serves every dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowShape {
    /// Dimensions of the model's row.
    pub(crate) model: usize,
    /// Leading dimensions that are kept (Matryoshka).
    pub(crate) used: usize,
    /// Whether they are L2-normalised (again, if the row was cut).
    pub(crate) renormalize: bool,
}

impl RowShape {
    /// Whether rows are used as the model computes them.
    pub(crate) fn is_as_made(self) -> bool {
        self.used == self.model && !self.renormalize
    }

    /// Writes the used part of a row (`model` values) to `target` (`used` values).
    pub(crate) fn write(self, row: &[f32], target: &mut [f32]) {
        target.copy_from_slice(&row[..self.used]);
        if self.renormalize {
            normalize(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RowShape;

    #[test]
    fn a_whole_row_keeps_its_bits_and_others_are_cut_and_normalised() {
        let row = [0.6, 0.0, 0.8];
        let mut target = [f32::NAN; 3];
        let whole = RowShape { model: 3, used: 3, renormalize: false };
        whole.write(&row, &mut target);
        assert!(whole.is_as_made());
        assert_eq!(target.map(f32::to_bits), row.map(f32::to_bits));
        let long = RowShape { renormalize: true, ..whole };
        long.write(&[0.0, 3.0, 4.0], &mut target);
        assert!(!long.is_as_made() && (target[1] - 0.6).abs() < 1e-6, "{target:?}");
        let cut = RowShape { used: 2, ..long };
        cut.write(&row, &mut target[..2]);
        assert_eq!(target[..2], [1.0, 0.0]);
        RowShape { renormalize: false, ..cut }.write(&row, &mut target[..2]);
        assert_eq!(target[..2], [0.6, 0.0]);
    }
}
