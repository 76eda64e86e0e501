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
  u32 posts[2][6];
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
#define PAIRED_KERNEL KERNEL
#define FN static inline
#define SHARED(T, name) \
  T* name = reinterpret_cast<T*>(((uintptr_t)emulator::machine->shared.data() + 15) & ~(uintptr_t)15)
#define INF HUGE_VALF
#define threadIdx (emulator::machine->now->index)
#define blockIdx (emulator::machine->at)
#define blockDim (emulator::machine->block)
#define gridDim (emulator::machine->grid)

FN void __syncthreads() { emulator::stop(emulator::AT_BARRIER); }

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

namespace emulator {
// What the lanes of a warp posted, each at the same word.
struct Posted {
  const Fiber* lanes;
  unsigned lane, turn;
  u32 of(unsigned lane, unsigned i) const { return lanes[lane].posts[turn][i]; }
};

// Two places take turns: who posts again has passed the barrier behind which all had read.
inline Posted exchange(const u32* words, unsigned n) {
  Fiber* me = machine->now;
  size_t i = me - machine->fibers.data();
  unsigned turn = me->n_posts++ & 1;
  memcpy(me->posts[turn], words, 4 * n);
  stop(AT_WARP);
  return {me - (i & 31), (unsigned)(i & 31), turn};
}

// One of the two bf16 of a word.
inline float half(u32 word, unsigned high) { return of_bits(high ? word & 0xffff0000u : word << 16); }

// Bits of the nearest bf16; what is no number stays none.
inline u32 bf16(float x) {
  u32 b = bits_of(x);
  return x != x ? 0x7fffu : (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
}

inline void assert_aligned(const void* at, size_t n) {
  if ((uintptr_t)at % n) machine->fault = "neighbours that do not begin at a multiple of their bytes";
}
}  // namespace emulator

FN float from_lane(float v, int other) {
  u32 bits = bits_of(v);
  emulator::Posted posted = emulator::exchange(&bits, 1);
  return of_bits(posted.of(posted.lane ^ other, 0));
}
FN u32 pack(float low, float high) { return emulator::bf16(low) | emulator::bf16(high) << 16; }
FN void mma(float (&sums)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const u32 words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  emulator::Posted posted = emulator::exchange(words, 6);
  unsigned group = posted.lane / 4, pair = posted.lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    unsigned row = group + i / 2 * 8, column = 2 * pair + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      u32 left = posted.of(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2), right = posted.of(column * 4 + k % 8 / 2, 4 + k / 8);
      sums[i] += emulator::half(left, k % 2) * emulator::half(right, k % 2);
    }
  }
}
FN void read_four(float (&to)[4], const float* from) {
  emulator::assert_aligned(from, 16);
  memcpy(to, from, 16);
}
FN void write_four(u32* to, const u32 (&x)[4]) {
  emulator::assert_aligned(to, 16);
  memcpy(to, x, 16);
}
FN void read_two(u32& first, u32& second, const u32* from) {
  emulator::assert_aligned(from, 8);
  first = from[0], second = from[1];
}
FN void write_two(u32* to, u32 first, u32 second) {
  emulator::assert_aligned(to, 8);
  to[0] = first, to[1] = second;
}
FN void copy_async(float* to, const float* from) { emulator::machine->now->copies.push_back({to, from}); }
FN void wait_for_copies() {
  for (auto& copy : emulator::machine->now->copies) *copy.to = *copy.from;
  emulator::machine->now->copies.clear();
}
