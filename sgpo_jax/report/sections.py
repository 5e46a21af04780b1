"""Sections of a report: tables, figures and sentences, as Markdown and as HTML."""

import base64
import dataclasses
import html
import pathlib
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sgpo_jax.report.style import STYLE
from sgpo_jax.report.tables import TextTable


@runtime_checkable
class Block(Protocol):
    """Block of a section: Markdown and HTML."""

    def markdown(self) -> str:
        """Markdown; empty if it is for the HTML page only."""
        ...

    def html(self, folder: pathlib.Path) -> str:
        """HTML that refers to no file; `folder` is the run's."""
        ...


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; backticks are code."""

    text: str

    def markdown(self) -> str:
        """Return the text."""
        return self.text

    def html(self, folder: pathlib.Path) -> str:
        """Return a paragraph."""
        del folder
        return f"<p>{inline(self.text)}</p>"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Lines as they are printed."""

    text: str

    def markdown(self) -> str:
        """Return a fenced block."""
        return f"```\n{self.text}\n```"

    def html(self, folder: pathlib.Path) -> str:
        """Return the lines, which scroll if they are wider than the page."""
        del folder
        return f"<pre>{html.escape(self.text)}</pre>"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the run folder.

    Attributes:
      name: of the file in figures/, without its ending.
      alt: what it shows.
    """

    name: str
    alt: str

    def markdown(self) -> str:
        """Return an image beside the report."""
        return f"![{self.alt}](figures/{self.name}.png)"

    def html(self, folder: pathlib.Path) -> str:
        """Return the image itself."""
        content = (folder / "figures" / f"{self.name}.png").read_bytes()
        data = base64.b64encode(content).decode()
        return (
            f'<figure><img alt="{html.escape(self.alt)}"'
            f' src="data:image/png;base64,{data}"></figure>'
        )


@dataclasses.dataclass(frozen=True)
class Tabular:
    """A table."""

    grid: TextTable

    def markdown(self) -> str:
        """Return a Markdown table."""
        return self.grid.markdown()

    def html(self, folder: pathlib.Path) -> str:
        """Return a table that scrolls if it is wider than the page."""
        del folder
        words = [
            any(row[n][:1].isalpha() for row in self.grid.rows)
            for n in range(len(self.grid.columns))
        ]
        head = "".join(
            f"<th{' class=words' if left else ''}>{inline(column)}</th>"
            for column, left in zip(self.grid.columns, words, strict=True)
        )
        rows = "".join(
            "<tr>" + "".join(map(_cell, row)) + "</tr>" for row in self.grid.rows
        )
        return (
            f'<p class="title">{inline(self.grid.title)}</p><div class="table">'
            f'<table aria-label="{html.escape(self.grid.title)}">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )


def _cell(text: str) -> str:
    """Return a cell; words are aligned left, numbers right."""
    kinds = ["words"] * text[:1].isalpha() + ["long"] * (len(text) > 40)
    mark = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<td{mark}>{inline(text)}</td>"


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading and what is under it."""

    heading: str
    parts: Sequence[Block]


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the report as Markdown, figures beside it."""
    blocks = [f"# {title}"]
    for section in sections:
        written = [part.markdown() for part in section.parts]
        written = [text for text in written if text]
        if written and section.heading:
            blocks.append(f"## {section.heading}")
        blocks += written
    return "\n\n".join(blocks) + "\n"


def page(title: str, sections: Sequence[Section], folder: pathlib.Path) -> str:
    """Return the report as one HTML page that refers to nothing outside itself."""
    sections = [section for section in sections if section.parts]
    heads = [section.heading for section in sections if section.heading]
    links = "".join(f'<a href="#{anchor(h)}">{html.escape(h)}</a>' for h in heads)
    body = []
    for section in sections:
        if section.heading:
            name = html.escape(section.heading)
            body.append(f'<h2 id="{anchor(section.heading)}">{name}</h2>')
        body += [part.html(folder) for part in section.parts]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1><nav>{links}</nav>"
        + "\n".join(body)
        + "</main></body></html>\n"
    )


def inline(text: str) -> str:
    """Return text as HTML, with code between backticks.

    Example:
      >>> inline("`a` < 2")
      '<code>a</code> &lt; 2'
    """
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def anchor(heading: str) -> str:
    """Return the anchor of a heading.

    Example:
      >>> anchor("Plan against measurement")
      'plan-against-measurement'
    """
    return re.sub(r"\W+", "-", heading.lower()).strip("-")
