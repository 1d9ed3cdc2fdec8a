//! Names of people and users for records that have only numbers.

use anyhow::Result;
use facelatch::audit::{Logged, Names};
use facelatch::config::Config;
use facelatch::files;
use facelatch::service::files::open_store;
use facelatch::storage::audit::{AuditReader, Order};
use facelatch::storage::gallery::Purpose;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

/// Longest list of users that is read, bytes.
const LONGEST: u64 = 1 << 20;

/// The names of all people who are enrolled now, and of the system's users. Without a
/// gallery that can be read, people are numbers.
pub fn names(config: &Config) -> Names {
    let users = users(&files::read_text(Path::new("/etc/passwd"), LONGEST).unwrap_or_default());
    let people = open_store(&config.gallery_file(), Purpose::Read).and_then(|store| store.people());
    match people {
        Ok(people) => {
            Names::new(people.into_iter().map(|person| (person.id.0, person.name)).collect(), users)
        }
        Err(error) => {
            log::warn!("{error}; people are shown by their number");
            Names::without_people(users)
        }
    }
}

/// Names of users by their id, from a list like `/etc/passwd`.
fn users(passwd: &str) -> BTreeMap<u32, String> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let (name, _, uid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((uid.parse().ok()?, name.to_owned()))
    };
    passwd.lines().filter_map(user).collect()
}

/// The records with these numbers that say something about the door, oldest first.
pub fn of_records(reader: &AuditReader, numbers: RangeInclusive<u64>) -> Result<Vec<Logged>> {
    let records = reader.records(numbers, Order::OldestFirst)?;
    // What cannot be read is named by `verify`.
    Ok(records.flatten().filter_map(|record| Logged::of(&record)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_nonsense_is_not() {
        let users = users("root:x:0:0::/root:/bin/sh\nada:x:1000:1000\nno\na:b:c\n\n");
        assert_eq!(users.into_keys().collect::<Vec<_>>(), [0, 1000]);
    }
}
