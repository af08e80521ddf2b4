//! Rows of 32-bit floats as smaller elements: bit by bit what sentence-transformers'
//! `quantize_embeddings` makes of them, if that is defined.

use emberd_protocol::{ElementType, QuantizationRanges};
use half::f16;

/// Steps from the smallest number of a byte to the largest.
const STEPS: f32 = 255.0;

/// Writes rows of `columns` values as elements of another type, row by row, into exactly the bytes
/// that they take. Returns what the numbers of quantised rows stand for: the given `ranges`, or else
/// the span of each column of these rows.
///
/// A value outside of given ranges becomes the nearest number of the type. (NumPy leaves that
/// undefined.)
pub(super) fn write(
    values: &[f32],
    columns: usize,
    element: ElementType,
    ranges: Option<QuantizationRanges>,
    bytes: &mut [u8],
) -> Option<QuantizationRanges> {
    match element {
        ElementType::F32 => {
            for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
        ElementType::F16 => {
            for (bytes, &value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *bytes = f16::from_f32(value).to_le_bytes();
            }
        }
        ElementType::U8 => return quantize(values, columns, ranges, bytes, unsigned),
        ElementType::I8 => {
            return quantize(values, columns, ranges, bytes, |number| signed(number - 128.0));
        }
        ElementType::Ubinary => pack(values, bytes, 0),
        ElementType::Binary => pack(values, bytes, 128),
    }
    None
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast truncates, saturates at the type's bounds, and turns NaN into 0: that is a \
              column of equal values, divided by its span of 0"
)]
fn unsigned(number: f32) -> u8 {
    number as u8
}

#[expect(clippy::cast_possible_truncation, reason = "as `unsigned`")]
fn signed(number: f32) -> u8 {
    (number as i8).cast_unsigned()
}

fn quantize(
    values: &[f32],
    columns: usize,
    ranges: Option<QuantizationRanges>,
    bytes: &mut [u8],
    cast: impl Fn(f32) -> u8,
) -> Option<QuantizationRanges> {
    if values.is_empty() {
        return ranges;
    }
    let ranges = ranges.unwrap_or_else(|| spans(values, columns));
    for (row, bytes) in values.chunks_exact(columns).zip(bytes.chunks_exact_mut(columns)) {
        let scales = ranges.starts.iter().zip(&ranges.steps);
        for ((value, byte), (start, step)) in row.iter().zip(bytes).zip(scales) {
            *byte = cast((value - start) / step);
        }
    }
    Some(ranges)
}

/// The smallest value of each column, and the step from it to the largest.
fn spans(values: &[f32], columns: usize) -> QuantizationRanges {
    let mut starts = vec![f32::INFINITY; columns];
    let mut ends = vec![f32::NEG_INFINITY; columns];
    for row in values.chunks_exact(columns) {
        for ((start, end), &value) in starts.iter_mut().zip(&mut ends).zip(row) {
            *start = start.min(value);
            *end = end.max(value);
        }
    }
    let steps = ends.iter().zip(&starts).map(|(end, start)| (end - start) / STEPS).collect();
    QuantizationRanges { starts, steps }
}

/// One bit for each value, set if it is above 0, the first of eight in the highest bit; `offset` is
/// subtracted from each byte. A row fills whole bytes, so the rows need no separation.
fn pack(values: &[f32], bytes: &mut [u8], offset: u8) {
    for (byte, values) in bytes.iter_mut().zip(values.chunks(8)) {
        let bits = values.iter().enumerate().map(|(i, value)| u8::from(*value > 0.0) << (7 - i));
        *byte = bits.fold(0, |byte, bit| byte | bit).wrapping_sub(offset);
    }
}

#[cfg(test)]
mod tests {
    use super::write;
    use emberd_protocol::{ElementType, QuantizationRanges};

    /// Three rows of two.
    const ROWS: [f32; 6] = [0.0, 5.0, 100.75, 5.0, 255.0, 5.0];

    fn quantized(
        element: ElementType,
        ranges: Option<QuantizationRanges>,
    ) -> (Vec<u8>, QuantizationRanges) {
        let mut bytes = vec![0xAA; 6];
        let ranges = write(&ROWS, 2, element, ranges, &mut bytes).unwrap();
        (bytes, ranges)
    }

    #[test]
    fn columns_are_spread_over_a_byte_and_a_constant_one_is_zero() {
        let (bytes, ranges) = quantized(ElementType::U8, None);
        assert_eq!(bytes, [0, 0, 100, 0, 255, 0]);
        assert_eq!(ranges.starts, [0.0, 5.0]);
        assert_eq!(ranges.steps, [1.0, 0.0]);
        let (bytes, _) = quantized(ElementType::I8, None);
        let signed: Vec<i8> = bytes.into_iter().map(u8::cast_signed).collect();
        // -27.25 is cut towards 0, as a cast does it.
        assert_eq!(signed, [-128, 0, -27, 0, 127, 0]);
    }

    #[test]
    fn given_ranges_are_kept_and_end_what_lies_outside() {
        let given = QuantizationRanges { starts: vec![0.0, 0.0], steps: vec![1.0, 0.01] };
        let (bytes, ranges) = quantized(ElementType::U8, Some(given.clone()));
        assert_eq!(bytes, [0, 255, 100, 255, 255, 255]);
        assert_eq!(ranges, given);
        let (bytes, _) = quantized(ElementType::I8, Some(given));
        let signed: Vec<i8> = bytes.into_iter().map(u8::cast_signed).collect();
        assert_eq!(signed, [-128, 127, -27, 127, 127, 127]);
    }

    #[test]
    fn bits_are_set_above_zero_the_first_one_highest() {
        let row =
            [0.1, 0.0, -0.1, 2.0, -0.0, -1.0, -1.0, 1e-30, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let mut bytes = [0; 2];
        assert_eq!(write(&row, 16, ElementType::Ubinary, None, &mut bytes), None);
        assert_eq!(bytes, [0b1001_0001, 0b1100_0000]);
        write(&row, 16, ElementType::Binary, None, &mut bytes);
        assert_eq!(
            bytes.map(u8::cast_signed),
            [0b1001_0001u8, 0b1100_0000]
                .map(|byte| { i8::try_from(i32::from(byte) - 128).unwrap() })
        );
    }

    #[test]
    fn halves_are_rounded_to_even_and_no_rows_have_no_ranges() {
        let mut bytes = [0; 4];
        write(&[1.0 + 1.0 / 2048.0, -0.5], 2, ElementType::F16, None, &mut bytes);
        assert_eq!(bytes, [0x00, 0x3C, 0x00, 0xB8]);
        assert_eq!(write(&[], 2, ElementType::I8, None, &mut []), None);
    }
}
