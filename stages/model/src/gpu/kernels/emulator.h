// CUDA's execution model on a CPU, for tests. A thread is a fiber; blocks run one after another. Shared
// memory starts as NaN, asynchronous copies happen only when waited for, and the order of threads
// between barriers is a parameter: a result that depends on it is a race. It says nothing about time,
// bank conflicts or the order in which memory is seen.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <algorithm>
#include <utility>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
typedef uint16_t u16;
typedef uint32_t u32;
typedef unsigned long long u64;
struct dim3 {
  unsigned x, y, z;
};

namespace emulator {
#if defined(__x86_64__)
// Saves the registers that a call must keep, and goes on where another stack was left.
extern "C" void emulator_switch(void** from, void* to);
asm(R"(
.text
.type emulator_switch,@function
emulator_switch:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");
struct Place {
  void* stack = nullptr;
  void begin(char* bytes, size_t n, void (*entry)()) {
    uintptr_t top = ((uintptr_t)bytes + n) & ~(uintptr_t)15;
    void** at = (void**)top;
    *--at = nullptr;
    *--at = (void*)entry;
    stack = at - 6;
  }
  void go(Place& to) { emulator_switch(&stack, to.stack); }
};
#else
struct Place {
  ucontext_t at;
  void begin(char* bytes, size_t n, void (*entry)()) {
    getcontext(&at);
    at.uc_stack.ss_sp = bytes;
    at.uc_stack.ss_size = n;
    at.uc_link = nullptr;
    makecontext(&at, entry, 0);
  }
  void go(Place& to) { swapcontext(&at, &to.at); }
};
#endif

enum State { READY, AT_BARRIER, AT_WARP, DONE };
const size_t STACK = 32 << 10;

struct Copy {
  float* to;
  const float* from;
};

struct Fiber {
  Place place;
  State state;
  dim3 index;
  float posts[2];
  unsigned n_posts;
  std::vector<Copy> copies;
};

typedef void (*Call)(void** arguments);

struct Machine {
  dim3 grid, block, at;
  Call call;
  void** arguments;
  Fiber* now;
  const char* fault;
  Place scheduler;
  std::vector<Fiber> fibers;
  std::vector<char> stacks, shared;
};

inline thread_local Machine* machine __attribute__((tls_model("initial-exec")));

inline void stop(State state) {
  machine->now->state = state;
  machine->now->place.go(machine->scheduler);
}

inline void run() {
  machine->call(machine->arguments);
  if (!machine->now->copies.empty()) machine->fault = "copies that nobody waited for";
  stop(DONE);
}

// Lets go those that wait at a barrier which all have reached.
inline bool release(Machine& m, unsigned n) {
  bool any = false;
  unsigned waiting = 0, done = 0;
  for (unsigned w = 0; w < n; w += 32) {
    unsigned end = std::min(w + 32, n), here = 0;
    for (unsigned i = w; i < end; ++i) here += m.fibers[i].state == AT_WARP;
    if (here && here != end - w) m.fault = "a part of a warp at an operation of the whole warp";
    for (unsigned i = w; here && i < end; ++i) m.fibers[i].state = READY;
    any |= here > 0;
  }
  for (unsigned i = 0; i < n; ++i) {
    waiting += m.fibers[i].state == AT_BARRIER;
    done += m.fibers[i].state == DONE;
  }
  if (any || done == n) return any;
  if (waiting != n) m.fault = "a barrier that only a part of the block reaches";
  for (unsigned i = 0; i < n; ++i) m.fibers[i].state = READY;
  return true;
}

inline void run_block(Machine& m, unsigned n, unsigned order) {
  std::fill(m.shared.begin(), m.shared.end(), (char)0xff);
  std::vector<unsigned> turns(n);
  for (unsigned i = 0; i < n; ++i) turns[i] = order == 1 ? n - 1 - i : i;
  u32 random = order;
  for (unsigned i = n; order > 1 && i > 1; --i) {
    random = random * 1664525u + 1013904223u;
    std::swap(turns[i - 1], turns[(random >> 8) % i]);
  }
  for (unsigned i = 0; i < n; ++i) {
    Fiber& fiber = m.fibers[i];
    fiber.state = READY;
    fiber.index = {i % m.block.x, i / m.block.x % m.block.y, i / m.block.x / m.block.y};
    fiber.n_posts = 0;
    fiber.copies.clear();
    fiber.place.begin(m.stacks.data() + i * STACK, STACK, run);
  }
  do {
    for (unsigned i : turns)
      if (m.fibers[i].state == READY && !m.fault) {
        m.now = &m.fibers[i];
        m.scheduler.go(m.now->place);
      }
  } while (!m.fault && release(m, n));
}

// Returns what was wrong, or null.
inline const char* launch(Call call, dim3 grid, dim3 block, size_t shared, void** arguments, unsigned order) {
  static thread_local Machine mine;
  Machine& m = *(machine = &mine);
  unsigned n = block.x * block.y * block.z, blocks = grid.x * grid.y * grid.z;
  m.grid = grid;
  m.block = block;
  m.call = call;
  m.arguments = arguments;
  m.fault = nullptr;
  if (m.fibers.size() < n) m.fibers.resize(n);
  if (m.stacks.size() < n * STACK) m.stacks.resize(n * STACK);
  m.shared.resize(shared + 16);
  for (unsigned b = 0; b < blocks && !m.fault; ++b) {
    unsigned i = order % 2 ? blocks - 1 - b : b;
    m.at = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
    run_block(m, n, order);
  }
  return m.fault;
}

// A type by a letter: numbers have their own, a structure that of its size.
template <class T>
struct Letter {
  static char of() { return (char)('A' + sizeof(T) / 8); }
};
template <> inline char Letter<int>::of() { return 'i'; }
template <> inline char Letter<u32>::of() { return 'u'; }
template <> inline char Letter<u64>::of() { return 'l'; }
template <> inline char Letter<float>::of() { return 'f'; }
template <> inline char Letter<double>::of() { return 'd'; }
template <class T>
struct Letter<T*> {
  static char of() { return 'p'; }
};

struct Kernel {
  const char* name;
  Call call;
  char letters[32];
};

// Makes of a kernel something to be called with pointers to its arguments, and writes down their types.
template <auto F>
struct Caller;
template <class... A, void (*F)(A...)>
struct Caller<F> {
  template <size_t... I>
  static void unpack(void** arguments, std::index_sequence<I...>) { F(*(A*)arguments[I]...); }
  static void call(void** arguments) { unpack(arguments, std::index_sequence_for<A...>()); }
  static Kernel named(const char* name) { return {name, call, {Letter<A>::of()...}}; }
};
}  // namespace emulator

#define KERNEL static void
#define FN static inline
#define SHARED(T, name) \
  T* name = reinterpret_cast<T*>(((uintptr_t)emulator::machine->shared.data() + 15) & ~(uintptr_t)15)
#define INF HUGE_VALF
#define threadIdx (emulator::machine->now->index)
#define blockIdx (emulator::machine->at)
#define blockDim (emulator::machine->block)
#define gridDim (emulator::machine->grid)

FN void __syncthreads() { emulator::stop(emulator::AT_BARRIER); }

// Two places take turns: who posts again has passed the barrier behind which all had read.
FN float from_lane(float v, int other) {
  using namespace emulator;
  Machine& m = *machine;
  unsigned turn = m.now->n_posts++ & 1;
  m.now->posts[turn] = v;
  stop(AT_WARP);
  size_t i = m.now - m.fibers.data();
  return m.fibers[(i & ~(size_t)31) + ((i & 31) ^ other)].posts[turn];
}

FN u32 bits_of(float x) {
  u32 bits;
  memcpy(&bits, &x, 4);
  return bits;
}
FN float of_bits(u32 bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
FN void copy_async(float* to, const float* from) { emulator::machine->now->copies.push_back({to, from}); }
FN void wait_for_copies() {
  for (auto& copy : emulator::machine->now->copies) *copy.to = *copy.from;
  emulator::machine->now->copies.clear();
}
