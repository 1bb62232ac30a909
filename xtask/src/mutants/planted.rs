/// Decides which mistake to make. `cargo xtask mutants` writes this module into the crate.
pub(crate) mod planted {
    use std::sync::OnceLock;

    /// Whether to make mistake `n`. The first test that then fails ends the program, since one failure is enough.
    pub(crate) fn is(n: u32) -> bool {
        static CHOSEN: OnceLock<Option<u32>> = OnceLock::new();
        let chosen = *CHOSEN.get_or_init(|| {
            let chosen = std::env::var("PLANTED").ok()?.parse().ok();
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                report(info);
                std::process::exit(101);
            }));
            chosen
        });
        chosen == Some(n)
    }

    /// Numbers that have a next and a previous one.
    pub(crate) trait Step: Sized {
        fn up(self) -> Self;
        fn down(self) -> Self;
    }

    macro_rules! steps {
        ($($ty:ty)*) => { $(
            impl Step for $ty {
                fn up(self) -> Self { self.wrapping_add(1) }
                fn down(self) -> Self { self.wrapping_sub(1) }
            }
            impl Quotient for $ty {
                fn other(self, by: Self) -> Self { self / by + Self::from(self % by != 0) }
            }
        )* };
    }
    steps!(u8 u32 u64 usize i32 i64 i128);

    macro_rules! floats {
        ($($ty:ty)*) => { $(
            impl Step for $ty {
                fn up(self) -> Self { self.next_up() }
                fn down(self) -> Self { self.next_down() }
            }
            impl Quotient for $ty {
                fn other(self, _: Self) -> Self { self }
            }
        )* };
    }
    floats!(f32 f64);

    impl Step for std::time::Duration {
        fn up(self) -> Self { self + Self::from_millis(1) }
        fn down(self) -> Self { self.saturating_sub(Self::from_millis(1)) }
    }

    /// `value`, or its neighbour.
    pub(crate) fn shift<T: Step>(up: u32, down: u32, value: T) -> T {
        if is(up) {
            value.up()
        } else if is(down) {
            value.down()
        } else {
            value
        }
    }

    /// Numbers to divide.
    pub(crate) trait Quotient: Sized + std::ops::Div<Output = Self> {
        /// The quotient rounded up. Floats are not divided at all.
        fn other(self, by: Self) -> Self;
    }

    pub(crate) fn quotient<T: Quotient>(n: u32, value: T, by: T) -> T {
        if is(n) { value.other(by) } else { value / by }
    }

    pub(crate) fn floor<T: Quotient>(value: T, by: T) -> T {
        value / by
    }

    pub(crate) fn floor_to<T: Quotient + Copy + std::ops::Mul<Output = T>>(value: T, by: T) -> T {
        value / by * by
    }
}
