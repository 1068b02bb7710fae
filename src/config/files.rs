//! The files of a configuration: which ones, in which order, and their text. Knows nothing of YAML.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Source;
use super::error::{Mistake, Place};
use super::problem::Problem;
use crate::file;

/// Most bytes of one file.
pub const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Most files of a directory.
pub const MAX_FILES: usize = 256;

/// One file's text.
pub(super) struct Text {
    /// The file as messages name it.
    pub name: Arc<str>,
    pub text: String,
    /// Relative paths in it count from here; `None`: from the working directory.
    pub directory: Option<PathBuf>,
}

/// The default configuration, filled from the environment only.
const BUILT_IN: &str = include_str!("../../config/portcullis.yaml");

/// Reads every file of a source, in order. What can't be read is a mistake, and the rest is still read.
pub(super) fn read(source: &Source) -> (Vec<Text>, Vec<Mistake>) {
    match source {
        Source::BuiltIn => {
            let name = "config/portcullis.yaml (built in)".into();
            (vec![Text { name, text: BUILT_IN.to_owned(), directory: None }], Vec::new())
        }
        Source::Text { name, text } => {
            let text = Text { name: name.as_str().into(), text: text.clone(), directory: None };
            (vec![text], Vec::new())
        }
        Source::Path(path) if path.is_dir() => read_directory(path),
        Source::Path(path) => gather([path.clone()]),
    }
}

fn read_directory(directory: &Path) -> (Vec<Text>, Vec<Mistake>) {
    let about = |problem| (Vec::new(), vec![mistake(directory, 0, problem)]);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(cause) => return about(Problem::Unreadable { cause: cause.to_string() }),
    };
    let (mut paths, mut others) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(cause) => return about(Problem::Unreadable { cause: cause.to_string() }),
        };
        // As a shell would expand `*.yaml`: no hidden files, such as those that editors leave and the ones
        // behind the links of a Kubernetes volume.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".yaml") && !name.starts_with('.') {
            paths.push(path);
        } else if !name.starts_with('.') && is_yaml_by_another_name(&name) {
            // Rules of one file may be narrower than those of another: to leave one out could open what it closes.
            others.push(mistake(directory, 0, Problem::OtherEnding { name: name.into_owned() }));
        }
        if paths.len() > MAX_FILES {
            return about(Problem::TooManyFiles { most: MAX_FILES });
        }
    }
    if paths.is_empty() && others.is_empty() {
        return about(Problem::NoFiles);
    }
    paths.sort();
    let (texts, mut mistakes) = gather(paths);
    mistakes.append(&mut others);
    (texts, mistakes)
}

fn is_yaml_by_another_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".yaml") || name.ends_with(".yml")
}

fn gather(paths: impl IntoIterator<Item = PathBuf>) -> (Vec<Text>, Vec<Mistake>) {
    let (mut texts, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        match read_file(&path) {
            Ok(text) => {
                let directory = path.parent().map(Path::to_owned);
                texts.push(Text { name: path.to_string_lossy().into(), text, directory });
            }
            Err(problem) => mistakes.push(mistake(&path, texts.len(), problem)),
        }
    }
    (texts, mistakes)
}

fn read_file(path: &Path) -> Result<String, Problem> {
    let unreadable = |cause: std::io::Error| Problem::Unreadable { cause: cause.to_string() };
    let mut bytes = file::read(path, MAX_FILE_BYTES + 1).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Problem::FileTooLarge { most: MAX_FILE_BYTES });
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map_err(|_| Problem::NotUtf8)
}

fn mistake(path: &Path, order: usize, problem: Problem) -> Mistake {
    let file: Arc<str> = path.to_string_lossy().into();
    Mistake { place: Place::start_of(&file, order), key: String::new(), problem }
}
