//! Products with a matrix packed in panels: the kernel below every layer on the CPU.
//!
//! A panel holds [`PANEL`] columns of the right-hand matrix, row after row, so that the inner loop
//! reads it straight through; the last panel is filled up with zeros. Weights are packed once, when
//! they are loaded. The left-hand rows are used where they lie. A general GEMM packs both sides
//! anew at each call, which for short texts costs more than the product itself.
//!
//! One thread; [`pulp`] chooses the registers at run time. What is multiplied next is asked for ahead
//! ([`crate::kernels::prefetch`]): with several rows the processor does not get there by itself. Panels of 16-bit
//! numbers are widened one at a time, into memory that each thread keeps for it. Left-hand rows that
//! would get in each other's way in the first-level cache are copied there, too.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use pulp::{Arch, Simd, WithSimd};

use crate::kernels::prefetch::prefetch;
use crate::layers::activation::Epilogue;

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;

/// How many rows of a panel ahead of the one that is multiplied the next ones are asked for.
const AHEAD: usize = 64;

/// Left-hand rows that stay in the second-level cache while all panels pass by.
pub(crate) const ROWS_AT_ONCE: usize = 96;

/// Values that a packed matrix of this size takes.
pub(crate) fn packed_len(depth: usize, columns: usize) -> usize {
    columns.next_multiple_of(PANEL) * depth
}

/// Packs the transpose of a row-major matrix: its row `r` becomes column `first_column + r`.
///
/// A row starts every `stride` values and has `depth` of them. This is how a linear layer's weights
/// are stored (`[outputs, inputs]`), and how keys meet queries.
pub(crate) fn pack_transposed(
    matrix: &[f32],
    stride: usize,
    depth: usize,
    first_column: usize,
    panels: &mut [f32],
) {
    for (column, row) in (first_column..).zip(matrix.chunks(stride)) {
        let panel = &mut panels[column / PANEL * PANEL * depth..][..PANEL * depth];
        for (slot, &value) in panel[column % PANEL..].iter_mut().step_by(PANEL).zip(&row[..depth]) {
            *slot = value;
        }
    }
}

/// What [`pack_transposed`] has packed, as rows one after the other again.
pub(crate) fn unpack_transposed(panels: &[f32], depth: usize, columns: usize) -> Vec<f32> {
    let mut rows = Vec::with_capacity(columns * depth);
    for column in 0..columns {
        let panel = &panels[column / PANEL * PANEL * depth..][..PANEL * depth];
        rows.extend(panel[column % PANEL..].iter().step_by(PANEL));
    }
    rows
}

/// Packs a row-major matrix as it is: its row `r` becomes row `r` of each panel.
pub(crate) fn pack_rows(matrix: &[f32], stride: usize, columns: usize, panels: &mut [f32]) {
    let depth = matrix.len().div_ceil(stride);
    for (p, first) in (0..columns).step_by(PANEL).enumerate() {
        let width = PANEL.min(columns - first);
        let panel = &mut panels[p * PANEL * depth..][..PANEL * depth];
        for (slots, row) in panel.chunks_exact_mut(PANEL).zip(matrix.chunks(stride)) {
            slots[..width].copy_from_slice(&row[first..first + width]);
            slots[width..].fill(0.0);
        }
    }
}

/// Where a packed matrix lies, and as what.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Panels<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

impl Panels<'_> {
    fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// Lines of the first-level cache that can hold the same part of a page, on the processors that have
/// the fewest. Rows that begin a whole number of pages apart compete for them.
const WAYS: usize = 8;

/// Values of the smallest page.
const PAGE: usize = 4096 / size_of::<f32>();

/// Values that a copied row is longer, so that the next one begins at another line.
const APART: usize = 16;

/// What a thread keeps for its products.
#[derive(Debug, Default)]
struct Room {
    /// The panel of 16-bit numbers that is multiplied with, as 32-bit ones.
    wide: Vec<f32>,
    /// Left-hand rows, at distances that fit the cache.
    apart: Vec<f32>,
}

thread_local! {
    static ROOM: RefCell<Room> = const { RefCell::new(Room { wide: Vec::new(), apart: Vec::new() }) };
}

