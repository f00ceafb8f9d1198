"""Addresses of stores: what of them is printed, and what a copied command then lacks."""

from pathlib import Path

import pytest

from alexnet.address import as_typed, left_out, masked, password_place, shown, without_secrets
from alexnet.cli import main
from alexnet.cli.next_step import next_step

NETRC = "complete it, or write `machine HOST login USER password PASSWORD` into ~/.netrc"
QUERY = "its query after the question mark"
ADDRESSES = {
    "http://host/store/": ("http://host/store", ""),
    "http://ann:s3cret@host:80/store": ("http://host:80/store", f"its user and password, which are not printed: {NETRC}"),
    "https://t0ken@host/store": ("https://host/store", f"its user and password, which are not printed: {NETRC}"),
    "https://host/store?sig=s3cret": ("https://host/store", f"{QUERY}, which is not printed: complete it"),
    "https://ann:s3cret@host/store?sig=s3cret": (
        "https://host/store",
        f"its user and password and {QUERY}, which are not printed: {NETRC}",
    ),
    "s3://bucket/what?": ("s3://bucket/what?", ""),
    "ftp://ann@host/store": ("ftp://ann@host/store", ""),
    "ftp://ann:s3cret@host/store": (
        "ftp://ann@host/store",
        "its password, which is not printed: complete it, or set FSSPEC_FTP_PASSWORD",
    ),
    "a folder?": ("a folder?", ""),
}


@pytest.mark.parametrize(("address", "printed", "lacks"), [(name, *both) for name, both in ADDRESSES.items()])
def test_secrets_are_left_out(address: str, printed: str, lacks: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what is printed, and of another program's error; a line before the command says so."""
    assert shown(address) == printed and left_out(address) == lacks
    error = without_secrets(f"cannot open {address}!", address)
    assert error.rstrip("!").rstrip("/") == f"cannot open {printed}"
    next_step("verify", address)
    *before, last = capsys.readouterr().err.splitlines()
    assert last.replace("'", "") == f"Next: alexnet verify {printed}"
    assert before == ([f"The address in the next command lacks {lacks}."] if lacks else [])


TEXTS = {
    "http:/ann:s3cret@host/photos does not exist.": "http:/host/photos does not exist.",
    "data (=s3:/ann:s3cret@b/x/store) is an address": "data (=s3:/b/x/store) is an address",
    "/home/ann/https:/t0ken@host/x: no such file": "/home/ann/https:/host/x: no such file",
    "'http://host/x?k=s3cret': known are a, b": "'http://host/x': known are a, b",
    "see (http://host/x?k=s3'cret), then sftp://ann:s3cret@h/a": "see (http://host/x), then sftp://ann@h/a",
    "s3://ann:s3/cret@bucket/x and ann:s3/cret@x": "s3://bucket/x and ann:s3/cret@x",
    "http://host:80/ann@x, http://[::1]:80/ann@x": "http://host:80/ann@x, http://[::1]:80/ann@x",
    "s3://arn:aws:s3:eu:1:accesspoint/a/b@c and s3://b/what?": "s3://arn:aws:s3:eu:1:accesspoint/a/b@c and s3://b/what?",
    "C:/ann:x@y?z and gh:ann@host?": "C:/ann:x@y?z and gh:ann@host?",
}


@pytest.mark.parametrize(("text", "printed"), TEXTS.items())
def test_secrets_are_left_out_of_a_text(text: str, printed: str) -> None:
    """As typed, and as `Path` makes it; what only looks like a secret stays."""
    assert masked(text) == printed


def test_a_path_is_shown_as_the_address_that_was_typed() -> None:
    assert as_typed(Path("https://ann:s3cret@host/a/b?k=s3cret").absolute()) == "https://host/a/b"
    assert as_typed(Path("a/b@c?d")) == "a/b@c?d"


PHOTOS = "photos must be on this machine: download them first, or prepare them into a store, whose address --data takes"
PICTURES = "pictures must be on this machine: download them first"
RUNS = "runs and weights must be on this machine: download them first"
WEIGHTS = "weights must be on this machine: download them first"
FOLDER = "a run is written to a folder: name a folder with --out"
COMMANDS = {
    "fit ADDRESS --out run": PHOTOS,
    "prepare ADDRESS store": PHOTOS,
    "predict run ADDRESS": PICTURES,
    "explain ADDRESS --run run -o page.html": PICTURES,
    "compare paper owt --weights ADDRESS --image cat.png": WEIGHTS,
    "filters ADDRESS": WEIGHTS,
    "evaluate ADDRESS --data store": RUNS,
    "predict ADDRESS cat.png": RUNS,
    "serve ADDRESS": RUNS,
    "report ADDRESS --data store": RUNS.replace(" and weights", ""),
    "fit photos --out ADDRESS": FOLDER,
}


@pytest.mark.parametrize("query", ["", "?k=s3cret", f"?k=s3cret{'x' * 300}"])
@pytest.mark.parametrize(("command", "said"), COMMANDS.items())
def test_an_address_that_is_no_stores_is_named_without_secrets(
    command: str, said: str, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the query is longer than a file's name may be."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(command.replace("ADDRESS", f"https://ann:s3cret@host/thing{query}").split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"alexnet: https://host/thing is an address, but {said}.\n"


@pytest.mark.parametrize(
    "command",
    ["verify store ADDRESS", "predict run cat.png --top ADDRESS", "train laptop --data store --out run --epochs ADDRESS"],
)
def test_a_word_that_no_option_takes_is_named_without_secrets(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """tyro prints these errors itself."""
    with pytest.raises(SystemExit) as ended:
        main(command.replace("ADDRESS", "https://ann:s3cret@host/x?k=s3cret").split())
    said = capfd.readouterr()
    assert ended.value.code == 2 and said.out == ""
    assert "https://host/x" in said.err and "s3cret" not in said.err


@pytest.mark.parametrize(
    ("address", "variable"),
    [
        ("s3://bucket/store", "AWS_SECRET_ACCESS_KEY"),
        ("gs://bucket/store", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://container/store", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("HF://datasets/ann/store", "HF_TOKEN"),
        ("sftp://host/store", "FSSPEC_SFTP_PASSWORD"),
    ],
)
def test_credentials_have_the_place_that_their_service_reads(address: str, variable: str) -> None:
    assert variable in password_place(address) and password_place(address).startswith("set ")
