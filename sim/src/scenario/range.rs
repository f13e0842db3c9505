//! A length of time, or a range that one is drawn from.

use millpond_core::time::Span;
use rand::{RngExt, rngs::StdRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Written `"5s"`, or `["1s", "10s"]`; both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Range(pub Span, pub Span);

impl Range {
    pub const fn exactly(span: Span) -> Range {
        Range(span, span)
    }

    pub fn draw(self, rng: &mut StdRng) -> Span {
        Span(rng.random_range(self.0.0..=self.1.0.max(self.0.0)))
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == self.1 { self.0.serialize(serializer) } else { [self.0, self.1].serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Range, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a length of time such as \"5s\", or a range such as [\"1s\", \"10s\"]")]
        enum Written {
            One(Span),
            Two([Span; 2]),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::One(span) => Range(span, span),
            Written::Two([from, to]) => Range(from.min(to), from.max(to)),
        })
    }
}
