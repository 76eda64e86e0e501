//! Products of cuBLASLt: through a library that plays it (`cublaslt.cpp`), and the real one where it is found.
//!
//! The laws of engines hold with its products too, in the tests that are there for all; here stands what is its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::config::ReadPrecision;
use crate::dfdx_engine::tests::distance;
use crate::engine::EngineError;
use crate::generate::{Model, tests::random_tensors};
use crate::gpu::cublaslt::{Opened, is_worth_it, started};
use crate::gpu::cuda::{self, Cuda};
use crate::gpu::emulated::library_of;
use crate::gpu::launcher::{Arg, Launcher, Numbers};
use crate::gpu::library::{SETTING, find, places};
use crate::gpu::memory::Device as Memory;
use crate::gpu::product::{plainly, product};
use crate::gpu::reader::{GpuReader, OnDevice, Read};

const PLAYED: &str = include_str!("cublaslt.cpp");

/// What plays cuBLASLt, as it stands or with something planted, compiled.
fn compiled(changes: &[(&str, &str)]) -> PathBuf {
    let text = changes
        .iter()
        .fold(PLAYED.to_owned(), |text, (right, wrong)| {
            assert!(text.contains(right), "{right}");
            text.replace(right, wrong)
        });
    library_of("cublaslt", &text).unwrap()
}

fn played(changes: &[(&str, &str)]) -> &'static Opened {
    static OPENED: Mutex<Vec<(PathBuf, &Opened)>> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let path = compiled(changes);
    if let Some((_, known)) = opened.iter().find(|(known, _)| *known == path) {
        return known;
    }
    let library: &Opened = Box::leak(Box::new(Opened::open(&path).unwrap()));
    opened.push((path, library));
    library
}

pub(super) fn launcher(changes: &[(&str, &str)], order: u32) -> Emulated {
    Emulated::new(library().unwrap(), order).multiplied_by(played(changes))
}

/// `super::watched` with products of a library.
pub(crate) fn watched(
    config: &ModelConfig,
    settings: &EngineSettings,
    seed: u64,
    order: u32,
) -> (GpuEngine, Rc<Watched>) {
    let launcher = launcher(&[], order);
    let watched = Rc::clone(&launcher.watched);
    let what = (config.clone(), settings.clone());
    let engine = GpuEngine::on(Box::new(launcher), Device::CUDA, what, seed).unwrap();
    (engine, watched)
}

/// An engine on the first GPU, with products of a library in every size; none where either is missing.
pub(crate) fn on_card(
    config: &ModelConfig,
    settings: &EngineSettings,
    seed: u64,
) -> Option<GpuEngine> {
    crate::gpu::find(0).ok()?;
    let mut card = Cuda::open(0, Some(cuda::library().unwrap()?)).unwrap();
    let told = card.name();
    assert!(card.take_all(), "{told}");
    let what = (config.clone(), settings.clone());
    Some(GpuEngine::on(Box::new(card), Device::CUDA, what, seed).unwrap())
}

fn numbers(n: usize) -> Vec<f32> {
    let wave = |i: usize| ((i * 37 + i / 7 * 11) % 101) as f32 / 50.0 - 1.0;
    (0..n).map(wave).collect()
}

