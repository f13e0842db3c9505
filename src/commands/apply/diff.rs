//! What is different between two sets of texts.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

/// Added, changed and removed texts, each with the lines that differ; empty when there are none.
pub fn of(before: &Value, after: &Value) -> String {
    let (before, after) = (by_name(before), by_name(after));
    let mut out = String::new();
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for key in names {
        let (old, new) = (before.get(key), after.get(key));
        let sign = match (old, new) {
            (None, _) => '+',
            (_, None) => '-',
            (old, new) if old == new => continue,
            _ => '~',
        };
        let _ = writeln!(out, "{sign} {} {}", key.0, key.1);
        for (sign, line) in lines(old.copied().unwrap_or_default(), new.copied().unwrap_or_default()) {
            let _ = writeln!(out, "    {sign} {line}");
        }
    }
    out
}

fn by_name(texts: &Value) -> BTreeMap<(&str, &str), &str> {
    let mut all = BTreeMap::new();
    for one in texts.as_array().into_iter().flatten() {
        if let (Some(kind), Some(name), Some(text)) = (one["kind"].as_str(), one["name"].as_str(), one["text"].as_str())
        {
            all.insert((kind, name), text);
        }
    }
    all
}

/// Lines that are only in one of them, in their order: the longest common part is left out.
fn lines<'a>(old: &'a str, new: &'a str) -> Vec<(char, &'a str)> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // common[i][j]: lines that old[i..] and new[j..] have in common.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = match old[i] == new[j] {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            out.push(('-', old[i]));
            i += 1;
        } else {
            out.push(('+', new[j]));
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_diff_names_what_is_added_changed_and_removed() {
        let text = |kind: &str, name: &str, text: &str| json!({ "kind": kind, "name": name, "text": text });
        let before = json!([
            text("rules", "hot", "a = 1\nb = 2\n"),
            text("rules", "old", "x = 1\n"),
            text("windows", "ten", "s")
        ]);
        let after = json!([
            text("rules", "hot", "a = 1\nb = 3\n"),
            text("rules", "new", "y = 1\n"),
            text("windows", "ten", "s")
        ]);
        let expected = "~ rules hot\n    - b = 2\n    + b = 3\n+ rules new\n    + y = 1\n- rules old\n    - x = 1\n";
        assert_eq!(of(&before, &after), expected);
        assert_eq!(of(&before, &before), "");
    }
}
