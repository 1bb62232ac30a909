//! How a boolean mask is stored.

/// How a boolean mask is stored: the size of an element, and what an element means that is not zero. It lets the query
/// see the key, or it hides the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MaskFormat {
    /// One byte per element, non-zero = attend, as in PyTorch and ONNX.
    #[default]
    BytesAttend,
    /// One byte per element, non-zero = hidden.
    BytesHide,
    /// One u32 per element, non-zero = attend.
    WordsAttend,
    /// One u32 per element, non-zero = hidden, as in burn.
    WordsHide,
}

impl MaskFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::BytesAttend, Self::BytesHide, Self::WordsAttend, Self::WordsHide];

    /// Bytes per element.
    pub const fn size_bytes(self) -> u64 {
        match self {
            Self::BytesAttend | Self::BytesHide => 1,
            Self::WordsAttend | Self::WordsHide => 4,
        }
    }

    /// Whether an element that is not zero hides its key.
    pub const fn hides(self) -> bool {
        match self {
            Self::BytesAttend | Self::WordsAttend => false,
            Self::BytesHide | Self::WordsHide => true,
        }
    }

    /// Stores a mask, given as whether each query may see each key.
    pub fn encode(self, attend: &[bool]) -> Vec<u8> {
        let is_set = attend.iter().map(|&attend| attend != self.hides());
        match self.size_bytes() {
            1 => is_set.map(u8::from).collect(),
            _ => is_set.flat_map(|is_set| u32::from(is_set).to_le_bytes()).collect(),
        }
    }
}

/// Its part in the name of a variant.
impl std::fmt::Display for MaskFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BytesAttend => "mask",
            Self::BytesHide => "mask-hide",
            Self::WordsAttend => "mask-u32",
            Self::WordsHide => "mask-u32-hide",
        })
    }
}
