"""Makes a printable notice for the people in front of the camera, as HTML and PDF.

Article 50(3) of the EU AI Act (Regulation (EU) 2024/1689) requires the operator of an emotion
recognition system to inform the people exposed to it of its operation, clearly and at the latest
at the first exposure (https://eur-lex.europa.eu/eli/reg/2024/1689/oj). The notice says what the
system does, what it keeps (from the configuration's receipt), why, and whom to ask. What a data
protection law requires beyond that belongs on the page that the QR code opens.
"""

from __future__ import annotations

import html
import io
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

from emotion_edge.errors import MissingExtra, UsageError
from emotion_edge.kiosk.configuration import Config
from emotion_edge.kiosk.receipt import receipt

Texts = Mapping[str, str]

_FONTS = ("DejaVuSans", "LiberationSans-Regular", "NotoSans-Regular")
_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")
_PAGE = (595.28, 841.89)  # A4, points
_MARGIN = 48.0
_QR = 130.0  # points: 4.6 cm, for a phone at arm's length


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What the operator fills in.

    operator: who is responsible. contact: whom to ask. purpose: why. url: what the QR code opens.
    """

    operator: str
    contact: str
    purpose: str
    url: str

    def __post_init__(self) -> None:
        for name in ("operator", "contact", "purpose", "url"):
            if not getattr(self, name).strip():
                raise UsageError(f"{name} is empty: the notice must state it")
        if not self.url.startswith(("http://", "https://")) or any(map(str.isspace, self.url)):
            raise UsageError(f"url is {self.url!r}: use an address that starts with https://")


def languages() -> dict[str, Texts]:
    """The texts of the notice, by language."""
    text = resources.files(__package__).joinpath("notice.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def choose(names: Sequence[str]) -> list[tuple[str, Texts]]:
    """The texts of some languages. Raises UsageError for another one."""
    known = languages()
    for name in names:
        if name not in known:
            raise UsageError(f"no language {name!r}: use {', '.join(known)}")
    if not names:
        raise UsageError(f"no language given: use {', '.join(known)}")
    return [(name, known[name]) for name in dict.fromkeys(names)]


def statements(config: Config) -> tuple[str, ...]:
    """The keys of the sentences that are true of a configuration."""
    parts = [each for name, each in receipt(config) if name != "camera"]
    # What a window shows is neither stored nor sent.
    seen = any(
        each.images and (each.leaves or "until the next" not in each.until) for each in parts
    )
    images = "no_images" if not seen else "images" if config.faces == "show" else "hidden_images"
    return ("identity", images, "counts" if config.aggregate is not None else "records")


def as_html(notice: Notice, texts: Sequence[tuple[str, Texts]], said: Sequence[str]) -> str:
    """One file without anything to fetch; each language begins a new page when printed."""
    sections = "\n".join(
        f'<section lang="{name}">\n{_section(notice, each, said)}\n</section>'
        for name, each in texts
    )
    first, title = texts[0][0], html.escape(texts[0][1]["title"])
    return (
        f'<!doctype html>\n<html lang="{first}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{sections}\n</body>\n"
        "</html>\n"
    )


_STYLE = """
@page { size: A4; margin: 0 }
body { margin: 0; font: 15pt/1.4 "DejaVu Sans", "Noto Sans", Arial, sans-serif; color: #111 }
section { box-sizing: border-box; min-height: 100vh; padding: 1.7cm; break-after: page }
section:last-child { break-after: auto }
.camera { width: 2.6cm; height: auto }
h1 { font-size: 30pt; line-height: 1.15; margin: .3em 0 .5em }
ul { padding-left: 1.1em }
dl { border-top: 2pt solid #111; padding-top: .8em }
dt { font-weight: bold } dd { margin: 0 0 .6em; overflow-wrap: anywhere }
.qr { display: flex; gap: 1em; align-items: center }
.qr svg { width: 4.6cm; height: 4.6cm; flex: none }
.law { font-size: 10pt; color: #444 }
"""

_CAMERA = (
    '<svg class="camera" viewBox="0 0 64 40" aria-hidden="true"><rect x="1" y="4" width="42" '
    'height="32" rx="5"/><path d="M46 16 62 6v28L46 24z"/><circle cx="22" cy="20" r="9" '
    'fill="#fff"/></svg>'
)


def _section(notice: Notice, texts: Texts, said: Sequence[str]) -> str:
    points = "".join(f"<li>{html.escape(texts[key])}</li>" for key in said)
    rows = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in _rows(notice, texts)
    )
    return (
        f"{_CAMERA}<h1>{html.escape(texts['title'])}</h1><p>{html.escape(texts['what'])}</p>"
        f"<ul>{points}</ul><dl>{rows}</dl><div class=qr>{_qr_svg(notice.url)}<p>"
        f"<strong>{html.escape(texts['more'])}</strong><br>{html.escape(notice.url)}</p></div>"
        f"<p class=law>{html.escape(texts['law'])}</p>"
    )


def _rows(notice: Notice, texts: Texts) -> Iterator[tuple[str, str]]:
    for key in ("purpose", "operator", "contact"):
        yield texts[key], getattr(notice, key)


def _qr(url: str) -> Any:
    try:
        import segno
    except ImportError as error:
        raise MissingExtra("the printable notice", "sign", "segno") from error
    try:
        return segno.make(url, error="m", micro=False)
    except segno.DataOverflowError as error:
        raise UsageError(f"url has {len(url)} characters, too many for a QR code") from error


def _qr_svg(url: str) -> str:
    text = io.BytesIO()
    # Black on white even where the page around it is dark; the border of four is the standard's.
    _qr(url).save(text, kind="svg", xmldecl=False, border=4, light="#fff", omitsize=True)
    return text.getvalue().decode()


def as_pdf(
    notice: Notice,
    texts: Sequence[tuple[str, Texts]],
    said: Sequence[str],
    font: Path | None = None,
) -> bytes:
    """An A4 page for each language. Raises MissingExtra, UsageError.

    font: a TrueType font; None for one of this machine's.
    """
    try:
        from reportlab.pdfbase import pdfmetrics
        from reportlab.pdfbase.ttfonts import TTFError, TTFont
        from reportlab.pdfgen.canvas import Canvas
    except ImportError as error:
        raise MissingExtra("the printable notice", "sign", "reportlab") from error
    path = font or _font()
    try:
        made = TTFont("notice", str(path))
    except (TTFError, OSError) as error:
        raise UsageError(f"cannot use the font {path}: {error}") from error
    everything = "".join(
        [*(value for _, each in texts for value in each.values()), *_values(notice)]
    )
    missing = sorted({sign for sign in everything if ord(sign) not in made.face.charToGlyph})
    if missing := [sign for sign in missing if not sign.isspace()]:
        raise UsageError(
            f"the font {path} lacks {' '.join(missing[:8])}: apt install fonts-dejavu-core, or "
            "name another with --font"
        )
    pdfmetrics.registerFont(made)
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=_PAGE, invariant=True)
    canvas.setTitle(texts[0][1]["title"])
    canvas.setAuthor(notice.operator)
    for name, each in texts:
        _Page(canvas, name).draw(notice, each, said)
    canvas.save()
    return file.getvalue()


def _values(notice: Notice) -> tuple[str, ...]:
    return (notice.operator, notice.contact, notice.purpose, notice.url)


def _font() -> Path:
    for name, folder in product(_FONTS, _FONT_FOLDERS):
        for path in sorted(Path(folder).rglob(f"{name}.ttf")):
            return path
    import reportlab

    # The bundled one has the letters of western Europe only.
    return Path(reportlab.__file__).parent / "fonts" / "Vera.ttf"


class _Page:
    """Writes one page from the top down; smaller until everything fits."""

    def __init__(self, canvas: Any, language: str) -> None:
        self._canvas = canvas
        self._language = language

    def draw(self, notice: Notice, texts: Texts, said: Sequence[str]) -> None:
        """The whole page. Raises UsageError for texts that do not fit."""
        for scale in (1.0, 0.9, 0.8, 0.7, 0.6):
            lines = list(self._lines(notice, texts, said, scale))
            if sum(height for _, _, height, _ in lines) <= _PAGE[1] - 2 * _MARGIN - _QR - 100:
                break
        else:
            raise UsageError(
                f"the texts are too long for one page ({self._language}): shorten the purpose or "
                "the contact"
            )
        self._symbol()
        top = _PAGE[1] - _MARGIN - 50
        for text, size, height, indent in lines:
            top -= height
            self._write(text, size, _MARGIN + indent, top)
        self._code(notice.url, texts, scale)
        for number, line in enumerate(self._wrapped(texts["law"], 9, _PAGE[0] - 2 * _MARGIN)):
            self._write(line, 9, _MARGIN, _MARGIN - 6 - 12 * number)
        self._canvas.showPage()

    def _lines(
        self, notice: Notice, texts: Texts, said: Sequence[str], scale: float
    ) -> Iterator[tuple[str, float, float, float]]:
        """Text, size, height and indent of each line."""
        title, body = 30 * scale, 14 * scale
        width = _PAGE[0] - 2 * _MARGIN

        def block(text: str, size: float, before: float, indent: float = 0.0) -> Any:
            for number, line in enumerate(self._wrapped(text, size, width - indent)):
                yield line, size, size * 1.35 + (before if number == 0 else 0), indent

        yield from block(texts["title"], title, 0)
        yield from block(texts["what"], body, body)
        for key in said:
            yield from block(f"•  {texts[key]}", body, body * 0.5)
        for name, value in _rows(notice, texts):
            yield from block(f"{name}:", body * 0.85, body)
            yield from block(value, body, 0, body)

    def _wrapped(self, text: str, size: float, width: float) -> list[str]:
        from reportlab.lib.utils import simpleSplit

        lines: list[str] = []
        for line in simpleSplit(text, "notice", size, width):
            # A word that is longer than a line, such as an address.
            while self._canvas.stringWidth(line, "notice", size) > width and len(line) > 1:
                fits = len(line)
                while self._canvas.stringWidth(line[:fits], "notice", size) > width:
                    fits -= 1
                lines.append(line[: max(1, fits)])
                line = line[max(1, fits) :]
            lines.append(line)
        return lines

    def _write(self, text: str, size: float, x: float, y: float) -> None:
        self._canvas.setFont("notice", size)
        self._canvas.drawString(x, y, text)

    def _symbol(self) -> None:
        """A camera, in the top left corner."""
        canvas, top = self._canvas, _PAGE[1] - _MARGIN
        canvas.roundRect(_MARGIN, top - 36, 48, 36, 6, stroke=0, fill=1)
        path = canvas.beginPath()
        path.moveTo(_MARGIN + 52, top - 14)
        path.lineTo(_MARGIN + 70, top - 3)
        path.lineTo(_MARGIN + 70, top - 33)
        path.lineTo(_MARGIN + 52, top - 22)
        path.close()
        canvas.drawPath(path, stroke=0, fill=1)
        canvas.setFillGray(1)
        canvas.circle(_MARGIN + 24, top - 18, 10, stroke=0, fill=1)
        canvas.setFillGray(0)

    def _code(self, url: str, texts: Texts, scale: float) -> None:
        """The QR code with its address, above the line about the law."""
        rows = [list(row) for row in _qr(url).matrix_iter(border=4)]
        side, bottom = _QR / len(rows), _MARGIN + 24
        for down, row in enumerate(rows):
            for across, dark in enumerate(row):
                if dark:
                    x, y = _MARGIN + across * side, bottom + _QR - (down + 1) * side
                    self._canvas.rect(x, y, side, side, stroke=0, fill=1)
        left, size = _MARGIN + _QR + 12, 12 * scale
        lines = [texts["more"], *self._wrapped(url, size, _PAGE[0] - _MARGIN - left)]
        top = bottom + _QR / 2 + size * len(lines) / 2
        for number, line in enumerate(lines):
            self._write(line, size, left, top - number * size * 1.4)
