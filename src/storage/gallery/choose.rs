//! Which of a gallery's two files counts: a pure function of their content and of what is
//! remembered about the gallery.

/// What is remembered of a gallery apart from its files: by a running service, or in the
/// register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Identity and revision.
    pub revision: [u64; 2],
    /// Whether anybody was enrolled.
    pub inhabited: bool,
}

impl Known {
    /// Whether a gallery of this identity and revision may take the place of what is
    /// remembered: the same gallery, not older. An empty gallery gives way to any other.
    pub fn admits(&self, [identity, revision]: [u64; 2]) -> bool {
        let [own, last] = self.revision;
        if identity == own { revision >= last } else { !self.inhabited }
    }

    /// The stronger of two memories. `first` decides if they are of different galleries.
    pub fn stronger(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        match (first, second) {
            (Some(a), Some(b)) if a.revision[0] == b.revision[0] => {
                Some(if b.revision[1] > a.revision[1] { b } else { a })
            }
            (first, second) => first.or(second),
        }
    }
}

/// Content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Identity and revision.
    pub(super) revision: [u64; 2],
    /// Digest of all records.
    pub(super) digest: [u8; 32],
}

/// State of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Absent,
    /// Damaged, or no gallery at all.
    Unusable,
    /// Sealed, with some records that are not used.
    Flawed(Snapshot),
    Whole(Snapshot),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Use the main file. The copy is used if it is equal, and otherwise made again.
    Main {
        /// Whether the copy is equal.
        copied: bool,
    },
    /// The copy takes the place of the main file.
    Copy(Why),
    /// The records that one of the two files has whole make a new main file.
    Salvage {
        /// Whether the copy decides which records there are, because the main file cannot.
        by_copy: bool,
    },
    /// There is no gallery.
    Nothing,
    /// Neither file may be used.
    Refuse(Trouble),
}

/// Why the copy takes the place of the main file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The main file is missing.
    Missing,
    /// The main file is damaged.
    Damaged,
    /// The main file is older than the copy: somebody put it back.
    Older,
    /// The main file is another gallery.
    Other,
}

/// Why neither file may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Both are missing, and people were enrolled.
    Gone,
    /// The main file is damaged or missing, and so is the copy.
    Lost,
    /// The newest of them has this revision, older than the one remembered.
    Older(u64),
    /// They are another gallery.
    Other,
    /// They have the same revision and different content.
    Differ,
}

