//! The kernels on a GPU of any maker, through what its system brings: Metal or Vulkan.
//!
//! Kernels of their own in WGSL (`portable/*.wgsl`), which see all memory as one buffer: so an address is a
//! number here as it is for CUDA, and the engine is the same. The buffer grows as memory is asked for, and
//! launches are collected until somebody waits for what they compute.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::halves;
use super::kernels::names;
use super::launcher::{Arg, Dropped, Launch, Launcher, Numbers, NumbersMut};
use crate::engine::EngineError;
use crate::ops::Result;

const SOURCES: &[&str] = &[
    include_str!("portable/words.wgsl"),
    include_str!("portable/elements.wgsl"),
    include_str!("portable/rows.wgsl"),
    include_str!("portable/products.wgsl"),
    include_str!("portable/attention.wgsl"),
    include_str!("portable/optimizer.wgsl"),
];
/// Kernels for GPUs that have f16 as well.
const HALVES: &str = include_str!("portable/halves.wgsl");

/// Before what a kernel is called by anywhere else: some of those names are words of WGSL.
const PREFIX: &str = "k_";
/// Words of one launch, the grid before the arguments; also what offsets into their buffer are multiples of.
const WORDS: usize = 64;
/// Launches that are collected at most: a system ends what keeps its GPU for seconds.
const MOST: usize = 32;
/// Groups in a row of a dispatch; `ACROSS` of `words.wgsl`.
const ACROSS: u32 = 65_535;
/// The buffer's first size, and where its memory begins: before it stands how much was handed over.
const FIRST_BYTES: u64 = 16 << 20;
const BEGIN: u64 = 256;
/// `WIDEST` of `attention.wgsl`.
const WIDEST_HEAD: usize = 512;

/// A GPU that can train, as `doctor` and a run tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPortable {
    pub name: String,
    /// Metal or Vulkan, and the driver.
    pub system: String,
    /// The most that one model can take on it.
    pub total_bytes: u64,
    /// Whether a training in bf16 holds its tiles in f16.
    pub has_f16: bool,
}

impl FoundPortable {
    /// What computes on it, for the record of a run.
    pub fn kernels(&self) -> String {
        let halves = match self.has_f16 {
            true => ", f16 tiles to train in bf16",
            false => "",
        };
        format!("{}, {}, own products{halves}", self.name, self.system)
    }
}

/// Says that a program that plays a GPU will do: slower than a processor, and good for tests.
pub const SOFTWARE: &str = "TINYLM_SOFTWARE_GPU";
/// Says by a `0` that tiles are f32 where the GPU has f16, too.
const F16: &str = "TINYLM_F16";

/// What of a system's GPUs is taken where it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) software: bool,
    pub(super) f16: bool,
}

impl Taken {
    /// As whoever started this program says.
    pub(super) fn as_told() -> Self {
        Taken {
            software: std::env::var_os(SOFTWARE).is_some(),
            f16: std::env::var_os(F16).is_none_or(|said| said != "0"),
        }
    }
}

/// Looks for a GPU; the error says what is missing.
pub fn find_portable() -> std::result::Result<FoundPortable, String> {
    let taken = Taken::as_told();
    adapter(taken.software).map(|adapter| found(&adapter, taken))
}

fn adapter(takes_software: bool) -> std::result::Result<wgpu::Adapter, String> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let wish = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    let adapter = pollster::block_on(instance.request_adapter(&wish))
        .map_err(|_| "neither Metal nor Vulkan shows one".to_owned())?;
    let info = adapter.get_info();
    let is_software = info.device_type == wgpu::DeviceType::Cpu;
    if is_software && !takes_software {
        let name = info.name;
        return Err(format!(
            "`{name}` is a program that plays a GPU; {SOFTWARE}=1 takes it"
        ));
    }
    Ok(adapter)
}

fn found(adapter: &wgpu::Adapter, taken: Taken) -> FoundPortable {
    let info = adapter.get_info();
    FoundPortable {
        name: info.name,
        // The driver compiles the kernels: another one may round differently.
        system: format!("{:?} {}", info.backend, info.driver_info)
            .trim()
            .to_owned(),
        total_bytes: most_bytes(&adapter.limits()),
        has_f16: taken.f16 && adapter.features().contains(wgpu::Features::SHADER_F16),
    }
}

/// The largest buffer that a kernel can see, in whole pages.
fn most_bytes(limits: &wgpu::Limits) -> u64 {
    let most = limits.max_storage_buffer_binding_size;
    most.min(limits.max_buffer_size).min(u32::MAX.into()) / 4096 * 4096
}

