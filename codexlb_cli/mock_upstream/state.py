"""What all connections of one mock share: identities, counts, memory, the recording."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from codexlb_cli.config.schema import ACCOUNT_NAME
from codexlb_cli.mock_upstream.background import BackgroundResponse
from codexlb_cli.mock_upstream.file_requests import FileRequests
from codexlb_cli.mock_upstream.files import FileStore, StoredFile
from codexlb_cli.mock_upstream.issuer import Issuer, rule_or_normal
from codexlb_cli.mock_upstream.memory import Conversations, PerAccount, StoredResponses
from codexlb_cli.mock_upstream.requests import RefusedError, file_ids, invalid_request
from codexlb_cli.mock_upstream.rules import (
    NORMAL_HANDSHAKE,
    NORMAL_MODELS,
    NORMAL_TURN,
    ErrorSpec,
    HandshakeRule,
    ModelsRule,
    TurnRule,
)
from codexlb_cli.mock_upstream.script import Occasion, decide
from codexlb_cli.mock_upstream.stored_requests import StoredRequests
from codexlb_cli.mock_upstream.stream import ResponseStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from codexlb_cli.mock_upstream.answers import Answer
    from codexlb_cli.mock_upstream.issuer_requests import Asked
    from codexlb_cli.mock_upstream.issuer_rules import IssuerRule
    from codexlb_cli.mock_upstream.recording import Handshake, Recording, Turn
    from codexlb_cli.mock_upstream.requests import TurnRequest
    from codexlb_cli.mock_upstream.script import AnyRule, Script
    from codexlb_cli.mock_upstream.wire import Head

INVALID_API_KEY = ErrorSpec(
    status=401,
    type="invalid_request_error",
    code="invalid_api_key",
    message="Incorrect API key provided.",
)
_MOST_IDENTITIES = 1000
_MOST_VECTOR_STORES = 1000
_NAMED_KEY = re.compile(f"demo-key-({ACCOUNT_NAME.pattern})")


class UpstreamState:
    """The state of one mock upstream, behind its connections.

    Args:
        accounts: the key of each account; None gives every distinct key an identity of its own:
            `demo-key-NAME` is NAME, others are numbered.
        run: what the ids of this mock's responses and files begin with; two mocks must never make
            the same id, so that an id is known only where it was made.
        takes_files: whether files can be uploaded: then turns may name no others.
        clock: the monotonic clock of the records, in seconds.
        wall_clock: seconds since the epoch, for what the responses say.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        *,
        script: Script,
        accounts: Mapping[str, str] | None,
        strict: bool,
        recording: Recording,
        run: str,
        takes_files: bool,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.strict = strict
        self.recording = recording
        self.clock = clock
        self.sleep = sleep
        self.stored = StoredResponses()
        self.conversations = Conversations(run)
        self._in_background: set[BackgroundResponse] = set()
        self.vector_stores: PerAccount[dict[str, Any]] = PerAccount(_MOST_VECTOR_STORES)
        self.issuer = Issuer(run, wall_clock)
        self._files = FileStore(run)
        self._takes_files = takes_files
        self._wall_clock = wall_clock
        self._script = script
        self._open = accounts is None
        self._names = {key: name for name, key in (accounts or {}).items()}
        self._seen: dict[str, int] = {}
        self._run = run
        self._numbers = count(1)
        self._responses = count(1)
        self._sockets = count(1)

    def next_socket(self) -> int:
        """The number of a new connection."""
        return next(self._sockets)

    def response(self, account: str, request: TurnRequest, answer: Answer) -> ResponseStream:
        """Begin a response, under an id that no other one has."""
        response_id = f"resp_{self._run}{next(self._responses):012x}"
        now = int(self._wall_clock())
        return ResponseStream(response_id, account, request, answer, created_at=now)

    def keep_file(self, account: str, name: str) -> None:
        """Keep an empty file under this id."""
        now = int(self._wall_clock())
        self._files.add(StoredFile(name, account, "file", "user_data", b"", "text/plain", now))

    def file_requests(self, account: str) -> FileRequests:
        """Return what answers an account's requests for files."""
        return FileRequests(self._files, account, int(self._wall_clock()))

    def stored_requests(self, account: str) -> StoredRequests:
        """Return what answers an account's calls about what is stored."""
        return StoredRequests(self, account, int(self._wall_clock()))

    def remember(self, stream: ResponseStream) -> None:
        """Store a response that is over, and add it to its conversation."""
        if stream.request.stored:
            self.stored.remember(stream)
        self.add_to_conversation(stream)

    def add_to_conversation(self, stream: ResponseStream) -> None:
        """Add what was asked and answered to the conversation that the request names, if any."""
        request = stream.request
        name = request.conversation
        found = self.conversations.get(stream.account, name) if name else None
        if found is not None:
            found.add([*request.items, *stream.output], stream.response_id)

    def in_background(
        self, account: str, request: TurnRequest, turn: Turn, answer: Answer, rule: TurnRule
    ) -> BackgroundResponse:
        """Begin a response that is made whether anybody waits or not."""
        stream = self.response(account, request, answer)
        response = BackgroundResponse(stream, self.sleep)
        self._in_background.add(response)
        self.stored.keep(account, response.stored)

        def ended(outcome: str) -> None:
            self._in_background.discard(response)
            self.recording.finish(turn, outcome)
            if outcome == "response.completed":
                self.add_to_conversation(stream)

        response.start(turn, rule, ended)
        return response

    def end_background(self) -> None:
        """Stop everything that is made in the background."""
        for response in list(self._in_background):
            response.end()

    def identify(self, head: Head) -> str | None:
        """Return the account whose key or access token a request carries; None if nobody's."""
        scheme, _, key = head.value("authorization").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        if self.issuer.grants.knows(key):
            return self.issuer.grants.account(key, self._wall_clock())
        if not self._open:
            return self._names.get(key)
        if key not in self._names and len(self._names) < _MOST_IDENTITIES:
            named = _NAMED_KEY.fullmatch(key)
            self._names[key] = named[1] if named else self._next_name()
        return self._names.get(key)

    def answered(self, handshake: Handshake, status: int) -> None:
        """Record the answer to an upgrade."""
        handshake.status = status
        self.recording.changed()

    def ended(self, handshake: Handshake, how: str) -> None:
        """Record how a socket ended; only the first word on it counts."""
        if handshake.ended is None:
            handshake.ended = how
            self.recording.changed()

    def handshake_rule(self, account: str) -> HandshakeRule:
        """Decide what happens to an upgrade, and count it."""
        rule = self._decide(Occasion("handshake", account))
        return rule if isinstance(rule, HandshakeRule) else NORMAL_HANDSHAKE

    def turn_rule(self, account: str, request: TurnRequest) -> TurnRule:
        """Decide what happens to a turn, and count it."""
        on: Literal["turn", "warmup"] = "warmup" if request.warm_up else "turn"
        rule = self._decide(Occasion(on, account, request.model))
        return rule if isinstance(rule, TurnRule) else NORMAL_TURN

    def models_rule(self, account: str) -> ModelsRule:
        """Decide what happens to a question for the models, and count it."""
        rule = self._decide(Occasion("models", account))
        return rule if isinstance(rule, ModelsRule) else NORMAL_MODELS

    def issuer_rule(self, asked: Asked) -> IssuerRule:
        """Decide what happens to a request to the issuer, and count it."""
        on = asked.on
        occasion = on and Occasion(on, self.issuer.account(asked))
        return rule_or_normal(on, occasion and self._decide(occasion))

    def check(self, account: str, request: TurnRequest, latest: str | None) -> None:
        """Check what a turn refers to; `latest` is the response that its socket remembers, if any.

        Raises:
            RefusedError: the previous response or a file is unknown, or content belongs to
                another account.
        """
        previous = request.previous_response_id
        if previous not in {None, latest} and not self.stored.knows(account, previous):
            raise invalid_request(
                f"Previous response with id '{previous[:200]}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        self.check_files(account, request.items)
        missing = request.conversation and self.conversations.missing(account, request.conversation)
        if missing:
            raise RefusedError(missing)
        if request.foreign_encrypted_content(account):
            raise invalid_request(
                "The encrypted content could not be verified. Reason: it was made for another "
                "organization.",
                code="invalid_encrypted_content",
            )

    def check_files(self, account: str, items: list[dict[str, Any]]) -> None:
        """Check the files that items name.

        Raises:
            RefusedError: one is unknown.
        """
        for name in file_ids(items) if self._takes_files else ():
            if self._files.file(account, name) is None:
                raise _no_such_file(name)

    def _next_name(self) -> str:
        taken = set(self._names.values())
        return next(name for n in self._numbers if (name := f"account-{n}") not in taken)

    def _decide(self, occasion: Occasion) -> AnyRule | None:
        decision = decide(self._script, occasion, self._seen)
        for key in decision.counted:
            self._seen[key] = self._seen.get(key, 0) + 1
        return decision.rule


def _no_such_file(name: str) -> RefusedError:
    return RefusedError(
        ErrorSpec(
            status=404,
            type="invalid_request_error",
            code="file_not_found",
            message=f"File with id '{name[:200]}' not found.",
            param="input",
        )
    )
