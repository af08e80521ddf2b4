//! NumPy's array format, version 1.0, as documented in `numpy.lib.format`.

/// The header of an array of `rows` × `columns` little-endian elements in row order. `dtype` is NumPy's
/// name of the element type, such as `<f4`.
pub(super) fn header(dtype: &str, rows: usize, columns: usize) -> Vec<u8> {
    const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
    /// The offset of the array is a multiple of this.
    const ALIGNMENT: usize = 64;
    let mut text =
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let unpadded = MAGIC.len() + 2 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    text.push('\n');
    let len = u16::try_from(text.len()).expect("two numbers make a short header");
    [MAGIC, &len.to_le_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_array_begins_aligned_and_the_header_says_its_own_length() {
        for (rows, columns) in [(0, 0), (1, 384), (1_000_000, 1024), (usize::MAX, usize::MAX)] {
            let header = super::header("<f4", rows, columns);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
            let len = usize::from(u16::from_le_bytes([header[8], header[9]]));
            assert_eq!(header.len(), 10 + len);
            let text = String::from_utf8(header[10..].to_vec()).unwrap();
            assert!(text.contains(&format!("'shape': ({rows}, {columns})")), "{text}");
        }
    }
}
