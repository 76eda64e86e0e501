// cuBLASLt as its documentation describes it, for the part that tinylm uses: column by column, in host memory.
//
// It is stricter than it needs to be. What is of the wrong size or type, an algorithm for something else, a workspace that is too
// small, memory that is aligned to less than was said: all are refused, where a GPU would compute something. Where
// sums may be added in any order, it adds them in another one each time. A test plants what is missing or fails.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };
enum Compute { COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };
enum Operation { OP_N = 0, OP_T = 1 };
enum Reduction { INPLACE = 1, COMPUTE_TYPE = 2, OUTPUT_TYPE = 4 };

struct Handle {
  uint32_t magic;
};

struct Product {
  int32_t compute, scale, op_a, op_b;
};

struct Matrix {
  int32_t type;
  uint64_t rows, columns;
  int64_t ld;
};

struct Wish {
  uint64_t workspace;
  uint32_t reductions, aligned[4];  // of A, B, C and D
};

// What the 64 bytes of an algorithm say here; nobody else looks into them.
struct Algorithm {
  uint32_t magic, reduction, aligned[4], sort, workspace;
  uint32_t rest[8];
};

struct Advice {
  Algorithm algorithm;
  size_t workspace;
  int32_t state;
  float waves;
  int32_t reserved[4];
};

static_assert(sizeof(Algorithm) == 64 && sizeof(Advice) == 96, "the sizes of cublasLt.h");

const uint32_t HANDLE = 0x6c74u, ALGORITHM = 0xa190u;
const uint32_t WORKSPACE = 1u << 16;

template <typename T, typename V>
static int set(T& to, const V* from, size_t size) {
  if (size != sizeof(T)) return INVALID_VALUE;
  std::memcpy(&to, from, size);
  return SUCCESS;
}

static uint32_t mixed(uint32_t sum, uint64_t x) { return (sum ^ (uint32_t)(x ^ x >> 32)) * 16777619u; }

// Every size and type of a product, so that an algorithm for another one is known.
static uint32_t sort_of(const Product& product, const Matrix* const* matrices) {
  uint32_t sum = mixed(mixed(mixed(2166136261u, product.op_a), product.op_b), product.compute);
  for (int i = 0; i < 4; ++i) {
    const Matrix& x = *matrices[i];
    sum = mixed(mixed(mixed(mixed(sum, x.type), x.rows), x.columns), x.ld);
  }
  return sum;
}

static bool fits(const Product& product, const Matrix* const* matrices) {
  for (int i = 0; i < 4; ++i)
    if (matrices[i]->ld < (int64_t)matrices[i]->rows || matrices[i]->rows == 0 || matrices[i]->columns == 0) return false;
  const Matrix &a = *matrices[0], &b = *matrices[1], &c = *matrices[2], &d = *matrices[3];
  uint64_t m = product.op_a == OP_T ? a.columns : a.rows, a_k = product.op_a == OP_T ? a.rows : a.columns;
  uint64_t n = product.op_b == OP_T ? b.rows : b.columns, b_k = product.op_b == OP_T ? b.columns : b.rows;
  return a_k == b_k && c.rows == m && c.columns == n && d.rows == m && d.columns == n;
}

static bool is_supported(const Product& product, const Matrix* const* matrices) {
  bool computes = product.compute == COMPUTE_32F || product.compute == COMPUTE_32F_FAST_TF32;
  bool multiplies = matrices[0]->type == matrices[1]->type && (matrices[0]->type == F32 || matrices[0]->type == BF16);
  return computes && product.scale == F32 && multiplies && matrices[2]->type == F32 && matrices[3]->type == F32;
}