/// Widens numbers, exactly.
#[inline(always)]
fn widen(narrow: &[bf16], wide: &mut [f32]) {
    for (wide, narrow) in wide.iter_mut().zip(narrow) {
        *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
    }
}

/// `rows · panels + bias`, one product to compute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    /// The left-hand matrix, from its first value to at least its last.
    pub(crate) rows: &'a [f32],
    /// Values from the start of one left-hand row to the next.
    pub(crate) row_stride: usize,
    /// Left-hand rows.
    pub(crate) count: usize,
    /// Values of a left-hand row that are used, and rows of a panel.
    pub(crate) depth: usize,
    /// The right-hand matrix, packed. It may go on: what lies behind it is asked for ahead, too.
    pub(crate) panels: Panels<'a>,
    /// Columns of the right-hand matrix, without the filling of the last panel.
    pub(crate) columns: usize,
    /// Added to each row of the result; as long as `columns`.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Product<'_> {
    /// Computes the product into `out`, whose rows start every `out_stride` values.
    ///
    /// # Panics
    /// When a slice is shorter than the sizes say.
    pub(crate) fn write<E: Epilogue>(self, out: &mut [f32], out_stride: usize, epilogue: E) {
        // The kernel indexes with these sizes; failing here names the caller's mistake.
        assert!(self.depth <= self.row_stride && self.columns <= out_stride);
        assert!(self.panels.len() >= packed_len(self.depth, self.columns));
        assert!(self.bias.is_none_or(|bias| bias.len() == self.columns));
        ROOM.with_borrow_mut(|room| {
            Arch::new().dispatch(Kernel { product: self, out, out_stride, epilogue, room });
        });
    }
}

impl<'a> Product<'a> {
    /// Some of the left-hand rows, and the distance between them: where they lie, or a copy.
    #[inline(always)]
    fn rows_at<const R: usize>(
        self,
        range: Range<usize>,
        apart: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        let Self { row_stride, depth, columns, .. } = self;
        let rows = &self.rows[range.start * row_stride..];
        let height = range.len().div_ceil(range.len().div_ceil(R));
        let compete = height > WAYS && row_stride.is_multiple_of(PAGE);
        // A single panel is multiplied in the time of the copy.
        if !compete || columns <= PANEL {
            return (rows, row_stride);
        }
        let stride = depth + APART;
        apart.resize(range.len() * stride, 0.0);
        for (copy, row) in apart.chunks_exact_mut(stride).zip(rows.chunks(row_stride)) {
            copy[..depth].copy_from_slice(&row[..depth]);
        }
        (apart, stride)
    }
}

struct Kernel<'a, E> {
    product: Product<'a>,
    out: &'a mut [f32],
    out_stride: usize,
    epilogue: E,
    room: &'a mut Room,
}

impl<E: Epilogue> WithSimd for Kernel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Accumulators take three quarters of the registers: 12 x 2 of 32 (AVX-512), 3 x 4 of 16
        // (AVX2), 3 x 8 of 32 (NEON). The last is for machines without vectors.
        match S::F32_LANES {
            16 => self.run::<S, 12, 2>(simd),
            8 => self.run::<S, 3, 4>(simd),
            4 => self.run::<S, 3, 8>(simd),
            _ => self.run_scalar(),
        }
    }
}

