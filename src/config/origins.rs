//! Where the values of the configuration come from, and which of them are missing because something is already
//! known to be wrong with them, so that nothing is reported twice.

use std::collections::{HashMap, HashSet};

use super::error::{Place, Shown};

/// Where each value of the result comes from, by its path in the result.
#[derive(Debug, Default)]
pub(super) struct Origins {
    pub(super) known: HashMap<String, Origin>,
    /// Paths that are absent from the result because of a mistake that has been reported.
    pub(super) pruned: HashSet<String>,
    /// Lists that lack a member for that reason.
    pub(super) incomplete: HashSet<String>,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub place: Place,
    /// The path as the operator's file has it.
    pub key: String,
    /// The value, if it is a scalar, as a message may quote it.
    pub shown: Option<Shown>,
    /// Whether a part of it came by a variable, and must stay out of messages.
    pub by_variable: bool,
}

impl Origins {
    /// The origin of a value that the file has.
    pub fn get(&self, path: &str) -> Option<&Origin> {
        self.known.get(path)
    }

    /// The origin of a value, or of the nearest thing around it, with the path of that.
    pub fn around<'p>(&self, path: &'p str) -> Option<(&Origin, &'p str)> {
        let mut outer = path;
        loop {
            if let Some(origin) = self.known.get(outer) {
                return Some((origin, outer));
            }
            let end = outer.rfind(['.', '[']).unwrap_or_default();
            outer = outer.get(..end).filter(|_| !outer.is_empty())?;
        }
    }

    /// Whether something is known to be wrong with this value, or with what it is part of.
    pub fn is_pruned(&self, path: &str) -> bool {
        let mut outer = Some(path);
        while let Some(path) = outer {
            if self.pruned.contains(path) {
                return true;
            }
            outer = path.rfind(['.', '[']).and_then(|end| path.get(..end));
        }
        false
    }

    /// Whether this list lacks a member, about which something has been reported.
    pub fn is_incomplete(&self, path: &str) -> bool {
        self.incomplete.contains(path)
    }

    /// Whether any list whose path fits lacks a member.
    pub fn any_incomplete(&self, fits: impl Fn(&str) -> bool) -> bool {
        self.incomplete.iter().chain(&self.pruned).any(|path| fits(path))
    }
}
