//! The kernels on this machine's CPU, for tests: compiled by a C++ compiler with `kernels/emulator.h`.
//!
//! Memory starts as NaN and stands between guards, so what reads too early or writes too far is found;
//! arguments are compared with the kernels' types, which nothing does on a GPU. A test can have the device
//! fail at any moment, and see what was launched.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::OnceLock;

use super::cublaslt::{CublasLt, Opened, WORKSPACE_BYTES, started};
use super::kernels::{SOURCES, names};
use super::launcher::{Arg, Launch, Launcher, Numbers, NumbersMut, Product};
use crate::engine::EngineError;
use crate::ops::Result;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// `Kernel` of `emulator.h`.
#[repr(C)]
struct Kernel {
    name: *const c_char,
    call: *const c_void,
    letters: [c_char; 32],
}

type LaunchFn = unsafe extern "C" fn(
    call: *const c_void,
    grid: *const c_uint,
    block: c_uint,
    shared: usize,
    args: *const *const c_void,
    order: c_uint,
) -> *const c_char;

/// A compiled set of kernels: where each is called, and its arguments' types.
pub(crate) struct Library {
    launch: LaunchFn,
    kernels: HashMap<&'static str, (usize, String)>,
}

/// The kernels as they stand in the sources.
pub(crate) fn library() -> std::result::Result<&'static Library, String> {
    static LIBRARY: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| Library::compiled(|_, text| text.to_owned()));
    library.as_ref().map_err(String::clone)
}

impl Library {
    /// Compiles the kernels, once for each text of their sources; `change` may plant a fault.
    pub(crate) fn compiled(
        change: impl Fn(&str, &str) -> String,
    ) -> std::result::Result<Self, String> {
        let sources: Vec<_> = SOURCES
            .iter()
            .map(|(file, text)| (*file, change(file, text)))
            .collect();
        let mut all = blake3::Hasher::new();
        for (file, text) in &sources {
            all.update(file.as_bytes()).update(text.as_bytes());
        }
        let built = beside("emulated", all.finalize())?;
        if !built.exists() {
            compile(&sources, &built)?;
        }
        Library::open(&built)
    }

    fn open(path: &Path) -> std::result::Result<Self, String> {
        const NOW: c_int = 2;
        let text = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: a library that was compiled from this crate's sources; it is never closed.
        unsafe {
            let library = dlopen(text.as_ptr(), NOW);
            if library.is_null() {
                return Err(format!("{} cannot be loaded", path.display()));
            }
            let launch = dlsym(library, c"emulator_launch".as_ptr());
            let table = dlsym(library, c"emulator_kernels".as_ptr()).cast::<Kernel>();
            assert!(!launch.is_null() && !table.is_null());
            let kernels = names().enumerate().map(|(i, name)| {
                let kernel = &*table.add(i);
                assert_eq!(CStr::from_ptr(kernel.name).to_str(), Ok(name));
                let letters = CStr::from_ptr(kernel.letters.as_ptr()).to_string_lossy();
                (name, (kernel.call as usize, letters.into_owned()))
            });
            Ok(Library {
                launch: std::mem::transmute::<*mut c_void, LaunchFn>(launch),
                kernels: kernels.collect(),
            })
        }
    }
}

/// A library of one source, compiled once for each text of it.
pub(crate) fn library_of(name: &str, text: &str) -> std::result::Result<PathBuf, String> {
    let built = beside(name, blake3::hash(text.as_bytes()))?;
    if !built.exists() {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let source = folder.path().join("main.cpp");
        std::fs::write(&source, text).map_err(|error| error.to_string())?;
        share(&source, &built)?;
    }
    Ok(built)
}

/// Where a library of this hash is kept: beside the program.
fn beside(name: &str, hash: blake3::Hash) -> std::result::Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = program.parent().unwrap_or(Path::new("."));
    Ok(folder.join(format!("{name}-{}.so", &hash.to_hex()[..16])))
}

fn compile(sources: &[(&str, String)], built: &Path) -> std::result::Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let mut main = String::new();
    for (file, text) in sources {
        std::fs::write(folder.path().join(file), text).map_err(|error| error.to_string())?;
        if file.ends_with(".cu") {
            main += &format!("#include \"{file}\"\n");
        }
    }
    main += "extern \"C\" {\nemulator::Kernel emulator_kernels[] = {\n";
    for name in names() {
        main += &format!("  emulator::Caller<{name}>::named(\"{name}\"),\n");
    }
    main += "};\nconst char* emulator_launch(emulator::Call call, const unsigned* grid, unsigned block,\n\
             \x20   size_t shared, void** arguments, unsigned order) {\n\
             \x20 return emulator::launch(call, {grid[0], grid[1], grid[2]}, {block, 1, 1}, shared, arguments, order);\n}\n}\n";
    let path = folder.path().join("main.cpp");
    std::fs::write(&path, main).map_err(|error| error.to_string())?;
    share(&path, built)
}

