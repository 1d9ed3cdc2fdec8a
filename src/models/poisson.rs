//! Intervals of rare counts: the gamma distribution, which the rate of a Poisson process
//! follows once some of its events were counted.

/// Most terms of a series or of a continued fraction: enough for counts up to 10^8.
const MOST_TERMS: usize = 200_000;

/// Where a series has converged.
const SMALL: f64 = 1e-14;

/// Natural logarithm of the gamma function for `x` above 0 (Lanczos, "A precision
/// approximation of the gamma function", 1964, with the coefficients of Godfrey for g = 7).
fn ln_gamma(x: f64) -> f64 {
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const OTHERS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum = (1..).zip(OTHERS).fold(FIRST, |sum, (at, term)| sum + term / (x + f64::from(at)));
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Probability that a gamma variable of shape `a` (above 0) and scale 1 is at most `x`: the
/// regularized lower incomplete gamma function (Press et al., "Numerical Recipes", section
/// 6.2: a series below the mean, a continued fraction above it).
pub fn gamma_share(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let factor = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..MOST_TERMS {
            term *= x / (a + n as f64);
            sum += term;
            if term < sum * SMALL {
                break;
            }
        }
        return (sum * factor).min(1.0);
    }
    // The continued fraction by the method of Lentz.
    let tiny = f64::MIN_POSITIVE / SMALL;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / tiny;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for n in 1..MOST_TERMS {
        let n = n as f64;
        let an = -n * (n - a);
        b += 2.0;
        d = an * d + b;
        d = 1.0 / if d.abs() < tiny { tiny } else { d };
        c = b + an / c;
        c = if c.abs() < tiny { tiny } else { c };
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() < SMALL {
            break;
        }
    }
    (1.0 - factor * fraction).max(0.0)
}

/// The value that a gamma variable of shape `a` and scale 1 stays below with probability
/// `share`, by bisection. 0 for a shape of 0.
pub fn gamma_quantile(a: f64, share: f64) -> f64 {
    if a <= 0.0 || share <= 0.0 {
        return 0.0;
    }
    let mut low = 0.0;
    let mut high = a + 1.0;
    while gamma_share(a, high) < share && high < 1e300 {
        high *= 2.0;
    }
    for _ in 0..45 {
        let middle = 0.5 * (low + high);
        if gamma_share(a, middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// Interval of the mean of a Poisson variable that was counted once (Garwood, "Fiducial
/// limits for the Poisson distribution", 1936). It holds the mean with at least the
/// probability `confidence`.
pub fn interval(count: f64, confidence: f64) -> [f64; 2] {
    let outside = 0.5 * (1.0 - confidence);
    [gamma_quantile(count, outside), gamma_quantile(count + 1.0, 1.0 - outside)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn factorials_and_roots_are_known() {
        let mut product = 1.0f64;
        for n in 1..30 {
            assert!((ln_gamma(f64::from(n)) - product.ln()).abs() < 1e-10, "{n}");
            product *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-12);
    }

    #[test]
    fn shares_of_whole_shapes_are_sums_of_poisson_terms() {
        // P(gamma(n) > x) = P(Poisson(x) < n).
        for (n, x) in [(1u32, 0.3f64), (3, 2.0), (3, 9.0), (20, 14.0), (20, 35.0)] {
            let (mut term, mut sum) = ((-x).exp(), 0.0);
            for k in 0..n {
                sum += term;
                term *= x / f64::from(k + 1);
            }
            assert!((gamma_share(f64::from(n), x) - (1.0 - sum)).abs() < 1e-12, "{n} {x}");
        }
    }

    #[test]
    fn intervals_are_those_of_published_tables() {
        // 95 %: Johnson, Kotz and Kemp, "Univariate Discrete Distributions".
        for (count, low, high) in
            [(0.0, 0.0, 3.689), (1.0, 0.0253, 5.572), (10.0, 4.795, 18.39), (100.0, 81.36, 121.6)]
        {
            let [is_low, is_high] = interval(count, 0.95);
            assert!((is_low - low).abs() < 1e-3 * count.max(1.0), "{count}: {is_low}");
            assert!((is_high - high).abs() < 2e-3 * count.max(1.0), "{count}: {is_high}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_has_its_share(a in 0.05f64..1e4, share in 0.001f64..0.999) {
            let x = gamma_quantile(a, share);
            prop_assert!((gamma_share(a, x) - share).abs() < 1e-9, "{x}");
        }

        #[test]
        fn a_larger_count_has_a_higher_interval(count in 0.0f64..1e4, more in 0.01f64..100.0) {
            let (a, b) = (interval(count, 0.95), interval(count + more, 0.95));
            prop_assert!(a[0] <= count && count <= a[1]);
            prop_assert!(b[0] >= a[0] && b[1] > a[1]);
        }
    }
}
