//! Who is known to a server, and who has missed how many surveys. Knows no time and no socket.

use std::collections::{BTreeMap, HashMap};

use crate::name::{self, NameFault};
use crate::options::ServerOptions;

/// Why an answer is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerFault {
    /// It is no name.
    Name(NameFault),
    /// There would be too many names, or too large a publication.
    Full,
    /// Its connection has given as many answers as it may.
    Surplus,
}

#[derive(Debug)]
pub(crate) struct Roster {
    missed: u32,
    max_peers: usize,
    max_bytes: usize,
    answers: usize,
    /// The number of the survey that is open.
    survey: u64,
    names: BTreeMap<String, Known>,
    /// What a publication of all names takes, and one separator more.
    bytes: usize,
    links: HashMap<u64, Link>,
    /// How many of those asked have not answered and may still.
    waiting: usize,
    /// How many names were not heard in this survey.
    unheard: usize,
    /// How many names have missed the latest survey or more.
    doubtful: usize,
}

#[derive(Debug)]
struct Known {
    /// The survey in which it was heard last.
    heard: u64,
    missed: u32,
}

#[derive(Debug, Default)]
struct Link {
    asked: u64,
    heard: u64,
    answers: usize,
    missed: u32,
    gone: bool,
}

impl Roster {
    pub(crate) fn new(options: &ServerOptions) -> Self {
        Self {
            missed: options.missed,
            max_peers: options.max_peers,
            max_bytes: options.max_message,
            answers: options.answers_per_connection,
            survey: 0,
            names: BTreeMap::new(),
            bytes: 0,
            links: HashMap::new(),
            waiting: 0,
            unheard: 0,
            doubtful: 0,
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// A survey is made: these connections are asked.
    pub(crate) fn begin(&mut self, connected: impl Iterator<Item = u64>) {
        self.survey += 1;
        let mut before = std::mem::take(&mut self.links);
        for id in connected {
            let mut link = before.remove(&id).unwrap_or_default();
            link.asked = self.survey;
            link.answers = 0;
            self.links.insert(id, link);
        }
        self.waiting = self.links.values().filter(|link| link.is_awaited(self.missed)).count();
        self.unheard = self.names.len();
    }

    /// A connection is lost.
    pub(crate) fn lose(&mut self, id: u64) {
        if let Some(link) = self.links.get_mut(&id)
            && !link.gone
        {
            self.waiting -= usize::from(link.is_awaited(self.missed));
            link.gone = true;
        }
    }

    /// An answer came. Tells whether there is one more name.
    pub(crate) fn answer(&mut self, id: u64, body: &[u8]) -> Result<bool, AnswerFault> {
        let link = self.links.entry(id).or_default();
        if link.answers >= self.answers {
            return Err(AnswerFault::Surplus);
        }
        link.answers += 1;
        self.waiting -= usize::from(link.is_awaited(self.missed));
        link.heard = self.survey;
        link.missed = 0;
        let name = name::parse(body).map_err(AnswerFault::Name)?;
        if let Some(known) = self.names.get_mut(name) {
            self.doubtful -= usize::from(known.missed > 0);
            self.unheard -= usize::from(known.heard != self.survey);
            *known = Known { heard: self.survey, missed: 0 };
            return Ok(false);
        }
        // The last name has no separator behind it.
        let bytes = self.bytes + name.len() + 1;
        if self.names.len() >= self.max_peers || bytes > self.max_bytes + 1 {
            return Err(AnswerFault::Full);
        }
        self.bytes = bytes;
        self.names.insert(name.to_owned(), Known { heard: self.survey, missed: 0 });
        Ok(true)
    }

    /// Whether everybody has answered who was asked, is still connected and is not known to be silent.
    pub(crate) fn is_complete(&self) -> bool {
        self.waiting == 0
    }

    /// Whether no known name can still be heard in this survey. Where several come by one connection nobody knows how many
    /// are still to come: only when all have been heard it is certain.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_complete() && (self.answers == 1 || self.unheard == 0)
    }

    /// Whoever was not heard in this survey has missed it. Tells whether somebody is gone.
    pub(crate) fn judge(&mut self) -> bool {
        for link in self.links.values_mut() {
            if link.asked == self.survey && link.heard != self.survey {
                link.missed = link.missed.saturating_add(1);
            }
        }
        // Links that were silent too often are awaited no longer.
        self.waiting = self.links.values().filter(|link| link.is_awaited(self.missed)).count();
        let (survey, most, before) = (self.survey, self.missed, self.names.len());
        let (mut doubtful, mut unheard, mut bytes) = (0, 0, 0);
        self.names.retain(|name, known| {
            if known.heard != survey {
                known.missed = known.missed.saturating_add(1);
            }
            if known.missed >= most {
                return false;
            }
            doubtful += usize::from(known.missed > 0);
            unheard += usize::from(known.heard != survey);
            bytes += name.len() + 1;
            true
        });
        (self.doubtful, self.unheard, self.bytes) = (doubtful, unheard, bytes);
        self.names.len() != before
    }

    /// Whether somebody who is not gone has missed the latest survey.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful > 0
    }
}