/// Compiles a source into a library.
fn share(source: &Path, built: &Path) -> std::result::Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let out = folder.path().join("out.so");
    let said = Command::new("c++")
        .args([
            "-std=c++17",
            "-O2",
            "-shared",
            "-fPIC",
            "-ffp-contract=off",
            "-o",
        ])
        .args([out.as_path(), source])
        .output()
        .map_err(|error| format!("no C++ compiler: c++: {error}"))?;
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
    // Another process may be at it: a rename is whole.
    let ready = PathBuf::from(format!("{}.{}", built.display(), std::process::id()));
    std::fs::copy(&out, &ready).map_err(|error| error.to_string())?;
    std::fs::rename(&ready, built).map_err(|error| error.to_string())
}

/// Bytes on either side of memory that nobody may write.
const GUARD: usize = 256;
const GUARDED: u8 = 0xa5;

/// What a test sees of a device that an engine has taken, and does to it.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) launched: RefCell<BTreeSet<&'static str>>,
    /// Launches, copies and requests for memory so far.
    pub(crate) n_calls: Cell<u64>,
    /// Memory that is taken.
    pub(crate) n_bytes: Cell<usize>,
    /// The calls that fail: all from one on where the device is lost, a few where its memory is full for a moment.
    pub(crate) failing: RefCell<Range<u64>>,
}

impl Watched {
    /// From this many calls on nothing answers any more.
    pub(crate) fn lose_after(&self, n_calls: u64) {
        self.failing.replace(self.n_calls.get() + n_calls..u64::MAX);
    }

    /// After this many calls so many fail, and no more.
    pub(crate) fn falter_after(&self, n_calls: u64, n_failing: u64) {
        let at = self.n_calls.get() + n_calls;
        self.failing.replace(at..at + n_failing);
    }

    fn call(&self) -> Result<()> {
        let n = self.n_calls.replace(self.n_calls.get() + 1);
        match self.failing.borrow().contains(&n) {
            true => Err(EngineError::Device("the device is lost".to_owned())),
            false => Ok(()),
        }
    }
}

/// Runs the kernels of a library with threads in one order.
pub(crate) struct Emulated {
    library: &'static Library,
    order: u32,
    memory: RefCell<BTreeMap<u64, Vec<u8>>>,
    /// What makes products, if no kernel does.
    products: Option<CublasLt>,
    told: String,
    pub(crate) watched: Rc<Watched>,
}

impl Emulated {
    pub(crate) fn new(library: &'static Library, order: u32) -> Self {
        Emulated {
            library,
            order,
            memory: RefCell::default(),
            products: None,
            told: "emulated".to_owned(),
            watched: Rc::default(),
        }
    }

    /// The same with products of any size by a library, if it starts.
    pub(crate) fn multiplied_by(mut self, library: &'static Opened) -> Self {
        let (products, told) = started(Some(library), || self.alloc(WORKSPACE_BYTES)).unwrap();
        self.told = format!("emulated, {told}");
        if let Some(mut products) = products {
            products.take_all();
            self.products = Some(products);
        }
        self
    }

    fn check(&self, launch: &Launch) -> Result<usize> {
        let Some((call, letters)) = self.library.kernels.get(launch.kernel) else {
            return Err(EngineError::Device(format!(
                "no kernel `{}`",
                launch.kernel
            )));
        };
        let given: String = launch.args.iter().map(letter).collect();
        assert_eq!(given, *letters, "arguments of `{}`", launch.kernel);
        for arg in launch.args {
            if let Arg::At(address) = arg {
                self.assert_ours(*address, launch.kernel);
            }
        }
        Ok(*call)
    }

    fn assert_ours(&self, address: u64, what: &str) {
        let memory = self.memory.borrow();
        let found = memory.range(..=address).next_back();
        let ours = found.is_some_and(|(at, bytes)| {
            address >= at + GUARD as u64 && address < at + (bytes.len() - GUARD) as u64
        });
        assert!(ours || address == 0, "`{what}`: {address:x} is nobody's");
    }

