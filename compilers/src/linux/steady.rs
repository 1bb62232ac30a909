//! The steady loop: the loop over tiles of keys, as it runs where nothing is masked.
//!
//! It is the outermost loop with the most multiply-adds. Of the paths through a loop, the steady one has the most multiply-adds,
//! then the most global loads, then the fewest instructions: a full tile skips all that masks need. The machine code does not
//! tell how often an inner loop iterates, and a compiler unrolls some of them. So the counts are searched for: they are some of
//! those in the shader, in its order ([`crate::linux::trips`]), and together they give as many multiply-adds as the problem has.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};

use crate::linux::listing::{Counts, Listing};

/// A natural loop of the machine code.
#[derive(Debug)]
struct Natural {
    head: usize,
    body: BTreeSet<usize>,
    /// The index of the smallest loop around it.
    parent: Option<usize>,
}

/// What one iteration of the steady loop issues. `trips` are the counts that its inner loops may have, in order, and `wanted` the
/// multiply-adds of one iteration, where they are known.
pub(crate) fn counts(listing: &Listing, trips: &[u64], wanted: Option<u64>) -> Result<Counts> {
    ensure!(!listing.blocks.is_empty(), "there is no machine code");
    let graph = Graph::new(listing);
    let loops = graph.loops();
    let walk = |trips: BTreeMap<usize, u64>, index| {
        Walk { graph: &graph, loops: &loops, trips, memo: BTreeMap::new() }.through(index)
    };
    let once: Vec<Option<Counts>> = (0..loops.len()).map(|index| walk(BTreeMap::new(), index)).collect();
    let multiply_adds = |index: usize| once[index].map_or(0, |counts| counts.multiply_adds);
    let outermost = (0..loops.len()).filter(|&index| loops[index].parent.is_none());
    let steady = outermost.max_by_key(|&index| multiply_adds(index)).context("the machine code has no loop")?;
    let inside = (0..loops.len()).filter(|&index| index != steady && loops[steady].body.contains(&loops[index].head));
    let mut inner: Vec<usize> = inside.filter(|&index| multiply_adds(index) > 0).collect();
    // The order of the shader: a loop, then those in it. The machine code may have these after other loops.
    inner.sort_by_key(|&index| heads(&loops, index));
    let Some(wanted) = wanted else {
        return walk(BTreeMap::new(), steady).context("no path leads through the steady loop");
    };
    let choices = choices(trips, inner.len()).context("the steady loop has too many loops")?;
    let counts = choices.into_iter().filter_map(|trips| walk(inner.iter().copied().zip(trips).collect(), steady));
    // Where several fit, the inner of two loops iterates more often: that issues less.
    let best = counts.min_by_key(|counts| (counts.multiply_adds.abs_diff(wanted), counts.all));
    let best = best.context("no path leads through the steady loop")?;
    // Sums begin with products, and exponentials and logarithms have multiply-adds of their own: 14 % for dV of heads of 32.
    ensure!(
        best.multiply_adds.abs_diff(wanted) * 20 <= wanted * 3,
        "the steady loop has {} multiply-adds where the problem has {wanted}",
        best.multiply_adds
    );
    Ok(best)
}

/// The heads of the loops that a loop lies in, from the outermost on, and its own.
fn heads(loops: &[Natural], index: usize) -> Vec<usize> {
    let mut heads: Vec<usize> =
        std::iter::successors(Some(index), |&index| loops[index].parent).map(|index| loops[index].head).collect();
    heads.reverse();
    heads
}

/// Counts of inner loops that are tried.
const MOST_CHOICES: usize = 20_000;

/// The ways to take `count` of the trips, in their order; `None` if there are too many.
fn choices(trips: &[u64], count: usize) -> Option<BTreeSet<Vec<u64>>> {
    let mut choices = BTreeSet::from([Vec::new()]);
    // After each trip: the ways to take some of those until there.
    for &trip in trips {
        let taken: Vec<_> = choices.iter().filter(|choice| choice.len() < count).cloned().collect();
        choices.extend(taken.into_iter().map(|choice| [choice, vec![trip]].concat()));
        if choices.len() > MOST_CHOICES {
            return None;
        }
    }
    choices.retain(|choice| choice.len() == count);
    Some(choices)
}

