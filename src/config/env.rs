//! The environment, and the expansion of `${NAME}`, `${NAME:-default}` and `$$` inside a scalar. Runs after
//! parsing, so a value can't change the structure; what was expanded is not expanded again.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::problem::Problem;

/// The variables that a configuration may name. Debug shows no value.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Exactly these variables.
    pub fn of<N: Into<OsString>, V: Into<OsString>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value of a variable that is set.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        match self.0.get(std::ffi::OsStr::new(name)) {
            None => Ok(None),
            Some(value) => {
                let text =
                    value.to_str().ok_or_else(|| Problem::VariableNotUtf8 { name: name.to_owned() })?;
                Ok(Some(text))
            }
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A scalar after expansion.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Expanded {
    /// The text.
    pub text: String,
    /// Whether any part of it came by a variable (its default counts too).
    pub by_variable: bool,
}

/// Expands one scalar. Every problem in it is found.
pub(super) fn expand(written: &str, environment: &Environment) -> Result<Expanded, Vec<Problem>> {
    let mut expanded = Expanded { text: String::with_capacity(written.len()), by_variable: false };
    let mut problems = Vec::new();
    let mut rest = written;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.text.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            expanded.by_variable = true;
            let Some((reference, after)) = after.split_once('}') else {
                problems.push(Problem::UnclosedVariable);
                return Err(problems);
            };
            match value_of(reference, environment) {
                Ok(value) => expanded.text.push_str(&value),
                Err(problem) => problems.push(problem),
            }
            rest = after;
        } else {
            // A `$` before anything else is itself.
            expanded.text.push('$');
        }
    }
    expanded.text.push_str(rest);
    if problems.is_empty() { Ok(expanded) } else { Err(problems) }
}

/// Whether `written` names a variable.
pub(super) fn has_variable(written: &str) -> bool {
    expand(written, &Environment::default()).map_or(true, |expanded| expanded.by_variable)
}

/// The value of what stands between `${` and `}`.
fn value_of(reference: &str, environment: &Environment) -> Result<String, Problem> {
    let name_bytes = reference.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, after) = reference.split_at_checked(name_bytes).unwrap_or((reference, ""));
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(Problem::BadVariable);
    }
    if after.is_empty() {
        let value = environment.get(name)?.ok_or_else(|| Problem::UnsetVariable { name: name.to_owned() })?;
        return Ok(value.to_owned());
    }
    let default = after.strip_prefix(":-").ok_or(Problem::BadVariable)?;
    if default.replace("$$", "").contains("${") {
        return Err(Problem::NestedVariable);
    }
    // As in a shell, `:-` also takes the place of a variable that is set and empty.
    match environment.get(name)?.filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.to_owned()),
        None => Ok(default.replace("$$", "$")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment::of([("A", "a"), ("EMPTY", ""), ("TRICK", "${A} $$ ${NOPE}"), ("YAML", "x: [1]\n- y")])
    }

    #[test]
    fn expansion() {
        for (written, text) in [
            ("plain", "plain"),
            ("${A}", "a"),
            ("x${A}y${A}z", "xayaz"),
            ("${NOPE:-default}", "default"),
            ("${NOPE:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-default}", "default"),
            ("${A:-default}", "a"),
            ("${NOPE:-a:-b}", "a:-b"),
            ("${NOPE:-https://idp.example:8443/x}", "https://idp.example:8443/x"),
            ("$${A}", "${A}"),
            ("$$$${A}", "$${A}"),
            ("$$$", "$$"),
            ("$A $", "$A $"),
            ("$", "$"),
            ("$ {A}", "$ {A}"),
            ("${NOPE:-$$}", "$"),
            // Expanded text is not expanded again, and stays one scalar.
            ("${TRICK}", "${A} $$ ${NOPE}"),
            ("${YAML}", "x: [1]\n- y"),
        ] {
            let expanded = expand(written, &environment()).map_err(|_| written).unwrap();
            assert_eq!(expanded.text, text, "{written}");
        }
    }

    #[test]
    fn mistakes() {
        let unset = |name: &str| Problem::UnsetVariable { name: name.to_owned() };
        for (written, problems) in [
            ("${NOPE}", vec![unset("NOPE")]),
            ("${NOPE}${ALSO}", vec![unset("NOPE"), unset("ALSO")]),
            ("${A", vec![Problem::UnclosedVariable]),
            ("${}", vec![Problem::BadVariable]),
            ("${1A}", vec![Problem::BadVariable]),
            ("${A-b}", vec![Problem::BadVariable]),
            ("${A:?b}", vec![Problem::BadVariable]),
            ("${ A }", vec![Problem::BadVariable]),
            ("${NOPE:-${A}}", vec![Problem::NestedVariable]),
        ] {
            assert_eq!(expand(written, &environment()).err(), Some(problems), "{written}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_text() {
        use std::os::unix::ffi::OsStringExt as _;
        let environment = Environment::of([("RAW", OsString::from_vec(vec![0xff]))]);
        assert_eq!(
            expand("${RAW}", &environment).err(),
            Some(vec![Problem::VariableNotUtf8 { name: "RAW".to_owned() }])
        );
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", Environment::of([("SECRET", "hunter2")])).contains("hunter2"));
    }
}
