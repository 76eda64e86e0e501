//! The kernels on an NVIDIA GPU, through the driver, and products by cuBLASLt where it is found.
//!
//! Nothing of CUDA is needed to build, and at run time only what the driver brings, `libcuda`: the kernels
//! were compiled beforehand (`kernels/build.py`), for newer GPUs as text that the driver compiles. Each library
//! is looked for before the first call, because a call into one that is missing would panic.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::{DriverError, result as driver, sys};

use super::cublaslt::{CublasLt, OWN_PRODUCTS, Opened, WORKSPACE_BYTES, started};
use super::kernels::names;
use super::launcher::{Arg, Launch, Launcher, Numbers, NumbersMut, Product};
use super::library;
use crate::engine::EngineError;
use crate::ops::Result;

/// For compute capability 8.x, for 9.0, and for what comes after.
static SM_80: &[u8] = include_bytes!("kernels/built/sm_80.cubin");
static SM_90A: &[u8] = include_bytes!("kernels/built/sm_90a.cubin");
static PTX_80: &[u8] = include_bytes!("kernels/built/compute_80.ptx");

/// A GPU that can train, as `doctor` and a run tell of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub name: String,
    pub capability: (i32, i32),
    pub total_bytes: u64,
}

impl Found {
    /// What computes on it, for the record of a run: another GPU, other kernels or other products may round
    /// differently.
    pub fn kernels(&self, products: &str) -> String {
        let (_, built) = image(self.capability);
        format!("{}, {built}, {products}", self.name)
    }
}

/// The kernels for a GPU, and what they were compiled for.
fn image(capability: (i32, i32)) -> (&'static [u8], &'static str) {
    match capability {
        (8, _) => (SM_80, "sm_80"),
        (9, 0) => (SM_90A, "sm_90a"),
        _ => (PTX_80, "ptx"),
    }
}

/// Whether there is a driver, which is not asked anything: it takes a while to start.
pub fn is_driver_here() -> bool {
    // SAFETY: only tries to load the library.
    unsafe { sys::is_culib_present() }
}

/// Whether the driver shows a GPU; the error is one of a driver that does not start.
pub fn is_card_here() -> std::result::Result<bool, String> {
    if !is_driver_here() {
        return Ok(false);
    }
    match driver::init() {
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => Ok(false),
        Err(error) => Err(format!(
            "the NVIDIA driver does not start: {}",
            told(&error)
        )),
        Ok(()) => Ok(driver::device::get_count().map_err(|error| told(&error))? > 0),
    }
}

/// Looks for the GPU of this number; the error says what is missing.
pub fn find(number: usize) -> std::result::Result<Found, String> {
    let device = device(number)?;
    // SAFETY: the driver gave this device.
    let total = unsafe { driver::device::total_mem(device) };
    Ok(Found {
        name: driver::device::get_name(device).map_err(|error| told(&error))?,
        capability: capability(device)?,
        total_bytes: total.map_err(|error| told(&error))? as u64,
    })
}

/// What is said of a training's products, as long as the library that was found starts; the error is one of the
/// setting.
pub fn products() -> std::result::Result<String, String> {
    let found = library()?;
    Ok(found.map_or(OWN_PRODUCTS.to_owned(), Opened::products))
}

/// The library that multiplies in a training, where there is one.
pub(crate) fn library() -> std::result::Result<Option<&'static Opened>, String> {
    let mut version = 0;
    // SAFETY: it is called where the driver's library is, and only writes `version`.
    let status = unsafe { sys::is_culib_present().then(|| sys::cuDriverGetVersion(&mut version)) };
    match status {
        Some(sys::CUresult::CUDA_SUCCESS) => library::of_process(version),
        _ => Ok(None),
    }
}

fn device(number: usize) -> std::result::Result<sys::CUdevice, String> {
    if !is_driver_here() {
        return Err("no libcuda: no NVIDIA driver is installed here".to_owned());
    }
    driver::init()
        .map_err(|error| format!("the NVIDIA driver does not start: {}", told(&error)))?;
    let count = driver::device::get_count().map_err(|error| told(&error))?;
    let ordinal = i32::try_from(number).unwrap_or(i32::MAX);
    if ordinal >= count {
        return Err(format!(
            "there is no GPU {number}: the driver shows {count}"
        ));
    }
    let device = driver::device::get(ordinal).map_err(|error| told(&error))?;
    let (major, minor) = capability(device)?;
    if major < 8 {
        let why = "tinylm needs 8.0 (Ampere, 2020) or newer";
        return Err(format!(
            "GPU {number} has compute capability {major}.{minor}, and {why}"
        ));
    }
    Ok(device)
}

