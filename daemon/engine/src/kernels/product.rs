//! Matrix products: the kernel below every layer on the CPU.
//!
//! The right-hand matrix is packed in panels ([`crate::kernels::panels`]). Weights are packed once, when
//! they are loaded; the left-hand rows are used in place. A general GEMM packs both sides at each call,
//! which for short texts costs more than the product itself.
//!
//! A product runs on one thread; [`pulp`] chooses the vector registers at run time. The next panel is
//! prefetched ([`crate::kernels::prefetch`]): with several rows the hardware does not get there by
//! itself. Panels of 16-bit numbers are widened one at a time, into scratch memory of the thread.
//! Left-hand rows that would compete for the same lines of the first-level cache are copied there, too.

use std::cell::RefCell;
use std::ops::Range;

use half::bf16;
use pulp::{Arch, Simd, WithSimd};

use crate::kernels::epilogue::Epilogue;
use crate::kernels::panels::{PANEL, Panels, packed_len};
use crate::kernels::prefetch::prefetch;

/// A product to compute: `rows · panels + bias`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a> {
    /// The left-hand matrix, from its first value to at least its last.
    pub(crate) rows: &'a [f32],
    /// Values from the start of one left-hand row to the next.
    pub(crate) row_stride: usize,
    /// The number of left-hand rows.
    pub(crate) count: usize,
    /// Values used of each left-hand row; also the rows of a panel.
    pub(crate) depth: usize,
    /// The right-hand matrix, packed. The slice may be longer: what follows the matrix is prefetched.
    pub(crate) panels: Panels<'a>,
    /// Columns of the right-hand matrix, without the padding of the last panel.
    pub(crate) columns: usize,
    /// Added to each row of the result; as long as `columns`.
    pub(crate) bias: Option<&'a [f32]>,
}

impl Product<'_> {
    /// Computes the product into `out`, whose rows start every `out_stride` values.
    ///
    /// # Panics
    /// If a slice is shorter than the sizes require.
    pub(crate) fn write<E: Epilogue>(self, out: &mut [f32], out_stride: usize, epilogue: E) {
        // The kernel indexes with these sizes; failing here names the caller's mistake.
        assert!(self.depth <= self.row_stride && self.columns <= out_stride);
        assert!(self.panels.len() >= packed_len(self.depth, self.columns));
        assert!(self.bias.is_none_or(|bias| bias.len() == self.columns));
        SCRATCH.with_borrow_mut(|scratch| {
            Arch::new().dispatch(Kernel { product: self, out, out_stride, epilogue, scratch });
        });
    }
}

/// Left-hand rows that stay in the second-level cache while all panels pass by.
pub(crate) const ROWS_AT_ONCE: usize = 96;

thread_local! {
    static SCRATCH: RefCell<ProductScratch> =
        const { RefCell::new(ProductScratch { wide: Vec::new(), strided: Vec::new() }) };
}

impl<'a> Product<'a> {
    /// Some of the left-hand rows with their stride: in place, or a copy.
    #[inline(always)]
    fn rows_at<const R: usize>(
        self,
        range: Range<usize>,
        strided: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        let Self { row_stride, depth, columns, .. } = self;
        let rows = &self.rows[range.start * row_stride..];
        let height = range.len().div_ceil(range.len().div_ceil(R));
        let compete = height > WAYS && row_stride.is_multiple_of(PAGE);
        // Multiplying a single panel takes no longer than the copy.
        if !compete || columns <= PANEL {
            return (rows, row_stride);
        }
        let stride = depth + GAP;
        strided.resize(range.len() * stride, 0.0);
        for (copy, row) in strided.chunks_exact_mut(stride).zip(rows.chunks(row_stride)) {
            copy[..depth].copy_from_slice(&row[..depth]);
        }
        (strided, stride)
    }
}

/// How many rows of a panel lie between the one that is multiplied and the one that is prefetched.
const AHEAD: usize = 64;

/// The associativity of the first-level cache, on the processors where it is lowest. Rows that begin a
/// whole number of pages apart compete for this many lines.
const WAYS: usize = 8;

/// Values of the smallest page.
const PAGE: usize = 4096 / size_of::<f32>();

/// Values between two copied rows, so that each begins at another cache line.
const GAP: usize = 16;

/// Memory that a thread keeps for its products.
#[derive(Debug, Default)]
struct ProductScratch {
    /// The panel of 16-bit numbers that is multiplied, widened to 32 bits.
    wide: Vec<f32>,
    /// Copies of left-hand rows, with a stride that suits the cache.
    strided: Vec<f32>,
}

struct Kernel<'a, E> {
    product: Product<'a>,
    out: &'a mut [f32],
    out_stride: usize,
    epilogue: E,
    scratch: &'a mut ProductScratch,
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
        let ProductScratch { wide, strided } = self.scratch;
        let mut tile = [[0.0; PANEL]; R];
        for from in (0..count).step_by(ROWS_AT_ONCE) {
            let chunk = ROWS_AT_ONCE.min(count - from);
            let (rows, row_stride) = self.product.rows_at::<R>(from..from + chunk, strided);
            for first in (0..columns).step_by(PANEL) {
                let width = PANEL.min(columns - first);
                // The values behind the panel are multiplied next.
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
                        // With a constant length this is two stores instead of a call.
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

/// Computes a tile with the kernel that was compiled for its height.
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

/// Widens numbers, exactly.
#[inline(always)]
fn widen(narrow: &[bf16], wide: &mut [f32]) {
    for (wide, narrow) in wide.iter_mut().zip(narrow) {
        *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
    }
}

#[cfg(test)]
mod tests;
