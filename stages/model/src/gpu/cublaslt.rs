//! Products by NVIDIA's cuBLASLt, which a toolkit or PyTorch brings; `library.rs` looks for it.
//!
//! A product of one shape takes one algorithm for as long as the library is held, and none whose order of additions is
//! left to chance: what is computed twice has the same bits. Another version, or another GPU, may add in another order,
//! which is why the version is told. f32 is f32, never TF32.
//!
//! Not cudarc's binding: a process has that one once, by name, and it panics where a function is missing. This one opens
//! any path, so what talks to the real library talks in the tests to one that they have compiled.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{from_ref, null_mut};
use std::rc::Rc;

use libloading::Library;

use super::launcher::Product;
use crate::engine::EngineError;
use crate::ops::Result;

/// Memory that its algorithms may use: as much as NVIDIA advises for its largest GPUs.
pub(crate) const WORKSPACE_BYTES: usize = 32 << 20;

/// What is said of products where no library makes them, as none does in reading.
pub const OWN_PRODUCTS: &str = "own products";

/// `cublasStatus_t`, which may have values that nobody has written down.
type Status = c_int;
/// A handle or a description, which the library alone looks into.
type Object = *mut c_void;

const SUCCESS: Status = 0;
const NOT_SUPPORTED: Status = 15;

/// `cudaDataType_t`.
const F32: c_int = 0;
const BF16: c_int = 14;
/// `cublasComputeType_t`.
const COMPUTE_F32: c_int = 68;
/// `cublasOperation_t`.
const TRANSPOSED: [c_int; 2] = [0, 1];

/// Attributes of a product, and of what is asked of its algorithm.
const TRANSPOSED_A: c_int = 3;
const TRANSPOSED_B: c_int = 4;
const MOST_WORKSPACE: c_int = 1;
const REDUCTIONS: c_int = 3;
const ALIGNED_A: c_int = 5;

/// Parts of a cut sum are kept and added in a step of its own, unlike those that meet in the result.
const REDUCED_IN_ORDER: u32 = 2;

/// `cublasLtMatmulHeuristicResult_t`.
#[derive(Default)]
#[repr(C)]
struct Advice {
    algorithm: [u64; 8],
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// The functions of a library, each with the type that `cublasLt.h` gives it.
macro_rules! functions {
    ($($field:ident = $name:literal ($($arg:ty),*) -> $out:ty;)*) => {
        struct Functions { $($field: unsafe extern "C" fn($($arg),*) -> $out,)* }

        impl Functions {
            fn of(library: &Library) -> std::result::Result<Self, String> {
                Ok(Functions { $($field: function(library, $name)?,)* })
            }
        }
    };
}

functions! {
    version = "cublasLtGetVersion"() -> usize;
    status_name = "cublasLtGetStatusName"(Status) -> *const c_char;
    create = "cublasLtCreate"(*mut Object) -> Status;
    destroy = "cublasLtDestroy"(Object) -> Status;
    create_product = "cublasLtMatmulDescCreate"(*mut Object, c_int, c_int) -> Status;
    set_product = "cublasLtMatmulDescSetAttribute"(Object, c_int, *const c_void, usize) -> Status;
    destroy_product = "cublasLtMatmulDescDestroy"(Object) -> Status;
    create_matrix = "cublasLtMatrixLayoutCreate"(*mut Object, c_int, u64, u64, i64) -> Status;
    destroy_matrix = "cublasLtMatrixLayoutDestroy"(Object) -> Status;
    create_wish = "cublasLtMatmulPreferenceCreate"(*mut Object) -> Status;
    set_wish = "cublasLtMatmulPreferenceSetAttribute"(Object, c_int, *const c_void, usize) -> Status;
    destroy_wish = "cublasLtMatmulPreferenceDestroy"(Object) -> Status;
    advise = "cublasLtMatmulAlgoGetHeuristic"(
        Object, Object, Object, Object, Object, Object, Object, c_int, *mut Advice, *mut c_int
    ) -> Status;
    multiply = "cublasLtMatmul"(
        Object, Object, *const f32, *const c_void, Object, *const c_void, Object, *const f32,
        *const c_void, Object, *mut c_void, Object, *const [u64; 8], *mut c_void, usize, *mut c_void
    ) -> Status;
}

fn function<F: Copy>(library: &Library, name: &str) -> std::result::Result<F, String> {
    // SAFETY: the table above gives the function of this name its type.
    let found = unsafe { library.get::<F>(name) };
    found
        .map(|found| *found)
        .map_err(|_| format!("it has no `{name}`"))
}

/// A library that was opened, and which it is.
pub(crate) struct Opened {
    functions: Functions,
    version: usize,
    /// Its code stays for as long as its functions can be called.
    _library: Library,
}

impl Opened {
    pub(crate) fn open(path: &Path) -> std::result::Result<Self, String> {
        // SAFETY: what a library does when it is loaded is its own affair; whoever names a path trusts it.
        let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
        let functions = Functions::of(&library)?;
        // SAFETY: it takes nothing, and asks no GPU.
        let version = unsafe { (functions.version)() };
        Ok(Opened {
            functions,
            version,
            _library: library,
        })
    }

