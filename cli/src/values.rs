//! Parses the values of options, with errors that say what to write.

use std::path::PathBuf;

use wgpu_attention::{Diagonal, Shape, Window};

pub(crate) fn diagonal(text: &str) -> Result<Diagonal, String> {
    match text {
        "top-left" => Ok(Diagonal::TopLeft),
        "bottom-right" => Ok(Diagonal::BottomRight),
        number => number
            .parse()
            .map(Diagonal::Offset)
            .map_err(|_| format!("write top-left, bottom-right, or a whole number from {} to {}", i32::MIN, i32::MAX)),
    }
}

pub(crate) fn window(text: &str) -> Result<Window, String> {
    let sides: Vec<&str> = text.split(',').collect();
    let &[left, right] = sides.as_slice() else {
        return Err("write two numbers with a comma between, such as 128,0".into());
    };
    Ok(Window { left: side(left)?, right: side(right)? })
}

/// One side of a window. Its bound is `i32::MAX`, because the formats that it comes from store it in an i32.
fn side(text: &str) -> Result<Option<u32>, String> {
    let text = text.trim();
    let range = format!("{text:?} is not a whole number from -1 (open) to {}", i32::MAX);
    match text.parse::<i32>() {
        Ok(-1) => Ok(None),
        Ok(side) => u32::try_from(side).map(Some).map_err(|_| range),
        Err(_) => Err(range),
    }
}

pub(crate) fn finite(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("it must be a finite number within the range of f32".into()),
    }
}

pub(crate) fn positive(text: &str) -> Result<f32, String> {
    match finite(text) {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("it must be a finite number above 0; leave it out for no cap".into()),
    }
}

pub(crate) fn shape(text: &str) -> Result<Shape, String> {
    let sizes: Result<Vec<u32>, _> = text.split(',').map(|size| size.trim().parse()).collect();
    match sizes.as_deref() {
        Ok(&[batch, heads, len, dim]) => Ok(Shape::new(batch, heads, len, dim)),
        _ => Err("write four whole numbers with commas between, such as 1,8,1024,64".into()),
    }
}

pub(crate) fn png_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("png") => Ok(path),
        _ => Err("a heat map is written as PNG; let the name end in .png".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagonals_are_two_names_and_all_numbers() {
        assert_eq!(diagonal("top-left"), Ok(Diagonal::TopLeft));
        assert_eq!(diagonal("bottom-right"), Ok(Diagonal::BottomRight));
        for number in [i32::MIN, -3, 0, i32::MAX] {
            assert_eq!(diagonal(&number.to_string()), Ok(Diagonal::Offset(number)));
        }
        for bad in ["", "middle", "1.5", "2147483648"] {
            assert!(diagonal(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn windows_are_two_bounded_sides() {
        assert_eq!(window("128,0"), Ok(Window { left: Some(128), right: Some(0) }));
        assert_eq!(window("-1, 2147483647"), Ok(Window { left: None, right: Some(2_147_483_647) }));
        for bad in ["", "3", "3,", "3,4,5", "-2,0", "0,2147483648", "9999999999999999999999,0", "a,b", "1.5,0"] {
            assert!(window(bad).is_err(), "{bad:?} was taken");
        }
    }
}
