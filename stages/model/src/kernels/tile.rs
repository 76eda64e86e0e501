//! A few rows times one panel, as addresses: what a tile kernel is handed.

/// Outputs in one panel.
pub(crate) const LANES: usize = 32;

/// Most rows that one call of a tile kernel takes.
pub(crate) const TILE_ROWS: usize = 12;

/// A few rows times one panel: `out[r][lane] (+)= sum over i of rows[r][i] * panel[i][lane]`.
///
/// Elements are 32 bits wide: one f32, or two bf16 of which the first is the lower half.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) depth: usize,
    pub(crate) rows: *const u32,
    pub(crate) row_stride: usize,
    pub(crate) n_rows: usize,
    pub(crate) panel: *const u32,
    pub(crate) out: *mut f32,
    pub(crate) out_stride: usize,
    pub(crate) add: bool,
}

impl Tile {
    /// The part of this tile that starts `n` rows later.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn skip(self, n: usize) -> Tile {
        Tile {
            rows: self.rows.wrapping_add(n * self.row_stride),
            out: self.out.wrapping_add(n * self.out_stride),
            n_rows: self.n_rows - n,
            ..self
        }
    }
}

/// Writes a finished sum, or adds it: a sum that began at a large number would lose the small ones.
#[inline(always)]
pub(super) fn put(sums: [f32; LANES], out: &mut [f32; LANES], add: bool) {
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = if add { *out + sum } else { sum };
    }
}
