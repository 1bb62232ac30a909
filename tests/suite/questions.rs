//! The cases that expose planted mistakes. Each is small and about one thing.

use truth::{Case, Fill, Sequences, indices, poison_hidden};
use wgpu_attention::{
    BlockMask, Diagonal, Dtype, Layout, MaskFormat, Operand, Pages, Problem, ProblemBuilder, RngState, ScoreLayout,
    Shape, Window,
};

use crate::case::{drawn, everything, full};

/// Two query blocks and two tiles of keys, two KV heads, four lanes at a time.
pub fn shape() -> Shape {
    Shape::new(2, 4, 35, 32).kv_heads(2).kv_len(52)
}

pub fn filled(problem: ProblemBuilder, fill: Fill) -> Case {
    drawn(problem.lse(), fill, 77)
}

pub fn plain() -> Case {
    filled(Problem::builder(shape()), Fill::Normal)
}

/// More rows than a block of any kernel has.
pub fn tall() -> Case {
    filled(Problem::builder(Shape::new(1, 2, 100, 32).kv_len(20)), Fill::Normal)
}

/// Keys for three parts, the last a short one.
pub fn long() -> Case {
    filled(Problem::builder(Shape::new(2, 2, 5, 32).kv_len(1600)), Fill::Normal)
}

/// Keys before and after the window are out of sight.
pub fn long_window() -> Case {
    let window = Window { left: Some(1450), right: None };
    let problem = Problem::builder(Shape::new(2, 2, 5, 32).kv_len(2500)).kv_lengths().causal(Diagonal::Offset(1800));
    filled(problem.window(window), Fill::Normal).lengths(&[2500, 1801])
}

pub fn long_staircase() -> Case {
    filled(Problem::builder(Shape::new(2, 2, 5, 32).kv_len(1600)), Fill::Staircase)
}

/// Some rows see no key at all, others see no key of some parts.
pub fn long_and_mostly_hidden() -> Case {
    let shape = Shape::new(2, 2, 5, 32).kv_len(1600);
    let case = filled(Problem::builder(shape).mask(ScoreLayout::broadcast([1, 1, 5, 1600])), Fill::Normal);
    case.masked(|[_, _, i, j], _| i > 1 && j < 300 * i)
}

pub fn staircase() -> Case {
    filled(Problem::builder(shape()), Fill::Staircase)
}

/// A negative scale.
pub fn upside_down() -> Case {
    filled(Problem::builder(shape()).scale(-0.5), Fill::Normal)
}

pub fn causal() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::TopLeft), Fill::Normal)
}

pub fn windowed() -> Case {
    let window = Window { left: Some(4), right: Some(3) };
    filled(Problem::builder(shape()).window(window), Fill::Normal)
}

/// Causal from the last valid key. Some rows see no key.
pub fn bottom_right() -> Case {
    let lengths = Problem::builder(shape()).causal(Diagonal::BottomRight).kv_lengths();
    filled(lengths, Fill::Normal).lengths(&[40, 31])
}

pub fn all_features() -> Case {
    let case = drawn(everything(shape(), Dtype::F32).causal(Diagonal::Offset(10)), Fill::Normal, 78);
    case.edited(Operand::Bias, |_, x| 4.0 * x).lengths(&[37, 52])
}

pub fn softcapped() -> Case {
    filled(Problem::builder(shape()).softcap(1.0).scale(0.5), Fill::Normal)
}

pub fn biased() -> Case {
    filled(Problem::builder(shape()).bias(Dtype::F32, full(shape())), Fill::Normal)
}

/// A bias that hides every third key with −∞, and whole rows.
pub fn hidden_by_bias() -> Case {
    let hide = |[_, _, i, j]: [u32; 4], x| if i % 5 == 0 || j % 3 == 0 { f32::NEG_INFINITY } else { x };
    biased().edited(Operand::Bias, hide)
}

/// Like [`hidden_by_bias`], with NaN in the keys and values that no row sees.
pub fn nan_behind_bias() -> Case {
    let mut case = hidden_by_bias();
    poison_hidden(&mut case, f32::NAN);
    case
}

pub fn deep_bias() -> Case {
    biased().edited(Operand::Bias, |_, _| -1e30)
}

