// What follows a sum of a product, the same for every kernel that makes one.
#pragma once
#include "words.h"

enum { SET, ADD, ACTIVATE, RESIDUAL };

// What becomes of a sum: see `Then` in `ops.rs`; a bias is added before.
struct After {
  const float* bias;
  const float* residual;
  float* hidden;  // takes the values before the activation
  Mask mask;
  int then, kind;
};

FN void finish(float* y, int row, int column, int n, float sum, const After& after) {
  u64 at = (u64)row * n + column;
  if (after.bias) sum += after.bias[column];
  if (after.then == ADD) {
    sum += y[at];
  } else if (after.then == ACTIVATE) {
    after.hidden[at] = sum;
    sum = activation(after.kind, sum).value * factor(line_of(after.mask, row, 0), column);
  } else if (after.then == RESIDUAL) {
    sum = sum * factor(line_of(after.mask, row, 0), column) + after.residual[at];
  }
  y[at] = sum;
}
