"""Keys and tokens under names that do not say so stay out of a job's package."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovos_ray.on_ray.job_package import JobPackage

SECRETS = {
    "deploy.txt": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk",
    "aws.ini": "[default]\naws_secret_access_key = abc",
    "cluster.yaml": "users:\n- user:\n    client-key-data: LS0tLS1CRUdJTg==",
    "notes.json": '{"token": "hf_' + "a1B2" * 8 + '"}',
    "id": "AKIA" + "ABCDEFGH" * 2,
}
HARMLESS = {
    "key.txt": "-----BEGIN PUBLIC KEY-----",
    "words.csv": "hf_short,AKIA,token",
    "mine.py": '"""Reads a file that begins with -----BEGIN PRIVATE KEY-----."""',
    "large.bin": "x" * 70_000 + SECRETS["deploy.txt"],
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_file_that_holds_a_key_is_not_sent(name: str, tmp_path: Path) -> None:
    for other, text in HARMLESS.items():
        (tmp_path / other).write_text(text)
    (tmp_path / name).write_text(SECRETS[name])
    package = JobPackage.of(tmp_path)
    assert package.left_out == {name: "it holds a key or token"}
    assert package.sizes.keys() == HARMLESS.keys()
