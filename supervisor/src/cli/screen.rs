//! Where a command writes what it has to say: text or JSON, coloured or not.
//!
//! # Invariants
//!
//! - Colours appear only on a terminal, and not if `NO_COLOR` is set.
//! - That nobody reads any more (`wpool jobs | head -1`) is an [`OutputClosed`], which ends the command in silence.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use super::escape;

/// Nobody reads what the command writes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nobody reads the output")]
pub(crate) struct OutputClosed;

/// In which form a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colours {
    /// By SGR sequences.
    On,
    /// Not at all.
    Off,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Attention,
    /// Wrong.
    Bad,
    /// Less important than the rest.
    Quiet,
    /// A heading.
    Heading,
}

impl Colours {
    /// Whether `stream` is a terminal that wants colours (<https://no-color.org>).
    pub(crate) fn of(stream: &impl io::IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if stream.is_terminal() && !unwanted && !dumb {
            Self::On
        } else {
            Self::Off
        }
    }

    /// `text` in the colour of `tone`.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Attention => "33",
            Tone::Bad => "31",
            Tone::Quiet => "2",
            Tone::Heading => "1",
        };
        match self {
            Self::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Self::Off => text.to_owned(),
        }
    }
}

/// Where a command writes.
pub(crate) struct Screen<'a> {
    out: Box<dyn Write + 'a>,
    form: Form,
    colours: Colours,
}

#[cfg(test)]
impl<'a> Screen<'a> {
    /// A screen that tests can read.
    pub(crate) fn into(buffer: &'a mut Vec<u8>, form: Form) -> Self {
        Self {
            out: Box::new(buffer),
            form,
            colours: Colours::Off,
        }
    }
}

impl Screen<'_> {
    /// Standard output.
    pub(crate) fn stdout(form: Form) -> Self {
        let stdout = io::stdout();
        let colours = Colours::of(&stdout);
        Self {
            out: Box::new(stdout),
            form,
            colours,
        }
    }

    /// In which form to answer.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Whether to colour.
    pub(crate) fn colours(&self) -> Colours {
        self.colours
    }

    /// One line of text whose parts have been escaped.
    pub(crate) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// A value as one line of JSON.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value)?;
        self.line(&escape::json(&text))
    }

    /// A value as JSON: laid out on a terminal, one line for a program.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        if io::stdout().is_terminal() {
            let text = serde_json::to_string_pretty(value)?;
            self.line(&escape::json(&text))
        } else {
            self.json_line(value)
        }
    }

    /// The job's own bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.write(bytes)?;
        self.flush()
    }

    /// Empties the terminal's screen, where there is one.
    pub(crate) fn clear(&mut self) -> anyhow::Result<()> {
        if io::stdout().is_terminal() {
            self.write(b"\x1b[H\x1b[2J")?;
        }
        Ok(())
    }

    /// Lets everything be seen.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.out.flush().map_err(output_error)
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes).map_err(output_error)
    }
}

/// The error of a write to standard output.
fn output_error(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        OutputClosed.into()
    } else {
        anyhow::Error::new(error).context("failed to write to standard output")
    }
}

/// One line on standard error.
///
/// If nobody reads that either, there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    let line = format!("wpool: {}\n", escape::message(text));
    drop(io::stderr().write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_nobody_reads_is_told_apart_from_one_that_fails() {
        let closed = output_error(io::ErrorKind::BrokenPipe.into());
        assert!(closed.is::<OutputClosed>());
        let full = output_error(io::ErrorKind::StorageFull.into());
        assert!(!full.is::<OutputClosed>());
    }

    #[test]
    fn json_on_a_screen_holds_nothing_that_a_terminal_obeys() {
        let mut buffer = Vec::new();
        Screen::into(&mut buffer, Form::Json)
            .json_line(&"\u{9b}2J")
            .unwrap();
        assert_eq!(buffer, b"\"\\u009b2J\"\n");
    }
}