/// Visible scores as low as the number that stands for hidden ones.
pub fn lowest_bias() -> Case {
    let case =
        filled(Problem::builder(shape()).bias(Dtype::F32, full(shape())).causal(Diagonal::TopLeft), Fill::Normal);
    case.edited(Operand::Bias, |_, _| f32::MIN)
}

/// A window that starts, for most blocks of rows, only after several tiles of keys.
pub fn tall_window() -> Case {
    let window = Window { left: Some(4), right: Some(3) };
    filled(Problem::builder(Shape::new(1, 2, 100, 32).kv_len(100)).window(window), Fill::Normal)
}

/// Rows that see no key of a later tile, in a block with rows that do.
pub fn tall_causal() -> Case {
    filled(Problem::builder(Shape::new(1, 2, 100, 32).kv_len(100)).causal(Diagonal::Offset(10)), Fill::Normal)
}

/// Rows that see no key, in a block with rows that do.
pub fn empty_rows() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::Offset(-4)), Fill::Normal)
}

pub fn long_masked() -> Case {
    let shape = Shape::new(1, 2, 5, 32).kv_len(150);
    filled(Problem::builder(shape).mask(full(shape)), Fill::Normal)
}

/// NaN in keys that a bias hides from all rows, among enough others for several iterations.
pub fn long_nan_behind_bias() -> Case {
    let shape = Shape::new(1, 2, 5, 32).kv_len(150);
    let case = filled(Problem::builder(shape).bias(Dtype::F32, full(shape)), Fill::Normal);
    let mut case = case.edited(Operand::Bias, |[_, _, _, j], x| if j % 3 == 0 { f32::NEG_INFINITY } else { x });
    poison_hidden(&mut case, f32::NAN);
    case
}

/// The last row sees the first 64 keys, and the first row only 63 of them.
pub fn long_causal() -> Case {
    filled(Problem::builder(Shape::new(1, 2, 5, 32).kv_len(150)).causal(Diagonal::Offset(62)), Fill::Normal)
}

pub fn masked() -> Case {
    filled(Problem::builder(shape()).mask(full(shape())), Fill::Normal)
}

/// Random tiles: empty, full and partial. They are not aligned with the blocks of rows.
pub fn tiles() -> Case {
    let shape = Shape::new(2, 4, 70, 32).kv_heads(2).kv_len(150);
    let tiles = BlockMask::new(24, 32).per_batch().per_head();
    filled(Problem::builder(shape).mask(full(shape)).block_mask(tiles), Fill::Normal)
}

/// A mask of words that are set where a key is hidden.
pub fn masked_by_hiding_words() -> Case {
    filled(Problem::builder(shape()).mask_as(MaskFormat::WordsHide, full(shape())), Fill::Normal)
}

/// Dropout, with heads that share keys, in batches that a block of rows does not fill.
pub fn dropped() -> Case {
    let shape = Shape::new(2, 4, 101, 32).kv_heads(2).kv_len(70);
    filled(Problem::builder(shape).dropout(0.4, RngState::Buffer).causal(Diagonal::Offset(20)).lse(), Fill::Normal)
}

/// Dropout, over so many keys that they are split.
pub fn dropped_in_parts() -> Case {
    filled(Problem::builder(Shape::new(2, 2, 3, 32).kv_len(1100)).dropout(0.4, RngState::Buffer).lse(), Fill::Normal)
}

/// The weights after dropout.
pub fn dropped_weights() -> Case {
    filled(Problem::builder(shape()).dropout(0.4, RngState::Buffer).weights(), Fill::Normal)
}

/// Each tile is empty or full, so that the tiles of a block of rows are full except for those that no row sees.
pub fn empty_tiles() -> Case {
    let mut case = tiles();
    let numbers = case.host.block_mask.iter_mut().flatten();
    numbers.for_each(|number| *number &= 1);
    case
}

/// NaN in keys that no query of the group sees, in a tile with keys that are seen.
pub fn nan_behind_band() -> Case {
    let mut case = filled(Problem::builder(shape()).window(behind(10)).diagonal(Diagonal::Offset(20)), Fill::Normal);
    poison_hidden(&mut case, f32::NAN);
    case
}