    pub(crate) fn major(&self) -> usize {
        self.version / 10_000
    }

    pub(crate) fn version(&self) -> String {
        let (minor, patch) = (self.version / 100 % 100, self.version % 100);
        format!("{}.{minor}.{patch}", self.major())
    }

    /// What a run's record says of products that it makes.
    pub(crate) fn products(&self) -> String {
        format!("products of cuBLASLt {}", self.version())
    }

    fn name_of(&self, status: Status) -> String {
        // SAFETY: it takes any number, and returns a text that stays, or nothing.
        let name = unsafe { (self.functions.status_name)(status) };
        match name.is_null() {
            true => format!("status {status}"),
            // SAFETY: a text of the library that ends in a zero.
            false => unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned(),
        }
    }

    fn checked(&self, what: &str, status: Status) -> Result<()> {
        match status {
            SUCCESS => Ok(()),
            _ => Err(EngineError::Device(format!(
                "cuBLASLt {}, {what}: {}; TINYLM_CUBLASLT=none takes tinylm's own products",
                self.version(),
                self.name_of(status)
            ))),
        }
    }
}

/// Something of the library's, which goes back to it.
struct Owned {
    object: Object,
    destroy: unsafe extern "C" fn(Object) -> Status,
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What cannot be given back is nobody's any more.
        // SAFETY: the library made it, and nobody else has it.
        let _ = unsafe { (self.destroy)(self.object) };
    }
}

/// All that tells products apart for the library; another alignment may need another algorithm.
#[derive(PartialEq, Eq, Hash)]
struct Sort {
    shape: (usize, usize, usize),
    turned: [bool; 2],
    is_rounded: bool,
    /// Of `a`, `b` and the result, in bytes.
    aligned: [u32; 3],
}

/// How products of one sort are made.
struct Plan {
    product: Owned,
    matrices: [Owned; 3],
    algorithm: [u64; 8],
}

/// The library at work on the GPU of this thread.
pub(crate) struct CublasLt {
    opened: &'static Opened,
    handle: Owned,
    /// Where its algorithms keep what they need, `WORKSPACE_BYTES` of it.
    workspace: u64,
    /// None where it has no algorithm.
    plans: RefCell<HashMap<Sort, Option<Rc<Plan>>>>,
    takes: fn((usize, usize, usize)) -> bool,
}

/// Whether a product is worth what the library costs beside it: two or three more launches, and a copy of both
/// operands where they are rounded, which reads each number once for all columns or rows of the other.
pub(crate) fn is_worth_it((m, n, k): (usize, usize, usize)) -> bool {
    m.min(n) >= 32 && m * n * k >= 1 << 24
}

/// What multiplies: the library, where there is one that starts, and what is said of it.
pub(crate) fn started(
    opened: Option<&'static Opened>,
    workspace: impl FnOnce() -> Result<u64>,
) -> Result<(Option<CublasLt>, String)> {
    let Some(opened) = opened else {
        return Ok((None, OWN_PRODUCTS.to_owned()));
    };
    let mut object = null_mut();
    // SAFETY: the GPU's context is this thread's.
    let status = unsafe { (opened.functions.create)(&mut object) };
    if status != SUCCESS {
        let (version, why) = (opened.version(), opened.name_of(status));
        let told = format!("{OWN_PRODUCTS}, as cuBLASLt {version} does not start ({why})");
        return Ok((None, told));
    }
    let destroy = opened.functions.destroy;
    let handle = Owned { object, destroy };
    let library = CublasLt {
        opened,
        handle,
        workspace: workspace()?,
        plans: RefCell::default(),
        takes: is_worth_it,
    };
    Ok((Some(library), opened.products()))
}

impl CublasLt {
    pub(crate) fn workspace(&self) -> u64 {
        self.workspace
    }

    /// Takes even what is not worth it, for tests of small shapes.
    #[cfg(test)]
    pub(crate) fn take_all(&mut self) {
        self.takes = |_| true;
    }

    pub(crate) fn takes(&self, (m, n, k): (usize, usize, usize)) -> bool {
        m.min(n).min(k) > 0 && (self.takes)((m, n, k))
    }

    /// Launches a product; false where the library has no algorithm for it.
    pub(crate) fn multiply(&self, product: &Product) -> Result<bool> {
        let Some(plan) = self.plan(product)? else {
            return Ok(false);
        };
        let [a, b, c] = plan.matrices.each_ref().map(|matrix| matrix.object);
        let at = |address: u64| address as *mut c_void;
        let (one, beta) = (1.0_f32, f32::from(u8::from(product.accumulate)));
        // SAFETY: the addresses are the GPU's, of matrices of the plan's sizes; the library copies the factors before it
        // returns, and the stream is the one of all launches.
        let status = unsafe {
            (self.opened.functions.multiply)(
                self.handle.object,
                plan.product.object,
                &one,
                at(product.b),
                b,
                at(product.a),
                a,
                &beta,
                at(product.to),
                c,
                at(product.to),
                c,
                &plan.algorithm,
                at(self.workspace),
                WORKSPACE_BYTES,
                null_mut(),
            )
        };
        self.opened.checked("a product", status).map(|()| true)
    }

