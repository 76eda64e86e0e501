//! Matrices that are read: any layout, bounds checked once.

#[cfg(target_arch = "x86_64")]
use std::ops::Range;

/// A read-only matrix: element `(i, j)` is `data[i * row + j * col]`.
/// Building one checks its bounds, so that products need no checks of their own.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) strides: Strides,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strides {
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl<'a> View<'a> {
    /// All of `data` as a row-major matrix with this many columns.
    ///
    /// # Panics
    /// When `data` is not a whole number of rows.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        assert!(cols > 0 && data.len().is_multiple_of(cols));
        Self::strided(data, data.len() / cols, cols, cols)
    }

    /// A row-major matrix whose rows are `stride` numbers apart.
    ///
    /// # Panics
    /// When `data` ends before the last row does.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * stride + cols <= data.len());
        let strides = Strides {
            row: stride,
            col: 1,
        };
        View {
            data,
            rows,
            cols,
            strides,
        }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        View {
            rows: self.cols,
            cols: self.rows,
            strides: Strides {
                row: self.strides.col,
                col: self.strides.row,
            },
            ..self
        }
    }

    /// The part of these rows and columns.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn part(self, rows: Range<usize>, cols: Range<usize>) -> Self {
        assert!(rows.end <= self.rows && cols.end <= self.cols);
        let Strides { row, col } = self.strides;
        View {
            data: &self.data[rows.start * row + cols.start * col..],
            rows: rows.len(),
            cols: cols.len(),
            ..self
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.data.as_ptr()
    }

    pub(super) fn strides(&self) -> Strides {
        self.strides
    }
}
