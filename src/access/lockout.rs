//! Lockout: after several refused attempts nobody is admitted for a while. Each further
//! lockout lasts twice as long.
//!
//! It is to stop people who try one face after another, and it must not keep out staff
//! because a stranger stands at the door. So attempts are counted by face where the face is
//! the same, and by door where faces change:
//!
//! ```text
//!   refused view: resembles a face refused before -> an attempt of that face
//!                 resembles none of them          -> a new face, and an attempt at the door
//!
//!   too many attempts of one face -> lockout of that face alone
//!   too many faces                -> lockout of the door
//! ```
//!
//! A lockout of the door does not hold for a known person with proof of liveness: parallax
//! or a passed challenge, which no photo has. The same goes for a face that was refused as
//! a photo of a known person, because that person may come in all the same. Without
//! enforced liveness nobody has proof, so the lockout of the door holds for everybody.
//!
//! Faces are kept in memory only. After a restart their attempts count for the door,
//! because nobody knows any longer which faces they were.

use crate::vision::embed::Template;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Maximum number of refused faces remembered.
const MAX_FACES: usize = 16;

/// When a lockout begins and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockoutSettings {
    /// Refused attempts that cause a lockout; 0 disables it.
    pub tries: u32,
    /// Duration of the first lockout. Each further one lasts twice as long.
    pub first: Duration,
    /// Longest duration of a lockout.
    pub longest: Duration,
    /// After this time without a refused attempt the count starts over.
    pub forget_after: Duration,
}

impl Default for LockoutSettings {
    fn default() -> Self {
        Self {
            tries: 0,
            first: Duration::from_secs(30),
            longest: Duration::from_secs(15 * 60),
            forget_after: Duration::from_secs(60 * 60),
        }
    }
}

/// Whom a lockout keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// Everybody without proof of liveness.
    Door,
    /// One face.
    Face,
}

/// Something to log and report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Too many refused attempts.
    LockedOut {
        /// Whom it keeps out.
        whose: Whose,
        /// Its duration.
        lasts: Duration,
    },
    /// The lockout of the door is over.
    Ended,
}

/// A lockout that holds for a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Remaining time.
    pub left: Duration,
    /// Whether it holds even with proof of liveness.
    pub despite_proof: bool,
}

/// The part that survives a restart. Times are relative to the moment of saving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SavedLockout {
    /// Refused attempts since the last lockout.
    pub tries: u32,
    /// Number of lockouts.
    pub level: u32,
    /// Remaining seconds of the lockout; 0 if there is none.
    pub left_s: u64,
    /// Seconds since the last refused attempt.
    pub last_s: u64,
}

/// Attempts and lockouts of one door.
#[derive(Clone, Debug)]
pub struct Lockout {
    settings: LockoutSettings,
    door: Count,
    faces: heapless::Vec<Face, MAX_FACES>,
    /// Number of changes so far.
    changes: u64,
}

#[derive(Clone, Debug)]
struct Face {
    template: Template,
    /// Whether it was refused as a known person who does not look live.
    known: bool,
    /// Whether its first attempt counts for the door.
    counted: bool,
    count: Count,
}

/// Attempts of one face, or at the door.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    tries: u32,
    /// Number of lockouts since the count started.
    level: u32,
    until: Option<Duration>,
    last: Duration,
}

impl Count {
    /// Counts an attempt. Returns the duration of the lockout that begins now, if one does.
    /// Attempts during a lockout do not count.
    fn refused(&mut self, now: Duration, settings: &LockoutSettings) -> Option<Duration> {
        if self.until.is_some() {
            return None;
        }
        if now.saturating_sub(self.last) >= settings.forget_after {
            (self.tries, self.level) = (0, 0);
        }
        self.last = now;
        self.tries += 1;
        if self.tries < settings.tries {
            return None;
        }
        let doubled = settings.first.saturating_mul(1 << self.level.min(16));
        let until = now + doubled.min(settings.longest);
        *self = Self { tries: 0, level: self.level + 1, until: Some(until), last: until };
        Some(until - now)
    }

    /// Whether its lockout has just ended.
    fn elapse(&mut self, now: Duration) -> bool {
        self.until.take_if(|until| now >= *until).is_some()
    }

    fn left(&self, now: Duration) -> Option<Duration> {
        self.until.map(|until| until.saturating_sub(now))
    }
}