    fn plan(&self, product: &Product) -> Result<Option<Rc<Plan>>> {
        let sort = Sort {
            shape: product.shape,
            turned: product.turned,
            is_rounded: product.is_rounded,
            aligned: [product.a, product.b, product.to].map(alignment),
        };
        if let Some(plan) = self.plans.borrow().get(&sort) {
            return Ok(plan.clone());
        }
        let plan = self.planned(&sort)?.map(Rc::new);
        self.plans.borrow_mut().insert(sort, plan.clone());
        Ok(plan)
    }

    /// The library reads matrices column by column, so what lies row by row it sees turned: it is asked for the turned
    /// result, which is the product of the turned matrices the other way round.
    fn planned(&self, sort: &Sort) -> Result<Option<Plan>> {
        let (m, n, k) = sort.shape;
        let [a_turned, b_turned] = sort.turned;
        let of = if sort.is_rounded { BF16 } else { F32 };
        let matrices = [
            self.matrix(of, if a_turned { (k, m) } else { (m, k) })?,
            self.matrix(of, if b_turned { (n, k) } else { (k, n) })?,
            self.matrix(F32, (m, n))?,
        ];
        let product = self.product([b_turned, a_turned])?;
        let wish = self.wish(sort)?;
        let advice = self.advice(&product, &matrices, &wish)?;
        Ok(advice.map(|advice| Plan {
            product,
            matrices,
            algorithm: advice.algorithm,
        }))
    }

    /// A matrix that lies row by row, in the library's words.
    fn matrix(&self, of: c_int, (rows, columns): (usize, usize)) -> Result<Owned> {
        let f = &self.opened.functions;
        let create = |object: &mut Object| {
            // SAFETY: it only writes `object`.
            unsafe { (f.create_matrix)(object, of, columns as u64, rows as u64, columns as i64) }
        };
        self.owned(create, f.destroy_matrix)
    }

    fn product(&self, turned: [bool; 2]) -> Result<Owned> {
        let f = &self.opened.functions;
        // SAFETY: it only writes `object`.
        let create = |object: &mut Object| unsafe { (f.create_product)(object, COMPUTE_F32, F32) };
        let product = self.owned(create, f.destroy_product)?;
        for (name, turned) in [TRANSPOSED_A, TRANSPOSED_B].into_iter().zip(turned) {
            self.set(
                f.set_product,
                &product,
                name,
                &TRANSPOSED[usize::from(turned)],
            )?;
        }
        Ok(product)
    }

    /// What an algorithm may do.
    fn wish(&self, sort: &Sort) -> Result<Owned> {
        let f = &self.opened.functions;
        // SAFETY: it only writes `object`.
        let create = |object: &mut Object| unsafe { (f.create_wish)(object) };
        let wish = self.owned(create, f.destroy_wish)?;
        self.set(f.set_wish, &wish, MOST_WORKSPACE, &(WORKSPACE_BYTES as u64))?;
        self.set(f.set_wish, &wish, REDUCTIONS, &REDUCED_IN_ORDER)?;
        let [a, b, to] = sort.aligned;
        for (name, aligned) in (ALIGNED_A..).zip([b, a, to, to]) {
            self.set(f.set_wish, &wish, name, &aligned)?;
        }
        Ok(wish)
    }

    fn advice(
        &self,
        product: &Owned,
        matrices: &[Owned; 3],
        wish: &Owned,
    ) -> Result<Option<Advice>> {
        let [a, b, c] = matrices.each_ref().map(|matrix| matrix.object);
        let (handle, product, wish) = (self.handle.object, product.object, wish.object);
        let (mut advice, mut n_found) = (Advice::default(), 0);
        let advise = self.opened.functions.advise;
        // SAFETY: all are the library's own, and there is room for the one answer that is asked for.
        let status = unsafe {
            advise(
                handle,
                product,
                b,
                a,
                c,
                c,
                wish,
                1,
                &mut advice,
                &mut n_found,
            )
        };
        if status == NOT_SUPPORTED || (status == SUCCESS && n_found == 0) {
            return Ok(None);
        }
        self.opened.checked("choosing an algorithm", status)?;
        Ok((advice.state == SUCCESS).then_some(advice))
    }

    fn owned(
        &self,
        create: impl FnOnce(&mut Object) -> Status,
        destroy: unsafe extern "C" fn(Object) -> Status,
    ) -> Result<Owned> {
        let mut object = null_mut();
        self.opened.checked("a description", create(&mut object))?;
        Ok(Owned { object, destroy })
    }

    fn set<T>(
        &self,
        set: unsafe extern "C" fn(Object, c_int, *const c_void, usize) -> Status,
        of: &Owned,
        name: c_int,
        value: &T,
    ) -> Result<()> {
        // SAFETY: the library copies so many bytes, and says so where the attribute has another size.
        let status = unsafe { set(of.object, name, from_ref(value).cast(), size_of::<T>()) };
        self.opened.checked("an attribute", status)
    }
}

/// The largest power of two up to 256 that divides an address.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
}
