"""The printable notice: what Article 50(3) requires, from the configuration it describes."""

from __future__ import annotations

import html
import re
import string
from pathlib import Path

import numpy as np
import pytest

from emotion_edge import cli
from emotion_edge.errors import MissingExtra, UsageError
from emotion_edge.kiosk import notice
from emotion_edge.kiosk.configuration import build

cv2 = pytest.importorskip("cv2")
segno = pytest.importorskip("segno", reason="the [sign] extra is not installed")
pytest.importorskip("reportlab", reason="the [sign] extra is not installed")

NOTICE = notice.Notice(
    operator="Shop <Ltd> & Sons, 1 High Street",
    contact="privacy@example.org",
    purpose="to count smiles",
    url="https://example.org/notice?lang=en&site=7",
)
SAID = ("identity", "no_images", "counts")


def test_every_language_has_every_text() -> None:
    texts = notice.languages()
    assert len(texts) >= 5
    for name, each in texts.items():
        assert set(each) == set(texts["en"]), name
        assert all(each.values()) and "2024/1689" in each["law"] and "50" in each["law"]
        assert not any(sign in "{}" for text in each.values() for sign in text)


def test_the_notice_says_what_the_law_requires() -> None:
    page = notice.as_html(NOTICE, notice.choose(["en", "de"]), SAID)
    text = html.unescape(re.sub(r"<[^>]+>", "\n", page))
    for part in (
        "AI system for emotion recognition is in operation",  # its operation: Article 50(3)
        "Article 50(3) of Regulation (EU) 2024/1689",
        "KI-System zur Emotionserkennung",
        NOTICE.operator,
        NOTICE.contact,
        NOTICE.purpose,
        NOTICE.url,
        "No images are stored",
    ):
        assert part in text, part
    assert 'lang="de"' in page and "<Ltd>" not in page
    # Nothing to fetch: it is printed, perhaps without a network.
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(", page)


def test_the_code_opens_the_operators_page() -> None:
    rows = np.array([list(row) for row in notice._qr(NOTICE.url).matrix_iter(border=4)])
    image = np.where(rows > 0, 0, 255).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    assert cv2.QRCodeDetector().detectAndDecode(image)[0] == NOTICE.url


def test_the_pdf_has_a_page_for_each_language() -> None:
    texts = notice.choose(list(notice.languages()))
    data = notice.as_pdf(NOTICE, texts, SAID)
    assert data.startswith(b"%PDF-") and f"/Count {len(texts)}".encode() in data
    assert notice.as_pdf(NOTICE, texts, SAID) == data  # the same input gives the same file


def test_texts_that_do_not_fit_are_refused() -> None:
    long = notice.Notice(
        operator="o", contact="c", purpose="to count smiles " * 300, url="https://example.org"
    )
    with pytest.raises(UsageError, match="too long for one page"):
        notice.as_pdf(long, notice.choose(["en"]), SAID)


def test_a_long_word_is_broken_and_not_cut_off() -> None:
    address = f"https://example.org/{string.ascii_lowercase * 8}"
    long = notice.Notice(operator="o", contact="c", purpose="p" * 200, url=address)
    assert notice.as_pdf(long, notice.choose(["en"]), SAID)


def test_a_letter_that_the_font_lacks_is_named() -> None:
    other = notice.Notice(operator="店", contact="c", purpose="p", url="https://example.org")
    with pytest.raises(UsageError, match="lacks 店"):
        notice.as_pdf(other, notice.choose(["en"]), SAID)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, ("identity", "no_images", "records")),
        ({"aggregate": {}, "sinks": {"metrics": {}}}, ("identity", "no_images", "counts")),
        ({"sinks": {"page": {}, "window": {}}}, ("identity", "no_images", "records")),
        ({"sinks": {"page": {"host": "0.0.0.0"}}}, ("identity", "images", "records")),
        ({"sinks": {"record": {"path": "a.mp4"}}}, ("identity", "images", "records")),
        (
            {"faces": "blur", "sinks": {"record": {"path": "a.mp4"}}},
            ("identity", "hidden_images", "records"),
        ),
    ],
)
def test_what_it_says_is_true_of_the_configuration(
    tables: dict[str, object], said: tuple[str, ...]
) -> None:
    assert notice.statements(build({"quiet": True} | tables)) == said


WORDS = ("sign", "--operator", "o", "--contact", "c", "--purpose", "p")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "kiosk.toml"
    config.write_text("[aggregate]")
    words = [*WORDS, "--url", "https://example.org", "--config", str(config)]
    words += ["--out", str(tmp_path / "out")]
    assert cli.main([*words, "--language", "en,fr"]) == 0
    page = (tmp_path / "out" / "notice.html").read_text()
    assert 'lang="fr"' in page and "Only counts" in page
    assert (tmp_path / "out" / "notice.pdf").read_bytes().startswith(b"%PDF-")
    capsys.readouterr()
    assert cli.main(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite", "--language", "xx"]) == 2
    assert "no language 'xx': use en, de" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite", "--font", str(config)]) == 2
    assert "cannot use the font" in capsys.readouterr().err
    assert 'lang="fr"' in (tmp_path / "out" / "notice.html").read_text()  # nothing half-written


@pytest.mark.parametrize("url", ["example.org", "javascript:alert(1)", "https://a b", " "])
def test_an_address_that_is_not_one(url: str) -> None:
    with pytest.raises(UsageError, match="url is"):
        notice.Notice(operator="o", contact="c", purpose="p", url=url)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(MissingExtra, match=r"emotion-edge\[sign\]"):
        notice.as_html(NOTICE, notice.choose(["en"]), SAID)
