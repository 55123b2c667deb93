//! What one side's figures are beside another's, over pairs of rounds.

use serde::Serialize;

/// A over B: the median of the pairs, and the pairs farthest from it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Ratio {
    /// `None` where no pair has a ratio.
    pub(crate) fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let usable = pairs.iter().filter(|(_, b)| *b > 0.0);
        let mut ratios: Vec<f64> = usable.map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        let (min, max) = (*ratios.first()?, *ratios.last()?);
        Some(Self { median: thousandths(middle(&ratios)), min: thousandths(min), max: thousandths(max) })
    }

    /// As a cell of a table.
    pub(crate) fn text(ratio: Option<Self>) -> String {
        match ratio {
            Some(Self { median, min, max }) => format!("{median:.2} ({min:.2}-{max:.2})"),
            None => "-".to_owned(),
        }
    }
}

/// The median; 0 of nothing.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    if figures.is_empty() { 0.0 } else { middle(&figures) }
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2].midpoint(sorted[sorted.len() / 2])
}

fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_pairs_with_its_extremes() {
        let ratio = Ratio::of(&[(1.0, 2.0), (3.0, 2.0), (2.0, 2.0)]).unwrap();
        assert_eq!(ratio, Ratio { median: 1.0, min: 0.5, max: 1.5 });
        assert_eq!(Ratio::of(&[(1.0, 2.0), (2.0, 2.0)]).unwrap().median, 0.75);
        assert_eq!(Ratio::of(&[(1.0, 0.0)]), None);
    }
}
