//! Small elements, decoded to 32-bit floats.

use emberd_protocol::{ElementType, QuantizationRanges};

/// The values of rows of `columns` elements each.
///
/// A quantised number is scaled by its column's range. A bit is the sign of a value: 1 if the value
/// was above 0, else -1. What the elements cannot represent is lost.
pub(super) fn decoded(
    bytes: &[u8],
    columns: usize,
    element: ElementType,
    ranges: Option<&QuantizationRanges>,
) -> Vec<f32> {
    match element {
        ElementType::F32 => {
            bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
        }
        ElementType::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|value| widened(u16::from_le_bytes(*value)))
            .collect(),
        ElementType::U8 => dequantized(bytes, ranges, f32::from),
        ElementType::I8 => dequantized(bytes, ranges, |byte| f32::from(byte.cast_signed()) + 128.0),
        ElementType::Ubinary => signs(bytes, columns, 0),
        ElementType::Binary => signs(bytes, columns, 128),
    }
}

/// Quantised numbers, scaled by their column's range.
fn dequantized(
    bytes: &[u8],
    ranges: Option<&QuantizationRanges>,
    steps_from_start: impl Fn(u8) -> f32,
) -> Vec<f32> {
    let scales = ranges.into_iter().flat_map(|ranges| ranges.starts.iter().zip(&ranges.steps));
    // Rows are complete, so cycling through the columns stays in step with them.
    let scales = scales.cycle();
    let value = |(&byte, (start, step)): (&u8, (&f32, &f32))| start + step * steps_from_start(byte);
    bytes.iter().zip(scales).map(value).collect()
}

/// Packed bits as 1 and -1. `offset` is added to each byte first: signed bytes are stored less 128.
fn signs(bytes: &[u8], columns: usize, offset: u8) -> Vec<f32> {
    let row = columns.div_ceil(8).max(1);
    let bit = |row: &[u8], at: usize| row[at / 8].wrapping_add(offset) >> (7 - at % 8) & 1 == 1;
    let sign = |is_set| if is_set { 1.0 } else { -1.0 };
    bytes.chunks_exact(row).flat_map(|row| (0..columns).map(move |at| sign(bit(row, at)))).collect()
}

/// A 16-bit float as one of 32 bits, exactly.
fn widened(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7FFF);
    let bits = match magnitude {
        // Zero and subnormal numbers: multiples of 2^-24.
        0..0x0400 => {
            #[expect(clippy::cast_precision_loss, reason = "ten bits")]
            let value = magnitude as f32 / 16_777_216.0;
            value.to_bits()
        }
        0x0400..0x7C00 => (magnitude << 13) + ((127 - 15) << 23),
        // Infinity and NaN.
        _ => 0x7F80_0000 | (magnitude & 0x03FF) << 13,
    };
    f32::from_bits(sign | bits)
}

#[cfg(test)]
mod tests {
    use super::decoded;
    use emberd_protocol::{ElementType, QuantizationRanges};

    #[test]
    fn halves_are_widened_exactly() {
        for (half, wide) in [
            (0x0000u16, 0.0f32),
            (0x8000, -0.0),
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 5.960_464_5e-8),
            (0x83FF, -6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7BFF, 65504.0),
            (0x7C00, f32::INFINITY),
            (0xFC00, f32::NEG_INFINITY),
        ] {
            let values = decoded(&half.to_le_bytes(), 1, ElementType::F16, None);
            assert_eq!(values[0].to_bits(), wide.to_bits(), "{half:#06x}");
        }
        assert!(decoded(&0x7E00u16.to_le_bytes(), 1, ElementType::F16, None)[0].is_nan());
    }

    #[test]
    fn quantised_numbers_stand_for_what_their_column_says() {
        let ranges = QuantizationRanges { starts: vec![-1.0, 5.0], steps: vec![0.5, 2.0] };
        let bytes = [0, 1, 4, 255];
        let values = decoded(&bytes, 2, ElementType::U8, Some(&ranges));
        assert_eq!(values, [-1.0, 7.0, 1.0, 515.0]);
        let signed = bytes.map(|byte: u8| byte.wrapping_sub(128));
        assert_eq!(decoded(&signed, 2, ElementType::I8, Some(&ranges)), values);
    }

    #[test]
    fn bits_stand_for_signs() {
        let bytes = [0b1000_0001, 0b0100_0000];
        let values = decoded(&bytes, 8, ElementType::Ubinary, None);
        assert_eq!(values[..8], [1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0]);
        assert_eq!(values[8..10], [-1.0, 1.0]);
        let signed = bytes.map(|byte: u8| byte.wrapping_sub(128));
        assert_eq!(decoded(&signed, 8, ElementType::Binary, None), values);
    }
}
