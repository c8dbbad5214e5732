"""What is wrong with a configuration: everything at once, each with its place and its cure."""

from __future__ import annotations

from collections.abc import Iterable

from novacron.config.provenance import Source
from novacron.errors import ConfigError, InvalidError
from novacron.record import Record


class Problem(Record):
    """One thing that is wrong."""

    key: str
    """Dotted; empty where the file as a whole is meant."""
    source: Source
    message: str
    """What is wrong, a clause without a full stop."""
    accepted: str = ""
    """What would be accepted instead."""
    nearest: str = ""
    """The known name that looks most like the unknown one."""
    excerpt: str = ""
    """The line of the file and a caret below the column."""

    def __str__(self) -> str:
        text = f"{self.source}: "
        # A flag may have said which key it sets: `--set api.port`.
        if self.key and not text.endswith(f" {self.key}: "):
            text += f"{self.key}: "
        text += self.message
        if self.nearest:
            text += f"; did you mean {self.nearest}?"
        if self.accepted:
            text += f"; accepted: {self.accepted}"
        if self.excerpt:
            text += "\n" + self.excerpt
        return text


class ConfigInvalidError(ConfigError, InvalidError):
    """The configuration cannot be used; :attr:`problems` lists everything that is wrong."""

    code = "config.invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        alone = len(self.problems) == 1
        super().__init__(
            "the configuration is invalid",
            why=str(first) if alone else f"{len(self.problems)} problems\n{self._listing()}",
            remedy="correct it and try again; `novacron config check` validates without starting, "
            "`novacron config explain KEY` says what a key takes",
            key=first.key if alone else "",
        )

    def _listing(self) -> str:
        """A numbered line each, excerpts indented below."""
        return "\n".join(
            f"  {number}. {problem}".replace("\n", "\n     ")
            for number, problem in enumerate(self.problems, 1)
        )

    def __str__(self) -> str:
        return f"{self.what}: {self.why}\n{self.remedy[0].upper()}{self.remedy[1:]}."


class ConfigUnreadableError(ConfigError, InvalidError):
    """A configuration file cannot be read at all."""

    code = "config.unreadable"


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of *known* that looks most like *word*, or an empty string."""
    import difflib  # Only a mistake pays for it.

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else ""
