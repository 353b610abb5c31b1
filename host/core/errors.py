"""Every error that Snapcount raises on purpose. One tree:

SnapcountError                 code, exit_code, and a message of one line
├── GuestError                 a skill did something wrong; its caller pays, the host goes on
│   ├── GuestTrap              unreachable, out-of-bounds access, division by zero, stack overflow …
│   ├── FuelExhausted          it used more instructions than its limit
│   ├── DeadlineExceeded       it ran longer than its limit
│   ├── MemoryExceeded         it needs more memory or table than its limit
│   ├── ReplyInvalid           a pointer out of bounds, a reply too long, not CBOR, or not the contract's shape
│   ├── HostCallsExceeded      it called the host more often, or logged more, than its limit
│   └── SkillRefused           it answered with an error reply of its own
├── UntrustedInput             bytes from outside are not what they claim to be; nothing was changed
│   ├── MalformedData          not deterministic CBOR, or not the expected shape
│   ├── MalformedModule        not a WebAssembly module that ABI 1 allows
│   ├── SignatureInvalid       unsigned, wrongly signed, or signed by a key that is not trusted
│   ├── CertificateInvalid     chain, validity or revocation
│   ├── DigestMismatch         the bytes are not the ones that were named
│   ├── TooLarge               a bound of host/core/limits.py was crossed
│   ├── Untimely               a message past its time to live, or from the future
│   ├── Replayed               a message or frame that came before
│   ├── UnknownSender          no certificate vouches for who sent it, or it may not send such a thing
│   ├── Flooded                more connections or frames than a peer may send
│   ├── OciRefused             a request that a registry answers with an error of the OCI Distribution API
│   └── Incompatible           a sound bundle that this node cannot run: ABI, generation, hooks
├── Refused                    policy said no
│   ├── CapabilityDenied       the node's owner did not allow what was asked for
│   ├── NotApproved            no operator's approval that is current names this bundle
│   │   └── TrustExpired       what is known of approvals is too old to rely on
│   ├── Quarantined            a signed policy of the node's operators disables this skill, or this hook of it
│   └── UnsafeCommand          the safety envelope refused a command
│       └── SafeMode           everything is refused until the owner resets
├── HostFault                  the node itself
│   ├── HostAltered            a host file differs from what was installed
│   ├── StateDamaged           a file under STATE cannot be used
│   ├── StorageFull            the disk or a quota is full; nothing was half-written
│   ├── Busy                   every instance slot is taken, or the instance is in a call
│   └── MachineError           a machine refused a line, cannot be reached, or may not move as it stands
│       └── MachineAlarm       its controller went into an alarm, and moves nothing until a person has seen to it
├── NetworkError               a peer did not answer, died half-way or broke the protocol
│   └── NotServed              every source answered, and none has what was asked for
└── UsageError                 our own caller's mistake: a bad argument, a missing file

A boundary (wasm, plugin, network, disk) wraps what it catches in one of these, with `from`.
"""


class SnapcountError(Exception):
    """The root. `code` is for programs (lower_snake_case), `exit_code` for shells; str() is one line for people."""

    code = "snapcount_error"
    exit_code = 1


class GuestError(SnapcountError):
    """A skill misbehaved during a call. It does not mean that the host or another skill was harmed. Catch it around hook calls."""

    code = "guest_error"
    exit_code = 10


