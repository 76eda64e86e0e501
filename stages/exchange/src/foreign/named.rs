//! Tensors of another program's file, whatever the format.

use super::error::ForeignError;
use tinylm_model::engine::Tensor;

/// Tensors by the names that another program gave them.
pub(crate) trait Named {
    fn names(&self) -> Vec<String>;
    fn shape(&self, name: &str) -> Option<Vec<usize>>;
    fn get(&self, name: &str) -> Result<Tensor, ForeignError>;
}
