//! Names that people get: allowed, and not to be taken for somebody else's.

use super::{Person, Store, StoreError};
use crate::access::gallery::PersonId;
use crate::access::names::{self, Likeness};

impl Store {
    /// The name under which [`Store::enroll`] keeps templates: that of the person found, or
    /// that of somebody new as it is stored.
    ///
    /// # Errors
    /// If a new name is invalid or looks like that of somebody enrolled.
    pub fn name_for(&self, name: &str) -> Result<String, StoreError> {
        match self.find(name) {
            Ok(person) => Ok(person.name),
            Err(StoreError::Unknown { .. }) => {
                let name = checked_name(name)?;
                self.check_look_alikes(&name, None)?;
                Ok(name)
            }
            Err(error) => Err(error),
        }
    }

    /// Refuses a new name that looks like that of somebody other than `own`.
    pub(super) fn check_look_alikes(
        &self,
        name: &str,
        own: Option<PersonId>,
    ) -> Result<(), StoreError> {
        let likeness = Likeness::of(name);
        let alike = |person: &Person| {
            Some(person.id) != own && Likeness::of(&person.name).is_like(&likeness)
        };
        match self.people()?.into_iter().find(alike) {
            None => Ok(()),
            Some(other) if other.name == name => Err(StoreError::Taken { name: other.name }),
            Some(other) => Err(StoreError::Alike { name: name.to_owned(), other: other.name }),
        }
    }
}

pub(super) fn checked_name(name: &str) -> Result<String, StoreError> {
    names::checked(name).map_err(|fault| StoreError::Name { name: name.to_owned(), fault })
}
