//! The kernels' sources, and their names.

/// All that is compiled, for GPUs and for the emulator alike.
pub(crate) const SOURCES: &[(&str, &str)] = &[
    #[cfg(test)]
    ("emulator.h", include_str!("kernels/emulator.h")),
    ("words.h", include_str!("kernels/words.h")),
    ("heads.h", include_str!("kernels/heads.h")),
    ("after.h", include_str!("kernels/after.h")),
    ("elements.cu", include_str!("kernels/elements.cu")),
    ("rows.cu", include_str!("kernels/rows.cu")),
    ("products.cu", include_str!("kernels/products.cu")),
    ("tensor.cu", include_str!("kernels/tensor.cu")),
    ("attention.cu", include_str!("kernels/attention.cu")),
    (
        "tensor_attention.cu",
        include_str!("kernels/tensor_attention.cu"),
    ),
    ("cached.cu", include_str!("kernels/cached.cu")),
    ("optimizer.cu", include_str!("kernels/optimizer.cu")),
];

/// The kernels' names, in the order of the sources.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let lines = SOURCES.iter().flat_map(|(_, text)| text.lines());
    lines.filter_map(|line| {
        let line = line.strip_prefix("PAIRED_").unwrap_or(line);
        line.strip_prefix("KERNEL ")?.split('(').next()
    })
}

/// Whether a kernel runs on tensor cores, by its name.
#[cfg(test)]
pub(crate) fn is_tensor(name: &str) -> bool {
    name.ends_with("_bf16")
}
