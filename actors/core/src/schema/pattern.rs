//! Patterns of device names.

/// A text with `*` for any run of characters, also none. Everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern(text.into())
    }

    /// Steps: the product of the two lengths at worst.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on when the rest does not fit: behind the last star, one byte further in the name.
        let mut retry = None;
        while n < name.len() {
            if pattern.get(p) == Some(&b'*') {
                p += 1;
                retry = Some((p, n));
            } else if pattern.get(p) == Some(&name[n]) {
                p += 1;
                n += 1;
            } else if let Some((after_star, from)) = retry {
                p = after_star;
                n = from + 1;
                retry = Some((after_star, from + 1));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let check = |pattern: &str, name: &str, expected: bool| {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} on {name}");
        };
        check("press-*", "press-7", true);
        check("press-*", "press-", true);
        check("press-*", "pres-7", false);
        check("*-hall2", "press-7-hall2", true);
        check("*-hall2", "press-7-hall2x", false);
        check("a*b*c", "a1b2b3c", true);
        check("a*b*c", "a1c2b", false);
        check("*", "", true);
        check("", "", true);
        check("", "x", false);
        check("**x", "aax", true);
        check("müll-*", "müll-1", true);
    }
}
