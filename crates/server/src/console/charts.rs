//! Numbers over time, as pictures that stand in the page; the same numbers stand in a table behind each.

use std::fmt::Write as _;

/// How large a picture is, in its own units.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 160.0;
/// Room for what is written below and beside.
const BELOW: f64 = 20.0;

/// A part of each bar, from the bottom up.
pub(super) struct Band {
    /// What it counts.
    pub(super) name: &'static str,
    /// The class that colours it.
    pub(super) class: &'static str,
}

/// One bar.
pub(super) struct Bar {
    /// When it is of.
    pub(super) label: String,
    /// A number for each band.
    pub(super) values: Vec<i64>,
}

/// Bars that are made of bands, each standing on the one before.
pub(super) struct Chart {
    /// What it shows, in a sentence.
    pub(super) title: &'static str,
    pub(super) bands: Vec<Band>,
    pub(super) bars: Vec<Bar>,
}

impl Chart {
    pub(super) fn is_empty(&self) -> bool {
        self.bars
            .iter()
            .all(|bar| bar.values.iter().all(|value| *value == 0))
    }

    /// The picture. Nothing of what it is made of comes from outside but numbers and days.
    #[expect(clippy::cast_precision_loss, reason = "a picture is drawn of it")]
    pub(super) fn svg(&self) -> String {
        let highest = self.bars.iter().map(|bar| bar.values.iter().sum::<i64>());
        let highest = highest.max().unwrap_or(0).max(1) as f64;
        let step = WIDTH / self.bars.len().max(1) as f64;
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
            HEIGHT + BELOW,
            self.title
        );
        for (at, bar) in self.bars.iter().enumerate() {
            let left = at as f64 * step;
            let mut bottom = HEIGHT;
            for (band, value) in self.bands.iter().zip(&bar.values) {
                let height = *value as f64 / highest * HEIGHT;
                bottom -= height;
                if *value > 0 {
                    // Writing to a text does not fail.
                    let _ = write!(
                        svg,
                        "<rect class=\"{}\" x=\"{left:.1}\" y=\"{bottom:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                        band.class,
                        (step * 0.85).max(1.0)
                    );
                }
            }
        }
        let ends = [
            (self.bars.first(), 0.0, "start"),
            (
                self.bars.last().filter(|_| self.bars.len() > 1),
                WIDTH,
                "end",
            ),
        ];
        for (bar, x, anchor) in ends {
            if let Some(bar) = bar {
                let _ = write!(
                    svg,
                    "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                    HEIGHT + BELOW - 4.0,
                    bar.label
                );
            }
        }
        svg.push_str("</svg>");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[[i64; 2]]) -> Chart {
        let bar = |values: &[i64; 2]| Bar {
            label: "2026-11-23".to_owned(),
            values: values.to_vec(),
        };
        Chart {
            title: "Two bands",
            bands: vec![
                Band {
                    name: "low",
                    class: "good",
                },
                Band {
                    name: "high",
                    class: "bad",
                },
            ],
            bars: values.iter().map(bar).collect(),
        }
    }

    #[test]
    fn the_highest_bar_fills_the_picture_and_bands_stand_on_each_other() {
        let svg = chart(&[[1, 1], [2, 2]]).svg();
        assert!(
            svg.contains(r#"class="good" x="0.0" y="120.0" width="272.0" height="40.0""#),
            "{svg}"
        );
        assert!(
            svg.contains(r#"class="bad" x="320.0" y="0.0" width="272.0" height="80.0""#),
            "{svg}"
        );
        assert_eq!(svg.matches("<rect").count(), 4);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(chart(&[]).is_empty() && chart(&[[0, 0]]).is_empty());
        assert!(!chart(&[[0, 0]]).svg().contains("<rect"));
    }
}
