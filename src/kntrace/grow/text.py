"""Text to learn from: files of any size, read a piece at a time."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kntrace.errors import SettingsError
from kntrace.progress import Progress

__all__ = ["FileFacts", "Text"]

_BYTES = 2**15

# Between two letters the end of a line, or else the place before a space: no byte-level tokenizer
# reads across it, so a text that is cut there gives the same tokens as the whole.
_SEAMS = (re.compile(r"(?<=\S)\n(?=\S)"), re.compile(r"(?<=\S)(?= \S)"))


@dataclass(frozen=True)
class FileFacts:
    """One file: its name, its size, and the SHA-256 (hex) of its bytes."""

    name: str
    bytes: int
    characters: int
    sha256: str


@dataclass(frozen=True)
class Text:
    """Files in order, each a text of its own.

    Attributes
    ----------
    files
        Their paths.
    bytes
        Their size together.
    """

    files: tuple[Path, ...]
    bytes: int

    @classmethod
    def of(cls, places: Sequence[Path | str]) -> Text:
        """Find the files: those named, and those in folders that are named.

        Of a folder every file counts, sorted by path, but for those whose name, or whose
        folder's name, begins with a dot.

        Raises
        ------
        SettingsError
            If a place is not there or holds nothing.
        """
        files = [file for place in places for file in _files(Path(place))]
        try:
            size = sum(file.stat().st_size for file in files)
        except OSError as failure:
            raise _unreadable(failure) from None
        if not size:
            named = ", ".join(str(place) for place in places) or "no file"
            raise SettingsError("there is no text", where=named, expected="text to learn from")
        return cls(tuple(files), size)

    def survey(self, progress: Progress) -> list[FileFacts]:
        """Read everything once: is it UTF-8, and which text is it.

        Raises
        ------
        SettingsError
            If a file cannot be read or is not UTF-8, with the place of the first wrong byte.
        """
        facts, done = [], 0
        for file in self.files:
            digest, size, characters = hashlib.sha256(), 0, 0
            for raw, text in _read(file):
                digest.update(raw)
                size, characters = size + len(raw), characters + len(text)
                progress("read", min(done + size, self.bytes), self.bytes, file.name)
            done += size
            facts.append(FileFacts(file.name, size, characters, digest.hexdigest()))
        return facts

    def pieces(self) -> Iterator[tuple[int, str]]:
        """Give each file's number and, of some 30 kB each, its pieces in order.

        A piece ends at the end of a line, or before a space, where there is one.
        """
        for number, file in enumerate(self.files):
            rest, first = "", True
            for _, text in _read(file):
                rest += text
                if first and rest:
                    rest, first = rest.removeprefix("\ufeff"), False
                seam = _last_seam(rest)
                if seam:
                    yield number, rest[:seam]
                    rest = rest[seam:]
            if rest:
                yield number, rest


def _last_seam(text: str) -> int:
    """Where to cut a piece off the beginning of `text`; 0 to wait for more of it."""
    for seam in _SEAMS:
        places = [found.end() for found in seam.finditer(text)]
        if places:
            return places[-1]
    return len(text) if len(text) > 4 * _BYTES else 0


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        inside = [
            file
            for file in place.rglob("*")
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(place).parts)
        ]
        if not inside:
            raise SettingsError("holds no file", where=place, expected="text files")
        return sorted(inside)
    if not place.exists():
        raise SettingsError("is not there", where=place, expected="a text file or a folder of some")
    return [place]


def _read(file: Path) -> Iterator[tuple[bytes, str]]:
    """Give the bytes of a file with the characters that they complete."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = 0
    try:
        with file.open("rb") as stream:
            while True:
                raw = stream.read(_BYTES)
                # Bytes of a character that the last piece had only in part.
                held = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(raw, final=not raw)
                except UnicodeDecodeError as error:
                    raise _not_text(file, start - held + error.start, "is not UTF-8") from None
                if "\0" in text:
                    at = start - held + len(text[: text.index("\0")].encode())
                    raise _not_text(file, at, "holds a zero byte, as no text does")
                if not raw:
                    return
                start += len(raw)
                yield raw, text
    except OSError as failure:
        raise _unreadable(failure) from None


def _not_text(file: Path, at: int, what: str) -> SettingsError:
    return SettingsError(
        f"{what} (at byte {at})",
        where=file,
        expected="text in UTF-8",
        fix="Convert it (`iconv -f LATIN1 -t UTF-8`, with its own encoding), unpack it, or leave "
        "it out.",
    )


def _unreadable(failure: OSError) -> SettingsError:
    return SettingsError(
        f"cannot be read ({failure.strerror or failure})", where=failure.filename or "the text"
    )