fn behind(left: u32) -> Window {
    Window { left: Some(left), right: None }
}

/// NaN past the valid keys.
pub fn nan_past_lengths() -> Case {
    let mut case = filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[37, 5]);
    poison_hidden(&mut case, f32::NAN);
    case
}

/// 128 keys, of which one has a value far larger than all others.
pub fn huge_first(key: u32) -> Case {
    let case = filled(Problem::builder(Shape::new(1, 1, 5, 32).kv_len(128)), Fill::Constant);
    case.edited(Operand::V, |[_, _, j, _], v| if j == key { 100.0 } else { v })
}

/// Keys behind the window of all rows, in a tile with keys that are seen, which are far larger.
pub fn huge_behind_band() -> Case {
    let mut case = filled(Problem::builder(shape()).window(behind(10)).diagonal(Diagonal::Offset(20)), Fill::Normal);
    poison_hidden(&mut case, 1e30);
    case
}

pub fn lengths_past_the_end() -> Case {
    // If the capacity were ignored, the second head's keys would be read as the first head's.
    filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[60, 70])
}

pub fn some_lengths() -> Case {
    filled(Problem::builder(shape()).kv_lengths(), Fill::Normal).lengths(&[37, 5])
}

/// Sequences with fewer queries than rows, among them none, with sinks.
pub fn padded() -> Case {
    let shape = Shape::new(3, 2, 70, 32).kv_len(40);
    let mut case =
        filled(Problem::builder(shape).causal(Diagonal::BottomRight).q_lengths().sinks().lse(), Fill::Normal);
    case.host.q_lengths = Some(vec![66, 0, 3]);
    case
}

/// A paged cache in which nothing but the keys of the sequences is a number.
pub fn paged() -> Case {
    let pages = Pages { count: 40, size: 7 };
    let shape = Shape::new(2, 2, 20, 32).kv_len(60);
    let mut case = filled(Problem::builder(shape).paged_kv(pages).kv_lengths(), Fill::Normal).lengths(&[60, 23]);
    // Neighbours in the sequence are not neighbours in memory, and no page serves twice.
    case.host.block_table = Some((0..18).map(|n| n * 11 % 40).collect());
    with_poisoned_rest(case)
}

/// Rings that are not full, and that are full more than once.
pub fn ring() -> Case {
    let window = Window { left: Some(50), right: None };
    let shape = Shape::new(3, 2, 12, 32).kv_len(300);
    let problem = Problem::builder(shape).causal(Diagonal::BottomRight).window(window).ring_kv(40);
    filled(problem, Fill::Normal).lengths(&[30, 120, 217])
}

/// Sequences of up to 70 queries and of as many keys or fewer, one after another. Two have neither, one of them last.
pub fn ragged() -> Case {
    let shape = Shape::new(4, 2, 70, 32);
    let mut case = filled(Problem::builder(shape).ragged_q(120).ragged_kv(110), Fill::Normal);
    case.host.cu_seqlens_q = Some(vec![2, 72, 72, 110, 110]);
    case.host.cu_seqlens_k = Some(vec![3, 60, 60, 104, 104]);
    case
}

/// Replaces all that no sequence may read by NaN, and by pages that do not exist: pages of no sequence, rows past the keys in
/// a page, entries of the table past the pages.
pub fn with_poisoned_rest(mut case: Case) -> Case {
    let (batch, pages) = (case.problem.shape().batch, case.problem.pages().unwrap());
    let places: Vec<[u32; 2]> = {
        let sequences = Sequences::new(&case);
        (0..batch).flat_map(|b| (0..sequences.keys(b)).map(move |j| sequences.key_place(b, j))).collect()
    };
    for operand in [Operand::K, Operand::V] {
        case.edit(operand, |[page, _, row, _], x| if places.contains(&[page, row]) { x } else { f32::NAN });
    }
    let (view, lengths) = (case.view(Operand::BlockTable), case.host.kv_lengths.clone().unwrap());
    let table = case.host.block_table.as_mut().unwrap();
    for at @ [b, _, _, page] in indices(view.extent) {
        if page * pages.size >= lengths[b as usize] {
            table[view.index(at) as usize] = 0xdead_beef;
        }
    }
    case
}

