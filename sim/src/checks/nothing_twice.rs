//! No reading is stored twice, and no pane is said twice.

use super::{journal::Journal, panes::Panes, tally::Findings};

pub fn check(journal: &Journal, panes: &Panes, said: &mut Findings) {
    said.tell(&journal.twice, "readings are stored twice");
    said.tell(&panes.revisions, "panes do not have a higher revision than the one before them");
    said.tell(&panes.identical, "panes say the same again under another revision");
}