struct Graph<'a> {
    listing: &'a Listing,
    before: Vec<Vec<usize>>,
    /// Blocks in reverse postorder.
    order: Vec<usize>,
}

impl<'a> Graph<'a> {
    fn new(listing: &'a Listing) -> Self {
        let blocks = &listing.blocks;
        let mut before = vec![Vec::new(); blocks.len()];
        for (index, block) in blocks.iter().enumerate() {
            block.next.iter().for_each(|&next| before[next].push(index));
        }
        let (mut order, mut seen) = (Vec::new(), vec![false; blocks.len()]);
        let mut stack = vec![(0, 0)];
        if let Some(first) = seen.first_mut() {
            *first = true;
        }
        while let Some((block, at)) = stack.pop() {
            match blocks.get(block).and_then(|block| block.next.get(at)) {
                Some(&next) => {
                    stack.push((block, at + 1));
                    if !seen[next] {
                        seen[next] = true;
                        stack.push((next, 0));
                    }
                }
                None => order.push(block),
            }
        }
        order.reverse();
        Self { listing, before, order }
    }

    /// The blocks that every way to a block leads through.
    fn dominators(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut dominators: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        let mut has_changed = true;
        while has_changed {
            has_changed = false;
            for &block in &self.order {
                let known = self.before[block].iter().filter_map(|before| dominators.get(before));
                let mut common =
                    known.cloned().reduce(|a, b| a.intersection(&b).copied().collect()).unwrap_or_default();
                if block == 0 {
                    common.clear();
                }
                common.insert(block);
                has_changed |= dominators.insert(block, common.clone()).as_ref() != Some(&common);
            }
        }
        dominators
    }

    /// Every natural loop, with those that it lies in.
    fn loops(&self) -> Vec<Natural> {
        let dominators = self.dominators();
        let mut bodies: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for &block in &self.order {
            for &head in self.listing.blocks[block].next.iter().filter(|next| dominators[&block].contains(*next)) {
                let body = bodies.entry(head).or_insert_with(|| BTreeSet::from([head]));
                let mut stack = vec![block];
                while let Some(block) = stack.pop() {
                    if body.insert(block) {
                        stack.extend(&self.before[block]);
                    }
                }
            }
        }
        let mut loops: Vec<Natural> =
            bodies.into_iter().map(|(head, body)| Natural { head, body, parent: None }).collect();
        for index in 0..loops.len() {
            let (head, size) = (loops[index].head, loops[index].body.len());
            let around = (0..loops.len()).filter(|&other| other != index && loops[other].body.contains(&head));
            let around = around.filter(|&other| loops[other].body.len() > size);
            loops[index].parent = around.min_by_key(|&other| loops[other].body.len());
        }
        loops
    }
}

/// Counts the best path through loops.
struct Walk<'a> {
    graph: &'a Graph<'a>,
    loops: &'a [Natural],
    /// How often each loop iterates; once where it is not told.
    trips: BTreeMap<usize, u64>,
    /// By loop and block: the best path from the block to the loop's end.
    memo: BTreeMap<(usize, usize), Option<Counts>>,
}

