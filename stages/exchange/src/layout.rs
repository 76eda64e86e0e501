//! How one of our tensors lies in another program's file: the same numbers in another order.

use std::{borrow::Cow, ops::Range};

use tinylm_model::config::{ModelConfig, Positions};

/// A tensor of a foreign file, and where its numbers are taken from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    /// Our name.
    pub(crate) from: String,
    /// The shape it has by now.
    pub(crate) shape: Vec<usize>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Transpose {
        n_rows: usize,
    },
    Rows {
        range: Range<usize>,
        width: usize,
    },
    ZerosInFront(usize),
    PartsByHead {
        n_heads: usize,
    },
    /// Of each head, rows `0 h 1 h+1 ..`, where `h` is half a head.
    HalvesInterleaved {
        d_head: usize,
        width: usize,
    },
    /// Rows of each of the first heads as [`turned_first`] has them.
    TurnedFirst {
        n_heads: usize,
        order: Vec<usize>,
        width: usize,
    },
    /// Rows `0 2 4 .. 1 3 5 ..` of this width.
    EvenRowsFirst {
        width: usize,
    },
    EvenColumnsFirst {
        width: usize,
    },
}

impl Tensor {
    /// One of our tensors as it is.
    pub(crate) fn of(config: &ModelConfig, from: &str) -> Tensor {
        let mut parameters = config.parameters().into_iter();
        let found = parameters.find(|parameter| parameter.name == from);
        // Empty of one that this model has not.
        Tensor::new(
            from,
            found.map_or_else(Vec::new, |parameter| parameter.shape),
        )
    }

    pub(crate) fn new(from: &str, shape: Vec<usize>) -> Tensor {
        Tensor {
            from: from.to_owned(),
            shape,
            steps: Vec::new(),
        }
    }

    pub(crate) fn n(&self) -> usize {
        self.shape.iter().product()
    }

    fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// `(out, in)` as `(in, out)`; a bias stays.
    pub(crate) fn transposed(mut self) -> Tensor {
        if let [n_rows, n_columns] = self.shape[..] {
            self.steps.push(Step::Transpose { n_rows });
            self.shape = vec![n_columns, n_rows];
        }
        self
    }

    pub(crate) fn rows(mut self, range: Range<usize>) -> Tensor {
        let width = self.width();
        self.shape[0] = range.len();
        self.steps.push(Step::Rows { range, width });
        self
    }

    /// Rows that the other program has no use for.
    pub(crate) fn behind_zeros(mut self, n_rows: usize) -> Tensor {
        self.steps.push(Step::ZerosInFront(n_rows * self.width()));
        self.shape[0] += n_rows;
        self
    }

    /// Queries, keys and values of each head together, where they were of all heads.
    pub(crate) fn parts_by_head(mut self, n_heads: usize) -> Tensor {
        self.steps.push(Step::PartsByHead { n_heads });
        self
    }

    /// What rope turns together side by side, where it was half a head apart.
    pub(crate) fn halves_interleaved(mut self, d_head: usize) -> Tensor {
        let width = self.width();
        self.steps.push(Step::HalvesInterleaved { d_head, width });
        self
    }

    /// Of queries and keys what rope turns in front, where the halves of each pair were half a head apart.
    pub(crate) fn turned_first(mut self, config: &ModelConfig) -> Tensor {
        if config.positions != Positions::Rope || config.rope_share == 1.0 {
            return self;
        }
        self.steps.push(Step::TurnedFirst {
            n_heads: config.n_heads + config.n_kv_heads,
            order: turned_first(config),
            width: self.width(),
        });
        self
    }

    pub(crate) fn even_rows_first(mut self) -> Tensor {
        let width = self.width();
        self.steps.push(Step::EvenRowsFirst { width });
        self
    }

    pub(crate) fn even_columns_first(mut self) -> Tensor {
        let width = self.width();
        self.steps.push(Step::EvenColumnsFirst { width });
        self
    }

    /// The same places for the two factors of a matrix, `B A`: its columns are those of `A`, its rows
    /// those of `B`.
    pub(crate) fn factors(&self, rank: usize) -> [Tensor; 2] {
        let is_turned = |step: &Step| matches!(step, Step::Transpose { .. });
        let (n_out, n_in) = match self.steps.iter().any(is_turned) {
            true => (self.shape[1], self.shape[0]),
            false => (self.shape[0], self.shape[1]),
        };
        let factor = |shape: [usize; 2], step: fn(&Step, usize) -> Option<Step>| Tensor {
            from: self.from.clone(),
            shape: shape.to_vec(),
            steps: self
                .steps
                .iter()
                .filter_map(|one| step(one, rank))
                .collect(),
        };
        let of_a = |step: &Step, _| match step {
            Step::EvenColumnsFirst { .. } => Some(step.clone()),
            _ => None,
        };
        [
            factor([rank, n_in], of_a),
            factor([n_out, rank], Step::on_rows),
        ]
    }

    /// Puts numbers in order.
    pub(crate) fn laid<'a>(&self, mut numbers: Cow<'a, [f32]>) -> Cow<'a, [f32]> {
        for step in &self.steps {
            numbers = Cow::Owned(step.laid(&numbers));
        }
        numbers
    }
}

impl Step {
    /// The same for rows of another width, where it moves rows.
    fn on_rows(&self, width: usize) -> Option<Step> {
        match self.clone() {
            Step::Rows { range, .. } => Some(Step::Rows { range, width }),
            Step::HalvesInterleaved { d_head, .. } => {
                Some(Step::HalvesInterleaved { d_head, width })
            }
            Step::TurnedFirst { n_heads, order, .. } => Some(Step::TurnedFirst {
                n_heads,
                order,
                width,
            }),
            Step::EvenRowsFirst { .. } => Some(Step::EvenRowsFirst { width }),
            Step::PartsByHead { n_heads } => Some(Step::PartsByHead { n_heads }),
            Step::Transpose { .. } | Step::ZerosInFront(_) | Step::EvenColumnsFirst { .. } => None,
        }
    }

