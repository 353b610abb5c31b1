"""The trust folder in words: who signs what, until when it holds, and what waits for whom."""

from datetime import datetime
from typing import Any

from host.core.lanes import LANES
from registry.trust.repository import TrustRepository
from registry.trust.roles import LIFETIME, OFFLINE, ROLES, THRESHOLDS
from registry.trust.signer import holder_of


def status(repository: TrustRepository, now: datetime) -> dict[str, Any]:
    """For programs: `roles`, each with version, expiry, threshold, keys and approvals; and `pending`."""
    return {
        "roles": {role: found for role in ROLES if (found := _role(repository, role, now)) is not None},
        "pending": [
            {
                "role": waiting.role, "version": waiting.version, "about": waiting.about, "missing": waiting.missing(),
                "signed": [holder.name for holder in waiting.signers()], "file": str(repository.pending_path(waiting.role)),
            }
            for waiting in repository.all_pending()
        ],
    }  # fmt: skip


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    said: list[str] = []
    for role, row in found["roles"].items():
        holds = f"expired {-row['days_left']:.0f} days ago" if row["days_left"] < 0 else f"holds {row['days_left']:.0f} days more"
        approvals = f", {len(row['approvals'])} approvals" if role in LANES else ""
        said.append(f"{role} {row['version']}: {holds}, signed by {row['threshold']} of {', '.join(row['keys'])}{approvals}")
        if row["days_left"] * 4 < LIFETIME[role].days and role in OFFLINE:
            said.append(f"  sign it anew soon: snapcount keys expire {role} --days {LIFETIME[role].days}")
    for waiting in found["pending"]:
        signed = ", ".join(waiting["signed"]) or "nobody"
        said.append(f"pending: {waiting['role']} {waiting['version']} ({waiting['about']}), signed by {signed}")
        said.extend(f"  needs {missing}: snapcount keys sign {waiting['file']} --key NAME.key" for missing in waiting["missing"])
        if not waiting["missing"]:
            said.append("  complete: it is published together with those that it depends on, where the registry's keys are")
    return said or ["nothing is here yet: snapcount keys ceremony begins"]


def _role(repository: TrustRepository, role: str, now: datetime) -> dict[str, Any] | None:
    metadata = repository.current(role)
    root = repository.current("root")
    targets = repository.current("targets")
    above = targets if role in LANES else root
    if metadata is None or above is None:
        return None
    rule = above.signed.get_delegated_role(role)
    row = {
        "version": metadata.signed.version, "expires": metadata.signed.expires.isoformat(),
        "days_left": (metadata.signed.expires - now).total_seconds() / 86_400, "threshold": rule.threshold,
        "keys": [holder_of(above.signed.get_key(keyid)).label for keyid in rule.keyids],
    }  # fmt: skip
    if role in LANES:
        row["approvals"] = sorted(metadata.signed.targets)
    return row


assert set(THRESHOLDS) == set(ROLES), "every role has a threshold"
