//! From the row that a model makes to the row that its users get.

use emberd_engine::normalize;

/// How many values of a model's row are used. Rows are computed and cached whole, so that one
/// entry serves every length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowShape {
    /// Values that the model makes.
    pub(crate) model: usize,
    /// The first so many of them are used (Matryoshka).
    pub(crate) used: usize,
    /// Whether what is used gets the length 1 (again, where it was cut).
    pub(crate) renormalize: bool,
}

impl RowShape {
    /// Whether rows are used as they are made.
    pub(crate) fn is_as_made(self) -> bool {
        self.used == self.model && !self.renormalize
    }

    /// Writes what is used of a row to its place. Both have the lengths that the shape tells.
    pub(crate) fn write(self, row: &[f32], place: &mut [f32]) {
        place.copy_from_slice(&row[..self.used]);
        if self.renormalize {
            normalize(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RowShape;

    #[test]
    fn a_row_as_it_was_made_keeps_its_bits_and_another_gets_its_length() {
        let row = [0.6, 0.0, 0.8];
        let mut place = [f32::NAN; 3];
        let whole = RowShape { model: 3, used: 3, renormalize: false };
        whole.write(&row, &mut place);
        assert!(whole.is_as_made());
        assert_eq!(place.map(f32::to_bits), row.map(f32::to_bits));
        let long = RowShape { renormalize: true, ..whole };
        long.write(&[0.0, 3.0, 4.0], &mut place);
        assert!(!long.is_as_made() && (place[1] - 0.6).abs() < 1e-6, "{place:?}");
        let cut = RowShape { used: 2, ..long };
        cut.write(&row, &mut place[..2]);
        assert_eq!(place[..2], [1.0, 0.0]);
        RowShape { renormalize: false, ..cut }.write(&row, &mut place[..2]);
        assert_eq!(place[..2], [0.6, 0.0]);
    }
}