    fn laid(&self, numbers: &[f32]) -> Vec<f32> {
        match self {
            Step::Transpose { n_rows } => transposed(numbers, *n_rows),
            Step::Rows { range, width } => numbers[range.start * width..range.end * width].to_vec(),
            Step::ZerosInFront(n) => [&vec![0.0; *n], numbers].concat(),
            Step::PartsByHead { n_heads } => {
                let heads: Vec<&[f32]> =
                    numbers.chunks_exact(numbers.len() / 3 / n_heads).collect();
                let order =
                    (0..*n_heads).flat_map(|head| (0..3).map(move |part| part * n_heads + head));
                order.flat_map(|idx| heads[idx]).copied().collect()
            }
            Step::HalvesInterleaved { d_head, width } => {
                let heads = numbers.chunks_exact(d_head * width);
                let interleaved = heads.flat_map(|head| {
                    let (first, second) = head.split_at(head.len() / 2);
                    first.chunks_exact(*width).zip(second.chunks_exact(*width))
                });
                interleaved
                    .flat_map(|(a, b)| a.iter().chain(b))
                    .copied()
                    .collect()
            }
            Step::TurnedFirst {
                n_heads,
                order,
                width,
            } => {
                let d_head = order.len();
                let mut out = numbers.to_vec();
                for head in 0..*n_heads {
                    for (to, from) in order.iter().enumerate() {
                        let row = |at: usize| {
                            (head * d_head + at) * width..(head * d_head + at + 1) * width
                        };
                        out[row(to)].copy_from_slice(&numbers[row(*from)]);
                    }
                }
                out
            }
            Step::EvenRowsFirst { width } => {
                let rows: Vec<&[f32]> = numbers.chunks_exact(*width).collect();
                even_first(&rows).flat_map(|row| *row).copied().collect()
            }
            Step::EvenColumnsFirst { width } => {
                let rows = numbers.chunks_exact(*width);
                rows.flat_map(even_first).copied().collect()
            }
        }
    }
}

/// Where each row of a head is taken from by programs that turn the first rows of a head and leave the
/// rest: here the pairs that stay as they are lie between the halves of those that turn.
pub(crate) fn turned_first(config: &ModelConfig) -> Vec<usize> {
    let (half, turned) = (config.d_head() / 2, config.d_turned() / 2);
    let (first, second) = (0..half, half..config.d_head());
    let parts = |turns: bool| {
        let rows = first.clone().chain(second.clone());
        rows.filter(move |row| (row % half < turned) == turns)
    };
    parts(true).chain(parts(false)).collect()
}

fn even_first<T>(items: &[T]) -> impl Iterator<Item = &T> {
    let evens = items.iter().step_by(2);
    evens.chain(items.iter().skip(1).step_by(2))
}

fn transposed(numbers: &[f32], n_rows: usize) -> Vec<f32> {
    let n_columns = numbers.len() / n_rows;
    let mut out = vec![0.0; numbers.len()];
    for (row_idx, row) in numbers.chunks_exact(n_columns).enumerate() {
        for (column, x) in out.chunks_exact_mut(n_rows).zip(row) {
            column[row_idx] = *x;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(steps: &[Step], n: u8) -> Vec<f32> {
        let tensor = Tensor {
            from: String::new(),
            shape: Vec::new(),
            steps: steps.to_vec(),
        };
        let numbers: Vec<f32> = (0..n).map(f32::from).collect();
        tensor.laid(Cow::Owned(numbers)).into_owned()
    }

    #[test]
    fn turned_rows_come_first_in_the_order_of_their_halves() {
        let config = ModelConfig {
            d_model: 32,
            n_heads: 4,
            rope_share: 0.5,
            ..crate::testing::small(tinylm_model::config::Preset::LlamaTiny)
        };
        assert_eq!(turned_first(&config), [0, 1, 4, 5, 2, 3, 6, 7]);
        let whole = ModelConfig {
            rope_share: 1.0,
            ..config
        };
        assert_eq!(turned_first(&whole), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn each_step_puts_numbers_where_its_name_says() {
        let transpose = Step::Transpose { n_rows: 2 };
        assert_eq!(laid(&[transpose], 6), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let rows = Step::Rows {
            range: 1..2,
            width: 2,
        };
        assert_eq!(laid(&[rows], 6), [2.0, 3.0]);
        assert_eq!(laid(&[Step::ZerosInFront(1)], 2), [0.0, 0.0, 1.0]);
        // Two heads of one row: q0 q1 k0 k1 v0 v1.
        let by_head = Step::PartsByHead { n_heads: 2 };
        assert_eq!(laid(&[by_head], 6), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        let halves = Step::HalvesInterleaved {
            d_head: 4,
            width: 1,
        };
        assert_eq!(laid(&[halves], 8), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        // A head of eight of which four are turned, and one that is not touched.
        let turned = Step::TurnedFirst {
            n_heads: 1,
            order: vec![0, 1, 4, 5, 2, 3, 6, 7],
            width: 1,
        };
        let expected = [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0, 8.0];
        assert_eq!(laid(&[turned], 9), expected);
        let rows = Step::EvenRowsFirst { width: 1 };
        assert_eq!(laid(&[rows], 4), [0.0, 2.0, 1.0, 3.0]);
        let columns = Step::EvenColumnsFirst { width: 2 };
        assert_eq!(laid(&[columns], 4), [0.0, 1.0, 2.0, 3.0]);
    }
}
