//! Just enough of Rust's grammar to tell code from comments and strings, and names from one another.

/// What stands for each letter inside a string: no letter, and no space either.
const INSIDE: char = '~';

/// `text` with comments replaced by spaces and the insides of strings and characters by `~`, every line in its place.
pub(crate) fn blank(text: &str) -> String {
    let mut source = Source { left: text.chars().collect(), at: 0, code: String::with_capacity(text.len()) };
    while let Some(letter) = source.peek(0) {
        match (letter, source.peek(1)) {
            ('/', Some('/')) => source.blank_until(' ', |source| source.peek(0) == Some('\n')),
            ('/', Some('*')) => source.block_comment(),
            ('"', _) => source.string(),
            ('\'', _) => source.quote(),
            _ if is_name(letter) => source.name(),
            _ => source.keep(),
        }
    }
    source.code
}

/// The names in code, each with its line counted from one and what follows it.
pub(crate) fn names(code: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    code.lines().enumerate().flat_map(|(index, line)| {
        let mut rest = line;
        std::iter::from_fn(move || {
            rest = rest.trim_start_matches(|letter| !is_name(letter));
            let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(end)?;
            rest = after;
            (!name.is_empty()).then_some((index + 1, name, after))
        })
    })
}

/// Whether a letter can be part of a name.
pub(crate) fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

struct Source {
    left: Vec<char>,
    at: usize,
    code: String,
}

impl Source {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.left.get(self.at + ahead).copied()
    }

    fn keep(&mut self) {
        self.code.extend(self.peek(0));
        self.at += 1;
    }

    fn hide(&mut self, with: char) {
        self.code.extend(self.peek(0).map(|letter| if letter == '\n' { '\n' } else { with }));
        self.at += 1;
    }

    fn blank_until(&mut self, with: char, end: impl Fn(&Self) -> bool) {
        while self.peek(0).is_some() && !end(self) {
            self.hide(with);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.peek(0).is_some() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth = depth.saturating_sub(1),
                _ => {
                    self.hide(' ');
                    continue;
                }
            }
            self.hide(' ');
            self.hide(' ');
            if depth == 0 {
                return;
            }
        }
    }

    /// A string with escapes; the quotes stay, so that an empty one still looks empty.
    fn string(&mut self) {
        self.keep();
        while let Some(letter) = self.peek(0) {
            match letter {
                '"' => return self.keep(),
                '\\' => {
                    self.hide(INSIDE);
                    self.hide(INSIDE);
                }
                _ => self.hide(INSIDE),
            }
        }
    }

    /// A character, or a lifetime, which is kept.
    fn quote(&mut self) {
        self.keep();
        match (self.peek(0), self.peek(1)) {
            (Some('\\'), _) => {
                self.hide(INSIDE);
                self.hide(INSIDE);
                self.blank_until(INSIDE, |source| source.peek(0) == Some('\''));
                self.keep();
            }
            (Some(_), Some('\'')) => {
                self.hide(INSIDE);
                self.keep();
            }
            _ => {}
        }
    }

    /// A name, or the prefix of a raw string.
    fn name(&mut self) {
        let start = self.at;
        while self.peek(0).is_some_and(is_name) {
            self.keep();
        }
        let name: String = self.left.get(start..self.at).unwrap_or_default().iter().collect();
        if !["r", "br", "cr"].contains(&name.as_str()) {
            return;
        }
        let marks = (0..).take_while(|ahead| self.peek(*ahead) == Some('#')).count();
        if self.peek(marks) != Some('"') {
            return;
        }
        let keep_marks = |source: &mut Self| (0..=marks).for_each(|_| source.keep());
        keep_marks(self);
        self.blank_until(INSIDE, |source| {
            source.peek(0) == Some('"') && (1..=marks).all(|ahead| source.peek(ahead) == Some('#'))
        });
        keep_marks(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        names(&blank(text)).map(|(_, name, _)| name.to_owned()).collect()
    }

    #[test]
    fn comments_and_strings_are_not_code() {
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(words(r#"a "b \" c" d"#), ["a", "d"]);
        assert_eq!(words("r#\"a \" b\"# c"), ["r", "c"]);
        assert_eq!(words("br\"a\" b"), ["br", "b"]);
        assert_eq!(blank("a(\"b c\", \"\") // d"), "a(\"~~~\", \"\")     ");
    }

    #[test]
    fn a_quote_is_a_character_or_a_lifetime() {
        assert_eq!(
            words("fn a<'b>(c: &'b str) { d('\"'); e('\\''); f('g'); h('\\u{41}') }").join(" "),
            "fn a b c b str d e f h"
        );
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "/* a\nb */ c\n\"d\ne\" f\nr\"g\nh\" i";
        assert_eq!(blank(text).lines().count(), text.lines().count());
        let lines: Vec<(usize, String)> =
            names(&blank(text)).map(|(line, name, _)| (line, name.to_owned())).collect();
        let expected = [(2, "c"), (4, "f"), (5, "r"), (6, "i")].map(|(line, name)| (line, name.to_owned()));
        assert_eq!(lines, expected);
    }
}