/// Chooses between the main file and its copy.
pub(super) fn choose(main: Found, copy: Found, known: Option<Known>) -> Choice {
    let admitted = |content: &Snapshot| known.is_none_or(|known| known.admits(content.revision));
    let whole = |found: Found| match found {
        Found::Whole(content) => Some(content),
        Found::Absent | Found::Unusable | Found::Flawed(_) => None,
    };
    let flawed = |found: Found| match found {
        Found::Flawed(content) => Some(content).filter(admitted),
        _ => None,
    };
    match (whole(main).filter(admitted), whole(copy).filter(admitted)) {
        (Some(a), Some(b)) if a.revision[0] == b.revision[0] => {
            let ([_, main], [_, copy]) = (a.revision, b.revision);
            if main == copy && a.digest != b.digest {
                Choice::Refuse(Trouble::Differ)
            } else if copy > main {
                Choice::Copy(Why::Older)
            } else {
                Choice::Main { copied: main == copy }
            }
        }
        (Some(_), _) => Choice::Main { copied: false },
        (None, Some(b)) => Choice::Copy(match main {
            Found::Absent => Why::Missing,
            Found::Unusable | Found::Flawed(_) => Why::Damaged,
            Found::Whole(a) if a.revision[0] == b.revision[0] => Why::Older,
            Found::Whole(_) => Why::Other,
        }),
        (None, None) if flawed(main).or(flawed(copy)).is_some() => {
            let revision = |found| flawed(found).map(|content| content.revision[1]);
            // The main file, unless the copy is newer.
            Choice::Salvage { by_copy: revision(copy) > revision(main) }
        }
        (None, None) => match (whole(main).or(whole(copy)), known) {
            (Some(content), Some(known)) if content.revision[0] == known.revision[0] => {
                let newest = [whole(main), whole(copy)].into_iter().flatten();
                let newest = newest.map(|content| content.revision[1]).max().unwrap_or(0);
                Choice::Refuse(Trouble::Older(newest))
            }
            (Some(_), _) => Choice::Refuse(Trouble::Other),
            (None, known) if main == Found::Absent && copy == Found::Absent => {
                if known.is_some_and(|known| known.inhabited) {
                    Choice::Refuse(Trouble::Gone)
                } else {
                    Choice::Nothing
                }
            }
            (None, _) => Choice::Refuse(Trouble::Lost),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(identity: u64, revision: u64, content: u8) -> Found {
        Found::Whole(Snapshot { revision: [identity, revision], digest: [content; 32] })
    }

    fn flawed(identity: u64, revision: u64) -> Found {
        Found::Flawed(Snapshot { revision: [identity, revision], digest: [0; 32] })
    }

    fn known(identity: u64, revision: u64) -> Option<Known> {
        Some(Known { revision: [identity, revision], inhabited: true })
    }

    #[test]
    fn the_newer_file_counts_and_what_is_older_is_an_alarm() {
        use Found::{Absent, Unusable};
        let refuse = Choice::Refuse;
        for (main, copy, known, expected) in [
            (whole(1, 5, 0), whole(1, 5, 0), known(1, 5), Choice::Main { copied: true }),
            (whole(1, 5, 0), whole(1, 5, 1), known(1, 5), refuse(Trouble::Differ)),
            (whole(1, 5, 0), whole(1, 5, 1), None, refuse(Trouble::Differ)),
            // A power cut between the two writes.
            (whole(1, 6, 0), whole(1, 5, 1), known(1, 5), Choice::Main { copied: false }),
            (whole(1, 4, 0), whole(1, 5, 1), known(1, 5), Choice::Copy(Why::Older)),
            (whole(1, 4, 0), whole(1, 5, 1), None, Choice::Copy(Why::Older)),
            (whole(1, 4, 0), whole(1, 4, 0), known(1, 5), refuse(Trouble::Older(4))),
            (whole(1, 3, 0), whole(1, 4, 0), known(1, 5), refuse(Trouble::Older(4))),
            (whole(1, 4, 0), Absent, known(1, 5), refuse(Trouble::Older(4))),
            (Unusable, whole(1, 4, 0), known(1, 5), refuse(Trouble::Older(4))),
            (whole(2, 9, 0), whole(1, 5, 0), known(1, 5), Choice::Copy(Why::Other)),
            (whole(2, 9, 0), whole(2, 9, 0), known(1, 5), refuse(Trouble::Other)),
            (whole(2, 9, 0), whole(1, 5, 0), None, Choice::Main { copied: false }),
            (Absent, whole(1, 5, 0), known(1, 5), Choice::Copy(Why::Missing)),
            (Unusable, whole(1, 5, 0), None, Choice::Copy(Why::Damaged)),
            (flawed(1, 5), whole(1, 5, 0), known(1, 5), Choice::Copy(Why::Damaged)),
            (whole(1, 5, 0), flawed(1, 5), known(1, 5), Choice::Main { copied: false }),
            // The rest serves only if nothing whole does.
            (flawed(1, 5), flawed(1, 5), known(1, 5), Choice::Salvage { by_copy: false }),
            (flawed(1, 5), Absent, None, Choice::Salvage { by_copy: false }),
            (flawed(1, 4), flawed(1, 5), None, Choice::Salvage { by_copy: true }),
            (flawed(1, 5), whole(1, 4, 0), known(1, 5), Choice::Salvage { by_copy: false }),
            (flawed(1, 4), flawed(1, 4), known(1, 5), refuse(Trouble::Lost)),
            (flawed(2, 9), Unusable, known(1, 5), refuse(Trouble::Lost)),
            (Absent, Absent, known(1, 5), refuse(Trouble::Gone)),
            (Absent, Absent, None, Choice::Nothing),
            (Unusable, Absent, None, refuse(Trouble::Lost)),
            (Absent, Unusable, None, refuse(Trouble::Lost)),
        ] {
            assert_eq!(choose(main, copy, known), expected, "{main:?} {copy:?} {known:?}");
        }
    }

    #[test]
    fn an_empty_gallery_gives_way_to_another_but_not_to_its_own_past() {
        let empty = Some(Known { revision: [1, 5], inhabited: false });
        assert_eq!(choose(Found::Absent, Found::Absent, empty), Choice::Nothing);
        let other = choose(whole(2, 1, 0), Found::Absent, empty);
        assert_eq!(other, Choice::Main { copied: false });
        let past = choose(whole(1, 4, 0), Found::Absent, empty);
        assert_eq!(past, Choice::Refuse(Trouble::Older(4)));
    }

    #[test]
    fn of_two_memories_the_newer_counts() {
        assert_eq!(Known::stronger(known(1, 5), known(1, 7)), known(1, 7));
        assert_eq!(Known::stronger(known(1, 7), known(1, 5)), known(1, 7));
        assert_eq!(Known::stronger(known(1, 5), known(2, 7)), known(1, 5));
        assert_eq!(Known::stronger(None, known(2, 7)), known(2, 7));
    }

    fn found() -> impl Strategy<Value = Found> {
        prop_oneof![
            Just(Found::Absent),
            Just(Found::Unusable),
            (1u64..3, 1u64..5, 0u8..2)
                .prop_map(|(id, revision, content)| whole(id, revision, content)),
            (1u64..3, 1u64..5).prop_map(|(id, revision)| flawed(id, revision)),
        ]
    }

    proptest! {
        /// Whatever the files are, none is used that is older than what is remembered.
        #[test]
        fn nothing_older_than_remembered_is_used(main in found(), copy in found(), last in 1u64..5) {
            let used = match choose(main, copy, known(1, last)) {
                Choice::Main { .. } => main,
                Choice::Copy(_) => copy,
                Choice::Salvage { by_copy } => if by_copy { copy } else { main },
                Choice::Nothing => panic!("people were enrolled"),
                Choice::Refuse(_) => return Ok(()),
            };
            let content = match used {
                Found::Whole(content) | Found::Flawed(content) => content,
                Found::Absent | Found::Unusable => panic!("{used:?}"),
            };
            prop_assert_eq!(content.revision[0], 1);
            prop_assert!(content.revision[1] >= last);
        }
    }
}