impl<E: Epilogue> Kernel<'_, E> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let Product { count, depth, panels, columns, bias, .. } = self.product;
        let Room { wide, apart } = self.room;
        let mut tile = [[0.0; PANEL]; R];
        for from in (0..count).step_by(ROWS_AT_ONCE) {
            let chunk = ROWS_AT_ONCE.min(count - from);
            let (rows, row_stride) = self.product.rows_at::<R>(from..from + chunk, apart);
            for first in (0..columns).step_by(PANEL) {
                let width = PANEL.min(columns - first);
                // What lies behind the panel is what is read next.
                let ahead = match panels {
                    Panels::F32(panels) => &panels[first * depth..],
                    Panels::Bf16(_) => &[],
                };
                let panel = match panels {
                    Panels::F32(panels) => &panels[first * depth..][..PANEL * depth],
                    Panels::Bf16(panels) => {
                        wide.resize(PANEL * depth, 0.0);
                        widen(&panels[first * depth..][..PANEL * depth], wide);
                        &wide[..]
                    }
                };
                let mut start = [0.0; PANEL];
                if let Some(bias) = bias {
                    start[..width].copy_from_slice(&bias[first..first + width]);
                }
                // Blocks of even height: 13 rows are done as 7 and 6, not as 12 and 1, because a
                // low block waits for its own additions.
                let blocks = chunk.div_ceil(R);
                let mut row = 0;
                for block in 0..blocks {
                    let height = (chunk * (block + 1)) / blocks - (chunk * block) / blocks;
                    let left =
                        Left { values: &rows[row * row_stride..], stride: row_stride, depth };
                    let out = &mut self.out[(from + row) * self.out_stride + first..];
                    fill_tile::<S, R, V>(simd, left, panel, ahead, &start, &mut tile[..height]);
                    for (r, line) in tile[..height].iter_mut().enumerate() {
                        for x in line.iter_mut() {
                            *x = self.epilogue.apply(*x);
                        }
                        let out = &mut out[r * self.out_stride..][..width];
                        // Of a length that is known: two stores, where there would be a call.
                        match out.as_mut_array::<PANEL>() {
                            Some(out) => *out = *line,
                            None => out.copy_from_slice(&line[..width]),
                        }
                    }
                    row += height;
                }
            }
        }
    }
}

/// The left-hand rows of a tile.
#[derive(Clone, Copy)]
struct Left<'a> {
    values: &'a [f32],
    stride: usize,
    depth: usize,
}

/// Computes a tile as high as `tile` is, by the kernel compiled for exactly that height.
#[inline(always)]
fn fill_tile<S: Simd, const R: usize, const V: usize>(
    simd: S,
    left: Left<'_>,
    panel: &[f32],
    ahead: &[f32],
    start: &[f32; PANEL],
    tile: &mut [[f32; PANEL]],
) {
    macro_rules! by_height {
        ($($height:literal)*) => {
            match tile.len() {
                $($height if $height <= R => accumulate::<S, $height, V>(simd, left, panel, ahead, start, tile),)*
                _ => {}
            }
        };
    }
    by_height!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[inline(always)]
fn accumulate<S: Simd, const H: usize, const V: usize>(
    simd: S,
    left: Left<'_>,
    panel: &[f32],
    ahead: &[f32],
    start: &[f32; PANEL],
    tile: &mut [[f32; PANEL]],
) {
    let depth = left.depth;
    let rows: [&[f32]; H] = std::array::from_fn(|r| &left.values[r * left.stride..][..depth]);
    let (vectors, _) = S::as_simd_f32s(panel);
    let (start, _) = S::as_simd_f32s(start);
    let mut sums: [[S::f32s; V]; H] = [std::array::from_fn(|v| start[v]); H];
    for (k, b) in (0..depth).zip(vectors.chunks_exact(V)) {
        prefetch(ahead, (k + AHEAD) * PANEL, PANEL);
        for (sums, row) in sums.iter_mut().zip(rows) {
            let a = simd.splat_f32s(row[k]);
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_e_f32s(a, b, *sum);
            }
        }
    }
    for (line, sums) in tile.iter_mut().zip(sums) {
        let (line, _) = S::as_mut_simd_f32s(line);
        line.copy_from_slice(&sums);
    }
}