impl Lockout {
    /// No attempts yet.
    pub fn new(settings: LockoutSettings) -> Self {
        Self { settings, door: Count::default(), faces: heapless::Vec::new(), changes: 0 }
    }

    /// Applies new settings. Attempts and lockouts stay.
    pub fn set_settings(&mut self, settings: LockoutSettings) {
        self.settings = settings;
    }

    /// Forgets the faces, because their templates are of another model. Their attempts
    /// count for the door from now on.
    pub fn forget_faces(&mut self, now: Duration) {
        *self = Self::restored(self.settings, &self.saved(now), now);
    }

    /// Lets time pass. An event if the lockout of the door has ended.
    pub fn elapse(&mut self, now: Duration) -> Option<Event> {
        let forget_after = self.settings.forget_after;
        for face in &mut self.faces {
            face.count.elapse(now);
        }
        let stays =
            |count: &Count| count.until.is_some() || now.saturating_sub(count.last) < forget_after;
        self.faces.retain(|face| stays(&face.count));
        self.door.elapse(now).then_some(Event::Ended)
    }

    /// Counts a refused attempt. `known` says whether the view is of a known person who does
    /// not look live. `same` is the cosine at which two views are of one face.
    pub fn refused(
        &mut self,
        now: Duration,
        view: &Template,
        known: bool,
        same: f32,
    ) -> Option<Event> {
        let settings = self.settings;
        if settings.tries == 0 {
            return None;
        }
        self.changes += 1;
        let locked_out = |whose| move |lasts| Event::LockedOut { whose, lasts };
        if let Some(face) = self.face(view, same) {
            // A face that was ever refused as a stranger stays one.
            face.known &= known;
            return face.count.refused(now, &settings).map(locked_out(Whose::Face));
        }
        let counted = self.door.until.is_none();
        let mut face = Face { template: view.clone(), known, counted, count: Count::default() };
        let of_face = face.count.refused(now, &settings).map(locked_out(Whose::Face));
        if self.faces.is_full() {
            let oldest = self.faces.iter().enumerate().min_by_key(|(_, face)| face.count.last);
            let oldest = oldest.map(|(at, _)| at);
            oldest.map(|at| self.faces.swap_remove(at));
        }
        // There is room now.
        let _ = self.faces.push(face);
        let of_door = self.door.refused(now, &settings).map(locked_out(Whose::Door));
        if of_door.is_some() {
            self.faces.iter_mut().for_each(|face| face.counted = false);
        }
        of_door.or(of_face)
    }

    /// The lockout that keeps this view out; `None` if there is none.
    pub fn holds(&mut self, now: Duration, view: Option<&Template>, same: f32) -> Option<Held> {
        let door = self.door.left(now).map(|left| Held { left, despite_proof: false });
        let face = view.and_then(|view| self.face(view, same)).and_then(|face| {
            let left = face.count.left(now)?;
            Some(Held { left, despite_proof: !face.known })
        });
        match (face, door) {
            (Some(face), Some(door)) if !face.despite_proof => {
                Some(Held { left: face.left.max(door.left), ..door })
            }
            (face, door) => face.or(door),
        }
    }

    /// Whether the door is locked out.
    pub fn of_door(&self) -> bool {
        self.door.until.is_some()
    }

    /// This person was admitted: their own attempts are forgiven, nobody else's.
    pub fn admitted(&mut self, view: &Template, same: f32) {
        while let Some(at) = self.place(view, same) {
            let face = self.faces.swap_remove(at);
            self.changes += 1;
            self.door.tries = self.door.tries.saturating_sub(u32::from(face.counted));
        }
    }

    /// Number of changes so far that a restart should not lose.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The part that survives a restart.
    pub fn saved(&self, now: Duration) -> SavedLockout {
        let counts = || self.faces.iter().map(|face| &face.count).chain([&self.door]);
        let most = |value: fn(&Count) -> u32| counts().map(value).max().unwrap_or(0);
        let left = counts().filter_map(|count| count.left(now)).max().unwrap_or_default();
        let last = counts().filter(|count| count.tries + count.level > 0).map(|count| count.last);
        SavedLockout {
            tries: most(|count| count.tries),
            level: most(|count| count.level),
            // Rounded up, so that no restart shortens it.
            left_s: left.as_millis().div_ceil(1000) as u64,
            last_s: last.max().map_or(0, |last| now.saturating_sub(last).as_secs()),
        }
    }

