//! Tables of what a node answered, and its plain JSON.

use millpond_core::time::Timestamp;
use serde_json::Value;

use crate::commands::out;

/// A column: its title, and the key it shows. Dots lead into objects; `@` at the end says that the number is a time in epoch ms.
pub struct Column(pub &'static str, pub &'static str);

/// The items of an answer: the array itself, or the first array in the object.
pub fn items(answer: &Value) -> &[Value] {
    match answer {
        Value::Array(items) => items,
        Value::Object(map) => map.values().find_map(Value::as_array).map_or(&[], Vec::as_slice),
        _ => &[],
    }
}

/// Prints one JSON document per item and line.
pub fn print_json(items: &[Value]) -> anyhow::Result<()> {
    items.iter().try_for_each(|item| out(format!("{item}\n")))
}

/// Prints the items as a table. Columns that no item has are left out; numbers stand to the right.
pub fn print(columns: &[Column], items: &[Value]) -> anyhow::Result<()> {
    if items.is_empty() {
        eprintln!("none");
        return Ok(());
    }
    out(render(columns, items))
}

/// What a command answers with: a table, or with `json` one document per item and line. Whether it was the table.
pub fn answer(json: bool, columns: &[Column], items: &[Value]) -> anyhow::Result<bool> {
    if json {
        print_json(items)?
    } else {
        print(columns, items)?
    }
    Ok(!json)
}

pub fn render(columns: &[Column], items: &[Value]) -> String {
    let columns: Vec<&Column> =
        columns.iter().filter(|column| items.iter().any(|item| !find(item, column.1).is_null())).collect();
    let cell = |item: &Value, column: &Column| match (column.1.strip_suffix('@'), find(item, column.1).as_i64()) {
        (Some(_), Some(ms)) => Timestamp::from_millis(ms).to_string(),
        _ => show(find(item, column.1)),
    };
    let rows: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|column| cell(item, column)).collect()).collect();
    let is_number: Vec<bool> = columns
        .iter()
        .map(|column| !column.1.ends_with('@') && items.iter().all(|item| !find(item, column.1).is_string()))
        .collect();
    let titles: Vec<String> = columns.iter().map(|column| column.0.to_owned()).collect();
    aligned(&titles, &rows, &is_number)
}

/// Prints rows of values under their titles; numbers stand to the right.
pub fn print_rows(titles: &[String], rows: &[Vec<Value>]) -> anyhow::Result<()> {
    if rows.is_empty() {
        eprintln!("none");
        return Ok(());
    }
    let column = |at: usize| rows.iter().map(move |row| row.get(at).unwrap_or(&Value::Null));
    let is_number: Vec<bool> = (0..titles.len()).map(|at| column(at).all(|value| !value.is_string())).collect();
    let cells = |row: &Vec<Value>| (0..titles.len()).map(|at| show(row.get(at).unwrap_or(&Value::Null))).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    out(aligned(titles, &rows, &is_number))
}

/// Columns as wide as their widest cells; `to_right` says which of them stand to the right.
fn aligned(titles: &[String], rows: &[Vec<String>], to_right: &[bool]) -> String {
    let titles = titles.to_vec();
    let lines = || std::iter::once(&titles).chain(rows);
    let width = |at: usize| lines().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::new();
    for row in lines() {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let padding = " ".repeat(widths[at] - cell.chars().count());
            let (before, after) = if to_right[at] { (padding.as_str(), "") } else { ("", padding.as_str()) };
            line.push_str(&format!("{before}{cell}{after}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn find<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.trim_end_matches('@').split('.').fold(item, |item, key| &item[key])
}

/// Control characters of strangers do not reach the terminal.
pub fn show(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Array(items) => items.iter().map(show).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let items =
            [json!({ "id": "press-1", "n": 5, "at": { "x": true } }), json!({ "id": "p\u{1b}[2J", "n": 12345 })];
        let table =
            render(&[Column("DEVICE", "id"), Column("N", "n"), Column("X", "at.x"), Column("NONE", "none")], &items);
        assert_eq!(table, "DEVICE       N     X\npress-1      5  true\np\u{fffd}[2J    12345     –\n");
    }

    #[test]
    fn items_are_found_in_an_answer_with_more_around_them() {
        assert_eq!(items(&json!({ "next": "x", "devices": [1, 2] })).len(), 2);
        assert_eq!(items(&json!([1])).len(), 1);
        assert!(items(&json!("none")).is_empty());
    }
}
