//! Who may hold how many connections, and whose connection makes room for a new one.

use super::roles::Class;
use std::time::Instant;

/// Places of each class, which the others cannot take, and how many of them one user may
/// hold. A place costs a file descriptor and about a kilobyte.
fn places(class: Class) -> (usize, usize) {
    match class {
        Class::Root => (8, 8),
        Class::Administrator => (12, 8),
        Class::Link => (4, 4),
        Class::Other => (16, 4),
    }
}

/// Most connections at a time: the places of all classes.
pub const MAX_CONNECTIONS: usize = 8 + 12 + 4 + 16;

/// A connection, as seen by those who compete for its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// User at the other end.
    pub uid: Option<u32>,
    /// The class of the user.
    pub class: Class,
    /// When it was accepted, or last got a reply.
    pub since: Instant,
    /// An order is being carried out, so it keeps its place.
    pub busy: bool,
}

/// The place of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A free one.
    Free,
    /// That of the connection with this index, which must be closed.
    Of(usize),
    /// None: every connection of its class has an order in progress.
    None,
}

/// Finds a place for a connection of this user. A user who holds as many as one user may
/// loses the connection that has waited longest. In a full class, the user with the most
/// connections loses one. So silent and slow clients lose their places, and a new client
/// always gets in.
pub fn place(held: &[Held], uid: Option<u32>, class: Class) -> Place {
    let (most, per_user) = places(class);
    let of_class = || held.iter().enumerate().filter(move |(_, one)| one.class == class);
    let count = |uid: Option<u32>| of_class().filter(|(_, one)| one.uid == uid).count();
    let oldest = |index: &(usize, &Held)| std::cmp::Reverse(index.1.since);
    let idle = of_class().filter(|(_, one)| !one.busy);
    let gives_way = if count(uid) >= per_user {
        idle.filter(|(_, one)| one.uid == uid).max_by_key(oldest)
    } else if of_class().count() >= most {
        idle.max_by_key(|index| (count(index.1.uid), oldest(index)))
    } else {
        return Place::Free;
    };
    gives_way.map_or(Place::None, |(index, _)| Place::Of(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn held(begin: Instant, uid: u32, class: Class, second: u64, busy: bool) -> Held {
        Held { uid: Some(uid), class, since: begin + Duration::from_secs(second), busy }
    }

    #[test]
    fn a_user_makes_room_with_the_connection_that_waited_longest() {
        let begin = Instant::now();
        let mut all: Vec<_> =
            [5, 3, 9, 4].map(|second| held(begin, 1000, Class::Other, second, false)).into();
        assert_eq!(place(&all, Some(1000), Class::Other), Place::Of(1));
        all[1].busy = true;
        assert_eq!(place(&all, Some(1000), Class::Other), Place::Of(3));
        assert_eq!(place(&all, Some(1001), Class::Other), Place::Free);
        all.iter_mut().for_each(|one| one.busy = true);
        assert_eq!(place(&all, Some(1000), Class::Other), Place::None);
        assert_eq!(place(&all, Some(0), Class::Root), Place::Free);
        assert_eq!(place(&all, Some(991), Class::Link), Place::Free);
    }

    #[test]
    fn in_a_full_class_the_user_with_most_connections_makes_room() {
        let begin = Instant::now();
        let mut all = Vec::new();
        for uid in 0..5u32 {
            let connections = if uid == 2 { 4 } else { 3 };
            all.extend((0..connections).map(|second| {
                held(begin, uid + 1000, Class::Other, u64::from(10 - uid) + second, false)
            }));
        }
        let first_of_two = all.iter().position(|one| one.uid == Some(1002)).expect("one");
        assert_eq!(place(&all, Some(2000), Class::Other), Place::Of(first_of_two));
    }

    const CLASSES: [Class; 4] = [Class::Root, Class::Administrator, Class::Link, Class::Other];

    proptest! {
        /// However many connect in whatever order: places stay bounded, nobody takes a place
        /// of another class, and only a class full of orders refuses.
        #[test]
        fn places_are_bounded_and_belong_to_their_class(
            comings in prop::collection::vec((0u32..6, 0usize..4, any::<bool>()), 0..200),
        ) {
            let begin = Instant::now();
            let mut all: Vec<Held> = Vec::new();
            for (second, (uid, class, busy)) in comings.into_iter().enumerate() {
                let class = CLASSES[class];
                match place(&all, Some(uid), class) {
                    Place::Free => {}
                    Place::Of(index) => {
                        let gone = all.remove(index);
                        prop_assert!(gone.class == class && !gone.busy);
                    }
                    Place::None => {
                        let mine = all.iter().filter(|one| one.class == class);
                        prop_assert!(mine.filter(|one| one.busy).count() >= 4);
                        continue;
                    }
                }
                all.push(held(begin, uid, class, second as u64, busy));
                prop_assert!(all.len() <= MAX_CONNECTIONS);
            }
        }
    }
}