fn failed(what: &str) -> EngineError {
    let advice = "the run goes on from its last checkpoint, with `--device cpu` too";
    EngineError::Device(format!("{what}; {advice}"))
}

/// One GPU, with the kernels on it.
pub(crate) struct Portable {
    found: FoundPortable,
    device: wgpu::Device,
    queue: wgpu::Queue,
    module: wgpu::ShaderModule,
    layout: wgpu::BindGroupLayout,
    /// Threads of a group, by kernel.
    blocks: HashMap<&'static str, u32>,
    pipelines: RefCell<HashMap<&'static str, wgpu::ComputePipeline>>,
    words: wgpu::Buffer,
    memory: RefCell<Memory>,
    waiting: RefCell<Vec<Waiting>>,
    /// How often something was handed over; all of it ends in adding one to the number at address zero. Where a GPU
    /// broke off any of it, the number is another.
    n_flushed: Cell<u32>,
    /// The first thing that went wrong.
    fault: Arc<Mutex<Option<String>>>,
}

/// A launch that has not been handed over.
struct Waiting {
    kernel: &'static str,
    words: [u32; WORDS],
    groups: [u32; 2],
}

impl Portable {
    pub(crate) fn open() -> Result<Self> {
        Self::open_one(Taken::as_told())
    }

    /// The same with what is taken here.
    pub(super) fn open_one(taken: Taken) -> Result<Self> {
        let adapter = adapter(taken.software).map_err(EngineError::Device)?;
        let found = found(&adapter, taken);
        let asked = wgpu::DeviceDescriptor {
            required_features: match found.has_f16 {
                true => wgpu::Features::SHADER_F16,
                false => wgpu::Features::empty(),
            },
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&asked))
            .map_err(|error| failed(&format!("the GPU cannot be opened: {error}")))?;
        let fault: Arc<Mutex<Option<String>>> = Arc::default();
        let keep = |fault: &Arc<Mutex<Option<String>>>| {
            let fault = Arc::clone(fault);
            move |what: String| {
                let mut fault = fault.lock().unwrap_or_else(PoisonError::into_inner);
                fault.get_or_insert(what);
            }
        };
        let (on_error, on_loss) = (keep(&fault), keep(&fault));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            on_error(error.to_string());
        }));
        device.set_device_lost_callback(move |reason, what| {
            // So it is called for one that nobody needs any more, too.
            if reason != wgpu::DeviceLostReason::Destroyed {
                on_loss(format!("the GPU is lost: {what}"));
            }
        });
        let source = source(found.has_f16);
        let blocks = blocks(&source);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let layout = layout(&device);
        let words = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: (4 * WORDS * (MOST + 1)) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let memory = Memory::new(&device, &layout, &words, most_bytes(&device.limits()))
            .ok_or_else(|| failed("the GPU has no memory free"))?;
        let portable = Portable {
            found,
            module,
            blocks,
            pipelines: RefCell::default(),
            memory: RefCell::new(memory),
            waiting: RefCell::default(),
            n_flushed: Cell::new(0),
            layout,
            words,
            device,
            queue,
            fault,
        };
        portable.write_counter();
        portable.check()?;
        Ok(portable)
    }

    /// Tells of what went wrong since the GPU was opened.
    fn check(&self) -> Result<()> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().map_or(Ok(()), |what| Err(failed(what)))
    }

    fn pipeline(&self, kernel: &'static str) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.borrow_mut();
        let pipeline = pipelines.entry(kernel).or_insert_with(|| {
            let layouts = [Some(&self.layout)];
            let layout = self
                .device
                .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                    label: None,
                    bind_group_layouts: &layouts,
                    ..Default::default()
                });
            let entry_point = format!("{PREFIX}{kernel}");
            self.device
                .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(kernel),
                    layout: Some(&layout),
                    module: &self.module,
                    entry_point: Some(&entry_point),
                    compilation_options: wgpu::PipelineCompilationOptions {
                        // Kernels write what they share before they read it.
                        zero_initialize_workgroup_memory: false,
                        ..Default::default()
                    },
                    cache: None,
                })
        });
        pipeline.clone()
    }

    /// Begins to count: nothing at address zero, and behind it the one that is added.
    fn write_counter(&self) {
        let bytes: Vec<u8> = [0.0_f32, 1.0]
            .iter()
            .flat_map(|x| x.to_ne_bytes())
            .collect();
        self.queue
            .write_buffer(&self.memory.borrow().buffer, 0, &bytes);
    }

    /// Hands over all that waits.
    fn flush(&self) {
        let mut waiting = self.waiting.take();
        if waiting.is_empty() {
            return;
        }
        // As an f32, in which these are exact; it begins anew long before they are not.
        if self.n_flushed.get() == 1 << 20 {
            self.n_flushed.set(0);
            self.write_counter();
        }
        self.n_flushed.set(self.n_flushed.get() + 1);
        let mut words = [0; WORDS];
        words[..7].copy_from_slice(&[1, 1, 1, 0, 0, 4, 1]);
        waiting.push(Waiting {
            kernel: "add_to",
            words,
            groups: [1, 1],
        });
        let words = waiting.iter().flat_map(|one| one.words);
        let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        self.queue.write_buffer(&self.words, 0, &bytes);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let memory = self.memory.borrow();
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (idx, one) in waiting.iter().enumerate() {
            pass.set_pipeline(&self.pipeline(one.kernel));
            pass.set_bind_group(0, &memory.bound, &[(4 * WORDS * idx) as u32]);
            pass.dispatch_workgroups(one.groups[0], one.groups[1], 1);
        }
        drop(pass);
        self.queue.submit([encoder.finish()]);
    }

    /// Bytes of the buffer, once all that was launched has written them.
    fn bytes(&self, from: u64, n_bytes: usize) -> Result<Vec<u8>> {
        self.flush();
        let size = 4 + (n_bytes as u64).next_multiple_of(4);
        let shown = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let buffer = &self.memory.borrow().buffer;
        encoder.copy_buffer_to_buffer(buffer, 0, &shown, 0, 4);
        encoder.copy_buffer_to_buffer(buffer, from, &shown, 4, size - 4);
        self.queue.submit([encoder.finish()]);
        shown.slice(..).map_async(wgpu::MapMode::Read, |_| ());
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        waited.map_err(|error| failed(&error.to_string()))?;
        let view = shown.slice(..).get_mapped_range();
        let view = view.map_err(|error| failed(&error.to_string()))?;
        if view[..4] != (self.n_flushed.get() as f32).to_ne_bytes() {
            return Err(failed("the GPU broke off what was launched"));
        }
        Ok(view[4..4 + n_bytes].to_vec())
    }
}

