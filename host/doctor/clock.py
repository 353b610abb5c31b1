"""Whether this machine knows what time it is: certificates, messages and approvals hold for a time only."""

from collections.abc import Iterator
from datetime import UTC, datetime

from host.doctor.finding import Finding
from host.doctor.subject import Subject

CHECK = "clock"
YEARS_AHEAD_MAX = 20
YEAR_S = 365 * 86_400
NTP = "switch it on with `timedatectl set-ntp true`"


def check(subject: Subject) -> Iterator[Finding]:
    now_s, built_s = subject.probes.now_s(), subject.probes.built_s()
    if now_s < built_s:
        yield Finding(CHECK, "fail", f"it is {day(now_s)} here, before this host was made on {day(built_s)}", f"set the clock; {NTP}")
    elif now_s > built_s + YEARS_AHEAD_MAX * YEAR_S:
        yield Finding(CHECK, "fail", f"it is {day(now_s)} here, {YEARS_AHEAD_MAX} years after this host was made", f"set the clock; {NTP}")
    else:
        yield Finding(CHECK, "ok", f"it is {day(now_s)} here, after this host was made on {day(built_s)}")
    yield _synchronised(subject.probes.clock_synchronised())


def _synchronised(synchronised: bool | None) -> Finding:
    if synchronised is None:
        return Finding(
            CHECK, "warn", "the kernel does not say whether its clock is synchronised", "see to it that NTP runs where the clock is kept"
        )
    if synchronised:
        return Finding(CHECK, "ok", "it is synchronised (NTP)")
    return Finding(CHECK, "warn", "nothing keeps it right: it is not synchronised", NTP)


def day(at_s: float) -> str:
    """A date for people, in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
