// Which keys a row sees, by position and by the masks: boolean, the user's mask_mod, and a block mask of both.

// Whether anything but positions may hide keys.
const HAS_MASKS = HAS_MASK || HAS_MASK_MOD || HAS_BLOCK_MASK;

// The bits of a tile's number: what the masks do with its pairs.
const SOME_SEEN = 1u;
const SOME_HIDDEN = 2u;

// Which of four keys the masks let a row see. `tiles` has the numbers of their tiles: the mask and the mask_mod are
// evaluated only if some of these tiles have hidden pairs.
fn unmasked(row: Row, keys: vec4<u32>, tiles: vec4<u32>) -> vec4<bool> {
    var seen = (tiles & vec4(SOME_SEEN)) != vec4(0u);
    let asked = (tiles & vec4(SOME_HIDDEN)) != vec4(0u);
    if (any(asked)) {
        if (HAS_MASK) { seen &= !asked | attend(address(params.mask, row.batch, row.head, row.query), within(keys)); }
        if (HAS_MASK_MOD) { seen &= !asked | allowed(row, within(keys)); }
    }
    return seen;
}

// Which of four keys a row sees by position.
fn in_band(row: Row, keys: vec4<u32>) -> vec4<bool> {
    let j = vec4<i32>(keys);
    return (j >= vec4(row.first)) & (j <= vec4(row.last));
}

// Whether every row from `first` to `final_row` sees all of `count` keys from `key` on, by position.
fn all_in_band(first: Row, final_row: Row, key: u32, count: u32) -> bool {
    return final_row.is_query && final_row.first <= i32(key) && first.last >= i32(key + count - 1u);
}

// Which of four keys a row sees.
fn sees(row: Row, keys: vec4<u32>) -> vec4<bool> {
    let seen = in_band(row, keys);
    if (HAS_MASKS) { return seen & unmasked(row, keys, tiles_with(row, keys)); }
    return seen;
}

// Whether every row from `first` to `final_row` sees all of `count` keys from `key` on.
fn all_seen(first: Row, final_row: Row, key: u32, count: u32) -> bool {
    if (HAS_MASKS) {
        if ((tiles_of(first, final_row, key) & SOME_HIDDEN) != 0u) { return false; }
    }
    return all_in_band(first, final_row, key, count);
}