/// The buffer that all kernels see, and the words of a launch.
fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |binding, ty, is_moved| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: is_moved,
            min_binding_size: None,
        },
        count: None,
    };
    let all = wgpu::BufferBindingType::Storage { read_only: false };
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &[
            entry(0, all, false),
            entry(1, wgpu::BufferBindingType::Uniform, true),
        ],
    })
}

/// All kernels of a GPU.
fn source(has_f16: bool) -> String {
    match has_f16 {
        true => ["enable f16;\n", &SOURCES.concat(), HALVES].concat(),
        false => SOURCES.concat(),
    }
}

/// How many threads a group of each kernel has, as its source says.
fn blocks(source: &str) -> HashMap<&'static str, u32> {
    let size_of = |name: &str| {
        let at = source.find(&format!("\nfn {PREFIX}{name}("))?;
        let (_, size) = source[..at].rsplit_once("@workgroup_size(")?;
        size.split(')').next()?.parse().ok()
    };
    let all = names().chain(halves::names());
    all.filter_map(|name| Some((name, size_of(name)?)))
        .collect()
}

/// The words of an argument.
fn words_of(arg: &Arg, to: &mut Vec<u32>) {
    let dropped = |x: &Dropped, to: &mut Vec<u32>| {
        let key = [x.key as u32, (x.key >> 32) as u32];
        to.extend(key);
        to.extend([x.row_offset, x.len, x.below, x.scale.to_bits()]);
    };
    match arg {
        Arg::At(x) | Arg::Long(x) => to.push(*x as u32),
        Arg::Int(x) => to.push(*x as u32),
        Arg::Float(x) => to.push(x.to_bits()),
        Arg::Double(x) => to.push((*x as f32).to_bits()),
        Arg::Dropped(x) => dropped(x, to),
        Arg::After(x) => {
            to.extend([x.bias as u32, x.residual as u32, x.hidden as u32]);
            dropped(&x.dropped, to);
            to.extend([x.then as u32, x.activation as u32]);
        }
        Arg::Heads(x) => {
            let sizes = [x.n_heads, x.n_kv_heads, x.d_head, x.len, x.round];
            to.extend(sizes.map(|n| n as u32));
            to.push(x.scale.to_bits());
        }
        Arg::Adam(x) => {
            let numbers = [x.beta1, x.beta2, x.eps, x.lr, x.correction2, x.keep];
            to.extend(numbers.map(f32::to_bits));
        }
    }
}

