//! Matrix products: one entry point, two precisions, any layout.
//!
//! Large products in f32 are the `gemm` crate's. With bf16 operands, and for attention's small
//! products, a CPU with AVX-512 uses our own panels (`panels`), which round while they pack;
//! on any other CPU, bf16 means rounded copies of the operands.
//! Either way each number of the result is a sum in an order that depends on the shapes
//! alone, so it is the same bits for any number of threads.

use gemm::Parallelism;
use rayon::prelude::*;

use super::{math::bf16_bits, scratch::Scratch, simd::ROWS, view::View};
use crate::config::Precision;

/// `out = a b`, or `out += a b` when `accumulate`; `out` is row-major, `a.rows() x b.cols()`.
/// Runs on the current rayon pool.
///
/// # Panics
/// When the shapes do not fit.
pub fn matmul(out: &mut [f32], accumulate: bool, a: View, b: View, precision: Precision) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert!(b.rows == k && out.len() == m * n, "shapes do not fit");
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if super::panels::multiply(out, accumulate, a, b, precision) {
        return;
    }
    match precision {
        // SAFETY: the shapes fit (above) and views are within their data.
        Precision::F32 => unsafe {
            let parallelism = match rayon::current_num_threads() {
                1 => Parallelism::None,
                n => Parallelism::Rayon(n),
            };
            gemm_f32(out.as_mut_ptr(), n, accumulate, a, b, parallelism);
        },
        Precision::Bf16 => {
            let (a_data, b_data) = (rounded(a), rounded(b));
            let (a, b) = (View::new(&a_data, k), View::new(&b_data, n));
            matmul(out, accumulate, a, b, Precision::F32);
        }
    }
}

/// A product of small matrices on the calling thread, `out`'s rows `stride` apart.
///
/// # Safety
/// `out` must be valid for `a.rows()` rows of `b.cols()` numbers, `stride` apart, and no
/// other thread may touch those numbers meanwhile.
pub(crate) unsafe fn multiply_local(
    out: *mut f32,
    stride: usize,
    accumulate: bool,
    a: View,
    b: View,
    precision: Precision,
    scratch: &mut Scratch,
) {
    assert_eq!(b.rows, a.cols);
    if a.rows == 0 || b.cols == 0 {
        return;
    }
    // SAFETY: the caller's promise, and views are within their data.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if super::panels::multiply_local(out, stride, accumulate, a, b, precision, scratch) {
            return;
        }
        let _ = scratch;
        match precision {
            Precision::F32 => gemm_f32(out, stride, accumulate, a, b, Parallelism::None),
            Precision::Bf16 => {
                let (a_data, b_data) = (rounded(a), rounded(b));
                let (a, b) = (View::new(&a_data, a.cols), View::new(&b_data, b.cols));
                gemm_f32(out, stride, accumulate, a, b, Parallelism::None);
            }
        }
    }
}

/// # Safety
/// `out` must be valid for `a.rows` rows of `b.cols` numbers, `stride` apart; `a.cols == b.rows`.
unsafe fn gemm_f32(
    out: *mut f32,
    stride: usize,
    accumulate: bool,
    a: View,
    b: View,
    parallelism: Parallelism,
) {
    // SAFETY: the caller's promise; a view's strides and sizes were checked against its data.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            out,
            1,
            stride as isize,
            accumulate,
            a.as_ptr(),
            a.strides.col as isize,
            a.strides.row as isize,
            b.as_ptr(),
            b.strides.col as isize,
            b.strides.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// A row-major copy of a matrix with every number rounded to bf16.
fn rounded(x: View) -> Vec<f32> {
    let mut out = vec![0.0; x.rows * x.cols];
    out.par_chunks_mut(x.cols.max(1))
        .with_min_len(ROWS)
        .enumerate()
        .for_each(|(i, row)| {
            for (j, out) in row.iter_mut().enumerate() {
                let value = x.data[i * x.strides.row + j * x.strides.col];
                *out = f32::from_bits(bf16_bits(value) << 16);
            }
        });
    out
}

#[cfg(test)]
pub(super) mod testing {
    use crate::noise::mix;

    /// Numbers from -1 to 1, others for each seed.
    pub(in crate::kernels) fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let number = |i| (mix(seed ^ mix(i as u64)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        (0..n).map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::numbers;
    use super::*;

    fn naive(out: &mut [f32], accumulate: bool, a: View, b: View, round: bool) {
        let at = |x: View, i: usize, j: usize| {
            let value = x.data[i * x.strides.row + j * x.strides.col];
            f64::from(if round {
                half::bf16::from_f32(value).to_f32()
            } else {
                value
            })
        };
        for i in 0..a.rows {
            for j in 0..b.cols {
                let sum: f64 = (0..a.cols).map(|p| at(a, i, p) * at(b, p, j)).sum();
                let out = &mut out[i * b.cols + j];
                *out = (if accumulate { f64::from(*out) } else { 0.0 } + sum) as f32;
            }
        }
    }

    /// Both precisions, all four layouts, with and without accumulation.
    fn check(m: usize, n: usize, k: usize) {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for case in 0..16 {
            let a = if case & 1 == 0 {
                View::new(&a, k)
            } else {
                View::new(&a, m).t()
            };
            let b = if case & 2 == 0 {
                View::new(&b, n)
            } else {
                View::new(&b, k).t()
            };
            let accumulate = case & 4 != 0;
            let precision = if case & 8 == 0 {
                Precision::F32
            } else {
                Precision::Bf16
            };
            let mut expected = numbers(m * n, 3);
            let mut found = expected.clone();
            let mut local = expected.clone();
            naive(
                &mut expected,
                accumulate,
                a,
                b,
                precision == Precision::Bf16,
            );
            matmul(&mut found, accumulate, a, b, precision);
            let scratch = &mut Scratch::default();
            // SAFETY: `local` has `m` rows of `n` numbers.
            unsafe {
                multiply_local(local.as_mut_ptr(), n, accumulate, a, b, precision, scratch);
            }
            let bound = 1e-6 * (k as f32 + 4.0);
            for found in [&found, &local] {
                for (found, expected) in found.iter().zip(&expected) {
                    let off = (found - expected).abs();
                    assert!(off <= bound, "{m} x {n} x {k}, case {case}: off by {off}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn products_of_any_shape_are_right(m in 1usize..70, n in 1usize..90, k in 1usize..80) {
            check(m, n, k);
        }
    }

    #[test]
    fn products_larger_than_a_block_are_right() {
        check(130, 150, 1100);
    }

    #[test]
    fn products_are_the_same_bits_for_any_number_of_threads() {
        let (m, n, k) = (500, 1030, 1100);
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for precision in [Precision::F32, Precision::Bf16] {
            let run = |n_threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(n_threads)
                    .build()
                    .unwrap();
                let mut out = vec![0.0; m * n];
                pool.install(|| {
                    matmul(
                        &mut out,
                        false,
                        View::new(&a, k),
                        View::new(&b, n),
                        precision,
                    );
                });
                out
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{precision:?}");
        }
    }

    #[test]
    #[should_panic(expected = "shapes do not fit")]
    fn a_product_of_shapes_that_do_not_fit_is_refused() {
        let x = [0.0; 6];
        matmul(
            &mut [0.0; 4],
            false,
            View::new(&x, 3),
            View::new(&x, 3),
            Precision::F32,
        );
    }
}
