"""Refreshing across requests, gateways and processes: once, kept before it is used."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from codexlb_cli.config.files import locked
from codexlb_cli.core.turn_events import Refreshed, RefreshFailed, RefreshOutcome
from codexlb_cli.errors import UpstreamError
from codexlb_cli.signin.refresh import IssuerAnswer
from codexlb_cli.signin.refresher import AGAIN_SECONDS, Refresher
from codexlb_cli.store.credentials import Credentials
from codexlb_cli.store.logins import Login
from codexlb_cli.store.rotations import note_path
from codexlb_cli.store.secrets import Secret
from tests.core.pools import NOW
from tests.signin.refreshing import PLAN
from tests.store.test_logins import LEAK, a_login
from tests.support.cli import ROOT
from tests.support.gateway import Clock
from tests.support.issuer import Issuer, issuing


@dataclass
class Asked:
    """An issuer in memory: answers in turn; the last one again and again."""

    answers: list[IssuerAnswer | Exception]
    asked: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    before_answer: Callable[[], object] = lambda: None

    def __call__(self, url: str, members: Mapping[str, str]) -> IssuerAnswer:
        self.asked.append(members["refresh_token"])
        self.reasons.append(members["refresh_reason"])
        self.before_answer()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def given(number: int) -> IssuerAnswer:
    login = a_login(number)
    assert login.refresh_token is not None
    tokens = {
        "access_token": login.access_token.reveal(),
        "refresh_token": login.refresh_token.reveal(),
    }
    return IssuerAnswer(200, tokens)


ENDED = IssuerAnswer(401, {"error": {"code": "refresh_token_reused"}})
BROKEN = UpstreamError("the issuer cannot be reached (ConnectError)")


@dataclass
class Stand:
    """A stored login, and a refresher of it."""

    credentials: Credentials
    refresher: Refresher
    issuer: Asked
    clock: Clock
    warnings: list[str]

    def refresh(self, refused: Login | None = None) -> RefreshOutcome:
        token = refused.access_token if refused is not None else None
        return self.refresher.refresh_now("plan", token)

    @property
    def stored(self) -> Login | None:
        return Credentials(self.credentials.folder, {}).login("plan")


def stand(folder: Path, *answers: IssuerAnswer | Exception, login: Login | None = None) -> Stand:
    credentials, issuer, clock = Credentials(folder, {}), Asked(list(answers)), Clock(NOW)
    credentials.store_login("plan", login or a_login(1))
    warnings: list[str] = []
    refresher = Refresher(
        Credentials(folder, {}),
        folder,
        post=issuer,
        now=clock,
        clock=clock,
        warn=warnings.append,
    )
    return Stand(credentials, refresher, issuer, clock, warnings)


def test_a_refused_token_is_replaced_and_kept(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2), given(3))
    assert it.refresh(a_login(1)) == Refreshed()
    assert it.stored is not None
    assert it.stored.access_token == a_login(2).access_token
    assert it.stored.refresh_token == a_login(2).refresh_token
    assert it.stored.id_token == a_login(1).id_token
    assert it.stored.refreshed_at == NOW
    assert it.refresh(it.stored) == Refreshed()
    assert it.issuer.asked == [f"refresh-{LEAK}-1", f"refresh-{LEAK}-2"]
    assert it.issuer.reasons == ["unauthorized_recovery"] * 2


def test_what_another_process_refreshed_is_not_refreshed_again(tmp_path: Path) -> None:
    it = stand(tmp_path, given(9))
    it.credentials.store_login("plan", a_login(2))
    assert it.refresh(a_login(1)) == Refreshed()
    assert it.refresh() == Refreshed()  # nor what is not due
    assert it.issuer.asked == []


def test_what_is_due_is_refreshed_once(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2), login=a_login(1, exp=NOW + 300, iat=NOW - 3300))
    it.clock.advance(1800)
    assert it.refresh() == Refreshed()
    assert it.refresh() == Refreshed()
    assert it.issuer.reasons == ["proactive_expiry"]


def test_who_is_not_signed_in_cannot_be_refreshed(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    it.credentials.forget("plan")
    assert it.refresh() == RefreshFailed("not_signed_in")


def test_a_login_that_has_ended_is_asked_for_once(tmp_path: Path) -> None:
    it = stand(tmp_path, ENDED)
    for _ in range(3):
        assert it.refresh(a_login(1)) == RefreshFailed("refresh_token_reused")
    assert len(it.issuer.asked) == 1
    assert it.stored == a_login(1)
    it.credentials.store_login("plan", a_login(5))  # the person signs in again
    it.issuer.answers = [given(6)]
    assert it.refresh(a_login(1)) == Refreshed()
    assert it.refresh(a_login(5)) == Refreshed()
    assert it.issuer.asked[1:] == [f"refresh-{LEAK}-5"]


def test_failures_that_blame_nobody_are_spaced(tmp_path: Path) -> None:
    it = stand(tmp_path, BROKEN, IssuerAnswer(500, None), IssuerAnswer(200, None), given(2))
    for asked, pause in enumerate((AGAIN_SECONDS, 2 * AGAIN_SECONDS, 4 * AGAIN_SECONDS), 1):
        for _ in range(3):
            assert it.refresh(a_login(1)) == RefreshFailed()
        assert len(it.issuer.asked) == asked
        it.clock.advance(pause - 0.1)
        assert it.refresh(a_login(1)) == RefreshFailed()
        it.clock.advance(0.1)
    assert it.refresh(a_login(1)) == Refreshed()
    assert it.warnings == []


def test_a_new_login_ends_the_wait(tmp_path: Path) -> None:
    it = stand(tmp_path, BROKEN)
    assert it.refresh(a_login(1)) == RefreshFailed()
    it.credentials.store_login("plan", a_login(2))
    assert it.refresh(a_login(1)) == Refreshed()


def test_an_answer_without_access_token_keeps_what_it_has(tmp_path: Path) -> None:
    it = stand(tmp_path, IssuerAnswer(200, {"refresh_token": "rotated"}))
    assert it.refresh(a_login(1)) == RefreshFailed()
    assert it.stored is not None
    assert it.stored.refresh_token == Secret("rotated")
    assert it.stored.access_token == a_login(1).access_token


def test_a_login_stored_meanwhile_wins(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    it.issuer.before_answer = lambda: it.credentials.store_login("plan", a_login(7))
    assert it.refresh(a_login(1)) == Refreshed()
    assert it.stored == a_login(7)


def test_an_account_that_was_removed_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    it.issuer.before_answer = lambda: it.credentials.forget("plan")
    it.refresh(a_login(1))
    assert it.stored is None


def test_what_cannot_be_kept_is_kept_in_mind(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2), given(3))

    def in_the_way() -> None:
        it.credentials.file.rename(tmp_path / "aside")
        it.credentials.file.mkdir()

    it.issuer.before_answer = in_the_way
    assert it.refresh(a_login(1)) == RefreshFailed()
    assert [LEAK in warning for warning in it.warnings] == [False]
    it.issuer.before_answer = lambda: None
    it.clock.advance(AGAIN_SECONDS)
    assert it.refresh(a_login(1)) == RefreshFailed()
    assert len(it.issuer.asked) == 1, "a used up token is not sent again"
    it.credentials.file.rmdir()
    (tmp_path / "aside").rename(it.credentials.file)
    it.clock.advance(10 * AGAIN_SECONDS)
    assert it.refresh(a_login(1)) == Refreshed()
    assert len(it.issuer.asked) == 1
    assert it.stored is not None
    assert it.stored.refresh_token == a_login(2).refresh_token
    assert len(it.warnings) == 1


def test_parallel_requests_share_one_refresh(tmp_path: Path) -> None:
    with issuing(lambda: NOW) as issuer:
        credentials = Credentials(tmp_path, {})
        old = issuer.login()
        credentials.store_login("plan", old)
        refresher = Refresher(credentials, tmp_path)

        async def main() -> None:
            waiting = [
                asyncio.create_task(refresher.refresh(PLAN, old.access_token)) for _ in range(20)
            ]
            assert set(await asyncio.gather(*waiting)) == {Refreshed()}

        asyncio.run(main())
        assert len(issuer.asked) == 1
        assert credentials.login("plan") != old


def test_two_gateways_on_one_file_refresh_once(tmp_path: Path) -> None:
    with issuing(lambda: NOW) as issuer:
        old = issuer.login()
        Credentials(tmp_path, {}).store_login("plan", old)
        every = [Refresher(Credentials(tmp_path, {}), tmp_path) for _ in range(4)]

        async def main() -> None:
            outcomes = await asyncio.gather(*(r.refresh(PLAN, old.access_token) for r in every))
            assert set(outcomes) == {Refreshed()}

        asyncio.run(main())
        assert len(issuer.asked) == 1


def test_who_leaves_does_not_end_the_refresh(tmp_path: Path) -> None:
    with issuing(lambda: NOW) as issuer:
        credentials = Credentials(tmp_path, {})
        old = issuer.login()
        credentials.store_login("plan", old)
        refresher = Refresher(credentials, tmp_path)
        issuer.hold.clear()

        async def main() -> None:
            waiting = asyncio.create_task(refresher.refresh(PLAN, old.access_token))
            await asyncio.to_thread(issuer.arrived.wait)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert refresher.busy
            issuer.hold.set()
            # Whoever comes meanwhile has the refresh that was left, and no second one.
            assert await refresher.refresh(PLAN, old.access_token) == Refreshed()

        asyncio.run(main())
        assert len(issuer.asked) == 1
        kept = credentials.login("plan")
        assert kept is not None
        assert kept.refresh_token == Secret("refresh-2")


def test_a_token_that_another_one_found_in_order_is_refreshed_after_all(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    entered, go_on = threading.Event(), threading.Event()

    def now() -> float:
        entered.set()
        go_on.wait(20)
        return NOW

    refresher = Refresher(it.credentials, tmp_path, post=it.issuer, now=now, clock=it.clock)

    async def main() -> None:
        first = asyncio.create_task(refresher.refresh(PLAN))  # finds that it is not due
        await asyncio.to_thread(entered.wait)
        second = asyncio.create_task(refresher.refresh(PLAN, a_login(1).access_token))
        await asyncio.sleep(0)
        go_on.set()
        assert await first == await second == Refreshed()

    asyncio.run(main())
    assert it.issuer.asked == [f"refresh-{LEAK}-1"]


def test_while_another_process_refreshes_nothing_is_asked(tmp_path: Path) -> None:
    it = stand(tmp_path, given(9))
    with locked(tmp_path / "refresh-plan.lock"):
        thread = threading.Thread(target=it.refresh, args=(a_login(1),))
        thread.start()
        it.credentials.store_login("plan", a_login(2))
    thread.join()
    assert it.issuer.asked == []


def killed_while_storing(it: Stand) -> None:
    """Refresh in a process that ends after the answer was noted, before it is stored."""

    class Died(BaseException):
        pass

    class Dying(Credentials):
        def store_login(self, *_: object, **__: object) -> bool:
            raise Died

    folder = it.credentials.folder
    dying = Refresher(Dying(folder, {}), folder, post=it.issuer, now=it.clock, clock=it.clock)
    with pytest.raises(Died):
        dying.refresh_now("plan", a_login(1).access_token)
    assert it.stored == a_login(1)


def test_what_a_killed_process_noted_is_found(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2), ENDED)
    killed_while_storing(it)
    note = note_path(tmp_path, "plan")
    assert (note.stat().st_mode & 0o777) == 0o600
    assert it.refresh(a_login(1)) == Refreshed()
    assert it.stored is not None
    assert it.stored.refresh_token == a_login(2).refresh_token
    assert it.issuer.asked == [f"refresh-{LEAK}-1"]


def test_a_note_of_an_earlier_login_is_of_no_use(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2), given(6))
    killed_while_storing(it)
    it.credentials.store_login("plan", a_login(5))
    assert it.refresh(a_login(5)) == Refreshed()
    assert it.issuer.asked[1:] == [f"refresh-{LEAK}-5"]
    assert not note_path(tmp_path, "plan").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"used": 1, "login": {}}'])
def test_a_broken_note_is_passed_over(tmp_path: Path, content: bytes) -> None:
    it = stand(tmp_path, given(2))
    note_path(tmp_path, "plan").write_bytes(content)
    note_path(tmp_path, "plan").chmod(0o600)
    assert it.refresh(a_login(1)) == Refreshed()
    assert len(it.issuer.asked) == 1


def test_a_note_that_others_could_have_written_is_not_believed(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2), ENDED)
    killed_while_storing(it)
    note_path(tmp_path, "plan").chmod(0o666)
    assert it.refresh(a_login(1)) == RefreshFailed("refresh_token_reused")


def test_a_removed_account_leaves_no_note(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    killed_while_storing(it)
    it.credentials.forget("plan")
    assert {path.name for path in tmp_path.iterdir()} == {
        "credentials.toml", "credentials.lock", "refresh-plan.lock",
    }  # fmt: skip


def test_where_nothing_can_be_kept_nothing_is_asked(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    note_path(tmp_path, "plan").mkdir()
    assert it.refresh(a_login(1)) == RefreshFailed()
    assert it.issuer.asked == []
    assert len(it.warnings) == 1


def test_a_keyring_s_login_is_noted_nowhere(tmp_path: Path) -> None:
    it = stand(tmp_path, given(2))
    it.issuer.before_answer = lambda: seen.extend(p.name for p in tmp_path.iterdir())
    seen: list[str] = []
    refresher = Refresher(it.credentials, tmp_path, post=it.issuer, notes=False)
    assert refresher.refresh_now("plan", a_login(1).access_token) == Refreshed()
    assert "refresh-plan.lock" in seen
    assert "refresh-plan.note" not in seen


# --- kill -9 ----------------------------------------------------------------------------------

KILLS = int(os.environ.get("KILLS", "6"))


def test_a_crash_loses_no_login_but_in_transit(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Killed at any moment of a refresh, what was handed out is kept, and so is what came after.

    What the issuer has given and the process has not read and noted yet is lost with it; how often
    that was hit is reported.
    """
    chance, lost, handed_out = random.Random(7), 0, 0
    with issuing(time.time) as issuer:
        credentials = Credentials(tmp_path, {})
        credentials.store_login("plan", issuer.login())
        for _ in range(KILLS):
            told = _killed(tmp_path, issuer, chance)
            handed_out += len(told)
            assert [f"refresh-{_first(told) + n}" for n in range(len(told))] == told
            stored = _number(credentials)
            assert stored >= _first(told) + len(told) - 1, "kept, then used"
            assert stored in (issuer.number, issuer.number - 1)
            assert (credentials.file.stat().st_mode & 0o777) == 0o600
            login = credentials.login("plan")
            assert login is not None
            outcome = Refresher(credentials, tmp_path).refresh_now("plan", login.access_token)
            if outcome != Refreshed():
                assert outcome == RefreshFailed("refresh_token_reused")
                lost += 1
                issuer.number = stored  # as if the person had signed in again
            else:
                assert _number(credentials) == issuer.number
    assert handed_out > KILLS
    record_property("lost in transit", lost)
    sys.stdout.write(f"{KILLS} kills, {handed_out} refreshes, {lost} lost in transit\n")


def _killed(folder: Path, issuer: Issuer, chance: random.Random) -> list[str]:
    """Refresh in a process of its own, and kill it at some moment; return what it handed out."""
    refreshes = chance.randrange(2, 8)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.signin.refreshing", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(refreshes)]
    issuer.arrived.clear()
    issuer.arrived.wait(20)
    time.sleep(chance.random() * 0.01)  # anywhere in a refresh; nothing is awaited by it
    process.kill()
    told += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    return told


def _first(told: list[str]) -> int:
    return int(told[0].removeprefix("refresh-"))


def _number(credentials: Credentials) -> int:
    document = tomllib.loads(credentials.file.read_text())
    token: str = document["accounts"]["plan"]["login"]["refresh_token"]
    return int(token.removeprefix("refresh-"))
