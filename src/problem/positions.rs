//! Which keys a query may see by position.

/// The key that query row 0 stands at: row `i` stands at key `i + offset`. Causal masking and the sliding window are
/// both measured from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Diagonal {
    /// Offset 0: row `i` stands at key `i`.
    #[default]
    TopLeft,
    /// The last query row stands at the last key: offset `Lk − Lq`, where both are the sequence's own lengths.
    /// Decoding and chunked prefill against a KV cache use this.
    BottomRight,
    /// Row `i` stands at key `i + offset`, where the offset is the number of keys that came before these queries.
    Offset(i32),
}

/// A sliding window: row `i`, standing at key `d`, sees keys `d − left ..= d + right`; `None` leaves that side open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Window {
    /// Number of keys before key `d` that are visible.
    pub left: Option<u32>,
    /// Number of keys after key `d` that are visible. Causal masking reduces it to 0.
    pub right: Option<u32>,
}

/// The longest sequence, in rows. With it, every sum of a row, a key and a band edge fits an `i32` in the shader.
pub(crate) const LONGEST: u32 = 1 << 29;

/// The causal mask, the window and the diagonal as one interval: row `i` sees keys `i + first ..= i + last`. If
/// `from_end`, the number of valid keys minus that of queries is added to both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Band {
    pub(crate) first: i32,
    pub(crate) last: i32,
    pub(crate) from_end: bool,
    /// Row `i` stands at key `i + offset`, to which the same is added if `from_end`.
    pub(crate) offset: i32,
}

impl Band {
    /// Whether the first of `len_kv` keys may be out of sight of all rows.
    pub(crate) fn may_hide_first(&self, len_kv: u32) -> bool {
        // The first row of at least one stands `len_kv - 1` keys further on at most.
        let moved = if self.from_end { i64::from(len_kv) - 1 } else { 0 };
        i64::from(self.first) + moved > 0
    }

    /// The most keys from the first that the first of `rows` rows sees to the last that the last one sees.
    pub(crate) fn width(&self, rows: u32) -> u32 {
        // From the top, there is no key before key 0.
        let first = if self.from_end { self.first } else { self.first.max(0) };
        let width = i64::from(self.last) + i64::from(rows) - i64::from(first);
        u32::try_from(width.max(0)).unwrap_or(u32::MAX)
    }
}

/// Computes the [`Band`]. It does not depend on the lengths of a sequence: if `from_end`, the shader adds how many more
/// keys than queries there are.
pub(crate) fn band(diagonal: Diagonal, causal: bool, window: Window) -> Band {
    let (offset, from_end) = match diagonal {
        Diagonal::TopLeft => (0, false),
        Diagonal::Offset(offset) => (i64::from(offset), false),
        Diagonal::BottomRight => (0, true),
    };
    let right = if causal { Some(0) } else { window.right };
    let first = window.left.map_or(i64::MIN, |left| offset - i64::from(left));
    let last = right.map_or(i64::MAX, |right| offset + i64::from(right));
    // Rows, keys and lengths are below LONGEST, so clamping an edge to these bounds does not change which keys are
    // seen.
    let clamp = |edge: i64| i32::try_from(edge.clamp(-2 * i64::from(LONGEST), i64::from(LONGEST))).unwrap_or(0);
    Band { first: clamp(first), last: clamp(last), from_end, offset: clamp(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_causal_mask_closes_the_window_after_the_diagonal() {
        let edges = |diagonal, causal, right| {
            let Band { first, last, from_end, offset } = band(diagonal, causal, Window { left: Some(3), right });
            (first, last, from_end, offset)
        };
        assert_eq!(edges(Diagonal::TopLeft, true, None), (-3, 0, false, 0));
        assert_eq!(edges(Diagonal::Offset(5), true, Some(2)), (2, 5, false, 5));
        assert_eq!(edges(Diagonal::Offset(5), false, Some(2)), (2, 7, false, 5));
        assert_eq!(edges(Diagonal::BottomRight, false, Some(2)), (-3, 2, true, 0));
    }

    #[test]
    fn keys_in_sight_are_counted_from_the_first_to_the_last() {
        let of = |diagonal, left, right| band(diagonal, false, Window { left, right });
        let end = Diagonal::BottomRight;
        for (band, rows, width) in [
            (of(end, Some(4), Some(0)), 1, 5),
            (of(end, Some(4), Some(2)), 3, 9),
            (of(Diagonal::TopLeft, None, Some(0)), 3, 3),
            (of(Diagonal::Offset(7), Some(2), Some(0)), 3, 5),
            (of(Diagonal::Offset(7), Some(20), Some(0)), 3, 10),
            (of(Diagonal::Offset(-7), None, Some(0)), 3, 0),
        ] {
            assert_eq!(band.width(rows), width, "{band:?}, {rows} rows");
        }
        assert!(of(end, None, Some(0)).width(3) > LONGEST);
        for (band, keys) in [(of(end, Some(4), None), 5), (of(Diagonal::Offset(7), Some(7), None), 1 << 20)] {
            assert!(!band.may_hide_first(keys), "{band:?}, {keys} keys");
        }
        for (band, keys) in [(of(end, Some(4), None), 6), (of(Diagonal::Offset(8), Some(7), None), 1)] {
            assert!(band.may_hide_first(keys), "{band:?}, {keys} keys");
        }
    }

    #[test]
    fn edges_of_the_number_range_keep_their_meaning() {
        let far = i64::from(LONGEST);
        for offset in [i32::MIN, -1, 0, 1, i32::MAX] {
            for side in [0, 1, u32::MAX] {
                let window = Window { left: Some(side), right: Some(side) };
                let band = band(Diagonal::Offset(offset), false, window);
                for row in [0, far - 1] {
                    for key in [0, far - 1] {
                        let at = row + i64::from(offset);
                        let wanted = (at - i64::from(side)..=at + i64::from(side)).contains(&key);
                        let got = (row + i64::from(band.first)..=row + i64::from(band.last)).contains(&key);
                        assert_eq!(wanted, got, "offset {offset}, side {side}, row {row}, key {key}");
                    }
                }
            }
        }
    }
}
