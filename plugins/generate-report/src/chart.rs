//! A bar chart of one column over another, as inline SVG.

use crate::html::escaped;
use crate::query::Table;
use rusqlite::types::Value;
use std::fmt::Write;

/// The most bars: more would be neither read nor compared. The table below the chart has every row.
const MAX_BARS: usize = 50;
/// The longest label, in characters; the table has all of it.
const MAX_LABEL: usize = 24;

/// The picture's measures, in its own units.
const WIDTH: f64 = 900.0;
const LABELS: f64 = 200.0;
const VALUES: f64 = 120.0;
const ROW: f64 = 26.0;
const BAR: f64 = 18.0;

/// Draws a bar for each row, in the table's order. A value that is no finite number has no bar, and says so.
pub(crate) fn draw(table: &Table, label: &str, value: &str) -> String {
    let column = |name: &str| table.columns.iter().position(|column| column == name);
    let (Some(labels), Some(values)) = (column(label), column(value)) else { return String::new() };
    let bars: Vec<(String, Option<f64>)> =
        table.rows.iter().take(MAX_BARS).map(|row| (text(&row[labels]), number(&row[values]))).collect();
    if bars.is_empty() {
        return String::new();
    }
    let scale = Scale::over(bars.iter().filter_map(|(_, value)| *value));
    let height = ROW * bars.len() as f64;
    let name = escaped(&format!("{value} by {label}"));
    let mut svg = format!(
        "<figure><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{name}\">\n<title>{name}</title>\n"
    );
    for (index, (label, value)) in bars.iter().enumerate() {
        bar(&mut svg, ROW * index as f64, label, *value, &scale);
    }
    let zero = scale.x(0.0);
    // Writing to a String does not fail, here and below.
    let _ = write!(svg, "<line x1=\"{zero:.1}\" y1=\"0\" x2=\"{zero:.1}\" y2=\"{height}\"/>\n</svg>");
    let more = table.rows.len().saturating_sub(MAX_BARS);
    if more > 0 {
        let _ = write!(
            svg,
            "<figcaption class=\"about\">The first {MAX_BARS} rows; {more} more in the table</figcaption>"
        );
    }
    svg.push_str("</figure>\n");
    svg
}

fn bar(svg: &mut String, top: f64, label: &str, value: Option<f64>, scale: &Scale) {
    let middle = top + ROW / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{middle:.1}\" text-anchor=\"end\" dominant-baseline=\"central\">{}</text>",
        LABELS - 10.0,
        escaped(&shortened(label)),
    );
    let Some(value) = value else {
        let x = scale.x(0.0) + 6.0;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{middle:.1}\" dominant-baseline=\"central\">no value</text>"
        );
        return;
    };
    let (zero, end) = (scale.x(0.0), scale.x(value));
    let class = if value < 0.0 { " class=\"negative\"" } else { "" };
    let _ = writeln!(
        svg,
        "<rect{class} x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
         <text x=\"{:.1}\" y=\"{middle:.1}\" dominant-baseline=\"central\">{value}</text>",
        zero.min(end),
        middle - BAR / 2.0,
        (end - zero).abs(),
        zero.max(end) + 6.0,
    );
}

/// Where values lie between the labels and the right edge; zero is always inside.
struct Scale {
    least: f64,
    greatest: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>) -> Self {
        let (least, greatest) = values
            .fold((0.0_f64, 0.0_f64), |(least, greatest), value| (least.min(value), greatest.max(value)));
        Self { least, greatest }
    }

    fn x(&self, value: f64) -> f64 {
        // Halved, so that the span of the two ends of f64 is still finite.
        let span = self.greatest / 2.0 - self.least / 2.0;
        let share = if span > 0.0 { (value / 2.0 - self.least / 2.0) / span } else { 0.0 };
        LABELS + share * (WIDTH - LABELS - VALUES)
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Real(number) => Some(*number),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Null | Value::Blob(_) => None,
    }
    .filter(|number| number.is_finite())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= MAX_LABEL {
        return label.to_owned();
    }
    label.chars().take(MAX_LABEL - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: Vec<Value>) -> Table {
        let rows = values.into_iter().map(|value| vec![Value::Text("Q".into()), value]).collect();
        Table { columns: vec!["quarter".into(), "amount".into()], rows, asked_at: String::new() }
    }

    fn widths(svg: &str) -> Vec<f64> {
        svg.split("width=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap_or_default().parse().expect("a number"))
            .collect()
    }

    #[test]
    fn bars_are_in_proportion_on_both_sides_of_zero() {
        let svg = draw(
            &table(vec![Value::Integer(100), Value::Real(50.0), Value::Integer(-50)]),
            "quarter",
            "amount",
        );
        let widths = widths(&svg);
        assert_eq!(widths.len(), 3);
        assert!((widths[0] - 2.0 * widths[1]).abs() < 0.2, "{widths:?}");
        assert!((widths[1] - widths[2]).abs() < 0.2, "{widths:?}");
        assert_eq!(svg.matches("class=\"negative\"").count(), 1);
    }

    #[test]
    fn values_that_are_no_number_have_no_bar() {
        let values = vec![
            Value::Null,
            Value::Text("many".into()),
            Value::Real(f64::INFINITY),
            Value::Text(" 7.5 ".into()),
        ];
        let svg = draw(&table(values), "quarter", "amount");
        assert_eq!(svg.matches("no value").count(), 3);
        assert_eq!(widths(&svg).len(), 1);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn only_zeros_and_the_ends_of_f64_are_drawn_too() {
        for values in [vec![Value::Integer(0)], vec![Value::Real(f64::MAX), Value::Real(f64::MIN)]] {
            let svg = draw(&table(values), "quarter", "amount");
            assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
        }
        assert_eq!(draw(&table(vec![]), "quarter", "amount"), "", "nothing to draw");
    }

    #[test]
    fn a_long_table_is_charted_in_part_and_says_so() {
        let svg = draw(&table(vec![Value::Integer(1); 60]), "quarter", "amount");
        assert_eq!(widths(&svg).len(), MAX_BARS);
        assert!(svg.contains("The first 50 rows; 10 more in the table"));
    }

    #[test]
    fn long_labels_are_shortened_by_characters() {
        assert_eq!(shortened(&"ä".repeat(24)), "ä".repeat(24));
        assert_eq!(shortened(&"ä".repeat(25)), format!("{}…", "ä".repeat(23)));
    }
}
