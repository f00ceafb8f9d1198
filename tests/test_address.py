"""Addresses of stores: what of them is printed, and what a copied command then lacks."""

import pytest

from alexnet.address import left_out, password_place, shown, without_secrets
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