class GuestTrap(GuestError):
    """The guest trapped. `backtrace` has the guest's frames, innermost first, sanitised. It was not stopped by a limit."""

    code = "guest_trap"

    def __init__(self, message: str, backtrace: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.backtrace = backtrace


class FuelExhausted(GuestTrap):
    """The call used up its fuel. It does not mean that it took long: see DeadlineExceeded."""

    code = "fuel_exhausted"


class DeadlineExceeded(GuestTrap):
    """The call's wall-clock deadline passed, and it was interrupted."""

    code = "deadline_exceeded"


class MemoryExceeded(GuestError):
    """The module needs, or sc_alloc could not find, more memory or table than the limit allows."""

    code = "memory_exceeded"


class ReplyInvalid(GuestError):
    """The call ended, but what it gave back is no reply: a span outside its memory, too long, not CBOR, not the contract's shape."""

    code = "reply_invalid"


class HostCallsExceeded(GuestError):
    """The call asked the host for too much: too many host calls, or too many bytes of log."""

    code = "host_calls_exceeded"


class SkillRefused(GuestError):
    """The skill answered with an error reply. `skill_code` is its own code. It is an answer, not a malfunction."""

    code = "skill_refused"

    def __init__(self, message: str, skill_code: str) -> None:
        super().__init__(message)
        self.skill_code = skill_code


class UntrustedInput(SnapcountError):
    """Bytes from outside were refused before anything was changed. Catch it where input enters."""

    code = "untrusted_input"
    exit_code = 20


class MalformedData(UntrustedInput):
    """The bytes are not deterministic CBOR, or not the shape that was expected there."""

    code = "malformed_data"


class MalformedModule(UntrustedInput):
    """The bytes are not a WebAssembly module that ABI 1 allows, or it takes too much to compile."""

    code = "malformed_module"


class SignatureInvalid(UntrustedInput):
    """No valid signature by a trusted key. It does not say who made the bytes."""

    code = "signature_invalid"


class CertificateInvalid(UntrustedInput):
    """A certificate's chain, validity or revocation check failed."""

    code = "certificate_invalid"


class DigestMismatch(UntrustedInput):
    """The bytes do not have the digest that they were asked for by."""

    code = "digest_mismatch"


class TooLarge(UntrustedInput):
    """A bound of host/core/limits.py was crossed before anything was read further."""

    code = "too_large"


class Untimely(UntrustedInput):
    """A message that is past its time to live, or was created later than now. It may have been sound; or a clock is wrong."""

    code = "untimely"


class Replayed(UntrustedInput):
    """A message or frame with an id or sequence that was taken before, or one too old to tell. What came first has had its effect."""

    code = "replayed"


class UnknownSender(UntrustedInput):
    """No certificate that is trusted here vouches for the sender, or its role may not send such a message."""

    code = "unknown_sender"


class Flooded(UntrustedInput):
    """A peer connects or sends more often than it may. Waiting helps."""

    code = "flooded"


class OciRefused(UntrustedInput):
    """A request that a registry answers with an error. `oci_code` and `status` are those of the OCI Distribution API, on both ends of the wire."""

    code = "oci_refused"

    def __init__(self, message: str, oci_code: str, status: int) -> None:
        super().__init__(message)
        self.oci_code, self.status = oci_code, status


class Incompatible(UntrustedInput):
    """A sound bundle that this node cannot run: another ABI, another hardware generation, hooks this host does not know."""

    code = "incompatible"


class Refused(SnapcountError):
    """A policy of the node's owner said no. Trying again changes nothing."""

    code = "refused"
    exit_code = 30


class CapabilityDenied(Refused):
    """A capability was asked for that the owner does not allow."""

    code = "capability_denied"


class Quarantined(Refused):
    """A policy of the node's operators disables the skill or the hook that was called. It was not called; it may be again once the policy is lifted."""

    code = "quarantined"


class NotApproved(Refused):
    """No current approval (docs/trust.md) names this very bundle, or not in the lane that it needs. It may be approved later."""

    code = "not_approved"


class TrustExpired(NotApproved):
    """The trust metadata at hand has expired: approvals in it count no more. It says nothing of the bundle; a refresh helps."""

    code = "trust_expired"


class UnsafeCommand(Refused):
    """The safety envelope refused a command; the driver never saw it."""

    code = "unsafe_command"


class SafeMode(UnsafeCommand):
    """The envelope has tripped: every command is refused until the owner resets it with `snapcount node reset`."""

    code = "safe_mode"


class HostFault(SnapcountError):
    """Something is wrong with the node itself."""

    code = "host_fault"
    exit_code = 40


class HostAltered(HostFault):
    """A file of the host differs from the digest it was installed with."""

    code = "host_altered"


class StateDamaged(HostFault):
    """A file under STATE is missing, unreadable, or not what was written there."""

    code = "state_damaged"


class StorageFull(HostFault):
    """The disk or a quota is full. What was there before is intact."""

    code = "storage_full"


class Busy(HostFault):
    """Every instance slot is in use, or this instance is in a call. Trying again later can succeed."""

    code = "busy"


class MachineError(HostFault):
    """A machine's controller refused a line, cannot be reached, or may not move as it stands. Lines before it may have been carried out.

    `machine_code` is the controller's own number, 0 without one; `line` and `text` are the line that it belongs to, 0 and empty for none.
    """

    code = "machine_error"

    def __init__(self, message: str, *, machine_code: int = 0, line: int = 0, text: str = "") -> None:
        super().__init__(message)
        self.machine_code, self.line, self.text = machine_code, line, text


class MachineAlarm(MachineError):
    """The controller went into an alarm: it stopped, and does nothing until a person has seen to it. It may have lost its position."""

    code = "machine_alarm"


class NetworkError(SnapcountError):
    """A peer did not answer, died half-way or broke the protocol. What was there before is intact."""

    code = "network_error"
    exit_code = 50


class NotServed(NetworkError):
    """Every source answered that it does not serve this. Asking again soon changes nothing; a link that is down is a NetworkError."""


class UsageError(SnapcountError):
    """Our own caller's mistake: a bad argument, a missing file, a name that is a path."""

    code = "usage_error"
    exit_code = 2
