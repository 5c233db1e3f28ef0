//! A table as one HTML page that opens anywhere: no script, nothing loaded from elsewhere, every value escaped.

use crate::chart;
use crate::html::escaped;
use crate::query::Table;
use rusqlite::types::Value;
use std::fmt::Write;

/// Even if a value got past the escaping, a browser would neither run nor fetch anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{line-height:1.2}\
.about{color:#767676}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;width:100%;margin-top:1.5rem}\
th,td{padding:.35rem .7rem;text-align:left;border-bottom:1px solid #8884;vertical-align:top}\
td.number{text-align:right;font-variant-numeric:tabular-nums}\
td.null{color:#767676}\
svg{width:100%;height:auto}\
svg text{font:13px system-ui,sans-serif;fill:currentColor}\
svg rect{fill:#3b7dd8}\
svg rect.negative{fill:#c0504d}\
svg line{stroke:#8888}";

/// What every page begins with.
const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n";
/// What a page of version 0.1 went on with; it did not say whose it is.
const HEAD_0_1: &str = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
                        'unsafe-inline'\">\n<meta name=\"viewport\"";
/// How much of a page tells whose it is.
pub(crate) const CLAIM_BYTES: u64 = 512;

/// The line that says whose page it is. `owner` is from [`crate::files::owner`].
fn claim(owner: &str) -> String {
    format!("<meta name=\"generator\" content=\"Warren generate-report {owner}\">\n")
}

/// Whether a page that begins like this may be replaced: it is this owner's, or a report that does not say whose.
pub(crate) fn is_replaceable(beginning: &[u8], owner: &str) -> bool {
    let rest = beginning.strip_prefix(HEAD.as_bytes());
    rest.is_some_and(|rest| {
        rest.starts_with(claim(owner).as_bytes()) || rest.starts_with(HEAD_0_1.as_bytes())
    })
}

/// Writes the page. `chart` names the columns of labels and of values.
pub(crate) fn write(title: &str, table: &Table, chart: Option<(&str, &str)>, owner: &str) -> String {
    let (title, claim) = (escaped(title), claim(owner));
    let mut page = format!(
        "{HEAD}{claim}\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p class=\"about\">{} row{}, {}</p>\n",
        table.rows.len(),
        if table.rows.len() == 1 { "" } else { "s" },
        escaped(&table.asked_at),
    );
    if let Some((label, value)) = chart {
        page.push_str(&chart::draw(table, label, value));
    }
    page.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for column in &table.columns {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escaped(column)); // Writing to a String does not fail.
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        page.extend(row.iter().map(cell));
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table></div>\n</body>\n</html>\n");
    page
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<td class=\"null\">–</td>".into(),
        Value::Integer(number) => format!("<td class=\"number\">{number}</td>"),
        Value::Real(number) => format!("<td class=\"number\">{number}</td>"),
        Value::Text(text) => format!("<td>{}</td>", escaped(text)),
        Value::Blob(bytes) => format!("<td class=\"null\">{} bytes</td>", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_escaped_wherever_it_stands() {
        let nasty = "</title><script>alert('1')</script>\"&\0";
        let table = Table {
            columns: vec![nasty.into(), "n".into()],
            rows: vec![vec![Value::Text(nasty.into()), Value::Integer(1)]],
            asked_at: "now".into(),
        };
        let page = write(nasty, &table, Some((nasty, "n")), "00000000");
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains('\0'));
        let escaped = "&lt;/title&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}";
        assert!(page.contains(&format!("<title>{escaped}</title>")));
        assert!(page.contains(&format!("<th scope=\"col\">{escaped}</th>")));
        assert!(page.contains(&format!("<td>{escaped}</td>")));
    }

    #[test]
    fn a_page_loads_nothing_from_elsewhere() {
        let table = Table { columns: vec!["a".into()], rows: vec![], asked_at: "now".into() };
        let page = write("Empty", &table, None, "00000000");
        for sign in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(sign), "{sign} in {page}");
        }
        assert!(page.contains("0 rows, now"));
    }
}
