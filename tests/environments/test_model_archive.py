import random
import stat
import zipfile
from pathlib import Path

import pytest

from cortex.environments.model_archive import unpack
from cortex.errors import UserError


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    archive = _zip(tmp_path / "m.zip", {"1/saved_model.pb": content, "1/assets/": b"", "__MACOSX/._1": b"junk"})
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/1/saved_model.pb").read_bytes() == content
    assert not (tmp_path / "out/__MACOSX").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil"])
def test_a_name_that_leads_out_is_refused_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    archive = _zip(tmp_path / "m.zip", {"fine": b"1", name: b"evil"})
    with pytest.raises(UserError, match="is not a name that a file of a model can have"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.zip"]


def test_a_link_is_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(UserError, match="link is a link or a device"):
        unpack(tmp_path / "m.zip", tmp_path / "out")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("./a", "2")
    with pytest.raises(UserError, match="a is in the zip file twice"):
        unpack(tmp_path / "m.zip", tmp_path / "out")


def test_a_file_where_a_directory_must_be_is_one_line(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "m.zip", {"a": b"1", "a/b": b"2"})
    with pytest.raises(UserError, match=r"^cannot unpack"):
        unpack(archive, tmp_path / "out")


def _declare(archive: Path, name: str, size: int) -> None:
    """Write another uncompressed size of a member into the central directory."""
    raw = bytearray(archive.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    assert raw[entry + 46 : entry + 46 + len(name)] == name.encode()
    raw[entry + 24 : entry + 28] = size.to_bytes(4, "little")
    archive.write_bytes(raw)


def test_a_bomb_is_refused_before_a_byte_of_it_is_written(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "m.zip", {"zeros": bytes(1_000_000)})
    _declare(archive, "zeros", 1_200_000_000)
    with pytest.raises(UserError, match=r"would unpack to 1\.2 GB, more than 50 times its own size"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "m.zip", {"zeros": bytes(1_000_000)})
    _declare(archive, "zeros", 10)
    with pytest.raises(UserError, match="is not a zip file that can be read: Bad CRC-32"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/zeros").stat().st_size <= 10


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "m.zip", {"a": b"1"})
    raw = bytearray(archive.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(raw)
    with pytest.raises(UserError, match="is encrypted"):
        unpack(archive, tmp_path / "out")


def test_a_damaged_zip_is_a_clear_error_wherever_the_damage_is(tmp_path: Path) -> None:
    """Whatever bytes are changed or cut off: unpacked all the same, or a UserError, never another exception."""
    content = random.Random(1).randbytes(2000)
    whole = _zip(tmp_path / "m.zip", {"1/saved_model.pb": content, "1/variables/v": content[:100] * 10}).read_bytes()
    chance, refused = random.Random(2), 0
    for number in range(600):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if number % 4 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            unpack(tmp_path / "damaged.zip", tmp_path / f"out{number}")
        except UserError:
            refused += 1
    assert refused > 300
