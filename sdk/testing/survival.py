"""Whether a skill, and the host that runs it, come through a fault: the contract of a call that meets one, checked."""

from collections.abc import Sequence

from host.core.errors import Busy, SnapcountError
from host.core.limits import DEFAULT
from host.sandbox.skill import SkillInstance
from sdk.testing.faults import Fault
from sdk.testing.host import FakeHost, Request
from sdk.testing.outcome import Outcome, outcome_of
from sdk.testing.scripts import Script


class ContractBroken(AssertionError):
    """A call that met a fault, or one after it, did not end as the contract wants."""


def require_survives(host: FakeHost, hook: str, request: Request, fault: Fault, before: Sequence[Request] = ()) -> Outcome:
    """Makes a call with a fault, and checks what must hold; how that call ended. The host is reset first, and `before` is asked without the fault.

    - The call ends with a reply, a sound error reply, or the one typed error that the fault means.
    - No instance of a fresh core module is left over (to count components takes too long), and the envelope is not tripped.
    - The next call without the fault ends with a reply or a sound error reply.
    - On a host that was reset, the call ends as it would have without the fault.

    Raises ContractBroken that says which of these does not.
    """
    script = Script(hook, request, tuple(before))
    expected = script.ask(host)
    script.prepare(host)
    free = _free_instances(host)
    with host.fault(fault):
        ended = outcome_of(lambda: host.ask(hook, request))
    said = f"{hook} {fault.in_words}"
    if ended.problem and not (ended.kind == "fault" and fault.may_end(ended.code)):
        raise ContractBroken(f"{said}: expected a reply, an error reply or the fault's own error, got {ended.problem}")
    if _free_instances(host) != free:
        raise ContractBroken(f"{said}: an instance is left over")
    if host.envelope.tripped is not None:
        raise ContractBroken(f"{said}: the machine is in safe mode afterwards: {host.envelope.tripped.reason}")
    after = outcome_of(lambda: host.ask(hook, request))
    if after.problem:
        raise ContractBroken(f"{said}: the next call, without the fault, got {after.problem}")
    anew = script.ask(host)
    if not anew.same(expected):
        raise ContractBroken(f"{said}: on a new host the same call then got {anew.in_words}, and {expected.in_words} before")
    return ended


def _free_instances(host: FakeHost) -> int:
    """How many instances there is room for in this process now; 0 where that is not looked at: a persistent skill keeps one, until a fault takes it."""
    if host.loaded.path == "component" or host.manifest.instance != "fresh":
        return 0
    held: list[SkillInstance] = []
    try:
        while len(held) < DEFAULT.instances_max:
            held.append(host.loaded.instance())
    except Busy:
        pass
    except SnapcountError:
        return -1  # it cannot be instantiated at all, and its calls say so
    finally:
        for instance in held:
            instance.close()
    return len(held)
