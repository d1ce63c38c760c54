"""Sign-in by device code: the person types a code in on any device, and the program polls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from codexlb_cli.core.signin import SLOWER_SECONDS, Poll
from codexlb_cli.signin.issuer import (
    DeviceCode,
    IssuerClient,
    IssuerUnavailable,
    Polled,
    SignInRefused,
)
from codexlb_cli.signin.terminal import Terminal
from codexlb_cli.store.logins import Login

MOST_SECONDS = 900.0


async def sign_in_by_device(
    issuer: IssuerClient,
    terminal: Terminal,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
    seconds: float = MOST_SECONDS,
) -> Login:
    """Show a code, and wait until the person has typed it in.

    Args:
        issuer: who signs people in.
        terminal: the person.
        clock: a monotonic clock, in seconds.
        sleep: waits for so many seconds.
        seconds: how long to wait for the person.

    Raises:
        SignInRefused: the person or the issuer said no, or nobody answered in time.
        IssuerUnavailable: the issuer cannot be asked, or answers what makes no sense.
    """
    ends_at = clock() + seconds
    device = await issuer.begin_device()
    terminal.say(f"open this page on any device, and enter the code:\n\n{device.page}\n")
    terminal.say(f"    {device.user_code}\n")
    terminal.say(f"waiting, {seconds / 60:g} minutes at most; Ctrl-C gives up")
    interval = device.interval_seconds
    while clock() + interval < ends_at:
        await sleep(interval)
        polled = await _poll(issuer, device)
        match polled.meaning:
            case Poll.APPROVED:
                return await issuer.redeem_device(polled)
            case Poll.SLOWER:
                interval += SLOWER_SECONDS
            case Poll.DENIED | Poll.EXPIRED | Poll.REFUSED:
                raise _refused(issuer, polled)
            case Poll.PENDING | Poll.TROUBLE:
                pass
    raise SignInRefused(
        f"nobody entered the code within {seconds / 60:g} minutes",
        reason="timeout",
    )


async def _poll(issuer: IssuerClient, device: DeviceCode) -> Polled:
    """Poll; a network that fails for a moment is no reason to give up."""
    try:
        return await issuer.poll_device(device)
    except IssuerUnavailable as exc:
        if exc.answered:
            raise
        return Polled(Poll.TROUBLE)


def _refused(issuer: IssuerClient, polled: Polled) -> SignInRefused:
    match polled.meaning:
        case Poll.DENIED:
            message = "the sign-in was refused on the other device"
        case Poll.EXPIRED:
            message = "the code is no longer valid"
        case _:
            message = f"`{issuer.url}` refused the sign-in: {polled.reason}"
    return SignInRefused(message, reason=polled.reason)