/// `a b` in f64, onto what was there.
fn expected(
    layout: Layout,
    (a, b): (&[f32], &[f32]),
    shape: (usize, usize, usize),
    before: f64,
) -> Vec<f32> {
    let [a, b] = [a, b].map(|x| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    let sum = |products: Vec<f64>| (products.iter().sum::<f64>() + before) as f32;
    products(layout, (&a, &b), shape).map(sum).collect()
}

/// A product in f32, of operands and a result that begin `behind` numbers into their memory.
fn multiplied(
    device: &Rc<Memory>,
    layout: Layout,
    (a, b): (&[f32], &[f32]),
    shape: (usize, usize, usize),
    (accumulate, behind): (bool, usize),
) -> Result<Vec<f32>, EngineError> {
    let moved = |x: &[f32]| [&numbers(behind)[..], x].concat();
    let [a, b] = [a, b].map(|x| device.upload(Numbers::F32(&moved(x))).unwrap());
    let before = vec![if accumulate { 3.0 } else { f32::NAN }; behind + shape.0 * shape.1];
    let to = device.upload(Numbers::F32(&before)).unwrap();
    let operands = (to.behind(behind), a.behind(behind), b.behind(behind));
    let after = plainly(accumulate);
    product(device, layout, operands, shape, Precision::F32, after)?;
    let all = device.floats_of(&to, before.len()).unwrap();
    Ok(all[behind..].to_vec())
}

fn assert_multiplies(what: &str, device: &Rc<Memory>) {
    let shape = (70, 33, 300);
    let (a, b) = (numbers(70 * 300), numbers(33 * 300));
    for layout in [Layout::Nt, Layout::Nn, Layout::Tn] {
        for (accumulate, behind) in [(false, 0), (true, 0), (false, 1), (true, 3)] {
            let how = (accumulate, behind);
            let found = multiplied(device, layout, (&a, &b), shape, how).unwrap();
            let before = if accumulate { 3.0 } else { 0.0 };
            let off = distance(&expected(layout, (&a, &b), shape, before), &found);
            assert!(off < 1e-6, "{what}, {layout:?}, {how:?}: {off:e}");
        }
    }
}

#[test]
fn a_library_multiplies_f32_as_f32_however_matrices_lie_and_wherever_they_begin() {
    if !is_emulated() {
        return;
    }
    assert_multiplies("played", &Memory::new(Box::new(launcher(&[], 0))));
}

#[test]
fn a_cards_library_multiplies_however_matrices_lie_and_wherever_they_begin() {
    if let Err(why) = crate::gpu::find(0) {
        return skipped(&why);
    }
    let Some(library) = cuda::library().unwrap() else {
        return skipped("so no cuBLASLt multiplies: none is found, or TINYLM_CUBLASLT says none");
    };
    let mut card = Cuda::open(0, Some(library)).unwrap();
    let told = card.name();
    assert!(
        told.ends_with(&library.products()) && card.take_all(),
        "{told}"
    );
    assert_multiplies(&told, &Memory::new(Box::new(card)));
}

#[test]
fn halves_are_the_nearest_bf16_and_what_is_no_number_stays_none() {
    if !is_emulated() {
        return;
    }
    let device = Memory::new(Box::new(launcher(&[], 0)));
    let tops = (0..1 << 16).step_by(53).chain([0x7f80, 0xff80, 0x7fc0]);
    let ends = [0_u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let bits = tops.flat_map(|top: u32| ends.map(|end| top << 16 | end));
    let xs: Vec<f32> = bits.map(f32::from_bits).collect();
    let (from, to) = (
        device.upload(Numbers::F32(&xs)).unwrap(),
        device.floats(xs.len().div_ceil(2)).unwrap(),
    );
    let args = [to.at(), from.at(), Arg::Long(xs.len() as u64)];
    device.each("halves", xs.len(), &args).unwrap();
    let pairs = device.floats_of(&to, xs.len().div_ceil(2)).unwrap();
    let halves = pairs.iter().flat_map(|pair| {
        let bits = pair.to_bits();
        [bits as u16, (bits >> 16) as u16].map(half::bf16::from_bits)
    });
    for (x, half) in xs.iter().zip(halves) {
        let expected = half::bf16::from_f32(*x);
        let is_same = expected == half || (x.is_nan() && half.is_nan());
        assert!(is_same, "{:x}: {half}", x.to_bits());
    }
}

/// The gradients of an engine whose library has something planted, and what is said of it.
fn planted(changes: &[(&str, &str)]) -> (String, Result<Vec<f32>, String>) {
    let (config, settings) = (configs().remove(3).1, with_everything());
    let launcher = Box::new(launcher(changes, 0));
    let mut engine = GpuEngine::on(launcher, Device::CUDA, (config, settings), 3).unwrap();
    let told = engine.machine().kernels.clone();
    (
        told,
        gradient(&mut engine).map_err(|error| error.to_string()),
    )
}

fn gradient(engine: &mut GpuEngine) -> Result<Vec<f32>, EngineError> {
    let mut all = Vec::new();
    engine.accumulate(&packed(3, 12, 1), PASS)?;
    engine.take_gradient(&mut all)?;
    Ok(all)
}

/// Those of the kernels alone.
fn own() -> Vec<f32> {
    gradient(&mut fresh(&configs().remove(3).1, &with_everything(), 3)).unwrap()
}

/// The second line of a function of the library that plays, which fails there.
fn failing(function: &str, status: &str) -> (String, String) {
    let body = PLAYED.split_once(&format!("int {function}(")).unwrap().1;
    let head = format!("int {function}({} {{\n", body.split_once(" {\n").unwrap().0);
    let failing = format!("{head}  if (true) return {status};\n");
    (head, failing)
}

#[test]
fn a_library_that_does_not_start_leaves_products_to_the_kernels_and_that_is_told() {
    if !is_emulated() {
        return;
    }
    let (right, wrong) = failing("cublasLtCreate", "NOT_INITIALIZED");
    let (told, found) = planted(&[(&right, &wrong)]);
    let why = "own products, as cuBLASLt 12.4.5 does not start (CUBLAS_STATUS_NOT_INITIALIZED)";
    assert_eq!(told, format!("emulated, {why}"));
    assert!(found.unwrap() == own());
    let (told, found) = planted(&[]);
    assert_eq!(told, "emulated, products of cuBLASLt 12.4.5");
    // As good, and other bits.
    assert!(found.unwrap() != own());
}

#[test]
fn what_a_library_has_no_algorithm_for_is_made_by_the_kernels() {
    if !is_emulated() {
        return;
    }
    let (right, wrong) = failing("cublasLtMatmulAlgoGetHeuristic", "NOT_SUPPORTED");
    for change in [(&right[..], &wrong[..]), ("*n_found = 1;", "*n_found = 0;")] {
        assert!(planted(&[change]).1.unwrap() == own(), "{change:?}");
    }
    let refused = (
        "algorithm.workspace, SUCCESS,",
        "algorithm.workspace, NOT_SUPPORTED,",
    );
    assert!(planted(&[refused]).1.unwrap() == own());
}

#[test]
fn a_library_that_fails_is_an_error_which_says_what_works() {
    if !is_emulated() {
        return;
    }
    let told = "; TINYLM_CUBLASLT=none takes tinylm's own products";
    for (function, status, said) in [
        ("cublasLtMatmul", "14", "a product: status 14"),
        (
            "cublasLtMatmulAlgoGetHeuristic",
            "INVALID_VALUE",
            "choosing an algorithm: CUBLAS_STATUS_INVALID_VALUE",
        ),
        (
            "cublasLtMatrixLayoutCreate",
            "INVALID_VALUE",
            "a description: CUBLAS_STATUS_INVALID_VALUE",
        ),
        (
            "cublasLtMatmulPreferenceSetAttribute",
            "INVALID_VALUE",
            "an attribute: CUBLAS_STATUS_INVALID_VALUE",
        ),
    ] {
        let (right, wrong) = failing(function, status);
        let why = planted(&[(&right, &wrong)]).1.unwrap_err();
        assert_eq!(why, format!("device: cuBLASLt 12.4.5, {said}{told}"));
    }
}

#[test]
fn an_algorithm_is_chosen_once_for_products_of_a_sort() {
    if !is_emulated() {
        return;
    }
    let once = "*n_found = 0;\n  static int n_asked_before = 0;\n  if (n_asked_before++) return INVALID_VALUE;";
    let device = Memory::new(Box::new(launcher(&[("*n_found = 0;", once)], 0)));
    let x = device.upload(Numbers::F32(&numbers(8 * 16))).unwrap();
    let to = device.floats(8 * 8).unwrap();
    let of = |m| {
        let operands = (to.at(), x.at(), x.at());
        let (shape, after) = ((m, 8, 16), plainly(false));
        product(&device, Layout::Nt, operands, shape, Precision::F32, after)
    };
    of(8).and_then(|()| of(8)).unwrap();
    of(7).unwrap_err();
}

#[test]
fn small_products_are_not_worth_a_librarys_launches() {
    // Of a step of mini, of Muon on it, of a single row, of an adapter of rank 8.
    let shapes = [
        (3072, 384, 384),
        (384, 384, 384),
        (1, 4096, 4096),
        (4096, 8, 4096),
        (40, 420, 600),
    ];
    assert_eq!(shapes.map(is_worth_it), [true, true, false, false, false]);
}

/// Folders of an environment, each with a library of its own version where one is named.
fn find_in(root: &Path, set: &[(&str, &str)], driver: i32) -> Result<Option<String>, String> {
    let variable = |name: &str| -> Option<OsString> {
        let (_, value) = set.iter().find(|(known, _)| *known == name)?;
        Some(match *value {
            "none" => "none".into(),
            path => root.join(path).into(),
        })
    };
    find(variable, driver).map(|found| found.map(|library| library.version()))
}

#[test]
fn a_library_is_looked_for_in_the_order_that_is_written_down() {
    if !is_emulated() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let put = |at: &str, version: &str| {
        let path = compiled(&[("return 120405;", &format!("return {version};"))]);
        fs::create_dir_all(root.join(at).parent().unwrap()).unwrap();
        fs::copy(path, root.join(at)).unwrap();
    };
    put("mine/anything.so", "120001");
    put("cuda/lib64/libcublasLt.so.12", "120100");
    put("home/lib64/libcublasLt.so.12", "120200");
    put(
        "venv/lib/python3.11/site-packages/nvidia/blas/lib/libcublasLt.so.12",
        "120300",
    );
    put(
        "venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
        "130002",
    );
    put(
        "conda/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
        "130400",
    );
    // Neither is one.
    put("old/lib64/libcublasLt.so.12", "110300");
    fs::create_dir_all(root.join("text/lib64")).unwrap();
    fs::write(root.join("text/lib64/libcublasLt.so.12"), "no library").unwrap();
    let all = [
        (SETTING, "mine/anything.so"),
        ("CUDA_PATH", "cuda"),
        ("CUDA_HOME", "home"),
        ("VIRTUAL_ENV", "venv"),
        ("CONDA_PREFIX", "conda"),
    ];
    let found = |set: &[(&str, &str)], driver| find_in(root, set, driver).unwrap();
    // What the loader has, on machines where it has one, comes before all folders.
    let or_loaders = |expected: Option<&str>, driver| {
        let loaders = found(&[], driver);
        loaders.or(expected.map(str::to_owned))
    };
    assert_eq!(found(&all, 13_000).as_deref(), Some("12.0.1"));
    let none = [&[(SETTING, "none")], &all[1..]].concat();
    assert_eq!(found(&none, 13_000), None);
    let expected = ["12.1.0", "12.2.0", "13.0.2", "13.4.0"];
    for (from, expected) in (1..).zip(expected) {
        let expected = or_loaders(Some(expected), 13_000);
        assert_eq!(found(&all[from..], 13_000), expected, "{from}");
    }
    // What needs a newer driver is passed by.
    assert_eq!(found(&all[4..], 12_080), or_loaders(None, 12_080));
    assert_eq!(found(&all[3..], 12_080), or_loaders(Some("12.3.0"), 12_080));
    let behind = [("CUDA_PATH", "old"), ("CUDA_HOME", "text"), all[3]];
    assert_eq!(found(&behind, 12_040), or_loaders(Some("12.3.0"), 12_040));
}

#[test]
fn a_setting_that_names_no_library_is_an_error_which_says_so() {
    if !is_emulated() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join("text.so"), "no library").unwrap();
    for (name, change) in [
        ("old.so", ("return 120405;", "return 110300;")),
        ("half.so", ("int cublasLtMatmul(", "int cublasLtMatmul_(")),
    ] {
        fs::copy(compiled(&[change]), root.join(name)).unwrap();
    }
    let told = |name: &str| {
        let why = find_in(root, &[(SETTING, name)], 13_000).unwrap_err();
        assert!(
            why.ends_with("; TINYLM_CUBLASLT=none takes tinylm's own products"),
            "{why}"
        );
        why.replace(&format!("{}/", root.display()), "")
    };
    let starts = |name: &str, start: &str| {
        let why = told(name);
        assert!(why.starts_with(start), "{why}");
    };
    starts(
        "gone.so",
        "there is no file `gone.so`, which TINYLM_CUBLASLT names;",
    );
    starts(
        "text.so",
        "`text.so`, which TINYLM_CUBLASLT names, is no cuBLASLt: ",
    );
    starts(
        "half.so",
        "`half.so`, which TINYLM_CUBLASLT names, is no cuBLASLt: it has no `cublasLtMatmul`;",
    );
    starts(
        "old.so",
        "`old.so`, which TINYLM_CUBLASLT names, is cuBLASLt 11.3.0, and tinylm knows 12 and 13;",
    );
}

/// The real libraries that are here: what is set, or what the environment's folders hold.
fn real() -> Vec<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match set(SETTING) {
        Some(named) => vec![PathBuf::from(named)],
        None => places(set, &[13, 12]),
    }
}

