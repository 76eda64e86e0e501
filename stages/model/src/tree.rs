//! Sums in one order, whoever makes their parts.
//!
//! Numbers that a machine adds come out otherwise in another order: of a left fold's sums, 41 of 100
//! change when two processes make a half each. So the parts of a step, its leaves, are added in a
//! tree whose shape hangs on nothing but their number. Each half of it is a sum that one process can
//! make alone, and the sum of all is the same for one process and for seven.

use std::ops::Range;

/// Where a node of more than one leaf divides: its left half holds the largest power of two of leaves
/// that is less than all.
fn middle(node: &Range<usize>) -> usize {
    let half = node.len().next_power_of_two() / 2;
    node.start + half
}

/// The largest whole nodes below `node` that make up its leaves in `ours`, from left to right.
pub fn nodes(node: Range<usize>, ours: &Range<usize>) -> Vec<Range<usize>> {
    if node.end <= ours.start || ours.end <= node.start {
        return Vec::new();
    }
    if ours.start <= node.start && node.end <= ours.end {
        return vec![node];
    }
    let middle = middle(&node);
    let mut found = nodes(node.start..middle, ours);
    found.extend(nodes(middle..node.end, ours));
    found
}

/// The sum of a node whose leaves are made by `leaf`, from left to right.
pub fn sum<T, E>(
    node: &Range<usize>,
    leaf: &mut impl FnMut(usize) -> Result<T, E>,
    add: &impl Fn(&mut T, T),
) -> Result<T, E> {
    if node.len() <= 1 {
        return leaf(node.start);
    }
    let middle = middle(node);
    let mut left = sum(&(node.start..middle), leaf, add)?;
    add(&mut left, sum(&(middle..node.end), leaf, add)?);
    Ok(left)
}

/// The sum of a node of which `parts` are whole nodes, each with its leaves, in any order. Nothing if
/// one is missing.
pub fn join<T>(
    node: &Range<usize>,
    parts: &mut Vec<(Range<usize>, T)>,
    add: &impl Fn(&mut T, T),
) -> Option<T> {
    if let Some(found) = parts.iter().position(|(leaves, _)| leaves == node) {
        return Some(parts.swap_remove(found).1);
    }
    if node.len() <= 1 {
        return None;
    }
    let middle = middle(node);
    let mut left = join(&(node.start..middle), parts, add)?;
    add(&mut left, join(&(middle..node.end), parts, add)?);
    Some(left)
}

/// One of `n_parts` parts of something, in order and as equal as may be; the last is never the smallest.
pub fn share(n: usize, part: usize, n_parts: usize) -> Range<usize> {
    part * n / n_parts..(part + 1) * n / n_parts
}

/// The leaves that one of `n_ranks` processes makes. None makes more than the first: it waits for the
/// others, and knows by its own share how long they may take.
pub fn ours(n_leaves: usize, rank: usize, n_ranks: usize) -> Range<usize> {
    share(n_leaves, n_ranks - 1 - rank, n_ranks)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn add(left: &mut String, right: String) {
        *left = format!("({left}{right})");
    }

    fn alone(n_leaves: usize) -> String {
        let mut leaf = |leaf: usize| Ok::<_, Infallible>(format!("{leaf} "));
        sum(&(0..n_leaves), &mut leaf, &add).unwrap()
    }

    #[test]
    fn seven_leaves_are_added_in_this_order() {
        insta::assert_snapshot!(alone(7), @"(((0 1 )(2 3 ))((4 5 )6 ))");
    }

    proptest! {
        #[test]
        fn however_many_processes_share_the_leaves_they_are_added_in_one_order(
            n_leaves in 1_usize..40,
            n_ranks in 1_usize..10,
        ) {
            let mut parts = Vec::new();
            for rank in 0..n_ranks {
                let most = ours(n_leaves, 0, n_ranks).len();
                prop_assert!(ours(n_leaves, rank, n_ranks).len() <= most);
                for node in nodes(0..n_leaves, &ours(n_leaves, rank, n_ranks)) {
                    let mut leaf = |leaf: usize| Ok::<_, Infallible>(format!("{leaf} "));
                    let made = sum(&node, &mut leaf, &add).unwrap();
                    parts.push((node, made));
                }
            }
            let joined = join(&(0..n_leaves), &mut parts, &add);
            prop_assert_eq!(joined, Some(alone(n_leaves)));
            prop_assert!(parts.is_empty());
        }

        #[test]
        fn a_sum_with_a_part_missing_is_none(n_leaves in 2_usize..40, gone in 0_usize..40) {
            let node = |leaf: usize| (leaf..leaf + 1, format!("{leaf} "));
            let mut parts: Vec<_> =
                (0..n_leaves).filter(|leaf| *leaf != gone % n_leaves).map(node).collect();
            prop_assert_eq!(join(&(0..n_leaves), &mut parts, &add), None);
        }
    }
}