impl Launcher for Portable {
    fn name(&self) -> String {
        self.found.kernels()
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(self.memory.borrow().free_bytes())
    }

    /// Attention here goes without tiles, whose sizes this would bound.
    fn shared_limit(&self) -> usize {
        usize::MAX
    }

    /// WGSL has no word for them.
    fn has_tensor_cores(&self) -> bool {
        false
    }

    fn widest_head(&self) -> usize {
        WIDEST_HEAD
    }

    fn has_f16(&self) -> bool {
        self.found.has_f16
    }

    fn alloc(&self, n_bytes: usize) -> Result<u64> {
        self.check()?;
        let size = n_bytes as u64;
        if let Some(address) = self.memory.borrow_mut().parts.take(size) {
            return Ok(address);
        }
        self.flush();
        let mut memory = self.memory.borrow_mut();
        memory.grow(size, (&self.device, &self.queue), &self.layout, &self.words)?;
        self.check()?;
        let taken = memory.parts.take(size);
        taken.ok_or_else(|| failed("the GPU's memory is in pieces"))
    }

    fn free(&self, address: u64) {
        self.memory.borrow_mut().parts.give_back(address);
    }

    fn write(&self, to: u64, from: Numbers) -> Result<()> {
        // What waits may read what stood there.
        self.flush();
        let mut bytes: Vec<u8> = match from {
            Numbers::F32(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
            Numbers::U16(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
            Numbers::U32(x) => x.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let memory = self.memory.borrow();
        self.queue.write_buffer(&memory.buffer, to, &bytes);
        self.check()
    }

    fn read(&self, to: NumbersMut, from: u64) -> Result<()> {
        match to {
            NumbersMut::F32(to) => {
                let bytes = self.bytes(from, size_of_val(to))?;
                for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
                    *to = f32::from_ne_bytes(*bytes);
                }
            }
            NumbersMut::U32(to) => {
                let bytes = self.bytes(from, size_of_val(to))?;
                for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
                    *to = u32::from_ne_bytes(*bytes);
                }
            }
        }
        Ok(())
    }

    /// An f32: there are no others here.
    fn double(&self, words: [u32; 2]) -> f64 {
        f32::from_bits(words[0]).into()
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        if self.blocks.get(launch.kernel) != Some(&launch.block) {
            let what = format!("no kernel `{}` of {} threads", launch.kernel, launch.block);
            return Err(failed(&what));
        }
        let mut all = launch.grid.to_vec();
        all.push(0);
        launch.args.iter().for_each(|arg| words_of(arg, &mut all));
        let mut words = [0; WORDS];
        let Some(to) = words.get_mut(..all.len()) else {
            return Err(failed(&format!("`{}` has too many words", launch.kernel)));
        };
        to.copy_from_slice(&all);
        let n_groups = launch.grid.iter().map(|n| u64::from(*n)).product::<u64>();
        let rows = n_groups.div_ceil(ACROSS.into());
        let groups = [n_groups.min(ACROSS.into()) as u32, rows as u32];
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(Waiting {
            kernel: launch.kernel,
            words,
            groups,
        });
        let is_full = waiting.len() == MOST;
        drop(waiting);
        if is_full {
            self.flush();
            self.check()?;
        }
        Ok(())
    }
}

/// The one buffer, and which of its parts are free.
struct Memory {
    buffer: wgpu::Buffer,
    bound: wgpu::BindGroup,
    most: u64,
    parts: Parts,
}

impl Memory {
    fn new(
        device: &wgpu::Device,
        layout: &wgpu::BindGroupLayout,
        words: &wgpu::Buffer,
        most: u64,
    ) -> Option<Self> {
        let size = FIRST_BYTES.min(most);
        let buffer = buffer(device, size)?;
        let mut parts = Parts::default();
        parts.add(BEGIN..size);
        Some(Memory {
            bound: bound(device, layout, &buffer, words),
            buffer,
            most,
            parts,
        })
    }

    fn free_bytes(&self) -> u64 {
        self.most - self.buffer.size() + self.parts.free_bytes()
    }

    /// Makes the buffer larger by at least so much, with all that is in it.
    fn grow(
        &mut self,
        size: u64,
        (device, queue): (&wgpu::Device, &wgpu::Queue),
        layout: &wgpu::BindGroupLayout,
        words: &wgpu::Buffer,
    ) -> Result<()> {
        let old = self.buffer.size();
        let needed = old + size.next_multiple_of(BEGIN);
        if needed > self.most {
            let most = self.most >> 20;
            return Err(failed(&format!(
                "the GPU has too little memory: a model can take {most} MB of it; set a smaller `micro_batch`"
            )));
        }
        let new = (2 * old).max(needed).min(self.most);
        let larger = buffer(device, new).or_else(|| buffer(device, needed));
        let Some(larger) = larger else {
            let needed = needed >> 20;
            return Err(failed(&format!(
                "the GPU has no {needed} MB in one piece; set a smaller `micro_batch`, or end what else uses it"
            )));
        };
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.buffer, 0, &larger, 0, old);
        queue.submit([encoder.finish()]);
        self.bound = bound(device, layout, &larger, words);
        self.parts.add(old..larger.size());
        self.buffer = larger;
        Ok(())
    }
}