    fn copy(&self, to: *mut u8, from: *const u8, n: usize) {
        // SAFETY: both are memory of this process; the callers' slices and `alloc` say how much.
        unsafe { std::ptr::copy_nonoverlapping(from, to, n) }
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        if let Some(library) = &self.products {
            self.free(library.workspace());
        }
    }
}

fn letter(arg: &Arg) -> char {
    let of_size = |bytes: usize| char::from(b'A' + (bytes / 8) as u8);
    match arg {
        Arg::At(_) => 'p',
        Arg::Int(_) => 'i',
        Arg::Long(_) => 'l',
        Arg::Float(_) => 'f',
        Arg::Double(_) => 'd',
        Arg::Dropped(x) => of_size(size_of_val(x)),
        Arg::After(x) => of_size(size_of_val(x)),
        Arg::Heads(x) => of_size(size_of_val(x)),
        Arg::Adam(x) => of_size(size_of_val(x)),
    }
}

impl Launcher for Emulated {
    fn name(&self) -> String {
        self.told.clone()
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn shared_limit(&self) -> usize {
        99 << 10
    }

    fn alloc(&self, n_bytes: usize) -> Result<u64> {
        self.watched.call()?;
        let mut bytes = vec![GUARDED; n_bytes + 2 * GUARD];
        bytes[GUARD..GUARD + n_bytes].fill(0xff);
        let address = bytes.as_mut_ptr() as u64;
        self.memory.borrow_mut().insert(address, bytes);
        let n_taken = &self.watched.n_bytes;
        n_taken.set(n_taken.get() + n_bytes);
        Ok(address + GUARD as u64)
    }

    fn free(&self, address: u64) {
        let bytes = self.memory.borrow_mut().remove(&(address - GUARD as u64));
        let bytes = bytes.expect("freed memory is ours");
        let n_taken = &self.watched.n_bytes;
        n_taken.set(n_taken.get() - (bytes.len() - 2 * GUARD));
        let (before, rest) = bytes.split_at(GUARD);
        let behind = &rest[rest.len() - GUARD..];
        let whole = before.iter().chain(behind).all(|&byte| byte == GUARDED);
        assert!(whole, "a kernel wrote outside its memory");
    }

    fn write(&self, to: u64, from: Numbers) -> Result<()> {
        self.watched.call()?;
        let (from, n) = match from {
            Numbers::F32(x) => (x.as_ptr().cast(), size_of_val(x)),
            Numbers::U16(x) => (x.as_ptr().cast(), size_of_val(x)),
            Numbers::U32(x) => (x.as_ptr().cast(), size_of_val(x)),
        };
        self.copy(to as *mut u8, from, n);
        Ok(())
    }

    fn read(&self, to: NumbersMut, from: u64) -> Result<()> {
        self.watched.call()?;
        let (to, n) = match to {
            NumbersMut::F32(x) => (x.as_mut_ptr().cast(), size_of_val(x)),
            NumbersMut::U32(x) => (x.as_mut_ptr().cast(), size_of_val(x)),
        };
        self.copy(to, from as *const u8, n);
        Ok(())
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.watched.call()?;
        self.watched.launched.borrow_mut().insert(launch.kernel);
        let call = self.check(launch)?;
        let args: Vec<*const c_void> = launch.args.iter().map(Arg::pointer).collect();
        // SAFETY: the arguments have the kernel's types (checked); what it reads and writes is the
        // kernel's affair, here as on a GPU, and the guards tell of most that is wrong.
        let fault = unsafe {
            (self.library.launch)(
                call as *const c_void,
                launch.grid.as_ptr(),
                launch.block,
                launch.shared_bytes as usize,
                args.as_ptr(),
                self.order,
            )
        };
        if fault.is_null() {
            return Ok(());
        }
        // SAFETY: a constant of the library.
        let fault = unsafe { CStr::from_ptr(fault) }.to_string_lossy();
        Err(EngineError::Device(format!("`{}`: {fault}", launch.kernel)))
    }

    fn multiplies(&self, shape: (usize, usize, usize)) -> bool {
        self.products
            .as_ref()
            .is_some_and(|library| library.takes(shape))
    }

    fn multiply(&self, product: &Product) -> Result<bool> {
        let Some(library) = &self.products else {
            return Ok(false);
        };
        self.watched.call()?;
        for address in [product.to, product.a, product.b] {
            self.assert_ours(address, "a library's product");
        }
        library.multiply(product)
    }

    fn forget(&self, address: u64, n_bytes: usize) {
        let nan = vec![0xff; n_bytes];
        self.copy(address as *mut u8, nan.as_ptr(), n_bytes);
    }
}
