"""Addresses of remote stores, such as `https://host/store` and `s3://bucket/store`.

An address may contain a password, a token in place of the user, or a signature after a question
mark: only what `shown` leaves of it is printed or recorded, and `masked` takes the rest out of what
is printed. `left_out` says what a copy lacks.
"""

import os
import re
from os import PathLike
from pathlib import Path

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/?#]*@)?(?P<rest>.*)", re.DOTALL)
_SCHEMES = ("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "hdfs", "ftp", "sftp")
_FIRST_PARTS = {f"{scheme}:" for scheme in _SCHEMES}
#: An address within a text; `Path` leaves one of its slashes. A user with a password that is not
#: encoded may have a slash in it, and what follows `:` is no port.
_IN_TEXT = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?P<slashes>//?)"
    r"(?P<user>[^/?#\s]*@|(?!arn:)[^/?#\s:@\[]*:(?!\d*[/?#])\S*@)?"
    r"(?P<rest>[^\s?]*)(?P<query>\?\S*?(?=[].,:;)'\"`]*(?:\s|$)))?"
)
_HTTP = ("http", "https")
_S3, _GS = ("s3", "s3a"), ("gs", "gcs")
#: Schemes whose addresses have no place for a user.
BUCKETS = (*_S3, *_GS)
_NETRC = "write `machine HOST login USER password PASSWORD` into ~/.netrc"
_AWS = "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_GOOGLE = "set GOOGLE_APPLICATION_CREDENTIALS to the path of a key file"
_AZURE = "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
#: What to do about the address of anything but a store.
DOWNLOAD = "download them first"
#: Where credentials are read from that are not in the address, by scheme.
_PLACES = {
    **dict.fromkeys(_HTTP, _NETRC),
    **dict.fromkeys(_S3, _AWS),
    **dict.fromkeys(_GS, _GOOGLE),
    **dict.fromkeys(("az", "abfs", "abfss"), _AZURE),
    "hf": "set HF_TOKEN",
}


def is_address(text: object) -> bool:
    """Whether this is an address rather than a path."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def was_address(path: Path) -> bool:
    """Whether a path that does not exist was an address before `Path` dropped a slash of it."""
    return any(part in _FIRST_PARTS for part in path.parts) and not os.path.exists(path)  # False for a name too long


def as_typed(path: Path) -> str:
    """The address that a path was, with both slashes and as `shown`; another path as it is."""
    first = next((number for number, part in enumerate(path.parts) if part in _FIRST_PARTS), None)
    if first is None or not was_address(path):
        return str(path)
    return masked(f"{path.parts[first]}//{'/'.join(path.parts[first + 1 :])}")


def not_here(path: str | PathLike[str], what: str, remedy: str, otherwise: str = "") -> str:
    """The error for a path where nothing is.

    Args:
        what: what was expected there, in the plural.
        remedy: what to do if it is an address.
        otherwise: what to do if it is not.

    >>> not_here("http://ann:secret@host/a.npz", "weights", DOWNLOAD)
    'http://host/a.npz is an address, but weights must be on this machine: download them first.'
    """
    if was_address(Path(path)):
        return f"{as_typed(Path(path))} is an address, but {what} must be on this machine: {remedy}."
    return f"{path} does not exist{f': {otherwise}' if otherwise else ''}."


def scheme(address: str) -> str:
    """What precedes `://`, in lower case."""
    return address.partition("://")[0].lower()


def has_user(address: str) -> bool:
    """Whether an address has a user, a token or a password before its host."""
    match = _IN_TEXT.match(address)
    return bool(match and match["user"])


def beside(address: str, name: str) -> str:
    """The address of a file in the folder `address`."""
    folder, query = _split(address)
    return f"{folder.rstrip('/')}/{name}{query}"


def shown(address: str | PathLike[str]) -> str:
    """A path as it is; an address without its password and its query, and over HTTP without its
    user, as ~/.netrc is not read for an address that has one.
    """
    if not isinstance(address, str) or not is_address(address):
        return str(address)
    kind, user, _, rest = _parts(address)
    user = f"{user}@" if user and scheme(address) not in _HTTP else ""
    return f"{kind}://{user}{rest.rstrip('/')}"


def left_out(address: str) -> str:
    """What `shown` leaves out of an address, and how to give it; empty if nothing.

    >>> left_out("ftp://ann:secret@host/store")
    'its password, which is not printed: complete it, or set FSSPEC_FTP_PASSWORD'
    """
    if not is_address(address):
        return ""
    _, user, password, _ = _parts(address)
    if scheme(address) in _HTTP:
        secret = "its user and password" if user or password else ""
    else:
        secret = "its password" if password else ""
    query = "its query after the question mark" if _split(address)[1] else ""
    if not (secret or query):
        return ""
    remedy = f", or {password_place(address)}" if secret else ""
    both = f"{secret}{' and ' if secret and query else ''}{query}"
    return f"{both}, which {'are' if ' and ' in both else 'is'} not printed: complete it{remedy}"


def password_place(address: str) -> str:
    """What the user can do so that credentials are found that are not in the address."""
    kind = scheme(address)
    return _PLACES.get(kind, f"set FSSPEC_{kind.upper()}_PASSWORD")


def last_part(address: str) -> str:
    """The name of a store: that of its folder."""
    return shown(address).rpartition("/")[2] if is_address(address) else Path(address).absolute().name


def without_secrets(text: str, address: str) -> str:
    """A text of another program, without what `shown` leaves out of the address."""
    if not is_address(address):
        return text
    _, user, password, _ = _parts(address)
    if password:
        text = text.replace(f":{password}@", "@")
    if user and scheme(address) in _HTTP:
        text = text.replace(f"{user}@", "")
    query = _split(address)[1]
    return text.replace(query, "") if query else text


def masked(text: str) -> str:
    """A text without what `shown` leaves out of every address in it.

    >>> masked("http:/ann:secret@host/a.png?key=secret, or ftp://ann:secret@host")
    'http:/host/a.png, or ftp://ann@host'
    """
    return _IN_TEXT.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    kind = match["scheme"].lower()
    if match["slashes"] == "/" and f"{kind}:" not in _FIRST_PARTS:
        return match[0]
    name = (match["user"] or "").removesuffix("@").partition(":")[0]
    user = f"{name}@" if name and kind not in (*_HTTP, *BUCKETS) else ""
    query = "" if kind in _HTTP else match["query"] or ""
    return f"{match['scheme']}:{match['slashes']}{user}{match['rest']}{query}"


def _parts(address: str) -> tuple[str, str, str, str]:
    """Scheme, user and password of an address, empty if it has none, and the rest without query."""
    match = _ADDRESS.fullmatch(_split(address)[0])
    assert match
    user, _, password = (match["user"] or "").removesuffix("@").partition(":")
    return match["scheme"], user, password, match["rest"]


def _split(address: str) -> tuple[str, str]:
    """The address of the folder, and the query with its question mark."""
    folder, mark, query = address.partition("?") if scheme(address) in _HTTP else (address, "", "")
    return folder, mark + query
