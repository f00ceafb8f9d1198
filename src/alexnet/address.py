"""Addresses of remote stores, such as `https://host/store` and `s3://bucket/store`.

An address may contain a password, or a signature after a question mark: only what `shown` leaves of
it is printed or recorded.
"""

import re
from os import PathLike
from pathlib import Path

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^/?#]*@)?(?P<rest>.*)", re.DOTALL)
_FIRST_PARTS = {f"{scheme}:" for scheme in ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "hdfs", "ftp", "sftp")}
#: For other schemes, a question mark is part of a name.
_WITH_QUERY = ("http", "https")


def is_address(text: object) -> bool:
    """Whether this is an address rather than a path."""
    return isinstance(text, str) and _ADDRESS.fullmatch(text) is not None


def was_address(path: Path) -> bool:
    """Whether a path that does not exist was an address before `Path` dropped a slash of it."""
    return any(part in _FIRST_PARTS for part in path.parts) and not path.exists()


def scheme(address: str) -> str:
    """What precedes `://`, in lower case."""
    return address.partition("://")[0].lower()


def beside(address: str, name: str) -> str:
    """The address of a file in the folder `address`."""
    folder, query = _split(address)
    return f"{folder.rstrip('/')}/{name}{query}"


def shown(address: str | PathLike[str]) -> str:
    """A path as it is; an address without its password and its query."""
    match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if not isinstance(address, str) or not match:
        return str(address)
    user = (match["user"] or "").removesuffix("@").partition(":")[0]
    rest = _split(address)[0].partition("://")[2].removeprefix(match["user"] or "")
    return f"{match['scheme']}://{user and user + '@'}{rest.rstrip('/')}"


def last_part(address: str) -> str:
    """The name of a store: that of its folder."""
    return shown(address).rpartition("/")[2] if is_address(address) else Path(address).absolute().name


def without_secrets(text: str, address: str) -> str:
    """A text of another program, without what `shown` leaves out of the address."""
    match, query = _ADDRESS.fullmatch(address), _split(address)[1]
    password = (match["user"] or "").removesuffix("@").partition(":")[2] if match else ""
    for secret in filter(None, (query, password and f":{password}@")):
        text = text.replace(secret, "@" if secret.endswith("@") else "")
    return text


def _split(address: str) -> tuple[str, str]:
    """The address of the folder, and the query with its question mark."""
    folder, mark, query = address.partition("?") if scheme(address) in _WITH_QUERY else (address, "", "")
    return folder, mark + query