pub fn left_window() -> Case {
    let window = Window { left: Some(4), right: None };
    filled(Problem::builder(shape()).window(window), Fill::Normal)
}

/// Row 0 sees all but the last key or two of the first tile.
pub fn nearly_full() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::Offset(29)), Fill::Normal)
}

pub fn large(spread: f32) -> Case {
    filled(Problem::builder(shape()).mask(full(shape())), Fill::Large(spread))
}

/// Rows with gaps between them, which must not be written.
pub fn gappy(dtype: Dtype) -> Case {
    let shape = Shape::new(1, 2, 35, 7);
    let layout = Layout { offset: 3, batch: 0, head: 9 * 40, row: 9 };
    filled(Problem::builder(shape).dtype(dtype).q(layout).k(layout).v(layout).out(layout), Fill::Normal)
}

/// So wide that V is staged eight keys at a time.
pub fn wide() -> Case {
    filled(Problem::builder(Shape::new(1, 1, 5, 128).kv_len(40)), Fill::Normal)
}

/// More columns than 32, and more keys than a tile of 64.
pub fn forty_columns() -> Case {
    filled(Problem::builder(Shape::new(1, 2, 70, 40).kv_len(90)), Fill::Normal)
}

/// Odd rows, so that no four elements of one lie at a multiple of four.
pub fn odd(dtype: Dtype) -> Case {
    let shape = Shape::new(1, 2, 35, 7).kv_len(39);
    drawn(Problem::builder(shape).dtype(dtype).lse(), Fill::Normal, 79)
}

pub fn odd_f32() -> Case {
    odd(Dtype::F32)
}
/// A key whose last dimension is infinite, which hides it. A zero of the padding times that would be NaN.
pub fn infinite_key() -> Case {
    let last = 6;
    odd_f32()
        .edited(Operand::Q, |[.., dim], x| if dim == last { -1.0 } else { x })
        .edited(Operand::K, |[.., key, dim], x| if key == 5 && dim == last { f32::INFINITY } else { x })
}

pub fn odd_f16() -> Case {
    odd(Dtype::F16)
}
pub fn odd_bf16() -> Case {
    odd(Dtype::Bf16)
}

pub fn masked_by_bytes() -> Case {
    let mask = ScoreLayout::broadcast([2, 1, 1, 52]);
    filled(Problem::builder(shape()).mask(mask), Fill::Normal)
}

pub fn mask_keys_outermost() -> Case {
    filled(Problem::builder(shape()).mask(ScoreLayout::strided([0, 0, 1, 35])), Fill::Normal)
}

pub fn even_f16() -> Case {
    filled(Problem::builder(shape()).dtype(Dtype::F16), Fill::Normal)
}

pub fn all_weights() -> Case {
    let shape = Shape::new(2, 4, 35, 32).kv_heads(2).kv_len(72);
    let case = drawn(everything(shape, Dtype::F32).causal(Diagonal::Offset(10)).weights(), Fill::Normal, 78);
    case.edited(Operand::Bias, |_, x| 4.0 * x).lengths(&[37, 52])
}

/// Visible scores as low as the number that stands for hidden ones.
pub fn deep_weights() -> Case {
    all_weights().edited(Operand::Bias, |_, _| f32::MIN)
}

/// Rows that see no key, whose weights are 0 and not 0 / 0.
pub fn weights_of_empty_rows() -> Case {
    filled(Problem::builder(shape()).causal(Diagonal::Offset(-4)).weights(), Fill::Normal)
}

pub fn weights_of_stairs() -> Case {
    filled(Problem::builder(shape()).weights(), Fill::Staircase)
}

pub fn weights_of_the_first() -> Case {
    filled(Problem::builder(shape()).weights().causal(Diagonal::Offset(-10)), Fill::Normal)
}

pub fn weights_of_the_last() -> Case {
    let window = Window { left: Some(3), right: None };
    filled(Problem::builder(shape()).weights().diagonal(Diagonal::Offset(40)).window(window), Fill::Normal)
}

pub fn large_q() -> Case {
    // A head that is too wide for all of Q to stay in workgroup memory.
    let shape = Shape::new(1, 1, 35, 160).kv_len(40);
    filled(Problem::builder(shape), Fill::Normal)
}