/// Which parts of something long are free, and which are taken.
#[derive(Default)]
struct Parts {
    /// Where free parts begin and end; no two touch.
    free: BTreeMap<u64, u64>,
    taken: HashMap<u64, u64>,
}

impl Parts {
    fn free_bytes(&self) -> u64 {
        self.free.iter().map(|(start, end)| end - start).sum()
    }

    /// The beginning of the first part that is large enough.
    fn take(&mut self, size: u64) -> Option<u64> {
        let size = size.next_multiple_of(BEGIN).max(BEGIN);
        let fits = |(start, end): &(&u64, &u64)| **end - **start >= size;
        let (&start, &end) = self.free.iter().find(fits)?;
        self.free.remove(&start);
        if start + size < end {
            self.free.insert(start + size, end);
        }
        self.taken.insert(start, start + size);
        Some(start)
    }

    fn give_back(&mut self, start: u64) {
        if let Some(end) = self.taken.remove(&start) {
            self.add(start..end);
        }
    }

    /// Joins a free part with those that it touches.
    fn add(&mut self, part: Range<u64>) {
        let (mut start, mut end) = (part.start, part.end);
        if let Some(behind) = self.free.remove(&end) {
            end = behind;
        }
        let before = self.free.range(..start).next_back();
        if let Some((&first, _)) = before.filter(|(_, until)| **until == start) {
            start = first;
        }
        self.free.insert(start, end);
    }
}

/// None where there is not so much memory.
fn buffer(device: &wgpu::Device, size: u64) -> Option<wgpu::Buffer> {
    use wgpu::BufferUsages as For;
    let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let buffer = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size,
        usage: For::STORAGE | For::COPY_SRC | For::COPY_DST,
        mapped_at_creation: false,
    });
    let error = pollster::block_on(scope.pop());
    error.is_none().then_some(buffer)
}

fn bound(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    memory: &wgpu::Buffer,
    words: &wgpu::Buffer,
) -> wgpu::BindGroup {
    let one = wgpu::BufferBinding {
        buffer: words,
        offset: 0,
        size: std::num::NonZero::new(4 * WORDS as u64),
    };
    let entries = [
        wgpu::BindGroupEntry {
            binding: 0,
            resource: memory.as_entire_binding(),
        },
        wgpu::BindGroupEntry {
            binding: 1,
            resource: wgpu::BindingResource::Buffer(one),
        },
    ];
    device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout,
        entries: &entries,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::gpu::kernels::is_tensor;

    proptest! {
        #[test]
        fn parts_never_overlap_and_come_together_again(
            steps in proptest::collection::vec((0_u64..5000, 0_usize..8), 1..60),
        ) {
            let mut parts = Parts::default();
            parts.add(BEGIN..1 << 16);
            let all = parts.free_bytes();
            let mut held: Vec<Range<u64>> = Vec::new();
            for (size, given_back) in steps {
                if given_back < held.len() {
                    parts.give_back(held.swap_remove(given_back).start);
                }
                let Some(start) = parts.take(size) else { continue };
                let part = start..start + size.max(1);
                prop_assert!(start >= BEGIN && part.end <= 1 << 16 && start % BEGIN == 0);
                prop_assert!(held.iter().all(|other| other.end <= part.start || part.end <= other.start));
                held.push(part);
            }
            held.iter().for_each(|part| parts.give_back(part.start));
            prop_assert_eq!(parts.free_bytes(), all);
            prop_assert_eq!(parts.free.len(), 1);
        }
    }

    #[test]
    fn every_kernel_that_is_launched_here_is_written_down() {
        let known = blocks(&source(true));
        let named = names()
            .filter(|name| !is_tensor(name))
            .chain(halves::names());
        let missing: Vec<&str> = named.filter(|name| !known.contains_key(name)).collect();
        // Halves are for NVIDIA's library, and tiles of 16 for its shared memory.
        assert_eq!(
            missing,
            ["halves", "attend_16", "attend_keys_16", "attend_queries_16"]
        );
    }
}
