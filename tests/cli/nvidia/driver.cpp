// NVIDIA's driver as `stages/model/src/gpu/cuda.rs` calls it, with the emulator in place of GPUs. So the real
// binary trains with `--device cuda` on a machine that has none: what it asks of `libcuda`, in which order, and what it
// makes of its errors is tested; time, and what only silicon does, is not.
//
// A call needs a context on its thread, and memory belongs to a GPU, as with the real one. Set from outside:
// NVIDIA_GPUS how many, NVIDIA_CAPABILITY such as 90, NVIDIA_TAKEN what others hold of the memory
// of each, NVIDIA_FULL_AT bytes of which nothing warns, NVIDIA_LOST_AFTER the launches after which none works any more,
// NVIDIA_WITHOUT a kernel that does nothing, and NVIDIA_CRASHES that the first call ends the process.
#include <map>
#include <mutex>
#include <string>

namespace {
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
// Attributes by their numbers: shared memory that a block can ask for, and the two halves of the capability.
enum { SHARED_OPTIN = 97, MAJOR = 75, MINOR = 76 };

unsigned long long told(const char* name, unsigned long long otherwise) {
  const char* text = getenv(name);
  return text ? strtoull(text, nullptr, 10) : otherwise;
}

struct Gpu {
  std::map<u64, size_t> taken;
  size_t used = 0;
};

std::mutex lock;
Gpu gpus[8];
unsigned long long launches;
thread_local Gpu* current;

int count() { return (int)told("NVIDIA_GPUS", 1); }
const size_t WHOLE = 1 << 30;
size_t left() { return WHOLE - told("NVIDIA_TAKEN", 0) - current->used; }

// Memory of the GPU whose context is current.
bool is_ours(u64 address, size_t bytes) {
  auto next = current->taken.upper_bound(address);
  if (next == current->taken.begin()) return false;
  auto found = std::prev(next);
  return address + bytes <= found->first + found->second;
}

bool is_lost() { return launches >= told("NVIDIA_LOST_AFTER", ~0ull); }

int copy(void* to, const void* from, u64 device, size_t bytes) {
  std::lock_guard<std::mutex> held(lock);
  if (!current) return INVALID_CONTEXT;
  if (is_lost()) return LAUNCH_FAILED;
  if (!is_ours(device, bytes)) return INVALID_VALUE;
  memcpy(to, from, bytes);
  return SUCCESS;
}
}  // namespace

extern "C" {
int cuInit(unsigned) {
  if (getenv("NVIDIA_CRASHES")) abort();
  return count() ? SUCCESS : NO_DEVICE;
}

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return SUCCESS;
}

int cuDeviceGetCount(int* n) {
  *n = count();
  return SUCCESS;
}

int cuDeviceGet(int* device, int number) {
  *device = number;
  return number < count() ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetName(char* name, int len, int) {
  snprintf(name, len, "Emulated GPU");
  return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = WHOLE;
  return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  int capability = (int)told("NVIDIA_CAPABILITY", 90);
  switch (attribute) {
    case MAJOR: *value = capability / 10; return SUCCESS;
    case MINOR: *value = capability % 10; return SUCCESS;
    case SHARED_OPTIN: *value = 99 << 10; return SUCCESS;
    default: return INVALID_VALUE;
  }
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = &gpus[device];
  return SUCCESS;
}

int cuCtxSetCurrent(void* context) {
  current = (Gpu*)context;
  return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
  // A cubin is an ELF file, and PTX is text.
  bool is_image = !memcmp(image, "\x7f" "ELF", 4) || strstr((const char*)image, ".version");
  *module = current;
  return !current ? INVALID_CONTEXT : is_image ? SUCCESS : INVALID_VALUE;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
  for (auto& kernel : emulator_kernels)
    if (!strcmp(kernel.name, name)) {
      *function = &kernel;
      return SUCCESS;
    }
  return NOT_FOUND;
}

int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }

int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  std::lock_guard<std::mutex> held(lock);
  if (!current) return INVALID_CONTEXT;
  *total = WHOLE;
  *free_bytes = left();
  return SUCCESS;
}

int cuMemAlloc_v2(u64* address, size_t bytes) {
  std::lock_guard<std::mutex> held(lock);
  if (!current) return INVALID_CONTEXT;
  if (is_lost()) return LAUNCH_FAILED;
  if (!bytes) return INVALID_VALUE;
  if (bytes > left() || current->used + bytes > told("NVIDIA_FULL_AT", WHOLE)) return OUT_OF_MEMORY;
  void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, 0xff, bytes);
  *address = (u64)memory;
  current->taken[*address] = bytes;
  current->used += bytes;
  return SUCCESS;
}

int cuMemFree_v2(u64 address) {
  std::lock_guard<std::mutex> held(lock);
  if (!current) return INVALID_CONTEXT;
  auto found = current->taken.find(address);
  if (found == current->taken.end()) return INVALID_VALUE;
  current->used -= found->second;
  current->taken.erase(found);
  free((void*)address);
  return SUCCESS;
}

int cuMemcpyHtoD_v2(u64 to, const void* from, size_t bytes) { return copy((void*)to, from, to, bytes); }

int cuMemcpyDtoH_v2(void* to, u64 from, size_t bytes) { return copy(to, (const void*)from, from, bytes); }

int cuLaunchKernel(void* function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void*, void** arguments, void**) {
  auto& kernel = *(emulator::Kernel*)function;
  {
    std::lock_guard<std::mutex> held(lock);
    if (!current) return INVALID_CONTEXT;
    if (is_lost()) return LAUNCH_FAILED;
    ++launches;
    // Where an argument is an address, what it names is this GPU's.
    for (int i = 0; kernel.letters[i]; ++i)
      if (kernel.letters[i] == 'p' && *(u64*)arguments[i] && !is_ours(*(u64*)arguments[i], 1)) return INVALID_VALUE;
  }
  const char* without = getenv("NVIDIA_WITHOUT");
  if (without && !strcmp(without, kernel.name)) return SUCCESS;
  auto fault = emulator::launch(kernel.call, {x, y, z}, {block_x, block_y, block_z}, shared, arguments, 0);
  if (!fault) return SUCCESS;
  fprintf(stderr, "%s: %s\n", kernel.name, fault);
  return LAUNCH_FAILED;
}

int cuGetErrorName(int error, const char** name) {
  switch (error) {
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return SUCCESS;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; return SUCCESS;
    case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; return SUCCESS;
    case LAUNCH_FAILED: *name = "CUDA_ERROR_LAUNCH_FAILED"; return SUCCESS;
    default: *name = "CUDA_ERROR_INVALID_VALUE"; return SUCCESS;
  }
}
}
