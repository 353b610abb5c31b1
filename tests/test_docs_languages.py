"""docs/languages.md: every piece of source in it compiles as it stands, and says what it should."""

import os
import re
from pathlib import Path

import msgspec
import pytest

from host.core import toml
from host.core.errors import SkillRefused, UsageError
from host.plugins.contract import SHAPES
from sdk import project
from sdk.build import build
from sdk.demo.samples import BID
from sdk.local import LocalSkill
from sdk.toolchains import TOOLCHAINS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "languages.md").read_text()
LANGS = {"zig": ("zig", "zig"), "c": ("c", "c"), "rust": ("rust", "rs"), "typescript": ("assemblyscript", "ts")}
SNIPPETS = [match.groups() for match in re.finditer(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)]
SOURCES = [(number, lang, text) for number, (lang, text) in enumerate(SNIPPETS) if lang in LANGS]
MANIFEST = '[skill]\nname = "snippet"\nversion = "1.0.0"\nhooks = ["{hook}"]\n[build]\nlang = "{lang}"\nsource = "main.{extension}"\n'


def test_every_language_of_the_fast_tier_has_its_piece_of_source():
    assert {LANGS[lang][0] for _, lang, _ in SOURCES} == set(TOOLCHAINS)
    (settings,) = [text for lang, text in SNIPPETS if lang == "toml"]
    assert toml.decode(settings.encode(), dict[str, project.Comparison], "snippet")["compare"].default.relative == 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("number", "lang", "text"), SOURCES, ids=[f"{number}-{lang}" for number, lang, _ in SOURCES])
def test_it_compiles_and_refuses_a_negative_margin(number: int, lang: str, text: str, tmp_path: Path) -> None:
    name, extension = LANGS[lang]
    try:
        TOOLCHAINS[name]()
    except UsageError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    hook = next(hook for hook in SHAPES if re.search(rf"\b{hook}\(", text))
    (tmp_path / f"main.{extension}").write_text(text)
    (tmp_path / "skill.toml").write_text(MANIFEST.format(hook=hook, lang=name, extension=extension))
    skill = LocalSkill(build(project.load(tmp_path)).read_bytes(), f"snippet {number}")
    if hook == "bid":
        assert skill.version.call("bid", BID).reason == "not today"  # type: ignore[attr-defined]  # it is a BidReply
        with pytest.raises(SkillRefused, match=r"bad_margin: margin is -0\.5; it must not be negative"):
            skill.version.call("bid", msgspec.structs.replace(BID, margin=-0.5))
