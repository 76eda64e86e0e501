//! Laws of products in tiles of f16: they are those in tiles of f32, to the bit, for operands of any size.
//!
//! In f64 it is told what they must be; without f16 it is told what nobody may notice.

use super::portable::launcher_with;
use super::rounding::{bf16_product, numbers};
use super::*;
use crate::dfdx_engine::tests::distance;
use crate::gpu::launcher::{Launcher as _, Numbers};
use crate::gpu::memory::Device as Memory;
use crate::gpu::product::{plainly, product, product_of_rows};

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];

/// A GPU with f16, and the same without; says so where there is none.
fn with_and_without() -> Option<[Rc<Memory>; 2]> {
    let with = launcher_with(true)?;
    if !with.has_f16() {
        skipped("what plays a GPU here has no f16");
        return None;
    }
    Some([Memory::new(with), Memory::new(launcher_with(false)?)])
}

fn times(x: &[f32], by: f64) -> Vec<f32> {
    x.iter().map(|&x| (f64::from(x) * by) as f32).collect()
}

/// A sum of a product in f64, and how far another may be from it.
struct Sum {
    exact: f64,
    bound: f64,
}

/// Of each operand 2^-40 of its largest may be lost, and what f32 loses.
fn sums(layout: Layout, (a, b): (&[f32], &[f32]), shape: Shape) -> Vec<Sum> {
    let k = shape.2;
    let rounded = |x: &f32| f64::from(half::bf16::from_f32(*x).to_f32());
    let [a, b] = [a, b].map(|x| x.iter().map(rounded).collect::<Vec<f64>>());
    let [a_top, b_top] = [&a, &b].map(|x| x.iter().fold(0.0, |top: f64, x| top.max(x.abs())));
    let sum = |products: Vec<f64>| {
        let magnitudes: f64 = products.iter().map(|x| x.abs()).sum();
        let lost = k as f64 * a_top * b_top * 2.0_f64.powi(-39);
        Sum {
            exact: products.iter().sum(),
            bound: lost + magnitudes * k as f64 * 2.0_f64.powi(-24),
        }
    };
    products(layout, (&a, &b), shape).map(sum).collect()
}

/// The product, each sum of which is held to its bound.
#[track_caller]
fn held(device: &Rc<Memory>, layout: Layout, operands: (&[f32], &[f32]), shape: Shape) -> Vec<f32> {
    let found = bf16_product(device, layout, operands, shape);
    for (at, (found, sum)) in found.iter().zip(sums(layout, operands, shape)).enumerate() {
        let off = (f64::from(*found) - sum.exact).abs();
        // What is smaller than any f32 may come out as nothing.
        let bound = sum.bound + f64::from(f32::MIN_POSITIVE);
        assert!(
            off <= bound,
            "{layout:?} {shape:?} at {at}: {found:e} for {:e}, bound {bound:e}",
            sum.exact
        );
    }
    found
}

#[test]
fn tiles_of_f16_change_no_bit_however_operands_lie_and_sums_are_cut() {
    let Some([with, without]) = with_and_without() else {
        return;
    };
    // Tiles that are not full, and sums that are cut into four; of 33 the last tile holds one.
    for shape in [(70, 130, 100), (5, 3, 33), (66, 65, 1100)] {
        let (m, n, k) = shape;
        let (a, b) = (numbers(m * k, 1), numbers(n * k, 2));
        for layout in LAYOUTS {
            let found = held(&with, layout, (&a, &b), shape);
            let plain = bf16_product(&without, layout, (&a, &b), shape);
            assert!(found == plain, "{layout:?}, {shape:?}");
        }
    }
}

#[test]
fn operands_of_any_size_are_multiplied_as_if_they_were_near_one() {
    let Some([device, _]) = with_and_without() else {
        return;
    };
    let shape = (7, 9, 70);
    let (a, b) = (numbers(7 * 70, 3), numbers(9 * 70, 4));
    let plain = bf16_product(&device, Layout::Nt, (&a, &b), shape);
    // Powers of two, so that the numbers stay the same; -66 and -50 are more than one step back.
    for (of_a, of_b) in [
        (-66, 0),
        (66, -66),
        (-66, -50),
        (66, 50),
        (127, -99),
        (-99, 127),
    ] {
        let power = |shift: i32| 2.0_f64.powi(shift);
        let (a, b) = (times(&a, power(of_a)), times(&b, power(of_b)));
        let found = bf16_product(&device, Layout::Nt, (&a, &b), shape);
        assert!(found == times(&plain, power(of_a + of_b)), "{of_a}, {of_b}");
    }
    for (of_a, of_b) in [(1e-20, 1e20), (1e20, 1e17), (1e-20, 1e-17), (1e-30, 1e25)] {
        let (a, b) = (times(&a, of_a), times(&b, of_b));
        held(&device, Layout::Tn, (&a, &b), shape);
    }
}

