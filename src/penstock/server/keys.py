"""API keys: whose they are and what they allow. Only their hashes are kept."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import msgspec

from penstock.server.quota import KeyLimits, Quota
from penstock.vocabulary.errors import SettingsError

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key in a key file: by its SHA-256 in hexadecimal, or itself. Limits: `KeyLimits`."""

    name: _Name
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}$")] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    admin: bool = False
    max_concurrent: _Positive | None = None
    requests_per_minute: _Positive | None = None
    tokens_per_minute: _Positive | None = None
    min_priority: int | None = None


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of keys, in JSON or TOML."""

    keys: list[KeyEntry]


@dataclass(frozen=True, eq=False)
class Key:
    """A key by its hash. An admin key opens every route, the others all but those of admins."""

    name: str
    digest: bytes
    quota: Quota
    is_admin: bool = False

    @property
    def salt(self) -> str:
        """Keeps the prefix-cache blocks of this key's owner from those of others."""
        return hashlib.sha256(b"prefix cache" + self.digest).hexdigest()[:32]


class KeyRing:
    """All keys of a server: those `given`, and those in the file at `path`, which may change.

    It is false if there are none, and then every door is open. Raises `SettingsError` for keys that
    cannot be.
    """

    def __init__(self, given: Iterable[Key], path: Path | None = None) -> None:
        self._given = tuple(given)
        self._path = path
        self._version = _version(path)
        self._keys = _distinct((*self._given, *(_keys_in(path) if path else ())))

    def refresh(self) -> bool:
        """Read the file again if it has changed, and tell whether it has.

        Keys that have not changed keep the count of what they have used. Raises `SettingsError` for
        a file that cannot be; then all keys stay as they are, until it changes again.
        """
        if self._path is None or (version := _version(self._path)) == self._version:
            return False
        self._version = version
        known = {(key.name, key.digest, key.is_admin, key.quota.limits): key for key in self._keys}
        self._keys = _distinct(
            known.get((key.name, key.digest, key.is_admin, key.quota.limits), key)
            for key in (*self._given, *_keys_in(self._path))
        )
        return True

    def __len__(self) -> int:
        return len(self._keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def has_admin(self) -> bool:
        return any(key.is_admin for key in self._keys)

    def find(self, token: bytes) -> Key | None:
        """The key that `token` is. Every one is compared, so that time tells nothing."""
        digest = hashlib.sha256(token).digest()
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        return matches[0] if matches else None


def _version(path: Path | None) -> object:
    """What changes whenever a file does; None while there is none."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return found and (found.st_ino, found.st_mtime_ns, found.st_size)


def _distinct(keys: Iterable[Key]) -> tuple[Key, ...]:
    """`keys`, of which no two have the same name, or are the same. Raises `SettingsError`."""
    found = tuple(keys)
    for one in ("name", "digest"):
        known: dict[object, Key] = {}
        for key in found:
            twin = known.setdefault(getattr(key, one), key)
            if twin is not key:
                raise SettingsError(f"The API keys {twin.name} and {key.name} are the same.")
    return found


def key_ring(
    api_keys: Sequence[str], admin_keys: Sequence[str], api_key_file: str | None
) -> KeyRing:
    """All keys that are given. Raises `SettingsError` for those that cannot be."""
    keys = [
        _plain_key(f"{kind}-key-{number}", key, is_admin=kind == "admin")
        for kind, given in (("api", api_keys), ("admin", admin_keys))
        for number, key in enumerate(given, start=1)
    ]
    return KeyRing(keys, Path(api_key_file) if api_key_file else None)


def new_key() -> str:
    """256 random bits, behind a prefix by which leaked keys can be searched for."""
    return f"psk_{secrets.token_urlsafe(32)}"


def key_entry(name: str, key: str, *, admin: bool) -> str:
    """What a key file in TOML keeps of a key. Raises `SettingsError` for a name that cannot be."""
    fields_ = {"name": name, "sha256": _hash_of(key)}
    try:
        msgspec.convert(fields_, KeyEntry)
    except msgspec.ValidationError:
        raise SettingsError(
            f"{name!r} cannot be a key's name.",
            remedy="Use up to 64 letters, digits, dots, hyphens, underscores and @.",
        ) from None
    lines = ["[[keys]]", *(f'{field} = "{text}"' for field, text in fields_.items())]
    return "\n".join([*lines, *(["admin = true"] if admin else []), ""])


def _hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _plain_key(name: str, key: str, *, is_admin: bool) -> Key:
    if not key.strip():
        raise SettingsError(
            "An API key is empty.", remedy="Leave it out to serve without authentication."
        )
    return Key(name, bytes.fromhex(_hash_of(key)), Quota(KeyLimits()), is_admin)


def _keys_in(path: Path) -> list[Key]:
    decode = msgspec.toml.decode if path.suffix == ".toml" else msgspec.json.decode
    try:
        entries = decode(path.read_bytes(), type=KeyFile).keys
    except OSError as error:
        raise SettingsError(f"Cannot read the key file {path}: {error.strerror}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"The key file {path} is not as it should be: {error}.",
            remedy="`penstock key` shows what an entry looks like.",
        ) from None
    if not entries:
        raise SettingsError(
            f"The key file {path} has no keys.",
            remedy="Leave --api-key-file out to serve without authentication.",
        )
    return [_key(entry, path) for entry in entries]


def _key(entry: KeyEntry, path: Path) -> Key:
    if (entry.key is None) == (entry.sha256 is None):
        raise SettingsError(f"{path}: the entry of {entry.name} needs either sha256 or key.")
    limits = KeyLimits(**{each.name: getattr(entry, each.name) for each in fields(KeyLimits)})
    sha256 = entry.sha256 or _hash_of(entry.key or "")
    return Key(entry.name, bytes.fromhex(sha256), Quota(limits), entry.admin)