fn capability(device: sys::CUdevice) -> std::result::Result<(i32, i32), String> {
    use sys::CUdevice_attribute as Of;
    let major = attribute(device, Of::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(device, Of::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok((major, minor))
}

fn attribute(
    device: sys::CUdevice,
    of: sys::CUdevice_attribute,
) -> std::result::Result<i32, String> {
    // SAFETY: the driver gave this device.
    unsafe { driver::device::get_attribute(device, of) }.map_err(|error| told(&error))
}

/// An error's name, and what is to be done about it.
fn told(error: &DriverError) -> String {
    use sys::CUresult as Is;
    let name = error
        .error_name()
        .map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_else(|_| format!("{:?}", error.0));
    let advice = match error.0 {
        Is::CUDA_ERROR_OUT_OF_MEMORY => {
            "the GPU has too little free memory; set a smaller `micro_batch`, or end what else uses it"
        }
        Is::CUDA_ERROR_NO_DEVICE => {
            "the driver shows no GPU; see `nvidia-smi` and CUDA_VISIBLE_DEVICES"
        }
        Is::CUDA_ERROR_NO_BINARY_FOR_GPU | Is::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "the driver is too old for this GPU's kernels; it must know CUDA 12.4 or newer"
        }
        _ => {
            "the GPU or its driver failed; the run goes on from its last checkpoint, with `--device cpu` too"
        }
    };
    format!("{name}: {advice}")
}

fn failed(what: &str, error: &DriverError) -> EngineError {
    EngineError::Device(format!("{what}: {}", told(error)))
}

/// One GPU, with the kernels on it.
pub(crate) struct Cuda {
    functions: HashMap<&'static str, sys::CUfunction>,
    name: String,
    shared_limit: usize,
    products: Option<CublasLt>,
}

impl Cuda {
    /// Opens a GPU, whose products this library makes if it starts there.
    pub(crate) fn open(number: usize, library: Option<&'static Opened>) -> Result<Self> {
        let device = device(number).map_err(EngineError::Device)?;
        let limit = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let limit = attribute(device, limit).map_err(EngineError::Device)?;
        let found = find(number).map_err(EngineError::Device)?;
        let (image, _) = image(found.capability);
        let starts = |error| failed("the GPU cannot be opened", &error);
        // SAFETY: the context is kept for the life of the process; the image is a whole cubin, or text
        // that ends in a zero.
        let module = unsafe {
            let context = driver::primary_ctx::retain(device).map_err(starts)?;
            driver::ctx::set_current(context).map_err(starts)?;
            driver::module::load_data(image.as_ptr().cast()).map_err(starts)?
        };
        let functions = names().map(|name| Ok((name, function(module, name, limit)?)));
        let functions = functions.collect::<Result<_>>()?;
        let (products, told) = started(library, || allocated(WORKSPACE_BYTES))?;
        Ok(Cuda {
            functions,
            name: found.kernels(&told),
            shared_limit: limit as usize,
            products,
        })
    }
}

#[cfg(test)]
impl Cuda {
    /// Leaves even small products to the library; false where none has started.
    pub(crate) fn take_all(&mut self) -> bool {
        self.products.as_mut().map(CublasLt::take_all).is_some()
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if let Some(library) = &self.products {
            self.free(library.workspace());
        }
    }
}

fn allocated(n_bytes: usize) -> Result<u64> {
    // SAFETY: whoever takes it writes before reading.
    unsafe { driver::malloc_sync(n_bytes) }.map_err(|error| failed("no memory on the GPU", &error))
}

/// A kernel, allowed all the shared memory that a block can have.
fn function(module: sys::CUmodule, name: &str, limit: i32) -> Result<sys::CUfunction> {
    let lost = |error| failed(&format!("kernel `{name}`"), &error);
    let text = CString::new(name).map_err(|error| EngineError::Device(error.to_string()))?;
    let shared = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the module stays loaded for the life of the process.
    unsafe {
        let function = driver::module::get_function(module, text).map_err(lost)?;
        driver::function::set_function_attribute(function, shared, limit).map_err(lost)?;
        Ok(function)
    }
}

impl Launcher for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn free_bytes(&self) -> Option<u64> {
        driver::mem_get_info().ok().map(|(free, _)| free as u64)
    }

    fn shared_limit(&self) -> usize {
        self.shared_limit
    }

    fn alloc(&self, n_bytes: usize) -> Result<u64> {
        allocated(n_bytes)
    }

    fn free(&self, address: u64) {
        // A driver that fails here fails at the next launch too, where it can be told.
        // SAFETY: nobody holds this memory; the driver waits for launches that use it.
        let _ = unsafe { driver::free_sync(address) };
    }

    fn write(&self, to: u64, from: Numbers) -> Result<()> {
        // SAFETY: `to` is memory of at least this size, which `memory.rs` took for it.
        let copied = unsafe {
            match from {
                Numbers::F32(x) => driver::memcpy_htod_sync(to, x),
                Numbers::U16(x) => driver::memcpy_htod_sync(to, x),
                Numbers::U32(x) => driver::memcpy_htod_sync(to, x),
            }
        };
        copied.map_err(|error| failed("copying to the GPU", &error))
    }

    fn read(&self, to: NumbersMut, from: u64) -> Result<()> {
        // SAFETY: `from` is memory of at least this size, and the copy waits for what writes it.
        let copied = unsafe {
            match to {
                NumbersMut::F32(x) => driver::memcpy_dtoh_sync(x, from),
                NumbersMut::U32(x) => driver::memcpy_dtoh_sync(x, from),
            }
        };
        copied.map_err(|error| failed("copying from the GPU", &error))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let Some(function) = self.functions.get(launch.kernel) else {
            return Err(EngineError::Device(format!(
                "no kernel `{}`",
                launch.kernel
            )));
        };
        let args = launch.args.iter().map(Arg::pointer);
        let mut args: Vec<*mut c_void> = args.map(<*const c_void>::cast_mut).collect();
        let [x, y, z] = launch.grid;
        let (block, shared) = ((launch.block, 1, 1), launch.shared_bytes);
        // SAFETY: the arguments have the kernel's types, which the emulator compares for every launch that
        // the tests make; the driver copies them before it returns.
        let launched = unsafe {
            let stream = std::ptr::null_mut();
            driver::launch_kernel(*function, (x, y, z), block, shared, stream, &mut args)
        };
        launched.map_err(|error| failed(launch.kernel, &error))
    }

    fn multiplies(&self, shape: (usize, usize, usize)) -> bool {
        self.products
            .as_ref()
            .is_some_and(|library| library.takes(shape))
    }

    fn multiply(&self, product: &Product) -> Result<bool> {
        match &self.products {
            Some(library) => library.multiply(product),
            None => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_gpu_is_told_what_is_missing() {
        match find(99) {
            Ok(found) => panic!("{found:?} is the hundredth"),
            Err(why) if why.starts_with("no libcuda") => {
                let refused = Cuda::open(0, None).err().map(|error| error.to_string());
                assert!(refused.is_some_and(|refused| refused.contains("no libcuda")));
            }
            Err(why) => {
                let starts = why.starts_with("there is no GPU 99: the driver shows");
                assert!(starts || why.contains("driver does not start"), "{why}");
            }
        }
    }

    #[test]
    fn a_gpu_is_told_with_the_kernels_that_it_runs() {
        let of = |capability| {
            let name = "NVIDIA X".to_owned();
            let total_bytes = 0;
            let found = Found {
                name,
                capability,
                total_bytes,
            };
            found.kernels(OWN_PRODUCTS)
        };
        assert_eq!(of((8, 6)), "NVIDIA X, sm_80, own products");
        assert_eq!(of((9, 0)), "NVIDIA X, sm_90a, own products");
        assert_eq!(of((12, 0)), "NVIDIA X, ptx, own products");
    }

    #[test]
    fn every_kernel_is_in_every_build() {
        for built in [SM_80, SM_90A, PTX_80] {
            for name in names() {
                let found = built
                    .windows(name.len())
                    .any(|bytes| bytes == name.as_bytes());
                assert!(found, "`{name}`: run kernels/build.py");
            }
        }
    }
}