    /// Goes on after a restart at `now`. Values that the settings do not allow are cut to
    /// those that they do.
    pub fn restored(settings: LockoutSettings, saved: &SavedLockout, now: Duration) -> Self {
        let left = Duration::from_secs(saved.left_s).min(settings.longest);
        let forgotten = Duration::from_secs(saved.last_s) >= settings.forget_after;
        let mut lockout = Self::new(settings);
        if settings.tries > 0 && (!left.is_zero() || !forgotten) {
            let until = (!left.is_zero()).then_some(now + left);
            let tries = saved.tries.min(settings.tries - 1);
            // The clock of this process may be younger than the last attempt.
            let last = until.unwrap_or(now);
            lockout.door = Count { tries, level: saved.level.min(64), until, last };
        }
        lockout
    }

    fn place(&self, view: &Template, same: f32) -> Option<usize> {
        self.faces.iter().position(|face| {
            face.template.similarity(view).is_ok_and(|similarity| similarity >= same)
        })
    }

    fn face(&mut self, view: &Template, same: f32) -> Option<&mut Face> {
        self.place(view, same).map(|at| &mut self.faces[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelId;
    use crate::vision::embed::Embedding;
    use proptest::prelude::*;

    const SAME: f32 = 0.36;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A face that resembles no other.
    fn face(number: usize) -> Template {
        let mut values = [0.0; 40];
        values[number] = 1.0;
        Template::new(ModelId::new("tests"), Embedding::normalized(&values))
    }

    fn lockout(tries: u32) -> Lockout {
        let (first, longest, forget_after) = (s(30), s(100), s(1000));
        Lockout::new(LockoutSettings { tries, first, longest, forget_after })
    }

    fn locked_out(whose: Whose, lasts: u64) -> Option<Event> {
        Some(Event::LockedOut { whose, lasts: s(lasts) })
    }

    #[test]
    fn faces_that_change_lock_the_door_out_for_longer_and_longer() {
        let mut lockout = lockout(3);
        let (mut now, mut next) = (1, 0);
        for lasts in [30, 60, 100, 100] {
            for _ in 0..2 {
                next += 1;
                assert_eq!(lockout.refused(s(now), &face(next), false, SAME), None);
                now += 1;
            }
            next += 1;
            let begins = lockout.refused(s(now), &face(next), false, SAME);
            assert_eq!(begins, locked_out(Whose::Door, lasts));
            let held = lockout.holds(s(now + 1), Some(&face(0)), SAME);
            assert_eq!(held, Some(Held { left: s(lasts - 1), despite_proof: false }));
            // An attempt during the lockout does not prolong it.
            next += 1;
            assert_eq!(lockout.refused(s(now + 2), &face(next), false, SAME), None);
            now += lasts;
            assert_eq!(lockout.elapse(s(now)), Some(Event::Ended));
            assert_eq!(lockout.holds(s(now), Some(&face(0)), SAME), None);
            now += 1;
        }
    }

    #[test]
    fn one_face_is_locked_out_alone_even_with_proof() {
        let mut lockout = lockout(3);
        for at in 1..3 {
            assert_eq!(lockout.refused(s(at), &face(1), false, SAME), None);
        }
        assert_eq!(lockout.refused(s(3), &face(1), false, SAME), locked_out(Whose::Face, 30));
        assert_eq!(lockout.holds(s(4), Some(&face(2)), SAME), None);
        let held = Held { left: s(29), despite_proof: true };
        assert_eq!(lockout.holds(s(4), Some(&face(1)), SAME), Some(held));
        assert!(!lockout.of_door());
        assert_eq!(lockout.elapse(s(33)), None);
        assert_eq!(lockout.holds(s(33), Some(&face(1)), SAME), None);
    }

    #[test]
    fn a_photo_of_a_known_person_does_not_keep_out_that_person_with_proof() {
        let mut lockout = lockout(2);
        lockout.refused(s(1), &face(1), true, SAME);
        assert_eq!(lockout.refused(s(2), &face(1), true, SAME), locked_out(Whose::Face, 30));
        let held = lockout.holds(s(3), Some(&face(1)), SAME);
        assert_eq!(held, Some(Held { left: s(29), despite_proof: false }));
        // Refused as a stranger before: a face that only resembles the known person.
        lockout.refused(s(4), &face(2), false, SAME);
        lockout.refused(s(5), &face(2), true, SAME);
        let held = lockout.holds(s(6), Some(&face(2)), SAME).expect("locked out");
        assert!(held.despite_proof);
    }

    #[test]
    fn only_the_attempts_of_the_person_admitted_are_forgiven() {
        let mut lockout = lockout(3);
        lockout.refused(s(1), &face(1), false, SAME);
        lockout.refused(s(2), &face(2), false, SAME);
        // Somebody else's grant changes nothing.
        lockout.admitted(&face(9), SAME);
        assert_eq!(lockout.saved(s(2)).tries, 2);
        // Ada was refused once in bad light.
        lockout.admitted(&face(2), SAME);
        assert_eq!(lockout.refused(s(3), &face(3), false, SAME), None);
        assert_eq!(lockout.refused(s(4), &face(4), false, SAME), locked_out(Whose::Door, 30));
    }

    #[test]
    fn attempts_expire_and_none_count_with_lockout_off() {
        let mut lockout = lockout(2);
        lockout.refused(s(1), &face(1), false, SAME);
        lockout.elapse(s(1001));
        assert_eq!(lockout.refused(s(1001), &face(1), false, SAME), None);
        let mut off = Lockout::new(LockoutSettings::default());
        assert!((0..30).all(|at| off.refused(s(1), &face(at), false, SAME).is_none()));
        assert_eq!(off.holds(s(1), Some(&face(1)), SAME), None);
    }

    #[test]
    fn a_restart_ends_nothing() {
        let mut before = lockout(3);
        for at in 1..4 {
            before.refused(s(at), &face(at as usize), false, SAME);
        }
        let saved = before.saved(s(13));
        assert_eq!(saved, SavedLockout { tries: 1, level: 1, left_s: 20, last_s: 0 });
        let mut after = Lockout::restored(before.settings, &saved, s(0));
        assert_eq!(after.holds(s(5), None, SAME).map(|held| held.left), Some(s(15)));
        assert_eq!(after.elapse(s(20)), Some(Event::Ended));
        // The next lockout lasts longer, and the attempts before the restart count.
        after.refused(s(21), &face(7), false, SAME);
        assert_eq!(after.refused(s(22), &face(8), false, SAME), locked_out(Whose::Door, 60));
        // Attempts of one face count for the door then.
        let mut one = lockout(3);
        one.refused(s(1), &face(1), false, SAME);
        one.refused(s(2), &face(1), false, SAME);
        let mut after = Lockout::restored(one.settings, &one.saved(s(3)), s(0));
        assert_eq!(after.refused(s(1), &face(1), false, SAME), locked_out(Whose::Door, 30));
        // Forgotten in the meantime.
        let old = SavedLockout { last_s: 5000, left_s: 0, ..saved };
        let mut after = Lockout::restored(before.settings, &old, s(0));
        assert_eq!(after.refused(s(1), &face(1), false, SAME), None);
    }

    proptest! {
        /// Whatever was saved, a lockout lasts no longer than the settings allow.
        #[test]
        fn a_saved_state_is_bounded(
            saved in (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>()), tries in 0u32..5,
        ) {
            let (tries_saved, level, left_s, last_s) = saved;
            let saved = SavedLockout { tries: tries_saved, level, left_s, last_s };
            let mut after = Lockout::restored(lockout(tries).settings, &saved, s(5));
            let left = after.holds(s(5), None, SAME).map_or(s(0), |held| held.left);
            prop_assert!(left <= s(100));
            after.elapse(s(105));
            prop_assert!(after.holds(s(105), None, SAME).is_none());
            after.refused(s(106), &face(1), false, SAME);
        }

        /// However faces change, as many refused attempts as set lock the door out or the
        /// face, and never more than the capacity are remembered.
        #[test]
        fn attempts_add_up(shown in prop::collection::vec(0usize..40, 1..80)) {
            let mut lockout = lockout(3);
            let mut begun = 0;
            for (at, number) in (1..).zip(&shown) {
                lockout.elapse(s(at));
                begun += usize::from(lockout.refused(s(at), &face(*number), false, SAME).is_some());
                prop_assert!(lockout.faces.len() <= MAX_FACES);
            }
            let different = shown.iter().collect::<std::collections::BTreeSet<_>>().len();
            prop_assert!(begun > 0 || different < 3);
        }
    }
}
