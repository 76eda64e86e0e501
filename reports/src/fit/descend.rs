//! Finds where a sum of Huber's losses is least, within bounds.
//!
//! Levenberg and Marquardt's way: residuals are taken as straight lines, large ones weigh less, and
//! the step is damped until it descends. The parameters are five and the points some dozens, so a
//! step is a small system of equations, solved anew each time. A parameter that is held at its bound
//! is left out of the step, or it would drag the others along. Nothing here is random: the same points
//! and start give the same bits.

/// Parameters.
pub(super) const N: usize = 5;

pub(super) type Vector = [f64; N];

#[derive(Clone)]
pub(super) struct Bounds {
    /// Residuals beyond this count by their size and not by its square.
    pub(super) square_max: f64,
    pub(super) low: Vector,
    pub(super) high: Vector,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) at: Vector,
    pub(super) cost: f64,
}

/// What is wrong at a point: by how much, how that changes with each parameter, how much it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Residual {
    pub(super) size: f64,
    pub(super) slopes: Vector,
    pub(super) weight: f64,
}

/// Descends from a start for at most `steps_max` steps.
pub(super) fn descend<F, I>(residuals: F, bounds: &Bounds, start: Vector, steps_max: usize) -> Found
where
    F: Fn(Vector) -> I,
    I: Iterator<Item = Residual>,
{
    /// A step that gains less than this share is the last.
    const GAIN_MIN: f64 = 1e-13;
    const DAMPING_MAX: f64 = 1e12;
    let cost = |at: Vector| {
        residuals(at)
            .map(|one| one.weight * huber(one.size, bounds.square_max))
            .sum()
    };
    let mut at = bounds.held(start);
    let mut found: f64 = cost(at);
    let mut damping = 1e-3;
    let mut n_small = 0;
    for _ in 0..steps_max {
        let (matrix, slope) = normal_equations(residuals(at), &at, bounds);
        let step = solved(damped(matrix, damping), slope);
        let next = bounds.held(std::array::from_fn(|idx| at[idx] - step[idx]));
        let next_cost = cost(next);
        if next_cost < found {
            // Damped steps gain little each; only several of them in a row are an end.
            n_small = match found - next_cost < GAIN_MIN * found {
                true => n_small + 1,
                false => 0,
            };
            (at, found) = (next, next_cost);
            damping = f64::max(damping * 0.2, 1e-12);
        } else {
            damping *= 4.0;
        }
        if n_small >= 3 || damping > DAMPING_MAX || found == 0.0 {
            break;
        }
    }
    Found { at, cost: found }
}

impl Bounds {
    fn held(&self, at: Vector) -> Vector {
        std::array::from_fn(|idx| at[idx].clamp(self.low[idx], self.high[idx]))
    }

    /// Whether going down the slope would leave the bounds.
    fn is_stuck(&self, at: &Vector, slope: &Vector, idx: usize) -> bool {
        at[idx] <= self.low[idx] && slope[idx] > 0.0
            || at[idx] >= self.high[idx] && slope[idx] < 0.0
    }
}

fn huber(residual: f64, square_max: f64) -> f64 {
    let size = residual.abs();
    match size <= square_max {
        true => size * size / 2.0,
        false => square_max * (size - square_max / 2.0),
    }
}

fn normal_equations(
    residuals: impl Iterator<Item = Residual>,
    at: &Vector,
    bounds: &Bounds,
) -> ([Vector; N], Vector) {
    let mut matrix = [[0.0; N]; N];
    let mut slope = [0.0; N];
    for Residual {
        size,
        slopes,
        weight,
    } in residuals
    {
        let weight = weight * f64::min(1.0, bounds.square_max / size.abs().max(f64::MIN_POSITIVE));
        for row in 0..N {
            slope[row] += weight * size * slopes[row];
            for column in 0..N {
                matrix[row][column] += weight * slopes[row] * slopes[column];
            }
        }
    }
    for idx in 0..N {
        if bounds.is_stuck(at, &slope, idx) {
            matrix[idx] = [0.0; N];
            matrix.iter_mut().for_each(|row| row[idx] = 0.0);
            slope[idx] = 0.0;
        }
    }
    (matrix, slope)
}

fn damped(mut matrix: [Vector; N], damping: f64) -> [Vector; N] {
    let largest = (0..N).map(|idx| matrix[idx][idx]).fold(1e-300, f64::max);
    for (idx, row) in matrix.iter_mut().enumerate() {
        // A direction without any slope gets the least of the others' damping.
        row[idx] += damping * row[idx].max(largest * 1e-9);
    }
    matrix
}

/// Solves a system of equations by elimination, the largest pivot first.
fn solved(mut matrix: [Vector; N], mut right: Vector) -> Vector {
    for column in 0..N {
        let size = |row: &usize| matrix[*row][column].abs();
        let pivot = (column..N).max_by(|a, b| size(a).total_cmp(&size(b)));
        let pivot = pivot.unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        if matrix[column][column] == 0.0 {
            continue;
        }
        let upper = matrix[column];
        for row in column + 1..N {
            let factor = matrix[row][column] / upper[column];
            for (value, above) in matrix[row].iter_mut().zip(upper) {
                *value -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    let mut solution = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N)
            .map(|idx| matrix[row][idx] * solution[idx])
            .sum();
        solution[row] = match matrix[row][row] {
            0.0 => 0.0,
            pivot => (right[row] - known) / pivot,
        };
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Bounds = Bounds {
        square_max: 0.01,
        low: [-100.0; N],
        high: [100.0; N],
    };

    /// A residual for each parameter, least at 1, 2, 3, 4, 5, the first two bound to each other.
    fn apart(at: Vector) -> impl Iterator<Item = Residual> {
        (0..N).map(move |idx| {
            let mut slopes = [0.0; N];
            slopes[idx] = 1.0;
            let mut size = at[idx] - (idx + 1) as f64;
            if idx == 0 {
                slopes[1] = 0.9;
                size += 0.9 * (at[1] - 2.0);
            }
            Residual {
                size,
                slopes,
                weight: 1.0,
            }
        })
    }

    #[test]
    fn what_is_straight_is_found_from_anywhere() {
        for start in [[0.0; N], [90.0; N], [-50.0, 3.0, 70.0, 0.0, 5.0]] {
            let found = descend(apart, &WIDE, start, 500);
            for (idx, value) in found.at.iter().enumerate() {
                assert!((value - (idx + 1) as f64).abs() < 1e-5, "{:?}", found.at);
            }
        }
    }

    #[test]
    fn a_bound_holds_and_leaves_the_others_free() {
        let bounds = Bounds {
            high: [100.0, 100.0, 2.5, 100.0, 100.0],
            ..WIDE
        };
        let found = descend(apart, &bounds, [0.0; N], 500).at;
        assert_eq!(found[2], 2.5);
        assert!(
            (found[3] - 4.0).abs() < 1e-5 && (found[0] - 1.0).abs() < 1e-5,
            "{found:?}"
        );
    }

    #[test]
    fn an_outlier_pulls_no_harder_the_farther_it_lies() {
        let with_outlier = |far: f64| {
            let residuals = move |at: Vector| {
                let x = at[0];
                let of = [0.0, 0.002, -0.001, 0.001, far].into_iter();
                of.map(move |target| Residual {
                    size: x - target,
                    slopes: [1.0, 0.0, 0.0, 0.0, 0.0],
                    weight: 1.0,
                })
            };
            descend(residuals, &WIDE, [5.0; N], 500).at[0]
        };
        assert!((with_outlier(1.0) - with_outlier(50.0)).abs() < 1e-6);
    }
}
