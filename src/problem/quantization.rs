//! Keys and values stored in 4 or 8 bits.

/// How quantized keys and values are stored.
///
/// A row, the key or the value of one token and head, is a word of 32 bits with the row's scale, an f32, and then its
/// elements, packed in words with the first one in the lowest bits. So the scales need no buffer of their own. Offsets and
/// strides of quantized operands count words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Signed integers n of 8 bits, four per word: the element is n · scale.
    Int8,
    /// Numbers n of 4 bits, eight per word: the element is (n − 8) · scale.
    Int4,
    /// Floats of 8 bits, four per word: a sign, 4 bits of exponent and 3 of mantissa, without infinities (E4M3). The element
    /// is the float times the scale.
    Fp8E4m3,
}

/// The largest float of 8 bits.
const LARGEST_FP8: f32 = 448.0;
/// The bits of a float of 8 bits, without its sign, that is not a number.
const FP8_NAN: u32 = 0x7f;

impl Quantization {
    /// Every way to quantize.
    pub const ALL: [Self; 3] = [Self::Int8, Self::Int4, Self::Fp8E4m3];

    /// Bits per element.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Int4 => 4,
            Self::Int8 | Self::Fp8E4m3 => 8,
        }
    }

    /// The words of a row of `dim` elements: its scale, and its elements.
    pub const fn row_words(self, dim: u32) -> u32 {
        1 + dim.div_ceil(32 / self.bits())
    }

    /// Quantizes a row. The scale is the one with which its largest element is the largest number, so that none is clamped.
    /// An element is rounded to the nearest number. NaN becomes 0 where the numbers are integers; ∞ makes the row's other
    /// elements NaN.
    pub fn encode(self, row: &[f32]) -> Vec<u32> {
        let largest = row.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let range = match self {
            Self::Int8 => 127.0,
            Self::Int4 => 7.0,
            Self::Fp8E4m3 => LARGEST_FP8,
        };
        // A subnormal scale could be 0, and so divide by 0.
        let scale = if largest / range >= f32::MIN_POSITIVE { largest / range } else { 1.0 };
        let numbers: Vec<u32> = row.iter().map(|&x| self.number(x / scale)).collect();
        self.pack(scale, &numbers)
    }

    /// A row of these numbers, each in its lowest [`bits`](Self::bits).
    pub fn pack(self, scale: f32, numbers: &[u32]) -> Vec<u32> {
        let bits = self.bits();
        let word =
            |numbers: &[u32]| numbers.iter().rev().fold(0, |word, &number| word << bits | number & ((1 << bits) - 1));
        let elements = numbers.chunks(32 / bits as usize).map(word);
        std::iter::once(scale.to_bits()).chain(elements).collect()
    }

    /// The elements of a row, `dim` of them; 0 for those that `words` does not hold.
    pub fn decode(self, words: &[u32], dim: u32) -> Vec<f32> {
        let scale = words.first().map_or(0.0, |&word| f32::from_bits(word));
        let per_word = 32 / self.bits();
        let number = |n: u32| {
            let word = words.get(1 + (n / per_word) as usize).copied().unwrap_or(0);
            word >> (n % per_word * self.bits()) & ((1 << self.bits()) - 1)
        };
        (0..dim).map(|n| self.value(number(n)) * scale).collect()
    }

    /// The number nearest to an element that is already divided by the scale.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before, and masked by `pack`")]
    fn number(self, x: f32) -> u32 {
        match self {
            Self::Int8 => x.round_ties_even().clamp(-127.0, 127.0) as i32 as u32,
            Self::Int4 => (x.round_ties_even().clamp(-8.0, 7.0) as i32 + 8) as u32,
            Self::Fp8E4m3 => nearest_fp8(x),
        }
    }

    /// The value of a number, before the scale.
    #[expect(clippy::cast_precision_loss, reason = "numbers have at most 8 bits")]
    fn value(self, number: u32) -> f32 {
        match self {
            Self::Int8 => ((number << 24) as i32 >> 24) as f32,
            Self::Int4 => number as f32 - 8.0,
            Self::Fp8E4m3 => {
                let magnitude = number & FP8_NAN;
                let size = match magnitude {
                    FP8_NAN => f32::NAN,
                    0..8 => magnitude as f32 / 512.0,
                    _ => f32::from_bits((magnitude << 20) + (120 << 23)),
                };
                if number & 0x80 == 0 { size } else { -size }
            }
        }
    }
}

/// The bits of the float of 8 bits nearest to `x`, in a tie the one whose last bit is 0.
fn nearest_fp8(x: f32) -> u32 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let size = x.abs();
    if size.is_nan() {
        return sign | FP8_NAN;
    }
    let distance = |bits: u32| (Quantization::Fp8E4m3.value(bits) - size).abs();
    let upper = (0..FP8_NAN).find(|&bits| Quantization::Fp8E4m3.value(bits) >= size).unwrap_or(FP8_NAN - 1);
    let lower = upper.saturating_sub(1);
    let tied = distance(lower) == distance(upper) && lower % 2 == 0;
    sign | if distance(lower) < distance(upper) || tied { lower } else { upper }
}

