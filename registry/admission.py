"""Whether a roll-out or an action on one may be taken: not too old, not a second time, of a bundle that is here, and not while another one runs."""

from collections.abc import Mapping

from host.core import cose
from host.core.errors import Replayed, TooLarge, Untimely, UsageError
from host.core.limits import DEFAULT
from registry.releases import Releases
from registry.rollout_document import Action, Rollout
from registry.rollout_store import Live, RolloutStore

DOCUMENT_AGE_MS_MAX = 86_400_000


def admit(wanted: Rollout, live: Mapping[str, Live], store: RolloutStore, releases: Releases, now_ms: int) -> None:
    """Raises Untimely, Replayed, TooLarge, UsageError."""
    what = f"roll-out {wanted.id}"
    if abs(now_ms - wanted.issued_ms) > DOCUMENT_AGE_MS_MAX:
        raise Untimely(f"{what}: its document was signed more than a day from now; is a clock wrong? sign it anew")
    if store.exists(wanted.id):
        raise Replayed(f"{what}: there is one with this id already; a document is taken once")
    _one_of_a_skill(wanted, live)
    held = releases.get(wanted.digest)
    if held is None:
        raise UsageError(f"{what}: this registry does not hold {wanted.digest[:19]}…; upload the bundle first")
    if (held.manifest.name, held.manifest.version, held.size) != (wanted.name, wanted.version, wanted.size):
        found = f"{held.manifest.name} {held.manifest.version} of {held.size} bytes"
        raise UsageError(f"{what}: names {wanted.name} {wanted.version} of {wanted.size} bytes, but the bundle is {found}")
    if wanted.previous is not None and releases.get(wanted.previous.digest) is None:
        raise UsageError(
            f"{what}: this registry does not hold the previous version {wanted.previous.digest[:19]}…, so nobody could go back to it"
        )


def admit_action(action: Action, signer: bytes, live: Mapping[str, Live], store: RolloutStore, now_ms: int) -> None:
    """Raises Untimely, Replayed, UsageError."""
    if abs(now_ms - action.at_ms) > DEFAULT.action_age_s_max * 1000:
        raise Untimely(
            f"roll-out action {action.action}: signed more than {DEFAULT.action_age_s_max} s from now; is a clock wrong? sign it anew"
        )
    if store.nonce_is_known(action.nonce):
        raise Replayed(f"roll-out action {action.action}: this very document was taken before; sign a new one")
    if action.id not in live:
        raise UsageError(f"roll-out {action.id}: none that can be changed has this id")
    if action.action == "approve" and live[action.id].signer == signer:
        raise UsageError(
            f"roll-out {action.id}: the lane safety needs a second operator; {cose.key_name(signer)[:20]}… signed the document itself"
        )


def _one_of_a_skill(wanted: Rollout, live: Mapping[str, Live]) -> None:
    same = [other.state for other in live.values() if other.state.document.name == wanted.name]
    for state in same:
        if state.header.is_open:
            raise UsageError(
                f"roll-out {wanted.id}: {state.document.id} of {wanted.name} is {state.header.status}; let it end or abort it first"
            )
    if not same and len(live) >= DEFAULT.rollouts_active_max:
        raise TooLarge(f"roll-out {wanted.id}: {len(live)} skills have a roll-out here, and this registry takes no more")