static float number(const void* x, uint64_t at, const Matrix& matrix, int compute) {
  uint32_t bits;
  if (matrix.type == BF16) {
    bits = (uint32_t)((const uint16_t*)x)[at] << 16;
  } else {
    bits = ((const uint32_t*)x)[at];
    if (compute == COMPUTE_32F_FAST_TF32) bits &= 0xffffe000u;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// op(x), row by row of the result's side, so that a sum runs through memory.
static std::vector<float> lines(const void* x, const Matrix& matrix, bool along_columns, int compute) {
  uint64_t n = along_columns ? matrix.columns : matrix.rows, k = along_columns ? matrix.rows : matrix.columns;
  std::vector<float> out(n * k);
  for (uint64_t i = 0; i < n; ++i)
    for (uint64_t q = 0; q < k; ++q) {
      uint64_t at = along_columns ? q + i * (uint64_t)matrix.ld : i + q * (uint64_t)matrix.ld;
      out[i * k + q] = number(x, at, matrix, compute);
    }
  return out;
}

// Sums in eight parts, as a GPU's lanes would, beginning at `first`.
static float dot(const float* a, const float* b, uint64_t k, uint32_t first) {
  float parts[8] = {}, sum = 0;
  for (uint64_t q = 0; q < k; ++q) parts[q % 8] += a[q] * b[q];
  for (uint32_t i = 0; i < 8; ++i) sum += parts[(first + i) % 8];
  return sum;
}

extern "C" {

size_t cublasLtGetVersion() { return 120405; }

const char* cublasLtGetStatusName(int status) {
  switch (status) {
    case SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return nullptr;
  }
}

int cublasLtCreate(Handle** handle) {
  *handle = new Handle{HANDLE};
  return SUCCESS;
}

int cublasLtDestroy(Handle* handle) {
  delete handle;
  return SUCCESS;
}

int cublasLtMatmulDescCreate(Product** product, int compute, int scale) {
  *product = new Product{compute, scale, OP_N, OP_N};
  return SUCCESS;
}

int cublasLtMatmulDescSetAttribute(Product* product, int name, const void* value, size_t size) {
  switch (name) {
    case 3: return set(product->op_a, value, size);
    case 4: return set(product->op_b, value, size);
    default: return INVALID_VALUE;
  }
}

int cublasLtMatmulDescDestroy(Product* product) {
  delete product;
  return SUCCESS;
}

int cublasLtMatrixLayoutCreate(Matrix** matrix, int type, uint64_t rows, uint64_t columns, int64_t ld) {
  *matrix = new Matrix{type, rows, columns, ld};
  return SUCCESS;
}

int cublasLtMatrixLayoutDestroy(Matrix* matrix) {
  delete matrix;
  return SUCCESS;
}

int cublasLtMatmulPreferenceCreate(Wish** wish) {
  *wish = new Wish{0, INPLACE | COMPUTE_TYPE | OUTPUT_TYPE, {256, 256, 256, 256}};
  return SUCCESS;
}

int cublasLtMatmulPreferenceSetAttribute(Wish* wish, int name, const void* value, size_t size) {
  switch (name) {
    case 1: return set(wish->workspace, value, size);
    case 3: return set(wish->reductions, value, size);
    case 5: case 6: case 7: case 8: return set(wish->aligned[name - 5], value, size);
    default: return INVALID_VALUE;
  }
}

int cublasLtMatmulPreferenceDestroy(Wish* wish) {
  delete wish;
  return SUCCESS;
}

int cublasLtMatmulAlgoGetHeuristic(Handle* handle, Product* product, Matrix* a, Matrix* b, Matrix* c, Matrix* d,
                                   Wish* wish, int n_asked, Advice* advice, int* n_found) {
  const Matrix* matrices[] = {a, b, c, d};
  *n_found = 0;
  if (handle->magic != HANDLE || n_asked < 1 || !fits(*product, matrices)) return INVALID_VALUE;
  if (!is_supported(*product, matrices)) return NOT_SUPPORTED;
  Algorithm algorithm = {};
  algorithm.magic = ALGORITHM;
  algorithm.sort = sort_of(*product, matrices);
  // The fastest that is allowed: sums that meet in the result first, then those with a workspace.
  if (wish->reductions & (INPLACE | OUTPUT_TYPE)) algorithm.reduction = INPLACE;
  else if (wish->reductions & COMPUTE_TYPE && wish->workspace >= WORKSPACE) algorithm.reduction = COMPUTE_TYPE;
  algorithm.workspace = algorithm.reduction ? WORKSPACE : 0;
  std::memcpy(algorithm.aligned, wish->aligned, sizeof algorithm.aligned);
  *advice = {algorithm, algorithm.workspace, SUCCESS, 1.f, {}};
  *n_found = 1;
  return SUCCESS;
}

int cublasLtMatmul(Handle* handle, Product* product, const float* alpha, const void* a, Matrix* a_is, const void* b,
                   Matrix* b_is, const float* beta, const float* c, Matrix* c_is, float* d, Matrix* d_is,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream) {
  const Matrix* matrices[] = {a_is, b_is, c_is, d_is};
  const void* addresses[] = {a, b, c, d};
  if (handle->magic != HANDLE || stream || !fits(*product, matrices)) return INVALID_VALUE;
  if (!is_supported(*product, matrices)) return NOT_SUPPORTED;
  if (algorithm->magic != ALGORITHM || algorithm->sort != sort_of(*product, matrices)) return INVALID_VALUE;
  if (algorithm->workspace > workspace_bytes) return INVALID_VALUE;
  for (int i = 0; i < 4; ++i)
    if (!addresses[i] || (uintptr_t)addresses[i] % algorithm->aligned[i]) return INVALID_VALUE;
  static uint32_t n_sums = 0;
  if (algorithm->workspace) std::memset(workspace, 0xff, algorithm->workspace);
  std::vector<float> left = lines(a, *a_is, product->op_a == OP_T, product->compute);
  std::vector<float> right = lines(b, *b_is, product->op_b == OP_N, product->compute);
  uint64_t m = d_is->rows, n = d_is->columns, k = left.size() / m;
  for (uint64_t j = 0; j < n; ++j)
    for (uint64_t i = 0; i < m; ++i) {
      uint32_t first = algorithm->reduction == INPLACE ? n_sums++ : 0;
      float sum = *alpha * dot(&left[i * k], &right[j * k], k, first);
      // Without a share in the result, what lies there is not read.
      if (*beta != 0) sum += *beta * c[i + j * (uint64_t)c_is->ld];
      d[i + j * (uint64_t)d_is->ld] = sum;
    }
  return SUCCESS;
}
}