impl Link {
    fn is_awaited(&self, missed: u32) -> bool {
        self.asked > self.heard && !self.gone && self.missed < missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(options: ServerOptions) -> Roster {
        Roster::new(&options)
    }

    fn names(roster: &Roster) -> Vec<&str> {
        roster.names().collect()
    }

    #[test]
    fn names_are_sorted_and_two_of_one_name_are_one() {
        let mut roster = roster(ServerOptions::default());
        roster.begin([1, 2, 3].into_iter());
        assert!(!roster.is_complete());
        assert_eq!(roster.answer(1, b"b"), Ok(true));
        assert_eq!(roster.answer(2, b"a"), Ok(true));
        assert_eq!(roster.answer(3, b"a"), Ok(false));
        assert!(roster.is_settled());
        assert_eq!(names(&roster), ["a", "b"]);
        // One of the two goes: the name stays.
        roster.lose(2);
        for _ in 0..5 {
            roster.begin([1, 3].into_iter());
            roster.answer(1, b"b").unwrap();
            roster.answer(3, b"a").unwrap();
            assert!(!roster.judge());
        }
        assert_eq!(names(&roster), ["a", "b"]);
    }

    #[test]
    fn a_name_is_gone_after_so_many_misses_in_a_row_and_not_before() {
        let mut roster = roster(ServerOptions::default().missed(3));
        roster.begin([1].into_iter());
        roster.answer(1, b"a").unwrap();
        assert!(!roster.judge() && !roster.is_doubtful());
        for _ in 0..10 {
            for _ in 0..2 {
                roster.begin([1].into_iter());
                assert!(!roster.judge() && roster.is_doubtful());
            }
            roster.begin([1].into_iter());
            assert!(!roster.is_complete());
            roster.answer(1, b"a").unwrap();
            assert!(!roster.judge() && !roster.is_doubtful());
        }
        for _ in 0..2 {
            roster.begin([1].into_iter());
            assert!(!roster.judge());
        }
        roster.begin([1].into_iter());
        assert!(roster.judge());
        assert!(names(&roster).is_empty() && !roster.is_doubtful());
        roster.begin([1].into_iter());
        assert!(roster.is_settled(), "who was silent so often is waited for no longer");
        assert_eq!(roster.answer(1, b"a"), Ok(true), "and is welcome again");
    }

    #[test]
    fn a_late_answer_makes_up_for_the_survey_it_missed() {
        let mut roster = roster(ServerOptions::default().missed(2));
        for _ in 0..10 {
            roster.begin([1].into_iter());
            assert!(!roster.judge());
            assert!(!roster.is_complete(), "it is still waited for");
            roster.answer(1, b"a").unwrap();
            assert!(roster.is_complete());
            assert!(!roster.is_doubtful());
        }
        assert_eq!(names(&roster), ["a"]);
    }

    #[test]
    fn nobody_is_waited_for_whose_connection_is_lost() {
        let mut roster = roster(ServerOptions::default().missed(1));
        roster.begin([1, 2].into_iter());
        roster.answer(1, b"a").unwrap();
        roster.answer(2, b"b").unwrap();
        roster.judge();
        roster.begin([1, 2].into_iter());
        roster.answer(1, b"a").unwrap();
        assert!(!roster.is_settled());
        roster.lose(2);
        roster.lose(2);
        assert!(roster.is_settled());
        assert!(roster.judge());
        assert_eq!(names(&roster), ["a"]);
    }

    #[test]
    fn a_connection_gives_so_many_answers_and_a_device_is_waited_for() {
        let mut single = roster(ServerOptions::default());
        single.begin([1].into_iter());
        single.answer(1, b"a").unwrap();
        assert_eq!(single.answer(1, b"b"), Err(AnswerFault::Surplus));
        single.lose(1);
        assert_eq!(single.answer(1, b"c"), Err(AnswerFault::Surplus), "also when it is gone");

        let mut device = roster(ServerOptions::default().answers_per_connection(2));
        device.begin([1].into_iter());
        device.answer(1, b"a").unwrap();
        device.answer(1, b"b").unwrap();
        device.judge();
        device.begin([1].into_iter());
        device.answer(1, b"a").unwrap();
        assert!(device.is_complete() && !device.is_settled(), "b may come by the same connection");
        device.answer(1, b"b").unwrap();
        assert!(device.is_settled());
    }

    #[test]
    fn names_and_bytes_are_bounded_and_what_is_gone_makes_room() {
        let mut roster = roster(ServerOptions::default().max_peers(2).missed(1));
        roster.begin(1..=3);
        assert_eq!(roster.answer(1, b"a"), Ok(true));
        assert_eq!(roster.answer(2, b"b"), Ok(true));
        assert_eq!(roster.answer(3, b"c"), Err(AnswerFault::Full));
        roster.begin(2..=3);
        assert_eq!(roster.answer(2, b"b"), Ok(false));
        assert!(roster.judge());
        assert_eq!(roster.answer(3, b"c"), Ok(true));
        assert_eq!(names(&roster), ["b", "c"]);

        let mut small = self::roster(ServerOptions::default().max_message(256));
        small.begin(1..=3);
        assert_eq!(small.answer(1, &[b'a'; 128]), Ok(true));
        assert_eq!(small.answer(2, &[b'b'; 128]), Err(AnswerFault::Full));
        assert_eq!(small.answer(3, &[b'c'; 127]), Ok(true));
        assert_eq!(name::join(small.names()).len(), 256);
    }

    #[test]
    fn what_is_no_name_counts_as_an_answer_of_its_connection_only() {
        let mut roster = roster(ServerOptions::default());
        roster.begin([1].into_iter());
        assert_eq!(roster.answer(1, b"a|b"), Err(AnswerFault::Name(NameFault::Separator)));
        assert!(roster.is_settled());
        assert!(names(&roster).is_empty());
    }
}