impl Walk<'_> {
    /// One iteration of a loop; `None` where no path leads from its head back to it.
    fn through(&mut self, index: usize) -> Option<Counts> {
        self.from(index, self.loops[index].head)
    }

    fn from(&mut self, index: usize, block: usize) -> Option<Counts> {
        if let Some(&known) = self.memo.get(&(index, block)) {
            return known;
        }
        // A path that comes by here again is none.
        self.memo.insert((index, block), None);
        let (graph, loops) = (self.graph, self.loops);
        let natural = &loops[index];
        let inner = (0..loops.len()).find(|&other| loops[other].parent == Some(index) && loops[other].head == block);
        let (own, next): (Counts, BTreeSet<usize>) = match inner {
            Some(inner) => {
                let once = self.through(inner).unwrap_or(graph.listing.blocks[block].counts);
                let leaves = loops[inner].body.iter().flat_map(|&block| &graph.listing.blocks[block].next);
                let leaves = leaves.copied().filter(|next| !loops[inner].body.contains(next)).collect();
                (once * self.trips.get(&inner).copied().unwrap_or(1), leaves)
            }
            None => {
                let block = &graph.listing.blocks[block];
                (block.counts, block.next.iter().copied().collect())
            }
        };
        let mut best: Option<Counts> = None;
        for next in next {
            let rest = if next == natural.head {
                Some(Counts::default())
            } else if natural.body.contains(&next) {
                self.from(index, next)
            } else {
                None
            };
            best = best.into_iter().chain(rest).max_by_key(rank);
        }
        let whole = best.map(|mut counts| {
            counts += own;
            counts
        });
        self.memo.insert((index, block), whole);
        whole
    }
}

fn rank(counts: &Counts) -> (u64, u64, u64, std::cmp::Reverse<u64>) {
    (counts.multiply_adds, counts.matrix, counts.global_loads, std::cmp::Reverse(counts.all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::listing::Block;

    fn block(all: u64, multiply_adds: u64, next: &[usize]) -> Block {
        Block { counts: Counts { all, multiply_adds, ..Counts::default() }, next: next.to_vec() }
    }

    /// A loop over tiles, which are masked or full; in it a loop of 8 multiply-adds.
    fn tiles() -> Listing {
        let blocks = vec![
            block(7, 0, &[1]),
            block(2, 0, &[2, 3]),
            block(10, 4, &[4]),
            block(5, 4, &[4]),
            block(11, 8, &[4, 5]),
            block(1, 0, &[1, 6]),
            block(9, 0, &[]),
        ];
        Listing { blocks }
    }

    #[test]
    fn full_tiles_count_and_inner_loops_iterate_as_often_as_the_problem_needs() {
        let counts = counts(&tiles(), &[2, 16], Some(16 * 8 + 4)).expect("it has such a loop");
        assert_eq!((counts.multiply_adds, counts.all), (16 * 8 + 4, 2 + 5 + 16 * 11 + 1));
    }

    #[test]
    fn loops_iterate_in_the_order_of_the_shader() {
        let outer =
            vec![block(0, 0, &[1]), block(1, 0, &[2]), block(50, 0, &[3]), block(9, 8, &[3, 4]), block(1, 0, &[2, 5])];
        let blocks = outer.into_iter().chain([block(0, 0, &[1, 6]), block(0, 0, &[])]).collect();
        let listing = Listing { blocks };
        for [outer, inner] in [[2, 8], [8, 2]] {
            let counts = counts(&listing, &[outer, inner], Some(128)).expect("it has such loops");
            assert_eq!((counts.multiply_adds, counts.all), (128, 1 + outer * (50 + inner * 9 + 1)));
        }
    }

    #[test]
    fn an_inner_loop_may_lie_after_the_next_outer_loop() {
        let outer =
            [block(0, 0, &[1]), block(1, 0, &[2]), block(1, 0, &[5]), block(1, 0, &[2, 4]), block(2, 1, &[4, 6])];
        let blocks = outer.into_iter().chain([block(9, 8, &[5, 3]), block(1, 0, &[1, 7]), block(0, 0, &[])]).collect();
        let counts = counts(&Listing { blocks }, &[2, 4, 8], Some(72)).expect("it has such loops");
        assert_eq!((counts.multiply_adds, counts.all), (2 * 4 * 8 + 8, 1 + 2 * (1 + 4 * 9 + 1) + 8 * 2 + 1));
    }

    #[test]
    fn counts_that_no_iterations_give_are_refused() {
        let error = counts(&tiles(), &[2], Some(1000)).expect_err("too many");
        assert!(error.to_string().contains("20 multiply-adds where the problem has 1000"), "{error}");
        assert!(counts(&Listing::default(), &[], None).is_err());
    }
}
