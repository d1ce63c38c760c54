"""What the gateway remembers of keys: owners and claims; bounded, and backed by the store.

Decisions and claims happen in memory, without an await between them, so parallel first turns of
one key share its account. What is not in memory is recalled from the store before a turn starts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from codexlb_cli.core.affinity import Evidence, Key, turn_state_key
from codexlb_cli.core.ownership import NEW, KeyRecord, Ownership, owner_after, resolve
from codexlb_cli.core.reconnect import Strength
from codexlb_cli.core.selection import Pool
from codexlb_cli.store.owners import (
    find_owners,
    find_reasoning,
    forget_old,
    remove_owner,
    write_owner,
    write_reasoning,
)
from codexlb_cli.store.running import Store, Written

MOST_REMEMBERED = 20_000
TOUCH_SECONDS = 24 * 3600.0
"""How often the row of a key that is still used is written again, so that it stays alive."""
_CLAIMED = frozenset({"conversation", "file", "session", "prompt_cache"})
_BOUND_WHEN_SENT = frozenset({"conversation", "file", "session"})

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

    def drop(self, key: K) -> None:
        """Forget a value."""
        self._items.pop(key, None)

    def __contains__(self, key: K) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@dataclass(slots=True)
class _Row:
    """The owner row of a key as it was last read or written.

    Attributes:
        account: the owner.
        at: when, seconds since the epoch.
        epoch: that of the store.
        stored: whether it stands there; None while it is written, False if it was lost.
    """

    account: str
    at: float
    epoch: int
    stored: bool | None = None

    def settled(self, written: Written) -> None:
        """Note what became of the write; called by the thread that writes."""
        self.stored = written.result()


class Keys:
    """The keys that the gateway knows.

    Args:
        store: where owners of earlier runs lie.
        now: seconds since the epoch.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._records: Recent[Key, KeyRecord] = Recent(MOST_REMEMBERED)
        self._reasoning: Recent[str, str] = Recent(MOST_REMEMBERED)
        self._unsure: Recent[Key, None] = Recent(MOST_REMEMBERED)
        self._turns: dict[Key, int] = {}
        self._on_disk: Recent[Key, _Row] = Recent(MOST_REMEMBERED)
        store.submit(forget_old(now()))

    async def recall(self, keys: Iterable[Key], digests: Iterable[str] = ()) -> None:
        """Fetch from the store what is not in memory.

        What it cannot tell soon counts as new for now, but is asked for again, and nothing is
        written over it until then: who owns it is not given up because a disk was slow.

        Args:
            keys: of a request.
            digests: of the encrypted reasoning in its input.
        """
        unknown = [
            key
            for key in keys
            if not key.passing and (key not in self._records or key in self._unsure)
        ]
        if unknown:
            nobody: dict[Key, tuple[str, float]] = {}
            found = await self._store.read(find_owners(unknown, self._now()), nobody)
            for key in unknown:
                self._recalled(key, found)
        foreign = [digest for digest in digests if digest not in self._reasoning]
        if foreign:
            unmade: dict[str, str] = {}
            made = await self._store.read(find_reasoning(foreign, self._now()), unmade)
            for digest, account in (made or {}).items():
                self._reasoning.put(digest, account)

    def _recalled(self, key: Key, found: Mapping[Key, tuple[str, float]] | None) -> None:
        if found is None:
            self._unsure.put(key, None)
            return
        unsure = key in self._unsure
        self._unsure.drop(key)
        # Another turn may have claimed it meanwhile; but what was stored is older than a guess.
        if key in found and (unsure or key not in self._records):
            account, updated = found[key]
            self._records.put(key, KeyRecord.stored(account))
            self._on_disk.put(key, _Row(account, updated, self._store.epoch, stored=True))

    def enter(self, evidence: Evidence) -> Ownership:
        """Start a turn: say who owns it."""
        ownership = resolve(evidence, self.record)
        self._turns[ownership.key] = self._turns.get(ownership.key, 0) + 1
        return ownership

    def leave(self, key: Key) -> None:
        """End a turn: a claim that bound nothing ends with the last turn that shared it."""
        rest = self._turns.pop(key, 0) - 1
        if rest > 0:
            self._turns[key] = rest
        elif key.source in _CLAIMED:
            record = self.record(key)
            if record.owner is not None and not record.bound:
                self._records.put(key, replace(record, owner=None))

    def record(self, key: Key) -> KeyRecord:
        """Return what is known of a key; an empty record if it is new."""
        return self._records.get(key) or NEW

    def owner(self, source: str, value: str) -> str | None:
        """Return the account that owns a key; None if that is not known."""
        return self.record(Key(source, value)).owner

    def claim(self, key: Key, account: str) -> None:
        """Claim a key for the account that a first turn dials; a bound key stays bound."""
        record = self.record(key)
        if key.source in _CLAIMED and not record.bound:
            self._records.put(key, replace(record, owner=account))

    def bind(self, keys: Iterable[Key], account: str) -> None:
        """Note that a turn's frame was sent to `account`: now hard keys stick."""
        for key in keys:
            record = self.record(key)
            new = record.owner != account or not record.bound
            if key.source in _BOUND_WHEN_SENT and new:
                self._records.put(key, replace(record, owner=account, bound=True))

    def release(self, key: Key) -> None:
        """Take back a binding: the account has said that it does not have what the key names."""
        if key.source in ("conversation", "file"):
            self._records.put(key, replace(self.record(key), owner=None, bound=False))

    def responded(self, keys: Sequence[Key], account: str) -> Written | None:
        """Note that `account` works on a turn; returns the write of new owner rows, if any."""
        told = []
        for key in keys:
            record = self.record(key)
            if key.strength is Strength.SOFT and record.bound:
                continue  # a soft key's owner changes when a turn completes, not before
            if key.strength is Strength.HARD and (record.owner != account or not record.bound):
                self._records.put(key, replace(record, owner=account, bound=True))
            told.append(key)
        return self._write(told, account)

    def completed(self, keys: Sequence[Key], account: str, pool: Pool) -> None:
        """Note that a turn completed on `account`."""
        for key in keys:
            record = self.record(key)
            owner = owner_after(key, record, account, pool)
            self._write([key], owner)
            self._records.put(key, record.completed(owner))

    def failed(self, keys: Iterable[Key]) -> None:
        """Note that a turn gave up."""
        for key in keys:
            if key.source != "none":
                self._records.put(key, self.record(key).failed(self._now()))

    def pin(self, key: Key, account: str) -> Written | None:
        """Note that something lies in an account: a file, a response, a conversation."""
        return self.responded([key], account)

    def drop(self, key: Key) -> None:
        """Forget who owns a key: it is deleted, or a turn state that was left behind."""
        self._records.put(key, NEW)  # known to be nobody's, though its row may still be there
        self._on_disk.drop(key)
        self._store.submit(remove_owner(key))

    def forget(self) -> None:
        """Look at the store again: rows were removed there.

        Claims of running turns stay, and so does what could not be stored: it lies nowhere else.
        """
        rows, self._on_disk = self._on_disk, Recent(MOST_REMEMBERED)
        for key in list(self._records):
            row = rows.get(key)
            if row is not None and not (row.stored and row.epoch == self._store.epoch):
                self._on_disk.put(key, row)
            elif key not in self._turns:
                self._records.drop(key)

    def ended(self, key: Key) -> None:
        """Forget a key that has ended with a client's socket."""
        self._records.drop(key)

    def turn_state_given(self, value: str, account: str) -> None:
        """Note which account gave a turn state."""
        self.pin(turn_state_key(value), account)

    def owner_of(self, key: Key) -> str | None:
        """Return the account that owns a key; None if that is not known."""
        return self.record(key).owner

    def reasoned(self, digest: str, account: str) -> None:
        """Note which account made an item of encrypted reasoning."""
        self._reasoning.put(digest, account)
        self._store.submit(write_reasoning(digest, account, self._now()))

    def reasoned_by(self, digest: str) -> str | None:
        """Return the account that made an item of encrypted reasoning; None if it is unknown."""
        return self._reasoning.get(digest)

    def _write(self, keys: Iterable[Key], account: str) -> Written | None:
        """Write owner rows, unless they stand there and are young enough."""
        written = None
        for key in keys:
            if key.passing or key in self._unsure:
                continue  # another owner may stand there, which nobody could read
            row = self._on_disk.get(key)
            young = row is not None and self._now() - row.at < TOUCH_SECONDS
            stands = row is not None and row.stored is not False and row.epoch == self._store.epoch
            if row is not None and stands and young and row.account == account:
                continue
            row = _Row(account, self._now(), self._store.epoch)
            self._on_disk.put(key, row)
            written = self._store.submit(write_owner(key, account, self._now()))
            written.add_done_callback(row.settled)
        return written
