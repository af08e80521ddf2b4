//! From the row that a model makes to the row that its users get.

use crate::engine::normalize;

/// How many values of a model's row are used. Rows are computed and cached whole, so that one
/// entry serves every length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowShape {
    /// Values that the model makes.
    pub(crate) model: usize,
    /// The first so many of them are used (Matryoshka).
    pub(crate) used: usize,
    /// Whether what is used gets the length 1 again.
    pub(crate) normalized: bool,
}

impl RowShape {
    /// Whether rows are used as they are made.
    pub(crate) fn is_whole(self) -> bool {
        self.used == self.model
    }

    /// Writes what is used of a row to its place. Both have the lengths that the shape tells.
    pub(crate) fn write(self, row: &[f32], place: &mut [f32]) {
        place.copy_from_slice(&row[..self.used]);
        if self.normalized && !self.is_whole() {
            normalize(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RowShape;

    #[test]
    fn a_whole_row_keeps_its_bits_and_a_cut_one_gets_its_length_back() {
        let row = [0.6, 0.0, 0.8];
        let mut place = [f32::NAN; 3];
        let whole = RowShape { model: 3, used: 3, normalized: true };
        whole.write(&row, &mut place);
        assert_eq!(place.map(f32::to_bits), row.map(f32::to_bits));
        let cut = RowShape { used: 2, ..whole };
        cut.write(&row, &mut place[..2]);
        assert_eq!(place[..2], [1.0, 0.0]);
        RowShape { normalized: false, ..cut }.write(&row, &mut place[..2]);
        assert_eq!(place[..2], [0.6, 0.0]);
    }
}
