use pulp::{Scalar, Scalar128b, Scalar256b, Scalar512b, Simd};

use super::{Kernel, PAGE, Product, ProductScratch};
use crate::kernels::epilogue::{Epilogue, Plain};
use crate::kernels::panels::{Panels, pack_transposed, packed_len};
use crate::kernels::tests::noise;

#[derive(Debug, Clone, Copy)]
struct Relu;

impl Epilogue for Relu {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        x.max(0.0)
    }
}

/// Every height of a block, widths around a panel, and two gaps between rows: a small one, and one
/// of a page, with which rows are copied.
#[test]
fn product_equals_the_sum_of_products_for_all_edge_sizes() {
    for count in (1..27).chain([95, 96, 97, 200]) {
        for (depth, columns, gap) in
            [(1, 1, 3), (32, 31, 3), (7, 32, 3), (33, 33, 3), (50, 100, 3), (50, 100, PAGE - 50)]
        {
            let (row_stride, out_stride) = (depth + gap, columns + 5);
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
            // The register widths that dispatch would not choose on this machine.
            let at_width = |run: fn(Kernel<'_, Relu>)| {
                let mut out = vec![9.0; count * out_stride];
                let scratch = &mut ProductScratch::default();
                run(Kernel { product, out: &mut out, out_stride, epilogue: Relu, scratch });
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
                            f64::from(rows[r * row_stride + k]) * f64::from(weights[c * depth + k])
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
