//! The ledger's file: a table of redb, which a kill at any moment leaves whole.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableTable as _, StorageError, TableDefinition};

use super::disk::DiskEvent;
use super::entry::{MARK_BYTES, Revocation};
use super::list::List;
use crate::clock::UnixTime;

/// The open file. Nobody else can open it meanwhile.
pub(super) struct File(Database);

impl File {
    /// Opens the file, or makes it and its directory, for their owner only.
    pub(super) fn open(path: &Path) -> Result<Self, Trouble> {
        let directory = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            // What was damaged since it was written would be believed otherwise.
            .set_check_integrity_on_open(true)
            .create_with_backend(FileBackend::new(file)?)?;
        Ok(Self(database))
    }

    /// Reads everything, by service, and takes out what is not needed any more.
    pub(super) fn thin_out(&self, now: UnixTime) -> Result<BTreeMap<String, List>, Trouble> {
        let transaction = self.0.begin_write().map_err(redb::Error::from)?;
        let mut lists: BTreeMap<String, List> = BTreeMap::new();
        {
            let mut table = transaction.open_table(TABLE).map_err(redb::Error::from)?;
            for row in table.iter()? {
                let (key, value) = row?;
                let revocation = Revocation::from_bytes(value.value()).ok_or_else(|| {
                    Trouble::Broken("it has entries that this version can't read".to_owned())
                })?;
                let list = lists.entry(key.value().0.to_owned()).or_insert_with(List::new);
                list.put(revocation, now);
            }
            table.retain(|key, value| {
                let revocation = Revocation::from_bytes(value);
                revocation.is_some_and(|it| lists.get(key.0).is_some_and(|list| list.holds(&it)))
            })?;
            for (service, list) in &lists {
                // Only the line can be new.
                if let Some(line) = list.line() {
                    insert(&mut table, service, &line)?;
                }
            }
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(lists)
    }

    /// Writes down and syncs.
    pub(super) fn write(&self, lists: &BTreeMap<Box<str>, List>) -> Result<(), Trouble> {
        let transaction = self.0.begin_write().map_err(redb::Error::from)?;
        {
            let mut table = transaction.open_table(TABLE).map_err(redb::Error::from)?;
            for (service, list) in lists {
                for revocation in list.revocations() {
                    insert(&mut table, service, &revocation)?;
                }
            }
        }
        transaction.commit().map_err(redb::Error::from)?;
        Ok(())
    }
}

fn insert(
    table: &mut redb::Table<'_, Key, Value>,
    service: &str,
    revocation: &Revocation,
) -> Result<(), Trouble> {
    let bytes = revocation.to_bytes();
    let (mark, _) = bytes.split_at(MARK_BYTES);
    table.insert((service, mark), bytes.as_slice())?;
    Ok(())
}

/// What is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Another process has it.
    Locked,
    /// It can't be made, read or written now.
    Unusable(String),
    /// What is in it can't be understood.
    Broken(String),
    /// It was just set aside: the next try makes a new one.
    Gone,
}

impl Trouble {
    pub(super) fn is_lock(&self) -> bool {
        *self == Self::Locked
    }

    /// What the operator is to hear of.
    pub(super) fn told(&self) -> Option<&Self> {
        matches!(self, Self::Locked | Self::Unusable(_)).then_some(self)
    }

    pub(super) fn event(&self, path: &Path) -> DiskEvent {
        let path = path.to_owned();
        match self {
            Self::Unusable(reason) | Self::Broken(reason) => {
                DiskEvent::Unusable { path, reason: reason.clone() }
            }
            Self::Locked | Self::Gone => DiskEvent::Locked { path },
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // That is how redb says that a file is not one of its own.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::Broken(error.to_string()),
            _ => Self::Unusable(error.to_string()),
        }
    }
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Locked,
            DatabaseError::Storage(error) => error.into(),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::Locked,
            redb::Error::Io(error) => error.into(),
            redb::Error::PreviousIo => Self::Unusable(redb::Error::PreviousIo.to_string()),
            other => Self::Broken(other.to_string()),
        }
    }
}

type Key = (&'static str, &'static [u8]);
type Value = &'static [u8];

/// By service and by what was ended.
const TABLE: TableDefinition<'_, Key, Value> = TableDefinition::new("revocations 1");
/// What redb may keep in memory of a file of a few megabytes that is hardly ever read.
const CACHE_BYTES: usize = 256 * 1024;