#[test]
fn beside_each_other_numbers_lose_what_is_nothing_beside_the_largest() {
    let Some([device, _]) = with_and_without() else {
        return;
    };
    let (m, n, k) = (20, 30, 64);
    let mixed = |n: usize, seed: usize| -> Vec<f32> {
        let sizes = [1.0, 1e-3, 1e-6, 1e-9, 1e-20, 0.0];
        let all = numbers(n, seed as u64).into_iter().enumerate();
        all.map(|(i, x)| x * sizes[(i / 3 + seed) % 6]).collect()
    };
    for layout in LAYOUTS {
        // 1e20 and 1e-20 of one operand, 1 and 1e-40 of the other.
        let (a, b) = (times(&mixed(m * k, 5), 1e20), mixed(n * k, 6));
        held(&device, layout, (&a, &b), (m, n, k));
    }
    // A row of small numbers is as exact as the others: 1e-9 is more than 2^-32.
    let (mut a, b) = (numbers(m * k, 7), numbers(n * k, 8));
    a[..k].iter_mut().for_each(|x| *x = x.signum() * 1e-9);
    let found = bf16_product(&device, Layout::Nt, (&a, &b), (m, n, k));
    let exact = sums(Layout::Nt, (&a, &b), (m, n, k));
    let exact: Vec<f32> = exact.iter().map(|sum| sum.exact as f32).collect();
    assert!(distance(&times(&exact[..n], 1e9), &times(&found[..n], 1e9)) < 1e-6);
}

#[test]
fn the_largest_is_found_wherever_it_stands() {
    let Some([device, _]) = with_and_without() else {
        return;
    };
    // More numbers than there are threads that look at one each. The largest is 2 once it is rounded.
    let (n, largest) = (40_000, f32::from_bits(0x3fff_ffff));
    for at in [0, 255, 256, 16_384, 32_767, 32_768, n - 1] {
        let (mut a, b) = (vec![1e-4; n], vec![1.0; n]);
        a[at] = largest;
        held(&device, Layout::Nt, (&a, &b), (1, 1, n));
        held(&device, Layout::Nn, (&b, &a), (1, 1, n));
    }
}

#[test]
fn nothing_times_anything_is_nothing() {
    let Some([device, _]) = with_and_without() else {
        return;
    };
    let (zeros, large) = (vec![0.0; 5 * 40], times(&numbers(6 * 40, 1), 1e38));
    for (a, b, shape) in [(&zeros, &large, (5, 6, 40)), (&large, &zeros, (6, 5, 40))] {
        let found = bf16_product(&device, Layout::Nt, (a, b), shape);
        assert!(found.iter().all(|&x| x == 0.0), "{found:?}");
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let Some([device, _]) = with_and_without() else {
        return;
    };
    let shape = (3, 4, 40);
    // The last of them is too large for a bf16.
    for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        for (row, is_left) in [(0, true), (2, true), (0, false), (3, false)] {
            let (mut a, mut b) = (numbers(3 * 40, 7), numbers(4 * 40, 8));
            let of = if is_left { &mut a } else { &mut b };
            of[row * 40 + 11] = strange;
            let found = bf16_product(&device, Layout::Nt, (&a, &b), shape);
            for (found, sum) in found.iter().zip(sums(Layout::Nt, (&a, &b), shape)) {
                let is_told = sum.exact.is_finite() || !found.is_finite();
                assert!(is_told, "{strange} in row {row}: {found}");
            }
        }
    }
}

fn engine(f16: bool, config: &ModelConfig, settings: &EngineSettings) -> GpuEngine {
    let what = (config.clone(), settings.clone());
    let mut engine = GpuEngine::on(launcher_with(f16).unwrap(), Device::Gpu, what, 3).unwrap();
    engine.load_weights(&stirred(&engine)).unwrap();
    engine
}

#[test]
fn a_training_in_bf16_learns_the_same_with_f16_and_without() {
    if with_and_without().is_none() {
        return;
    }
    for (name, config) in configs() {
        let settings = EngineSettings {
            precision: Precision::Bf16,
            ..with_everything()
        };
        let of = |f16| gradients(&mut engine(f16, &config, &settings), &packed(3, 12, 1));
        let (with, without) = (of(true), of(false));
        assert!(with.0.nll == without.0.nll && with.1 == without.1, "{name}");
    }
}

#[test]
fn f32_and_rows_that_are_read_take_no_tiles_of_f16() {
    let Some([with, without]) = with_and_without() else {
        return;
    };
    // A number that a tile of f16 has no place for beside the first.
    let (a, b) = ([1.0, 1e-14], [0.0, 1.0]);
    let made = |device: &Rc<Memory>, precision, of_rows: bool| {
        let [a, b] = [a, b].map(|x| device.upload(Numbers::F32(&x)).unwrap());
        let out = device.floats(1).unwrap();
        let (operands, shape, after) = ((out.at(), a.at(), b.at()), (1, 1, 2), plainly(false));
        match of_rows {
            true => product_of_rows(device, operands, shape, precision, after),
            false => product(device, Layout::Nt, operands, shape, precision, after),
        }
        .unwrap();
        device.floats_of(&out, 1).unwrap()[0]
    };
    for (precision, of_rows) in [
        (Precision::F32, false),
        (Precision::F32, true),
        (Precision::Bf16, true),
    ] {
        let found = made(&with, precision, of_rows);
        assert!(found > 0.0 && found == made(&without, precision, of_rows));
    }
    assert_eq!(made(&with, Precision::Bf16, false), 0.0);
    assert!(made(&without, Precision::Bf16, false) > 0.0);
}

#[test]
fn a_run_records_that_tiles_are_f16() {
    let Some([with, without]) = with_and_without() else {
        return;
    };
    let words = ", own products, f16 tiles to train in bf16";
    assert!(with.launcher.name().ends_with(words));
    assert!(without.launcher.name().ends_with(", own products"));
}
