//! Numbers that are compared by their bits, so that a problem can be the key of a map.

use std::hash::{Hash, Hasher};

/// A number that equals another if all their bits are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number(pub(crate) f32);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Number {}

impl Hash for Number {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