impl<E: Epilogue> Kernel<'_, E> {
    fn run_scalar(self) {
        let Product { rows, row_stride, count, depth, panels, columns, bias } = self.product;
        for r in 0..count {
            let row = &rows[r * row_stride..][..depth];
            for c in 0..columns {
                let first = c / PANEL * PANEL * depth + c % PANEL;
                let weight = |k: usize| match panels {
                    Panels::F32(panels) => panels[first + k * PANEL],
                    Panels::Bf16(panels) => panels[first + k * PANEL].to_f32(),
                };
                let start = bias.map_or(0.0, |bias| bias[c]);
                let terms = row.iter().enumerate().map(|(k, a)| a * weight(k));
                let sum = terms.fold(start, |sum, term| sum + term);
                self.out[r * self.out_stride + c] = self.epilogue.apply(sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulp::{Scalar, Scalar128b, Scalar256b, Scalar512b, Simd};

    use super::{
        Kernel, PAGE, Panels, Product, Room, pack_rows, pack_transposed, packed_len,
        unpack_transposed,
    };
    use crate::layers::activation::{Plain, Relu};

    fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 - 0.5
        };
        (0..len).map(|_| next()).collect()
    }

    /// Every height of a block, widths around a panel, and rows that lie apart: by a little, and by
    /// a page, where they are copied.
    #[test]
    fn product_equals_the_sum_of_products_for_all_edge_sizes() {
        for count in (1..27).chain([95, 96, 97, 200]) {
            for (depth, columns, apart) in [
                (1, 1, 3),
                (32, 31, 3),
                (7, 32, 3),
                (33, 33, 3),
                (50, 100, 3),
                (50, 100, PAGE - 50),
            ] {
                let (row_stride, out_stride) = (depth + apart, columns + 5);
                let rows = noise(count * row_stride, 1);
                let weights = noise(columns * depth, 2);
                let bias = noise(columns, 3);
                let mut panels = vec![0.0; packed_len(depth, columns)];
                pack_transposed(&weights, depth, depth, 0, &mut panels);
                let product = Product {
                    rows: &rows,
                    row_stride,
                    count,
                    depth,
                    panels: Panels::F32(&panels),
                    columns,
                    bias: Some(&bias),
                };
                let mut fast = vec![9.0; count * out_stride];
                product.write(&mut fast, out_stride, Relu);
                // The other register widths, which this machine's dispatch would not choose.
                let at_width = |run: fn(Kernel<'_, Relu>)| {
                    let mut out = vec![9.0; count * out_stride];
                    let room = &mut Room::default();
                    run(Kernel { product, out: &mut out, out_stride, epilogue: Relu, room });
                    out
                };
                let results = [
                    fast,
                    at_width(|kernel| Scalar.vectorize(kernel)),
                    at_width(|kernel| Scalar128b.vectorize(kernel)),
                    at_width(|kernel| Scalar256b.vectorize(kernel)),
                    at_width(|kernel| Scalar512b.vectorize(kernel)),
                ];
                for r in 0..count {
                    for c in 0..columns {
                        let want: f64 = (0..depth)
                            .map(|k| {
                                f64::from(rows[r * row_stride + k])
                                    * f64::from(weights[c * depth + k])
                            })
                            .sum::<f64>()
                            + f64::from(bias[c]);
                        for got in results.each_ref().map(|out| out[r * out_stride + c]) {
                            assert!(
                                (f64::from(got) - want.max(0.0)).abs() < 1e-5,
                                "{count}x{depth}x{columns} at {r},{c}: {got} is not {want}"
                            );
                        }
                    }
                    let gap = r * out_stride + columns..(r + 1) * out_stride;
                    for out in &results {
                        assert!(out[gap.clone()].iter().all(|&x| x == 9.0), "wrote beyond a row");
                    }
                }
            }
        }
    }

    #[test]
    fn packing_rows_is_packing_the_transpose_the_other_way() {
        let (depth, columns, stride) = (5, 45, 50);
        let matrix = noise((depth - 1) * stride + columns, 4);
        let transposed: Vec<f32> = (0..columns)
            .flat_map(|c| (0..depth).map(move |k| (c, k)))
            .map(|(c, k)| matrix[k * stride + c])
            .collect();
        let mut by_rows = vec![7.0; packed_len(depth, columns)];
        pack_rows(&matrix, stride, columns, &mut by_rows);
        let mut by_columns = vec![0.0; packed_len(depth, columns)];
        pack_transposed(&transposed, depth, depth, 0, &mut by_columns);
        assert_eq!(by_rows, by_columns);
        assert_eq!(unpack_transposed(&by_columns, depth, columns), transposed);
    }

    #[test]
    #[should_panic(expected = "packed_len")]
    fn too_few_panels_are_refused() {
        let product = Product {
            rows: &[1.0],
            row_stride: 1,
            count: 1,
            depth: 1,
            panels: Panels::F32(&[1.0]),
            columns: 1,
            bias: None,
        };
        product.write(&mut [0.0], 1, Plain);
    }
}