/// The wheels of PyPI are such: `pip install nvidia-cublas-cu12==12.4.5.8 nvidia-cublas`, in an environment that is
/// active.
#[test]
fn a_real_library_has_every_function_and_says_where_it_does_not_start() {
    let real: Vec<PathBuf> = real().into_iter().filter(|path| path.is_file()).collect();
    if real.is_empty() {
        return skipped("so no cuBLASLt multiplies: none is found, or TINYLM_CUBLASLT says none");
    }
    for path in real {
        let library: &Opened = Box::leak(Box::new(Opened::open(&path).unwrap()));
        let version = library.version();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let major = version.split('.').next().unwrap();
        assert!(file.ends_with(&format!(".so.{major}")), "{file}: {version}");
        // What it computes on a GPU is for the tests on a card.
        if crate::gpu::find(0).is_err() {
            let (products, told) = started(Some(library), || panic!("it started")).unwrap();
            let why = "does not start (CUBLAS_STATUS_NOT_INITIALIZED)";
            assert_eq!(told, format!("own products, as cuBLASLt {version} {why}"));
            assert!(products.is_none());
        }
    }
}

#[test]
fn a_model_is_read_by_the_kernels_alone() {
    if !is_emulated() {
        return;
    }
    let config = configs().remove(3).1;
    let tensors = random_tensors(&config);
    let model = Model::emulated(config, &tensors, ReadPrecision::F32).unwrap();
    let (right, wrong) = failing("cublasLtMatmul", "14");
    let launcher = launcher(&[(&right, &wrong)], 0);
    let mut reader = GpuReader::on(Box::new(launcher), model.stored().unwrap()).unwrap();
    let (sequence, tokens) = (OnDevice::default(), [1, 2, 3]);
    let read = Read {
        sequence: &sequence,
        start: 0,
        tokens: &tokens,
    };
    reader.pass(&[read], &[2]).unwrap();
    reader.score(0..3, &tokens).unwrap();
}
