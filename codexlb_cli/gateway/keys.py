"""What the gateway remembers of keys: owners, claims, responses and turn states; bounded.

Reads and claims happen in memory, without an await between them, so parallel first turns of one
key share its account. Owner rows are written behind, by the store's own thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from codexlb_cli.core.affinity import UNKEYED, Evidence, Key, KeyRecord, owner_after
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.store.database import Writer
from codexlb_cli.store.owners import (
    MOST_LOADED,
    forget_old,
    read_owners,
    read_reasoning,
    write_owner,
    write_reasoning,
)

MOST_REMEMBERED = 10_000
TOUCH_SECONDS = 24 * 3600.0
"""How often the row of a key that is still used is written again, so that it stays alive."""
STORED_SOURCES = frozenset({"session", "prompt_cache"})

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets what was used least recently."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        """Return the value of `key`; None if it is unknown."""
        if key in self._items:
            self._items.move_to_end(key)
        return self._items.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember a value."""
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._most:
            self._items.popitem(last=False)

    def __len__(self) -> int:
        return len(self._items)


class Keys:
    """The keys that the gateway knows.

    Args:
        writer: the store's writer.
        state_folder: where owners of earlier runs lie.
        now: seconds since the epoch.
    """

    def __init__(self, writer: Writer, state_folder: Path, now: Callable[[], float]) -> None:
        self._writer = writer
        self._now = now
        self._records: Recent[Key, KeyRecord] = Recent(MOST_LOADED)
        self._reasoning: Recent[str, str] = Recent(MOST_LOADED)
        self._turns: dict[Key, int] = {}
        self._on_disk: Recent[Key, tuple[str, float]] = Recent(MOST_LOADED)
        self._responses: Recent[str, str] = Recent(MOST_REMEMBERED)
        self._turn_states: Recent[str, str] = Recent(MOST_REMEMBERED)
        for source, value, account, updated in read_owners(state_folder, now()):
            if source in STORED_SOURCES:
                key = Key(source, value)
                self._records.put(key, KeyRecord(owner=account, bound=True))
                self._on_disk.put(key, (account, updated))
        for digest, account in read_reasoning(state_folder, now()):
            self._reasoning.put(digest, account)
        writer.submit(forget_old(now()))

    def enter(self, evidence: Evidence) -> tuple[Key, KeyRecord]:
        """Start a turn: return the key that decides, and what is known of it."""
        key, record = self._deciding(evidence)
        self._turns[key] = self._turns.get(key, 0) + 1
        return key, record

    def leave(self, key: Key) -> None:
        """End a turn: a claim that bound nothing ends with the last turn that shared it."""
        rest = self._turns.pop(key, 0) - 1
        if rest > 0:
            self._turns[key] = rest
        elif key.source in STORED_SOURCES:
            record = self.record(key)
            if record.owner is not None and not record.bound:
                self._records.put(key, replace(record, owner=None))

    def _deciding(self, evidence: Evidence) -> tuple[Key, KeyRecord]:
        # Responses and turn states decide only if the gateway knows whose they are.
        for key in evidence.keys:
            record = self.record(key)
            if key.source in STORED_SOURCES or record.owner is not None:
                return key, record
        return UNKEYED, KeyRecord()

    def record(self, key: Key) -> KeyRecord:
        """Return what is known of a key; an empty record if it is new."""
        if key.source == "previous_response":
            owner = self._responses.get(key.value)
        elif key.source == "turn_state":
            owner = self._turn_states.get(key.value)
        else:
            return self._records.get(key) or KeyRecord()
        return KeyRecord(owner=owner, bound=owner is not None)

    def claim(self, key: Key, account: str) -> None:
        """Claim a key for the account that a first turn dials; a bound key stays bound."""
        record = self.record(key)
        if key.source in STORED_SOURCES and not record.bound:
            self._records.put(key, replace(record, owner=account))

    def bind(self, key: Key, account: str) -> None:
        """Note that a hard turn's frame was sent to `account`: now the key sticks."""
        if key.source not in STORED_SOURCES or key.strength is not Strength.HARD:
            return
        record = self.record(key)
        if record.owner != account or not record.bound:
            self._records.put(key, replace(record, owner=account, bound=True))

    def stores(self, response_id: str, account: str) -> None:
        """Note which account stores a response."""
        self._responses.put(response_id, account)

    def responded(self, key: Key, account: str) -> Future[None] | None:
        """Note that `account` works on a turn; returns the write of a new owner row, if any."""
        if key.source not in STORED_SOURCES:
            return None
        record = self.record(key)
        if key.strength is Strength.SOFT and record.bound:
            return None  # a soft key's owner changes when a turn completes, not before
        return self._write(key, account)

    def completed(self, key: Key, account: str, pool: Pool) -> None:
        """Note that a turn completed on `account`."""
        if key.source not in STORED_SOURCES:
            return
        record = self.record(key)
        home = pool.standing_of(record.owner) if record.owner is not None else None
        owner = owner_after(key, record, account, home, pool.now)
        self._write(key, owner)
        self._records.put(key, record.completed(owner))

    def failed(self, key: Key) -> None:
        """Note that a turn gave up."""
        if key.source not in STORED_SOURCES:
            return
        self._records.put(key, self.record(key).failed(self._now()))

    def turn_state_given(self, value: str, account: str) -> None:
        """Note which account gave a turn state."""
        self._turn_states.put(value, account)

    def turn_state_owner(self, value: str | None) -> str | None:
        """Return the account that gave a turn state; None if it is unknown."""
        return None if value is None else self._turn_states.get(value)

    def reasoned(self, digest: str, account: str) -> None:
        """Note which account made an item of encrypted reasoning."""
        self._reasoning.put(digest, account)
        self._writer.submit(write_reasoning(digest, account, self._now()))

    def reasoned_by(self, digest: str) -> str | None:
        """Return the account that made an item of encrypted reasoning; None if it is unknown."""
        return self._reasoning.get(digest)

    def _write(self, key: Key, account: str) -> Future[None] | None:
        """Write an owner row, unless it stands there and is young enough."""
        stored, written_at = self._on_disk.get(key) or (None, 0.0)
        if stored == account and self._now() - written_at < TOUCH_SECONDS:
            return None
        self._on_disk.put(key, (account, self._now()))
        return self._writer.submit(write_owner(key.source, key.value, account, self._now()))