impl std::fmt::Display for Quantization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Fp8E4m3 => "fp8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_number_stands_for_is_stored_as_that_number() {
        for quantization in Quantization::ALL {
            for number in 0..1 << quantization.bits() {
                let value = quantization.value(number);
                // −128 is not used, and 0 has two signs in 8-bit floats.
                if value.is_nan() || value == -128.0 {
                    continue;
                }
                let bits = quantization.number(value) & ((1 << quantization.bits()) - 1);
                assert_eq!(quantization.value(bits), value, "{quantization} {number:#x}");
            }
        }
    }

    #[test]
    fn floats_of_8_bits_are_those_of_e4m3() {
        let of = |bits| Quantization::Fp8E4m3.value(bits);
        assert_eq!([0x00, 0x01, 0x08, 0x38, 0x7e, 0xb8].map(of), [0.0, 1.0 / 512.0, 1.0 / 64.0, 1.0, 448.0, -1.0]);
        assert!(of(0x7f).is_nan() && of(0xff).is_nan());
        // Ties go to the even one, and what is too large is clamped.
        assert_eq!([1.0625, 1.1875, 1e9, -1e9].map(|x| of(nearest_fp8(x))), [1.0, 1.25, 448.0, -448.0]);
    }

    #[test]
    fn rows_are_a_scale_and_packed_numbers() {
        assert_eq!(Quantization::Int4.encode(&[7.0, -8.0 * 0.875, 0.0]), [1.0_f32.to_bits(), 0x81f]);
        assert_eq!(Quantization::Int8.encode(&[254.0, -254.0, 2.0, 0.0, 4.0]), [2.0_f32.to_bits(), 0x0001_817f, 2]);
        for (quantization, words) in [(Quantization::Int8, 3), (Quantization::Int4, 2), (Quantization::Fp8E4m3, 3)] {
            let row = [1.5, -3.0, 0.25, 0.0, 2.0];
            let encoded = quantization.encode(&row);
            assert_eq!((encoded.len(), quantization.row_words(5) as usize), (words, words));
            // The largest distance between neighbouring numbers.
            let step = 3.0 * if quantization == Quantization::Int8 { 1.0 / 127.0 } else { 1.0 / 7.0 };
            for (x, decoded) in row.iter().zip(quantization.decode(&encoded, 5)) {
                assert!((x - decoded).abs() <= step / 2.0, "{quantization}: {x} became {decoded}");
            }
        }
        assert_eq!(Quantization::Int8.encode(&[0.0; 3]), [1.0_f32.to_bits(), 0]);
        assert_eq!(Quantization::Fp8E4m3.encode(&[1e-43, 0.0]), [1.0_f32.to_bits(), 0]);
    }

    #[test]
    fn rows_come_back_as_the_nearest_numbers() {
        let words = Quantization::Int8.encode(&[127.0, -63.5, 0.5, 1.5, -127.0]);
        assert_eq!(Quantization::Int8.decode(&words, 5), [127.0, -64.0, 0.0, 2.0, -127.0]);
        let row = [7.0, -7.0, 2.5, 0.0, 1.0, -1.0, 3.0, -3.0, 6.0];
        let words = Quantization::Int4.encode(&row);
        assert_eq!(Quantization::Int4.decode(&words, 9), [7.0, -7.0, 2.0, 0.0, 1.0, -1.0, 3.0, -3.0, 6.0]);
        assert_eq!(Quantization::Int4.decode(&words[..2], 9)[8], -8.0, "0 of a word that is not there");
        let decoded = Quantization::Fp8E4m3.decode(&Quantization::Fp8E4m3.encode(&[f32::NAN, 448.0]), 2);
        assert!(decoded[0].is_nan() && decoded[1] == 448.0, "{decoded:?}");
    }

    #[test]
    fn floats_between_two_of_8_bits_go_to_the_nearer_one() {
        let fp8 = Quantization::Fp8E4m3;
        for bits in 0..FP8_NAN - 1 {
            let middle = f32::midpoint(fp8.value(bits), fp8.value(bits + 1));
            let even = bits + bits % 2;
            assert_eq!([-1.0, 1.0].map(|sign| fp8.number(sign * middle)), [0x80 | even, even], "{middle}");
            assert_eq!([middle.next_down(), middle.next_up()].map(|x| fp8.number(x)), [bits, bits + 1], "{middle}");
        }
    }

    #[test]
    fn tiny_rows_have_a_scale_that_divides() {
        let scale = |largest: f32| f32::from_bits(Quantization::Int8.encode(&[largest])[0]);
        let least = 127.0 * f32::MIN_POSITIVE;
        assert_eq!([least, least.next_up()].map(scale), [f32::MIN_POSITIVE, least.next_up() / 127.0]);
        assert_eq!(scale(least.next_down()), 1.0);
    }
}
