//! The seam below the engine: weights somewhere, and operations on them.

use rayon::ThreadPool;

use crate::engine::Score;
use crate::ops::{Result, Scene};

/// Where weights live and what computes gradients.
///
/// Not `Send`, because CUDA's handles are not; so a backend enters the thread pool itself.
pub(crate) trait Backend {
    /// Takes over all weights with their shapes, and which of them are trained.
    fn load(&mut self, weights: Vec<(Vec<f32>, Vec<usize>)>, trained: &[bool]) -> Result<()>;

    /// Copies all weights, in order.
    fn weights(&self, threads: &ThreadPool) -> Result<Vec<Vec<f32>>>;

    /// Lets `f` change these weights, in order, on these threads.
    fn change(
        &mut self,
        threads: &ThreadPool,
        which: &[bool],
        f: &mut (dyn FnMut(usize, &mut [f32]) + Send),
    ) -> Result<()>;

    /// Adds to the gradients and returns the summed loss.
    fn accumulate(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
        grads: &mut [Option<Vec<f32>>],
    ) -> Result<f64>;

    fn scores(
        &mut self,
        threads: &ThreadPool,
        scene: Scene,
        names: &[String],
    ) -> Result<Vec<Score>>;

    /// Takes back a gradient that was used.
    fn recycle(&self, grad: Vec<f32>);
}
