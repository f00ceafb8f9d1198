"""The page as one file that needs nothing else: its code, its words and a scene are in it.

The template is `page/index.html`. Modules import each other by bare names, which an import map
turns into addresses: `data:` addresses with the code itself here, so that the file opens from a
disk; addresses of the server in `server.py`. The file's own Content-Security-Policy lets the
browser load nothing else, and run no script but these.
"""

import hashlib
import json
import re
import zlib
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexnet.files import writing
from alexnet.web.scene import Scene
from alexnet.words import CATALOGUE

PAGE = "alexnet.web"
#: zlib's level for a scene: at full width 4 takes 0.31 s, 1 takes 0.25 s for 1 % more bytes, and 6
#: 0.7 s for 0.5 % fewer.
LEVEL = 4
#: What a page in a file may load: `{scripts}` and `{styles}` are the hashes of its own.
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data: blob:; base-uri 'none'; form-action 'none'"
)
START = 'import "main";'


def write(path: Path, scene: Scene, language: str | None = None) -> Path:
    """Write a scene's page, which is whole or not there.

    Args:
        path: the file.
        language: en or zh; the reader's browser chooses if None.

    Raises:
        OutputError: no space, or the folder cannot be written; a file that was there stays.
    """
    with writing(path) as temporary:
        temporary.write_bytes(page(scene, language))
    return path


def page(scene: Scene, language: str | None = None) -> bytes:
    """A scene's page as the bytes of an HTML file."""
    network = scene.description["network"]
    imports = json_text({"imports": {name: _data("text/javascript", code) for name, code in modules().items()}})
    style = asset("style.css").decode()
    policy = POLICY.format(scripts=f"data: {script_hash(imports)} {script_hash(START)}", styles=script_hash(style))
    about = {
        "mode": "file",
        "lang": language,
        "networks": [{"id": "file", "label": network["label"], "source": network["source"]}],
        "token": None,
    }
    head, tail = fill(
        csp=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        style=f"<style>{style}</style>",
        importmap=imports,
        words=json_text(words()),
        page=json_text(about),
        start=f'<script type="module">{START}</script>',
    ).split("{{scene}}")
    packed = b64encode(packed_scene(scene))
    return b"".join(
        [head.encode(), b'<script type="application/octet-stream" id="scene">', packed, b"</script>", tail.encode()]
    )


def packed_scene(scene: Scene, level: int = LEVEL) -> bytes:
    """The scene's bytes as gzip."""
    packer = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return packer.compress(scene.to_bytes(planes=True)) + packer.flush()


def fill(**values: str) -> str:
    """The template with values in the places of their names; each place is filled once, so that no
    value is looked at again. `scene` stays where it has no value.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda place: values.get(place[1], place[0]), asset("index.html").decode())


def json_text(content: Any) -> str:
    """JSON that can be between the tags of a script, whatever its strings hold: no `<`, `>` or `&`
    of theirs is left.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def asset(name: str) -> bytes:
    """A file of the page by its name, such as style.css.

    Raises:
        KeyError: the page has no such file.
    """
    return assets()[name]


@cache
def assets() -> dict[str, bytes]:
    """The page's files by name; those in a folder as words/en.json."""
    folder = files(PAGE) / "page"
    found = {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}
    return found | {f"words/{one.name}": one.read_bytes() for one in (folder / "words").iterdir() if one.is_file()}


def modules() -> dict[str, str]:
    """The page's modules by the bare names under which they import each other."""
    return {name.removesuffix(".js"): data.decode() for name, data in sorted(assets().items()) if name.endswith(".js")}


def words() -> dict[str, Mapping[str, str]]:
    """What the page says, by language: the project's catalogue and the page's own sentences."""
    return {language: {**known, **json.loads(asset(f"words/{language}.json"))} for language, known in CATALOGUE.items()}


def _data(kind: str, text: str) -> str:
    return f"data:{kind};base64,{b64encode(text.encode()).decode()}"


def script_hash(text: str) -> str:
    """How a Content-Security-Policy names a script or style that it allows."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
