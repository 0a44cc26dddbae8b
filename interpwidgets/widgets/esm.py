"""Makes of a widget's ES modules the one text that anywidget sends, and of the style sheets likewise."""

from __future__ import annotations

import base64
import gzip
import re
from functools import cache
from importlib.resources import files

_STATIC = files("interpwidgets.widgets") / "static"
_IMPORT = re.compile(r'^import\s+\{[^}]*\}\s+from\s+"\./([\w.-]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?!default)", re.M)
_JSDOC = re.compile(r"/\*\*.*?\*/ ?", re.S)
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_BREAKS = re.compile(r"\s+")
_SPACES = re.compile(r" ?([{};]) ?|(?<=[,:]) (?=[^{};]*[;}])")
_BLANK = re.compile(r"^\s*//.*\n|^\s*\n|^[ \t]+", re.M)

# Every instance of a widget sends its module again, and a page reload sends all of them at once. Base 85 (RFC 1924's
# digits, as in Python's b85encode, none of which a JavaScript string escapes) is a sixteenth smaller than base 64.
_UNPACK = """\
const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{{|}}~";
const data = "{data}";
const packed = new DataView(new ArrayBuffer((data.length / 5) * 4));
for (let group = 0; group < data.length / 5; group++) {{
  let value = 0;
  for (let at = 5 * group; at < 5 * group + 5; at++) value = value * 85 + digits.indexOf(data[at]);
  packed.setUint32(4 * group, value);
}}
const unpacked = new Blob([packed.buffer.slice(0, {size})]).stream().pipeThrough(new DecompressionStream("gzip"));
const module = new Blob([await new Response(unpacked).text()], {{ type: "text/javascript" }});
const url = URL.createObjectURL(module);
const {{ default: widget }} = await import(url);
URL.revokeObjectURL(url);
export default widget;
"""


@cache
def bundle(entry: str) -> str:
    """What is sent for `entry`, a file of `static/`: a module that unpacks and imports `minified(entry)`."""
    data = gzip.compress(minified(entry).encode(), mtime=0)
    return _UNPACK.format(data=base64.b85encode(data, pad=True).decode(), size=len(data))


@cache
def minified(entry: str) -> str:
    """`joined(entry)` without indentation and comments: JSDoc anywhere, others on lines of their own."""
    return _BLANK.sub("", _JSDOC.sub("", joined(entry)))


@cache
def joined(entry: str) -> str:
    """One self-contained ES module: `entry` preceded by the modules that it imports.

    The modules must import by name only, without renaming, one import a line, and share no top-level name.
    """
    order: list[str] = []
    _collect(entry, order)
    *libraries, main = (_IMPORT.sub("", _read(name)) for name in order)
    return "\n".join([*(_EXPORT.sub("", library) for library in libraries), main])


@cache
def stylesheet(own: str) -> str:
    """A widget's own style sheet after the shared ones; the theme first, because the others read its variables.

    Without comments, and without the white space that means nothing.
    """
    text = "".join(_read(name) for name in ("theme.css", "frame.css", "looks.css", own))
    return _SPACES.sub(r"\1", _BREAKS.sub(" ", _COMMENT.sub("", text)))


def _collect(name: str, order: list[str]) -> None:
    for dependency in _IMPORT.findall(_read(name)):
        if dependency not in order:
            _collect(dependency, order)
    order.append(name)


@cache
def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")
